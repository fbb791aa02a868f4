//! The pool of connections: what it tells each one, how it fails, and how it comes back.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use flagstate_common::config::{Postgres, PostgresEnvironment, Secret};
use flagstate_common::store::{Pool, PoolOptions, PoolStatus, StoreError};
use flagstate_test_support::postgres::{Server, TestDatabase};

use crate::pools::{postgres, writer};

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Text)]
    value: String,
}

/// The one text that a query answers.
pub(crate) async fn text(connection: &mut AsyncPgConnection, query: &str) -> Result<String, StoreError> {
    let answer: Answer = sql_query(format!("SELECT ({query})::text AS value"))
        .get_result(connection)
        .await?;
    Ok(answer.value)
}

async fn run(connection: &mut AsyncPgConnection, statement: &str) -> Result<usize, StoreError> {
    Ok(sql_query(statement).execute(connection).await?)
}

#[tokio::test]
async fn tells_every_connection_what_it_is_for() {
    let database = TestDatabase::create().await.unwrap();
    let setting = "SELECT current_setting('{}')";
    for (options, expected) in [
        (
            PoolOptions::reader("flagstate-query-api", Duration::from_secs(2)),
            [
                ("application_name", "flagstate-query-api"),
                ("statement_timeout", "2s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "5s"),
                ("default_transaction_read_only", "on"),
                ("plan_cache_mode", "force_custom_plan"),
            ],
        ),
        (
            PoolOptions::writer("flagstate-indexer"),
            [
                ("application_name", "flagstate-indexer"),
                ("statement_timeout", "0"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "5s"),
                ("default_transaction_read_only", "off"),
                ("plan_cache_mode", "auto"),
            ],
        ),
    ] {
        let pool = Pool::open(&postgres(&database.url()), &options).unwrap();
        let (mut one, mut other) = (pool.connection().await.unwrap(), pool.connection().await.unwrap());
        for (name, value) in expected {
            let query = setting.replace("{}", name);
            assert_eq!(text(&mut one, &query).await.unwrap(), value, "{name}");
            assert_eq!(text(&mut other, &query).await.unwrap(), value, "{name}");
        }
    }
}

#[tokio::test]
async fn refuses_to_write_through_a_reader() {
    let database = TestDatabase::create().await.unwrap();
    // As the owner, so that it is the session that refuses and not a privilege.
    let options = PoolOptions::reader("test", Duration::from_secs(2));
    let pool = Pool::open(&postgres(&database.url()), &options).unwrap();
    let mut connection = pool.connection().await.unwrap();
    let error = run(&mut connection, "INSERT INTO repository (name) VALUES ('a')")
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn waits_for_a_free_connection_no_longer_than_told() {
    let database = TestDatabase::create().await.unwrap();
    let options = PoolOptions {
        acquire_timeout: Duration::from_millis(50),
        ..PoolOptions::writer("test")
    };
    let postgres = Postgres {
        pool_size: 2,
        ..postgres(&database.url())
    };
    let pool = Pool::open(&postgres, &options).unwrap();
    let (one, other) = (pool.connection().await.unwrap(), pool.connection().await.unwrap());
    let error = pool.connection().await.err().unwrap();
    assert!(
        matches!(error, StoreError::Busy { .. }) && error.is_retryable(),
        "{error}"
    );
    drop(one);
    let status = pool.status();
    let expected = PoolStatus {
        maximum: 2,
        size: 2,
        available: 1,
        waiting: 0,
    };
    assert_eq!(status, expected);
    pool.connection().await.unwrap();
    drop(other);
    pool.close();
    let error = pool.connection().await.err().unwrap();
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
async fn tells_timeouts_from_refusals() {
    let database = TestDatabase::create().await.unwrap();
    let options = PoolOptions::reader("test", Duration::from_millis(50));
    let pool = Pool::open(&postgres(&database.url()), &options).unwrap();
    let mut connection = pool.connection().await.unwrap();
    let error = text(&mut connection, "SELECT pg_sleep(60)").await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout { .. }), "{error}");

    let mut blocker = writer(&database.url()).connection().await.unwrap();
    run(&mut blocker, "BEGIN").await.unwrap();
    run(&mut blocker, "LOCK TABLE repository").await.unwrap();
    let mut blocked = writer(&database.url()).connection().await.unwrap();
    run(&mut blocked, "SET lock_timeout = 50").await.unwrap();
    let error = run(&mut blocked, "LOCK TABLE repository IN ACCESS SHARE MODE").await;
    // Outside a transaction LOCK is refused, which is another error.
    assert!(matches!(error, Err(StoreError::Refused { .. })), "{error:?}");
    let error = text(&mut blocked, "SELECT count(*) FROM repository").await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout { .. }), "{error}");

    let error = text(&mut connection, "SELECT nothing FROM nowhere").await.unwrap_err();
    assert!(
        matches!(error, StoreError::Refused { .. }) && !error.is_retryable(),
        "{error}"
    );
}

#[tokio::test]
async fn tells_a_deadlock_as_a_lost_race() {
    let database = TestDatabase::create().await.unwrap();
    let pool = writer(&database.url());
    let (mut one, mut other) = (pool.connection().await.unwrap(), pool.connection().await.unwrap());
    run(&mut one, "INSERT INTO repository (name) VALUES ('a'), ('b')")
        .await
        .unwrap();
    for (connection, name) in [(&mut one, "a"), (&mut other, "b")] {
        run(connection, "SET deadlock_timeout = '50ms'").await.unwrap();
        run(connection, "BEGIN").await.unwrap();
        run(
            connection,
            &format!("UPDATE repository SET hidden = true WHERE name = '{name}'"),
        )
        .await
        .unwrap();
    }
    let (first, second) = tokio::join!(
        run(&mut one, "UPDATE repository SET hidden = true WHERE name = 'b'"),
        run(&mut other, "UPDATE repository SET hidden = true WHERE name = 'a'"),
    );
    let lost: Vec<_> = [first, second].into_iter().filter_map(Result::err).collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].is_lost_race(), "{lost:?}");
}

#[tokio::test]
async fn replaces_a_connection_that_the_server_ended() {
    let database = TestDatabase::create().await.unwrap();
    let pool = writer(&database.url());
    let mut connection = pool.connection().await.unwrap();
    let pid = text(&mut connection, "SELECT pg_backend_pid()").await.unwrap();
    let admin = database.client().await.unwrap();
    admin
        .batch_execute(&format!("SELECT pg_terminate_backend({pid})"))
        .await
        .unwrap();
    let error = loop {
        match text(&mut connection, "SELECT 1").await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Disconnected { .. }), "{error}");
    drop(connection);
    // The pool may learn of the end a moment later than the statement; what fails until then says that it may pass.
    let next = loop {
        let mut connection = pool.connection().await.unwrap();
        match text(&mut connection, "SELECT pg_backend_pid()").await {
            Ok(next) => break next,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    assert_ne!(next, pid);
}

#[tokio::test]
async fn closes_a_connection_that_was_left_in_a_transaction() {
    use diesel_async::AsyncConnection as _;
    let database = TestDatabase::create().await.unwrap();
    let pool = writer(&database.url());
    let mut connection = pool.connection().await.unwrap();
    let pid = text(&mut connection, "SELECT pg_backend_pid()").await.unwrap();
    let sleeping = connection.transaction(async |connection| text(connection, "SELECT pg_sleep(60)").await);
    let cut_off = tokio::time::timeout(Duration::from_millis(100), sleeping).await;
    assert!(cut_off.is_err());
    drop(connection);
    let mut connection = pool.connection().await.unwrap();
    assert_ne!(text(&mut connection, "SELECT pg_backend_pid()").await.unwrap(), pid);
}

#[tokio::test]
async fn asks_the_next_server_when_one_is_not_there() {
    let database = TestDatabase::create().await.unwrap();
    let url = database.url();
    let (credentials, rest) = url.split_once('@').unwrap();
    let nobody = flagstate_test_support::ports::free().unwrap();
    let both = format!("{credentials}@{nobody},{rest}");
    let mut connection = writer(&both).connection().await.unwrap();
    assert_eq!(text(&mut connection, "SELECT 1").await.unwrap(), "1");

    let standby_only = format!("{both}?target_session_attrs=read-only");
    let error = writer(&standby_only).connection().await.err().unwrap();
    assert!(error.to_string().contains("not read only"), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn tells_what_waiting_will_not_mend() {
    let database = TestDatabase::create().await.unwrap();
    let url = database.url();
    let (_, address) = url.split_once('@').unwrap();
    let (host, _) = address.split_once('/').unwrap();
    let nobody = flagstate_test_support::ports::free().unwrap();
    for (url, retryable, part) in [
        (
            format!("postgres://postgres:wrong-one@{address}"),
            false,
            "password authentication failed",
        ),
        (format!("{}_missing", database.url()), false, "does not exist"),
        (
            format!("postgres://postgres:wrong-one@{host},{nobody}/x"),
            false,
            "password authentication failed",
        ),
        (format!("postgres://u@{nobody}/d"), true, "Connection refused"),
    ] {
        let error = writer(&url).connection().await.err().unwrap();
        assert_eq!(error.is_retryable(), retryable, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.to_string().contains("wrong-one"), "{error}");
    }
    let error = Pool::open(&postgres("postgres://u@h:none/d"), &PoolOptions::writer("test"))
        .err()
        .unwrap();
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
async fn fills_the_connection_from_the_environment_and_the_password_file() {
    let database = TestDatabase::create().await.unwrap();
    let url = database.url();
    let (credentials, address) = url.split_once('@').unwrap();
    let (_, password) = credentials.rsplit_once(':').unwrap();
    let (host_and_port, name) = address.split_once('/').unwrap();
    let (host, port) = host_and_port.split_once(':').unwrap();
    let some = |text: &str| Some(text.to_owned());
    let filled = PostgresEnvironment {
        host: some(host),
        port: some(port),
        user: some("postgres"),
        password: Some(Secret::from_value(password)),
        database: some(name),
        ..PostgresEnvironment::default()
    };
    let connect = async |url: &str, environment: &PostgresEnvironment| {
        let postgres = Postgres {
            environment: environment.clone(),
            ..postgres(url)
        };
        let pool = Pool::open(&postgres, &PoolOptions::writer("test"))?;
        let mut connection = pool.connection().await?;
        text(&mut connection, "SELECT current_database()").await
    };
    assert_eq!(connect("", &filled).await.unwrap(), name);

    let home = tempfile::tempdir().unwrap();
    let passfile = home.path().join(".pgpass");
    std::fs::write(&passfile, format!("{host}:{port}:{name}:postgres:{password}\n")).unwrap();
    let by_file = PostgresEnvironment {
        password: None,
        home: Some(home.path().to_owned()),
        ..filled.clone()
    };
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = connect("", &by_file).await.unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(connect("", &by_file).await.unwrap(), name);
    assert_eq!(connect(&format!("postgres:///{name}"), &by_file).await.unwrap(), name);
    // The database is another one, for which the file has no line.
    assert!(connect("postgres:///postgres", &by_file).await.is_err());
}

#[tokio::test]
async fn takes_a_password_that_changed_for_its_next_connection() {
    let server = Server::start(None).await.unwrap();
    let url = server.url().owner("postgres");
    let (credentials, address) = url.split_once('@').unwrap();
    let (_, password) = credentials.rsplit_once(':').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, format!("postgres://postgres:{password}@{address}\n")).unwrap();
    let postgres = Postgres {
        url: Secret::from_file(&file).unwrap(),
        environment: PostgresEnvironment::default(),
        pool_size: 2,
    };
    let pool = Pool::open(&postgres, &PoolOptions::writer("test")).unwrap();
    let mut connection = pool.connection().await.unwrap();
    run(&mut connection, "ALTER ROLE postgres PASSWORD 'another'")
        .await
        .unwrap();
    assert!(pool.connection().await.is_err());
    std::fs::write(&file, format!("postgres://postgres:another@{address}\n")).unwrap();
    pool.connection().await.unwrap();
}

#[tokio::test]
async fn connects_through_a_socket_whatever_sslmode_says() {
    let server = Server::start(None).await.unwrap();
    let url = server.url().owner("postgres");
    let (credentials, address) = url.split_once('@').unwrap();
    let (_, password) = credentials.rsplit_once(':').unwrap();
    let (_, port) = address.split_once('/').unwrap().0.split_once(':').unwrap();
    let folder = server.socket_folder().display();
    let url = format!("host={folder} port={port} user=postgres password={password} sslmode=verify-full");
    let mut connection = writer(&url).connection().await.unwrap();
    assert_eq!(
        text(&mut connection, "SELECT inet_client_addr() IS NULL")
            .await
            .unwrap(),
        "true"
    );
}
