//! Kept answers: filled once, fresh within bounds, there when the database is not (promises 7 to 10).

use std::time::Duration;

use flagstate_common::revision::Revision;

use crate::gate::Gate;
use crate::http::Answer;
use crate::index::Index;
use crate::service::Service;

const QUERY: &str = "/index/static?label:kind:exists=1";

/// Longer than anything here should take.
const DEADLINE: Duration = Duration::from_secs(60);

async fn index() -> Index {
    let mut index = Index::create().await;
    index.push("apps/a", "v1", &[("kind", "app")]).await;
    index
}

async fn fills(service: &Service, outcome: &str) -> u64 {
    service
        .metric(&format!("flagstate_cache_fills_total{{outcome=\"{outcome}\"}}"))
        .await
}

async fn answers(service: &Service, how: &str) -> u64 {
    service
        .metric(&format!("flagstate_cache_answers_total{{how=\"{how}\"}}"))
        .await
}

/// Asks until an answer is as it should be; none on the way may be anything but 200.
async fn until(service: &Service, target: &str, is_right: impl Fn(&Answer) -> bool) -> Answer {
    let asking = async {
        loop {
            let answer = service.get(target).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            if is_right(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.expect("in the end")
}

/// Waits until so many statements of query-api wait for a lock.
async fn are_blocked(watcher: &tokio_postgres::Client, statements: i64) {
    let waiting = async {
        loop {
            let row = watcher
                .query_one(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND usename = 'flagstate_reader' AND wait_event_type = 'Lock'",
                    &[],
                )
                .await
                .expect("an answer");
            if row.get::<_, i64>(0) == statements {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("blocked");
}

/// The answers of so many clients at once; who is told to come back, for the revision is not known yet, does so.
async fn all_get(service: &Service, clients: usize, since: Revision) -> Vec<Answer> {
    let clients = (0..clients).map(|_| async {
        loop {
            let answer = service.get_since(QUERY, since, &[]).await;
            if answer.status != 503 {
                return answer;
            }
        }
    });
    futures::future::join_all(clients).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_cost_one_read_a_revision() {
    const CLIENTS: usize = 1000;
    let mut index = index().await;
    let first: Revision = index.push("apps/b", "v0", &[]).await;
    let service = Service::start(&index);
    service.becomes_ready().await;
    let watcher = index.database.client().await.expect("a connection");

    // The first read cannot end before the lock is gone, so all of them wait for it.
    let lock = index.client.transaction().await.expect("a transaction");
    let exclusive = "LOCK TABLE tag IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(exclusive).await.expect("a lock");
    let unlock = async {
        are_blocked(&watcher, 1).await;
        lock.rollback().await.expect("no lock");
    };
    let (cold, ()) = tokio::join!(all_get(&service, CLIENTS, first), unlock);
    assert!(
        cold.iter()
            .all(|answer| answer.status == 200 && answer.tags() == ["v1"])
    );
    assert_eq!(fills(&service, "new").await, 1);

    let related = index.push("apps/a", "v2", &[("kind", "app")]).await;
    let refreshed = all_get(&service, CLIENTS, related).await;
    assert!(refreshed.iter().all(|answer| answer.tags() == ["v1", "v2"]));
    let unrelated = index.push("apps/b", "v1", &[]).await;
    let same = all_get(&service, CLIENTS, unrelated).await;
    assert!(same.iter().all(|answer| answer.body == refreshed[0].body));
    for (outcome, expected) in [("new", 1), ("changed", 1), ("equal", 1), ("failed", 0)] {
        assert_eq!(fills(&service, outcome).await, expected, "{outcome}");
    }
    service.stop().await;
}

#[tokio::test]
async fn permutations_of_a_query_are_one_entry() {
    let index = index().await;
    let service = Service::start(&index);
    let mut parameters = ["tag=v1", "tag=v2", "os=linux", "label%3Akind=app", "architecture=amd64"];
    for number in 0..60 {
        parameters.rotate_left(1 + number % 3);
        parameters.swap(0, number % 5);
        let target = format!("/index/static?{}&junk={number}&os=linux", parameters.join("&"));
        assert_eq!(service.get(&target).await.tags(), ["v1"], "{target}");
    }
    let target = format!("/index/dynamic?{}", parameters.join("&"));
    assert_eq!(service.get(&target).await.tags(), ["v1"], "{target}");
    assert_eq!(fills(&service, "new").await, 1);
    assert_eq!(answers(&service, "hit").await, 60);
    assert_eq!(service.metric("flagstate_cache_entries").await, 1);
    service.stop().await;
}

#[tokio::test]
async fn an_unrelated_change_moves_the_revision_and_nothing_else() {
    let mut index = index().await;
    let service = Service::start(&index);
    let before = service.get(QUERY).await;
    let tag = before.header("etag").expect("an entity tag");
    for number in 0..3 {
        let unrelated = index.push("apps/b", &format!("v{number}"), &[]).await;
        let headers = [("If-None-Match", tag)];
        let held = service.get_since(QUERY, unrelated, &headers).await;
        assert_eq!((held.status, held.header("etag")), (304, Some(tag)));
        let revision = unrelated.to_string();
        assert_eq!(held.header("flagstate-revision"), Some(revision.as_str()));
        assert_eq!(fills(&service, "equal").await, number + 1);
    }
    assert_eq!(fills(&service, "new").await, 1);
    assert_eq!(fills(&service, "changed").await, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_change_is_seen_by_those_who_demand_nothing_too() {
    let mut index = index().await;
    let service = Service::start(&index);
    for number in 2..5 {
        let first = service.get(QUERY).await;
        assert_eq!(first.header("flagstate-stale"), None);
        let pushed = index.push("apps/a", &format!("v{number}"), &[("kind", "app")]).await;
        let seen = until(&service, QUERY, |answer| answer.tags().len() == number).await;
        assert_eq!(seen.header("flagstate-revision"), Some(pushed.to_string().as_str()));
    }
    service.stop().await;
}

#[tokio::test]
async fn no_kept_answer_is_older_than_another_answer_that_was_given() {
    let mut index = index().await;
    let service = Service::start(&index);
    for number in 2..12 {
        let pushed = index.push("apps/a", &format!("v{number}"), &[("kind", "app")]).await;
        // It is this read, or a poll, that learns of the change; the kept answer must not be given out any more.
        let target = format!("/index/static?tag=unused{number}");
        let newest = service.get(&target).await;
        let newest: Revision = newest
            .header("flagstate-revision")
            .and_then(|text| text.parse().ok())
            .expect("a revision");
        assert_eq!(newest, pushed, "it was not kept");
        assert_eq!(service.get(QUERY).await.tags().len(), number);
    }
    service.stop().await;
}

#[tokio::test]
async fn without_the_database_kept_answers_go_on_as_stale() {
    let mut index = index().await;
    let (mut gate, url) = Gate::open_before(&index.database.reader_url()).await;
    let service = Service::start_with(&url, "2s", true);
    service.becomes_ready().await;
    let kept = service.get(QUERY).await;
    let revision = kept.header("flagstate-revision").expect("a revision");
    for _ in 0..2 {
        gate.shut().await;
        let stale = until(&service, QUERY, |answer| answer.header("flagstate-stale").is_some()).await;
        assert!(stale.body == kept.body);
        for name in ["etag", "cache-control", "vary", "flagstate-revision"] {
            assert_eq!(stale.header(name), kept.header(name), "{name}");
        }
        let seconds = stale.header("flagstate-stale").expect("seconds");
        assert!(seconds.parse::<u64>().expect("a number") >= 1);
        assert!(answers(&service, "stale").await > 0);
        let tag = kept.header("etag").expect("an entity tag");
        let held = service.get_with(QUERY, &[("If-None-Match", tag)]).await;
        assert_eq!((held.status, held.header("flagstate-stale").is_some()), (304, true));
        // What is known to have been there may be demanded, nothing newer.
        let known = service.get_with(QUERY, &[("Flagstate-Min-Revision", revision)]).await;
        assert_eq!(known.status, 200);
        let next: Revision = revision.parse().expect("a revision");
        let next = Revision { n: next.n + 1, ..next };
        assert_eq!(service.get_since(QUERY, next, &[]).await.status, 503);
        for target in ["/index/static", "/index/static?tag=none"] {
            let answer = service.get(target).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
            assert_eq!(answer.header("flagstate-stale"), None);
        }
        gate.open().await;
        until(&service, QUERY, |answer| answer.header("flagstate-stale").is_none()).await;
    }
    index.push("apps/a", "v2", &[("kind", "app")]).await;
    until(&service, QUERY, |answer| answer.tags() == ["v1", "v2"]).await;
    service.stop().await;
}

#[tokio::test]
async fn a_stale_answer_ends_with_stale_if_error() {
    let index = index().await;
    let (mut gate, url) = Gate::open_before(&index.database.reader_url()).await;
    let service = Service::start_configured(&url, "statement_timeout: 2s", "stale_if_error: 3s");
    service.becomes_ready().await;
    assert_eq!(service.get(QUERY).await.status, 200);
    gate.shut().await;
    let mut was_stale = false;
    let asking = async {
        loop {
            let answer = service.get(QUERY).await;
            if answer.status != 200 {
                return answer;
            }
            if let Some(seconds) = answer.header("flagstate-stale") {
                was_stale = true;
                assert!(seconds.parse::<u64>().expect("a number") <= 3);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let end = tokio::time::timeout(DEADLINE, asking).await.expect("it ends");
    assert_eq!((end.status, end.header("retry-after")), (503, Some("1")));
    assert!(was_stale);
    gate.open().await;
    let back = async { while service.get(QUERY).await.status != 200 {} };
    tokio::time::timeout(DEADLINE, back).await.expect("it is back");
    service.stop().await;
}

#[tokio::test]
async fn with_every_turn_taken_hits_are_fresh_and_misses_come_back_later() {
    let mut index = index().await;
    let service = Service::start_with(&index.database.reader_url(), "2s", true);
    service.becomes_ready().await;
    assert_eq!(service.get(QUERY).await.status, 200);
    let lock = index.client.transaction().await.expect("a transaction");
    let exclusive = "LOCK TABLE tag IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(exclusive).await.expect("a lock");
    let misses = async {
        let targets: Vec<_> = (0..50)
            .map(|number| format!("/index/static?tag=unused{number}"))
            .collect();
        let misses = targets.iter().map(|target| service.get(target));
        for answer in futures::future::join_all(misses).await {
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        }
    };
    let hits = async {
        for _ in 0..200 {
            let answer = service.get(QUERY).await;
            assert_eq!((answer.status, answer.header("flagstate-stale")), (200, None));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(misses, hits);
    assert_eq!(answers(&service, "hit").await, 200);
    lock.rollback().await.expect("no lock");
    service.stop().await;
}

#[tokio::test]
async fn with_every_connection_held_kept_answers_are_given_out() {
    let mut index = index().await;
    let service = Service::start_with(&index.database.reader_url(), "30s", true);
    service.becomes_ready().await;
    assert_eq!(service.get(QUERY).await.status, 200);
    let watcher = index.database.client().await.expect("a connection");
    let lock = index.client.transaction().await.expect("a transaction");
    let exclusive = "LOCK TABLE state IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(exclusive).await.expect("a lock");
    let miss = service.get("/index/static?tag=v1");
    let hits = async {
        // The poll has one of the two, the miss the other.
        are_blocked(&watcher, 2).await;
        assert_eq!(service.metric("flagstate_database_pool_maximum").await, 2);
        for _ in 0..50 {
            assert_eq!(service.get(QUERY).await.tags(), ["v1"]);
        }
        until(&service, QUERY, |answer| answer.header("flagstate-stale").is_some()).await;
        lock.rollback().await.expect("no lock");
    };
    let (miss, ()) = tokio::join!(miss, hits);
    assert!(matches!(miss.status, 200 | 503), "{miss:?}");
    until(&service, QUERY, |answer| answer.header("flagstate-stale").is_none()).await;
    service.stop().await;
}

#[tokio::test]
async fn memory_is_bounded_however_many_queries_there_are() {
    const MEMORY: u64 = 64 * 1024;
    let index = index().await;
    let url = index.database.reader_url();
    let service = Service::start_configured(&url, "statement_timeout: 2s", "memory: 64KiB");
    for number in 0..150 {
        let target = format!("/index/static?tag=v1&tag=unused{number}");
        assert_eq!(service.get(&target).await.tags(), ["v1"]);
        let bytes = service.metric("flagstate_cache_bytes").await;
        assert!(bytes <= MEMORY, "{bytes}");
    }
    let entries = service.metric("flagstate_cache_entries").await;
    assert!((1..150).contains(&entries), "{entries}");
    assert_eq!(service.metric("flagstate_cache_evictions_total").await, 150 - entries);
    service.stop().await;
}

#[tokio::test]
async fn a_new_era_forgets_everything() {
    let index = index().await;
    let (mut gate, url) = Gate::open_before(&index.database.reader_url()).await;
    let service = Service::start_with(&url, "2s", true);
    service.becomes_ready().await;
    let other = "/index/static?tag=v1";
    let before = service.get(QUERY).await;
    assert_eq!(service.get(other).await.status, 200);
    let era: Revision = before
        .header("flagstate-revision")
        .and_then(|text| text.parse().ok())
        .expect("a revision");
    let next_era = Revision { era: era.era + 1, n: 0 };
    index.set_revision(next_era).await;
    let after = service.get_since(QUERY, next_era, &[]).await;
    assert_eq!(after.header("flagstate-revision"), Some(next_era.to_string().as_str()));
    assert_eq!(after.header("etag"), before.header("etag"), "the same bytes");
    assert_eq!(fills(&service, "new").await, 3);
    assert_eq!(fills(&service, "equal").await, 0);
    gate.shut().await;
    until(&service, QUERY, |answer| answer.header("flagstate-stale").is_some()).await;
    assert_eq!(service.get(other).await.status, 503);
    service.stop().await;
}
