//! What is pushed is found.

use flagstate_test_support::images::{ImageBuilder, SampleImages};
use flagstate_test_support::push::Pusher;
use flagstate_test_support::system::found_in;

use crate::{cached, system_without_scans, until_found};

const AMD64: &str = "architecture=amd64&os=linux&tag=latest";

#[tokio::test]
async fn sample_images_pushed_to_a_real_registry_are_answered_through_the_proxy() {
    let system = system_without_scans().await;
    let samples = SampleImages::all();
    system.pusher().unwrap().push_samples(&samples).await.unwrap();
    let expected = samples.found("linux", "amd64", "latest");
    assert!(expected.len() >= 9);
    until_found(&system, AMD64, &expected).await;
    until_found(
        &system,
        "architecture=arm64&os=linux&tag=latest",
        &samples.found("linux", "arm64", "latest"),
    )
    .await;
    let answer = cached(&system, AMD64).await;
    assert_eq!(found_in(&answer), expected);
    assert_eq!(answer["Registry"], "/");
}

#[tokio::test]
async fn images_pushed_through_the_proxy_are_found_and_deleted_ones_are_not() {
    let system = system_without_scans().await;
    let pusher = Pusher::new(system.proxy.url()).unwrap();
    let image = ImageBuilder::new("pushed").build();
    pusher.push("a/pushed", &image, &["latest"]).await.unwrap();
    until_found(&system, AMD64, &[("a/pushed".to_owned(), image.digest.to_string())]).await;
    pusher.delete_manifest("a/pushed", &image.digest).await.unwrap();
    until_found(&system, AMD64, &[]).await;
}
