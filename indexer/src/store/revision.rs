//! Taking the next revision: what makes a transaction's changes one visible state.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use flagstate_common::store::sql::sql;

use super::{WriteError, WriterLease};

#[derive(QueryableByName)]
struct TakenRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = BigInt)]
    era: i64,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
}

/// Takes the next revision for the running transaction.
///
/// The row lock on `state` orders commits, so this comes after everything that can be written without it. The time
/// never decreases, whatever the clock does.
///
/// # Errors
/// [`WriteError::Fenced`] when another process is the writer: the transaction must not commit.
pub(super) async fn take(connection: &mut AsyncPgConnection, lease: &WriterLease) -> Result<i64, WriteError> {
    let taken: Vec<TakenRow> =
        sql("UPDATE state SET n = n + 1, at = greatest(at, clock_timestamp()) WHERE epoch = $1 RETURNING n, era, at")
            .bind::<BigInt, _>(lease.epoch())
            .load(connection)
            .await?;
    let Some(TakenRow { n, era, at }) = taken.into_iter().next() else {
        return Err(WriteError::Fenced { epoch: lease.epoch() });
    };
    sql("INSERT INTO revision (n, era, at) VALUES ($1, $2, $3)")
        .bind::<BigInt, _>(n)
        .bind::<BigInt, _>(era)
        .bind::<Timestamptz, _>(at)
        .execute(connection)
        .await?;
    Ok(n)
}

/// Proves, at the end of a transaction that takes no revision, that this process is still the writer.
///
/// # Errors
/// [`WriteError::Fenced`] when another process is: the transaction must not commit.
pub(super) async fn check(connection: &mut AsyncPgConnection, lease: &WriterLease) -> Result<(), WriteError> {
    let mine = sql("SELECT FROM state WHERE epoch = $1 FOR SHARE")
        .bind::<BigInt, _>(lease.epoch())
        .execute(connection)
        .await?;
    if mine == 1 {
        Ok(())
    } else {
        Err(WriteError::Fenced { epoch: lease.epoch() })
    }
}
