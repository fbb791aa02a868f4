//! The parts of a running indexer, and the order in which they start and stop.
//!
//! Start: admin port, schema, `/events`, then the writer's loop. Stop: not ready, `/events` finishes what it has and takes
//! nothing new, the running change sets end, the lease is given back, one last line.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use flagstate_common::admin;
use flagstate_common::config::Config;
use flagstate_common::error_chain::Chain;
use flagstate_common::metrics::{self, LimitHits};
use flagstate_common::readiness::Readiness;
use flagstate_common::store::{Pool, PoolOptions, StoreError};
use prometheus::Registry;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::leader::Leader;
use crate::metrics::IndexerMetrics;
use crate::registry::{BuildClientError, RegistryClient, RegistryMetrics};
use crate::store::{LeaseError, MigrateError, QueueStore, RequestStore, migrate};
use crate::webhook::auth::Tokens;
use crate::webhook::handler::Webhook;
use crate::webhook::intake::Intake;
use crate::webhook::{self};

/// How long to wait before the schema is tried again when the database is not there.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// How long a sender may take to send the head of a request.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Connections to `/events` at once, for each of its two threads.
const CONNECTIONS_PER_THREAD: usize = 5_000;
/// How long requests that are under way may take when the process ends, in seconds.
const DRAIN_SECONDS: u64 = 25;

/// Why the indexer cannot run.
#[derive(Debug, Error)]
pub enum AppError {
    /// The database's configuration.
    #[error("database: {0}")]
    Store(#[from] StoreError),
    /// The registry's configuration.
    #[error("registry: {0}")]
    Client(#[from] BuildClientError),
    /// The schema.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The index is of another registry.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A metric has a name that is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The port.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// What commands and the service share: configuration, database, registry and counters.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// Connections to the database.
    pub pool: Pool,
    /// Everything that is counted.
    pub registry: Registry,
    /// What the indexer counts.
    pub metrics: Arc<IndexerMetrics>,
    /// Wakes the writer when work was taken in.
    pub wake: Arc<Notify>,
    /// Is the writer, or waits to be.
    pub leader: Leader,
}

impl Parts {
    /// Puts the parts together; connects to nothing yet.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: Config) -> Result<Self, AppError> {
        let config = Arc::new(config);
        let registry = Registry::new();
        metrics::register_process(&registry)?;
        let limit_hits = LimitHits::register(&registry)?;
        let pool = Pool::open(&config.database.postgres, &PoolOptions::writer("flagstate-indexer"))?;
        let metrics = Arc::new(IndexerMetrics::new(&registry, limit_hits.clone())?);
        let client_metrics = RegistryMetrics::new(&registry, limit_hits)?;
        let client = RegistryClient::new(&config.registry, &config.limits, client_metrics)?;
        let wake = Arc::new(Notify::new());
        let leader = Leader::new(
            pool.clone(),
            client,
            config.clone(),
            holder(),
            wake.clone(),
            metrics.clone(),
        );
        Ok(Self {
            config,
            pool,
            registry,
            metrics,
            wake,
            leader,
        })
    }

    /// Requests for full scans, for the writer to see.
    #[must_use]
    pub fn requests(&self) -> RequestStore {
        RequestStore::new(self.pool.clone())
    }
}

/// A name for this process that no other has, now or later.
fn holder() -> String {
    format!("{}-{:08x}", std::process::id(), rand::random::<u32>())
}

/// Runs until `shutdown` is cancelled.
///
/// # Errors
/// When the indexer cannot start, or must not write to this index.
pub async fn run(config: Config, adopt: bool, shutdown: CancellationToken) -> Result<(), AppError> {
    let parts = Parts::new(config)?;
    let listen = parts.config.listen.clone();
    let readiness = Readiness::new(shutdown.clone());
    let schema_ready = readiness.require("schema");
    let admin =
        admin::bind(listen.indexer_admin, readiness, parts.registry.clone()).map_err(|source| AppError::Listen {
            address: listen.indexer_admin,
            source,
        })?;
    let admin_handle = admin.server.handle();
    let admin_task = tokio::spawn(admin.server);
    if parts.config.database.migrate_on_start && !migrate_when_possible(&parts.pool, &shutdown).await? {
        return Ok(());
    }
    let events = serve_events(&parts, listen.indexer).map_err(|source| AppError::Listen {
        address: listen.indexer,
        source,
    })?;
    let events_handle = events.handle();
    let events_task = tokio::spawn(events);
    schema_ready.met();
    tracing::info!(
        listen.events = %listen.indexer, listen.admin = %listen.indexer_admin,
        registry.url = %parts.config.registry.url, version = flagstate_common::build::VERSION, "indexer runs"
    );
    // The writer's loop ends with the shutdown, or at once when it must not write here.
    let writes = CancellationToken::new();
    let drain = async {
        shutdown.cancelled().await;
        events_handle.stop(true).await;
        writes.cancel();
    };
    let led = tokio::select! {
        led = parts.leader.run(adopt, &writes) => led,
        () = async { drain.await; std::future::pending().await } => Ok(()),
    };
    if led.is_err() {
        events_handle.stop(false).await;
    }
    admin_handle.stop(true).await;
    for task in [events_task, admin_task] {
        if let Ok(Err(error)) = task.await {
            tracing::warn!(error = %Chain(&error), "a server ended badly");
        }
    }
    tracing::info!("indexer ended");
    Ok(led?)
}

/// Brings the schema up to date, as soon as the database is there; `false` when the process is to end before.
async fn migrate_when_possible(pool: &Pool, shutdown: &CancellationToken) -> Result<bool, MigrateError> {
    loop {
        match migrate(pool).await {
            Ok(applied) => {
                if !applied.is_empty() {
                    tracing::info!(schema.applied = applied.join(", "), "schema changed");
                }
                return Ok(true);
            }
            Err(MigrateError::Store(error)) if error.is_retryable() => {
                tracing::warn!(error = %Chain(&error), "the database is not there yet");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = sleep(DATABASE_PAUSE) => {}
            () = shutdown.cancelled() => return Ok(false),
        }
    }
}

fn serve_events(parts: &Parts, address: SocketAddr) -> io::Result<actix_web::dev::Server> {
    let webhook = web::Data::new(Webhook {
        tokens: Tokens::new(&parts.config.events),
        intake: Intake::start(QueueStore::new(parts.pool.clone()), parts.wake.clone()),
        filter: parts.config.registry.repositories.clone(),
        limit: parts.config.limits.notification,
        metrics: parts.metrics.clone(),
    });
    if webhook.tokens.is_open() {
        tracing::warn!("events.token is empty: anybody who reaches /events may post notifications");
    }
    let listener = TcpListener::bind(address)?;
    let server = HttpServer::new(move || App::new().app_data(webhook.clone()).configure(webhook::routes))
        .workers(2)
        .max_connections(CONNECTIONS_PER_THREAD)
        .client_request_timeout(REQUEST_HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}
