//! Certificates and proxies.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flagstate_indexer::registry::{BuildClientError, RedirectRefusal, RegistryError};
use flagstate_test_support::fake_registry::{Bearer, FakeRegistry, Fault, Kind, Rule};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::Client;

const LOGIN: &str = "username: indexer, password: canary-password";

/// The certificates of these registries' CAs in one file, as a key of the configuration.
fn trust(folder: &TempDir, registries: &[&FakeRegistry]) -> String {
    let pem: Vec<&str> = registries.iter().map(|registry| registry.ca_pem().unwrap()).collect();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, pem.join("\n")).unwrap();
    format!("ca_file: '{}'", path.display())
}

/// A client certificate of the registry, as keys of the configuration.
fn identity(folder: &TempDir, registry: &FakeRegistry) -> String {
    let files = registry.client_certificate().unwrap().unwrap();
    let (certificate, key) = (folder.path().join("client.pem"), folder.path().join("client.key"));
    std::fs::write(&certificate, files.certificate).unwrap();
    std::fs::write(&key, files.key).unwrap();
    format!(
        "client_certificate_file: '{}', client_key_file: '{}'",
        certificate.display(),
        key.display()
    )
}

async fn catalog(client: &Client) -> Result<(), RegistryError> {
    client.catalog().next().await.map(drop)
}

#[tokio::test]
async fn a_private_ca_is_trusted_only_when_configured() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, other) = (
        FakeRegistry::builder().tls().start().await.unwrap(),
        FakeRegistry::builder().tls().start().await.unwrap(),
    );
    for host in ["127.0.0.1", "localhost"] {
        let url = registry.url_as(host);
        catalog(&Client::new(&url, &trust(&folder, &[&registry])))
            .await
            .unwrap();
        for keys in [String::new(), trust(&folder, &[&other])] {
            let error = catalog(&Client::new(&url, &keys)).await.unwrap_err();
            assert!(matches!(error, RegistryError::Connect { .. }), "{error:?}");
        }
    }
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_registry_and_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::builder().mutual_tls().start().await.unwrap();
    let keys = trust(&folder, &[&registry]);
    let error = catalog(&Client::new(&registry.url(), &keys)).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(registry.requests().len(), 0);

    let client = Client::new(&registry.url(), &format!("{keys}, {}", identity(&folder, &registry)));
    catalog(&client).await.unwrap();
    // Under its other name the same server is somebody else: it gets no certificate, and refuses.
    registry.clear_log();
    let elsewhere = registry.url_as("localhost").join("/elsewhere").unwrap();
    registry.add(Rule::on("/v2/_catalog", Fault::Redirect(elsewhere.into())));
    catalog(&client).await.unwrap_err();
    assert!(registry.count(Kind::Catalog) > 0);
    assert_eq!(registry.count(Kind::Other), 0);
}

#[tokio::test]
async fn a_realm_over_https_gets_the_credentials_only_if_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let bearer = || Bearer::living(Duration::from_secs(60));
    let realm = FakeRegistry::builder().tls().bearer(bearer()).start().await.unwrap();
    let realm_url = realm.url_as("localhost").join("/token").unwrap();
    let port = realm_url.port().unwrap();
    let registry = FakeRegistry::builder()
        .tls()
        .bearer(bearer().from_realm(realm_url.as_str()))
        .start()
        .await
        .unwrap();
    let trust = trust(&folder, &[&registry, &realm]);
    for (realms, expected) in [
        (String::new(), false),
        ("127.0.0.1".to_owned(), false),
        (format!("'localhost:{}'", port - 1), false),
        ("localhost".to_owned(), true),
        (format!("'localhost:{port}'"), true),
    ] {
        realm.clear_log();
        let keys = format!("{LOGIN}, {trust}, token_realms: [{realms}]");
        catalog(&Client::new(&registry.url(), &keys)).await.unwrap();
        let requests = realm.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].header("authorization").is_some(), expected, "{realms}");
        assert_eq!(requests[0].query.contains("account=indexer"), expected, "{realms}");
    }
}

#[tokio::test]
async fn nothing_leads_from_https_to_http() {
    let folder = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::builder().tls().start().await.unwrap();
    let plain = FakeRegistry::builder().start().await.unwrap();
    let client = Client::new(&registry.url(), &format!("{LOGIN}, {}", trust(&folder, &[&registry])));
    registry.add(Rule::on("*", Fault::Redirect(plain.url().into())).times(1));
    let error = catalog(&client).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Redirect(RedirectRefusal::Downgrade)),
        "{error:?}"
    );
    let challenge = format!("Bearer realm=\"{}token\"", plain.url());
    registry.add(Rule::on("*", Fault::reply(401, ("WWW-Authenticate", &challenge), "")));
    let error = catalog(&client).await.unwrap_err();
    assert!(matches!(error, RegistryError::Realm(_)), "{error:?}");
    assert_eq!(plain.requests().len(), 0);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::builder().mutual_tls().start().await.unwrap();
    let junk = folder.path().join("junk.pem");
    std::fs::write(&junk, "junk").unwrap();
    let build = |keys: String| Client::with(&registry.url(), &keys, "", &[]).err();
    let named = |path: &Path| path == junk;
    let error = build(format!("ca_file: '{}'", junk.display())).unwrap();
    assert!(matches!(error, BuildClientError::NoCertificate { path } if named(&path)));
    let missing = folder.path().join("missing.pem");
    let error = build(format!("ca_file: '{}'", missing.display())).unwrap();
    assert!(matches!(error, BuildClientError::ReadFile { path, .. } if path == missing));
    let keys = identity(&folder, &registry);
    let error = build(keys.replace("client.key", "junk.pem")).unwrap();
    assert!(matches!(error, BuildClientError::NoKey { path } if named(&path)));
    assert!(build(keys).is_none());
}

/// A proxy that knows CONNECT, and remembers where it was asked to go.
struct ConnectProxy {
    url: String,
    targets: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let targets = Arc::new(Mutex::new(Vec::new()));
        let seen = targets.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, seen.clone()));
            }
        });
        Self { url, targets }
    }

    fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }
}

async fn tunnel(client: TcpStream, targets: Arc<Mutex<Vec<String>>>) {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        client.read_line(&mut head).await.unwrap();
    }
    let target = head.split(' ').nth(1).unwrap().to_owned();
    targets.lock().unwrap().push(target.clone());
    let mut server = TcpStream::connect(target).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // Ends with either side, in whatever way.
    drop(copy_bidirectional(&mut client, &mut server).await);
}

#[tokio::test]
async fn https_goes_through_the_proxy_unless_no_proxy_names_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let registry = FakeRegistry::builder().tls().start().await.unwrap();
    let plain = FakeRegistry::builder().start().await.unwrap();
    let proxy = ConnectProxy::start().await;
    let client = |url: &Url, keys: &str, no_proxy: &str| {
        let environment = [("HTTPS_PROXY", proxy.url.clone()), ("NO_PROXY", no_proxy.to_owned())];
        Client::with(url, keys, "", &environment).unwrap()
    };
    let keys = trust(&folder, &[&registry]);
    let url = registry.url();
    catalog(&client(&url, &keys, "127.0.0.1,example.com")).await.unwrap();
    catalog(&client(&plain.url(), "", "example.com")).await.unwrap();
    assert_eq!(proxy.targets(), Vec::<String>::new());
    catalog(&client(&url, &keys, "example.com")).await.unwrap();
    assert_eq!(proxy.targets(), [format!("127.0.0.1:{}", url.port().unwrap())]);
    assert_eq!(registry.count(Kind::Catalog), 2);

    // A host that the registry names is reached by the same way.
    let elsewhere = registry.url_as("localhost").join("/v2/_catalog").unwrap();
    registry.add(Rule::on("*", Fault::Redirect(elsewhere.into())).times(1));
    catalog(&client(&url, &keys, "example.com")).await.unwrap();
    let last = format!("localhost:{}", url.port().unwrap());
    assert_eq!(proxy.targets().last(), Some(&last));
}
