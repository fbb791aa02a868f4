//! A PostgreSQL server in a folder of its own, on loopback, gone when we are gone.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::unistd::User;
use rand::distr::{Alphanumeric, SampleString as _};
use tokio_postgres::NoTls;

use crate::process::{OnLine, Process, Program, describe};
use crate::{environment, ports};

/// The role that query-api logs in with: it may select, nothing else.
pub const READER_ROLE: &str = "flagstate_reader";

const ATTEMPTS: usize = 5;

/// Of the lock that one of many test processes takes while it makes the role, which all databases share.
const ROLE_LOCK: i64 = 0x726f_6c65;

/// How to reach a server as its superuser: `postgres://user:password@host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    address: String,
    password: String,
}

impl ServerUrl {
    /// Reads the text form.
    ///
    /// # Errors
    /// When the text is not `postgres://postgres:<password>@<host>:<port>`.
    pub fn parse(text: &str) -> Result<Self> {
        let (password, address) = text
            .strip_prefix("postgres://postgres:")
            .and_then(|rest| rest.split_once('@'))
            .context("expected postgres://postgres:<password>@<host>:<port>")?;
        Ok(Self {
            address: address.trim_end_matches('/').to_owned(),
            password: password.to_owned(),
        })
    }

    /// URL of a database as the superuser, who owns everything.
    #[must_use]
    pub fn owner(&self, database: &str) -> String {
        format!("{self}/{database}")
    }

    /// URL of a database as the role that may only read. The role has the superuser's password.
    #[must_use]
    pub fn reader(&self, database: &str) -> String {
        format!("postgres://{READER_ROLE}:{}@{}/{database}", self.password, self.address)
    }

    /// Makes the role that may only read, unless it is there. What it may read is granted in each database.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_reader_role(&self) -> Result<()> {
        let client = connect(&self.owner("postgres")).await?;
        let password = &self.password;
        client
            .batch_execute(&format!(
                "BEGIN;
                 SELECT pg_advisory_xact_lock({ROLE_LOCK});
                 DO $$ BEGIN
                     IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER_ROLE}') THEN
                         CREATE ROLE {READER_ROLE} LOGIN PASSWORD '{password}';
                         ALTER ROLE {READER_ROLE} SET default_transaction_read_only = on;
                     END IF;
                 END $$;
                 COMMIT"
            ))
            .await?;
        Ok(())
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "postgres://postgres:{}@{}", self.password, self.address)
    }
}

/// Connects without TLS, and drives the connection until the client is dropped.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub(super) async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A running server; dropping it, or the end of this process, stops it and removes its folder.
///
/// As root it runs as the user `postgres`, or `nobody` where there is none: PostgreSQL refuses root.
#[derive(Debug)]
pub struct Server {
    process: Process,
    url: ServerUrl,
    folder: PathBuf,
    binaries: PathBuf,
}

impl Server {
    /// Makes a cluster in a temporary folder and starts it: nothing is synced to disk, for it does not outlive us.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn start(on_line: Option<OnLine>) -> Result<Self> {
        let binaries = find_binaries().context("PostgreSQL is not installed: no initdb found")?;
        let user = environment::unprivileged_user(&["postgres", "nobody"]);
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let mut server = Self::start_once(&binaries, user.clone(), on_line.clone())?;
            if server.becomes_ready().await? {
                return Ok(server);
            }
            last = server.process.log();
        }
        bail!("PostgreSQL did not start:\n{last}")
    }

    fn start_once(binaries: &Path, user: Option<User>, on_line: Option<OnLine>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("flagstate-postgres-").tempdir()?;
        let password = Alphanumeric.sample_string(&mut rand::rng(), 24);
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, &password)?;
        if let Some(user) = &user {
            for path in [folder.path(), &password_file] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
            }
        }
        let data = folder.path().join("data");
        initialise(binaries, &data, &password_file, user.as_ref())?;
        let address = ports::free()?;
        let folder = folder.keep();
        let process = Program::new("postgres", binaries.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(settings(address, &folder).iter().flat_map(|setting| ["-c", setting]))
            .run_as(user)
            .stop_with("INT")
            .remove_at_end(&folder)
            .on_line(on_line)
            .start()?;
        let url = ServerUrl {
            address: address.to_string(),
            password,
        };
        Ok(Self {
            process,
            url,
            folder,
            binaries: binaries.to_owned(),
        })
    }

    /// `false` when the server ended by itself, as it does when another program took the port meanwhile.
    async fn becomes_ready(&mut self) -> Result<bool> {
        for _ in 0..600 {
            if self.process.ended().is_some() {
                return Ok(false);
            }
            if connect(&self.url.owner("postgres")).await.is_ok() {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("PostgreSQL does not answer:\n{}", self.process.log())
    }

    /// How to reach it.
    #[must_use]
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// The folder that also holds its Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// Where `pg_dump` and the others of the same version are.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// The server's process, to pause, watch or stop it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The folder of the newest installed binaries.
#[must_use]
pub fn find_binaries() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, folder)| folder.join("initdb").is_file())
        .max_by_key(|(version, _)| *version);
    match newest {
        Some((_, folder)) => Some(folder),
        None => environment::find_program("initdb").and_then(|initdb| Some(initdb.parent()?.to_owned())),
    }
}

fn initialise(binaries: &Path, data: &Path, password_file: &Path, user: Option<&User>) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(binaries.join("initdb"));
    command
        .args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ])
        .arg("--pgdata")
        .arg(data)
        .arg("--pwfile")
        .arg(password_file)
        .current_dir("/");
    if let Some(user) = user {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let output = command.output().context("cannot run initdb")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("initdb failed, {}:\n{text}", describe(output.status));
    }
    Ok(())
}

fn settings(address: SocketAddr, folder: &Path) -> Vec<String> {
    vec![
        format!("listen_addresses={}", address.ip()),
        format!("port={}", address.port()),
        format!("unix_socket_directories={}", folder.display()),
        "max_connections=400".to_owned(),
        "fsync=off".to_owned(),
        "synchronous_commit=off".to_owned(),
        "full_page_writes=off".to_owned(),
        "timezone=UTC".to_owned(),
        "log_min_messages=warning".to_owned(),
        "log_checkpoints=off".to_owned(),
        "log_line_prefix=%m [%p] %d ".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_urls_read_back_what_they_print() {
        let url = ServerUrl::parse("postgres://postgres:pw@127.0.0.1:5432/").unwrap();
        assert_eq!(ServerUrl::parse(&url.to_string()).unwrap(), url);
        assert_eq!(url.owner("a"), "postgres://postgres:pw@127.0.0.1:5432/a");
        assert_eq!(url.reader("a"), "postgres://flagstate_reader:pw@127.0.0.1:5432/a");
        assert!(ServerUrl::parse("postgres://127.0.0.1").is_err());
    }
}
