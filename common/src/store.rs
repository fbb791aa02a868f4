//! PostgreSQL, reading: the pool of connections and the only SQL that asks questions.
//!
//! Statements that write are the indexer's and live in its crate. Rows and the types of diesel and tokio-postgres
//! stay behind this door; [`Pool::connection`] alone hands one out, for the indexer's own store.

pub mod error;
pub mod pool;
pub mod read;
mod rows;
pub mod sql;

pub use error::StoreError;
pub use pool::{Pool, PoolOptions, PoolStatus};
