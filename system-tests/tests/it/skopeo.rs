//! skopeo lists, pulls and pushes through the proxy, which stands in front of the registry too.

use flagstate_common::digest::Digest;
use flagstate_test_support::images::ImageBuilder;

use serde_json::{Value, json};

use crate::{database, program, system_without_scans};

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_lists_pulls_and_pushes_through_the_proxy() {
    let system = system_without_scans().await;
    let image = ImageBuilder::new("pulled").layer("lower").layer("upper").build();
    let pusher = system.pusher().unwrap();
    pusher.push("apps/pulled", &image, &["latest", "v1"]).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let proxy = system.proxy.url().as_str().replace("http://", "docker://");

    let listed = program::run(
        folder.path(),
        "skopeo",
        ["list-tags", "--tls-verify=false", &format!("{proxy}apps/pulled")],
    )
    .await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["Tags"], json!(["latest", "v1"]));

    let copy = [
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ];
    let pull = [format!("{proxy}apps/pulled:v1"), "dir:pulled".to_owned()];
    program::run(
        folder.path(),
        "skopeo",
        copy.into_iter().chain(pull.iter().map(String::as_str)),
    )
    .await;
    let manifest = std::fs::read(folder.path().join("pulled/manifest.json")).unwrap();
    assert_eq!(Digest::of(&manifest), image.digest);
    for blob in &image.blobs {
        let file = blob.digest.to_string().replace("sha256:", "pulled/");
        assert!(
            std::fs::read(folder.path().join(file)).unwrap() == blob.bytes,
            "{}",
            blob.digest
        );
    }

    let push = ["dir:pulled".to_owned(), format!("{proxy}apps/pushed:v2")];
    program::run(
        folder.path(),
        "skopeo",
        copy.into_iter().chain(push.iter().map(String::as_str)),
    )
    .await;
    database::equals_registry(&system).await;
    let answer = system.index("repository=apps/pushed&tag=v2").await.unwrap();
    assert_eq!(answer["Results"][0]["Images"][0]["Digest"], image.digest.to_string());
}
