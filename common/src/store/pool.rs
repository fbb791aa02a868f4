//! Stand-in.
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, deadpool};

use super::error::StoreError;

/// Stand-in.
#[derive(Clone)]
pub struct Pool(deadpool::Pool<AsyncPgConnection>);

impl Pool {
    /// Stand-in.
    pub fn new(url: &str) -> Self {
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new(url);
        Self(deadpool::Pool::builder(manager).max_size(4).build().expect("stand-in"))
    }

    /// Stand-in.
    pub async fn connection(&self) -> Result<deadpool::Object<AsyncPgConnection>, StoreError> {
        self.get().await
    }
    pub(crate) async fn get(&self) -> Result<deadpool::Object<AsyncPgConnection>, StoreError> {
        self.0
            .get()
            .await
            .map_err(|error| StoreError::Connection(error.to_string()))
    }
}

/// Stand-in.
pub struct PoolOptions {
    /// Stand-in.
    pub application_name: &'static str,
    /// Stand-in.
    pub statement_timeout: Option<std::time::Duration>,
    /// Stand-in.
    pub read_only: bool,
    /// Stand-in.
    pub acquire_timeout: std::time::Duration,
}
impl Pool {
    /// Stand-in.
    pub fn open(p: &crate::config::Postgres, _: &PoolOptions) -> Result<Self, StoreError> {
        Ok(Self::new(&p.url.expose()))
    }
}
