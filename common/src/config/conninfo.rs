//! How to reach PostgreSQL: a `postgres://` URL or `key=value` text, filled up as libpq does.
//!
//! Follows the PostgreSQL documentation, "Connection Strings" and "Environment Variables" of libpq. tokio-postgres
//! knows neither all of `sslmode` nor `sslrootcert`, `passfile` and the `PG*` variables: they are taken care of here.
//! No error prints a value, for it may hold the password.

mod parse;

use std::error::Error as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Postgres, PostgresEnvironment};
use parse::{HANDED_ON, OURS, Parameters, parse};

/// Where Debian's and most other packages put the server's socket.
pub(crate) const SOCKET_FOLDER: &str = "/var/run/postgresql";
const DEFAULT_PORT: u16 = 5432;

/// Everything about a connection; nothing is left to be guessed but the password file's content.
#[derive(Clone, Debug)]
pub(crate) struct Conninfo {
    /// Tried in order, or shuffled with `load_balance_hosts=random`; never empty.
    pub(crate) servers: Vec<ServerAddress>,
    pub(crate) ssl_mode: SslMode,
    pub(crate) root_certificates: RootCertificates,
    pub(crate) user: String,
    pub(crate) database: String,
    /// Asked for the password when `settings` holds none.
    pub(crate) passfile: Option<PathBuf>,
    /// The rest, user, database and password included, without servers and TLS.
    pub(crate) settings: tokio_postgres::Config,
}

/// One of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerAddress {
    /// Name, address or, when it begins with `/`, the folder of a socket.
    pub(crate) host: String,
    /// Saves looking up `host`, which is then only what the certificate must be for.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}

/// `sslmode`, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS if the server wants it.
    Allow,
    /// TLS if the server can.
    Prefer,
    /// Always TLS.
    Require,
    /// Always TLS, with a certificate of a trusted authority.
    VerifyCa,
    /// The same, and the certificate must be for the host.
    VerifyFull,
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootCertificates {
    /// `sslrootcert=system`.
    System,
    /// A file that was named; it must be there.
    Named(PathBuf),
    /// `~/.postgresql/root.crt` if it is there, which turns verification on.
    Default(Option<PathBuf>),
}

/// Why a text tells no way to a database.
#[derive(Debug, Error)]
pub(crate) enum ConninfoError {
    #[error("is neither a postgres:// URL nor key=value pairs: {0}")]
    Syntax(&'static str),
    #[error(
        "parameter {position} is none of those that are understood: {}, {}",
        OURS.join(", "), HANDED_ON.join(", ")
    )]
    UnknownParameter { position: usize },
    #[error("has a bad value for {parameter}")]
    BadValue { parameter: &'static str },
    #[error("names {hosts} hosts, but {values} values for {parameter}")]
    Count {
        parameter: &'static str,
        hosts: usize,
        values: usize,
    },
    #[error("sslrootcert=system asks for sslmode=verify-full")]
    WeakModeWithSystemRoots,
    #[error("tells no user, nor does PGUSER, and this process's user has no name")]
    NoUser,
    #[error("has a bad setting: {}", reason(source))]
    Setting { source: tokio_postgres::Error },
}

/// tokio-postgres tells the reason one level down; it names the parameter, not its value.
fn reason(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

impl Postgres {
    /// The present way to the database; it changes when the URL's file does.
    pub(crate) fn conninfo(&self) -> Result<Conninfo, ConninfoError> {
        fill(parse(&self.url.expose())?, &self.environment)
    }
}

/// Fills what the text leaves out.
fn fill(mut parameters: Parameters, environment: &PostgresEnvironment) -> Result<Conninfo, ConninfoError> {
    let mut take = |key: &str| parameters.remove(key);
    let home = environment.home.as_deref();

    let host = take("host").or_else(|| environment.host.clone());
    let port = take("port").or_else(|| environment.port.clone());
    let servers = servers(host.as_deref(), take("hostaddr").as_deref(), port.as_deref())?;

    let root_certificates = take("sslrootcert")
        .map(PathBuf::from)
        .or_else(|| environment.sslrootcert.clone())
        .map_or_else(
            || RootCertificates::Default(home.map(|home| home.join(".postgresql/root.crt"))),
            |path| {
                if path.as_os_str() == "system" {
                    RootCertificates::System
                } else {
                    RootCertificates::Named(path)
                }
            },
        );
    let trusts_system = root_certificates == RootCertificates::System;
    let ssl_mode = match take("sslmode").or_else(|| environment.sslmode.clone()) {
        Some(mode) => parse_ssl_mode(&mode)?,
        None if trusts_system => SslMode::VerifyFull,
        None => SslMode::Prefer,
    };
    if trusts_system && ssl_mode != SslMode::VerifyFull {
        return Err(ConninfoError::WeakModeWithSystemRoots);
    }

    let user = take("user")
        .or_else(|| environment.user.clone())
        .or_else(|| environment.system_user.clone())
        .ok_or(ConninfoError::NoUser)?;
    let database = take("dbname")
        .or_else(|| environment.database.clone())
        .unwrap_or_else(|| user.clone());
    let password = take("password");
    let passfile = take("passfile")
        .map(PathBuf::from)
        .or_else(|| environment.passfile.clone())
        .or_else(|| home.map(|home| home.join(".pgpass")));

    let mut settings: tokio_postgres::Config = parameters
        .iter()
        .map(|(key, value)| {
            let escaped = value.replace('\\', r"\\").replace('\'', r"\'");
            format!("{key}='{escaped}' ")
        })
        .collect::<String>()
        .parse()
        .map_err(|source| ConninfoError::Setting { source })?;
    settings.user(&user).dbname(&database);
    if let Some(password) = password {
        settings.password(password);
    } else if let Some(password) = &environment.password {
        settings.password(password.expose().as_bytes());
    }
    Ok(Conninfo {
        servers,
        ssl_mode,
        root_certificates,
        user,
        database,
        passfile,
        settings,
    })
}

fn parse_ssl_mode(text: &str) -> Result<SslMode, ConninfoError> {
    Ok(match text {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(ConninfoError::BadValue { parameter: "sslmode" });
        }
    })
}

/// Pairs up the comma-separated lists of hosts, addresses and ports.
fn servers(
    host: Option<&str>,
    hostaddr: Option<&str>,
    port: Option<&str>,
) -> Result<Vec<ServerAddress>, ConninfoError> {
    let split = |list: Option<&str>| -> Vec<String> {
        list.map(|list| list.split(',').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let (hosts, addresses, ports) = (split(host), split(hostaddr), split(port));
    let count = hosts.len().max(addresses.len()).max(1);
    let check = |parameter, values: usize, may_be_one_for_all: bool| {
        if values == 0 || values == count || (values == 1 && may_be_one_for_all) {
            Ok(())
        } else {
            Err(ConninfoError::Count {
                parameter,
                hosts: count,
                values,
            })
        }
    };
    check("host", hosts.len(), false)?;
    check("hostaddr", addresses.len(), false)?;
    check("port", ports.len(), true)?;

    let given = |list: &[String], index: usize| list.get(index).filter(|element| !element.is_empty()).cloned();
    (0..count)
        .map(|index| {
            let address = given(&addresses, index);
            let host = given(&hosts, index)
                .or_else(|| address.clone())
                .unwrap_or_else(|| default_host(Path::new(SOCKET_FOLDER)));
            let address = address
                .map(|address| address.parse())
                .transpose()
                .map_err(|_no_address| ConninfoError::BadValue { parameter: "hostaddr" })?;
            let port_index = if ports.len() == 1 { 0 } else { index };
            let port = given(&ports, port_index)
                .map_or(Ok(DEFAULT_PORT), |port| port.parse())
                .ok()
                .filter(|port| *port > 0)
                .ok_or(ConninfoError::BadValue { parameter: "port" })?;
            Ok(ServerAddress { host, address, port })
        })
        .collect()
}

/// The server's socket if its folder is there, else this machine by name.
fn default_host(socket_folder: &Path) -> String {
    if socket_folder.is_dir() {
        socket_folder.display().to_string()
    } else {
        "localhost".to_owned()
    }
}

#[cfg(test)]
mod tests;
