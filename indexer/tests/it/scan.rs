//! A scan makes the index equal to the registry.

use std::collections::HashSet;
use std::time::Duration;

use flagstate_indexer::store::{RequestKind, RequestStore};
use flagstate_test_support::docker_registry::{DockerRegistry, Options};
use flagstate_test_support::fake_registry::{FakeRegistry, Kind};
use flagstate_test_support::images::{ImageBuilder, IndexBuilder, SampleImages};
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;

use super::harness::{Indexer, config, fill, index_contents, listener, until, value};

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

/// Rows written to any table but the heartbeat of the lease, and the WAL position in bytes.
async fn written(database: &TestDatabase) -> (i64, i64) {
    /// Idle sessions report what they did after ten seconds.
    const ALL_HAVE_REPORTED: Duration = Duration::from_secs(11);
    let position = value(database, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").await;
    tokio::time::sleep(ALL_HAVE_REPORTED).await;
    let rows = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint
                FROM pg_stat_user_tables WHERE relname <> 'writer_lease'";
    (value(database, rows).await, position)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_scan_asks_no_more_than_it_must_and_a_second_one_writes_nothing() {
    const REPOSITORIES: usize = 1000;
    const TAGS: usize = 10;
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let mut expected = RegistryContents::default();
    let (mut manifests, mut configs) = (HashSet::new(), HashSet::new());
    for repository in 0..REPOSITORIES {
        let name = format!("apps/number-{repository}");
        for tag in 0..TAGS {
            let image = |architecture: &str| {
                // Every fourth repository holds what another one holds too.
                let seed = format!("{} {tag} {architecture}", repository / 4 * 4 + (repository % 4).min(2));
                ImageBuilder::new(&seed).platform("linux", architecture).build()
            };
            let manifest = match tag % 2 {
                0 => image("amd64"),
                _ => IndexBuilder::new()
                    .member(image("amd64"))
                    .member(image("arm64"))
                    .build(),
            };
            for image in manifest.images() {
                configs.extend(
                    image
                        .blobs
                        .iter()
                        .filter(|blob| blob.media_type.contains("config"))
                        .map(|blob| blob.digest.clone()),
                );
            }
            manifests.extend(manifest.members.iter().map(|member| member.digest.clone()));
            let tag = format!("v{tag}");
            fill(&registry, &name, &manifest, &[&tag]);
            expected.insert(&name, &tag, &manifest.digest.to_string());
        }
    }
    let indexer = Indexer::start(config(&registry.url(), &database, ""), listener().0);
    let scans = async |outcome: u64| {
        until("the scan ends", async || {
            let ended = indexer.count("flagstate_full_scans_total", Some("complete"));
            if ended >= outcome { Ok(()) } else { Err(ended) }
        })
        .await;
    };
    scans(1).await;
    assert_eq!(index_contents(&database).await, expected);
    let minimum = registry.count(Kind::Catalog)
        + registry.count(Kind::Tags)
        + REPOSITORIES * TAGS
        + manifests.len()
        + configs.len();
    assert_eq!(registry.count(Kind::Tags), REPOSITORIES, "one page of tags each");
    let requests = registry.requests().len();
    println!(
        "{requests} requests, the minimum is {minimum}: {:.3}; {:.2} a tag",
        requests as f64 / minimum as f64,
        requests as f64 / (REPOSITORIES * TAGS) as f64
    );
    assert!(requests <= minimum + minimum / 100);
    let before = written(&database).await;
    let position: i64 = value(&database, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").await;
    let revision: i64 = value(&database, "SELECT n FROM state").await;
    let heads = registry.count(Kind::HeadManifest);
    RequestStore::new(indexer.pool.clone())
        .ask(RequestKind::Scan)
        .await
        .unwrap();
    scans(2).await;
    let after = written(&database).await;
    assert_eq!(registry.count(Kind::HeadManifest) - heads, REPOSITORIES * TAGS);
    assert_eq!(value::<i64>(&database, "SELECT n FROM state").await, revision);
    let request_rows = 3;
    assert!(
        after.0 - before.0 <= request_rows,
        "rows written by a scan without change: {}",
        after.0 - before.0
    );
    println!("a scan without change: {} bytes of WAL", after.1 - position);
    assert!(after.1 - position < 64 * 1024);
    indexer.stop().await;
}
