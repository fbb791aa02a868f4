//! Catalogs that are empty, short, endless or broken: absence is not deletion (defect 34).

use std::time::Duration;

use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Rule};

use super::{Scene, index_contents, no_such_repository};

const CATALOG: &str = "/v2/_catalog";

/// Thirty repositories on three pages.
async fn scene() -> Scene {
    let scene = Scene::with(FakeRegistry::builder().page_size(10)).await;
    for number in 10..40 {
        scene.push(&format!("apps/{number}"), "latest");
    }
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_34_no_catalog_that_lacks_something_removes_anything() {
    let scene = scene().await;
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let before = (index_contents(&scene.database).await, scene.revision().await);
    assert_eq!(before.0.repositories().len(), 30);
    let to_itself = "</v2/_catalog?last=apps%2F09&n=10>; rel=\"next\"";
    let cases: [(&str, Vec<Rule>); 6] = [
        ("empty", vec![Rule::on(CATALOG, Fault::entries(|_| Vec::new()))]),
        (
            "storage lost",
            vec![
                Rule::on(CATALOG, Fault::entries(|_| Vec::new())),
                Rule::on("/v2/*/tags/list", no_such_repository()),
            ],
        ),
        (
            "storage lost, names kept",
            vec![Rule::on("/v2/*/tags/list", no_such_repository())],
        ),
        ("truncated", vec![Rule::on(CATALOG, Fault::NoHeader("Link".to_owned()))]),
        ("looping", vec![Rule::on(CATALOG, Fault::header("Link", to_itself))]),
        ("refused", vec![Rule::on(CATALOG, Fault::Status(403))]),
    ];
    for (case, rules) in cases {
        rules.into_iter().for_each(|rule| scene.registry.add(rule));
        let outcome = indexer.scan().await;
        let after = (index_contents(&scene.database).await, scene.revision().await);
        assert_eq!(after, before, "{case}: {outcome}");
        scene.registry.behave();
    }
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_34_a_page_that_fails_takes_nothing_from_those_before_it() {
    let scene = scene().await;
    // The first page is good, and so is not the second one, however often it is asked for.
    scene
        .registry
        .add(Rule::on(CATALOG, Fault::Delay(Duration::ZERO)).times(1));
    scene.registry.add(Rule::on(CATALOG, Fault::Status(500)));
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let index = index_contents(&scene.database).await;
    let names: Vec<_> = index.repositories().keys().cloned().collect();
    let first_page: Vec<_> = (10..20).map(|number| format!("apps/{number}")).collect();
    assert_eq!(names, first_page);
    assert_eq!(indexer.count("flagstate_full_scans_total", Some("complete")), 0);
    scene.registry.behave();
    indexer.scan().await;
    assert_eq!(index_contents(&scene.database).await.repositories().len(), 30);
    indexer.stop().await;
}
