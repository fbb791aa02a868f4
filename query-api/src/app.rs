//! The parts of a running query-api, and the order in which they start and stop.
//!
//! Start: both ports, at once; ready when the database was reached and its schema is known. From then on it stays
//! ready without the database: caches in front live on our errors' 503. Stop: not ready, a pause in which load balancers
//! learn of it, no new connections, the requests under way end, the pool closes, one last line.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App as Actix, HttpServer, web};
use flagstate_common::config::Config;
use flagstate_common::readiness::{Condition, Readiness};
use flagstate_common::store::read::ReadStore;
use flagstate_common::store::{Pool, PoolOptions, StoreError};
use flagstate_common::{admin, build, metrics};
use prometheus::Registry;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::exchange::exchange;
use crate::freshness::{FreshReader, Present, poll};
use crate::metrics::Metrics;
use crate::routes::{self, Shared};

/// The oldest schema that the reading store's statements work on, by the version of its last migration.
pub const OLDEST_SCHEMA: &str = "20261124000001";

/// How long a client may take to send the head of a request.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Connections at once, for each thread that serves them.
const CONNECTIONS_PER_THREAD: usize = 5_000;
/// From being not ready to not accepting connections any more: what load balancers take to notice.
pub const DRAIN_PAUSE: Duration = Duration::from_secs(2);
/// How long requests that are under way may take when the process ends, in seconds.
const DRAIN_SECONDS: u64 = 25;
/// How often the database is asked how fresh the index is.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// The same as long as the process is not ready.
const START_INTERVAL: Duration = Duration::from_millis(250);

/// Why query-api cannot run.
#[derive(Debug, Error)]
pub enum AppError {
    /// The database's configuration.
    #[error("database: {0}")]
    Store(#[from] StoreError),
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
    /// A server ended by itself.
    #[error("a server failed: {0}")]
    Serve(#[from] io::Error),
}

/// A query-api whose ports are bound.
pub struct App {
    address: SocketAddr,
    admin_address: SocketAddr,
    public: Server,
    admin: Server,
    watch: Watch,
    /// Asks the whole process to end.
    shutdown: CancellationToken,
    /// Ends what would wait longer than the requests under way may take.
    stopping: CancellationToken,
}

impl App {
    /// Binds both ports; must be called within the runtime. Connects to nothing yet.
    ///
    /// # Errors
    /// When the configuration cannot be used, or a port is taken.
    pub fn bind(config: &Config, shutdown: CancellationToken) -> Result<Self, AppError> {
        let registry = Registry::new();
        metrics::register_process(&registry)?;
        let metrics = web::Data::new(Metrics::new(&registry)?);
        let options = PoolOptions::reader("flagstate-query-api", config.database.statement_timeout);
        let pool = Pool::open(&config.database.postgres, &options)?;
        let store = ReadStore::new(pool.clone(), config.registry.repositories.clone());
        let present = Arc::new(Present::default());
        let readiness = Readiness::new(shutdown.clone());
        let watch = Watch {
            pool,
            store: store.clone(),
            present: present.clone(),
            metrics: metrics.clone(),
            database: readiness.require("database"),
        };
        let admin_address = config.listen.query_api_admin;
        let admin = admin::bind(admin_address, readiness, registry).map_err(|source| AppError::Listen {
            address: admin_address,
            source,
        })?;
        let stopping = CancellationToken::new();
        let index = FreshReader::new(store, present.clone());
        let shared = web::Data::new(Shared::new(config, index, present, &metrics, stopping.clone()));
        let (address, public) = serve(config, &shared, &metrics).map_err(|source| AppError::Listen {
            address: config.listen.query_api,
            source,
        })?;
        Ok(Self {
            address,
            admin_address: admin.address,
            public,
            admin: admin.server,
            watch,
            shutdown,
            stopping,
        })
    }

    /// Where the public port listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where probes and metrics are answered.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Serves until `shutdown` is cancelled, for `drain_pause` more, and then to the end of the requests under way.
    ///
    /// # Errors
    /// When a server ends by itself.
    pub async fn run(self, drain_pause: Duration) -> Result<(), AppError> {
        let Self {
            public,
            admin,
            watch,
            shutdown,
            stopping,
            ..
        } = self;
        tracing::info!(
            listen.public = %self.address, listen.admin = %self.admin_address,
            version = build::VERSION, "query-api runs"
        );
        let (public_handle, admin_handle) = (public.handle(), admin.handle());
        let pool = watch.pool.clone();
        let polling = tokio::spawn(poll(watch.store.clone(), watch.present.clone()));
        let watching = tokio::spawn(watch.run());
        let drain = async {
            shutdown.cancelled().await;
            tokio::time::sleep(drain_pause).await;
            stopping.cancel();
            public_handle.stop(true).await;
            admin_handle.stop(true).await;
        };
        let served = async { tokio::try_join!(public, admin) };
        tokio::pin!(served);
        let served = tokio::select! {
            served = &mut served => served,
            () = drain => served.await,
        };
        polling.abort();
        watching.abort();
        pool.close();
        served?;
        tracing::info!("query-api ended");
        Ok(())
    }
}

fn serve(
    config: &Config,
    shared: &web::Data<Shared>,
    metrics: &web::Data<Metrics>,
) -> io::Result<(SocketAddr, Server)> {
    let listener = TcpListener::bind(config.listen.query_api)?;
    let address = listener.local_addr()?;
    let with_assert = config.components.assert_endpoint;
    let (shared, metrics) = (shared.clone(), metrics.clone());
    let server = HttpServer::new(move || {
        Actix::new()
            .app_data(shared.clone())
            .app_data(metrics.clone())
            .wrap(from_fn(exchange))
            .configure(|service| routes::configure(service, with_assert))
    })
    .client_request_timeout(REQUEST_HEAD_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .max_connections(CONNECTIONS_PER_THREAD)
    .shutdown_timeout(DRAIN_SECONDS)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok((address, server))
}

/// Keeps readiness and metrics in step with the database.
struct Watch {
    pool: Pool,
    store: ReadStore,
    present: Arc<Present>,
    metrics: web::Data<Metrics>,
    database: Condition,
}

impl Watch {
    async fn run(self) {
        let mut is_ready = false;
        let mut was_up = true;
        loop {
            let looked = self.look(&mut is_ready).await;
            // One line when it goes and one when it comes back, however long it takes.
            match &looked {
                Err(error) if was_up => tracing::warn!(error = %error, "the database does not answer"),
                Ok(()) if !was_up => tracing::info!("the database answers again"),
                Err(_) | Ok(()) => {}
            }
            was_up = looked.is_ok();
            self.metrics.observe_pool(self.pool.status());
            tokio::time::sleep(if is_ready { WATCH_INTERVAL } else { START_INTERVAL }).await;
        }
    }

    async fn look(&self, is_ready: &mut bool) -> Result<(), StoreError> {
        if !*is_ready {
            *is_ready = self.knows_schema().await?;
        }
        if *is_ready {
            match self.store.status().await {
                Ok(status) => self.metrics.database_answered(&status),
                Err(error) => {
                    self.metrics.database_is_gone();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn knows_schema(&self) -> Result<bool, StoreError> {
        let version = self.store.schema_version().await?;
        let knows = version.as_deref() >= Some(OLDEST_SCHEMA);
        if knows {
            self.database.met();
        } else {
            self.database.unmet("schema too old");
        }
        Ok(knows)
    }
}
