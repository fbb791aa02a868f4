//! Stand-in.

pub mod error;
pub mod pool;
pub mod read;
mod rows;
pub use error::StoreError;
pub use pool::{Pool, PoolOptions};
