//! The registry client against registries of every temper.

mod auth;
mod bodies;
mod docker;
mod lists;
mod pauses;
mod redirects;
mod tls;

use std::time::Duration;

use flagstate_common::config::{Config, Service};
use flagstate_common::digest::Digest;
use flagstate_common::media_type::OCI_MANIFEST;
use flagstate_common::metrics::LimitHits;
use flagstate_common::reference::Reference;
use flagstate_common::repository_name::RepositoryName;
use flagstate_indexer::registry::{BuildClientError, RegistryClient, RegistryMetrics};
use flagstate_test_support::fake_registry::FakeRegistry;
use prometheus::Registry;
use url::Url;

/// A client and what it counts.
struct Client {
    client: RegistryClient,
    metrics: Registry,
}

impl std::ops::Deref for Client {
    type Target = RegistryClient;

    fn deref(&self) -> &RegistryClient {
        &self.client
    }
}

impl Client {
    /// A client of the registry at `url`. `keys` go into the section `registry`, in braces or not at all.
    fn new(url: &Url, keys: &str) -> Self {
        Self::with(url, keys, "", &[]).unwrap()
    }

    fn with(url: &Url, keys: &str, limits: &str, environment: &[(&str, String)]) -> Result<Self, BuildClientError> {
        let yaml = format!(
            "registry: {{url: '{url}', {keys}}}\nlimits: {{{limits}}}\n\
             database: {{postgres: {{url: 'postgres://nobody@localhost/unused'}}}}"
        );
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let config = Config::from_sources(&yaml, environment, Service::Indexer).unwrap();
        let metrics = Registry::new();
        let limit_hits = LimitHits::register(&metrics).unwrap();
        let client_metrics = RegistryMetrics::new(&metrics, limit_hits).unwrap();
        let client = RegistryClient::new(&config.registry, &config.limits, client_metrics)?;
        Ok(Self { client, metrics })
    }

    /// The sum of a counter over its labels that hold `labels`.
    fn counted(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let families = self.metrics.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        let has = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(label, value)| {
                let mut pairs = metric.get_label().iter();
                pairs.any(|pair| pair.name() == *label && pair.value() == *value)
            })
        };
        metrics
            .filter(has)
            .map(|metric| metric.get_counter().get_value() as u64)
            .sum()
    }

    fn limit_hits(&self, limit: &str) -> u64 {
        self.counted("flagstate_limit_hits_total", &[("limit", limit)])
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Reference {
    Reference::Tag(text.parse().unwrap())
}

/// A repository `apps/a` with `tags` tags `t0000` and so on, each of a manifest of its own.
fn fill(registry: &FakeRegistry, tags: usize) -> Vec<Digest> {
    (0..tags)
        .map(|number| {
            let body = format!("{{\"schemaVersion\":2,\"number\":{number}}}");
            let digest = registry.put_manifest("apps/a", OCI_MANIFEST, body);
            registry.tag("apps/a", &format!("t{number:04}"), &digest);
            digest
        })
        .collect()
}

/// Waits until something holds that a correct client will bring about; fails after a minute.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}
