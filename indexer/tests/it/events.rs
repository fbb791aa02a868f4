//! Notifications of a real registry, without scans that could hide a loss.

use std::time::Instant;

use flagstate_test_support::docker_registry::{DockerRegistry, Notifications, Options};
use flagstate_test_support::images::{ImageBuilder, Manifest};
use flagstate_test_support::postgres::TestDatabase;
use futures::{StreamExt as _, stream};

use super::harness::{Indexer, TOKEN, config, index_contents, listener, until};

fn image(number: usize) -> Manifest {
    ImageBuilder::new(&format!("image {number}"))
        .label("number", &number.to_string())
        .build()
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_become_visible_and_none_is_lost() {
    const PUSHES: usize = 200;
    let database = TestDatabase::create().await.unwrap();
    let (events, url) = listener();
    let notifications = Some(Notifications {
        url,
        token: Some(TOKEN.to_owned()),
    });
    let registry = DockerRegistry::start(Options {
        notifications,
        ..Options::default()
    })
    .await
    .unwrap();
    let indexer = Indexer::start(config(&registry.url(), &database, "interval: {fetch_all: 0}"), events);
    let pusher = registry.pusher().unwrap();
    let client = database.client().await.unwrap();
    let statement = client
        .prepare(
            "SELECT EXISTS (SELECT FROM tag t JOIN repository r ON r.id = repository_id JOIN manifest m ON m.id = manifest_id
             WHERE r.name = $1 AND t.name = $2 AND substr(m.digest, 2) = decode($3, 'hex'))",
        )
        .await
        .unwrap();
    let (client, statement, pusher) = (&client, &statement, &pusher);
    let mut latencies: Vec<f64> = stream::iter(0..PUSHES)
        .map(|number| async move {
            let image = image(number);
            let (repository, tag) = if number % 2 == 0 {
                ("apps/moving", "latest".to_owned())
            } else {
                ("apps/many", format!("v{number}"))
            };
            pusher.push(repository, &image, &[&tag]).await.unwrap();
            let pushed = Instant::now();
            if number % 2 == 1 {
                let digest = image.digest.to_string();
                let hash = digest.trim_start_matches("sha256:");
                until(&format!("{repository}:{tag} is visible"), async || {
                    let row = client.query_one(statement, &[&repository, &tag, &hash]).await.unwrap();
                    if row.get::<_, bool>(0) { Ok(()) } else { Err(hash) }
                })
                .await;
            }
            pushed.elapsed().as_secs_f64()
        })
        .buffer_unordered(8)
        .collect()
        .await;
    latencies.sort_by(f64::total_cmp);
    println!(
        "PUT to visible: p50 {:.1} ms, p99 {:.1} ms",
        latencies[PUSHES * 3 / 4] * 1000.0,
        latencies[PUSHES - 2] * 1000.0
    );
    let contents = registry.contents().await.unwrap();
    until("index = registry after pushes", async || {
        let index = index_contents(&database).await;
        if index == contents { Ok(()) } else { Err(index) }
    })
    .await;
    // Deletes by digest, of every second image; then of the last ones too.
    for round in [0, 1] {
        for number in (1..PUSHES).step_by(2).filter(|number| (number / 2) % 2 == round) {
            pusher
                .delete_manifest("apps/many", &image(number).digest)
                .await
                .unwrap();
        }
        let contents = registry.contents().await.unwrap();
        until("index = registry after deletes", async || {
            let index = index_contents(&database).await;
            if index == contents { Ok(()) } else { Err(index) }
        })
        .await;
    }
    assert_eq!(
        index_contents(&database)
            .await
            .repositories()
            .keys()
            .collect::<Vec<_>>(),
        ["apps/moving"]
    );
    let lost = client
        .query_one("SELECT count(*) FROM scan_queue WHERE attempts > 0", &[])
        .await
        .unwrap();
    assert_eq!(lost.get::<_, i64>(0), 0);
    println!(
        "registry requests: {}",
        indexer.count("flagstate_registry_requests_total", None)
    );
    indexer.stop().await;
}
