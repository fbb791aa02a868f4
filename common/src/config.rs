//! The configuration of both services: one YAML file, typed here once and for all.
//!
//! Order of precedence: defaults, then the file, then environment variables `FLAGSTATE_<SECTION>__<KEY>`.
//! `docs/CONFIGURATION.md` lists every key. Nothing outside this module reads the environment.

mod byte_size;
pub(crate) mod conninfo;
mod duration;
mod environment;
pub mod fault;
mod layer;
pub mod limits;
mod list;
mod load;
mod raw;
pub mod repository_filter;
pub mod secret;
mod typed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

pub use fault::ConfigErrors;
pub use limits::Limits;
pub use load::{DEFAULT_FILE, Service};
pub use repository_filter::RepositoryFilter;
pub use secret::Secret;

/// Everything that either service may be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The registry that is indexed.
    pub registry: Registry,
    /// Which optional endpoints are on.
    pub components: Components,
    /// Who may post notifications.
    pub events: Events,
    /// Where the index is kept.
    pub database: Database,
    /// How long answers may be reused, and the memory for them.
    pub cache: Cache,
    /// What happens at intervals.
    pub interval: Interval,
    /// How much of the past is kept.
    pub history: History,
    /// Ceilings for foreign input.
    pub limits: Limits,
    /// Addresses that are listened on.
    pub listen: Listen,
    /// Log output.
    pub log: Log,
}

/// The registry that is indexed, and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Base URL, without `/v2`.
    pub url: Url,
    /// What responses return as `Registry`: absolute, or relative to the index's own URL.
    pub public_url: String,
    /// For Basic authentication and the token endpoint.
    pub credentials: Option<Credentials>,
    /// Hosts (`host` or `host:port`) beside the registry's own that may be sent the credentials.
    pub token_realms: Vec<String>,
    /// PEM certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// For mutual TLS.
    pub client_identity: Option<ClientIdentity>,
    /// Whether `/v2/_catalog` is asked; if not, only configured and notified names are scanned.
    pub catalog: bool,
    /// Which repositories exist as far as Flagstate is concerned.
    pub repositories: RepositoryFilter,
    /// One whole request.
    pub timeout: Duration,
    /// Ceiling of requests in flight.
    pub concurrency: usize,
    /// Proxy for `https` URLs, from `HTTPS_PROXY`.
    pub https_proxy: Option<Secret>,
    /// Hosts that are reached without a proxy, from `NO_PROXY`.
    pub no_proxy: Option<String>,
}

/// Name and password at the registry.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// A client certificate and its key, PEM files.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The certificate chain.
    pub certificate_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// Which optional endpoints are on.
#[derive(Clone, Debug)]
pub struct Components {
    /// The web pages at `/`.
    pub web_ui: bool,
    /// `POST /assert`.
    pub assert_endpoint: bool,
}

/// Who may post notifications.
#[derive(Clone, Debug)]
pub struct Events {
    /// The bearer token; `None` leaves `/events` open.
    pub token: Option<Secret>,
    /// Accepted too, while senders change over.
    pub previous_token: Option<Secret>,
}

/// Where the index is kept.
#[derive(Clone, Debug)]
pub struct Database {
    /// How to connect, environment and defaults filled in.
    pub postgres: Postgres,
    /// query-api's ceiling for one statement.
    pub statement_timeout: Duration,
    /// Whether the indexer migrates the schema when it starts.
    pub migrate_on_start: bool,
}

/// A PostgreSQL server.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// `postgres://` URL or `key=value` conninfo as given; a secret, for it may hold the password.
    pub url: Secret,
    /// The `PG*` variables, which fill what the URL leaves out.
    pub environment: PostgresEnvironment,
    /// Connections in the pool.
    pub pool_size: usize,
}

/// The `PG*` variables that libpq knows and we follow.
#[derive(Clone, Debug, Default)]
pub struct PostgresEnvironment {
    /// `PGHOST`
    pub host: Option<String>,
    /// `PGPORT`
    pub port: Option<String>,
    /// `PGUSER`
    pub user: Option<String>,
    /// `PGPASSWORD`
    pub password: Option<Secret>,
    /// `PGPASSFILE`
    pub passfile: Option<PathBuf>,
    /// `PGDATABASE`
    pub database: Option<String>,
    /// `PGSSLMODE`
    pub sslmode: Option<String>,
    /// `PGSSLROOTCERT`
    pub sslrootcert: Option<PathBuf>,
    /// The user's home folder, for `~/.pgpass` and `~/.postgresql/root.crt`.
    pub home: Option<PathBuf>,
    /// The operating system's user, the default of the database user.
    pub system_user: Option<String>,
}

/// How long answers may be reused, and the memory for them.
#[derive(Clone, Debug)]
pub struct Cache {
    /// `max-age` of programmatic answers.
    pub max_age_index: Duration,
    /// `max-age` of pages.
    pub max_age_html: Duration,
    /// `stale-while-revalidate`
    pub stale_while_revalidate: Duration,
    /// `stale-if-error`
    pub stale_if_error: Duration,
    /// Bytes of the response cache in query-api.
    pub memory: u64,
}

/// What happens at intervals; `None` is never.
#[derive(Clone, Debug)]
pub struct Interval {
    /// A full scan of the registry.
    pub fetch_all: Option<Duration>,
    /// Removal from the index of what nothing needs.
    pub garbage_collect: Option<Duration>,
}

/// How much of the past is kept.
#[derive(Clone, Debug)]
pub struct History {
    /// How long ended tags stay askable.
    pub keep: Duration,
}

/// Addresses that are listened on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// query-api, public.
    pub query_api: SocketAddr,
    /// query-api, probes and metrics.
    pub query_api_admin: SocketAddr,
    /// indexer, notifications.
    pub indexer: SocketAddr,
    /// indexer, probes and metrics.
    pub indexer_admin: SocketAddr,
}

/// Log output.
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// A `tracing` filter directive, such as `info` or `flagstate_indexer=debug,info`.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
