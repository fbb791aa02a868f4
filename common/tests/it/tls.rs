//! Every `sslmode`, against a PostgreSQL that speaks TLS with a certificate of a private authority.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use flagstate_common::config::{Postgres, PostgresEnvironment, Secret};
use flagstate_common::store::{Pool, PoolOptions, StoreError};
use flagstate_test_support::environment::unprivileged_user;
use flagstate_test_support::postgres::Server;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::pool::text;
use crate::pools::postgres;

/// The name that the server's certificate is for.
const HOST: &str = "database.example";
const PASSWORD: &str = "open-sesame";

/// `either` may come either way, the others only one.
const HBA: &str = "
hostssl   all tls_only   all scram-sha-256
hostnossl all plain_only all scram-sha-256
host      all either     all scram-sha-256
host      all postgres   all scram-sha-256
";

struct TlsServer {
    _server: Server,
    port: u16,
    /// Holds `.postgresql/root.crt` in its home below, and other certificates.
    files: TempDir,
}

impl TlsServer {
    async fn start() -> Self {
        let server = Server::start(None).await.unwrap();
        let files = tempfile::tempdir().unwrap();
        let (right, wrong) = (authority("Right"), authority("Wrong"));
        std::fs::write(files.path().join("right.crt"), &right.0).unwrap();
        std::fs::write(files.path().join("wrong.crt"), &wrong.0).unwrap();
        let home = files.path().join("home/.postgresql");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("root.crt"), &right.0).unwrap();

        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([HOST.to_owned()])
            .unwrap()
            .signed_by(&key, &right.1)
            .unwrap();
        let certificate_file = place(&server, "server.crt", &certificate.pem());
        let key_file = place(&server, "server.key", &key.serialize_pem());
        std::fs::write(server.socket_folder().join("data/pg_hba.conf"), HBA).unwrap();

        let url = server.url().owner("postgres");
        let port = url
            .rsplit_once('/')
            .unwrap()
            .0
            .rsplit_once(':')
            .unwrap()
            .1
            .parse()
            .unwrap();
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        for statement in [
            &format!("CREATE ROLE tls_only LOGIN PASSWORD '{PASSWORD}'"),
            &format!("CREATE ROLE plain_only LOGIN PASSWORD '{PASSWORD}'"),
            &format!("CREATE ROLE either LOGIN PASSWORD '{PASSWORD}'"),
            &format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificate_file.display()),
            &format!("ALTER SYSTEM SET ssl_key_file = '{}'", key_file.display()),
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        // Reloading is asynchronous.
        while client.query_one("SHOW ssl", &[]).await.unwrap().get::<_, String>(0) != "on" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Self {
            _server: server,
            port,
            files,
        }
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// Whether the session has TLS.
    async fn connect(&self, role: &str, more: &str, home: Option<&str>) -> Result<bool, StoreError> {
        let more = more
            .replace("RIGHT", &self.file("right.crt"))
            .replace("WRONG", &self.file("wrong.crt"))
            .replace("MISSING", &self.file("missing.crt"));
        let host = if more.contains("host=") {
            ""
        } else {
            "host=database.example"
        };
        let port = self.port;
        let url =
            format!("{host} hostaddr=127.0.0.1 port={port} dbname=postgres user={role} password={PASSWORD} {more}");
        let postgres = Postgres {
            environment: PostgresEnvironment {
                home: home.map(|home| self.files.path().join(home)),
                ..PostgresEnvironment::default()
            },
            ..postgres(&url)
        };
        let pool = Pool::open(&postgres, &PoolOptions::writer("test"))?;
        let mut connection = pool.connection().await?;
        let ssl = text(
            &mut connection,
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        )
        .await?;
        Ok(ssl == "true")
    }
}

/// A certificate authority's PEM, and what signs with it.
fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

/// A file that the server's user alone may read, as PostgreSQL demands of keys.
fn place(server: &Server, name: &str, content: &str) -> PathBuf {
    let path: &Path = &server.socket_folder().join(name);
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if let Some(user) = unprivileged_user(&["postgres", "nobody"]) {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    path.to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Tls,
    Plain,
    Refused,
}
use Outcome::{Plain, Refused, Tls};

#[tokio::test]
async fn obeys_every_sslmode_as_libpq_does() {
    let server = TlsServer::start().await;
    for (role, more, expected) in [
        // Which way is tried, and which first.
        ("either", "sslmode=disable", Plain),
        ("either", "sslmode=allow", Plain),
        ("either", "sslmode=prefer", Tls),
        ("either", "", Tls),
        ("either", "sslmode=require", Tls),
        ("plain_only", "sslmode=disable", Plain),
        ("plain_only", "sslmode=allow", Plain),
        ("plain_only", "sslmode=prefer", Plain),
        ("plain_only", "sslmode=require", Refused),
        ("tls_only", "sslmode=disable", Refused),
        ("tls_only", "sslmode=allow", Tls),
        ("tls_only", "sslmode=prefer", Tls),
        ("tls_only", "sslmode=require", Tls),
        // The right authority.
        ("either", "sslmode=require sslrootcert=RIGHT", Tls),
        ("either", "sslmode=verify-ca sslrootcert=RIGHT", Tls),
        ("either", "sslmode=verify-full sslrootcert=RIGHT", Tls),
        // The wrong one, which a root certificate file reveals in every mode.
        ("either", "sslmode=require sslrootcert=WRONG", Refused),
        ("either", "sslmode=verify-ca sslrootcert=WRONG", Refused),
        ("either", "sslmode=verify-full sslrootcert=WRONG", Refused),
        ("either", "sslmode=prefer sslrootcert=WRONG", Plain),
        ("tls_only", "sslmode=prefer sslrootcert=WRONG", Refused),
        ("tls_only", "sslmode=allow sslrootcert=WRONG", Refused),
        // The right authority, but another host's certificate.
        ("either", "sslmode=require sslrootcert=RIGHT host=other.example", Tls),
        ("either", "sslmode=verify-ca sslrootcert=RIGHT host=other.example", Tls),
        (
            "either",
            "sslmode=verify-full sslrootcert=RIGHT host=other.example",
            Refused,
        ),
        (
            "either",
            "sslmode=verify-full sslrootcert=RIGHT host=127.0.0.1",
            Refused,
        ),
        // Without a file, the system's authorities, which do not know ours.
        ("either", "sslmode=verify-ca", Refused),
        ("either", "sslmode=verify-full", Refused),
        ("either", "sslrootcert=system", Refused),
        // A file that was named must be there.
        ("either", "sslmode=require sslrootcert=MISSING", Refused),
        ("either", "sslmode=disable sslrootcert=MISSING", Plain),
    ] {
        let outcome = server.connect(role, more, None).await;
        let actual = match &outcome {
            Ok(true) => Tls,
            Ok(false) => Plain,
            Err(_) => Refused,
        };
        assert_eq!(actual, expected, "{role} {more}: {outcome:?}");
    }
}

#[tokio::test]
async fn verifies_by_the_root_certificate_file_in_the_home_folder() {
    let server = TlsServer::start().await;
    assert!(
        server
            .connect("either", "sslmode=verify-full", Some("home"))
            .await
            .unwrap()
    );
    let other_host = "sslmode=verify-full host=other.example";
    assert!(server.connect("either", other_host, Some("home")).await.is_err());
    std::fs::copy(server.file("wrong.crt"), server.file("home/.postgresql/root.crt")).unwrap();
    assert!(server.connect("either", "sslmode=require", Some("home")).await.is_err());
    assert!(
        server
            .connect("either", "sslmode=require", Some("elsewhere"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn tells_why_a_certificate_is_not_trusted_and_that_waiting_will_not_help() {
    let server = TlsServer::start().await;
    for (more, reason) in [
        ("sslmode=verify-full sslrootcert=WRONG", "UnknownIssuer"),
        (
            "sslmode=verify-full sslrootcert=RIGHT host=other.example",
            "not valid for name",
        ),
        ("sslmode=require sslrootcert=MISSING", "cannot be read"),
    ] {
        let error = server.connect("either", more, None).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!error.is_retryable(), "{error}");
        assert!(!error.to_string().contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn reads_certificate_files_anew_for_each_connection() {
    let server = TlsServer::start().await;
    let file = server.file("changing.crt");
    std::fs::copy(server.file("right.crt"), &file).unwrap();
    let url = format!(
        "host={HOST} hostaddr=127.0.0.1 port={} dbname=postgres user=either password={PASSWORD} \
         sslmode=verify-full sslrootcert={file}",
        server.port
    );
    let postgres = Postgres {
        url: Secret::from_value(&url),
        ..postgres("")
    };
    let pool = Pool::open(&postgres, &PoolOptions::writer("test")).unwrap();
    let kept = pool.connection().await.unwrap();
    std::fs::copy(server.file("wrong.crt"), &file).unwrap();
    assert!(pool.connection().await.is_err());
    std::fs::copy(server.file("right.crt"), &file).unwrap();
    pool.connection().await.unwrap();
    drop(kept);
}
