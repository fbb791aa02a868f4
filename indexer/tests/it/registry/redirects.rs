//! Where redirects lead, and what goes along.

use flagstate_common::digest::Digest;
use flagstate_indexer::registry::{RedirectRefusal, RegistryError};
use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Kind, Rule};

use super::{Client, name};

const LOGIN: &str = "username: indexer, password: canary-password";
const BODY: &str = "{\"architecture\":\"amd64\"}";

/// A registry that wants Basic authentication, with one config.
async fn with_config() -> (FakeRegistry, Digest) {
    let registry = FakeRegistry::builder()
        .basic("indexer", "canary-password")
        .start()
        .await
        .unwrap();
    let digest = registry.put_blob("apps/a", BODY);
    (registry, digest)
}

async fn get(client: &Client, digest: &Digest) -> Result<(), RegistryError> {
    let config = client.get_config(&name("apps/a"), digest, BODY.len() as u64).await?;
    assert_eq!(config.unwrap(), BODY);
    Ok(())
}

#[tokio::test]
async fn storage_elsewhere_gets_no_authorization() {
    let (registry, digest) = with_config().await;
    let storage = FakeRegistry::builder().start().await.unwrap();
    storage.put_blob("storage", BODY);
    for host in ["localhost", "127.0.0.1"] {
        registry.behave();
        storage.clear_log();
        let to = format!("{}v2/storage/blobs/{digest}?X-Signature=1", storage.url_as(host));
        registry.add(Rule::on("/v2/apps/a/blobs/*", Fault::Redirect(to)));
        // The first request is challenged before the fault is met by the second.
        let client = Client::new(&registry.url(), LOGIN);
        client.catalog().next().await.unwrap();
        get(&client, &digest).await.unwrap();
        let requests = storage.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].query, "X-Signature=1");
        assert_eq!(requests[0].header("authorization"), None);
        assert!(!format!("{requests:?}").contains("canary"));
    }
}

#[tokio::test]
async fn authorization_stays_on_the_registrys_origin_and_does_not_come_back_to_it() {
    let (registry, digest) = with_config().await;
    let client = Client::new(&registry.url(), LOGIN);
    client.catalog().next().await.unwrap();
    registry.put_blob("apps/b", BODY);
    let here = format!("/v2/apps/b/blobs/{digest}");
    registry.add(Rule::on("/v2/apps/a/blobs/*", Fault::Redirect(here)).times(1));
    get(&client, &digest).await.unwrap();

    let elsewhere = FakeRegistry::builder().start().await.unwrap();
    let back = format!("{}v2/apps/b/blobs/{digest}", registry.url());
    elsewhere.add(Rule::on("*", Fault::Redirect(back)));
    registry.add(Rule::on(
        "/v2/apps/a/blobs/*",
        Fault::Redirect(elsewhere.url_as("localhost").into()),
    ));
    registry.clear_log();
    let error = get(&client, &digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    let requests = registry.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].header("authorization").is_some());
    assert_eq!(requests[1].header("authorization"), None);
}

#[tokio::test]
async fn at_most_the_permitted_redirects_are_followed() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    let digest = registry.put_blob("apps/a", BODY);
    let again = Fault::Redirect(format!("/v2/apps/a/blobs/{digest}"));
    registry.add(Rule::on("*/blobs/*", again.clone()).times(5));
    let client = Client::new(&registry.url(), "");
    get(&client, &digest).await.unwrap();
    assert_eq!(registry.count(Kind::Blob), 6);
    assert_eq!(client.limit_hits("registry_redirects"), 0);

    registry.clear_log();
    registry.add(Rule::on("*/blobs/*", again));
    let error = get(&client, &digest).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Redirect(RedirectRefusal::TooMany)),
        "{error:?}"
    );
    assert_eq!(registry.count(Kind::Blob), 6);
    assert_eq!(client.limit_hits("registry_redirects"), 1);
}

#[tokio::test]
async fn forbidden_targets_are_never_connected_to() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    let digest = registry.put_blob("apps/a", BODY);
    let client = Client::new(&registry.url(), "");
    for (to, expected) in [
        ("file:///etc/passwd", "Redirect(Scheme)"),
        ("gopher://127.0.0.1/", "Redirect(Scheme)"),
        ("http://u:p@127.0.0.1/", "Redirect(Credentials)"),
        ("http://", "Redirect(NoLocation)"),
        ("http://169.254.169.254/latest/meta-data/", "AddressRefused"),
        ("http://[::ffff:169.254.169.254]/", "AddressRefused"),
        ("http://[fe80::1]/", "AddressRefused"),
        ("http://[fd00:ec2::254]/", "AddressRefused"),
        ("http://0.0.0.0/", "AddressRefused"),
        ("http://0/", "AddressRefused"),
        ("http://100.100.100.200/", "AddressRefused"),
        ("http://255.255.255.255/", "AddressRefused"),
    ] {
        registry.behave();
        registry.clear_log();
        registry.add(Rule::on("*/blobs/*", Fault::Redirect(to.to_owned())));
        let error = get(&client, &digest).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{to}: {error:?}");
        assert!(!error.is_retryable());
        assert_eq!(registry.requests().len(), 1, "{to}");
    }
}
