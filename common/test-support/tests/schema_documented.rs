//! `docs/SCHEMA.md` says what the schema changes make, and every table and column has a comment.

use flagstate_test_support::documented;
use flagstate_test_support::postgres::TestDatabase;

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_documented() {
    let database = TestDatabase::create().await.unwrap();
    let expected = documented::schema(&database.client().await.unwrap()).await.unwrap();
    let found = std::fs::read_to_string(documented::schema_file()).unwrap_or_default();
    assert!(
        found == expected,
        "docs/SCHEMA.md is not up to date: run cargo xtask schema"
    );
}
