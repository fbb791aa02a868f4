//! A scan makes the index equal to the registry.

use std::sync::Arc;
use std::time::Duration;

use flagstate_common::config::{Limits, Registry, RepositoryFilter};
use flagstate_common::metrics::LimitHits;
use flagstate_common::store::Pool;
use flagstate_indexer::metrics::IndexerMetrics;
use flagstate_indexer::registry::{RegistryClient, RegistryMetrics};
use flagstate_indexer::scan::observe::Observer;
use flagstate_indexer::scan::progress::Progress;
use flagstate_indexer::scan::schedule::Scanner;
use flagstate_indexer::scan::worker::Worker;
use flagstate_indexer::store::{Acquired, LeaseStore, WriteStore};
use flagstate_test_support::docker_registry::{DockerRegistry, Options};
use flagstate_test_support::images::SampleImages;
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;
use url::Url;

fn registry_config(url: Url) -> Registry {
    Registry {
        public_url: url.to_string(),
        url,
        credentials: None,
        token_realms: vec![],
        ca_file: None,
        client_identity: None,
        catalog: true,
        repositories: RepositoryFilter,
        timeout: Duration::from_secs(30),
        concurrency: 32,
        https_proxy: None,
        no_proxy: None,
    }
}

async fn scanner(database: &TestDatabase, registry: Url) -> Scanner {
    let metrics_registry = prometheus::Registry::new();
    let pool = Pool::new(&database.url());
    let client = RegistryClient::new(
        &registry_config(registry.clone()),
        &Limits::default(),
        RegistryMetrics::new(&metrics_registry, |_| {}).unwrap(),
    )
    .unwrap();
    let metrics = Arc::new(IndexerMetrics::new(&metrics_registry, LimitHits).unwrap());
    let Acquired::Writer { lease, .. } = LeaseStore::new(pool.clone())
        .try_acquire("test", registry.as_str(), false)
        .await
        .unwrap()
    else {
        panic!("no lease")
    };
    let store = WriteStore::open(pool, lease, 4);
    let observer = Observer::new(client, Limits::default());
    let worker = Worker::new(store, observer, RepositoryFilter, metrics.clone());
    Scanner::new(worker, Arc::new(Progress::default()), metrics, true)
}

async fn index_contents(database: &TestDatabase) -> RegistryContents {
    let client = database.client().await.unwrap();
    let rows = client
        .query(
            "SELECT r.name, t.name, encode(substr(m.digest, 2), 'hex') FROM tag t JOIN repository r ON r.id = repository_id
             JOIN manifest m ON m.id = manifest_id WHERE to_n IS NULL",
            &[],
        )
        .await
        .unwrap();
    let mut contents = RegistryContents::default();
    for row in rows {
        contents.insert(row.get(0), row.get(1), &format!("sha256:{}", row.get::<_, String>(2)));
    }
    contents
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_makes_the_index_equal_to_the_registry() {
    let database = TestDatabase::create().await.unwrap();
    let registry = DockerRegistry::start(Options::default()).await.unwrap();
    registry
        .pusher()
        .unwrap()
        .push_samples(&SampleImages::all())
        .await
        .unwrap();
    let scanner = scanner(&database, registry.url()).await;
    let summary = scanner.scan().await.unwrap();
    println!("{summary}");
    assert_eq!(index_contents(&database).await, registry.contents().await.unwrap());
    let summary = scanner.scan().await.unwrap();
    println!("{summary}");
    assert_eq!(summary.changed, 0);
}
