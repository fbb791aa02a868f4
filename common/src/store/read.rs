//! The reading store: every answer is one snapshot of the database.
//!
//! Each method that reads more than one row runs in one `REPEATABLE READ READ ONLY` transaction which also reads the
//! revision, so that an answer and its revision belong together, on a hot standby too.

mod as_of;
mod conditions;
mod search;
mod statement;

use chrono::{DateTime, Utc};
use diesel::sql_query;
use diesel_async::pg::TransactionBuilder;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use thiserror::Error;

use super::error::StoreError;
use super::pool::Pool;
use super::rows::{ExistsRow, StatusRow, VersionRow};
use crate::config::RepositoryFilter;
use crate::image::RepositoryImages;
use crate::revision::Revision;
use crate::search_query::SearchQuery;

/// Answers from the index; it cannot change it.
#[derive(Clone)]
pub struct ReadStore {
    pool: Pool,
    visible: RepositoryFilter,
}

/// An answer, and the state of the index that it was read from.
///
/// For a question about the past, `revision` is still the present one: what is known about a digest is as known now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot<T> {
    /// The present revision of the snapshot.
    pub revision: Revision,
    /// The answer.
    pub value: T,
}

/// How fresh the index is, by the database's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The present revision.
    pub revision: Revision,
    /// When it was committed.
    pub revision_at: DateTime<Utc>,
    /// When this was read.
    pub now: DateTime<Utc>,
    /// When the last scan of the whole registry ended; `None` before the first one.
    pub scan_completed_at: Option<DateTime<Utc>>,
    /// Repositories that are waiting to be looked at.
    pub queue_length: u64,
    /// When the oldest waiting work was accepted; `None` when nothing waits.
    pub oldest_enqueued_at: Option<DateTime<Utc>>,
}

/// Why a search has no answer.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The database did not answer.
    #[error("the index could not be read")]
    Store(#[from] StoreError),
    /// `as_of` names a state that has not been yet.
    #[error("as_of lies in the future")]
    AsOfFuture,
    /// `as_of` names a state that is no longer kept.
    #[error("as_of lies before the kept history, which begins at revision {oldest}, {oldest_at}")]
    AsOfGone {
        /// The oldest revision that can be asked about.
        oldest: Revision,
        /// When it was committed.
        oldest_at: DateTime<Utc>,
    },
    /// `as_of` names a revision of another era, whose numbers mean nothing in this one.
    #[error("revision {asked} belongs to another era; the present one is {era}")]
    OtherEra {
        /// The revision that was asked about.
        asked: Revision,
        /// The present era.
        era: i64,
    },
}

impl ReadStore {
    /// A store that shows the repositories that `visible` allows and the index does not hide.
    #[must_use]
    pub fn new(pool: Pool, visible: RepositoryFilter) -> Self {
        Self { pool, visible }
    }

    /// The present revision: one statement, which is a snapshot by itself, for it is asked for all the time.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn revision(&self) -> Result<Revision, StoreError> {
        let mut connection = self.pool.connection().await?;
        Ok(as_of::state(&mut connection, None).await?.revision())
    }

    /// The repositories, images and image indexes that match, in the contract's order: repositories by name, images
    /// and image indexes by first tag and digest, the images of an image index as it lists them.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn search(&self, query: &SearchQuery) -> Result<Snapshot<Vec<RepositoryImages>>, ReadError> {
        let mut connection = self.pool.connection().await?;
        let answer: Result<_, StoreError> = snapshot(&mut connection)
            .run(async |connection| {
                let state = as_of::state(connection, query.as_of()).await?;
                Ok(match state.resolve(query.as_of()) {
                    Ok(n) => Ok(Snapshot {
                        revision: state.revision(),
                        value: search::search(connection, query, n, &self.visible).await?,
                    }),
                    Err(error) => Err(error),
                })
            })
            .await;
        answer?
    }

    /// How fresh the index is.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn status(&self) -> Result<Status, StoreError> {
        const SQL: &str = "SELECT s.era, s.n, s.at, now() AS now, w.scan_completed_at, \
             q.length AS queue_length, q.oldest AS oldest_enqueued_at \
             FROM state s CROSS JOIN writer_lease w \
             CROSS JOIN (SELECT count(*) AS length, min(enqueued_at) AS oldest FROM scan_queue) q";
        let mut connection = self.pool.connection().await?;
        let row: StatusRow = snapshot(&mut connection)
            .run(async |connection| sql_query(SQL).get_result(connection).await)
            .await?;
        Ok(Status {
            revision: Revision { era: row.era, n: row.n },
            revision_at: row.at,
            now: row.now,
            scan_completed_at: row.scan_completed_at,
            queue_length: row.queue_length.unsigned_abs(),
            oldest_enqueued_at: row.oldest_enqueued_at,
        })
    }

    /// The newest schema change that was applied; `None` for a database that was never migrated.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn schema_version(&self) -> Result<Option<String>, StoreError> {
        const EXISTS: &str = "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS found";
        const NEWEST: &str = "SELECT version FROM __diesel_schema_migrations ORDER BY version DESC LIMIT 1";
        let mut connection = self.pool.connection().await?;
        snapshot(&mut connection)
            .run(async |connection| {
                let table: ExistsRow = sql_query(EXISTS).get_result(connection).await?;
                if !table.found {
                    return Ok(None);
                }
                let newest: Vec<VersionRow> = sql_query(NEWEST).load(connection).await?;
                Ok(newest.into_iter().next().map(|row| row.version))
            })
            .await
    }
}

/// A transaction that sees one state of the database and can change nothing.
fn snapshot(connection: &mut AsyncPgConnection) -> TransactionBuilder<'_, AsyncPgConnection> {
    connection.build_transaction().repeatable_read().read_only()
}
