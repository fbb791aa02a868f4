//! The queue: no arrival is lost, however work and arrivals meet, and no repository stands in another's way.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use flagstate_common::digest::Digest;
use flagstate_common::repository_name::RepositoryName;
use flagstate_indexer::scan::hint::{Action, Hint, Target};
use flagstate_indexer::scan::observation::{Cause, ChangeSet};
use flagstate_indexer::store::{Arrival, QueueStore, RequestKind, RequestStore, Settlement, WorkItem, WriteStore};
use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Kind, Rule};
use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::postgres::TestDatabase;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::Client;

use super::harness::{
    Indexer, config, deleted, fill, index_contents, listener, pool, post, pushed, until, value, write_store,
};

fn push(tag: &str) -> Hint {
    let now = Utc::now();
    Hint {
        action: Action::Push,
        target: Target::Tag(tag.parse().unwrap(), Some(Digest::of(b"a"))),
        arrived_at: now,
        happened_at: now,
        explained: false,
    }
}

fn arrival(repository: &str, hint: Option<Hint>) -> Arrival {
    Arrival {
        repository: repository.parse().unwrap(),
        hint,
    }
}

/// Reads a row as the writer does, due or not.
async fn read(client: &Client, store: &WriteStore, repository: &str) -> Option<WorkItem> {
    client
        .execute("UPDATE scan_queue SET not_before = clock_timestamp()", &[])
        .await
        .unwrap();
    let (items, _) = store.due(&[], 1_000).await.unwrap();
    items.into_iter().find(|item| item.repository.as_str() == repository)
}

/// Work that has arrived and is not done, by what names it: the number of its last arrival.
type Open = BTreeMap<String, u64>;

fn name(hint: Option<&Hint>) -> String {
    hint.map_or("whole".to_owned(), |hint| format!("{:?} {:?}", hint.action, hint.tag()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_arrival_is_lost_however_it_meets_work() {
    const SEEDS: u64 = 60;
    const STEPS: usize = 40;
    let database = TestDatabase::create().await.unwrap();
    let (pool, client) = (pool(&database), database.client().await.unwrap());
    let (queue, store) = (QueueStore::new(pool.clone()), write_store(&pool).await);
    let (mut raced, mut settled) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let repository = format!("apps/r{seed}");
        let (mut open, mut arrivals) = (Open::new(), 0);
        // Work that was read, with what was open then.
        let mut reading: Option<(WorkItem, Open)> = None;
        for step in 0..STEPS {
            let mut arrive = |random: &mut StdRng, open: &mut Open| {
                let hint = match random.random_range(0..6) {
                    0 => None,
                    number => Some(push(&format!("t{number}"))),
                };
                arrivals += 1;
                open.insert(name(hint.as_ref()), arrivals);
                arrival(&repository, hint)
            };
            match random.random_range(0..3) {
                0 => {
                    let arrived = [arrive(&mut random, &mut open), arrive(&mut random, &mut open)];
                    queue.enqueue(&arrived).await.unwrap();
                }
                1 => {
                    let item = read(&client, &store, &repository).await;
                    reading = item.map(|item| (item, open.clone()));
                }
                _ => {
                    let Some((item, open_then)) = reading.take() else {
                        continue;
                    };
                    let done: Vec<Hint> = item.hints.iter().filter(|_| random.random_bool(0.7)).cloned().collect();
                    let whole = random.random_bool(0.5);
                    let names: Vec<String> = done.iter().map(|hint| name(Some(hint))).collect();
                    let settlement = if random.random_bool(0.2) {
                        Settlement::Failed { error: "x".to_owned() }
                    } else {
                        Settlement::Done {
                            whole,
                            hints: done,
                            explained: Vec::new(),
                            again_at: None,
                        }
                    };
                    let is_done = matches!(settlement, Settlement::Done { .. });
                    // Sometimes something arrives at the very same time.
                    if random.random_bool(0.5) {
                        let arrived = [arrive(&mut random, &mut open)];
                        let (one, other) = tokio::join!(queue.enqueue(&arrived), store.settle(&item, &settlement));
                        one.unwrap();
                        other.unwrap();
                        raced += 1;
                    } else {
                        store.settle(&item, &settlement).await.unwrap();
                    }
                    if is_done {
                        settled += 1;
                        // What did not arrive again since it was read is done.
                        open.retain(|name, arrival| {
                            let is_done = names.contains(name) || (name == "whole" && whole);
                            open_then.get(name) != Some(arrival) || !is_done
                        });
                    }
                }
            }
            let row = read(&client, &store, &repository).await;
            let names: Vec<String> = row
                .iter()
                .flat_map(|row| &row.hints)
                .map(|hint| name(Some(hint)))
                .collect();
            for open in open.keys() {
                let is_there = names.contains(open) || (open == "whole" && row.as_ref().is_some_and(|row| row.whole));
                assert!(is_there, "seed {seed}, step {step}: {open} was lost of {row:?}");
            }
            let count = open.len();
            let there = names.len() + usize::from(row.as_ref().is_some_and(|row| row.whole));
            assert_eq!(
                there, count,
                "seed {seed}, step {step}: something was not settled: {row:?}, open {open:?}"
            );
        }
        client.execute("DELETE FROM scan_queue", &[]).await.unwrap();
    }
    assert!(raced > 100 && settled > 200, "{raced} races, {settled} settlements");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_are_as_many_rows_as_repositories() {
    let database = TestDatabase::create().await.unwrap();
    let queue = QueueStore::new(pool(&database));
    let batches = (0..100).map(|batch| {
        let events = (0..100).map(move |event| {
            let number = batch * 100 + event;
            arrival(
                &format!("apps/r{}", number % 10),
                Some(push(&format!("t{}", number / 10 % 500))),
            )
        });
        let (queue, events) = (queue.clone(), events.collect::<Vec<_>>());
        async move { queue.enqueue(&events).await.unwrap() }
    });
    futures::future::join_all(batches).await;
    let status = queue.status().await.unwrap();
    assert_eq!(status.repositories, 10);
    let row = "SELECT count(*) FROM scan_queue WHERE whole AND (SELECT count(*) FROM jsonb_object_keys(hints)) <= 128";
    assert_eq!(
        value::<i64>(&database, row).await,
        10,
        "bounded, and the whole is looked at"
    );
}

/// Arrivals of many repositories, work that is settled, and change sets that settle: they never lock each other out.
#[tokio::test(flavor = "multi_thread")]
async fn arrivals_and_settlements_never_deadlock() {
    const REPOSITORIES: usize = 8;
    const ROUNDS: usize = 60;
    let database = TestDatabase::create().await.unwrap();
    let pool = pool(&database);
    let (queue, store) = (QueueStore::new(pool.clone()), write_store(&pool).await);
    let names: Vec<String> = (0..REPOSITORIES).map(|number| format!("apps/r{number}")).collect();
    let arriving = async {
        for round in 0..ROUNDS {
            let all: Vec<_> = names
                .iter()
                .rev()
                .map(|name| arrival(name, Some(push(&format!("t{round}")))))
                .collect();
            queue.enqueue(&all).await.unwrap();
        }
    };
    let working = |number: usize| {
        let (store, names) = (store.clone(), names.clone());
        async move {
            for round in 0..ROUNDS {
                let busy: Vec<RepositoryName> = names
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| other % 3 != number)
                    .map(|(_, name)| name.parse().unwrap())
                    .collect();
                let (items, _) = store.due(&busy, 3).await.unwrap();
                for item in items {
                    let settlement = Settlement::Done {
                        whole: true,
                        hints: item.hints.clone(),
                        explained: Vec::new(),
                        again_at: None,
                    };
                    if round % 2 == 0 {
                        store.settle(&item, &settlement).await.unwrap();
                    } else {
                        let changes = ChangeSet {
                            repository: item.repository.clone(),
                            cause: Cause::Notification,
                            manifests: Vec::new(),
                            held: BTreeMap::new(),
                            moved: BTreeMap::new(),
                            ended: std::iter::once("latest".parse().unwrap()).collect(),
                            dated: BTreeMap::new(),
                        };
                        store.apply(&changes, Some((&item, &settlement))).await.unwrap();
                    }
                }
            }
        }
    };
    tokio::join!(arriving, working(0), working(1), working(2));
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(value::<i64>(&database, deadlocks).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_back_off_and_end_in_quarantine() {
    let database = TestDatabase::create().await.unwrap();
    let (pool, client) = (pool(&database), database.client().await.unwrap());
    let (queue, store) = (QueueStore::new(pool.clone()), write_store(&pool).await);
    queue.enqueue(&[arrival("apps/bad", None)]).await.unwrap();
    let failed = Settlement::Failed {
        error: "no luck".to_owned(),
    };
    let delay = async || -> f64 {
        let delay = "SELECT extract(epoch FROM not_before - clock_timestamp())::float8 FROM scan_queue";
        client.query_one(delay, &[]).await.unwrap().get(0)
    };
    for attempt in 0..12 {
        let item = read(&client, &store, "apps/bad").await.unwrap();
        assert_eq!(item.attempts, attempt);
        store.settle(&item, &failed).await.unwrap();
        let ceiling = f64::from(1_u32 << attempt).min(900.0);
        let delay = delay().await;
        assert!(
            delay <= ceiling && delay > ceiling / 2.0 - 60.0,
            "{delay} after failure {attempt}"
        );
        let quarantined = queue.status().await.unwrap().quarantined;
        assert_eq!(quarantined, i64::from(attempt >= 7), "after failure {attempt}");
    }
    // Something new is worth an earlier try, be it before or while work fails.
    queue.enqueue(&[arrival("apps/bad", Some(push("new")))]).await.unwrap();
    assert!(delay().await <= 5.0);
    let item = read(&client, &store, "apps/bad").await.unwrap();
    queue
        .enqueue(&[arrival("apps/bad", Some(push("newer")))])
        .await
        .unwrap();
    store.settle(&item, &failed).await.unwrap();
    assert!(delay().await <= 5.0);
    let item = read(&client, &store, "apps/bad").await.unwrap();
    let done = Settlement::Done {
        whole: false,
        hints: item.hints.clone(),
        explained: Vec::new(),
        again_at: None,
    };
    store.settle(&item, &done).await.unwrap();
    assert_eq!(
        read(&client, &store, "apps/bad").await.unwrap().attempts,
        0,
        "one success ends it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_stops_no_other() {
    let database = TestDatabase::create().await.unwrap();
    let (pool, client) = (pool(&database), database.client().await.unwrap());
    let (queue, store) = (QueueStore::new(pool.clone()), write_store(&pool).await);
    let rows = [
        ("apps/later", r#"{"x": {"do": "sing"}}"#),
        ("apps/broken", r#"[]"#),
        ("Not A Name", "{}"),
    ];
    for (repository, hints) in rows {
        let insert = "INSERT INTO scan_queue (repository, whole, hints) VALUES ($1, true, $2::text::jsonb)";
        client.execute(insert, &[&repository, &hints]).await.unwrap();
    }
    queue.enqueue(&[arrival("apps/good", None)]).await.unwrap();
    for failures in 1..=8 {
        client
            .execute("UPDATE scan_queue SET not_before = clock_timestamp()", &[])
            .await
            .unwrap();
        let (items, _) = store.due(&[], 10).await.unwrap();
        let names: Vec<_> = items.iter().map(|item| item.repository.as_str()).collect();
        assert_eq!(names, ["apps/good"]);
        let attempts = "SELECT min(attempts)::bigint FROM scan_queue WHERE repository <> 'apps/good'";
        assert_eq!(value::<i64>(&database, attempts).await, failures);
    }
    assert_eq!(queue.status().await.unwrap().quarantined, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_quarantine_is_told_and_keeps_nobody_waiting() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let image = ImageBuilder::new("a").build();
    registry.add(Rule::on("/v2/apps/bad/*", Fault::Status(500)));
    let client = database.client().await.unwrap();
    let bad = "INSERT INTO scan_queue (repository, whole, attempts) VALUES ('apps/bad', true, 7)";
    client.execute(bad, &[]).await.unwrap();
    let indexer = Indexer::start(
        config(&registry.url(), &database, "interval: {fetch_all: 0}"),
        listener().0,
    );
    fill(&registry, "apps/good", &image, &["latest"]);
    post(&indexer.events, &[pushed("apps/good", Some("latest"), &image.digest)]).await;
    until("the good one is shown", async || {
        let index = index_contents(&database).await;
        if index.repositories().contains_key("apps/good") {
            Ok(())
        } else {
            Err(index)
        }
    })
    .await;
    until("the quarantine is told", async || {
        let quarantined = indexer.gauge("flagstate_queue_quarantined_repositories");
        if quarantined == 1.0 { Ok(()) } else { Err(quarantined) }
    })
    .await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_scans_nor_notifications_starve() {
    const REPOSITORIES: usize = 240;
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    for number in 0..REPOSITORIES {
        fill(
            &registry,
            &format!("bulk/r{number}"),
            &ImageBuilder::new("bulk").build(),
            &["latest"],
        );
    }
    registry.add(Rule::on("/v2/bulk/*", Fault::Delay(Duration::from_millis(60))));
    let indexer = Indexer::start(
        config(&registry.url(), &database, "interval: {fetch_all: 0}"),
        listener().0,
    );
    let requests = RequestStore::new(indexer.pool.clone());
    let id = requests.ask(RequestKind::Scan).await.unwrap();
    until("the scan is under way", async || {
        let lists = registry.count(Kind::Tags);
        if lists > 8 { Ok(()) } else { Err(lists) }
    })
    .await;
    let (mut during, mut number) = (0, 0);
    while requests.follow(id).await.unwrap().outcome.is_none() {
        let image = ImageBuilder::new(&format!("pushed {number}")).build();
        fill(&registry, "apps/a", &image, &["latest"]);
        post(&indexer.events, &[pushed("apps/a", Some("latest"), &image.digest)]).await;
        until("the push is visible", async || {
            let index = index_contents(&database).await;
            let at = index
                .repositories()
                .get("apps/a")
                .and_then(|tags| tags.get("latest"))
                .cloned();
            if at == Some(image.digest.to_string()) {
                Ok(())
            } else {
                Err(at)
            }
        })
        .await;
        during += usize::from(requests.follow(id).await.unwrap().outcome.is_none());
        number += 1;
    }
    assert!(during >= 3, "{during} pushes were seen during the scan");
    assert_eq!(index_contents(&database).await.repositories().len(), REPOSITORIES + 1);
    post(&indexer.events, &[deleted("apps/a", Some("latest"), None)]).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_handed_out_oldest_first_and_not_twice() {
    let database = TestDatabase::create().await.unwrap();
    let (pool, client) = (pool(&database), database.client().await.unwrap());
    let (queue, store) = (QueueStore::new(pool.clone()), write_store(&pool).await);
    let names = ["apps/c", "apps/a", "apps/b"];
    for name in names {
        queue.enqueue(&[arrival(name, None)]).await.unwrap();
    }
    client
        .execute(
            "UPDATE scan_queue SET not_before = not_before + interval '1 h' WHERE repository = 'apps/b'",
            &[],
        )
        .await
        .unwrap();
    let (items, next) = store.due(&[], 10).await.unwrap();
    let due: Vec<_> = items.iter().map(|item| item.repository.as_str()).collect();
    assert_eq!(due, ["apps/c", "apps/a"]);
    let hour = TimeDelta::hours(1).to_std().unwrap();
    assert!(next.is_some_and(|next| next <= hour), "{next:?}");
    let busy: Vec<RepositoryName> = vec!["apps/c".parse().unwrap()];
    let (items, _) = store.due(&busy, 10).await.unwrap();
    let counts = items.iter().fold(HashMap::new(), |mut counts, item| {
        *counts.entry(item.repository.to_string()).or_insert(0) += 1;
        counts
    });
    assert_eq!(counts, HashMap::from([("apps/a".to_owned(), 1)]));
}
