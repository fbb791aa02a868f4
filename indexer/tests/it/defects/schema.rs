//! The schema: keys, indexes, what is kept, and that there is one state (defect 31).

use flagstate_common::store::{Pool, PoolOptions};
use flagstate_indexer::store::{LeaseError, LeaseStore, migrate};
use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::postgres::TestDatabase;

use super::{Scene, fill, value};

/// Lines of a query's only column, none of which there should be.
async fn lines(database: &TestDatabase, sql: &str) -> Vec<String> {
    let client = database.client().await.unwrap();
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn defect_31_every_table_has_a_primary_key() {
    let database = TestDatabase::create().await.unwrap();
    let without = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                   WHERE c.relkind = 'r' AND s.nspname = 'public'
                     AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)";
    assert_eq!(lines(&database, without).await, [""; 0]);
    let tables: i64 = value(&database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await;
    assert!(tables >= 12, "{tables}");
}

#[tokio::test]
async fn defect_31_what_joins_and_filters_ask_for_has_an_index() {
    let database = TestDatabase::create().await.unwrap();
    // The first column of each foreign key leads some index.
    let without = "SELECT f.conrelid::regclass || '.' || a.attname
                   FROM pg_constraint f JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
                   WHERE f.contype = 'f' AND NOT EXISTS (
                       SELECT FROM pg_index i WHERE i.indrelid = f.conrelid AND i.indkey[0] = f.conkey[1])";
    assert_eq!(lines(&database, without).await, [""; 0]);
    for (table, column) in [
        ("manifest", "digest"),
        ("manifest", "terms"),
        ("manifest", "config_digest"),
        ("manifest", "subject_digest"),
        ("tag", "manifest_id"),
        ("tag", "name"),
        ("index_member", "digest"),
        ("index_leaf", "manifest_id"),
        ("index_leaf", "terms"),
        ("layer", "digest"),
        ("layer", "chain_id"),
        ("repository", "name"),
        ("scan_queue", "not_before"),
    ] {
        let leading = format!(
            "SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
             WHERE i.indrelid = '{table}'::regclass AND a.attname = '{column}'"
        );
        assert!(value::<i64>(&database, &leading).await > 0, "{table}.{column}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_31_time_size_and_layers_of_an_image_are_kept() {
    let scene = Scene::create().await;
    let image = ImageBuilder::new("image")
        .created("2026-02-03T04:05:06Z")
        .layer("first")
        .layer("second")
        .build();
    fill(&scene.registry, "apps/a", &image, &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let sizes: i64 = value(&scene.database, "SELECT layers_size FROM manifest").await;
    let blobs: usize = image.blobs.iter().map(|blob| blob.bytes.len()).sum();
    assert_eq!(sizes, blobs as i64);
    for (what, sql, expected) in [
        (
            "created",
            "SELECT (created AT TIME ZONE 'UTC')::text FROM manifest",
            "2026-02-03 04:05:06",
        ),
        (
            "layers",
            "SELECT string_agg(position::text, ' ' ORDER BY position) FROM layer WHERE chain_id IS NOT NULL",
            "0 1",
        ),
        ("history", "SELECT jsonb_typeof(history) FROM manifest", "array"),
    ] {
        assert_eq!(value::<String>(&scene.database, sql).await, expected, "{what}");
    }
    indexer.stop().await;
}

fn pool(database: &TestDatabase) -> Pool {
    let yaml = format!(
        "registry: {{url: 'http://unused'}}\ndatabase: {{postgres: {{url: '{}'}}}}",
        database.url()
    );
    let config = flagstate_common::config::Config::from_sources(&yaml, [], flagstate_common::config::Service::Indexer);
    Pool::open(&config.unwrap().database.postgres, &PoolOptions::writer("test")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_31_an_index_is_of_one_registry() {
    let database = TestDatabase::create().await.unwrap();
    let leases = LeaseStore::new(pool(&database));
    leases.try_acquire("one", "https://a.example/", false).await.unwrap();
    let expire = "UPDATE writer_lease SET expires_at = '-infinity'";
    database.client().await.unwrap().execute(expire, &[]).await.unwrap();
    let refused = leases
        .try_acquire("two", "https://b.example/", false)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, LeaseError::OtherRegistry { stored, configured }
            if stored == "https://a.example/" && configured == "https://b.example/"),
        "{refused}"
    );
    let epoch: i64 = value(&database, "SELECT epoch FROM writer_lease").await;
    assert_eq!(epoch, 1, "a refusal takes nothing");
    leases.try_acquire("two", "https://b.example/", true).await.unwrap();
    let stored: String = value(&database, "SELECT registry_url FROM state").await;
    assert_eq!(stored, "https://b.example/");
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_31_migrations_run_once_and_drop_nothing() {
    let database = TestDatabase::create_empty(None).await.unwrap();
    let pool = pool(&database);
    assert!(!migrate(&pool).await.unwrap().is_empty());
    let client = database.client().await.unwrap();
    let row = "INSERT INTO repository (name) VALUES ('apps/a')";
    client.execute(row, &[]).await.unwrap();
    assert_eq!(migrate(&pool).await.unwrap(), [""; 0]);
    let kept: i64 = value(&database, "SELECT count(*) FROM repository").await;
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn defect_31_there_is_one_state() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    for table in ["state", "writer_lease"] {
        assert_eq!(
            value::<i64>(&database, &format!("SELECT count(*) FROM {table}")).await,
            1
        );
        for id in ["true", "false", "NULL"] {
            let columns = if table == "state" {
                ("id, era", ", 1")
            } else {
                ("id", "")
            };
            let second = format!("INSERT INTO {table} ({}) VALUES ({id}{})", columns.0, columns.1);
            client.execute(&second, &[]).await.unwrap_err();
        }
    }
}
