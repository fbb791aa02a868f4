//! Parts go away and come back.

use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::system::System;

use crate::{system_without_scans, until_found};

const LATEST: &str = "tag=latest";

async fn push(system: &System, repository: &str) -> (String, String) {
    let image = ImageBuilder::new(repository).build();
    system
        .pusher()
        .unwrap()
        .push(repository, &image, &["latest"])
        .await
        .unwrap();
    (repository.to_owned(), image.digest.to_string())
}

#[tokio::test]
async fn pushes_while_the_indexer_is_away_are_found_when_it_is_back() {
    let mut system = system_without_scans().await;
    let before = push(&system, "a/before").await;
    until_found(&system, LATEST, std::slice::from_ref(&before)).await;
    system.indexer.kill().await.unwrap();
    let meanwhile = push(&system, "a/meanwhile").await;
    until_found(&system, LATEST, std::slice::from_ref(&before)).await;
    system.indexer.start().await.unwrap();
    until_found(&system, LATEST, &[before, meanwhile]).await;
}

#[tokio::test]
async fn both_services_end_well_and_start_again_with_what_they_knew() {
    let mut system = system_without_scans().await;
    let image = push(&system, "a/image").await;
    until_found(&system, LATEST, std::slice::from_ref(&image)).await;
    system.query_api.stop().await.unwrap();
    system.indexer.stop().await.unwrap();
    system.query_api.start().await.unwrap();
    until_found(&system, LATEST, &[image]).await;
}
