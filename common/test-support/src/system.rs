//! The whole system: PostgreSQL, a registry, both services and the caching proxy.
//!
//! `cargo xtask up` shows it to people, `system-tests` test it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::docker_registry::{self, DockerRegistry, Notifications};
use crate::nginx::{self, Nginx, Upstreams};
use crate::postgres::{READER_ROLE, ServerUrl, TestDatabase};
use crate::process::{OnLine, Process};
use crate::push::Pusher;
use crate::service::{INDEXER, QUERY_API, Service};
use crate::{http, ports};

/// Gets lines of output, each with the name of the part that printed it.
pub type OnPartLine = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// How the system is put together.
#[derive(Clone, Default)]
pub struct Options {
    /// Folder of the services' binaries.
    pub binaries: PathBuf,
    /// The server for the database; the one that tests share when not told.
    pub postgres: Option<ServerUrl>,
    /// A registry that runs already; one of its own when not told.
    pub registry: Option<Url>,
    /// Where the proxy listens; a free port when not told.
    pub proxy: Option<SocketAddr>,
    /// Directives for the proxy's http context, beside those that we recommend.
    pub proxy_directives: String,
    /// Laid over the configuration of both services, key by key.
    pub configuration: Value,
    /// Gets each line that a part prints.
    pub on_line: Option<OnPartLine>,
}

impl Options {
    /// With the binaries that stand beside a test's own, where Cargo puts them.
    ///
    /// # Errors
    /// When the test does not run from a target folder.
    pub fn beside_this_test() -> Result<Self> {
        let test = std::env::current_exe()?;
        let binaries = test.ancestors().nth(2).context("not in a target folder")?.to_owned();
        Ok(Self {
            binaries,
            ..Self::default()
        })
    }

    /// Lays values over the configuration of both services.
    #[must_use]
    pub fn configure(mut self, configuration: &Value) -> Self {
        lay_over(&mut self.configuration, configuration);
        self
    }

    fn line_of(&self, part: &'static str) -> Option<OnLine> {
        let on_line = self.on_line.clone()?;
        Some(Arc::new(move |line| on_line(part, line)))
    }
}

/// The running system; all of it ends with this value, the outermost part first.
pub struct System {
    /// The caching proxy.
    pub proxy: Nginx,
    /// Answers.
    pub query_api: Service,
    /// Writes.
    pub indexer: Service,
    /// The registry, if it is ours.
    pub registry: Option<DockerRegistry>,
    /// The database of both services.
    pub database: TestDatabase,
    token: String,
    client: reqwest::Client,
    _folder: TempDir,
}

impl System {
    /// Starts everything on free loopback ports, the schema migrated by the indexer's own command, and waits until both
    /// services are ready. The registry notifies the indexer directly.
    ///
    /// # Errors
    /// When a part is not installed or does not start.
    pub async fn start(options: &Options) -> Result<Self> {
        let database = TestDatabase::create_empty(options.postgres.as_ref()).await?;
        let folder = tempfile::Builder::new().prefix("flagstate-system-").tempdir()?;
        let token = Alphanumeric.sample_string(&mut rand::rng(), 32);
        let listen = Listen::choose()?;
        let notifications = Notifications {
            url: format!("http://{}/events", listen.indexer).parse()?,
            token: Some(token.clone()),
        };
        let (registry, registry_url) = match &options.registry {
            Some(url) => (None, url.clone()),
            None => {
                let on_line = options.line_of("registry");
                let notifications = Some(notifications);
                let registry = DockerRegistry::start(docker_registry::Options { notifications, on_line }).await?;
                let url = registry.url();
                (Some(registry), url)
            }
        };
        let configuration = |database_url: String| {
            let mut configuration = listen.configuration(&registry_url, &token, &database_url);
            lay_over(&mut configuration, &options.configuration);
            configuration
        };
        let service = |name, part, configuration| {
            Service::new(
                name,
                &options.binaries,
                folder.path(),
                &configuration,
                options.line_of(part),
            )
        };
        let mut indexer = service(INDEXER, "indexer", configuration(database.url()))?;
        let mut query_api = service(QUERY_API, "query-api", configuration(database.reader_url()))?;
        indexer.command(&["migrate", "--grant-read-to", READER_ROLE]).await?;
        indexer.start().await?;
        query_api.start().await?;
        let upstreams = Upstreams {
            registry_is_elsewhere: registry.is_none(),
            registry: registry_url,
            indexer: listen.indexer,
            query_api: listen.query_api,
        };
        let proxy = Nginx::start(nginx::Options {
            address: options.proxy.map_or_else(ports::free, Ok)?,
            upstreams,
            directives: options.proxy_directives.clone(),
            on_line: options.line_of("proxy"),
        })
        .await?;
        indexer.becomes_ready().await?;
        query_api.becomes_ready().await?;
        let client = http::client()?;
        Ok(Self {
            proxy,
            query_api,
            indexer,
            registry,
            database,
            token,
            client,
            _folder: folder,
        })
    }

    /// Pushes to the registry directly.
    ///
    /// # Errors
    /// When the registry is not ours.
    pub fn pusher(&self) -> Result<Pusher> {
        self.registry.as_ref().context("the registry is not ours")?.pusher()
    }

    /// GET through the proxy; `path` may have a query.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn get(&self, path: &str) -> Result<reqwest::Response> {
        Ok(self.client.get(self.proxy.url().join(path)?).send().await?)
    }

    /// A query of the index through the proxy, uncached; `query` is what follows the `?`.
    ///
    /// # Errors
    /// When it is not answered with 200 and JSON.
    pub async fn index(&self, query: &str) -> Result<Value> {
        let answer = self.get(&format!("/index/dynamic?{query}")).await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    /// The bearer token of `/events`.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The parts that run as processes of ours, each with its name.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let registry = self.registry.as_mut().map(DockerRegistry::process);
        [
            Some(self.proxy.process()),
            self.query_api.process(),
            self.indexer.process(),
            registry,
        ]
        .into_iter()
        .flatten()
    }
}

/// Repository and digest of each image and image index in an answer of `/index`, by repository.
#[must_use]
pub fn found_in(answer: &Value) -> Vec<(String, String)> {
    let results = answer["Results"].as_array().into_iter().flatten();
    let mut found: Vec<_> = results
        .flat_map(|result| {
            let name = result["Name"].as_str().unwrap_or_default();
            let entries = ["Images", "Lists"]
                .into_iter()
                .filter_map(|kind| result[kind].as_array())
                .flatten();
            entries.map(move |entry| (name.to_owned(), entry["Digest"].as_str().unwrap_or_default().to_owned()))
        })
        .collect();
    found.sort();
    found
}

/// Where the services listen.
struct Listen {
    indexer: SocketAddr,
    indexer_admin: SocketAddr,
    query_api: SocketAddr,
    query_api_admin: SocketAddr,
}

impl Listen {
    fn choose() -> Result<Self> {
        Ok(Self {
            indexer: ports::free()?,
            indexer_admin: ports::free()?,
            query_api: ports::free()?,
            query_api_admin: ports::free()?,
        })
    }

    fn configuration(&self, registry: &Url, token: &str, database: &str) -> Value {
        json!({
            "registry": {"url": registry, "public_url": "/"},
            "events": {"token": token},
            "database": {"postgres": {"url": database}, "migrate_on_start": false},
            "listen": {
                "indexer": self.indexer.to_string(),
                "indexer_admin": self.indexer_admin.to_string(),
                "query_api": self.query_api.to_string(),
                "query_api_admin": self.query_api_admin.to_string(),
            },
            "log": {"format": "text"},
        })
    }
}

/// Objects are merged key by key; everything else replaces what was there.
fn lay_over(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(base.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_over_replaces_values_and_leaves_the_other_keys() {
        let mut base = json!({"a": {"b": 1, "c": 2}});
        lay_over(&mut base, &json!({"a": {"b": 3}, "d": [4]}));
        assert_eq!(base, json!({"a": {"b": 3, "c": 2}, "d": [4]}));
    }

    #[test]
    fn images_and_lists_of_an_answer_are_found() {
        let answer = json!({"Registry": "/", "Results": [
            {"Name": "b", "Images": [{"Digest": "1"}], "Lists": [{"Digest": "2"}]},
            {"Name": "a", "Images": [], "Lists": []},
        ]});
        let found = [("b".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
        assert_eq!(found_in(&answer), found);
    }
}
