//! Start, readiness, end, and the commands of the program.

use std::process::{Command, Output};
use std::time::Duration;

use flagstate_query_api::app::OLDEST_SCHEMA;
use serde_json::json;

use crate::gate::Gate;
use crate::index::Index;
use crate::service::Service;

#[tokio::test]
async fn it_is_not_ready_before_it_has_reached_the_database() {
    let index = Index::create().await;
    let (mut gate, url) = Gate::open_before(&index.database.reader_url()).await;
    gate.shut().await;
    let service = Service::start_with(&url, "2s", false);
    assert_eq!(service.readyz().await.status, 503);
    assert_eq!(service.get("/index/static").await.status, 503);
    gate.open().await;
    service.becomes_ready().await;
    assert_eq!(service.get("/index/static").await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn it_is_not_ready_on_a_schema_that_is_too_old() {
    let index = Index::create().await;
    let older = "UPDATE __diesel_schema_migrations SET version = '0' || version";
    index.client.batch_execute(older).await.expect("an older schema");
    let service = Service::start(&index);
    loop {
        let answer = service.readyz().await;
        assert_eq!(answer.status, 503);
        if String::from_utf8_lossy(&answer.body).contains("schema too old") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let migrated = "UPDATE __diesel_schema_migrations SET version = substr(version, 2)";
    index
        .client
        .batch_execute(migrated)
        .await
        .expect("a schema that is known");
    service.becomes_ready().await;
    service.stop().await;
}

#[tokio::test]
async fn the_oldest_schema_is_one_that_there_is() {
    let index = Index::create().await;
    let statement = "SELECT FROM __diesel_schema_migrations WHERE version = $1";
    let found = index
        .client
        .query(statement, &[&OLDEST_SCHEMA])
        .await
        .expect("an answer");
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn at_its_end_it_is_not_ready_first_and_still_answers() {
    let mut index = Index::create().await;
    index.push("apps/a", "v1", &[]).await;
    let service = Service::start_draining(&index, Duration::from_secs(1));
    service.becomes_ready().await;
    // Somebody waits for what never comes; the end does not wait for that.
    let body = json!({"Assertions": [{"Type": "contains", "Test": [{"Name": "never"}]}]}).to_string();
    let waiter = service.request("POST", "/assert?timeout=60", &[], &body);
    let end = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        service.shut_down();
        assert_eq!(service.readyz().await.status, 503);
        assert_eq!(service.get("/index/static").await.tags(), ["v1"]);
    };
    let (waiter, ()) = tokio::join!(waiter, end);
    assert_eq!((waiter.status, waiter.header("retry-after")), (503, Some("1")));
    let address = service.address;
    service.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

fn query_api(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flagstate-query-api"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

#[test]
fn bad_configuration_is_one_line_a_fault_and_64() {
    let environment = [
        ("FLAGSTATE_REGISTRY__URL", "no url"),
        ("FLAGSTATE_DATABASE__POSTGRES__POOL_SIZE", "many"),
    ];
    for command in [&["check-config"] as &[&str], &["run"], &[]] {
        let output = query_api(command, &environment);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let faults = String::from_utf8(output.stderr).expect("a text");
        for key in ["registry.url", "database.postgres.pool_size"] {
            assert_eq!(faults.lines().filter(|line| line.contains(key)).count(), 1, "{faults}");
        }
    }
}

#[test]
fn good_configuration_is_said_to_be_good() {
    let environment = [("FLAGSTATE_REGISTRY__URL", "https://registry.example.com")];
    let output = query_api(&["check-config"], &environment);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn defect_26_it_tells_its_version() {
    let output = query_api(&["--version"], &[]);
    let text = String::from_utf8(output.stdout).expect("a text");
    for part in [env!("CARGO_PKG_VERSION"), "commit", "built"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_healthcheck_asks_the_admin_port() {
    let index = Index::create().await;
    let service = Service::start(&index);
    let listen = service.admin_address.to_string();
    let environment = [
        ("FLAGSTATE_REGISTRY__URL", "https://registry.example.com"),
        ("FLAGSTATE_LISTEN__QUERY_API_ADMIN", listen.as_str()),
    ];
    let output = query_api(&["healthcheck"], &environment);
    assert!(output.status.success(), "{output:?}");
    service.stop().await;
    let output = query_api(&["healthcheck"], &environment);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
