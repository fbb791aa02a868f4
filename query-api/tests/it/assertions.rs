//! `POST /assert` (defects 19 and 20).

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Answer;
use crate::index::Index;
use crate::service::Service;

async fn assert(service: &Service, target: &str, body: &Value) -> Answer {
    service.request("POST", target, &[], &body.to_string()).await
}

fn contains(test: Value) -> Value {
    json!({"Type": "contains", "Test": test})
}

#[tokio::test]
async fn defect_19_the_query_of_an_assertion_counts() {
    let mut index = Index::create().await;
    index.push("apps/a", "v1", &[("kind", "app")]).await;
    index.push("apps/b", "v2", &[("kind", "runtime")]).await;
    let service = Service::start(&index);
    for (query, test, holds) in [
        (json!({}), json!([{"Name": "apps/a"}, {"Name": "apps/b"}]), true),
        (json!({"repository": "apps/a"}), json!([{"Name": "apps/a"}]), true),
        (json!({"repository": "apps/a"}), json!([{"Name": "apps/b"}]), false),
        (json!({"tag": ["v1", "v2"]}), json!([{"Name": "apps/b"}]), true),
        (json!({"label:kind": "runtime"}), json!([{"Name": "apps/a"}]), false),
        (
            json!({"label:kind": "app"}),
            json!([{"Images": [{"Tags": ["v1"], "Labels": {"kind": "app"}}], "Lists": []}]),
            true,
        ),
    ] {
        for kind in ["contains", "not-contains"] {
            let assertion = json!({"Type": kind, "Test": test});
            let answer = assert(&service, "/assert", &json!({"Query": query, "Assertions": [assertion]})).await;
            let expected = holds == (kind == "contains");
            assert_eq!(answer.status, if expected { 200 } else { 400 }, "{query} {assertion}");
            let verdict = answer.json();
            assert_eq!(verdict["Success"], expected, "{query} {assertion}");
            assert!(verdict["Results"].is_array(), "{verdict}");
            let failures = if expected { json!([]) } else { json!([assertion]) };
            assert_eq!(verdict["Failures"], failures, "{query}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert!(answer.header("flagstate-revision").is_some());
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn defect_19_only_what_fails_is_listed() {
    let index = Index::create().await;
    let service = Service::start(&index);
    let failing = [
        contains(json!([1])),
        contains(json!([null])),
        contains(json!([1.5])),
        contains(json!({})),
    ];
    let holding = [contains(json!([])), json!({"Type": "not-contains", "Test": [1]})];
    let all = [&failing[..2], &holding, &failing[2..]].concat();
    let answer = assert(&service, "/assert", &json!({"Assertions": all})).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json(),
        json!({"Success": false, "Results": [], "Failures": failing})
    );
    let none = assert(&service, "/assert", &json!({"Assertions": []})).await;
    assert_eq!(none.json(), json!({"Success": true, "Results": [], "Failures": []}));
    service.stop().await;
}

#[tokio::test]
async fn defect_19_what_is_not_understood_is_refused_and_that_is_all() {
    let index = Index::create().await;
    let service = Service::start(&index);
    let fine = r#"{"Query": {}, "Assertions": []}"#;
    let unknown_type = r#"{"Assertions": [{"Type": "equals", "Test": []}]}"#;
    let deep = format!(
        r#"{{"Assertions": [{{"Type": "contains", "Test": {}}}]}}"#,
        "[".repeat(200)
    );
    for (target, body, kind) in [
        ("/assert?timeout=soon", fine, "wait"),
        ("/assert?timeout=-1", fine, "wait"),
        ("/assert?timeout=1&timeout=2", fine, "wait"),
        ("/assert?timeot=1", fine, "wait"),
        ("/assert", unknown_type, "body"),
        ("/assert", "{", "body"),
        ("/assert", "[]", "body"),
        ("/assert", r#"{"Querry": {}, "Assertions": []}"#, "body"),
        ("/assert", &deep, "body"),
        ("/assert", r#"{"Query": {"repo": "a"}, "Assertions": []}"#, "query"),
        (
            "/assert",
            r#"{"Query": {"label:a:exists": "0"}, "Assertions": []}"#,
            "query",
        ),
    ] {
        let answer = service.request("POST", target, &[], body).await;
        assert_eq!(answer.status, 400, "{target} {body}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{target} {body}"
        );
        let problem = answer.json();
        assert_eq!(
            problem["type"],
            format!("urn:flagstate:problem:{kind}"),
            "{target} {body}"
        );
        assert!(problem.get("Success").is_none(), "one answer only: {problem}");
    }
    let huge = format!("{fine}{}", " ".repeat(256 * 1024));
    assert_eq!(service.request("POST", "/assert", &[], &huge).await.status, 413);
    service.stop().await;
}

#[tokio::test]
async fn defect_20_a_waiter_sees_every_change_whoever_made_it() {
    let mut index = Index::create().await;
    let service = Service::start(&index);
    // The changes come from another process's connection, at any moment between a waiter's looking and waiting.
    for round in 0..20 {
        let tag = format!("v{round}");
        let body = json!({
            "Query": {"tag": tag},
            "Assertions": [contains(json!([{"Images": [{"Tags": [tag]}]}]))],
        });
        let push = async {
            tokio::time::sleep(Duration::from_millis(round * 7)).await;
            index.push("apps/a", &tag, &[]).await
        };
        let (answer, _) = tokio::join!(assert(&service, "/assert?timeout=30", &body), push);
        assert_eq!(answer.status, 200, "{round}: {answer:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_wait_that_is_in_vain_ends_with_what_fails() {
    let mut index = Index::create().await;
    let service = Service::start(&index);
    let body = json!({"Assertions": [contains(json!([{"Name": "never"}]))]});
    let unrelated = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        index.push("apps/a", "v1", &[]).await;
    };
    let (answer, ()) = tokio::join!(assert(&service, "/assert?timeout=0.5", &body), unrelated);
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json()["Results"][0]["Name"],
        "apps/a",
        "the last state, not the first"
    );
    service.stop().await;
}
