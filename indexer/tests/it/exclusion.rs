//! Excluded repositories are hidden at once, everywhere, at every revision.

use flagstate_common::config::{Limits, RepositoryFilter};
use flagstate_common::image::RepositoryImages;
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::read::ReadStore;
use flagstate_test_support::fake_registry::FakeRegistry;
use flagstate_test_support::images::{ImageBuilder, IndexBuilder};
use flagstate_test_support::postgres::TestDatabase;

use super::harness::{Indexer, config_with, fill, listener, pool, post, pushed, until, value};

const SECRET: &str = "secret/a";
const PUBLIC: &str = "public/b";
const EXCLUDED: &str = "repositories: {exclude: ['secret/**']}";

/// What is found, as names of repositories.
async fn names(store: &ReadStore, query: &str) -> Vec<String> {
    found(store, query)
        .await
        .iter()
        .map(|found| found.name.to_string())
        .collect()
}

async fn found(store: &ReadStore, query: &str) -> Vec<RepositoryImages> {
    let query = SearchQuery::parse_index(query, &Limits::default()).unwrap();
    store.search(&query).await.unwrap().value
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_repository_is_hidden_at_every_revision_and_not_scanned() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let image = ImageBuilder::new("a").build();
    for repository in [SECRET, PUBLIC] {
        fill(&registry, repository, &image, &["latest"]);
    }
    let store = ReadStore::new(pool(&database), RepositoryFilter::default());
    let config =
        |keys: &str, interval: &str| config_with(&format!("url: '{}', {keys}", registry.url()), &database, interval);
    let indexer = Indexer::start(config("", ""), listener().0);
    indexer.scan().await;
    indexer.stop().await;
    assert_eq!(names(&store, "").await, [PUBLIC, SECRET]);
    let era: i64 = value(&database, "SELECT era FROM state").await;

    registry.clear_log();
    let indexer = Indexer::start(config(EXCLUDED, "interval: {fetch_all: 0}"), listener().0);
    until("it is hidden", async || {
        let names = names(&store, "").await;
        if names == [PUBLIC] { Ok(()) } else { Err(names) }
    })
    .await;
    assert_eq!(registry.requests().len(), 0, "without a look at the registry");
    let n: i64 = value(&database, "SELECT n FROM state").await;
    for n in 0..=n {
        assert!(
            !names(&store, &format!("as_of={era}.{n}"))
                .await
                .contains(&SECRET.to_owned()),
            "at revision {n}"
        );
    }
    assert_eq!(names(&store, &format!("digest={}", image.digest)).await, [PUBLIC]);
    fill(&registry, SECRET, &ImageBuilder::new("new").build(), &["new"]);
    post(&indexer.events, &[pushed(SECRET, Some("new"), &image.digest)]).await;
    assert_eq!(value::<i64>(&database, "SELECT count(*) FROM scan_queue").await, 0);
    indexer.scan().await;
    let asked = registry.requests();
    assert!(
        !asked.is_empty() && asked.iter().all(|request| !request.path.contains("secret")),
        "{asked:#?}"
    );
    indexer.stop().await;
    assert_eq!(names(&store, "").await, [PUBLIC]);

    registry.clear_log();
    let indexer = Indexer::start(config("", "interval: {fetch_all: 0}"), listener().0);
    until("it is shown again", async || {
        let names = names(&store, "").await;
        if names == [PUBLIC, SECRET] { Ok(()) } else { Err(names) }
    })
    .await;
    assert_eq!(registry.requests().len(), 0);
    assert_eq!(
        names(&store, &format!("as_of={era}.{n}")).await,
        [PUBLIC, SECRET],
        "in the past too"
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_an_excluded_repository_holds_is_asked_for_elsewhere() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let member = ImageBuilder::new("member").label("secret", "yes").build();
    let index = IndexBuilder::new().member(member.clone()).build();
    fill(&registry, SECRET, &member, &["member"]);
    fill(&registry, SECRET, &index, &["index"]);
    fill(&registry, PUBLIC, &ImageBuilder::new("other").build(), &["other"]);
    let url = registry.url();
    let indexer = Indexer::start(config_with(&format!("url: '{url}'"), &database, ""), listener().0);
    indexer.scan().await;
    indexer.stop().await;

    // The same image index comes to a repository that is shown, and its registry does not have the member there.
    let mut alone = index.clone();
    alone.members.clear();
    fill(&registry, PUBLIC, &alone, &["latest"]);
    registry.clear_log();
    let keys = format!("url: '{url}', {EXCLUDED}");
    let indexer = Indexer::start(config_with(&keys, &database, "interval: {fetch_all: 0}"), listener().0);
    indexer.scan().await;
    let path = format!("/v2/{PUBLIC}/manifests/{}", member.digest);
    assert!(
        registry.requests().iter().any(|request| request.path == path),
        "the member is asked for here"
    );
    let store = ReadStore::new(pool(&database), RepositoryFilter::default());
    let images = async || {
        let found = found(&store, "tag=latest").await;
        assert_eq!((found.len(), found[0].image_indexes.len()), (1, 1));
        found[0].image_indexes[0].images.len()
    };
    assert_eq!(images().await, 0);
    assert!(names(&store, "label:secret=yes").await.is_empty());
    // When it comes there, too, the next scan finds it.
    fill(&registry, PUBLIC, &member, &[]);
    indexer.scan().await;
    assert_eq!(images().await, 1);
    assert_eq!(names(&store, "label:secret=yes").await, [PUBLIC]);
    indexer.stop().await;
}
