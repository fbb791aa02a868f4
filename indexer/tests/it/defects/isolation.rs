//! Nothing waits for a repository that hangs or fails (defect 35).

use std::sync::atomic::{AtomicU64, Ordering};

use flagstate_test_support::fake_registry::{Fault, Kind, Rule};
use serde_json::json;

use super::{Scene, event, hang, post, pushed, until, value};

#[tokio::test(flavor = "multi_thread")]
async fn defect_35_a_repository_that_hangs_holds_nobody_up() {
    let scene = Scene::create().await;
    scene.push("apps/0-hangs", "latest");
    scene.registry.add(Rule::on("/v2/apps/0-hangs/*", hang()));
    let images: Vec<_> = (1..30)
        .map(|number| scene.push(&format!("apps/{number}"), "latest"))
        .collect();
    let (indexer, events) = scene.start("", "");
    for (image, number) in images.iter().zip(1..) {
        scene.until_visible(&format!("apps/{number}"), "latest", image).await;
    }
    // The full scan waits for the one that hangs; what is notified does not.
    assert_eq!(indexer.count("flagstate_full_scans_total", None), 0);
    let image = scene.push_image("apps/1", "latest", "newer");
    assert_eq!(post(&events, pushed("apps/1", "latest", &image).to_string()).await, 202);
    scene.until_visible("apps/1", "latest", &image).await;
    assert_eq!(indexer.count("flagstate_full_scans_total", None), 0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_35_a_request_that_hangs_ends_with_its_time_and_the_scan_with_it() {
    let scene = Scene::create().await;
    for number in 0..20 {
        scene.push(&format!("apps/a-hangs-{number}"), "latest");
    }
    scene.registry.add(Rule::on("/v2/apps/a-hangs-*", hang()));
    let image = scene.push("apps/b", "latest");
    let (indexer, _) = scene.start("timeout: 200ms", "");
    let outcome = indexer.scan().await;
    assert!(outcome.contains("20 failed"), "{outcome}");
    assert_eq!(scene.digest("apps/b", "latest").await, Some(image.digest.to_string()));
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_35_events_are_served_while_the_catalog_hangs() {
    let scene = Scene::create().await;
    scene.registry.add(Rule::on("/v2/_catalog", hang()));
    let (indexer, events) = scene.start("", "");
    until("the catalog is asked for", async || {
        let asked = scene.registry.count(Kind::Catalog);
        if asked > 0 { Ok(()) } else { Err(asked) }
    })
    .await;
    let image = scene.push("apps/a", "latest");
    assert_eq!(post(&events, pushed("apps/a", "latest", &image).to_string()).await, 202);
    scene.until_visible("apps/a", "latest", &image).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_35_a_repository_that_fails_waits_by_itself_and_ever_longer() {
    let scene = Scene::create().await;
    scene.push("apps/fails", "latest");
    scene.registry.add(Rule::on("/v2/apps/fails/*", Fault::Status(500)));
    let good = scene.push("apps/good", "latest");
    let (indexer, events) = scene.start("", "");
    until("it failed three times", async || {
        let sql = "SELECT coalesce(max(attempts), 0) FROM scan_queue WHERE repository = 'apps/fails'";
        let attempts: i32 = value(&scene.database, sql).await;
        if attempts >= 3 { Ok(()) } else { Err(attempts) }
    })
    .await;
    scene.until_visible("apps/good", "latest", &good).await;
    let others = "SELECT count(*) FROM scan_queue WHERE repository <> 'apps/fails'";
    assert_eq!(value::<i64>(&scene.database, others).await, 0);
    // The eighth failure in a row is quarantine.
    let client = scene.database.client().await.unwrap();
    let seven = "UPDATE scan_queue SET attempts = 7, not_before = clock_timestamp()";
    client.execute(seven, &[]).await.unwrap();
    let far = "SELECT count(*) FROM scan_queue WHERE attempts < 8 OR not_before < clock_timestamp() + interval '30 s'";
    scene.until_zero("it is in quarantine", far).await;
    until("the quarantine is counted", async || {
        let families = indexer.metrics.gather();
        let gauge = families
            .iter()
            .find(|family| family.name() == "flagstate_queue_quarantined_repositories");
        let quarantined = gauge.map(|gauge| gauge.get_metric()[0].get_gauge().get_value());
        if quarantined == Some(1.0) {
            Ok(())
        } else {
            Err(quarantined)
        }
    })
    .await;
    let newer = scene.push_image("apps/good", "latest", "newer");
    assert_eq!(
        post(&events, pushed("apps/good", "latest", &newer).to_string()).await,
        202
    );
    scene.until_visible("apps/good", "latest", &newer).await;
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_35_busy_repositories_starve_nobody() {
    let scene = Scene::create().await;
    for number in 0..20 {
        scene.push(&format!("busy/{number}"), "latest");
    }
    let quiet = scene.push("quiet/one", "latest");
    let (indexer, events) = scene.start("", "interval: {fetch_all: 0}");
    let posted = AtomicU64::new(0);
    let noise = async {
        loop {
            let number = posted.fetch_add(1, Ordering::Relaxed) % 20;
            let target = json!({"repository": format!("busy/{number}"), "tag": "latest"});
            assert_eq!(post(&events, event("push", &target).to_string()).await, 202);
        }
    };
    let wait = async {
        until("the noise is there", async || {
            if posted.load(Ordering::Relaxed) > 40 {
                Ok(())
            } else {
                Err(())
            }
        })
        .await;
        let body = pushed("quiet/one", "latest", &quiet).to_string();
        assert_eq!(post(&events, body).await, 202);
        scene.until_visible("quiet/one", "latest", &quiet).await;
    };
    tokio::select! {
        () = noise => {}
        () = wait => {}
    }
    indexer.stop().await;
}
