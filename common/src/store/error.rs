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

impl StoreError {
    /// Stand-in.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Connection(_))
    }
}
