//! Bringing the schema up to date, and letting the reader's role read it.

use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection, AsyncMigrationHarness, RunQueryDsl};
use diesel_migrations::MigrationHarness as _;
use flagstate_common::store::{Pool, StoreError};
use flagstate_migrations::{MIGRATIONS, reader_grants};
use thiserror::Error;

/// Why the schema could not be brought up to date.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A change could not be applied; the ones before it were.
    #[error("a schema change failed: {0}")]
    Change(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The role that shall read does not exist.
    #[error("there is no role {role:?}; create it first: CREATE ROLE {role} LOGIN PASSWORD '...'")]
    NoSuchRole {
        /// The role.
        role: String,
    },
}

impl From<diesel::result::Error> for MigrateError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Held while the schema changes, so that two processes that start at once do not both apply a change. Any number does.
const MIGRATION_LOCK: i64 = 0x666c_6167;

/// Applies the changes that are missing; the result names them.
///
/// # Errors
/// Database errors, a change that fails.
pub async fn migrate(pool: &Pool) -> Result<Vec<String>, MigrateError> {
    let mut connection = pool.connection().await?;
    sql_query(format!("SELECT pg_advisory_lock({MIGRATION_LOCK})"))
        .execute(&mut connection)
        .await?;
    let applied = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        let applied = harness
            .run_pending_migrations(MIGRATIONS)
            .map(|applied| applied.iter().map(ToString::to_string).collect());
        (applied, harness.into_inner())
    });
    let (applied, mut connection) = applied.await.map_err(|panic| MigrateError::Change(panic.into()))?;
    sql_query(format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})"))
        .execute(&mut connection)
        .await?;
    applied.map_err(MigrateError::Change)
}

/// Lets a role [read all tables](reader_grants), those of later changes too, and nothing else.
///
/// # Errors
/// [`MigrateError::NoSuchRole`], database errors.
pub async fn grant_read(pool: &Pool, role: &str) -> Result<(), MigrateError> {
    let mut connection = pool.connection().await?;
    let known = sql_query("SELECT FROM pg_roles WHERE rolname = $1")
        .bind::<Text, _>(role)
        .execute(&mut connection)
        .await?;
    if known == 0 {
        return Err(MigrateError::NoSuchRole { role: role.to_owned() });
    }
    let role = quote_identifier(role);
    connection
        .transaction(async |connection| {
            for grant in reader_grants(&role) {
                sql_query(grant).execute(connection).await?;
            }
            Ok(())
        })
        .await
}

/// A name as SQL takes it, whatever it holds.
fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_cannot_break_out() {
        assert_eq!(
            quote_identifier("a\"; DROP TABLE tag; --"),
            "\"a\"\"; DROP TABLE tag; --\""
        );
    }
}
