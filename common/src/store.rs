//! Stand-in.

pub mod error;
pub mod pool;
pub mod read;
mod rows;
