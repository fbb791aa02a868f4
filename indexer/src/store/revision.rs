//! Taking the next revision: what makes a transaction's changes one visible state.

use diesel::QueryableByName;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use flagstate_common::store::sql::sql;

use super::{WriteError, WriterLease};

#[derive(QueryableByName)]
struct TakenRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Takes the next revision for the running transaction.
///
/// The row lock on `state` orders commits, so this comes after everything that can be written without it. The time
/// never decreases, whatever the clock does.
///
/// # Errors
/// [`WriteError::Fenced`] when another process is the writer: the transaction must not commit.
pub(super) async fn take(connection: &mut AsyncPgConnection, lease: &WriterLease) -> Result<i64, WriteError> {
    let taken: Vec<TakenRow> = sql("WITH taken AS (
             UPDATE state SET n = n + 1, at = greatest(at, clock_timestamp()) WHERE epoch = $1 RETURNING n, era, at
         )
         INSERT INTO revision (n, era, at) SELECT n, era, at FROM taken RETURNING n")
    .bind::<BigInt, _>(lease.epoch())
    .load(connection)
    .await?;
    match taken.as_slice() {
        [TakenRow { n }] => Ok(*n),
        _ => Err(WriteError::Fenced { epoch: lease.epoch() }),
    }
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
