//! The registry client against a real docker-registry.

use std::collections::BTreeMap;

use flagstate_indexer::registry::TagPage;
use flagstate_test_support::docker_registry::{DockerRegistry, Options};
use flagstate_test_support::images::SampleImages;
use flagstate_test_support::registry_contents::RegistryContents;

use super::{Client, name};

#[tokio::test]
async fn reads_all_of_a_real_registry() {
    let registry = DockerRegistry::start(Options::default()).await.unwrap();
    let samples = SampleImages::all();
    registry.pusher().unwrap().push_samples(&samples).await.unwrap();
    let client = Client::new(&registry.url(), "");
    let mut found = RegistryContents::default();
    let mut catalog = client.catalog();
    while let Some(names) = catalog.next().await.unwrap() {
        for repository in names {
            let mut tags = client.tags(&repository);
            while let TagPage::Page(page) = tags.next().await.unwrap() {
                for tag in page {
                    let reference = tag.clone().into();
                    let head = client.head_manifest(&repository, &reference).await.unwrap().unwrap();
                    let manifest = client.get_manifest(&repository, &reference).await.unwrap().unwrap();
                    assert_eq!(head.digest.as_ref(), Some(&manifest.digest));
                    assert_eq!(head.size, Some(manifest.body.len() as u64));
                    assert_eq!(head.media_type, manifest.content_type);
                    found.insert(repository.as_str(), tag.as_str(), &manifest.digest.to_string());
                }
            }
            assert!(tags.is_complete());
        }
    }
    assert!(catalog.is_complete());
    assert_eq!(found, registry.contents().await.unwrap());
    assert_ne!(found.repositories(), &BTreeMap::new());

    let mut unknown = client.tags(&name("no/such"));
    assert_eq!(unknown.next().await.unwrap(), TagPage::NotFound);
    let missing = super::tag("missing");
    let (repository, _) = found.repositories().iter().next().unwrap();
    assert_eq!(client.get_manifest(&name(repository), &missing).await.unwrap(), None);
    assert_eq!(client.head_manifest(&name(repository), &missing).await.unwrap(), None);
}

#[tokio::test]
async fn a_repository_whose_last_tag_was_deleted_is_empty_and_not_unknown() {
    let registry = DockerRegistry::start(Options::default()).await.unwrap();
    let image = flagstate_test_support::images::ImageBuilder::new("gone").build();
    let pusher = registry.pusher().unwrap();
    pusher.push("apps/gone", &image, &["latest"]).await.unwrap();
    let client = Client::new(&registry.url(), "");
    let config = image
        .blobs
        .iter()
        .find(|blob| blob.media_type.contains("config"))
        .unwrap();
    let (digest, size) = (&config.digest, config.size);
    let fetched = client
        .get_config(&name("apps/gone"), digest, size)
        .await
        .unwrap()
        .unwrap();
    assert!(digest.matches(&fetched));

    pusher.delete_manifest("apps/gone", &image.digest).await.unwrap();
    let mut tags = client.tags(&name("apps/gone"));
    assert_eq!(tags.next().await.unwrap(), TagPage::Page(Vec::new()));
    assert_eq!(tags.next().await.unwrap(), TagPage::End);
    assert!(tags.is_complete());
}
