//! One writer, fenced in the database; eras; and whose registry the index is of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flagstate_common::config::{Limits, RepositoryFilter};
use flagstate_common::revision::Revision;
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::Pool;
use flagstate_common::store::read::{ReadError, ReadStore};
use flagstate_indexer::scan::manifest::ObservedManifest;
use flagstate_indexer::scan::observation::{Cause, ChangeSet};
use flagstate_indexer::store::{
    Acquired, Arrival, LeaseError, LeaseStore, QueueStore, ScanProgress, Settlement, WriteError, WriteStore,
    WriterLease,
};
use flagstate_test_support::fake_registry::FakeRegistry;
use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::postgres::TestDatabase;
use tokio_postgres::Client;

use super::harness::{Indexer, config, fill, index_contents, listener, pool, post, pushed, until, value};

const REGISTRY: &str = "http://registry.example/";

fn changes(seed: &str) -> ChangeSet {
    let image = ImageBuilder::new(seed).build();
    let media_type = image.media_type.parse().unwrap();
    let manifest = ObservedManifest::read(image.digest.clone(), image.body, Some(&media_type), &Limits::default());
    ChangeSet {
        repository: "apps/a".parse().unwrap(),
        cause: Cause::Scan,
        manifests: vec![Arc::new(manifest)],
        held: BTreeMap::from([(image.digest.clone(), None)]),
        moved: BTreeMap::from([("latest".parse().unwrap(), (image.digest, None))]),
        ended: BTreeSet::new(),
        dated: BTreeMap::new(),
    }
}

async fn acquire(pool: &Pool, holder: &str) -> WriterLease {
    match LeaseStore::new(pool.clone())
        .try_acquire(holder, REGISTRY, false)
        .await
        .unwrap()
    {
        Acquired::Writer { lease, .. } => lease,
        Acquired::HeldBy { holder } => panic!("{holder} writes"),
    }
}

fn store(pool: &Pool, lease: &WriterLease) -> WriteStore {
    WriteStore::open(pool.clone(), lease.clone(), 4)
}

/// Everything that only the writer writes.
async fn written(client: &Client) -> String {
    let row = client
        .query_one(
            "SELECT concat_ws(' ',
                 (SELECT json_agg(s)::text FROM state s), (SELECT json_agg(r ORDER BY id)::text FROM repository r),
                 (SELECT count(*) FROM manifest), (SELECT count(*) FROM document), (SELECT count(*) FROM tag),
                 (SELECT count(*) FROM repository_manifest), (SELECT count(*) FROM revision_change),
                 (SELECT json_agg(q)::text FROM scan_queue q))",
            &[],
        )
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_writer_is_fenced() {
    let database = TestDatabase::create().await.unwrap();
    let (pool, client) = (pool(&database), database.client().await.unwrap());
    let leases = LeaseStore::new(pool.clone());
    let old = acquire(&pool, "paused").await;
    let paused = store(&pool, &old);
    paused.apply(&changes("first"), None).await.unwrap();
    let queue = QueueStore::new(pool.clone());
    let arrival = Arrival {
        repository: "apps/a".parse().unwrap(),
        hint: None,
    };
    queue.enqueue(&[arrival]).await.unwrap();
    let (work, _) = paused.due(&[], 10).await.unwrap();
    let held = leases.try_acquire("other", REGISTRY, false).await.unwrap();
    assert!(matches!(held, Acquired::HeldBy { holder } if holder == "paused"));
    // It sleeps through its expiry.
    client
        .execute(
            "UPDATE writer_lease SET expires_at = clock_timestamp() - interval '1 s'",
            &[],
        )
        .await
        .unwrap();
    let new = acquire(&pool, "other").await;
    assert!(new.epoch() > old.epoch());

    let before = written(&client).await;
    let done = Settlement::Done {
        whole: true,
        hints: Vec::new(),
        explained: Vec::new(),
        again_at: None,
    };
    let failed = Settlement::Failed {
        error: "late".to_owned(),
    };
    let nothing = RepositoryFilter::new(Vec::new(), Vec::new());
    let outcomes = [
        paused.apply(&changes("second"), None).await,
        paused.apply(&changes("second"), Some((&work[0], &done))).await,
        paused.stage(&changes("second").manifests).await,
        paused.settle(&work[0], &done).await,
        paused.settle(&work[0], &failed).await,
        paused.exclude(&nothing).await.map(drop),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(WriteError::Fenced { epoch }) => assert_eq!(epoch, old.epoch()),
            other => panic!("{number}: {other:?}"),
        }
    }
    assert!(!leases.renew(&old, ScanProgress::default()).await.unwrap());
    leases.release(&old).await.unwrap();
    assert_eq!(written(&client).await, before, "nothing was written");
    let holder: String = client
        .query_one("SELECT holder FROM writer_lease", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(holder, "other", "nor was the other's lease given back");
    store(&pool, &new)
        .apply(&changes("second"), Some((&work[0], &done)))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_is_fenced_in_the_middle_of_a_transaction() {
    let database = TestDatabase::create().await.unwrap();
    let (pool, mut client) = (pool(&database), database.client().await.unwrap());
    let old = acquire(&pool, "slow").await;
    let slow = store(&pool, &old);
    let watching = database.client().await.unwrap();
    // Somebody takes the epoch while the writer's transaction waits for its turn.
    let transaction = client.transaction().await.unwrap();
    transaction
        .execute("UPDATE state SET epoch = epoch + 1", &[])
        .await
        .unwrap();
    for write in 0..2 {
        let before = written(&watching).await;
        let (slow, changes) = (slow.clone(), changes("late"));
        let writing = tokio::spawn(async move {
            match write {
                0 => slow.apply(&changes, None).await,
                _ => slow.stage(&changes.manifests).await,
            }
        });
        until("the writer waits", async || {
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let waiting: i64 = watching.query_one(waiting, &[]).await.unwrap().get(0);
            if waiting == 1 || write == 1 {
                Ok(())
            } else {
                Err(waiting)
            }
        })
        .await;
        assert_eq!(written(&watching).await, before);
        if write == 0 {
            transaction.batch_execute("COMMIT").await.unwrap();
        }
        assert!(matches!(writing.await.unwrap(), Err(WriteError::Fenced { .. })));
    }
    assert_eq!(value::<i64>(&database, "SELECT count(*) FROM manifest").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_indexers_writes_and_the_other_takes_over() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let start = |holder: &str| {
        Indexer::start_as(
            holder,
            config(&registry.url(), &database, "interval: {fetch_all: 0}"),
            listener().0,
        )
    };
    let is_writer = |indexer: &Indexer| indexer.gauge("flagstate_writer") == 1.0;
    let first = start("first");
    until(
        "the first writes",
        async || if is_writer(&first) { Ok(()) } else { Err(()) },
    )
    .await;
    let second = start("second");
    let shows = async |tag: &str, events: &url::Url| {
        let image = ImageBuilder::new(tag).build();
        fill(&registry, "apps/a", &image, &[tag]);
        post(events, &[pushed("apps/a", Some(tag), &image.digest)]).await;
        until("the push is visible", async || {
            let index = index_contents(&database).await;
            let shown = index
                .repositories()
                .get("apps/a")
                .is_some_and(|tags| tags.contains_key(tag));
            if shown { Ok(()) } else { Err(index) }
        })
        .await;
    };
    shows("to-the-writer", &first.events).await;
    shows("to-the-standby", &second.events).await;
    assert!(is_writer(&first) && !is_writer(&second));
    assert_eq!(second.count("flagstate_changes_total", None), 0);
    let epoch: i64 = value(&database, "SELECT epoch FROM state").await;
    first.stop().await;
    until(
        "the second writes",
        async || if is_writer(&second) { Ok(()) } else { Err(()) },
    )
    .await;
    assert!(value::<i64>(&database, "SELECT epoch FROM state").await > epoch);
    shows("to-the-heir", &second.events).await;
    // Somebody else takes the lease and dies: the writer stands back, and takes it again when it has run out.
    let stolen = "WITH stolen AS (
            UPDATE writer_lease SET holder = 'thief', epoch = epoch + 1,
                expires_at = clock_timestamp() + interval '1 h' RETURNING epoch)
        UPDATE state SET epoch = stolen.epoch FROM stolen";
    let client = database.client().await.unwrap();
    client.batch_execute(stolen).await.unwrap();
    until("the second stands back", async || {
        if is_writer(&second) { Err(()) } else { Ok(()) }
    })
    .await;
    client
        .batch_execute("UPDATE writer_lease SET expires_at = clock_timestamp()")
        .await
        .unwrap();
    until("the second writes again", async || {
        if is_writer(&second) { Ok(()) } else { Err(()) }
    })
    .await;
    shows("after-the-thief", &second.events).await;
    second.stop().await;
}

async fn search(store: &ReadStore, as_of: &str) -> Result<usize, ReadError> {
    let query = SearchQuery::parse_index(&format!("as_of={as_of}"), &Limits::default()).unwrap();
    Ok(store.search(&query).await?.value.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_begins_a_new_era() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let image = ImageBuilder::new("a").build();
    fill(&registry, "apps/a", &image, &["latest"]);
    let store = ReadStore::new(pool(&database), RepositoryFilter::default());
    let indexer = Indexer::start(config(&registry.url(), &database, ""), listener().0);
    indexer.scan().await;
    indexer.stop().await;
    let old = store.revision().await.unwrap();
    assert!(old.n > 0);
    assert_eq!(search(&store, &old.to_string()).await.unwrap(), 1);
    let client = database.client().await.unwrap();
    let before: chrono::DateTime<chrono::Utc> = value(&database, "SELECT clock_timestamp()").await;

    // As after a dump was restored elsewhere: what came after it is lost, though the registry has it.
    client
        .batch_execute("UPDATE state SET incarnation = 'another machine'")
        .await
        .unwrap();
    fill(&registry, "apps/b", &image, &["latest"]);
    let pool = pool(&database);
    let leases = LeaseStore::new(pool.clone());
    let url = registry.url();
    let acquired = leases.try_acquire("dies at once", url.as_str(), false).await.unwrap();
    let Acquired::Writer {
        lease,
        revision,
        new_era,
    } = acquired
    else {
        panic!("{acquired:?}");
    };
    assert!(
        new_era && revision.era > old.era && revision.n == old.n,
        "{revision} after {old}"
    );
    assert_eq!(store.revision().await.unwrap(), revision);
    assert!(matches!(search(&store, &old.to_string()).await, Err(ReadError::OtherEra { asked, .. }) if asked == old));
    assert_eq!(search(&store, &revision.to_string()).await.unwrap(), 1);
    // Times of the old era cannot be asked about; those since are, before anything was written.
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    assert!(matches!(
        search(&store, &time(before)).await,
        Err(ReadError::AsOfGone { .. })
    ));
    let since = value(&database, "SELECT clock_timestamp()").await;
    assert_eq!(search(&store, &time(since)).await.unwrap(), 1);
    leases.release(&lease).await.unwrap();

    // The next writer, which sees no change of the database and has no interval, scans everything all the same.
    let indexer = Indexer::start(
        config(&registry.url(), &database, "interval: {fetch_all: 0}"),
        listener().0,
    );
    until("what the restored database lacks is there", async || {
        let index = index_contents(&database).await;
        if index.repositories().len() == 2 {
            Ok(())
        } else {
            Err(index)
        }
    })
    .await;
    let now = store.revision().await.unwrap();
    assert_eq!((now.era, now.n > revision.n), (revision.era, true));
    assert_eq!(
        search(
            &store,
            &Revision {
                era: now.era,
                n: revision.n
            }
            .to_string()
        )
        .await
        .unwrap(),
        1
    );
    assert_eq!(search(&store, &time(since)).await.unwrap(), 1);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_of_another_registry_is_not_touched_unless_adopted() {
    let database = TestDatabase::create().await.unwrap();
    let leases = LeaseStore::new(pool(&database));
    let Acquired::Writer { lease, .. } = leases.try_acquire("one", REGISTRY, false).await.unwrap() else {
        panic!("nobody writes");
    };
    leases.release(&lease).await.unwrap();
    let state = "SELECT json_agg(s)::text || json_agg(w)::text FROM state s, writer_lease w";
    let before: String = value(&database, state).await;
    match leases.try_acquire("two", "http://elsewhere.example/", false).await {
        Err(LeaseError::OtherRegistry { stored, configured }) => {
            assert_eq!(
                (stored.as_str(), configured.as_str()),
                (REGISTRY, "http://elsewhere.example/")
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        value::<String>(&database, state).await,
        before,
        "the lease was not taken"
    );
    let adopted = leases
        .try_acquire("two", "http://elsewhere.example/", true)
        .await
        .unwrap();
    assert!(matches!(adopted, Acquired::Writer { new_era: false, .. }));
    assert_eq!(
        value::<i64>(&database, "SELECT count(*) FROM request WHERE kind = 'scan'").await,
        1,
        "it is scanned"
    );
    let stored: String = value(&database, "SELECT registry_url FROM state").await;
    assert_eq!(stored, "http://elsewhere.example/");
}
