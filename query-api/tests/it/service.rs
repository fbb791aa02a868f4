//! A query-api in this process, on ports of its own.

use std::net::SocketAddr;
use std::time::Duration;

use flagstate_common::config::{Config, Service as Whose};
use flagstate_common::revision::Revision;
use flagstate_query_api::app::{App, AppError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::{self, Answer};
use crate::index::Index;

pub(crate) const REGISTRY: &str = "https://registry.example.com/here";
pub(crate) const POOL_SIZE: usize = 2;

/// A running query-api.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), AppError>>,
}

impl Service {
    /// Starts one over the index, with `/assert`.
    pub(crate) fn start(index: &Index) -> Self {
        Self::start_with(&index.database.reader_url(), "2s", true)
    }

    /// Starts one that says for that long that it is not ready before it stops.
    pub(crate) fn start_draining(index: &Index, drain_pause: Duration) -> Self {
        Self::launch(&index.database.reader_url(), "2s", true, drain_pause)
    }

    /// Starts one over a database, with this `database.statement_timeout`.
    pub(crate) fn start_with(url: &str, statement_timeout: &str, assert_endpoint: bool) -> Self {
        Self::launch(url, statement_timeout, assert_endpoint, Duration::ZERO)
    }

    /// Starts one over a database, with these members of the sections `database` and `cache`.
    pub(crate) fn start_configured(url: &str, database: &str, cache: &str) -> Self {
        Self::run(&config(url, database, cache, true), Duration::ZERO)
    }

    fn launch(url: &str, statement_timeout: &str, assert_endpoint: bool, drain_pause: Duration) -> Self {
        let database = format!("statement_timeout: {statement_timeout}");
        Self::run(&config(url, &database, "", assert_endpoint), drain_pause)
    }

    fn run(config: &Config, drain_pause: Duration) -> Self {
        let shutdown = CancellationToken::new();
        let app = App::bind(config, shutdown.clone()).expect("free ports");
        Self {
            address: app.address(),
            admin_address: app.admin_address(),
            shutdown,
            running: tokio::spawn(app.run(drain_pause)),
        }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.get_with(target, &[]).await
    }

    pub(crate) async fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", target, headers, "").await
    }

    /// Asks for a state that is at least that new.
    pub(crate) async fn get_since(&self, target: &str, revision: Revision, headers: &[(&str, &str)]) -> Answer {
        let revision = revision.to_string();
        let headers = [headers, &[("Flagstate-Min-Revision", &revision)]].concat();
        self.get_with(target, &headers).await
    }

    pub(crate) async fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        http::request(self.address, method, target, headers, body).await
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = http::request(self.admin_address, "GET", "/metrics", &[], "").await;
        String::from_utf8(answer.body).expect("a text")
    }

    /// The value of one series, written as it stands in the text: `name{label="value"}`.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let metrics = self.metrics().await;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("{series} in {metrics}"));
        value.parse().expect("a whole number")
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn becomes_ready(&self) {
        while self.readyz().await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn readyz(&self) -> Answer {
        http::request(self.admin_address, "GET", "/readyz", &[], "").await
    }

    /// Asks it to end.
    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Ends it as SIGTERM would, and waits for that.
    pub(crate) async fn stop(self) {
        self.shut_down();
        self.running.await.expect("no panic").expect("an orderly end");
    }
}

/// `database` and `cache` are members of these sections of the configuration.
fn config(url: &str, database: &str, cache: &str, assert_endpoint: bool) -> Config {
    let yaml = format!(
        "
        registry: {{url: 'https://registry.internal', public_url: '{REGISTRY}'}}
        components: {{assert_endpoint: {assert_endpoint}}}
        database: {{postgres: {{url: '{url}', pool_size: {POOL_SIZE}}}, {database}}}
        cache: {{{cache}}}
        listen: {{query_api: '127.0.0.1:0', query_api_admin: '127.0.0.1:0'}}
        "
    );
    Config::from_sources(&yaml, [], Whose::QueryApi).expect("a configuration")
}
