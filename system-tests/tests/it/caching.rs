//! The caching proxy and query-api together.

use flagstate_test_support::http;
use flagstate_test_support::images::ImageBuilder;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_ENCODING, ETAG, IF_NONE_MATCH, VARY};

use crate::{system_without_scans, until_found};

#[tokio::test]
async fn validators_survive_the_proxy_in_every_encoding() {
    let system = system_without_scans().await;
    let image = (0..40).fold(ImageBuilder::new("labelled"), |image, number| {
        image.label(
            &format!("org.example.label-{number}"),
            "a value that makes the answer worth compressing",
        )
    });
    let image = image.build();
    system
        .pusher()
        .unwrap()
        .push("a/labelled", &image, &["latest"])
        .await
        .unwrap();
    until_found(
        &system,
        "tag=latest",
        &[("a/labelled".to_owned(), image.digest.to_string())],
    )
    .await;

    let client = http::client().unwrap();
    let url = system.proxy.url().join("/index/static?tag=latest").unwrap();
    let mut etags = Vec::new();
    for encoding in ["identity", "gzip", "br"] {
        let get = || client.get(url.clone()).header(ACCEPT_ENCODING, encoding);
        let answer = get().send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let coding = answer
            .headers()
            .get("content-encoding")
            .map_or("identity", |value| value.to_str().unwrap());
        assert_eq!(coding, encoding);
        assert!(
            answer.headers()[VARY]
                .as_bytes()
                .eq_ignore_ascii_case(b"Accept-Encoding")
        );
        let etag = answer.headers()[ETAG].to_str().unwrap().to_owned();
        let again = get().header(IF_NONE_MATCH, &etag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{encoding}");
        assert_eq!(again.headers()[ETAG], etag.as_str());
        etags.push(etag);
    }
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), 3, "one for each encoding: {etags:?}");
}
