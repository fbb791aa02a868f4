//! Tries, pauses and how much is sent at once.

use std::time::Duration;

use flagstate_indexer::registry::{MAX_TRIES, RegistryError};
use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Kind, Rule};
use futures::future::join_all;

use super::{Client, fill, name, tag, until};

fn pause(status: u16, retry_after: Option<&str>, marked: Duration) -> Fault {
    Fault::Pause {
        status,
        retry_after: retry_after.map(str::to_owned),
        marked,
    }
}

#[tokio::test]
async fn nothing_is_sent_while_the_registry_asked_for_a_pause() {
    for status in [429, 503] {
        let registry = FakeRegistry::builder().start().await.unwrap();
        fill(&registry, 20);
        registry.add(Rule::on("*", pause(status, Some("1"), Duration::from_secs(1))).times(1));
        let client = Client::new(&registry.url(), "");
        let apps = name("apps/a");
        let first = tag("t0000");
        let others = async {
            let pauses = || client.counted("flagstate_registry_pauses_total", &[]);
            until("the first request is asked to wait", || pauses() == 1).await;
            assert_eq!(registry.requests().len(), 1);
            let references: Vec<_> = (1..20).map(|number| tag(&format!("t{number:04}"))).collect();
            let calls = references
                .iter()
                .map(|reference| client.head_manifest(&apps, reference));
            for result in join_all(calls).await {
                result.unwrap().unwrap();
            }
        };
        let (first, ()) = tokio::join!(client.head_manifest(&apps, &first), others);
        first.unwrap().unwrap();
        let requests = registry.requests();
        assert_eq!(requests.len(), 21);
        assert_eq!(requests.iter().filter(|request| request.is_in_pause).count(), 0);
    }
}

#[tokio::test]
async fn a_pause_has_a_limit() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, 1);
    registry.add(Rule::on("*", pause(429, Some("999999999999"), Duration::ZERO)).times(1));
    let client = Client::with(&registry.url(), "", "retry_after: 100ms", &[]).unwrap();
    client
        .head_manifest(&name("apps/a"), &tag("t0000"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(client.limit_hits("retry_after"), 1);
}

#[tokio::test]
async fn a_registry_that_goes_on_asking_for_pauses_is_an_error_in_the_end() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, 1);
    for retry_after in [Some("0"), Some("-7"), Some("soon"), None] {
        registry.behave();
        registry.clear_log();
        registry.add(Rule::on("*", pause(429, retry_after, Duration::ZERO)));
        let client = Client::with(&registry.url(), "", "retry_after: 50ms", &[]).unwrap();
        let error = client.get_manifest(&name("apps/a"), &tag("t0000")).await.unwrap_err();
        assert!(matches!(error, RegistryError::RateLimited { .. }), "{error:?}");
        assert_eq!(registry.requests().len(), 3);
    }
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again_and_others_are_not() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, 1);
    let client = Client::new(&registry.url(), "");
    let tries = usize::try_from(MAX_TRIES).unwrap();
    for (fault, expected) in [
        (Fault::Status(500), tries),
        (Fault::Status(502), tries),
        (Fault::Status(503), tries),
        (Fault::Drop, tries),
        (Fault::Cut, tries),
        (Fault::Status(400), 1),
        (Fault::Status(403), 1),
        (Fault::Status(405), 1),
        (Fault::Status(410), 1),
        (Fault::Status(418), 1),
    ] {
        registry.behave();
        registry.clear_log();
        registry.add(Rule::on("*", fault.clone()));
        client.get_manifest(&name("apps/a"), &tag("t0000")).await.unwrap_err();
        assert_eq!(registry.count(Kind::GetManifest), expected);
        registry.behave();
        registry.add(Rule::on("*", fault).times(2));
        let result = client.get_manifest(&name("apps/a"), &tag("t0000")).await;
        assert_eq!(result.is_ok(), expected == tries);
    }
    let methods = registry.requests().into_iter().map(|request| request.method);
    assert!(methods.into_iter().all(|method| method == "GET"));
}

#[tokio::test]
async fn no_more_is_sent_at_once_than_configured() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, 40);
    registry.add(Rule::on("*", Fault::Delay(Duration::from_millis(10))));
    let client = Client::new(&registry.url(), "concurrency: 2");
    let apps = name("apps/a");
    let references: Vec<_> = (0..40).map(|number| tag(&format!("t{number:04}"))).collect();
    let calls = references
        .iter()
        .map(|reference| client.head_manifest(&apps, reference));
    for result in join_all(calls).await {
        result.unwrap().unwrap();
    }
    assert_eq!(registry.max_in_flight(), 2);
}

#[tokio::test]
async fn the_level_grows_on_a_registry_that_bears_it_and_falls_on_one_that_does_not() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    fill(&registry, 1);
    registry.add(Rule::on("*", Fault::Delay(Duration::from_millis(20))));
    let client = Client::new(&registry.url(), "concurrency: 16");
    let level = || {
        let families = client.metrics.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "flagstate_registry_concurrency");
        family.unwrap().get_metric()[0].get_gauge().get_value() as u64
    };
    let (apps, reference) = (name("apps/a"), tag("t0000"));
    let start = level();
    let mut rounds = 0;
    while level() < 16 && rounds < 100 {
        join_all((0..100).map(|_| client.head_manifest(&apps, &reference))).await;
        rounds += 1;
    }
    assert!(start < 16);
    assert_eq!(level(), 16);
    assert!(registry.max_in_flight() > usize::try_from(start).unwrap());
    registry.behave();
    registry.add(Rule::on("*", Fault::Status(503)));
    client.head_manifest(&apps, &reference).await.unwrap_err();
    assert_eq!(level(), 8, "a single object that fails leaves room for the others");
}
