//! A private PostgreSQL, and a database of its own for every test.

mod database;
mod server;
mod template;

pub use database::TestDatabase;
pub use server::{READER_ROLE, Server, ServerUrl, find_binaries};
pub use template::{migrated, migrated_up_down_up};
