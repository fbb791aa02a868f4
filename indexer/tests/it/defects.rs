//! Regression tests of the indexer for the defects that docs/DEFECTS.md lists.

mod catalog;
mod events;
mod images;
mod isolation;
mod operation;
mod scans;
mod schema;
mod transactions;
mod writers;

use std::time::Duration;

use flagstate_common::config::{Config, Limits, RepositoryFilter, Service};
use flagstate_common::image::RepositoryImages;
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::read::ReadStore;
use flagstate_common::store::{Pool, PoolOptions};
use flagstate_test_support::fake_registry::{self, FakeRegistry, Fault};
use flagstate_test_support::http;
use flagstate_test_support::images::{ImageBuilder, Manifest};
use flagstate_test_support::postgres::TestDatabase;
use serde_json::{Value, json};
use url::Url;

use super::harness::{Indexer, TOKEN, fill, index_contents, listener, until, value};

/// An answer of a registry that does not know the repository.
fn no_such_repository() -> Fault {
    let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
    Fault::reply(404, ("Content-Type", "application/json"), body)
}

/// An answer that never comes.
fn hang() -> Fault {
    Fault::Delay(Duration::from_secs(3_600))
}

/// A registry and an index of it.
struct Scene {
    database: TestDatabase,
    registry: FakeRegistry,
}

impl Scene {
    async fn create() -> Self {
        Self::with(FakeRegistry::builder()).await
    }

    async fn with(registry: fake_registry::Builder) -> Self {
        Self {
            database: TestDatabase::create().await.unwrap(),
            registry: registry.start().await.unwrap(),
        }
    }

    /// A configuration with these keys in the section `registry`, and these sections.
    fn config(&self, registry_keys: &str, sections: &str) -> Config {
        let yaml = format!(
            "registry: {{url: '{}', {registry_keys}}}\nevents: {{token: '{TOKEN}'}}\n\
             database: {{postgres: {{url: '{}'}}}}\nlog: {{level: warn, format: text}}\n{sections}",
            self.registry.url(),
            self.database.url()
        );
        Config::from_sources(&yaml, [], Service::Indexer).unwrap()
    }

    /// An indexer, and where its notifications go.
    fn start(&self, registry_keys: &str, sections: &str) -> (Indexer, Url) {
        let (events, url) = listener();
        (Indexer::start(self.config(registry_keys, sections), events), url)
    }

    /// Pushes an image of its own, without a notification.
    fn push(&self, repository: &str, tag: &str) -> Manifest {
        self.push_image(repository, tag, &format!("{repository}:{tag}"))
    }

    /// Pushes the image of this seed, without a notification.
    fn push_image(&self, repository: &str, tag: &str, seed: &str) -> Manifest {
        let image = ImageBuilder::new(seed).label("seed", seed).build();
        fill(&self.registry, repository, &image, &[tag]);
        image
    }

    async fn revision(&self) -> i64 {
        value(&self.database, "SELECT n FROM state").await
    }

    /// What the index points this tag at.
    async fn digest(&self, repository: &str, tag: &str) -> Option<String> {
        let index = index_contents(&self.database).await;
        index.repositories().get(repository)?.get(tag).cloned()
    }

    async fn until_visible(&self, repository: &str, tag: &str, image: &Manifest) {
        let expected = Some(image.digest.to_string());
        until(&format!("{repository}:{tag} is visible"), async || {
            let found = self.digest(repository, tag).await;
            if found == expected { Ok(()) } else { Err(found) }
        })
        .await;
    }

    async fn until_zero(&self, what: &str, sql: &str) {
        until(what, async || match value::<i64>(&self.database, sql).await {
            0 => Ok(()),
            rows => Err(rows),
        })
        .await;
    }

    /// What query-api would find.
    async fn search(&self, query_string: &str) -> Vec<RepositoryImages> {
        let yaml = format!(
            "registry: {{url: 'http://unused'}}\ndatabase: {{postgres: {{url: '{}'}}}}",
            self.database.reader_url()
        );
        let config = Config::from_sources(&yaml, [], Service::QueryApi).unwrap();
        let options = PoolOptions::reader("test", Duration::from_secs(10));
        let pool = Pool::open(&config.database.postgres, &options).unwrap();
        let query = SearchQuery::parse_index(query_string, &Limits::default()).unwrap();
        ReadStore::new(pool, RepositoryFilter::default())
            .search(&query)
            .await
            .unwrap()
            .value
    }
}

/// An envelope with one event.
fn event(action: &str, target: &Value) -> Value {
    json!({"events": [{
        "id": "320678d8-ca14-430f-8bb6-4ca139cd83f7", "timestamp": "2026-01-01T00:00:00Z",
        "action": action, "target": target,
    }]})
}

/// What a registry says after a push.
fn pushed(repository: &str, tag: &str, image: &Manifest) -> Value {
    let target = json!({
        "mediaType": image.media_type, "digest": image.digest.to_string(), "size": image.body.len(),
        "repository": repository, "tag": tag,
    });
    event("push", &target)
}

/// Posts a body with the right token; the status of the answer.
async fn post(events: &Url, body: impl Into<reqwest::Body>) -> u16 {
    let request = http::client().unwrap().post(events.clone()).bearer_auth(TOKEN);
    request.body(body).send().await.unwrap().status().as_u16()
}
