//! The only SQL that writes.
//!
//! A [`WriteStore`] is opened with a [`WriterLease`]: every one of its transactions proves at its end, in the database,
//! that the lease's epoch is still the writer's. Taking work into the queue needs no lease and has its own narrow
//! [`QueueStore`].

mod apply;
mod content;
mod exclusion;
mod lease;
mod migrate;
mod queue;
mod request;
mod revision;
mod stored;
mod sweep;

use std::sync::Arc;

use flagstate_common::store::{Pool, StoreError};
use thiserror::Error;
use tokio::sync::RwLock;

pub use exclusion::Exclusion;
pub use lease::{Acquired, LeaseError, LeaseStore, ScanProgress, WriterLease};
pub use migrate::{MigrateError, grant_read, migrate};
pub use queue::{Arrival, QueueStatus, QueueStore, Settlement, WorkItem};
pub use request::{RequestKind, RequestState, RequestStore};
pub use stored::Which;
pub use sweep::{Swept, Window};

/// How often a transaction that loses races inside PostgreSQL is tried.
const TRIES: u32 = 5;

/// Why something could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process is the writer now; nothing was written.
    #[error("this process is no longer the writer: epoch {epoch} has passed")]
    Fenced {
        /// The epoch that this process wrote with.
        epoch: i64,
    },
    /// What was known when the registry was asked is not stored any more; the work has to be done anew.
    #[error("the index lost, meanwhile, what the change set leads to")]
    Vanished,
}

impl WriteError {
    /// Whether the same call may succeed if it is made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Vanished => true,
            Self::Fenced { .. } => false,
        }
    }
}

impl WriteError {
    /// Whether a transaction that was tried `tries` times lost to another one (deadlock, serialisation), and is worth
    /// one more try at once.
    fn lost_race(&self, tries: u32) -> bool {
        matches!(self, Self::Store(error) if error.is_lost_race() && tries < TRIES)
    }
}

impl From<diesel::result::Error> for WriteError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Writes the index, as long as its lease is the writer's.
#[derive(Clone)]
pub struct WriteStore {
    pool: Pool,
    lease: WriterLease,
    index_depth: usize,
    /// Held for reading by what adds content, for writing by what removes it.
    content: Arc<RwLock<()>>,
}

impl WriteStore {
    /// A store that writes under `lease`, and follows image indexes `index_depth` levels down.
    #[must_use]
    pub fn open(pool: Pool, lease: WriterLease, index_depth: usize) -> Self {
        Self {
            pool,
            lease,
            index_depth,
            content: Arc::default(),
        }
    }
}
