//! Tests of `conninfo`; a file of their own, for its length.

use std::fs;

use super::*;
use crate::config::Secret;

fn conninfo(url: &str, environment: PostgresEnvironment) -> Result<Conninfo, ConninfoError> {
    Postgres {
        url: Secret::from_value(url),
        environment,
        pool_size: 1,
    }
    .conninfo()
}

fn environment() -> PostgresEnvironment {
    PostgresEnvironment {
        host: Some("pghost".to_owned()),
        port: Some("6000".to_owned()),
        user: Some("pguser".to_owned()),
        password: Some(Secret::from_value("pgpassword")),
        passfile: Some("/pgpassfile".into()),
        database: Some("pgdatabase".to_owned()),
        sslmode: Some("require".to_owned()),
        sslrootcert: Some("/pg.crt".into()),
        home: Some("/home/u".into()),
        system_user: Some("system".to_owned()),
    }
}

fn only_user() -> PostgresEnvironment {
    PostgresEnvironment {
        system_user: Some("system".to_owned()),
        home: Some("/home/u".into()),
        ..PostgresEnvironment::default()
    }
}

fn server(host: &str, port: u16) -> ServerAddress {
    ServerAddress {
        host: host.to_owned(),
        address: None,
        port,
    }
}

#[test]
fn reads_urls_and_pairs_alike() {
    for text in [
        "postgres://u:p%40%2Fw@h:5433/d%20b?sslmode=verify-ca&sslrootcert=/ca.crt&passfile=/pf&application_name=a'%5C",
        "postgresql://u:p%40%2Fw@h:5433/d%20b?sslmode=verify-ca&sslrootcert=%2Fca.crt&passfile=/pf&application_name=a'%5C",
        r"user=u password = p@/w host=h port=5433 dbname='d b' sslmode=verify-ca sslrootcert=/ca.crt passfile='/pf' application_name='a\'\\'",
    ] {
        let read = conninfo(text, only_user()).unwrap();
        assert_eq!(read.servers, [server("h", 5433)], "{text}");
        assert_eq!(read.user, "u");
        assert_eq!(read.database, "d b");
        assert_eq!(read.ssl_mode, SslMode::VerifyCa);
        assert_eq!(read.root_certificates, RootCertificates::Named("/ca.crt".into()));
        assert_eq!(read.passfile, Some("/pf".into()));
        assert_eq!(read.settings.get_user(), Some("u"));
        assert_eq!(read.settings.get_dbname(), Some("d b"));
        assert_eq!(read.settings.get_password(), Some(b"p@/w".as_slice()));
        assert_eq!(read.settings.get_application_name(), Some(r"a'\"));
    }
}

#[test]
fn fills_what_the_url_leaves_out_from_the_pg_variables() {
    for url in ["", "postgres://", "postgresql:///", "postgres://?"] {
        let read = conninfo(url, environment()).unwrap();
        assert_eq!(read.servers, [server("pghost", 6000)], "{url}");
        assert_eq!(read.user, "pguser");
        assert_eq!(read.database, "pgdatabase");
        assert_eq!(read.settings.get_password(), Some(b"pgpassword".as_slice()));
        assert_eq!(read.passfile, Some("/pgpassfile".into()));
        assert_eq!(read.ssl_mode, SslMode::Require);
        assert_eq!(read.root_certificates, RootCertificates::Named("/pg.crt".into()));
    }
}

#[test]
fn prefers_the_url_over_the_pg_variables() {
    let url = "postgres://u:p@h:1/d?sslmode=disable&sslrootcert=/u.crt&passfile=/u";
    let read = conninfo(url, environment()).unwrap();
    assert_eq!(read.servers, [server("h", 1)]);
    assert_eq!((&*read.user, &*read.database), ("u", "d"));
    assert_eq!(read.settings.get_password(), Some(b"p".as_slice()));
    assert_eq!(read.passfile, Some("/u".into()));
    assert_eq!(read.ssl_mode, SslMode::Disable);
    assert_eq!(read.root_certificates, RootCertificates::Named("/u.crt".into()));
}

#[test]
fn falls_back_as_libpq_does_when_nothing_is_said() {
    let read = conninfo("host=h", only_user()).unwrap();
    assert_eq!(read.servers, [server("h", 5432)]);
    assert_eq!((&*read.user, &*read.database), ("system", "system"));
    assert_eq!(read.settings.get_password(), None);
    assert_eq!(read.passfile, Some("/home/u/.pgpass".into()));
    assert_eq!(read.ssl_mode, SslMode::Prefer);
    assert_eq!(
        read.root_certificates,
        RootCertificates::Default(Some("/home/u/.postgresql/root.crt".into()))
    );
    assert!(matches!(
        conninfo("host=h", PostgresEnvironment::default()),
        Err(ConninfoError::NoUser)
    ));
}

#[test]
fn takes_the_port_of_a_url_without_one_from_pgport() {
    let read = conninfo("postgres://h/d", environment()).unwrap();
    assert_eq!(read.servers, [server("h", 6000)]);
}

#[test]
fn reads_several_hosts() {
    for (text, servers) in [
        ("postgres://a:1,b:2/d", vec![server("a", 1), server("b", 2)]),
        ("postgres://a,b:2/d", vec![server("a", 5432), server("b", 2)]),
        (
            "postgres://[::1]:1,[fe80::1]/d",
            vec![server("::1", 1), server("fe80::1", 5432)],
        ),
        ("postgres:///d?host=a,b&port=7", vec![server("a", 7), server("b", 7)]),
        ("host=a,b port=1,2", vec![server("a", 1), server("b", 2)]),
        ("postgres://%2Frun%2Fpg:1/d", vec![server("/run/pg", 1)]),
    ] {
        assert_eq!(conninfo(text, only_user()).unwrap().servers, servers, "{text}");
    }
}

#[test]
fn keeps_the_name_beside_a_given_address() {
    let servers = |text| conninfo(text, only_user()).unwrap().servers;
    let address = "192.0.2.1".parse().ok();
    assert_eq!(
        servers("host=db.example hostaddr=192.0.2.1"),
        [ServerAddress {
            address,
            ..server("db.example", 5432)
        }]
    );
    assert_eq!(
        servers("hostaddr=192.0.2.1"),
        [ServerAddress {
            address,
            ..server("192.0.2.1", 5432)
        }]
    );
}

#[test]
fn asks_for_full_verification_with_the_systems_roots() {
    let read = conninfo("host=h sslrootcert=system", only_user()).unwrap();
    assert_eq!(read.ssl_mode, SslMode::VerifyFull);
    assert_eq!(read.root_certificates, RootCertificates::System);
    assert!(matches!(
        conninfo("host=h sslrootcert=system sslmode=require", only_user()),
        Err(ConninfoError::WeakModeWithSystemRoots)
    ));
}

#[test]
fn takes_the_socket_when_its_folder_is_there() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(default_host(folder.path()), folder.path().display().to_string());
    let missing = folder.path().join("missing");
    assert_eq!(default_host(&missing), "localhost");
    fs::write(&missing, "").unwrap();
    assert_eq!(default_host(&missing), "localhost");
}

#[test]
fn refuses_what_it_does_not_understand_without_printing_it() {
    for text in [
        "hunter2",
        "postgres://u:hunter2@h/d?hunter2",
        "postgres://u:hunter2@h/d?hunter2=1",
        "postgres://u:hunter2@h/d?sslmode=hunter2",
        "postgres://u:hunter2@h/d?connect_timeout=hunter2",
        "postgres://u:hunter2@h/d?hostaddr=hunter2",
        "postgres://u:hunter2@h:hunter2/d",
        "postgres://u:hunter2@h:0/d",
        "postgres://u:hunter2@[::1/d",
        "postgres://u:hunter2@[::1]hunter2/d",
        "postgres://u:%ffhunter2@h/d",
        "host=a,b port=1,2,3 password=hunter2",
        "host=a,b hostaddr=192.0.2.1 password=hunter2",
        "password='hunter2",
        "password=x hunter2",
        "mysql://u:hunter2@h/d",
    ] {
        let error = conninfo(text, only_user()).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
}
