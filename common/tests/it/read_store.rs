//! What the reading store says beside the answers themselves: revisions, freshness, refusals.

use chrono::{TimeDelta, Utc};
use flagstate_common::config::{Limits, RepositoryFilter};
use flagstate_common::revision::Revision;
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::read::{ReadError, ReadStore};
use flagstate_test_support::model::{Registry, generate};
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::seed::seed;

use crate::pools;

/// A database with the registry of model seed 1, and a store over it that shows what `visible` allows.
async fn store(visible: RepositoryFilter) -> (TestDatabase, Registry, ReadStore) {
    let database = TestDatabase::create().await.expect("a database");
    let registry = generate(1);
    let mut client = database.client().await.expect("a connection");
    seed(&mut client, &registry).await.expect("a seeded database");
    let store = ReadStore::new(pools::reader(&database.reader_url()), visible);
    (database, registry, store)
}

fn query(query_string: &str) -> SearchQuery {
    SearchQuery::parse_strict(query_string, &Limits::default(), &[]).expect("a query")
}

#[tokio::test]
async fn every_answer_bears_the_present_revision() {
    let (_database, registry, store) = store(RepositoryFilter::default()).await;
    let present = Revision {
        era: registry.era,
        n: 12,
    };
    assert_eq!(store.revision().await.expect("a revision"), present);
    for query_string in ["", "tag=", "as_of=1700000000.3"] {
        let found = store.search(&query(query_string)).await.expect("an answer");
        assert_eq!(found.revision, present, "{query_string}");
    }
}

#[tokio::test]
async fn refuses_states_that_are_not_kept() {
    let (database, registry, store) = store(RepositoryFilter::default()).await;
    let cut = registry.times[5];
    let client = database.client().await.expect("a connection");
    let forget = "UPDATE state SET history_n = 5, history_at = $1";
    client.execute(forget, &[&cut]).await.expect("a shorter history");

    let time = |time: chrono::DateTime<Utc>| time.to_rfc3339().replace('+', "%2B");
    let before = time(cut - TimeDelta::microseconds(1));
    let tomorrow = time(Utc::now() + TimeDelta::days(1));
    for (as_of, expected) in [
        ("1700000000.4", "gone"),
        (&before, "gone"),
        ("1700000000.13", "future"),
        (&tomorrow, "future"),
        ("1699999999.6", "another era"),
        ("1700000001.6", "another era"),
        ("1700000000.5", "answer"),
        (&time(cut), "answer"),
        (&time(Utc::now()), "answer"),
        ("1700000000.12", "answer"),
    ] {
        let outcome = match store.search(&query(&format!("as_of={as_of}"))).await {
            Ok(_) => "answer",
            Err(ReadError::AsOfFuture) => "future",
            Err(ReadError::AsOfGone { oldest, oldest_at }) => {
                assert_eq!((oldest.n, oldest_at), (5, cut));
                "gone"
            }
            Err(ReadError::OtherEra { era, .. }) => {
                assert_eq!(era, registry.era);
                "another era"
            }
            Err(ReadError::Store(error)) => panic!("{error:?}"),
        };
        assert_eq!(outcome, expected, "{as_of}");
    }
}

#[tokio::test]
async fn shows_only_repositories_that_are_configured() {
    let all = generate(1).answer(&[]);
    let (first, others) = all.split_first().expect("repositories");
    let pattern = |text: &str| vec![text.parse().expect("a pattern")];
    let visible = RepositoryFilter::new(pattern("**"), pattern(first.name.as_str()));
    let (_database, _registry, store) = store(visible).await;
    let found = store.search(&query("")).await.expect("an answer").value;
    assert_eq!(found, others);
}

#[tokio::test]
async fn tells_how_fresh_the_index_is() {
    let (database, registry, store) = store(RepositoryFilter::default()).await;
    let before = store.status().await.expect("a status");
    assert_eq!(
        before.revision,
        Revision {
            era: registry.era,
            n: 12
        }
    );
    assert_eq!(before.revision_at, registry.times[12]);
    assert_eq!((before.queue_length, before.oldest_enqueued_at), (0, None));
    assert_eq!(before.scan_completed_at, None);

    let client = database.client().await.expect("a connection");
    client
        .batch_execute(
            "INSERT INTO scan_queue (repository, whole, enqueued_at) VALUES \
                 ('a', true, '2026-01-02T00:00:00Z'), ('b', true, '2026-01-01T00:00:00Z'); \
             UPDATE writer_lease SET scan_completed_at = '2026-01-03T00:00:00Z'",
        )
        .await
        .expect("rows");
    let after = store.status().await.expect("a status");
    assert_eq!(after.queue_length, 2);
    let day = |text: &str| Some(text.parse().expect("a time"));
    assert_eq!(after.oldest_enqueued_at, day("2026-01-01T00:00:00Z"));
    assert_eq!(after.scan_completed_at, day("2026-01-03T00:00:00Z"));
    assert!(after.now >= before.now);
}

#[tokio::test]
async fn tells_the_schema_it_finds() {
    let database = TestDatabase::create().await.expect("a database");
    let client = database.client().await.expect("a connection");
    let store = ReadStore::new(pools::reader(&database.url()), RepositoryFilter::default());
    let newest = "SELECT max(version) FROM __diesel_schema_migrations";
    let newest: String = client.query_one(newest, &[]).await.expect("a version").get(0);
    assert_eq!(store.schema_version().await.expect("an answer"), Some(newest));
    client
        .batch_execute("DROP TABLE __diesel_schema_migrations")
        .await
        .expect("a database that was never migrated");
    assert_eq!(store.schema_version().await.expect("an answer"), None);
}
