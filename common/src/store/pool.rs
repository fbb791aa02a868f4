//! Connections to PostgreSQL, opened our own way because of TLS and the `PG*` variables.

mod connector;
mod passfile;
mod tls;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, PoolError};
use diesel_async::AsyncPgConnection;

use super::error::{Cause, StoreError};
use crate::config::Postgres;
use connector::{ConnectError, Connector};

/// How long a statement may wait for a lock that another session holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a session may sit in a transaction and do nothing, such as when its process was stopped.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A bounded set of connections to one database; cloning shares it.
#[derive(Clone)]
pub struct Pool {
    connections: managed::Pool<Connector>,
    acquire_timeout: Duration,
}

/// What a pool's connections are for.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Shown in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Ceiling for one statement; `None` is none, whatever the role's default is.
    pub statement_timeout: Option<Duration>,
    /// Transactions can only read, and each query is planned for its own values.
    pub read_only: bool,
    /// How long to wait for a connection while all are in use; making a new one may take longer.
    pub acquire_timeout: Duration,
}

impl PoolOptions {
    /// For query-api: read-only, impatient.
    #[must_use]
    pub fn reader(application_name: &'static str, statement_timeout: Duration) -> Self {
        Self {
            application_name,
            statement_timeout: Some(statement_timeout),
            read_only: true,
            acquire_timeout: Duration::from_millis(500),
        }
    }

    /// For the indexer: bulk writes may take their time.
    #[must_use]
    pub fn writer(application_name: &'static str) -> Self {
        Self {
            application_name,
            statement_timeout: None,
            read_only: false,
            acquire_timeout: Duration::from_secs(5),
        }
    }

    /// What each connection is told first.
    fn session_settings(&self) -> String {
        let milliseconds = |duration: Duration| duration.as_millis().min(i32::MAX as u128);
        let mut settings = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {};",
            self.statement_timeout.map_or(0, |timeout| milliseconds(timeout).max(1)),
            milliseconds(LOCK_TIMEOUT),
            milliseconds(IDLE_IN_TRANSACTION_TIMEOUT),
        );
        // Compiling takes longer than any statement here runs; estimates of recursive walks ask for it all the same.
        settings += " SET jit = off;";
        settings += if self.read_only {
            // A generic plan would not know how rare a label is.
            " SET default_transaction_read_only = on; SET plan_cache_mode = force_custom_plan;"
        } else {
            // Every statement of a writer starts from a few keys, whatever is estimated: walk the indexes.
            " SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off;"
        };
        settings
    }
}

/// How busy a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// The most connections that there may be.
    pub maximum: usize,
    /// Connections that there are.
    pub size: usize,
    /// Those that nobody uses now.
    pub available: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

impl Pool {
    /// A pool without connections yet: they are made when they are needed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Connection`] when `database.postgres.url` cannot be understood.
    pub fn open(postgres: &Postgres, options: &PoolOptions) -> Result<Self, StoreError> {
        if let Err(error) = postgres.conninfo() {
            return Err(ConnectError::from(error).into());
        }
        let connector = Connector::new(postgres.clone(), options.application_name, options.session_settings());
        let connections = managed::Pool::builder(connector)
            .max_size(postgres.pool_size)
            .wait_timeout(Some(options.acquire_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Connection {
                cause: Cause::new(error),
                may_pass: false,
            })?;
        Ok(Self {
            connections,
            acquire_timeout: options.acquire_timeout,
        })
    }

    /// A connection, given back when it is dropped; one that is dropped in a transaction is closed instead.
    ///
    /// For stores only, this crate's and the indexer's: nothing else speaks SQL.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] or [`StoreError::Connection`].
    pub async fn connection(&self) -> Result<Connection, StoreError> {
        match self.connections.get().await {
            Ok(connection) => Ok(Connection(connection)),
            Err(PoolError::Timeout(_)) => Err(StoreError::Busy {
                waited: self.acquire_timeout,
            }),
            Err(PoolError::Backend(error)) => Err(error.into()),
            Err(error @ (PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_))) => {
                Err(StoreError::Connection {
                    cause: Cause::new(error),
                    may_pass: false,
                })
            }
        }
    }

    /// How busy it is, for metrics.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let status = self.connections.status();
        PoolStatus {
            maximum: status.max_size,
            size: status.size,
            available: status.available,
            waiting: status.waiting,
        }
    }

    /// Closes all connections, those in use when they are given back. Nobody gets one after that.
    pub fn close(&self) {
        self.connections.close();
    }
}

/// A connection out of a [`Pool`].
pub struct Connection(managed::Object<Connector>);

impl Deref for Connection {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.0
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_each_connection_its_ceilings() {
        let reader = PoolOptions::reader("query", Duration::from_millis(1500)).session_settings();
        for setting in [
            "SET statement_timeout = 1500;",
            "SET lock_timeout = 5000;",
            "SET idle_in_transaction_session_timeout = 5000;",
            "SET default_transaction_read_only = on;",
            "SET plan_cache_mode = force_custom_plan;",
            "SET jit = off;",
        ] {
            assert!(reader.contains(setting), "{reader}");
        }
        let writer = PoolOptions::writer("indexer").session_settings();
        assert!(writer.contains("SET statement_timeout = 0;"), "{writer}");
        assert!(writer.contains("SET jit = off; SET enable_hashjoin = off;"), "{writer}");
        assert!(!writer.contains("read_only"), "{writer}");
        // 0 would mean none.
        let tiny = PoolOptions::reader("query", Duration::from_nanos(1)).session_settings();
        assert!(tiny.contains("SET statement_timeout = 1;"), "{tiny}");
    }
}
