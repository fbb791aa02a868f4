//! Whole scans of registries that want to know who asks.

use std::time::Duration;

use flagstate_common::media_type::OCI_MANIFEST;
use flagstate_test_support::fake_registry::{Bearer, FakeRegistry, Fault, Kind, Rule};
use flagstate_test_support::images::{ImageBuilder, IndexBuilder};
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;

use super::harness::{Pipeline, config_with, fill, index_contents};

const LOGIN: &str = "username: indexer, password: canary-password";

/// Some repositories with images and image indexes.
fn fill_some(registry: &FakeRegistry) -> RegistryContents {
    let mut contents = RegistryContents::default();
    for name in ["apps/a", "apps/b", "deep/er/c"] {
        let image = ImageBuilder::new(name).build();
        let index = IndexBuilder::new().member(image.clone()).build();
        for (tag, manifest) in [("image", &image), ("index", &index)] {
            fill(registry, name, manifest, &[tag]);
            contents.insert(name, tag, &manifest.digest.to_string());
        }
    }
    contents
}

/// Scans once, under these keys of the section `registry`; tells whether all was seen, and what is indexed.
async fn scan(registry: &FakeRegistry, keys: &str) -> (bool, RegistryContents) {
    let database = TestDatabase::create().await.unwrap();
    let config = config_with(&format!("url: '{}', {keys}", registry.url()), &database, "");
    let pipeline = Pipeline::start(config).await;
    let summary = pipeline.scanner.scan().await.unwrap();
    pipeline.stop().await;
    (
        summary.is_complete && summary.failed == 0,
        index_contents(&database).await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_basic_authentication_is_scanned() {
    let registry = FakeRegistry::builder()
        .basic("indexer", "canary-password")
        .start()
        .await
        .unwrap();
    let contents = fill_some(&registry);
    assert_eq!(scan(&registry, LOGIN).await, (true, contents));
    assert_eq!(scan(&registry, "").await, (false, RegistryContents::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_live_five_seconds_outlast_a_scan_of_two_thousand_tags() {
    const TAGS: usize = 2_000;
    let bearer = Bearer::living(Duration::from_secs(5)).for_user("indexer", "canary-password");
    let registry = FakeRegistry::builder()
        .page_size(500)
        .bearer(bearer)
        .start()
        .await
        .unwrap();
    let mut contents = RegistryContents::default();
    let digest = registry.put_manifest("apps/a", OCI_MANIFEST, r#"{"schemaVersion":2,"layers":[]}"#);
    for number in 0..TAGS {
        let tag = format!("t{number:04}");
        registry.tag("apps/a", &tag, &digest);
        contents.insert("apps/a", &tag, &digest.to_string());
    }
    registry.add(Rule::on(
        "/v2/apps/a/manifests/*",
        Fault::Delay(Duration::from_millis(42)),
    ));
    assert_eq!(scan(&registry, LOGIN).await, (true, contents));
    let scope = "repository%3Aapps%2Fa%3Apull";
    let tokens = registry
        .requests()
        .iter()
        .filter(|request| request.kind == Kind::Token && request.query.contains(scope))
        .count();
    assert!(tokens >= 3, "{tokens} tokens were needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_on_another_host_is_not_told_the_credentials() {
    // One token endpoint asks for credentials, the other for none.
    let strict = Bearer::living(Duration::from_secs(60)).for_user("indexer", "canary-password");
    for (builder, is_open) in [
        (FakeRegistry::builder().bearer(strict), false),
        (FakeRegistry::builder(), true),
    ] {
        let elsewhere = builder.start().await.unwrap();
        let realm = elsewhere.url_as("localhost").join("/token").unwrap();
        let bearer = Bearer::living(Duration::from_secs(60)).from_realm(realm.as_str());
        let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
        let contents = fill_some(&registry);
        let expected = if is_open { contents } else { RegistryContents::default() };
        assert_eq!(scan(&registry, LOGIN).await, (is_open, expected));
        for request in elsewhere.requests() {
            let text = format!("{request:?}");
            let is_told =
                request.header("authorization").is_some() || text.contains("canary") || text.contains("indexer");
            assert!(!is_told, "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_is_trusted_when_the_configuration_says_so() {
    let registry = FakeRegistry::builder().tls().start().await.unwrap();
    let contents = fill_some(&registry);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, registry.ca_pem().unwrap()).unwrap();
    assert_eq!(scan(&registry, "").await, (false, RegistryContents::default()));
    assert_eq!(registry.requests().len(), 0);
    let keys = format!("ca_file: '{}'", file.display());
    assert_eq!(scan(&registry, &keys).await, (true, contents));
}
