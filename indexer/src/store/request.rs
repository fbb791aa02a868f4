//! Full scans that people ask for while another process is the writer.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel_async::RunQueryDsl;
use flagstate_common::store::sql::sql;
use flagstate_common::store::{Pool, StoreError};

/// Leaves and follows requests; needs no lease.
#[derive(Clone)]
pub struct RequestStore {
    pool: Pool,
}

/// How far a request is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScanRequest {
    /// Whether the writer took it up.
    pub started: bool,
    /// How it ended, once it has.
    pub outcome: Option<String>,
    /// Repositories that the writer's running scan has finished.
    pub done: i64,
    /// Repositories that the writer's running scan knows of so far.
    pub known: i64,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

#[derive(QueryableByName)]
struct RequestRow {
    #[diesel(sql_type = Bool)]
    started: bool,
    #[diesel(sql_type = Nullable<Text>)]
    outcome: Option<String>,
    #[diesel(sql_type = BigInt)]
    done: i64,
    #[diesel(sql_type = BigInt)]
    known: i64,
}

impl RequestStore {
    /// A store on `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Asks for a full scan; the result names the request.
    ///
    /// # Errors
    /// Database errors.
    pub async fn ask(&self) -> Result<i64, StoreError> {
        let mut connection = self.pool.connection().await?;
        let row: IdRow = sql("INSERT INTO scan_request DEFAULT VALUES RETURNING id")
            .get_result(&mut connection)
            .await?;
        Ok(row.id)
    }

    /// How far the request is.
    ///
    /// # Errors
    /// Database errors.
    pub async fn follow(&self, id: i64) -> Result<ScanRequest, StoreError> {
        let mut connection = self.pool.connection().await?;
        let row: RequestRow = sql(
            "SELECT started_at IS NOT NULL AS started, outcome, scan_repositories_done AS done,
                    scan_repositories AS known
             FROM scan_request, writer_lease WHERE scan_request.id = $1",
        )
        .bind::<BigInt, _>(id)
        .get_result(&mut connection)
        .await?;
        let RequestRow {
            started,
            outcome,
            done,
            known,
        } = row;
        Ok(ScanRequest {
            started,
            outcome,
            done,
            known,
        })
    }

    /// Takes up everything that was asked for; the result is empty when nothing was.
    ///
    /// # Errors
    /// Database errors.
    pub async fn take_up(&self) -> Result<Vec<i64>, StoreError> {
        let mut connection = self.pool.connection().await?;
        let rows: Vec<IdRow> = sql("UPDATE scan_request SET started_at = clock_timestamp()
             WHERE finished_at IS NULL RETURNING id")
        .load(&mut connection)
        .await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Ends requests with one sentence on how it went, and forgets old ones.
    ///
    /// # Errors
    /// Database errors.
    pub async fn finish(&self, ids: &[i64], outcome: &str) -> Result<(), StoreError> {
        let mut connection = self.pool.connection().await?;
        sql("DELETE FROM scan_request WHERE finished_at < clock_timestamp() - interval '1 day'")
            .execute(&mut connection)
            .await?;
        sql("UPDATE scan_request SET finished_at = clock_timestamp(), outcome = $2 WHERE id = ANY($1)")
            .bind::<diesel::sql_types::Array<BigInt>, _>(ids)
            .bind::<Text, _>(outcome)
            .execute(&mut connection)
            .await?;
        Ok(())
    }
}
