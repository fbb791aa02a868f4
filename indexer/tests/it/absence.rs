//! Absence is not deletion: whatever a registry fails to show, nothing is removed until it says so completely.

use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Rule};
use flagstate_test_support::images::ImageBuilder;
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;
use tokio_postgres::Client;

use super::harness::{Pipeline, config, fill, index_contents};

const REPOSITORIES: [&str; 6] = ["apps/a", "apps/b", "apps/c", "apps/d", "apps/e", "apps/f"];
const CATALOG: &str = "/v2/_catalog";

/// A registry of six repositories with three tags each, scanned once.
struct Scanned {
    registry: FakeRegistry,
    pipeline: Pipeline,
    database: TestDatabase,
    client: Client,
    contents: RegistryContents,
    revision: i64,
}

impl Scanned {
    async fn start() -> Self {
        let registry = FakeRegistry::builder().page_size(2).start().await.unwrap();
        for repository in REPOSITORIES {
            for tag in ["one", "three", "two"] {
                fill(
                    &registry,
                    repository,
                    &ImageBuilder::new(&format!("{repository}:{tag}")).build(),
                    &[tag],
                );
            }
        }
        let database = TestDatabase::create().await.unwrap();
        let pipeline = Pipeline::start(config(&registry.url(), &database, "")).await;
        let summary = pipeline.scanner.scan().await.unwrap();
        assert!(
            summary.is_complete && summary.changed == REPOSITORIES.len(),
            "{summary:?}"
        );
        let client = database.client().await.unwrap();
        let contents = index_contents(&database).await;
        assert_eq!(contents.repositories().len(), REPOSITORIES.len());
        let mut scanned = Self {
            registry,
            pipeline,
            database,
            client,
            contents,
            revision: 0,
        };
        scanned.revision = scanned.revision().await;
        scanned
    }

    async fn revision(&self) -> i64 {
        self.client.query_one("SELECT n FROM state", &[]).await.unwrap().get(0)
    }

    /// Scans twice under these faults: nothing changes, neither then nor when the registry is well again.
    async fn nothing_is_removed(&self, is_complete: bool, faults: Vec<Rule>) {
        self.registry.behave();
        let what = format!("{faults:?}");
        for fault in faults {
            self.registry.add(fault);
        }
        for _ in 0..2 {
            let summary = self.pipeline.scanner.scan().await.unwrap();
            assert_eq!(summary.is_complete, is_complete, "{what}: {summary:?}");
            assert_eq!(index_contents(&self.database).await, self.contents, "{what}");
        }
        self.registry.behave();
        let summary = self.pipeline.scanner.scan().await.unwrap();
        assert!(summary.is_complete, "{what}: {summary:?}");
        assert_eq!(index_contents(&self.database).await, self.contents, "{what}");
        assert_eq!(self.revision().await, self.revision, "{what}: nothing was written");
    }
}

fn list(repository: &str) -> String {
    format!("/v2/{repository}/tags/list")
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_of_the_registry_removes_nothing() {
    let scanned = Scanned::start().await;
    scanned
        .nothing_is_removed(false, vec![Rule::on("*", Fault::Drop)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_behind_errors_removes_nothing() {
    let scanned = Scanned::start().await;
    for status in [401, 403, 404, 500, 503] {
        scanned
            .nothing_is_removed(false, vec![Rule::on("*", Fault::Status(status))])
            .await;
        scanned
            .nothing_is_removed(false, vec![Rule::on(CATALOG, Fault::Status(status))])
            .await;
    }
    // The catalog is whole then; each repository that failed is tried again.
    for status in [401, 403, 500] {
        scanned
            .nothing_is_removed(true, vec![Rule::on("/v2/*/tags/list", Fault::Status(status))])
            .await;
    }
    for status in [404, 500] {
        scanned
            .nothing_is_removed(true, vec![Rule::on("/v2/*/manifests/*", Fault::Status(status))])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_of_everything_removes_nothing() {
    let scanned = Scanned::start().await;
    let nothing = || Rule::on(CATALOG, Fault::entries(|_| Vec::new()));
    scanned.nothing_is_removed(false, vec![nothing()]).await;
    // A registry that lost its storage looks healthy and empty.
    let lost = Rule::on("/v2/*/tags/list", Fault::Status(404));
    scanned.nothing_is_removed(false, vec![nothing(), lost.clone()]).await;
    scanned.nothing_is_removed(false, vec![lost]).await;
    let no_tags = Fault::reply(200, ("Content-Type", "application/json"), r#"{"name":"x","tags":null}"#);
    scanned
        .nothing_is_removed(false, vec![Rule::on("/v2/*/tags/list", no_tags)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_from_a_looping_catalog_removes_nothing() {
    let scanned = Scanned::start().await;
    let gone = || Rule::on(&list("apps/f"), Fault::Status(404));
    for link in [
        "</v2/_catalog?last=&n=2>; rel=\"next\"",
        "</v2/_catalog?last=apps/b&n=2>; rel=\"next\"",
    ] {
        let looping = Rule::on(CATALOG, Fault::header("Link", link));
        scanned.nothing_is_removed(false, vec![looping, gone()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_from_a_truncated_catalog_removes_nothing() {
    let scanned = Scanned::start().await;
    let first_page = || Rule::on(CATALOG, Fault::entries(|names| names)).times(1);
    // What is beyond the break answers 404, as does one repository before it.
    let gone = || ["apps/a", "apps/e", "apps/f"].map(|name| Rule::on(&list(name), Fault::Status(404)));
    for broken in [Fault::Cut, Fault::Status(500), Fault::Drop] {
        let mut faults = vec![first_page(), Rule::on(CATALOG, broken)];
        faults.extend(gone());
        scanned.nothing_is_removed(false, faults).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_from_half_a_catalog_is_asked_about() {
    let scanned = Scanned::start().await;
    let half = Rule::on(
        CATALOG,
        Fault::entries(|names| names.into_iter().filter(|name| name < &"apps/d".to_owned()).collect()),
    );
    // The page without names has a link to the next one; it ends all the same.
    scanned.nothing_is_removed(true, vec![half]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_from_a_broken_list_of_tags_removes_nothing() {
    let scanned = Scanned::start().await;
    for broken in [
        Fault::Cut,
        Fault::Status(500),
        Fault::header("Link", "</v2/apps/b/tags/list?last=&n=2>; rel=\"next\""),
    ] {
        let first_page = Rule::on(&list("apps/b"), Fault::entries(|tags| tags)).times(1);
        scanned
            .nothing_is_removed_but_told(vec![first_page, Rule::on(&list("apps/b"), broken)])
            .await;
    }
}

impl Scanned {
    /// As [`Scanned::nothing_is_removed`] when one repository fails: the failure waits in the queue.
    async fn nothing_is_removed_but_told(&self, faults: Vec<Rule>) {
        self.registry.behave();
        for fault in faults {
            self.registry.add(fault);
        }
        let summary = self.pipeline.scanner.scan().await.unwrap();
        assert!(summary.is_complete && summary.failed == 1, "{summary:?}");
        assert_eq!(index_contents(&self.database).await, self.contents);
        let failed: i64 = self
            .client
            .query_one(
                "SELECT count(*) FROM scan_queue WHERE repository = 'apps/b' AND last_error <> ''",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        assert_eq!(failed, 1);
        self.registry.behave();
        self.pipeline.scanner.scan().await.unwrap();
        assert_eq!(index_contents(&self.database).await, self.contents);
        assert_eq!(self.revision().await, self.revision);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_complete_scan_misses_is_removed() {
    let scanned = Scanned::start().await;
    let remaining = async |expected: &[&str]| {
        let summary = scanned.pipeline.scanner.scan().await.unwrap();
        assert!(summary.is_complete, "{summary:?}");
        let index = index_contents(&scanned.database).await;
        assert_eq!(
            index.repositories().keys().map(String::as_str).collect::<Vec<_>>(),
            expected
        );
    };
    // A repository that vanished from catalog and storage.
    scanned.registry.delete_repository("apps/f");
    remaining(&REPOSITORIES[..5]).await;
    // One of which only the last tag is deleted: it stays in the catalog.
    for tag in ["one", "two"] {
        scanned.registry.delete_tag("apps/e", tag);
    }
    remaining(&REPOSITORIES[..5]).await;
    assert_eq!(
        index_contents(&scanned.database).await.repositories()["apps/e"].len(),
        1
    );
    scanned.registry.delete_tag("apps/e", "three");
    remaining(&REPOSITORIES[..4]).await;
    // One that the catalog names and the registry does not find.
    scanned.registry.add(Rule::on(&list("apps/d"), Fault::Status(404)));
    remaining(&REPOSITORIES[..3]).await;
}
