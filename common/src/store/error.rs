//! Stand-in.

/// Stand-in.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Stand-in.
    #[error("query failed")]
    Query(#[from] diesel::result::Error),
    /// Stand-in.
    #[error("no connection: {0}")]
    Connection(String),
}
