//! A registry in this process, friendly until a [`Rule`] makes it hostile.
//!
//! It speaks the read and the upload side of the OCI distribution API over `http` or `https`, keeps everything in
//! memory, logs every request in order, and issues its own tokens. Tests fill it by method calls, add faults, and
//! then look into the log.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Kind, Rule};
//!
//! let registry = FakeRegistry::builder().page_size(100).start().await?;
//! let digest = registry.put_manifest("apps/a", "application/vnd.oci.image.manifest.v1+json", "{}");
//! registry.tag("apps/a", "latest", &digest);
//! registry.add(Rule::on("/v2/apps/*/manifests/*", Fault::Status(500)).times(1));
//! assert_eq!(registry.count(Kind::GetManifest), 0);
//! # Ok(())
//! # }
//! ```

mod auth;
mod content;
mod fault;
mod handler;
mod log;
mod reply;
mod tls;
mod upload;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use bytes::Bytes;
use flagstate_common::digest::Digest;
use url::Url;

use auth::Auth;
pub use auth::Bearer;
use content::Content;
pub use fault::{Fault, Rule};
use log::Log;
pub use log::{Kind, LoggedRequest};
pub use tls::ClientCertificate;
use tls::Tls;

/// What the reference implementation allows and gives by default.
const MAX_PAGE_SIZE: usize = 1_000;

/// A running registry; it stops when dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    shared: Arc<Shared>,
    port: u16,
    tls: Option<Tls>,
    server: ServerHandle,
}

/// What the server's thread and the test both touch.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Body bytes produced, whether or not anybody took them.
    produced: AtomicU64,
}

#[derive(Debug)]
struct State {
    content: Content,
    auth: Auth,
    rules: Vec<Rule>,
    log: Log,
    page_size: Option<usize>,
    max_page_size: usize,
    /// `http://127.0.0.1:<port>`, for the realm of challenges.
    own_url: String,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a registry shall be.
#[derive(Debug)]
pub struct Builder {
    page_size: Option<usize>,
    max_page_size: usize,
    auth: Auth,
    tls: Option<bool>,
}

impl Builder {
    /// Entries on a page of the catalog and of tags when the client asks for more or for no number.
    ///
    /// Without this, tags come all at once, as docker-registry 2.8 sends them.
    #[must_use]
    pub fn page_size(mut self, entries: usize) -> Self {
        self.page_size = Some(entries);
        self
    }

    /// A client that asks for more on a page is answered 400 `PAGINATION_NUMBER_INVALID`; 1,000 if not set.
    #[must_use]
    pub fn max_page_size(mut self, entries: usize) -> Self {
        self.max_page_size = entries;
        self
    }

    /// Basic authentication is required.
    #[must_use]
    pub fn basic(mut self, username: &str, password: &str) -> Self {
        self.auth = Auth::basic(username, password);
        self
    }

    /// Bearer tokens are required.
    #[must_use]
    pub fn bearer(mut self, bearer: Bearer) -> Self {
        self.auth = Auth::Bearer(bearer);
        self
    }

    /// `https`, with a certificate of a CA of its own.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = Some(false);
        self
    }

    /// `https`, and only clients with a certificate of the same CA are served.
    #[must_use]
    pub fn mutual_tls(mut self) -> Self {
        self.tls = Some(true);
        self
    }

    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port is free or TLS cannot be set up.
    pub async fn start(self) -> anyhow::Result<FakeRegistry> {
        let tls = self.tls.map(Tls::new).transpose()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let port = listener.local_addr()?.port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                content: Content::default(),
                auth: self.auth,
                rules: Vec::new(),
                log: Log::default(),
                page_size: self.page_size,
                max_page_size: self.max_page_size,
                own_url: format!("{scheme}://127.0.0.1:{port}"),
            }),
            produced: AtomicU64::new(0),
        });
        let for_app = Arc::clone(&shared);
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::from(Arc::clone(&for_app)))
                .app_data(web::PayloadConfig::new(64 * 1024 * 1024))
                .default_service(web::to(handler::handle))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(0)
        .keep_alive(Duration::from_secs(60));
        let server = match &tls {
            Some(tls) => server.listen_rustls_0_23(listener, tls.server_config()?)?,
            None => server.listen(listener)?,
        }
        .run();
        let handle = server.handle();
        drop(tokio::spawn(server));
        Ok(FakeRegistry {
            shared,
            port,
            tls,
            server: handle,
        })
    }
}

impl FakeRegistry {
    /// A friendly registry without authentication over `http`, to be changed before it is started.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            page_size: None,
            max_page_size: MAX_PAGE_SIZE,
            auth: Auth::None,
            tls: None,
        }
    }

    /// Its URL, with 127.0.0.1 as host.
    #[must_use]
    pub fn url(&self) -> Url {
        self.url_as("127.0.0.1")
    }

    /// Its URL under another name for this machine, such as `localhost`.
    ///
    /// # Panics
    /// When `host` is no host.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a test that names no host is wrong")]
    pub fn url_as(&self, host: &str) -> Url {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{}", self.port);
        url.parse().expect("a host")
    }

    /// The certificate of its CA in PEM; `None` over `http`.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.tls.as_ref().map(Tls::ca_pem)
    }

    /// A certificate that it accepts from clients; `None` over `http`.
    ///
    /// # Errors
    /// When none can be made.
    pub fn client_certificate(&self) -> anyhow::Result<Option<ClientCertificate>> {
        self.tls.as_ref().map(Tls::client_certificate).transpose()
    }

    /// Stores a blob.
    pub fn put_blob(&self, repository: &str, body: impl Into<Bytes>) -> Digest {
        self.shared.lock().content.put_blob(repository, body.into())
    }

    /// Stores a manifest without a tag.
    pub fn put_manifest(&self, repository: &str, media_type: &str, body: impl Into<Bytes>) -> Digest {
        let mut state = self.shared.lock();
        state.content.put_manifest(repository, media_type, body.into())
    }

    /// Lets a tag name a manifest, from now on or anew.
    pub fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.shared.lock().content.tag(repository, tag, digest);
    }

    /// Removes a tag; whether it was there.
    pub fn delete_tag(&self, repository: &str, tag: &str) -> bool {
        self.shared.lock().content.delete_tag(repository, tag)
    }

    /// Removes a manifest and all tags that name it; whether it was there.
    pub fn delete_manifest(&self, repository: &str, digest: &Digest) -> bool {
        self.shared.lock().content.delete_manifest(repository, digest)
    }

    /// Removes a repository with all that is in it; whether it was there.
    pub fn delete_repository(&self, repository: &str) -> bool {
        self.shared.lock().content.delete_repository(repository)
    }

    /// Adds a fault. The first rule that matches a request decides; rules that are used up match no more.
    pub fn add(&self, rule: Rule) {
        self.shared.lock().rules.push(rule);
    }

    /// Removes all faults.
    pub fn behave(&self) {
        self.shared.lock().rules.clear();
    }

    /// From now on this name and password are right, at the registry and at its token endpoint.
    pub fn set_credentials(&self, username: &str, password: &str) {
        self.shared.lock().auth.set_credentials(username, password);
    }

    /// All tokens issued so far are refused from now on.
    pub fn revoke_tokens(&self) {
        self.shared.lock().auth.revoke_tokens();
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.lock().log.requests().to_vec()
    }

    /// How many requests of a kind there were.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        let state = self.shared.lock();
        let of_kind = |request: &&LoggedRequest| request.kind == kind;
        state.log.requests().iter().filter(of_kind).count()
    }

    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        self.shared.lock().log.clear();
    }

    /// The greatest number of requests that were being answered at once.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.shared.lock().log.max_in_flight()
    }

    /// Bytes of bodies that were produced, whether or not a client took them.
    #[must_use]
    pub fn produced_bytes(&self) -> u64 {
        self.shared.produced.load(Ordering::Relaxed)
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        // The command is sent by the call; the future only tells when it was obeyed.
        drop(self.server.stop(false));
    }
}
