//! One indexer inside the test process: database, registry, `/events` and the writer's loop.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use flagstate_common::config::{Config, Limits, Service};
use flagstate_common::digest::Digest;
use flagstate_common::metrics::LimitHits;
use flagstate_common::store::{Pool, PoolOptions};
use flagstate_common::telemetry;
use flagstate_indexer::leader::Leader;
use flagstate_indexer::metrics::IndexerMetrics;
use flagstate_indexer::registry::{RegistryClient, RegistryMetrics};
use flagstate_indexer::scan::observe::Observer;
use flagstate_indexer::scan::schedule::{Scanner, serve_queue};
use flagstate_indexer::scan::worker::Worker;
use flagstate_indexer::store::{Acquired, LeaseStore, QueueStore, RequestKind, RequestStore, WriteStore};
use flagstate_indexer::webhook::auth::Tokens;
use flagstate_indexer::webhook::handler::Webhook;
use flagstate_indexer::webhook::{self, intake::Intake};
use flagstate_test_support::fake_registry::FakeRegistry;
use flagstate_test_support::http;
use flagstate_test_support::images::Manifest;
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) const TOKEN: &str = "a token for tests";

/// A listener whose address is known before anything answers there.
pub(crate) fn listener() -> (TcpListener, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url_of(&listener);
    (listener, url)
}

fn url_of(listener: &TcpListener) -> Url {
    let address = listener.local_addr().unwrap();
    format!("http://{address}/events").parse().unwrap()
}

/// What the test says about the configuration, beside registry, token and database.
pub(crate) fn config(registry: &Url, database: &TestDatabase, yaml: &str) -> Config {
    config_with(&format!("url: '{registry}'"), database, yaml)
}

/// The same, with more than the URL in the section `registry`.
pub(crate) fn config_with(registry: &str, database: &TestDatabase, yaml: &str) -> Config {
    let base = format!(
        "registry: {{{registry}}}\nevents: {{token: '{TOKEN}'}}\ndatabase: {{postgres: {{url: '{}'}}}}\nlog: {{level: warn, format: text}}\n{yaml}",
        database.url()
    );
    Config::from_sources(&base, [], Service::Indexer).unwrap()
}

/// What an indexer is made of.
struct Parts {
    config: Arc<Config>,
    metrics: Registry,
    pool: Pool,
    client: RegistryClient,
    indexer_metrics: Arc<IndexerMetrics>,
    wake: Arc<Notify>,
}

impl Parts {
    fn new(config: Config) -> Self {
        // The first test of the process decides where warnings go; later ones need not.
        telemetry::install(&config.log).ok();
        let metrics = Registry::new();
        let pool = Pool::open(&config.database.postgres, &PoolOptions::writer("test")).unwrap();
        let limit_hits = LimitHits::register(&metrics).unwrap();
        let client_metrics = RegistryMetrics::new(&metrics, limit_hits.clone()).unwrap();
        let client = RegistryClient::new(&config.registry, &config.limits, client_metrics).unwrap();
        let indexer_metrics = Arc::new(IndexerMetrics::new(&metrics, limit_hits).unwrap());
        Self {
            config: Arc::new(config),
            metrics,
            pool,
            client,
            indexer_metrics,
            wake: Arc::new(Notify::new()),
        }
    }

    fn serve_events(&self, events: TcpListener) -> Url {
        let url = url_of(&events);
        let webhook = web::Data::new(Webhook {
            tokens: Tokens::new(&self.config.events),
            intake: Intake::start(QueueStore::new(self.pool.clone()), self.wake.clone()),
            filter: self.config.registry.repositories.clone(),
            limit: self.config.limits.notification,
            metrics: self.indexer_metrics.clone(),
        });
        let server = HttpServer::new(move || App::new().app_data(webhook.clone()).configure(webhook::routes))
            .workers(1)
            .disable_signals()
            .listen(events)
            .unwrap()
            .run();
        tokio::spawn(server);
        url
    }
}

/// A running indexer; it stops when [`Indexer::stop`] is called, or dies with the value.
pub(crate) struct Indexer {
    pub(crate) metrics: Registry,
    pub(crate) pool: Pool,
    pub(crate) events: Url,
    cancel: CancellationToken,
    leader: JoinHandle<()>,
}

impl Indexer {
    pub(crate) fn start(config: Config, events: TcpListener) -> Self {
        Self::start_as("test", config, events)
    }

    /// An indexer of this name, for where there is more than one.
    pub(crate) fn start_as(holder: &str, config: Config, events: TcpListener) -> Self {
        let parts = Parts::new(config);
        let events = parts.serve_events(events);
        let leader = Leader::new(
            parts.pool.clone(),
            parts.client,
            parts.config,
            holder.to_owned(),
            parts.wake,
            parts.indexer_metrics,
        );
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let leader = tokio::spawn(async move { leader.run(false, &cancelled).await.unwrap() });
        Self {
            metrics: parts.metrics,
            pool: parts.pool,
            events,
            cancel,
            leader,
        }
    }

    /// Asks for a full scan and waits for its end; the result says how it went.
    pub(crate) async fn scan(&self) -> String {
        let requests = RequestStore::new(self.pool.clone());
        let id = requests.ask(RequestKind::Scan).await.unwrap();
        let mut outcome = None;
        until("the scan ends", async || {
            outcome = requests.follow(id).await.unwrap().outcome;
            if outcome.is_some() { Ok(()) } else { Err(()) }
        })
        .await;
        outcome.unwrap()
    }

    /// The value of a gauge.
    pub(crate) fn gauge(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric()[0].get_gauge().get_value()
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.leader.await.unwrap();
    }

    /// Ends its work as a crash would: in the middle, and the lease stays taken until it runs out.
    pub(crate) async fn kill(self) {
        self.leader.abort();
        assert!(self.leader.await.unwrap_err().is_cancelled());
    }

    /// The sum of a counter over all its labels, or of those that have this label value.
    pub(crate) fn count(&self, name: &str, label: Option<&str>) -> u64 {
        let families = self.metrics.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric());
        let chosen = metrics
            .filter(|metric| label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label)));
        chosen.map(|metric| metric.get_counter().get_value() as u64).sum()
    }
}

/// A writer that is driven by hand: notifications are served as they come, scans happen when the test says so.
pub(crate) struct Pipeline {
    pub(crate) events: Url,
    pub(crate) scanner: Scanner,
    cancel: CancellationToken,
    queue: JoinHandle<()>,
}

impl Pipeline {
    pub(crate) async fn start(config: Config) -> Self {
        let parts = Parts::new(config);
        let events = parts.serve_events(listener().0);
        let store = write_store(&parts.pool).await;
        let observer = Observer::new(parts.client, parts.config.limits.clone(), parts.indexer_metrics.clone());
        let filter = parts.config.registry.repositories.clone();
        let worker = Worker::new(store, observer, filter, parts.indexer_metrics.clone());
        let cancel = CancellationToken::new();
        let serving = serve_queue(worker.clone(), parts.wake, cancel.clone());
        let queue = tokio::spawn(async move { serving.await.unwrap() });
        Self {
            events,
            scanner: Scanner::new(worker, Arc::default(), parts.indexer_metrics, true),
            cancel,
            queue,
        }
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.queue.await.unwrap();
    }
}

/// A store that writes under a lease of its own.
pub(crate) async fn write_store(pool: &Pool) -> WriteStore {
    let lease = LeaseStore::new(pool.clone());
    match lease
        .try_acquire("by hand", "http://registry.example", false)
        .await
        .unwrap()
    {
        Acquired::Writer { lease, .. } => WriteStore::open(pool.clone(), lease, Limits::default().index_depth),
        Acquired::HeldBy { holder } => panic!("{holder} writes"),
    }
}

/// What the index holds now.
pub(crate) async fn index_contents(database: &TestDatabase) -> RegistryContents {
    let client = database.client().await.unwrap();
    let rows = client
        .query(
            "SELECT r.name, t.name, encode(substr(m.digest, 2), 'hex')
             FROM tag t JOIN repository r ON r.id = repository_id JOIN manifest m ON m.id = manifest_id
             WHERE to_n IS NULL",
            &[],
        )
        .await
        .unwrap();
    let mut contents = RegistryContents::default();
    for row in rows {
        contents.insert(row.get(0), row.get(1), &format!("sha256:{}", row.get::<_, String>(2)));
    }
    contents
}

/// Waits until `holds` says yes; panics with what it said last after five minutes.
pub(crate) async fn until<T: std::fmt::Debug>(what: &str, mut holds: impl AsyncFnMut() -> Result<(), T>) {
    let mut last = None;
    for _ in 0..30_000 {
        match holds().await {
            Ok(()) => return,
            Err(state) => last = Some(state),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five minutes: {what}; last: {last:?}");
}

/// Puts a manifest with all that belongs to it into a fake registry, under the digest that it has.
pub(crate) fn fill(registry: &FakeRegistry, repository: &str, manifest: &Manifest, tags: &[&str]) {
    for blob in &manifest.blobs {
        registry.put_blob(repository, blob.bytes.clone());
    }
    for member in &manifest.members {
        fill(registry, repository, member, &[]);
    }
    let digest = registry.put_manifest(repository, &manifest.media_type, manifest.body.clone());
    for tag in tags {
        registry.tag(repository, tag, &digest);
    }
}

/// One value of one row.
pub(crate) async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(database: &TestDatabase, sql: &str) -> T {
    database
        .client()
        .await
        .unwrap()
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0)
}

/// A connection pool such as the indexer's.
pub(crate) fn pool(database: &TestDatabase) -> Pool {
    let nowhere = "http://127.0.0.1:9".parse().unwrap();
    let config = config(&nowhere, database, "");
    Pool::open(&config.database.postgres, &PoolOptions::writer("test")).unwrap()
}

/// Posts notifications in one envelope, as the registry does; they are accepted.
pub(crate) async fn post(events: &Url, notifications: &[Value]) {
    let response = http::client()
        .unwrap()
        .post(events.clone())
        .bearer_auth(TOKEN)
        .body(json!({"events": notifications}).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
}

/// The notification of a pushed manifest, by tag or by digest alone.
pub(crate) fn pushed(repository: &str, tag: Option<&str>, digest: &Digest) -> Value {
    let mut target = json!({"repository": repository, "digest": digest.to_string()});
    if let Some(tag) = tag {
        target["tag"] = json!(tag);
    }
    json!({"action": "push", "target": target})
}

/// The notification of something deleted: what is left of `target` names it.
pub(crate) fn deleted(repository: &str, tag: Option<&str>, digest: Option<&Digest>) -> Value {
    let mut target = json!({"repository": repository});
    if let Some(tag) = tag {
        target["tag"] = json!(tag);
    }
    if let Some(digest) = digest {
        target["digest"] = json!(digest.to_string());
    }
    json!({"action": "delete", "target": target})
}
