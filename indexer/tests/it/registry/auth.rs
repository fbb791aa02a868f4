//! Basic, Bearer, and who gets to see the credentials.

use std::time::Duration;

use flagstate_common::tag::Tag;
use flagstate_indexer::registry::{BadBody, RealmRefusal, RegistryError, TagPage};
use flagstate_test_support::fake_registry::{Bearer, FakeRegistry, Fault, Kind, LoggedRequest, Rule};
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};

use super::{Client, fill, name, tag};

const LOGIN: &str = "username: indexer, password: canary-password";

/// Whether a request carries anything that credentials or a token could be.
fn carries_credentials(request: &LoggedRequest) -> bool {
    request.header("authorization").is_some()
        || request.query.contains("account")
        || format!("{request:?}").contains("canary")
}

async fn list_tags(client: &Client) -> Vec<Tag> {
    let mut pages = client.tags(&name("apps/a"));
    let mut tags = Vec::new();
    while let TagPage::Page(page) = pages.next().await.unwrap() {
        tags.extend(page);
    }
    assert!(pages.is_complete());
    tags
}

/// HEADs every tag, several at a time; each must be there.
async fn head_all(client: &Client, tags: &[Tag]) {
    let mut heads = stream::iter(tags)
        .map(|tag| {
            let reference = tag.clone().into();
            async move { client.head_manifest(&name("apps/a"), &reference).await }
        })
        .buffer_unordered(8);
    while let Some(head) = heads.next().await {
        assert!(head.unwrap().unwrap().digest.is_some());
    }
}

#[tokio::test]
async fn basic_credentials_are_sent_unasked_after_the_first_challenge() {
    let registry = FakeRegistry::builder()
        .basic("indexer", "canary-password")
        .start()
        .await
        .unwrap();
    fill(&registry, 3);
    let client = Client::new(&registry.url(), LOGIN);
    for tag in list_tags(&client).await {
        client
            .head_manifest(&name("apps/a"), &tag.into())
            .await
            .unwrap()
            .unwrap();
    }
    let requests = registry.requests();
    assert_eq!(requests.len(), 1 + 1 + 3);
    assert!(!carries_credentials(&requests[0]));
    assert!(
        requests[1..]
            .iter()
            .all(|request| request.header("authorization").is_some())
    );
}

#[tokio::test]
async fn wrong_or_missing_credentials_are_an_error_and_no_loop() {
    let registry = FakeRegistry::builder()
        .basic("indexer", "another")
        .start()
        .await
        .unwrap();
    for keys in [LOGIN, ""] {
        registry.clear_log();
        let client = Client::new(&registry.url(), keys);
        let error = client.catalog().next().await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Unauthorized { withheld_from: None }),
            "{error:?}"
        );
        assert!(registry.requests().len() <= 2);
    }
}

#[tokio::test]
async fn a_rotated_password_works_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "first").unwrap();
    for builder in [
        FakeRegistry::builder().basic("indexer", "first"),
        FakeRegistry::builder().bearer(Bearer::living(Duration::from_secs(60)).for_user("indexer", "first")),
    ] {
        std::fs::write(&file, "first").unwrap();
        let registry = builder.start().await.unwrap();
        fill(&registry, 1);
        let keys = format!("username: indexer, password_file: '{}'", file.display());
        let client = Client::new(&registry.url(), &keys);
        assert_eq!(list_tags(&client).await.len(), 1);
        registry.set_credentials("indexer", "the second");
        registry.revoke_tokens();
        std::fs::write(&file, "the second").unwrap();
        assert_eq!(list_tags(&client).await.len(), 1);
    }
}

/// Reads 2,000 tags and goes on until `tokens` tokens were needed for it.
async fn scan_with_tokens_that_live(lifetime: Duration, tokens: usize) {
    let bearer = Bearer::living(lifetime).for_user("indexer", "canary-password");
    let registry = FakeRegistry::builder()
        .page_size(500)
        .bearer(bearer)
        .start()
        .await
        .unwrap();
    fill(&registry, 2_000);
    let client = Client::new(&registry.url(), LOGIN);
    let tags = list_tags(&client).await;
    assert_eq!(tags.len(), 2_000);
    let mut rounds = 0;
    while rounds == 0 || registry.count(Kind::Token) < tokens {
        head_all(&client, &tags).await;
        rounds += 1;
    }
    // Each HEAD once, and again only where a token ended on its way.
    let heads = registry.count(Kind::HeadManifest);
    assert!(heads >= rounds * 2_000);
    assert!(
        heads <= rounds * 2_000 + 8 * registry.count(Kind::Token),
        "{heads} HEADs in {rounds} rounds"
    );
}

#[tokio::test]
async fn tokens_are_renewed_in_the_middle_of_a_scan() {
    // A life under a second is written as a fraction, which is nonsense to us: the 401 in the middle renews it.
    scan_with_tokens_that_live(Duration::from_millis(300), 4).await;
}

#[tokio::test]
async fn tokens_that_live_five_seconds_do() {
    scan_with_tokens_that_live(Duration::from_secs(5), 3).await;
}

#[tokio::test]
async fn a_revoked_token_costs_one_request() {
    let bearer = Bearer::living(Duration::from_secs(300));
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    fill(&registry, 1);
    let client = Client::new(&registry.url(), "");
    client
        .head_manifest(&name("apps/a"), &tag("t0000"))
        .await
        .unwrap()
        .unwrap();
    registry.revoke_tokens();
    registry.clear_log();
    client
        .head_manifest(&name("apps/a"), &tag("t0000"))
        .await
        .unwrap()
        .unwrap();
    let kinds: Vec<Kind> = registry.requests().iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [Kind::HeadManifest, Kind::Token, Kind::HeadManifest]);
}

#[tokio::test]
async fn callers_at_once_share_one_token_and_other_scopes_need_no_challenge() {
    let bearer = Bearer::living(Duration::from_secs(300));
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    let digests = fill(&registry, 50);
    registry.add(Rule::on("/token", Fault::Delay(Duration::from_millis(100))));
    let client = Client::new(&registry.url(), "");
    head_all(&client, &list_tags(&client).await).await;
    assert_eq!(registry.count(Kind::Token), 1);

    registry.put_manifest("apps/b", "application/json", "{\"schemaVersion\":2,\"number\":0}");
    registry.clear_log();
    let reference = digests[0].clone().into();
    client
        .head_manifest(&name("apps/b"), &reference)
        .await
        .unwrap()
        .unwrap();
    let kinds: Vec<Kind> = registry.requests().iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [Kind::Token, Kind::HeadManifest]);
    assert!(
        registry.requests()[0]
            .query
            .contains("scope=repository%3Aapps%2Fb%3Apull")
    );
}

#[tokio::test]
async fn callers_at_once_share_the_failure_of_a_token_endpoint() {
    let bearer = Bearer::living(Duration::from_secs(300));
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    registry.add(Rule::on("/token", Fault::Delay(Duration::from_secs(3_600))));
    let client = Client::new(&registry.url(), "timeout: 1s");
    let (apps, reference) = (name("apps/a"), tag("t0000"));
    let calls = (0..4).map(|_| client.head_manifest(&apps, &reference));
    for result in join_all(calls).await {
        let error = result.unwrap_err();
        assert!(matches!(error, RegistryError::Token { .. }), "{error:?}");
    }
    // Three tries of four callers.
    assert!(registry.count(Kind::Token) < 12, "{}", registry.count(Kind::Token));
}

#[tokio::test]
async fn a_realm_on_another_host_gets_no_credentials() {
    let realm = FakeRegistry::builder()
        .bearer(Bearer::living(Duration::from_secs(60)))
        .start()
        .await
        .unwrap();
    let realm_url = realm.url_as("localhost").join("/token").unwrap();
    let bearer = Bearer::living(Duration::from_secs(60)).from_realm(realm_url.as_str());
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    fill(&registry, 20);
    // Naming it does not help over http.
    for keys in [LOGIN.to_owned(), format!("{LOGIN}, token_realms: [localhost]")] {
        let client = Client::new(&registry.url(), &keys);
        head_all(&client, &list_tags(&client).await).await;
    }
    assert_eq!(realm.requests().len(), 2);
    for request in realm.requests() {
        assert_eq!(request.kind, Kind::Token);
        assert!(!carries_credentials(&request), "{request:?}");
    }
}

#[tokio::test]
async fn withheld_credentials_are_named_in_the_error() {
    let bearer = Bearer::living(Duration::from_secs(60)).for_user("indexer", "canary-password");
    let realm = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    let realm_url = realm.url_as("localhost").join("/token").unwrap();
    let bearer = Bearer::living(Duration::from_secs(60)).from_realm(realm_url.as_str());
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    let client = Client::new(&registry.url(), LOGIN);
    let error = client.catalog().next().await.unwrap_err();
    assert!(error.to_string().contains("registry.token_realms"), "{error}");
    assert!(error.to_string().contains("localhost"), "{error}");
    assert!(realm.requests().iter().all(|request| !carries_credentials(request)));
}

#[tokio::test]
async fn the_registrys_own_host_may_be_the_realm_on_another_port() {
    let bearer = Bearer::living(Duration::from_secs(60)).for_user("indexer", "canary-password");
    let realm = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    let realm_url = realm.url().join("/token?fixed=1").unwrap();
    let bearer = Bearer::living(Duration::from_secs(60)).from_realm(realm_url.as_str());
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    fill(&registry, 1);
    let client = Client::new(&registry.url(), LOGIN);
    assert_eq!(list_tags(&client).await.len(), 1);
    let asked = &realm.requests()[0];
    for part in ["fixed=1", "service=fake", "client_id=flagstate", "account=indexer"] {
        assert!(asked.query.contains(part), "{}", asked.query);
    }
}

#[tokio::test]
async fn realms_that_are_no_place_to_ask_are_refused() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    for (realm, expected) in [
        ("file:///etc/passwd", RealmRefusal::NotUrl),
        ("ftp://127.0.0.1/", RealmRefusal::NotPlain),
        ("http://user:pw@127.0.0.1/", RealmRefusal::NotPlain),
        ("/token", RealmRefusal::NotUrl),
    ] {
        registry.behave();
        let challenge = format!("Bearer realm=\"{realm}\"");
        registry.add(Rule::on("*", Fault::reply(401, ("WWW-Authenticate", &challenge), "")));
        let client = Client::new(&registry.url(), LOGIN);
        let error = client.catalog().next().await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Realm(refusal) if refusal == expected),
            "{error:?}"
        );
    }
    // An address that only this machine's neighbours could answer.
    registry.behave();
    let challenge = "Bearer realm=\"http://169.254.169.254/token\"";
    registry.add(Rule::on("*", Fault::reply(401, ("WWW-Authenticate", challenge), "")));
    let error = Client::new(&registry.url(), LOGIN).catalog().next().await.unwrap_err();
    let RegistryError::Token { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(**source, RegistryError::AddressRefused { .. }), "{error:?}");
}

#[tokio::test]
async fn hostile_token_endpoints_are_errors() {
    let bearer = Bearer::living(Duration::from_secs(60));
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    let client = Client::new(&registry.url(), "");
    let json = ("Content-Type", "application/json");
    let huge = format!("{{\"token\":\"{}\"}}", "a".repeat(10_000_000));
    for (fault, expected) in [
        (Fault::reply(200, json, huge), BadBody::NoToken),
        (Fault::reply(200, json, "{}"), BadBody::NoToken),
        (Fault::reply(200, json, "<html>"), BadBody::NotJson),
        (Fault::reply(200, ("Content-Encoding", "gzip"), "x"), BadBody::Encoded),
    ] {
        registry.behave();
        registry.add(Rule::on("/token", fault));
        let error = client.catalog().next().await.unwrap_err();
        let RegistryError::Token { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(
            matches!(**source, RegistryError::BadBody(bad) if bad == expected),
            "{error:?}"
        );
    }
    // A redirect could carry the password elsewhere.
    registry.behave();
    registry.add(Rule::on("/token", Fault::Redirect("/token2".to_owned())));
    client.catalog().next().await.unwrap_err();
    assert_eq!(registry.count(Kind::Other), 0);
}

#[tokio::test]
async fn nonsensical_lifetimes_are_clamped() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, 1);
    for expires_in in ["0", "-1", "1e18", "\"soon\"", "null"] {
        registry.behave();
        registry.clear_log();
        let body = format!("{{\"access_token\":\"x\",\"expires_in\":{expires_in}}}");
        registry.add(Rule::on(
            "/token",
            Fault::reply(200, ("Content-Type", "application/json"), body),
        ));
        let challenge = format!("Bearer realm=\"{}token\"", registry.url());
        let refused = Fault::reply(401, ("WWW-Authenticate", &challenge), "");
        registry.add(Rule::on("/v2/*", refused).times(1));
        let client = Client::new(&registry.url(), "");
        for _ in 0..3 {
            client
                .head_manifest(&name("apps/a"), &tag("t0000"))
                .await
                .unwrap()
                .unwrap();
        }
        assert_eq!(registry.count(Kind::Token), 1, "{expires_in}");
        assert_eq!(registry.count(Kind::HeadManifest), 4, "{expires_in}");
    }
}

#[tokio::test]
async fn a_401_loop_ends_after_one_renewal() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    let challenge = format!("Bearer realm=\"{}token\"", registry.url());
    registry.add(Rule::on(
        "/v2/*",
        Fault::reply(401, ("WWW-Authenticate", &challenge), ""),
    ));
    let client = Client::new(&registry.url(), "");
    for _ in 0..2 {
        registry.clear_log();
        let error = client.catalog().next().await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
        assert!(registry.count(Kind::Token) <= 2);
        assert_eq!(registry.count(Kind::Catalog), 2);
    }
}

#[tokio::test]
async fn secrets_are_in_no_debug_output() {
    let bearer = Bearer::living(Duration::from_secs(60)).for_user("indexer", "canary-password");
    let registry = FakeRegistry::builder().bearer(bearer).start().await.unwrap();
    fill(&registry, 1);
    let client = Client::new(&registry.url(), LOGIN);
    list_tags(&client).await;
    registry.add(Rule::on("/v2/*", Fault::Drop));
    let error = client.catalog().next().await.unwrap_err();
    let requests = registry.requests();
    let authorization = requests
        .iter()
        .rev()
        .find_map(|request| request.header("authorization"))
        .unwrap();
    let (_, token) = authorization.split_once(' ').unwrap();
    let printed = format!("{:?} {error:?} {error}", client.client);
    assert!(!printed.contains("canary"), "{printed}");
    assert!(!printed.contains(token), "{printed}");
}
