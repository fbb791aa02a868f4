//! PostgreSQL refuses query-api's role every kind of write, and query-api's own code has none (promise 14).

use tokio_postgres::error::SqlState;

use crate::index::Index;

/// Read-only transactions are the second wall; it is taken down here to see the first.
const UNPROTECTED: &str = "SET default_transaction_read_only = off";

async fn tables(index: &Index) -> Vec<(String, String)> {
    let rows = index
        .client
        .query(
            "SELECT table_name::text, min(column_name::text) FROM information_schema.columns \
             WHERE table_schema = 'public' GROUP BY table_name ORDER BY table_name",
            &[],
        )
        .await
        .expect("the tables");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn assert_refused(index: &Index, statements: &[String]) {
    let reader = index.database.reader_client().await.expect("a connection");
    reader.batch_execute(UNPROTECTED).await.expect("a session setting");
    for statement in statements {
        match reader.batch_execute(statement).await {
            Ok(()) => panic!("allowed: {statement}"),
            Err(error) => {
                assert_eq!(
                    error.code(),
                    Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                    "{statement}: {error:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn no_row_of_any_table_can_be_written() {
    let index = Index::create().await;
    let tables = tables(&index).await;
    assert!(
        tables.iter().any(|(table, _)| table == "tag") && tables.len() > 10,
        "{tables:?}"
    );
    let statements: Vec<String> = tables
        .iter()
        .flat_map(|(table, column)| {
            [
                format!("INSERT INTO {table} DEFAULT VALUES"),
                format!("UPDATE {table} SET \"{column}\" = \"{column}\""),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table} CASCADE"),
                format!("COPY {table} FROM STDIN"),
                format!("DO $$ BEGIN LOCK TABLE {table} IN SHARE MODE; END $$"),
                format!("SELECT FROM {table} FOR UPDATE"),
            ]
        })
        .collect();
    assert_refused(&index, &statements).await;
}

#[tokio::test]
async fn no_object_can_be_made_or_changed() {
    let index = Index::create().await;
    let statements = [
        "CREATE TABLE mine ()",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "CREATE SEQUENCE mine",
        "CREATE TYPE mine AS ENUM ('a')",
        "CREATE EXTENSION postgres_fdw",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "CREATE INDEX mine ON tag (name)",
        "CREATE TRIGGER mine BEFORE INSERT ON tag EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE TEMPORARY TABLE mine ()",
        "ALTER TABLE tag ADD COLUMN mine int",
        "ALTER TABLE tag DISABLE TRIGGER ALL",
        "DROP TABLE tag CASCADE",
        "DROP INDEX tag_name_idx",
        "COMMENT ON TABLE tag IS 'mine'",
        "ALTER TABLE tag OWNER TO flagstate_reader",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
    ];
    assert_refused(&index, &statements.map(str::to_owned)).await;
}

#[tokio::test]
async fn the_server_s_files_programs_and_large_objects_are_out_of_reach() {
    let index = Index::create().await;
    let object: u32 = index
        .client
        .query_one("SELECT lo_create(0)", &[])
        .await
        .expect("a large object")
        .get(0);
    let statements = [
        "COPY tag TO '/tmp/flagstate-reader'".to_owned(),
        "COPY tag TO PROGRAM 'cat'".to_owned(),
        "COPY (SELECT 1) TO PROGRAM 'cat'".to_owned(),
        "SELECT pg_read_file('PG_VERSION')".to_owned(),
        "SELECT pg_read_binary_file('PG_VERSION')".to_owned(),
        "SELECT pg_ls_dir('.')".to_owned(),
        "SELECT lo_import('/etc/hostname')".to_owned(),
        format!("SELECT lo_export({object}, '/tmp/flagstate-reader')"),
        format!("SELECT lo_unlink({object})"),
        format!("SELECT lo_put({object}, 0, 'a')"),
        format!("SELECT lo_open({object}, x'20000'::int)"),
        "SELECT lo_create(0)".to_owned(),
        "SELECT lo_from_bytea(0, 'a')".to_owned(),
        "SELECT lo_creat(-1)".to_owned(),
        "SELECT pg_reload_conf()".to_owned(),
        "SELECT pg_switch_wal()".to_owned(),
        "SELECT pg_create_restore_point('mine')".to_owned(),
        "SELECT pg_logical_emit_message(true, 'mine', 'a')".to_owned(),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'".to_owned(),
        "SELECT setval('repository_id_seq', 1)".to_owned(),
        "SELECT nextval('repository_id_seq')".to_owned(),
    ];
    assert_refused(&index, &statements).await;
}

#[tokio::test]
async fn what_query_api_reads_it_may_read() {
    let index = Index::create().await;
    let reader = index.database.reader_client().await.expect("a connection");
    for (table, _) in tables(&index).await {
        let statement = format!("SELECT count(*) FROM {table}");
        let read = reader.query_one(&statement, &[]).await;
        assert!(read.is_ok(), "{statement}");
    }
    let setting = reader
        .query_one("SHOW default_transaction_read_only", &[])
        .await
        .expect("a setting");
    assert_eq!(setting.get::<_, &str>(0), "on");
}

#[test]
fn the_crate_names_nothing_that_could_write() {
    let manifest = include_str!("../../Cargo.toml");
    for name in [
        "diesel",
        "diesel-async",
        "diesel_async",
        "reqwest",
        "flagstate-migrations",
        "flagstate-indexer",
    ] {
        let named = manifest
            .lines()
            .any(|line| line.split(['.', ' ', '=']).next() == Some(name));
        assert!(!named, "{name}");
    }
}
