//! Collections remove what nothing needs, and nothing else.

use flagstate_indexer::store::{RequestKind, RequestStore};
use flagstate_test_support::fake_registry::FakeRegistry;
use flagstate_test_support::images::{self, ImageBuilder, IndexBuilder, Manifest};
use flagstate_test_support::postgres::TestDatabase;

use super::harness::{Indexer, config, fill, index_contents, listener, until, value};

/// Asks for something and waits until it is done.
async fn ask(indexer: &Indexer, kind: RequestKind) {
    let requests = RequestStore::new(indexer.pool.clone());
    let id = requests.ask(kind).await.unwrap();
    until("the request is done", async || {
        match requests.follow(id).await.unwrap().outcome {
            Some(_) => Ok(()),
            None => Err(()),
        }
    })
    .await;
}

async fn is_stored(database: &TestDatabase, manifest: &Manifest) -> bool {
    let client = database.client().await.unwrap();
    let sql = "SELECT EXISTS (SELECT FROM manifest WHERE digest = $1)";
    client
        .query_one(sql, &[&manifest.digest.to_bytes()])
        .await
        .unwrap()
        .get(0)
}

/// Makes everything old enough to be garbage.
async fn age(database: &TestDatabase) {
    let sql = "UPDATE manifest SET first_seen = first_seen - interval '2 hours';
               UPDATE repository_manifest SET first_seen = first_seen - interval '2 hours'";
    database.client().await.unwrap().batch_execute(sql).await.unwrap();
}

const DANGLING: &str = "SELECT
    (SELECT count(*) FROM manifest m WHERE verified AND NOT EXISTS (SELECT FROM document d WHERE d.digest = m.digest))
    + (SELECT count(*) FROM document d WHERE NOT EXISTS (
           SELECT FROM manifest m WHERE m.digest = d.digest OR m.config_digest = d.digest))
    + (SELECT count(*) FROM manifest m WHERE NOT EXISTS (
           SELECT FROM repository_manifest h WHERE h.manifest_id = m.id))";

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_keeps_tags_members_referrers_and_history() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let image = |seed: &str| ImageBuilder::new(seed).build();
    let (old, new, member) = (image("old"), image("new"), image("member"));
    let image_index = IndexBuilder::new().member(member.clone()).build();
    let referrer = images::sbom_referrer(&new);
    fill(&registry, "a", &old, &["latest"]);
    fill(&registry, "a", &image_index, &["index"]);
    fill(&registry, "a", &referrer, &["sbom"]);
    let yaml = "interval: {garbage_collect: 0, fetch_all: 0}";
    let indexer = Indexer::start(config(&registry.url(), &database, yaml), listener().0);
    ask(&indexer, RequestKind::Scan).await;
    fill(&registry, "a", &new, &["latest"]);
    registry.delete_tag("a", "sbom");
    ask(&indexer, RequestKind::Scan).await;
    // The referrer is held without a tag from here on, beyond the history too.
    let forget = "DELETE FROM tag WHERE name = 'sbom'";
    database.client().await.unwrap().batch_execute(forget).await.unwrap();
    let before = index_contents(&database).await;
    ask(&indexer, RequestKind::Gc).await;
    age(&database).await;
    ask(&indexer, RequestKind::Gc).await;
    for manifest in [&old, &new, &member, &image_index, &referrer] {
        assert!(is_stored(&database, manifest).await);
    }
    assert_eq!(index_contents(&database).await, before);
    assert_eq!(value::<i64>(&database, DANGLING).await, 0);
    // Without its subject the referrer is garbage.
    fill(&registry, "a", &old, &["latest"]);
    ask(&indexer, RequestKind::Scan).await;
    let forget = "DELETE FROM tag WHERE to_n IS NOT NULL";
    database.client().await.unwrap().batch_execute(forget).await.unwrap();
    ask(&indexer, RequestKind::Gc).await;
    assert!(!is_stored(&database, &new).await);
    assert!(!is_stored(&database, &referrer).await);
    assert!(is_stored(&database, &old).await);
    assert_eq!(value::<i64>(&database, DANGLING).await, 0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_before_the_kept_history_is_forgotten() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let (old, new, member) = (
        ImageBuilder::new("old").build(),
        ImageBuilder::new("new").build(),
        ImageBuilder::new("member").build(),
    );
    let image_index = IndexBuilder::new().member(member.clone()).build();
    fill(&registry, "a", &old, &["latest"]);
    fill(&registry, "a", &image_index, &["index"]);
    let yaml = "interval: {garbage_collect: 0, fetch_all: 0}\nhistory: {keep: 0}";
    let indexer = Indexer::start(config(&registry.url(), &database, yaml), listener().0);
    ask(&indexer, RequestKind::Scan).await;
    fill(&registry, "a", &new, &["latest"]);
    registry.delete_tag("a", "index");
    ask(&indexer, RequestKind::Scan).await;
    let contents = index_contents(&database).await;
    age(&database).await;
    ask(&indexer, RequestKind::Gc).await;
    for (manifest, kept) in [(&old, false), (&new, true), (&image_index, false), (&member, false)] {
        assert_eq!(is_stored(&database, manifest).await, kept);
    }
    assert_eq!(index_contents(&database).await, contents);
    let history = "SELECT n - history_n FROM state";
    assert_eq!(
        value::<i64>(&database, history).await,
        0,
        "the present is the oldest that may be asked for"
    );
    assert_eq!(
        value::<i64>(&database, "SELECT count(*) FROM tag WHERE to_n IS NOT NULL").await,
        0
    );
    assert_eq!(value::<i64>(&database, DANGLING).await, 0);
    indexer.stop().await;
}
