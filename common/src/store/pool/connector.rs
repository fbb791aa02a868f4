//! Opens one connection: servers in turn, with and without TLS as `sslmode` says, then the session's settings.

use std::error::Error;
use std::io;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use diesel_async::pooled_connection::PoolableConnection as _;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use rand::seq::SliceRandom as _;
use thiserror::Error;
use tokio::time::timeout;
use tokio_postgres::config::{LoadBalanceHosts, SslMode as Negotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::error::{Cause, StoreError};
use super::passfile;
use super::tls::{self, TlsError};
use crate::config::Postgres;
use crate::config::conninfo::{Conninfo, ConninfoError, ServerAddress, SslMode};

/// How long one server may take to let us in, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("database.postgres.url {0}")]
    Conninfo(#[from] ConninfoError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{server} did not let us in within {limit:?}")]
    TooSlow { server: String, limit: Duration },
    #[error("{server}")]
    Server {
        server: String,
        source: tokio_postgres::Error,
    },
    #[error("{server} refuses the session's settings")]
    Session {
        server: String,
        source: diesel::result::Error,
    },
    #[error("{server} cannot be used by diesel")]
    Diesel {
        server: String,
        source: diesel::ConnectionError,
    },
    #[error("the connection broke")]
    Broken,
}

impl ConnectError {
    /// Whether the server is there and means it: no other server is asked then, and waiting does not help.
    fn is_final(&self) -> bool {
        match self {
            Self::Conninfo(_) | Self::Tls(_) => true,
            Self::Server { source, .. } => {
                let by_code = source.code().is_some_and(|code| {
                    code.code().starts_with("28")
                        || *code == SqlState::INVALID_CATALOG_NAME
                        || *code == SqlState::INSUFFICIENT_PRIVILEGE
                });
                by_code || certificate_is_bad(source)
            }
            Self::TooSlow { .. } | Self::Session { .. } | Self::Diesel { .. } | Self::Broken => false,
        }
    }
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        Self::Connection {
            may_pass: !error.is_final(),
            cause: Cause::new(error),
        }
    }
}

/// Makes and checks the connections of a pool.
pub(super) struct Connector {
    postgres: Postgres,
    application_name: String,
    session_settings: String,
}

impl Connector {
    pub(super) fn new(postgres: Postgres, application_name: String, session_settings: String) -> Self {
        Self {
            postgres,
            application_name,
            session_settings,
        }
    }

    /// The first server that lets us in.
    async fn connect(&self) -> Result<AsyncPgConnection, ConnectError> {
        // Anew each time: the URL, the password and the certificates may come from files that change.
        let mut conninfo = self.postgres.conninfo()?;
        if conninfo.settings.get_application_name().is_none() {
            conninfo.settings.application_name(&self.application_name);
        }
        if conninfo.settings.get_load_balance_hosts() == LoadBalanceHosts::Random {
            conninfo.servers.shuffle(&mut rand::rng());
        }
        let limit = conninfo
            .settings
            .get_connect_timeout()
            .copied()
            .unwrap_or(CONNECT_TIMEOUT);
        let mut last = ConnectError::Broken;
        for server in &conninfo.servers {
            last = match timeout(limit, self.connect_to(&conninfo, server)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) if error.is_final() => return Err(error),
                Ok(Err(error)) => error,
                Err(_elapsed) => ConnectError::TooSlow {
                    server: name_of(server),
                    limit,
                },
            };
        }
        Err(last)
    }

    async fn connect_to(&self, conninfo: &Conninfo, server: &ServerAddress) -> Result<AsyncPgConnection, ConnectError> {
        let mut connection = negotiate(conninfo, server).await?;
        connection
            .batch_execute(&self.session_settings)
            .await
            .map_err(|source| ConnectError::Session {
                server: name_of(server),
                source,
            })?;
        Ok(connection)
    }
}

/// Tries what `sslmode` allows, in its order.
async fn negotiate(conninfo: &Conninfo, server: &ServerAddress) -> Result<AsyncPgConnection, ConnectError> {
    // TLS means nothing on a Unix socket; libpq ignores the mode there.
    let is_socket = server.host.starts_with('/') && server.address.is_none();
    let mode = if is_socket { SslMode::Disable } else { conninfo.ssl_mode };
    if mode == SslMode::Disable {
        return attempt(conninfo, server, Negotiation::Disable, None).await;
    }
    let tls = tls::connector(conninfo)?;
    match mode {
        SslMode::Disable | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            attempt(conninfo, server, Negotiation::Require, Some(tls)).await
        }
        SslMode::Prefer => match attempt(conninfo, server, Negotiation::Prefer, Some(tls)).await {
            Err(error) if server_answered(&error) => attempt(conninfo, server, Negotiation::Disable, None)
                .await
                .map_err(|_plain| error),
            result => result,
        },
        SslMode::Allow => match attempt(conninfo, server, Negotiation::Disable, None).await {
            Err(error) if server_answered(&error) => attempt(conninfo, server, Negotiation::Require, Some(tls)).await,
            result => result,
        },
    }
}

async fn attempt(
    conninfo: &Conninfo,
    server: &ServerAddress,
    negotiation: Negotiation,
    tls: Option<MakeRustlsConnect>,
) -> Result<AsyncPgConnection, ConnectError> {
    let mut settings = conninfo.settings.clone();
    settings.host(&server.host).port(server.port).ssl_mode(negotiation);
    if let Some(address) = server.address {
        settings.hostaddr(address);
    }
    if settings.get_password().is_none()
        && let Some(password) = passfile::look_up(conninfo, server)
    {
        settings.password(password);
    }
    let refused = |source| ConnectError::Server {
        server: name_of(server),
        source,
    };
    let connection = match tls {
        None => {
            let (client, connection) = settings.connect(tokio_postgres::NoTls).await.map_err(refused)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
        Some(tls) => {
            let (client, connection) = settings.connect(tls).await.map_err(refused)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
    };
    connection.map_err(|source| ConnectError::Diesel {
        server: name_of(server),
        source,
    })
}

/// Whether the server was reached and said no, to the way we came or to us: then the other way is worth a try.
fn server_answered(error: &ConnectError) -> bool {
    let ConnectError::Server { source, .. } = error else {
        return false;
    };
    let handshake_failed = io_error_of(source).is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        )
    });
    source.as_db_error().is_some() || handshake_failed
}

fn certificate_is_bad(error: &tokio_postgres::Error) -> bool {
    let tls_error = io_error_of(error)
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls_error, Some(rustls::Error::InvalidCertificate(_)))
}

fn io_error_of(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

fn name_of(server: &ServerAddress) -> String {
    format!("{} port {}", server.host, server.port)
}

impl Manager for Connector {
    type Type = AsyncPgConnection;
    type Error = ConnectError;

    async fn create(&self) -> Result<AsyncPgConnection, ConnectError> {
        self.connect().await
    }

    /// Without a round trip: a connection that broke is known as closed, and one that breaks now
    /// is an error of the first statement, which callers must bear anyway.
    async fn recycle(&self, connection: &mut AsyncPgConnection, _: &Metrics) -> RecycleResult<ConnectError> {
        if connection.is_broken() {
            return Err(RecycleError::Backend(ConnectError::Broken));
        }
        Ok(())
    }
}
