//! SIGTERM to the real services: they end well and in time, and leave nothing behind.

use std::fs;

use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::system::System;
use flagstate_test_support::wait;
use futures::future::join_all;

use crate::{database, system_without_scans};

async fn push(system: &System, numbers: std::ops::Range<usize>) {
    let pusher = system.pusher().unwrap();
    join_all(numbers.map(async |number| {
        let image = ImageBuilder::new(&number.to_string()).build();
        pusher.push("apps/a", &image, &[&format!("v{number}")]).await.unwrap();
    }))
    .await;
}

/// Command lines of our programs that run in a process group; the dead that nobody has reaped do not run.
fn running_in(group: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields.len() > 2 && fields[0] != "Z" && fields[2] == group.to_string()
        })
        .map(|process| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default())
        .filter(|line| line.contains("flagstate"))
        .collect()
}

async fn lease_holder(system: &System) -> Option<String> {
    let client = system.database.client().await.unwrap();
    client
        .query_one("SELECT holder FROM writer_lease", &[])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_indexer_well_in_the_middle_of_work() {
    let mut system = system_without_scans().await;
    let group = system.indexer.process().unwrap().group();
    assert!(!running_in(group).is_empty());
    assert!(lease_holder(&system).await.is_some());
    push(&system, 0..20).await;
    system.indexer.stop().await.unwrap();
    assert_eq!(lease_holder(&system).await, None, "the lease is released");
    assert_eq!(running_in(group), [""; 0]);
    push(&system, 20..25).await;
    system.indexer.start().await.unwrap();
    database::equals_registry(&system).await;
    database::fits_together(&system.database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_does_not_wait_for_a_registry_that_hangs() {
    let mut system = system_without_scans().await;
    push(&system, 0..1).await;
    database::equals_registry(&system).await;
    let registry = system.registry.as_mut().unwrap();
    registry.process().pause();
    let client = system.database.client().await.unwrap();
    let asked = system
        .indexer
        .metric("flagstate_registry_requests_in_flight")
        .await
        .unwrap();
    assert_eq!(asked, 0.0);
    client
        .execute(
            "INSERT INTO scan_queue (repository, whole) VALUES ('apps/a', true)",
            &[],
        )
        .await
        .unwrap();
    wait::until("the registry is asked", async || {
        let asked = system
            .indexer
            .metric("flagstate_registry_requests_in_flight")
            .await
            .unwrap();
        if asked > 0.0 { Ok(()) } else { Err(asked) }
    })
    .await
    .unwrap();
    system.indexer.stop().await.unwrap();
    assert_eq!(lease_holder(&system).await, None, "the lease is released");
    system.registry.as_mut().unwrap().process().resume();
    system.indexer.start().await.unwrap();
    database::queue_is_empty(&system.database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_query_api_well() {
    let mut system = system_without_scans().await;
    let group = system.query_api.process().unwrap().group();
    system.index("").await.unwrap();
    system.query_api.stop().await.unwrap();
    assert_eq!(running_in(group), [""; 0]);
}
