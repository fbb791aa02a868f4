//! What people ask for by command while another process is the writer.

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

/// What can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// A full scan.
    Scan,
    /// A collection of what nothing needs.
    Gc,
}

impl RequestKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Gc => "gc",
        }
    }
}

/// How far a request is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestState {
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

    /// Asks for something; the result names the request.
    ///
    /// # Errors
    /// Database errors.
    pub async fn ask(&self, kind: RequestKind) -> Result<i64, StoreError> {
        let mut connection = self.pool.connection().await?;
        let row: IdRow = sql("INSERT INTO request (kind) VALUES ($1) RETURNING id")
            .bind::<Text, _>(kind.as_str())
            .get_result(&mut connection)
            .await?;
        Ok(row.id)
    }

    /// How far the request is.
    ///
    /// # Errors
    /// Database errors.
    pub async fn follow(&self, id: i64) -> Result<RequestState, StoreError> {
        let mut connection = self.pool.connection().await?;
        let row: RequestRow = sql(
            "SELECT started_at IS NOT NULL AS started, outcome, scan_repositories_done AS done,
                    scan_repositories AS known
             FROM request, writer_lease WHERE request.id = $1",
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
        Ok(RequestState {
            started,
            outcome,
            done,
            known,
        })
    }

    /// Takes up everything of a kind that was asked for; the result is empty when nothing was.
    ///
    /// # Errors
    /// Database errors.
    pub async fn take_up(&self, kind: RequestKind) -> Result<Vec<i64>, StoreError> {
        let mut connection = self.pool.connection().await?;
        let rows: Vec<IdRow> = sql("UPDATE request SET started_at = clock_timestamp()
             WHERE finished_at IS NULL AND kind = $1 RETURNING id")
        .bind::<Text, _>(kind.as_str())
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
        sql("DELETE FROM request WHERE finished_at < clock_timestamp() - interval '1 day'")
            .execute(&mut connection)
            .await?;
        sql("UPDATE request SET finished_at = clock_timestamp(), outcome = $2 WHERE id = ANY($1)")
            .bind::<diesel::sql_types::Array<BigInt>, _>(ids)
            .bind::<Text, _>(outcome)
            .execute(&mut connection)
            .await?;
        Ok(())
    }
}
