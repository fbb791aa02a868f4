//! The catalog and tags, in pages that do not always lead to an end.

use flagstate_common::media_type::OCI_MANIFEST;
use flagstate_indexer::registry::{CatalogPages, RegistryError, TagPage};
use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Kind, Rule};

use super::{Client, fill, name};

async fn registry_with(repositories: usize, page_size: usize) -> FakeRegistry {
    let registry = FakeRegistry::builder().page_size(page_size).start().await.unwrap();
    for number in 0..repositories {
        registry.put_manifest(&format!("r/{number:04}"), OCI_MANIFEST, "{}");
    }
    registry
}

/// Reads to the end; the pages' sizes.
async fn read(catalog: &mut CatalogPages) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(names) = catalog.next().await.unwrap() {
        sizes.push(names.len());
    }
    sizes
}

#[tokio::test]
async fn follows_links_to_the_end_with_one_request_a_page() {
    let registry = registry_with(250, 100).await;
    let client = Client::new(&registry.url(), "");
    let mut catalog = client.catalog();
    assert!(!catalog.is_complete());
    assert_eq!(read(&mut catalog).await, [100, 100, 50]);
    assert!(catalog.is_complete());
    assert_eq!(registry.requests().len(), 3);
    assert_eq!(registry.requests()[0].query, "n=1000");
    assert_eq!(catalog.next().await.unwrap(), None);
    assert_eq!(registry.requests().len(), 3);
}

#[tokio::test]
async fn asks_for_smaller_pages_once_large_ones_are_refused() {
    let registry = FakeRegistry::builder()
        .page_size(100)
        .max_page_size(100)
        .start()
        .await
        .unwrap();
    fill(&registry, 150);
    let client = Client::new(&registry.url(), "");
    for requests in [3, 2] {
        registry.clear_log();
        let mut tags = client.tags(&name("apps/a"));
        let mut found = 0;
        while let TagPage::Page(page) = tags.next().await.unwrap() {
            found += page.len();
        }
        assert_eq!(found, 150);
        assert!(tags.is_complete());
        assert_eq!(registry.requests().len(), requests);
    }
}

#[tokio::test]
async fn an_absolute_link_on_the_same_origin_is_followed() {
    let registry = registry_with(150, 100).await;
    let link = format!("<{}v2/_catalog?last=r%2F0099&opaque=cursor>; rel=next", registry.url());
    registry.add(Rule::on("/v2/_catalog", Fault::header("Link", &link)).times(1));
    let client = Client::new(&registry.url(), "");
    let mut catalog = client.catalog();
    assert_eq!(read(&mut catalog).await, [100, 50]);
    assert!(catalog.is_complete());
}

#[tokio::test]
async fn a_list_that_loops_ends_incomplete() {
    for link in [
        "</v2/_catalog?n=1000>; rel=next",
        "</v2/_catalog?last=r%2F0049>; rel=next",
    ] {
        let registry = registry_with(150, 100).await;
        registry.add(Rule::on("/v2/_catalog", Fault::header("Link", link)));
        let client = Client::new(&registry.url(), "");
        let mut catalog = client.catalog();
        read(&mut catalog).await;
        assert!(!catalog.is_complete());
        assert!(registry.requests().len() <= 3, "{link}: {}", registry.requests().len());
    }
}

#[tokio::test]
async fn links_that_change_with_the_same_names_behind_are_a_loop() {
    let registry = registry_with(50, 100).await;
    for number in 0..10 {
        let link = format!("</v2/_catalog?cursor={number}>; rel=next");
        registry.add(Rule::on("/v2/_catalog", Fault::header("Link", &link)).times(1));
    }
    let client = Client::new(&registry.url(), "");
    let mut catalog = client.catalog();
    assert_eq!(read(&mut catalog).await, [50, 0]);
    assert!(!catalog.is_complete());
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn a_link_to_another_host_is_not_followed() {
    let registry = registry_with(150, 100).await;
    let other = registry_with(10, 100).await;
    for to in [other.url_as("localhost"), other.url(), registry.url_as("localhost")] {
        registry.behave();
        let link = format!("<{to}v2/_catalog?last=r%2F0099>; rel=next");
        registry.add(Rule::on("/v2/_catalog", Fault::header("Link", &link)));
        registry.clear_log();
        let client = Client::new(&registry.url(), "");
        let mut catalog = client.catalog();
        assert_eq!(read(&mut catalog).await, [100]);
        assert!(!catalog.is_complete());
        assert_eq!(registry.requests().len(), 1);
    }
    assert_eq!(other.requests().len(), 0);
}

#[tokio::test]
async fn an_empty_page_that_promises_more_is_incomplete_and_one_that_does_not_is_an_end() {
    let registry = registry_with(150, 100).await;
    registry.add(Rule::on("/v2/_catalog", Fault::entries(|_| Vec::new())));
    let client = Client::new(&registry.url(), "");
    let mut catalog = client.catalog();
    assert_eq!(read(&mut catalog).await, [0]);
    assert!(!catalog.is_complete());

    let empty = registry_with(0, 100).await;
    let mut catalog = Client::new(&empty.url(), "").catalog();
    assert_eq!(read(&mut catalog).await, [0]);
    assert!(catalog.is_complete());
}

#[tokio::test]
async fn names_in_any_order_are_taken_and_repeated_ones_are_not() {
    let registry = registry_with(150, 100).await;
    let shuffled = Fault::entries(|mut names| {
        names.reverse();
        names.push("r/0000".to_owned());
        names.push("r/0120".to_owned());
        names
    });
    registry.add(Rule::on("/v2/_catalog", shuffled));
    let client = Client::new(&registry.url(), "");
    let mut catalog = client.catalog();
    let first = catalog.next().await.unwrap().unwrap();
    let second = catalog.next().await.unwrap().unwrap();
    assert_eq!((first.len(), second.len()), (101, 49));
    assert!(catalog.is_complete());
}

#[tokio::test]
async fn a_page_that_fails_leaves_the_list_incomplete() {
    let registry = registry_with(150, 100).await;
    let client = Client::new(&registry.url(), "");
    for (fault, tries) in [
        (Fault::Status(500), 3),
        (Fault::Status(403), 1),
        (Fault::reply(200, ("Content-Type", "text/html"), "<html>"), 1),
        (Fault::reply(200, ("Content-Type", "application/json"), "{}"), 1),
        (Fault::reply(200, ("Content-Type", "application/json"), "[]"), 1),
        (
            Fault::reply(404, ("Content-Type", "text/plain"), "default backend - 404"),
            1,
        ),
        (Fault::Cut, 3),
        (Fault::Drop, 3),
    ] {
        registry.behave();
        registry.clear_log();
        let mut catalog = client.catalog();
        assert!(catalog.next().await.unwrap().is_some());
        registry.add(Rule::on("/v2/_catalog", fault.clone()));
        catalog.next().await.unwrap_err();
        assert!(!catalog.is_complete());
        assert_eq!(registry.count(Kind::Catalog), 1 + tries);
        assert_eq!(catalog.next().await.unwrap(), None);
        assert!(!catalog.is_complete());
        assert_eq!(registry.count(Kind::Catalog), 1 + tries);
    }
}

#[tokio::test]
async fn a_registry_without_a_catalog_is_not_an_empty_registry() {
    let registry = registry_with(1, 100).await;
    registry.add(Rule::on("/v2/_catalog", Fault::Status(404)));
    let mut catalog = Client::new(&registry.url(), "").catalog();
    let error = catalog.next().await.unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 404 }), "{error:?}");
    assert!(!catalog.is_complete());
}

#[tokio::test]
async fn names_outside_the_grammar_are_counted_and_go_no_further() {
    let registry = registry_with(2, 100).await;
    let hostile = [
        "../x", "A", "a%2fb", "r/🦀", "", "a/../b", "a?n=1", "a#b", "a\nb", "\u{0}",
    ];
    let with_hostile = Fault::entries(move |mut names| {
        names.extend(hostile.map(str::to_owned));
        names.push("x".repeat(300));
        names
    });
    registry.add(Rule::on("/v2/_catalog", with_hostile));
    let client = Client::new(&registry.url(), "");
    let mut catalog = client.catalog();
    let names = catalog.next().await.unwrap().unwrap();
    assert_eq!(names, [name("r/0000"), name("r/0001")]);
    assert_eq!(catalog.dropped(), 11);
    assert!(catalog.is_complete());
    assert_eq!(client.counted("flagstate_registry_names_dropped_total", &[]), 11);

    fill(&registry, 1);
    registry.add(Rule::on(
        "*/tags/list",
        Fault::entries(|_| vec![".x".to_owned(), "ok".to_owned(), "a/b".to_owned()]),
    ));
    let mut tags = client.tags(&name("apps/a"));
    assert_eq!(tags.next().await.unwrap(), TagPage::Page(vec!["ok".parse().unwrap()]));
    assert_eq!(tags.dropped(), 2);
}

#[tokio::test]
async fn an_endless_page_is_too_large() {
    let registry = registry_with(1, 100).await;
    registry.add(Rule::on("/v2/_catalog", Fault::Endless));
    let mut catalog = Client::new(&registry.url(), "").catalog();
    let error = catalog.next().await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
    assert!(!catalog.is_complete());
}

#[tokio::test]
async fn null_tags_are_no_tags_and_a_404_is_no_repository() {
    let registry = registry_with(1, 100).await;
    let client = Client::new(&registry.url(), "");
    let mut tags = client.tags(&name("r/0000"));
    assert_eq!(tags.next().await.unwrap(), TagPage::Page(Vec::new()));
    assert_eq!(tags.next().await.unwrap(), TagPage::End);
    assert!(tags.is_complete());

    let mut tags = client.tags(&name("r/unknown"));
    assert_eq!(tags.next().await.unwrap(), TagPage::NotFound);
    assert!(tags.is_complete());
    assert_eq!(tags.next().await.unwrap(), TagPage::End);
}

#[tokio::test]
async fn a_404_that_is_not_the_registrys_own_is_no_absence() {
    let registry = registry_with(0, 100).await;
    fill(&registry, 1);
    let not_mine = Fault::reply(404, ("Content-Type", "text/plain"), "default backend - 404");
    registry.add(Rule::on("*/tags/list", not_mine.clone()));
    registry.add(Rule::on("*/manifests/*", not_mine));
    let client = Client::new(&registry.url(), "");
    let mut tags = client.tags(&name("apps/a"));
    let error = tags.next().await.unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 404 }), "{error:?}");
    assert!(!tags.is_complete());
    client
        .get_manifest(&name("apps/a"), &super::tag("t0000"))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn tags_that_end_in_the_middle_are_incomplete() {
    let registry = FakeRegistry::builder().page_size(2).start().await.unwrap();
    fill(&registry, 5);
    let client = Client::new(&registry.url(), "");
    let mut tags = client.tags(&name("apps/a"));
    assert!(matches!(tags.next().await.unwrap(), TagPage::Page(page) if page.len() == 2));
    registry.delete_repository("apps/a");
    let error = tags.next().await.unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 404 }), "{error:?}");
    assert!(!tags.is_complete());
}
