//! `cargo xtask schema`: the document of the tables.

use anyhow::Result;
use flagstate_test_support::documented;
use flagstate_test_support::postgres::TestDatabase;

use crate::packages;

/// # Errors
/// When there is no PostgreSQL, or the schema changes fail.
pub(crate) async fn write() -> Result<()> {
    packages::ensure_installed(&[packages::POSTGRESQL]).await?;
    let database = TestDatabase::create().await?;
    let text = documented::schema(&database.client().await?).await?;
    std::fs::write(documented::schema_file(), text)?;
    println!("docs/SCHEMA.md is up to date");
    Ok(())
}
