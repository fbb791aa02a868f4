//! Pools as tests want them: patient, and without anything from this process's environment.

use std::time::Duration;

use flagstate_common::config::{Postgres, PostgresEnvironment, Secret};
use flagstate_common::store::{Pool, PoolOptions};

/// How to reach a database.
pub(crate) fn postgres(url: &str) -> Postgres {
    Postgres {
        url: Secret::from_value(url),
        environment: PostgresEnvironment::default(),
        pool_size: 4,
    }
}

/// A pool such as query-api's.
pub(crate) fn reader(url: &str) -> Pool {
    let options = PoolOptions {
        acquire_timeout: Duration::from_secs(60),
        ..PoolOptions::reader("test", Duration::from_secs(60))
    };
    Pool::open(&postgres(url), &options).expect("a sound URL")
}

/// A pool such as the indexer's.
pub(crate) fn writer(url: &str) -> Pool {
    Pool::open(&postgres(url), &PoolOptions::writer("test")).expect("a sound URL")
}
