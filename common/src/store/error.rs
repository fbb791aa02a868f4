//! Stand-in.

/// Stand-in.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Stand-in.
    #[error("query failed: {0}")]
    Query(#[from] diesel::result::Error),
    /// Stand-in.
    #[error("no connection: {0}")]
    Connection(String),
    /// Stand-in.
    #[error("the index holds what cannot be read: {what}")]
    Corrupt { what: &'static str },
}
impl StoreError {
    /// Stand-in.
    pub fn is_retryable(&self) -> bool {
        true
    }
    /// Stand-in.
    pub fn is_lost_race(&self) -> bool {
        false
    }
}
