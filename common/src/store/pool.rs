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
