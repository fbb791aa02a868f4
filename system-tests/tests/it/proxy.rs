//! What the proxy does between clients and the real services: demanded revisions, notifications, outages.

use flagstate_test_support::docker_registry::{self, DockerRegistry};
use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::system::{Options, System};
use flagstate_test_support::wait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::database;
use crate::http::{Answer, get, request};

const TARGET: &str = "/index/static?repository=apps/a";

async fn start(max_age: &str, registry: Option<&DockerRegistry>) -> System {
    let options = Options::beside_this_test().unwrap().configure(&json!({
        "interval": {"fetch_all": "0"},
        "cache": {"max_age_index": max_age, "stale_while_revalidate": "0s", "stale_if_error": "1d"},
    }));
    System::start(&Options {
        registry: registry.map(DockerRegistry::url),
        ..options
    })
    .await
    .unwrap()
}

async fn push(system: &System, tag: &str) {
    let image = ImageBuilder::new(tag).build();
    system.pusher().unwrap().push("apps/a", &image, &[tag]).await.unwrap();
    database::equals_registry(system).await;
}

async fn ask(system: &System, target: &str, headers: &[(&str, &str)]) -> Answer {
    get(&system.proxy.url(), target, headers).await
}

/// All tags in an answer.
fn tags(answer: &Answer) -> Vec<String> {
    let images = &answer.json()["Results"][0]["Images"];
    let images = images.as_array().into_iter().flatten();
    images
        .flat_map(|image| image["Tags"].as_array().unwrap())
        .map(|tag| tag.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn min_revision_passes_by_the_cache() {
    let system = start("10m", None).await;
    push(&system, "one").await;
    assert_eq!(tags(&ask(&system, TARGET, &[]).await), ["one"]);
    push(&system, "two").await;
    let newest = ask(&system, "/index/dynamic", &[]).await;
    let revision = newest.header("flagstate-revision").to_owned();

    let cached = ask(&system, TARGET, &[]).await;
    assert_eq!(
        (tags(&cached), cached.header("cache-status")),
        (vec!["one".to_owned()], "flagstate; hit")
    );
    let demanded = ask(&system, TARGET, &[("flagstate-min-revision", &revision)]).await;
    assert_eq!(tags(&demanded), ["one", "two"]);
    assert_eq!(demanded.header("flagstate-revision"), revision);
    assert_eq!(demanded.header("cache-status"), "flagstate; fwd=bypass");
    assert!(
        ask(&system, TARGET, &[]).await.body == cached.body,
        "the cache is left alone"
    );

    let (era, n) = revision.split_once('.').unwrap();
    let future = format!("{era}.{}", n.parse::<u64>().unwrap() + 1);
    for (demand, status) in [
        (future.as_str(), StatusCode::SERVICE_UNAVAILABLE),
        ("1.1", StatusCode::GONE),
        ("one", StatusCode::BAD_REQUEST),
    ] {
        let refused = ask(&system, TARGET, &[("flagstate-min-revision", demand)]).await;
        assert_eq!(refused.status, status, "{demand}");
        assert_eq!(refused.header("cache-control"), "no-store", "{demand}");
    }
    assert_eq!(
        ask(&system, TARGET, &[]).await.status,
        StatusCode::OK,
        "no refusal is cached"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_take_effect_through_the_proxy() {
    let registry = DockerRegistry::start(docker_registry::Options::default())
        .await
        .unwrap();
    let system = start("5s", Some(&registry)).await;
    let image = ImageBuilder::new("told by us").build();
    registry
        .pusher()
        .unwrap()
        .push("apps/told", &image, &["v1"])
        .await
        .unwrap();
    let envelope = json!({"events": [{
        "id": "1", "timestamp": "2024-02-29T12:00:00Z", "action": "push",
        "target": {"mediaType": image.media_type, "digest": image.digest.to_string(), "repository": "apps/told", "tag": "v1"},
    }]});
    let tell = async |authorization: &str| {
        let headers = [
            ("content-type", "application/vnd.docker.distribution.events.v1+json"),
            ("authorization", authorization),
        ];
        let url = system.proxy.url().join("/events").unwrap();
        request(Method::POST, url, &headers, envelope.to_string()).await
    };
    let refused = tell("Bearer wrong").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.header("www-authenticate").starts_with("Bearer"));
    let queued = database::rows(&system.database, "SELECT repository FROM scan_queue").await;
    assert_eq!(queued, [""; 0], "a refused notification is no work");

    assert_eq!(
        tell(&format!("Bearer {}", system.token())).await.status,
        StatusCode::ACCEPTED
    );
    wait::until("what was told is visible", async || {
        let answer = system.index("repository=apps/told").await.unwrap();
        let digest = answer["Results"][0]["Images"][0]["Digest"].clone();
        if digest == json!(image.digest.to_string()) {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_answers_serve_while_query_api_is_away_and_never_an_empty_one() {
    let mut system = start("1s", None).await;
    push(&system, "one").await;
    let fresh = ask(&system, TARGET, &[]).await;
    system.query_api.stop().await.unwrap();
    wait::until("the cached answer is stale", async || {
        let answer = ask(&system, TARGET, &[]).await;
        assert_eq!(
            (answer.status, answer.header("etag")),
            (StatusCode::OK, fresh.header("etag"))
        );
        assert!(answer.body == fresh.body);
        let status = answer.header("cache-status").to_owned();
        if status == "flagstate; hit; detail=stale" {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await
    .unwrap();
    for target in ["/index/dynamic", "/index/static?repository=never/asked"] {
        let answer = ask(&system, target, &[]).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{target}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{target}");
        assert_eq!(answer.header("cache-control"), "no-store", "{target}");
        assert!(!answer.header("retry-after").is_empty(), "{target}");
        assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap()["status"], 503);
    }

    push(&system, "two").await;
    system.query_api.start().await.unwrap();
    wait::until("it answers again", async || match ask(&system, TARGET, &[]).await {
        answer if answer.status.is_success() && tags(&answer) == ["one", "two"] => Ok(()),
        answer => Err(answer),
    })
    .await
    .unwrap();
}
