//! A scan makes the index equal to the registry.

use flagstate_test_support::docker_registry::{DockerRegistry, Options};
use flagstate_test_support::images::SampleImages;
use flagstate_test_support::postgres::TestDatabase;

use super::harness::{Indexer, config, index_contents, listener, until};

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
    let indexer = Indexer::start(config(&registry.url(), &database, ""), listener().0);
    let contents = registry.contents().await.unwrap();
    until("index = registry", async || {
        let index = index_contents(&database).await;
        if index == contents { Ok(()) } else { Err(index) }
    })
    .await;
    indexer.stop().await;
}
