//! `POST /events`: who may post, what is work, and what becomes of it (defects 21 and 22).

use std::time::Duration;

use flagstate_test_support::fake_registry::{Fault, Kind, Rule};
use flagstate_test_support::http;
use flagstate_test_support::images::ImageBuilder;
use futures::future::join_all;
use reqwest::Method;
use reqwest::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

use super::{Scene, TOKEN, event, hang, index_contents, post, pushed, until, value};

/// Nothing is scanned unless an event says so.
const NO_SCANS: &str = "interval: {fetch_all: 0}";

const QUEUED: &str = "SELECT count(*) FROM scan_queue";

#[tokio::test(flavor = "multi_thread")]
async fn defect_21_no_authorization_header_breaks_anything() {
    let scene = Scene::create().await;
    let (indexer, events) = scene.start("", NO_SCANS);
    let client = http::client().unwrap();
    let body = event("delete", &json!({"repository": "apps/a", "tag": "v1"})).to_string();
    let headers: [&[u8]; 9] = [
        b"",
        b" ",
        b"Bearer",
        b"Bearer ",
        b"Basic YTpi",
        b"Bearer wrong",
        b"Bearer\xff\xfe",
        b"Token",
        b",",
    ];
    for header in headers {
        let request = client.post(events.clone()).body(body.clone());
        let request = request.header(AUTHORIZATION, HeaderValue::from_bytes(header).unwrap());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{}", header.escape_ascii());
        assert!(answer.headers().contains_key(WWW_AUTHENTICATE));
    }
    let answer = client.post(events.clone()).body(body.clone()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 401, "without the header");
    assert_eq!(value::<i64>(&scene.database, QUEUED).await, 0);
    let any_case = client
        .post(events.clone())
        .header(AUTHORIZATION, format!("bEARER {TOKEN}"));
    assert_eq!(any_case.body(body).send().await.unwrap().status().as_u16(), 202);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_21_other_methods_are_405_and_other_paths_404() {
    let scene = Scene::create().await;
    let (indexer, events) = scene.start("", NO_SCANS);
    let client = http::client().unwrap();
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = client.request(method.clone(), events.clone()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 405, "{method}");
        assert_eq!(answer.headers()[ALLOW], "POST", "{method}");
    }
    for path in ["/", "/events/", "/metrics", "/index/static"] {
        let answer = client.post(events.join(path).unwrap()).bearer_auth(TOKEN);
        assert_eq!(answer.send().await.unwrap().status().as_u16(), 404, "{path}");
    }
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_21_what_cannot_be_used_is_202_and_counted_and_no_work() {
    let scene = Scene::create().await;
    let (indexer, events) = scene.start("", NO_SCANS);
    let too_large = format!("{{\"events\": [\"{}\"]}}", "x".repeat(1024 * 1024));
    let deep = "[".repeat(100_000);
    let unusable = ["", "{", "[]", "null", "{\"events\": 1}", "not JSON", deep.as_str()];
    for body in unusable {
        assert_eq!(post(&events, body.to_owned()).await, 202, "{body:.20}");
    }
    assert_eq!(post(&events, too_large).await, 202);
    assert_eq!(
        indexer.count("flagstate_events_total", Some("unusable")),
        unusable.len() as u64 + 1
    );
    assert_eq!(indexer.count("flagstate_limit_hits_total", Some("notification")), 1);
    assert_eq!(value::<i64>(&scene.database, QUEUED).await, 0);
    // The type of the content is what senders make of it.
    for content_type in [
        "application/vnd.docker.distribution.events.v1+json",
        "application/json",
        "text/plain",
    ] {
        let request = http::client().unwrap().post(events.clone()).bearer_auth(TOKEN);
        let image = scene.push("apps/a", "latest");
        let body = pushed("apps/a", "latest", &image).to_string();
        let answer = request
            .header(CONTENT_TYPE, content_type)
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 202, "{content_type}");
        scene.until_visible("apps/a", "latest", &image).await;
    }
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_22_blobs_and_pulls_are_no_work() {
    let scene = Scene::create().await;
    let image = scene.push("apps/a", "latest");
    let (indexer, events) = scene.start("", NO_SCANS);
    let blob = |media_type: &str| {
        let digest = image.blobs[0].digest.to_string();
        let url = format!("http://registry/v2/apps/a/blobs/{digest}");
        json!({"mediaType": media_type, "digest": digest, "repository": "apps/a", "url": url})
    };
    let octets = "application/octet-stream";
    let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    for (action, target, outcome) in [
        ("push", blob(octets), "blob"),
        ("push", blob(layer), "blob"),
        ("mount", blob(octets), "blob"),
        ("delete", blob(octets), "blob"),
        ("pull", blob(octets), "pull"),
        (
            "pull",
            pushed("apps/a", "latest", &image)["events"][0]["target"].clone(),
            "pull",
        ),
        ("polish", json!({"repository": "apps/a"}), "unknown_action"),
    ] {
        let before = indexer.count("flagstate_events_total", Some(outcome));
        assert_eq!(post(&events, event(action, &target).to_string()).await, 202);
        let after = indexer.count("flagstate_events_total", Some(outcome));
        assert_eq!(after, before + 1, "{action} {target}");
        assert_eq!(value::<i64>(&scene.database, QUEUED).await, 0, "{action} {target}");
    }
    assert_eq!(scene.registry.requests().len(), 0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_22_a_push_of_an_image_asks_for_that_image_alone() {
    let scene = Scene::create().await;
    for number in 0..50 {
        scene.push("apps/a", &format!("v{number}"));
    }
    let image = scene.push("apps/a", "latest");
    let (indexer, events) = scene.start("", NO_SCANS);
    // As docker push makes them: one event for each blob, then one for the manifest.
    for blob in &image.blobs {
        let target = json!({
            "mediaType": "application/octet-stream", "digest": blob.digest.to_string(), "repository": "apps/a",
        });
        assert_eq!(post(&events, event("push", &target).to_string()).await, 202);
    }
    assert_eq!(post(&events, pushed("apps/a", "latest", &image).to_string()).await, 202);
    scene.until_visible("apps/a", "latest", &image).await;
    scene.until_zero("the work is settled", QUEUED).await;
    assert_eq!(scene.registry.count(Kind::Tags), 0);
    assert_eq!(scene.registry.count(Kind::Catalog), 0);
    let requests: Vec<_> = scene
        .registry
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(requests.len(), 3, "manifest, config, tag: {requests:?}");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_22_events_outlive_a_crash() {
    let scene = Scene::create().await;
    let images: Vec<_> = (0..20)
        .map(|number| scene.push(&format!("apps/{number}"), "latest"))
        .collect();
    scene.registry.add(Rule::on("*", hang()));
    let (indexer, events) = scene.start("", NO_SCANS);
    for (number, image) in images.iter().enumerate() {
        let body = pushed(&format!("apps/{number}"), "latest", image).to_string();
        assert_eq!(post(&events, body).await, 202);
    }
    until("some of it is being worked on", async || {
        let requests = scene.registry.requests().len();
        if requests > 0 { Ok(()) } else { Err(requests) }
    })
    .await;
    indexer.kill().await;
    scene.registry.behave();
    let expire = "UPDATE writer_lease SET expires_at = '-infinity'";
    scene
        .database
        .client()
        .await
        .unwrap()
        .execute(expire, &[])
        .await
        .unwrap();
    let (indexer, _) = scene.start("", NO_SCANS);
    for (number, image) in images.iter().enumerate() {
        scene.until_visible(&format!("apps/{number}"), "latest", image).await;
    }
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_22_work_that_failed_is_tried_again() {
    let scene = Scene::create().await;
    let image = scene.push("apps/a", "latest");
    // More often than the registry client tries by itself.
    scene
        .registry
        .add(Rule::on("/v2/apps/a/*", Fault::Status(500)).times(8));
    let (indexer, events) = scene.start("", NO_SCANS);
    assert_eq!(post(&events, pushed("apps/a", "latest", &image).to_string()).await, 202);
    scene.until_visible("apps/a", "latest", &image).await;
    assert!(indexer.count("flagstate_repository_scans_total", Some("failure")) > 0);
    scene.until_zero("the work is settled", QUEUED).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_22_a_scan_that_failed_is_tried_again_before_the_next_full_scan() {
    let scene = Scene::create().await;
    let image = scene.push("apps/a", "latest");
    scene
        .registry
        .add(Rule::on("/v2/apps/a/*", Fault::Status(500)).times(8));
    let (indexer, _) = scene.start("", "interval: {fetch_all: 1h}");
    scene.until_visible("apps/a", "latest", &image).await;
    assert_eq!(scene.registry.count(Kind::Catalog), 1);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_22_events_are_answered_while_the_registry_hangs() {
    const EVENTS: usize = 300;
    let scene = Scene::create().await;
    let image = scene.push("apps/0", "latest");
    scene.registry.add(Rule::on("*", hang()));
    let (indexer, events) = scene.start("", "");
    let client = http::client().unwrap();
    let posts = (0..EVENTS).map(|number| {
        let body = pushed(&format!("apps/{number}"), "latest", &image).to_string();
        let request = client.post(events.clone()).bearer_auth(TOKEN).body(body);
        request.timeout(Duration::from_secs(30)).send()
    });
    for answer in join_all(posts).await {
        assert_eq!(answer.unwrap().status().as_u16(), 202);
    }
    let queued: i64 = value(&scene.database, QUEUED).await;
    assert_eq!(queued, EVENTS as i64, "one row a repository");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_events_change_nothing() {
    let scene = Scene::create().await;
    scene.push("apps/a", "latest");
    let (indexer, events) = scene.start("", "interval: {fetch_all: 1h}");
    indexer.scan().await;
    let before = (index_contents(&scene.database).await, scene.revision().await);
    let elsewhere = ImageBuilder::new("nowhere pushed").build();
    let requests = scene.registry.requests().len();
    for forged in [
        pushed("apps/a", "latest", &elsewhere),
        pushed("apps/a", "never-pushed", &elsewhere),
        pushed("apps/never-pushed", "latest", &elsewhere),
        event("delete", &json!({"repository": "apps/a", "tag": "latest"})),
        event(
            "delete",
            &json!({"repository": "apps/a", "digest": elsewhere.digest.to_string()}),
        ),
        event("delete", &json!({"repository": "apps/a"})),
    ] {
        assert_eq!(post(&events, forged.to_string()).await, 202);
    }
    until("the registry was asked about all of them", async || {
        let asked: Vec<_> = scene.registry.requests().split_off(requests);
        let about = |path: &str| asked.iter().any(|request| request.path.contains(path));
        let digest = elsewhere.digest.to_string();
        if about(&digest) && about("apps/a/manifests/never-pushed") && about("apps/a/tags/list") {
            Ok(())
        } else {
            Err(asked.len())
        }
    })
    .await;
    indexer.scan().await;
    let after = (index_contents(&scene.database).await, scene.revision().await);
    assert_eq!(after, before);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_committed_are_503() {
    let scene = Scene::create().await;
    let image = scene.push("apps/a", "latest");
    let (indexer, events) = scene.start("", NO_SCANS);
    let body = pushed("apps/a", "latest", &image).to_string();
    let mut client = scene.database.client().await.unwrap();
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE scan_queue IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let request = http::client().unwrap().post(events.clone()).bearer_auth(TOKEN);
    let answer = request.body(body.clone()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert_eq!(answer.headers()[RETRY_AFTER], "1");
    lock.rollback().await.unwrap();
    assert_eq!(value::<i64>(&scene.database, QUEUED).await, 0);
    assert_eq!(post(&events, body).await, 202);
    scene.until_visible("apps/a", "latest", &image).await;
    indexer.stop().await;
}
