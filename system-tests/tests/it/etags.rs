//! Entity tags through a proxy that compresses: nginx then weakens the tags that it passes on.

use std::collections::BTreeMap;

use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::system::{Options, System};
use flagstate_test_support::wait;
use reqwest::StatusCode;
use serde_json::json;

use crate::database;
use crate::http::{Answer, get};

const COMPRESSING: &str = "gzip on; gzip_types application/json; gzip_proxied any; gzip_min_length 1;";

/// Long enough to be encoded by query-api, and short enough to be left to nginx.
const QUERIES: [&str; 2] = ["label%3Akind=long", "label%3Akind=short"];

/// `/index/static` is answered from the proxy's cache, `/index/dynamic` never.
const PATHS: [&str; 2] = ["/index/static", "/index/dynamic"];

const ENCODINGS: [&str; 4] = ["identity", "gzip", "br", "gzip, deflate, br"];

async fn start() -> System {
    let options = Options::beside_this_test().unwrap().configure(&json!({
        "interval": {"fetch_all": "0"},
        "cache": {"max_age_index": "10m"},
    }));
    let system = System::start(&Options {
        proxy_directives: COMPRESSING.to_owned(),
        ..options
    })
    .await
    .unwrap();
    let pusher = system.pusher().unwrap();
    for number in 0..12 {
        let image = ImageBuilder::new(&format!("long {number}"))
            .label("kind", "long")
            .build();
        pusher
            .push("apps/long", &image, &[&format!("v{number}")])
            .await
            .unwrap();
    }
    push_short(&system, "one").await;
    database::equals_registry(&system).await;
    system
}

async fn push_short(system: &System, seed: &str) {
    let image = ImageBuilder::new(seed).label("kind", "short").build();
    system
        .pusher()
        .unwrap()
        .push("apps/short", &image, &[seed])
        .await
        .unwrap();
}

fn targets() -> impl Iterator<Item = String> {
    PATHS
        .into_iter()
        .flat_map(|path| QUERIES.map(|query| format!("{path}?{query}")))
}

async fn ask(system: &System, target: &str, encoding: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("accept-encoding", encoding)], headers].concat();
    get(&system.proxy.url(), target, &headers).await
}

/// Entity tag and document of each target in each encoding; past the cache when a revision is demanded.
async fn answers(system: &System, demanded: Option<&str>) -> BTreeMap<(String, &'static str), (String, Vec<u8>)> {
    let demand = demanded.map(|revision| ("flagstate-min-revision", revision));
    let mut answers = BTreeMap::new();
    for target in targets() {
        for encoding in ENCODINGS {
            let answer = ask(system, &target, encoding, demand.as_slice()).await;
            assert_eq!(answer.status, StatusCode::OK, "{target} {encoding}");
            let etag = answer.header("etag").to_owned();
            assert!(!etag.is_empty(), "{target} {encoding}");
            answers.insert((target.clone(), encoding), (etag, answer.decoded()));
        }
    }
    answers
}

/// Waits until a query is answered by this many tags, and tells at which revision it is.
async fn revision_with(system: &System, query: &str, tags: usize) -> String {
    let mut revision = String::new();
    wait::until("the push is visible", async || {
        let answer = ask(system, &format!("/index/dynamic?{query}"), "identity", &[]).await;
        answer.header("flagstate-revision").clone_into(&mut revision);
        let images = &answer.json()["Results"][0]["Images"];
        let found = images.as_array().map_or(0, Vec::len);
        if found == tags { Ok(()) } else { Err(found) }
    })
    .await
    .unwrap();
    revision
}

#[tokio::test(flavor = "multi_thread")]
async fn etag_comparison_survives_a_proxy_that_compresses() {
    let system = start().await;
    let mut weakened = 0;
    for target in targets() {
        for encoding in ENCODINGS {
            let fresh = ask(&system, &target, encoding, &[]).await;
            let tag = fresh.header("etag").to_owned();
            weakened += usize::from(tag.starts_with("W/"));
            let strong = tag.trim_start_matches("W/");
            for (if_none_match, status) in [
                (tag.as_str(), StatusCode::NOT_MODIFIED),
                (strong, StatusCode::NOT_MODIFIED),
                (&format!("W/{strong}"), StatusCode::NOT_MODIFIED),
                (&format!("\"other\", {tag}"), StatusCode::NOT_MODIFIED),
                (&format!("\"a,b\",W/{strong} , \"c\""), StatusCode::NOT_MODIFIED),
                ("*", StatusCode::NOT_MODIFIED),
                ("\"other\"", StatusCode::OK),
                ("", StatusCode::OK),
                (strong.trim_matches('"'), StatusCode::OK),
                (&format!("{strong} {strong}"), StatusCode::OK),
                (&format!("w/{strong}"), StatusCode::OK),
            ] {
                let answer = ask(&system, &target, encoding, &[("if-none-match", if_none_match)]).await;
                let case = format!("{target}, {encoding}: {if_none_match}");
                assert_eq!(answer.status, status, "{case}");
                assert_eq!(answer.header("etag").trim_start_matches("W/"), strong, "{case}");
                assert_eq!(answer.header("cache-control"), fresh.header("cache-control"), "{case}");
                assert!(answer.header("vary").eq_ignore_ascii_case("accept-encoding"), "{case}");
                let body = if status == StatusCode::OK { &fresh.body[..] } else { b"" };
                assert!(answer.body == body, "{case}");
            }
        }
    }
    assert!(weakened > 0, "nginx did not compress, and this test shows nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn etag_is_one_for_each_encoding_of_the_same_document() {
    let system = start().await;
    for path in PATHS {
        let target = format!("{path}?{}", QUERIES[0]);
        let plain = ask(&system, &target, "identity", &[]).await;
        assert_eq!(plain.header("content-encoding"), "");
        let mut tags = vec![plain.header("etag").to_owned()];
        for encoding in ["gzip", "br"] {
            for _ in ["from query-api", "from the proxy, if it may keep it"] {
                let answer = ask(&system, &target, encoding, &[]).await;
                assert_eq!(answer.header("content-encoding"), encoding);
                assert!(answer.decoded() == plain.body, "{target} {encoding}");
                tags.push(answer.header("etag").to_owned());
            }
        }
        tags.dedup();
        assert_eq!(tags.len(), 3, "{tags:?}");
        assert!(
            tags.iter().all(|tag| tag.starts_with('"')),
            "strong, for query-api encoded it"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etag_outlives_restarts_and_unrelated_pushes_and_ends_with_related_ones() {
    let mut system = start().await;
    let before = answers(&system, None).await;

    system.query_api.stop().await.unwrap();
    system.indexer.stop().await.unwrap();
    system.indexer.start().await.unwrap();
    system.query_api.start().await.unwrap();
    system.query_api.becomes_ready().await.unwrap();
    system.proxy.restart().await.unwrap();
    assert_eq!(answers(&system, None).await, before, "after a restart");

    let pusher = system.pusher().unwrap();
    let unrelated = ImageBuilder::new("unrelated").label("kind", "other").build();
    pusher.push("apps/other", &unrelated, &["latest"]).await.unwrap();
    let revision = revision_with(&system, "label%3Akind=other", 1).await;
    assert_eq!(
        answers(&system, Some(&revision)).await,
        before,
        "after an unrelated push"
    );

    push_short(&system, "two").await;
    let revision = revision_with(&system, QUERIES[1], 2).await;
    let after = answers(&system, Some(&revision)).await;
    for (key, (etag, body)) in &before {
        let is_related = key.0.ends_with(QUERIES[1]);
        assert_eq!(after[key].0 != *etag, is_related, "{key:?}");
        assert_eq!(after[key].1 != *body, is_related, "{key:?}");
    }
}
