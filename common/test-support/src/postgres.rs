//! A private PostgreSQL, and a database of its own for every test.

mod database;
mod server;
mod template;

pub use database::TestDatabase;
pub use server::{READER_ROLE, Server, ServerUrl};
pub use template::migrated_up_down_up;
