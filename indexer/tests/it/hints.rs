//! Notifications that tell more, or less, than the registry shows yet.

use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Kind, Rule};
use flagstate_test_support::images::{ImageBuilder, IndexBuilder, Manifest};
use flagstate_test_support::postgres::TestDatabase;

use super::harness::{Pipeline, config, deleted, fill, index_contents, post, pushed, until, value};

const REPOSITORY: &str = "apps/a";

fn image(seed: &str) -> Manifest {
    ImageBuilder::new(seed).build()
}

/// Waits until the tag names the manifest in the index.
async fn shows(database: &TestDatabase, tag: &str, manifest: &Manifest) {
    until(&format!("{tag} is shown"), async || {
        let index = index_contents(database).await;
        let at = index
            .repositories()
            .get(REPOSITORY)
            .and_then(|tags| tags.get(tag))
            .cloned();
        if at == Some(manifest.digest.to_string()) {
            Ok(())
        } else {
            Err(at)
        }
    })
    .await;
}

/// Waits until all that was told has been seen to.
async fn queue_is_empty(database: &TestDatabase) {
    until("the queue is empty", async || {
        let left: i64 = value(database, "SELECT count(*) FROM scan_queue").await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_whose_manifest_appears_late_is_neither_lost_nor_removed() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let (old, new) = (image("old"), image("new"));
    fill(&registry, REPOSITORY, &old, &["latest"]);
    let pipeline = Pipeline::start(config(&registry.url(), &database, "")).await;
    pipeline.scanner.scan().await.unwrap();
    fill(&registry, REPOSITORY, &new, &["latest", "new"]);
    // The tag names the manifest, which cannot be had for a while: storage is eventually consistent.
    let path = format!("/v2/{REPOSITORY}/manifests/{}", new.digest);
    registry.add(Rule::on(&path, Fault::Status(404)).times(5));
    post(&pipeline.events, &[pushed(REPOSITORY, Some("latest"), &new.digest)]).await;
    until("the manifest was asked for in vain", async || {
        let asked = registry
            .requests()
            .iter()
            .filter(|request| request.path == path)
            .count();
        let index = index_contents(&database).await;
        assert!(
            index.repositories()[REPOSITORY].contains_key("latest"),
            "the tag vanished"
        );
        if asked >= 5 { Ok(()) } else { Err(asked) }
    })
    .await;
    shows(&database, "latest", &new).await;
    queue_is_empty(&database).await;
    let is_shown: bool = value(
        &database,
        "SELECT verified FROM manifest m JOIN tag t ON t.manifest_id = m.id WHERE t.name = 'latest' AND t.to_n IS NULL",
    )
    .await;
    assert!(is_shown);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_cannot_be_read_stops_no_other_tag_of_its_repository() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let (poison, good) = (image("poison"), image("good"));
    fill(&registry, REPOSITORY, &poison, &["poison"]);
    registry.add(Rule::on(
        &format!("/v2/{REPOSITORY}/manifests/poison"),
        Fault::Status(403),
    ));
    let pipeline = Pipeline::start(config(&registry.url(), &database, "")).await;
    post(&pipeline.events, &[pushed(REPOSITORY, Some("poison"), &poison.digest)]).await;
    for tag in ["one", "two", "three"] {
        fill(&registry, REPOSITORY, &good, &[tag]);
        post(&pipeline.events, &[pushed(REPOSITORY, Some(tag), &good.digest)]).await;
        shows(&database, tag, &good).await;
    }
    registry.delete_tag(REPOSITORY, "one");
    post(&pipeline.events, &[deleted(REPOSITORY, Some("one"), None)]).await;
    until("the removed tag is gone", async || {
        let tags = index_contents(&database).await.repositories()[REPOSITORY].clone();
        if tags.contains_key("one") { Err(tags) } else { Ok(()) }
    })
    .await;
    registry.behave();
    shows(&database, "poison", &poison).await;
    queue_is_empty(&database).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healed_member_is_shown_in_every_repository() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let member = image("member");
    let complete = IndexBuilder::new().member(member.clone()).build();
    let mut incomplete = complete.clone();
    incomplete.members.clear();
    let other = "apps/other";
    for repository in [REPOSITORY, other] {
        fill(&registry, repository, &incomplete, &["latest"]);
    }
    let pipeline = Pipeline::start(config(&registry.url(), &database, "")).await;
    pipeline.scanner.scan().await.unwrap();
    let holders = "SELECT count(*) FROM repository_manifest h JOIN index_leaf l ON l.manifest_id = h.manifest_id";
    assert_eq!(value::<i64>(&database, holders).await, 0);
    // The member comes to both; one of them tells.
    for repository in [REPOSITORY, other] {
        fill(&registry, repository, &member, &[]);
    }
    let again = [
        pushed(other, None, &member.digest),
        pushed(other, Some("latest"), &complete.digest),
    ];
    post(&pipeline.events, &again).await;
    until("the one that told shows the member", async || {
        let count: i64 = value(&database, holders).await;
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
    pipeline.scanner.scan().await.unwrap();
    assert_eq!(
        value::<i64>(&database, holders).await,
        2,
        "the scan finds it in the other one"
    );
    let (revision, requests) = (
        value::<i64>(&database, "SELECT n FROM state").await,
        registry.count(Kind::GetManifest),
    );
    pipeline.scanner.scan().await.unwrap();
    assert_eq!(value::<i64>(&database, "SELECT n FROM state").await, revision);
    assert_eq!(registry.count(Kind::GetManifest), requests, "it is settled now");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_repository_is_removed_when_the_registry_confirms_it() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, REPOSITORY, &image("a"), &["one", "two"]);
    // A registry that names nothing at all confirms nothing: its storage may be gone.
    fill(&registry, "other/stays", &image("b"), &["latest"]);
    let pipeline = Pipeline::start(config(&registry.url(), &database, "")).await;
    pipeline.scanner.scan().await.unwrap();
    let before = index_contents(&database).await;
    // A forged notification causes looks, and nothing else.
    registry.clear_log();
    post(&pipeline.events, &[deleted(REPOSITORY, None, None)]).await;
    until("the registry was asked", async || {
        let asked = registry.count(Kind::Tags);
        if asked >= 3 { Ok(()) } else { Err(asked) }
    })
    .await;
    assert_eq!(index_contents(&database).await, before);
    // Nor does an outage confirm it.
    registry.add(Rule::on("/v2/*", Fault::Status(503)));
    post(&pipeline.events, &[deleted(REPOSITORY, None, None)]).await;
    until("the outage was met", async || {
        let failures: i64 = value(&database, "SELECT coalesce(max(attempts), 0)::bigint FROM scan_queue").await;
        if failures > 0 { Ok(()) } else { Err(failures) }
    })
    .await;
    assert_eq!(index_contents(&database).await, before);
    registry.behave();
    registry.delete_repository(REPOSITORY);
    until("the repository is gone", async || {
        let index = index_contents(&database).await;
        if !index.repositories().contains_key(REPOSITORY) {
            Ok(())
        } else {
            Err(index)
        }
    })
    .await;
    queue_is_empty(&database).await;
    pipeline.stop().await;
}

/// Beyond 128 notifications of one repository the whole of it is looked at instead.
#[tokio::test(flavor = "multi_thread")]
async fn more_notifications_than_a_row_holds_lose_nothing() {
    const TAGS: usize = 300;
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, "apps/keeper", &image("keeper"), &["latest"]);
    let pipeline = Pipeline::start(config(&registry.url(), &database, "")).await;
    let manifest = image("a");
    let tags: Vec<String> = (0..TAGS).map(|number| format!("v{number}")).collect();
    fill(
        &registry,
        REPOSITORY,
        &manifest,
        &tags.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let events: Vec<_> = tags
        .iter()
        .map(|tag| pushed(REPOSITORY, Some(tag), &manifest.digest))
        .collect();
    post(&pipeline.events, &events).await;
    until("all tags are shown", async || {
        let shown = index_contents(&database)
            .await
            .repositories()
            .get(REPOSITORY)
            .map_or(0, |tags| tags.len());
        if shown == TAGS { Ok(()) } else { Err(shown) }
    })
    .await;
    queue_is_empty(&database).await;
    // All of them are deleted again, each with a notification; in the end the registry lists none.
    for tag in &tags {
        registry.delete_tag(REPOSITORY, tag);
    }
    let events: Vec<_> = tags.iter().map(|tag| deleted(REPOSITORY, Some(tag), None)).collect();
    post(&pipeline.events, &events).await;
    until("all tags are gone", async || {
        let left: i64 = value(&database, "SELECT count(*) FROM tag WHERE to_n IS NULL").await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    queue_is_empty(&database).await;
    pipeline.stop().await;
}
