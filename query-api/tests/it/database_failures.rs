//! What clients see when the database fails: never an empty 200, never our secrets (promise 10, defects 25, 28 and 29).

use std::time::Duration;

use crate::gate::Gate;
use crate::http::Answer;
use crate::index::Index;
use crate::service::{POOL_SIZE, Service};

async fn index() -> Index {
    let mut index = Index::create().await;
    index.push("apps/a", "v1", &[]).await;
    index
}

/// Connections of query-api, and how many of them are in a transaction while nobody asks anything.
async fn connections(index: &Index) -> (i64, i64) {
    let row = index
        .client
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in%') FROM pg_stat_activity \
             WHERE datname = current_database() AND usename = 'flagstate_reader'",
            &[],
        )
        .await
        .expect("an answer");
    (row.get(0), row.get(1))
}

fn assert_is_hidden(answer: &Answer) {
    let text = String::from_utf8_lossy(&answer.body).to_lowercase();
    for word in [
        "select",
        "relation",
        "permission",
        "postgres",
        "127.0.0.1",
        "flagstate_reader",
        "password",
    ] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.json()["request_id"].as_str().map(str::len), Some(32));
}

#[tokio::test]
async fn a_database_that_is_gone_is_503_until_it_is_back() {
    let index = index().await;
    let (mut gate, url) = Gate::open_before(&index.database.reader_url()).await;
    let service = Service::start_with(&url, "2s", true);
    service.becomes_ready().await;
    for round in 0..3 {
        let target = format!("/index/static?tag=v1&tag=round{round}");
        assert_eq!(service.get(&target).await.tags(), ["v1"]);
        gate.shut().await;
        for target in ["/index/static", "/index/dynamic", "/index/static?tag=none"] {
            let answer = service.get(target).await;
            assert_eq!(
                (answer.status, answer.header("retry-after")),
                (503, Some("1")),
                "{target}"
            );
            assert_is_hidden(&answer);
        }
        let assertion = service
            .request("POST", "/assert?timeout=5", &[], r#"{"Assertions": []}"#)
            .await;
        assert_eq!(assertion.status, 503);
        assert_eq!(service.readyz().await.status, 200, "caches live on what it says");
        gate.open().await;
    }
    assert_eq!(service.get("/index/static").await.tags(), ["v1"]);
    service.stop().await;
}

#[tokio::test]
async fn sessions_that_the_server_ended_are_replaced() {
    let index = index().await;
    let service = Service::start(&index);
    for round in 0..5 {
        index
            .client
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND usename = 'flagstate_reader'",
                &[],
            )
            .await
            .expect("ended sessions");
        // Each broken connection may cost a request, or two before its end is noticed; they are told to come back.
        let target = format!("/index/static?tag=v1&tag=round{round}");
        let mut answer = service.get(&target).await;
        for _ in 0..2 * POOL_SIZE {
            if answer.status == 200 {
                break;
            }
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
            answer = service.get(&target).await;
        }
        assert_eq!(answer.tags(), ["v1"]);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_503() {
    let mut index = index().await;
    let service = Service::start_with(&index.database.reader_url(), "100ms", false);
    let lock = index.client.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE tag IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");
    for _ in 0..3 * POOL_SIZE {
        let answer = service.get("/index/static").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(answer.json()["type"], "urn:flagstate:problem:timeout");
        assert_is_hidden(&answer);
    }
    lock.rollback().await.expect("no lock");
    assert_eq!(service.get("/index/static").await.tags(), ["v1"]);
    service.stop().await;
}

#[tokio::test]
async fn when_all_connections_are_in_use_the_next_request_comes_back_later() {
    let mut index = index().await;
    let service = Service::start_with(&index.database.reader_url(), "5s", false);
    service.becomes_ready().await;
    let lock = index.client.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE tag IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("a lock");
    let (one, other, third) = tokio::join!(
        service.get("/index/static?tag=v1"),
        service.get("/index/static?tag=v2"),
        service.get("/index/static?tag=v3")
    );
    let mut kinds: Vec<_> = [&one, &other, &third]
        .map(|answer| answer.json()["type"].clone())
        .into();
    kinds.sort_by_key(ToString::to_string);
    kinds.dedup();
    assert!(kinds.contains(&"urn:flagstate:problem:busy".into()), "{kinds:?}");
    for answer in [one, other, third] {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
    lock.rollback().await.expect("no lock");
    service.stop().await;
}

#[tokio::test]
async fn defect_25_errors_of_the_database_stay_in_the_log() {
    let index = index().await;
    let service = Service::start(&index);
    index
        .client
        .batch_execute("REVOKE SELECT ON tag FROM flagstate_reader")
        .await
        .expect("revoked");
    let answer = service.get("/index/static").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["type"], "urn:flagstate:problem:internal");
    assert_is_hidden(&answer);
    service.stop().await;
}

#[tokio::test]
async fn defect_28_queries_that_fail_leave_no_connection_behind() {
    let index = index().await;
    let service = Service::start(&index);
    index
        .client
        .batch_execute("REVOKE SELECT ON tag FROM flagstate_reader")
        .await
        .expect("revoked");
    for _ in 0..5 * POOL_SIZE {
        assert_eq!(service.get("/index/static").await.status, 500);
    }
    let (open, in_transaction) = connections(&index).await;
    assert!(
        usize::try_from(open).expect("a count") <= POOL_SIZE,
        "{open} connections"
    );
    assert_eq!(in_transaction, 0);
    index
        .client
        .batch_execute("GRANT SELECT ON tag TO flagstate_reader")
        .await
        .expect("granted");
    for _ in 0..2 * POOL_SIZE {
        assert_eq!(service.get("/index/static").await.tags(), ["v1"]);
    }
    service.stop().await;
    let closed = async {
        while connections(&index).await.0 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(30), closed).await;
    closed.expect("the pool is closed at the end");
}

#[tokio::test]
async fn defect_29_a_row_that_cannot_be_read_is_no_row_that_is_left_out() {
    let mut index = index().await;
    index.push("apps/b", "v2", &[]).await;
    let service = Service::start(&index);
    for (number, damage) in [
        "UPDATE manifest SET media_type = 'damaged' WHERE id = 1",
        "UPDATE manifest SET labels = '{\"a\": 1}' WHERE id = 1",
        "UPDATE tag SET name = '-' WHERE name = 'v1'",
    ]
    .into_iter()
    .enumerate()
    {
        let change = index.client.batch_execute(damage).await;
        change.expect("damage");
        // One that was not asked before, for damage is no change of the index.
        let target = format!("/index/static?os=linux&os=unused{number}");
        assert_eq!(service.get(&target).await.status, 500, "{damage}");
        let repair = "UPDATE manifest SET media_type = 'application/vnd.oci.image.manifest.v1+json', labels = '{}'; \
                      UPDATE tag SET name = 'v1' WHERE name = '-'";
        index.client.batch_execute(repair).await.expect("repaired");
        assert_eq!(service.get(&target).await.tags(), ["v1", "v2"]);
    }
    service.stop().await;
}
