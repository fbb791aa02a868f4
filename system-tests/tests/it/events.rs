//! From a push to the answer of query-api, with notifications alone: no scan hides a loss.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flagstate_test_support::images::{ImageBuilder, Manifest};
use flagstate_test_support::push::Pusher;
use flagstate_test_support::system::System;
use flagstate_test_support::{http, wait};
use futures::{StreamExt as _, stream};
use serde_json::Value;
use url::Url;

use crate::{database, system_without_scans};

const PUSHES: usize = 200;
const AT_ONCE: usize = 8;

/// How often query-api is asked for what was pushed.
const PAUSE: Duration = Duration::from_millis(10);

/// Only what is lost takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn image(number: usize) -> Manifest {
    ImageBuilder::new(&format!("image {number}"))
        .label("number", &number.to_string())
        .build()
}

/// Asks query-api as clients do, without the proxy.
struct Index {
    client: reqwest::Client,
    url: Url,
}

impl Index {
    fn of(system: &System) -> Self {
        Self {
            client: http::client().unwrap(),
            url: system.query_api.url().unwrap().join("/index/dynamic").unwrap(),
        }
    }

    /// Digest of the image that a tag points at.
    async fn find(&self, repository: &str, tag: &str) -> Option<String> {
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("repository", repository)
            .append_pair("tag", tag);
        let answer = self.client.get(url).send().await.unwrap().error_for_status().unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let digest = &answer["Results"][0]["Images"][0]["Digest"];
        digest.as_str().map(str::to_owned)
    }
}

fn repository_and_tag(number: usize) -> (&'static str, String) {
    if number.is_multiple_of(2) {
        ("apps/moving", "latest".to_owned())
    } else {
        ("apps/many", format!("v{number}"))
    }
}

/// Puts a manifest under its tag, and waits until that is visible; tells how long after the registry's answer it was.
///
/// `answers` counts the registry's answers to pushes of the moving tag: when another one came meanwhile, its push may
/// have been the later one, and this one is never seen.
async fn push(pusher: &Pusher, index: &Index, answers: &AtomicUsize, number: usize) -> Option<Duration> {
    let (image, (repository, tag)) = (image(number), repository_and_tag(number));
    let is_move = tag == "latest";
    let before = answers.load(Ordering::SeqCst);
    pusher.put_manifest(repository, &tag, &image).await.unwrap();
    let pushed = Instant::now();
    answers.fetch_add(usize::from(is_move), Ordering::SeqCst);
    let digest = image.digest.to_string();
    let deadline = pushed + PATIENCE;
    while index.find(repository, &tag).await.as_ref() != Some(&digest) {
        if is_move && answers.load(Ordering::SeqCst) != before + 1 {
            return None;
        }
        assert!(Instant::now() < deadline, "{repository}:{tag} is lost");
        tokio::time::sleep(PAUSE).await;
    }
    Some(pushed.elapsed())
}

/// Deletes, and waits until that is visible; tells how long after the registry's answer it was.
async fn delete(pusher: &Pusher, index: &Index, number: usize) -> Duration {
    pusher
        .delete_manifest("apps/many", &image(number).digest)
        .await
        .unwrap();
    let deleted = Instant::now();
    wait::until("the removal is visible", async || {
        index.find("apps/many", &format!("v{number}")).await.map_or(Ok(()), Err)
    })
    .await
    .unwrap();
    deleted.elapsed()
}

fn percentiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort();
    let count = latencies.len();
    let rank = |percent: usize| latencies[(count * percent / 100).min(count - 1)];
    format!(
        "p50 {:.1?}, p90 {:.1?}, p99 {:.1?} of {count}",
        rank(50),
        rank(90),
        rank(99)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_become_visible_at_query_api_and_none_is_lost() {
    let system = system_without_scans().await;
    let (pusher, index, answers) = (system.pusher().unwrap(), Index::of(&system), AtomicUsize::new(0));
    for number in 0..PUSHES {
        for blob in &image(number).blobs {
            pusher.push_blob(repository_and_tag(number).0, blob).await.unwrap();
        }
    }
    let pushes = stream::iter(0..PUSHES).map(|number| push(&pusher, &index, &answers, number));
    let latencies: Vec<_> = pushes.buffer_unordered(AT_ONCE).collect().await;
    let latencies = latencies.into_iter().flatten().collect();
    println!("PUT to visible: {}", percentiles(latencies));
    database::equals_registry(&system).await;

    // By digest, first of every second image, then of the last ones too.
    for round in [0, 1] {
        let numbers = (1..PUSHES).step_by(2).filter(|number| number / 2 % 2 == round);
        let deletes = stream::iter(numbers).map(|number| delete(&pusher, &index, number));
        let latencies = deletes.buffer_unordered(AT_ONCE).collect().await;
        println!("DELETE to visible: {}", percentiles(latencies));
        database::equals_registry(&system).await;
    }
    let left = database::contents(&system.database).await;
    assert_eq!(left.repositories().keys().collect::<Vec<_>>(), ["apps/moving"]);
    let failed = database::rows(
        &system.database,
        "SELECT to_jsonb(q)::text FROM scan_queue q WHERE attempts > 0",
    )
    .await;
    assert_eq!(failed, [""; 0]);
    database::fits_together(&system.database).await;
}
