//! What `flagstate-indexer migrate --grant-read-to` grants, in a database where PostgreSQL's own defaults hold. The whole
//! list of what is refused is in query-api's tests.

use flagstate_test_support::postgres::READER_ROLE;
use flagstate_test_support::system::{Options, System};
use tokio_postgres::error::SqlState;

use crate::database;

#[tokio::test(flavor = "multi_thread")]
async fn the_command_grants_reading_and_nothing_else() {
    let system = System::start(&Options::beside_this_test().unwrap()).await.unwrap();
    let owner = system.database.client().await.unwrap();
    let lax = format!(
        "GRANT CREATE, TEMPORARY ON DATABASE {} TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC;
         GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC",
        system.database.name()
    );
    owner.batch_execute(&lax).await.unwrap();
    let reader = system.database.reader_client().await.unwrap();
    reader
        .batch_execute("SET default_transaction_read_only = off")
        .await
        .unwrap();
    reader
        .batch_execute("CREATE TEMPORARY TABLE mine (); DROP TABLE mine")
        .await
        .unwrap();

    let grant = ["migrate", "--grant-read-to", READER_ROLE];
    system.indexer.command(&grant).await.unwrap();
    owner
        .batch_execute("CREATE TABLE of_a_later_change (a int)")
        .await
        .unwrap();
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    let mut writes: Vec<String> = [
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE TABLE mine ()",
        "CREATE SCHEMA mine",
        "SELECT lo_create(0)",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT nextval('repository_id_seq')",
    ]
    .map(str::to_owned)
    .into();
    for table in database::rows(&system.database, tables).await {
        reader
            .batch_execute(&format!("SELECT FROM {table} LIMIT 1"))
            .await
            .unwrap();
        writes.extend([
            format!("INSERT INTO {table} DEFAULT VALUES"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table} CASCADE"),
            format!("COPY {table} FROM PROGRAM 'true'"),
            format!("ALTER TABLE {table} ADD mine int"),
            format!("DROP TABLE {table} CASCADE"),
        ]);
    }
    let updates = "SELECT format('UPDATE %I SET %I = DEFAULT', table_name, min(column_name::text))
                   FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name";
    writes.extend(database::rows(&system.database, updates).await);
    assert!(writes.len() > 80, "{writes:?}");
    for write in writes {
        let refused = reader.batch_execute(&write).await;
        let code = refused.as_ref().err().and_then(|error| error.code());
        assert_eq!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{write}: {refused:?}");
    }

    let protected = system.database.reader_client().await.unwrap();
    let read_only = protected.query_one("SHOW transaction_read_only", &[]).await.unwrap();
    assert_eq!(read_only.get::<_, &str>(0), "on");
}
