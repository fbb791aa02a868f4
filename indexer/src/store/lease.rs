//! The writer's lease: a row with holder, epoch and expiry by the database's clock.
//!
//! No advisory lock: a stopped process would keep it. Taking the lease raises the epoch, here and in `state`; a writer
//! that slept through its expiry then fails the epoch check of its next transaction.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Double, Nullable, Text, Timestamptz};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use flagstate_common::revision::Revision;
use flagstate_common::store::sql::sql;
use flagstate_common::store::{Pool, StoreError};
use thiserror::Error;

/// How long a lease lasts without renewal, in seconds. With a standby's polls every 2 s, a take-over takes at most 12 s.
const LEASE_SECONDS: f64 = 10.0;

/// Proof that this process was the writer when it got it; the database decides whether it still is.
#[derive(Clone, Debug)]
pub struct WriterLease {
    holder: String,
    epoch: i64,
}

impl WriterLease {
    /// The epoch that this lease writes with.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

/// How an attempt to become the writer went.
#[derive(Clone, Debug)]
pub enum Acquired {
    /// This process writes.
    Writer {
        /// What to write with.
        lease: WriterLease,
        /// The present revision.
        revision: Revision,
        /// Whether a new era began; a full scan is asked for then.
        new_era: bool,
    },
    /// Somebody else writes.
    HeldBy {
        /// The other process.
        holder: String,
    },
}

/// Why the lease could not be asked for.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index is of another registry.
    #[error("the index is of {stored}, and the configuration names {configured}; start once with --adopt to change it")]
    OtherRegistry {
        /// The registry that the index is of.
        stored: String,
        /// The registry that the configuration names.
        configured: String,
    },
}

impl From<diesel::result::Error> for LeaseError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// How far the writer's full scan is; published with each renewal, so that it costs no write of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanProgress {
    /// When the running or last full scan began.
    pub started_at: Option<DateTime<Utc>>,
    /// When the last full scan that saw the whole catalog ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// Repositories that the running full scan has finished.
    pub done: u64,
    /// Repositories that the running full scan knows of so far.
    pub known: u64,
}

/// Takes, renews and releases the lease.
#[derive(Clone)]
pub struct LeaseStore {
    pool: Pool,
}

#[derive(QueryableByName)]
struct HeldRow {
    #[diesel(sql_type = Nullable<Text>)]
    holder: Option<String>,
}

#[derive(QueryableByName)]
struct EpochRow {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = BigInt)]
    era: i64,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = Bool)]
    new_era: bool,
    #[diesel(sql_type = Bool)]
    is_adopted: bool,
}

#[derive(QueryableByName)]
struct RegistryRow {
    #[diesel(sql_type = Nullable<Text>)]
    registry_url: Option<String>,
}

#[derive(QueryableByName)]
struct CompletedRow {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    scan_completed_at: Option<DateTime<Utc>>,
}

impl LeaseStore {
    /// A store on `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Becomes the writer if nobody is. A lease that ran out is as good as none.
    ///
    /// # Errors
    /// [`LeaseError::OtherRegistry`] when the index is of another registry and `adopt` is not set; database errors.
    pub async fn try_acquire(&self, holder: &str, registry_url: &str, adopt: bool) -> Result<Acquired, LeaseError> {
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                let taken: Vec<EpochRow> = sql("UPDATE writer_lease
                     SET holder = $1, epoch = epoch + 1, expires_at = clock_timestamp() + make_interval(secs => $2)
                     WHERE holder IS NULL OR expires_at < clock_timestamp()
                     RETURNING epoch")
                .bind::<Text, _>(holder)
                .bind::<Double, _>(LEASE_SECONDS)
                .load(connection)
                .await?;
                let Some(EpochRow { epoch }) = taken.into_iter().next() else {
                    let held: HeldRow = sql("SELECT holder FROM writer_lease").get_result(connection).await?;
                    return Ok(Acquired::HeldBy {
                        holder: held.holder.unwrap_or_default(),
                    });
                };
                let StateRow { era, n, new_era, .. } = take_state(connection, epoch, registry_url, adopt).await?;
                let lease = WriterLease {
                    holder: holder.to_owned(),
                    epoch,
                };
                Ok(Acquired::Writer {
                    lease,
                    revision: Revision { era, n },
                    new_era,
                })
            })
            .await
    }

    /// Keeps the lease for another while; `false` when it was lost.
    ///
    /// # Errors
    /// Database errors; the lease may then still be held.
    pub async fn renew(&self, lease: &WriterLease, progress: ScanProgress) -> Result<bool, StoreError> {
        let mut connection = self.pool.connection().await?;
        let renewed = sql("UPDATE writer_lease
             SET expires_at = clock_timestamp() + make_interval(secs => $3), scan_started_at = $4,
                 scan_completed_at = $5, scan_repositories_done = $6, scan_repositories = $7
             WHERE holder = $1 AND epoch = $2")
        .bind::<Text, _>(&lease.holder)
        .bind::<BigInt, _>(lease.epoch)
        .bind::<Double, _>(LEASE_SECONDS)
        .bind::<Nullable<Timestamptz>, _>(progress.started_at)
        .bind::<Nullable<Timestamptz>, _>(progress.completed_at)
        .bind::<BigInt, _>(i64::try_from(progress.done).unwrap_or(i64::MAX))
        .bind::<BigInt, _>(i64::try_from(progress.known).unwrap_or(i64::MAX))
        .execute(&mut connection)
        .await?;
        Ok(renewed == 1)
    }

    /// Gives the lease back, so that a standby need not wait for it to run out.
    ///
    /// # Errors
    /// Database errors; the lease then runs out by itself.
    pub async fn release(&self, lease: &WriterLease) -> Result<(), StoreError> {
        let mut connection = self.pool.connection().await?;
        sql("UPDATE writer_lease SET holder = NULL, expires_at = '-infinity' WHERE holder = $1 AND epoch = $2")
            .bind::<Text, _>(&lease.holder)
            .bind::<BigInt, _>(lease.epoch)
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// When the last full scan that saw the whole catalog ended, whoever made it.
    ///
    /// # Errors
    /// Database errors.
    pub async fn last_completed_scan(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let mut connection = self.pool.connection().await?;
        let row: CompletedRow = sql("SELECT scan_completed_at FROM writer_lease")
            .get_result(&mut connection)
            .await?;
        Ok(row.scan_completed_at)
    }
}

/// Puts the epoch into `state`, and begins a new era if this is not the database that the last writer wrote to.
///
/// A failover shows in the timeline, a restored backup in the timeline, the database or the file of the table. The new
/// era's history begins with it: what the old one's times and numbers meant may be lost. Everything has to be read
/// again then, as after a change of the registry; a request for it survives this process.
async fn take_state(
    connection: &mut AsyncPgConnection,
    epoch: i64,
    registry_url: &str,
    adopt: bool,
) -> Result<StateRow, LeaseError> {
    let taken: Vec<StateRow> = sql("WITH before AS (
             SELECT here.incarnation AS present, registry_url IS DISTINCT FROM $2 AND registry_url IS NOT NULL AS is_adopted,
                    state.incarnation IS NOT NULL AND state.incarnation <> here.incarnation AS is_other
             FROM state, LATERAL (
                 SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
                     substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
                     (SELECT oid FROM pg_database WHERE datname = current_database()),
                     pg_relation_filenode('state')) AS incarnation
             ) AS here
             FOR UPDATE OF state
         )
         UPDATE state
         SET epoch = $1, registry_url = $2, incarnation = before.present,
             era = CASE WHEN before.is_other
                        THEN greatest(era + 1, extract(epoch FROM clock_timestamp())::bigint) ELSE era END,
             history_n = CASE WHEN before.is_other THEN n ELSE history_n END,
             history_at = CASE WHEN before.is_other THEN greatest(at, clock_timestamp()) ELSE history_at END
         FROM before
         WHERE NOT before.is_adopted OR $3
         RETURNING era, n, before.is_other AS new_era, before.is_adopted")
    .bind::<BigInt, _>(epoch)
    .bind::<Text, _>(registry_url)
    .bind::<Bool, _>(adopt)
    .load(connection)
    .await?;
    let Some(state) = taken.into_iter().next() else {
        let row: RegistryRow = sql("SELECT registry_url FROM state").get_result(connection).await?;
        return Err(LeaseError::OtherRegistry {
            stored: row.registry_url.unwrap_or_default(),
            configured: registry_url.to_owned(),
        });
    };
    if state.new_era || state.is_adopted {
        sql("INSERT INTO request (kind) VALUES ('scan')")
            .execute(connection)
            .await?;
    }
    Ok(state)
}
