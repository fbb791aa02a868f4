//! One indexer inside the test process: database, registry, `/events` and the writer's loop.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use flagstate_common::config::{Config, Service};
use flagstate_common::metrics::LimitHits;
use flagstate_common::store::{Pool, PoolOptions};
use flagstate_common::telemetry;
use flagstate_indexer::leader::Leader;
use flagstate_indexer::metrics::IndexerMetrics;
use flagstate_indexer::registry::{RegistryClient, RegistryMetrics};
use flagstate_indexer::store::{QueueStore, RequestKind, RequestStore};
use flagstate_indexer::webhook::auth::Tokens;
use flagstate_indexer::webhook::handler::Webhook;
use flagstate_indexer::webhook::{self, intake::Intake};
use flagstate_test_support::fake_registry::FakeRegistry;
use flagstate_test_support::images::Manifest;
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;
use prometheus::Registry;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) const TOKEN: &str = "a token for tests";

/// A listener whose address is known before anything answers there.
pub(crate) fn listener() -> (TcpListener, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    (listener, url)
}

/// What the test says about the configuration, beside registry, token and database.
pub(crate) fn config(registry: &Url, database: &TestDatabase, yaml: &str) -> Config {
    let base = format!(
        "registry: {{url: '{registry}'}}\nevents: {{token: '{TOKEN}'}}\ndatabase: {{postgres: {{url: '{}'}}}}\nlog: {{level: warn, format: text}}\n{yaml}",
        database.url()
    );
    Config::from_sources(&base, [], Service::Indexer).unwrap()
}

/// A running indexer; it stops when [`Indexer::stop`] is called, or dies with the value.
pub(crate) struct Indexer {
    pub(crate) metrics: Registry,
    pub(crate) pool: Pool,
    cancel: CancellationToken,
    leader: JoinHandle<()>,
}

impl Indexer {
    pub(crate) fn start(config: Config, events: TcpListener) -> Self {
        // The first test of the process decides where warnings go; later ones need not.
        telemetry::install(&config.log).ok();
        let config = Arc::new(config);
        let metrics = Registry::new();
        let pool = Pool::open(&config.database.postgres, &PoolOptions::writer("test")).unwrap();
        let limit_hits = LimitHits::register(&metrics).unwrap();
        let client_metrics = RegistryMetrics::new(&metrics, limit_hits.clone()).unwrap();
        let client = RegistryClient::new(&config.registry, &config.limits, client_metrics).unwrap();
        let indexer_metrics = Arc::new(IndexerMetrics::new(&metrics, limit_hits).unwrap());
        let wake = Arc::new(Notify::new());
        let webhook = web::Data::new(Webhook {
            tokens: Tokens::new(&config.events),
            intake: Intake::start(QueueStore::new(pool.clone()), wake.clone()),
            filter: config.registry.repositories.clone(),
            limit: config.limits.notification,
            metrics: indexer_metrics.clone(),
        });
        let server = HttpServer::new(move || App::new().app_data(webhook.clone()).configure(webhook::routes))
            .workers(1)
            .disable_signals()
            .listen(events)
            .unwrap()
            .run();
        tokio::spawn(server);
        let leader = Leader::new(pool.clone(), client, config, "test".to_owned(), wake, indexer_metrics);
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let leader = tokio::spawn(async move { leader.run(false, &cancelled).await.unwrap() });
        Self {
            metrics,
            pool,
            cancel,
            leader,
        }
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

    /// One full scan that begins after this call, and what is said about it.
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
