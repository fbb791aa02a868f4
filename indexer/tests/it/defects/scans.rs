//! Full scans: many repositories, changes and none, removals, restarts.

use flagstate_test_support::fake_registry::{Fault, Rule};
use flagstate_test_support::ports;
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Scene, event, hang, index_contents, post, until, value};

#[tokio::test(flavor = "multi_thread")]
async fn defect_01_more_than_a_hundred_repositories_are_scanned_and_events_answered_meanwhile() {
    const REPOSITORIES: usize = 150;
    let scene = Scene::create().await;
    let mut expected = RegistryContents::default();
    for number in 0..REPOSITORIES {
        let name = format!("apps/{number}");
        let image = scene.push(&name, "latest");
        expected.insert(&name, "latest", &image.digest.to_string());
    }
    scene.push("apps/that-hangs", "latest");
    scene.registry.add(Rule::on("/v2/apps/that-hangs/tags/list", hang()));
    let (indexer, events) = scene.start("", "");
    let posts = (0..REPOSITORIES).map(|number| {
        let target = serde_json::json!({"repository": format!("noise/{number}"), "tag": "latest"});
        post(&events, event("delete", &target).to_string())
    });
    assert_eq!(join_all(posts).await, vec![202; REPOSITORIES]);
    until("all repositories but one are indexed", async || {
        let index = index_contents(&scene.database).await;
        if index == expected {
            Ok(())
        } else {
            Err(index.repositories().len())
        }
    })
    .await;
    assert_eq!(
        indexer.count("flagstate_full_scans_total", None),
        0,
        "the scan was going on all the time"
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_02_the_revision_rises_with_each_change_and_with_nothing_else() {
    let scene = Scene::create().await;
    scene.push("apps/a", "latest");
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let first = scene.revision().await;
    assert!(first > 0);
    let moved = scene.push_image("apps/a", "latest", "newer");
    indexer.scan().await;
    assert_eq!(scene.revision().await, first + 1);
    assert_eq!(scene.digest("apps/a", "latest").await, Some(moved.digest.to_string()));
    indexer.scan().await;
    assert_eq!(scene.revision().await, first + 1, "nothing changed");
    scene.registry.tag("apps/a", "another", &moved.digest);
    indexer.scan().await;
    assert_eq!(scene.revision().await, first + 2);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_03_a_repository_that_vanished_is_removed_and_later_scans_go_on() {
    let scene = Scene::create().await;
    scene.push("apps/stays", "latest");
    scene.push("apps/vanishes", "latest");
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    scene.registry.delete_repository("apps/vanishes");
    indexer.scan().await;
    assert_eq!(scene.digest("apps/vanishes", "latest").await, None);
    for round in ["one", "two"] {
        let image = scene.push_image("apps/stays", "latest", round);
        let outcome = indexer.scan().await;
        assert!(outcome.contains("1 changed, 0 failed"), "{outcome}");
        assert_eq!(
            scene.digest("apps/stays", "latest").await,
            Some(image.digest.to_string())
        );
    }
    indexer.stop().await;
}

/// The rows of all tags and manifests, whatever is in them.
async fn rows(database: &TestDatabase) -> String {
    let sql = "SELECT (SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM tag t)
                      || (SELECT string_agg(m::text, E'\\n' ORDER BY id) FROM manifest m)
                      || (SELECT n FROM state)";
    value(database, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_06_a_restart_keeps_the_index() {
    let mut scene = Scene::create().await;
    // The whole program, from an empty database on: it makes the schema, and must not make it anew.
    scene.database = TestDatabase::create_empty(None).await.unwrap();
    let image = scene.push("apps/a", "latest");
    let free = || ports::free().unwrap();
    let run = || {
        let listen = format!("listen: {{indexer: '{}', indexer_admin: '{}'}}", free(), free());
        let ends = CancellationToken::new();
        let running = tokio::spawn(flagstate_indexer::app::run(
            scene.config("", &listen),
            false,
            ends.clone(),
        ));
        (running, ends)
    };
    let (running, ends) = run();
    let made = "SELECT count(*) FROM (SELECT 1 WHERE to_regclass('tag') IS NULL) AS missing";
    scene.until_zero("the schema is made", made).await;
    scene.until_visible("apps/a", "latest", &image).await;
    ends.cancel();
    running.await.unwrap().unwrap();
    let before = rows(&scene.database).await;

    scene.registry.add(Rule::on("*", Fault::Status(503)));
    let (running, ends) = run();
    scene
        .until_zero("the second one writes", "SELECT 2 - epoch FROM writer_lease")
        .await;
    until("it asks the registry in vain", async || {
        if scene
            .registry
            .requests()
            .iter()
            .any(|request| request.path == "/v2/_catalog")
        {
            Ok(())
        } else {
            Err(())
        }
    })
    .await;
    ends.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(rows(&scene.database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_09_tags_of_other_repositories_are_no_change() {
    let scene = Scene::create().await;
    for repository in ["apps/a", "apps/b", "apps/c"] {
        for tag in ["latest", "v1"] {
            scene.push(repository, tag);
        }
        scene.push(repository, &repository.replace('/', "-"));
    }
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let before = rows(&scene.database).await;
    for _ in 0..2 {
        let outcome = indexer.scan().await;
        assert!(outcome.contains("0 changed"), "{outcome}");
    }
    assert_eq!(rows(&scene.database).await, before);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_12_a_tag_that_goes_between_list_and_read_holds_nothing_up() {
    let scene = Scene::create().await;
    scene.push("apps/a", "stays");
    scene.registry.add(Rule::on(
        "/v2/apps/a/tags/list",
        Fault::entries(|mut tags| {
            tags.insert(0, "gone-meanwhile".to_owned());
            tags
        }),
    ));
    let (indexer, _) = scene.start("", "");
    // The first scan reads tags by GET, the second one by HEAD.
    for new in ["one", "two"] {
        let image = scene.push("apps/a", new);
        let outcome = indexer.scan().await;
        assert!(outcome.contains("0 failed"), "{outcome}");
        assert_eq!(scene.digest("apps/a", new).await, Some(image.digest.to_string()));
        assert_eq!(scene.digest("apps/a", "gone-meanwhile").await, None);
    }
    assert_eq!(
        value::<i64>(&scene.database, "SELECT count(*) FROM scan_queue").await,
        0
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_18_a_removal_that_fails_changes_nothing_and_is_tried_again() {
    let scene = Scene::create().await;
    let old = scene.push("apps/a", "moves");
    scene.push("apps/a", "goes");
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let client = scene.database.client().await.unwrap();
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE EXCEPTION 'tag % may not end', OLD.name; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON tag FOR EACH ROW WHEN (OLD.name = 'goes')
                 EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    let revision = scene.revision().await;
    let new = scene.push_image("apps/a", "moves", "newer");
    scene.registry.delete_tag("apps/a", "goes");
    let outcome = indexer.scan().await;
    assert!(outcome.contains("1 failed"), "{outcome}");
    assert_eq!(scene.digest("apps/a", "moves").await, Some(old.digest.to_string()));
    assert_eq!(scene.revision().await, revision);
    let error: String = value(&scene.database, "SELECT last_error FROM scan_queue").await;
    assert!(error.contains("the index"), "{error}");
    client.batch_execute("DROP TRIGGER refuse ON tag").await.unwrap();
    scene.until_visible("apps/a", "moves", &new).await;
    assert_eq!(scene.digest("apps/a", "goes").await, None);
    scene
        .until_zero("the failure is settled", "SELECT count(*) FROM scan_queue")
        .await;
    indexer.stop().await;
}
