//! Several indexers on one database, of which one writes (defect 33).

use flagstate_common::config::RepositoryFilter;
use flagstate_indexer::store::{Acquired, LeaseStore, RequestKind, RequestStore, WriteError, WriteStore, WriterLease};
use flagstate_test_support::fake_registry::Kind;

use super::{Scene, post, pushed, until, value};

#[tokio::test(flavor = "multi_thread")]
async fn defect_33_a_second_indexer_stands_by_takes_events_and_takes_over() {
    let scene = Scene::create().await;
    let first_image = scene.push("apps/a", "latest");
    let (first, _) = scene.start("", "");
    scene.until_visible("apps/a", "latest", &first_image).await;
    let (second, events_of_second) = scene.start("", "");
    // What the standby takes in, the writer works on.
    let image = scene.push("apps/b", "latest");
    let body = pushed("apps/b", "latest", &image).to_string();
    assert_eq!(post(&events_of_second, body).await, 202);
    scene.until_visible("apps/b", "latest", &image).await;
    assert_eq!(second.count("flagstate_registry_requests_total", None), 0);
    assert_eq!(second.count("flagstate_changes_total", None), 0);
    assert_eq!(value::<i64>(&scene.database, "SELECT epoch FROM writer_lease").await, 1);
    assert_eq!(scene.registry.count(Kind::Catalog), 1, "one of them scans");

    first.stop().await;
    scene
        .until_zero("the second one is the writer", "SELECT 2 - epoch FROM writer_lease")
        .await;
    let image = scene.push("apps/c", "latest");
    let body = pushed("apps/c", "latest", &image).to_string();
    assert_eq!(post(&events_of_second, body).await, 202);
    scene.until_visible("apps/c", "latest", &image).await;
    assert!(second.count("flagstate_changes_total", None) > 0);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_33_a_writer_that_slept_through_its_lease_cannot_write() {
    let scene = Scene::create().await;
    let image = scene.push("apps/a", "latest");
    let (indexer, _) = scene.start("", "");
    scene.until_visible("apps/a", "latest", &image).await;
    let pool = indexer.pool.clone();
    indexer.stop().await;

    let leases = LeaseStore::new(pool.clone());
    let url = scene.registry.url();
    let take = async |holder: &str| -> WriterLease {
        match leases.try_acquire(holder, url.as_str(), false).await.unwrap() {
            Acquired::Writer { lease, .. } => lease,
            Acquired::HeldBy { holder } => panic!("held by {holder}"),
        }
    };
    let sleeper = take("sleeper").await;
    assert!(matches!(
        leases.try_acquire("early", url.as_str(), false).await.unwrap(),
        Acquired::HeldBy { holder } if holder == "sleeper"
    ));
    let expire = "UPDATE writer_lease SET expires_at = '-infinity'";
    scene
        .database
        .client()
        .await
        .unwrap()
        .execute(expire, &[])
        .await
        .unwrap();
    let next = take("next").await;
    assert!(next.epoch() > sleeper.epoch());

    let hide_all = RepositoryFilter::new(vec!["none".parse().unwrap()], Vec::new());
    let revision = scene.revision().await;
    let store = |lease| WriteStore::open(pool.clone(), lease, 4);
    let fenced = |result: Result<(), WriteError>| matches!(result, Err(WriteError::Fenced { .. }));
    let sleeping = store(sleeper.clone());
    assert!(fenced(sleeping.exclude(&hide_all).await.map(drop)));
    assert!(fenced(sleeping.stage(&[]).await));
    assert_eq!(scene.revision().await, revision);
    let hidden = "SELECT count(*) FROM repository WHERE hidden";
    assert_eq!(
        value::<i64>(&scene.database, hidden).await,
        0,
        "nothing of it was written"
    );
    assert!(!leases.renew(&sleeper, Default::default()).await.unwrap());
    store(next).exclude(&hide_all).await.unwrap();
    assert_eq!(value::<i64>(&scene.database, hidden).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_33_the_registry_is_only_read() {
    let scene = Scene::create().await;
    scene.push("apps/a", "goes");
    let stays = scene.push("apps/a", "stays");
    let (indexer, events) = scene.start("", "");
    indexer.scan().await;
    scene.registry.delete_tag("apps/a", "goes");
    indexer.scan().await;
    let body = pushed("apps/a", "stays", &stays).to_string();
    assert_eq!(post(&events, body).await, 202);
    scene
        .until_zero("all work is done", "SELECT count(*) FROM scan_queue")
        .await;
    let requests = RequestStore::new(indexer.pool.clone());
    let collection = requests.ask(RequestKind::Gc).await.unwrap();
    until("what nothing needs is collected", async || {
        let outcome = requests.follow(collection).await.unwrap().outcome;
        if outcome.is_some() { Ok(()) } else { Err(()) }
    })
    .await;
    let requests = scene.registry.requests();
    assert!(!requests.is_empty());
    assert!(
        requests
            .iter()
            .all(|request| request.method == "GET" || request.method == "HEAD")
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_33_a_collection_that_fails_is_tried_again() {
    let scene = Scene::create().await;
    scene.push("apps/a", "goes");
    scene.push("apps/a", "stays");
    let (indexer, _) = scene.start("", "interval: {garbage_collect: 1s}\nhistory: {keep: 0}");
    indexer.scan().await;
    let client = scene.database.client().await.unwrap();
    client
        .batch_execute(
            "CREATE SEQUENCE refused;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('refused');
                 RAISE EXCEPTION 'nothing is removed today';
             END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON manifest FOR EACH ROW EXECUTE FUNCTION refuse();
             UPDATE manifest SET first_seen = first_seen - interval '2 hours';
             UPDATE repository_manifest SET first_seen = first_seen - interval '2 hours'",
        )
        .await
        .unwrap();
    scene.registry.delete_tag("apps/a", "goes");
    indexer.scan().await;
    scene
        .until_zero("it failed twice", "SELECT greatest(0, 2 - last_value) FROM refused")
        .await;
    assert_eq!(value::<i64>(&scene.database, "SELECT count(*) FROM manifest").await, 2);
    client.batch_execute("DROP TRIGGER refuse ON manifest").await.unwrap();
    scene
        .until_zero("what nothing needs is removed", "SELECT count(*) - 1 FROM manifest")
        .await;
    assert!(scene.digest("apps/a", "stays").await.is_some());
    indexer.stop().await;
}
