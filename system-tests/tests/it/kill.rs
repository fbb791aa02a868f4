//! Kill -9 of the real indexer, at any moment (promises 1, 4 and 11).

use std::time::Duration;

use flagstate_test_support::images::{ImageBuilder, IndexBuilder, Manifest};
use flagstate_test_support::push::Pusher;

use futures::future::{join, join_all};
use rand::RngExt as _;

use crate::{database, system_without_scans};

const KILLS: usize = 15;
const PUSHES_A_KILL: usize = 4;

/// The registry tries a refused notification again after a second; so within this time there is work.
const LONGEST_LIFE: Duration = Duration::from_millis(1_500);

/// Every third one is an image index, with a nested one.
fn manifest(number: usize) -> Manifest {
    let image = |part: &str| ImageBuilder::new(&format!("{number} {part}")).label("number", part);
    let amd = image("amd64").build();
    if !number.is_multiple_of(3) {
        return amd;
    }
    let arm = image("arm64").platform("linux", "arm64").build();
    let nested = IndexBuilder::new().annotation("nested", "yes").member(arm).build();
    IndexBuilder::new().member(amd).attested().member(nested).build()
}

fn repository(number: usize) -> String {
    format!("apps/{}", number % 5)
}

/// Pushes under a tag of its own, so that each notification is the only one that tells what it tells.
async fn push(pusher: &Pusher, number: usize) {
    let tag = format!("v{number}");
    pusher
        .push(&repository(number), &manifest(number), &[&tag])
        .await
        .unwrap();
}

/// Deletes half of what was pushed.
async fn delete(pusher: &Pusher, number: usize) {
    if number.is_multiple_of(2) {
        let digest = manifest(number).digest;
        pusher.delete_manifest(&repository(number), &digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_loses_nothing() {
    let mut system = system_without_scans().await;
    let pusher = system.pusher().unwrap();
    let client = system.database.client().await.unwrap();
    let mut in_work = 0;
    for round in 0..KILLS {
        let numbers = round * PUSHES_A_KILL..(round + 1) * PUSHES_A_KILL;
        let pushes = join_all(numbers.clone().map(|number| push(&pusher, number)));
        let before = numbers.filter_map(|number| number.checked_sub(PUSHES_A_KILL));
        let deletes = join_all(before.map(|number| delete(&pusher, number)));
        let life = rand::rng().random_range(Duration::ZERO..LONGEST_LIFE);
        let kill = async {
            tokio::time::sleep(life).await;
            system.indexer.kill().await.unwrap();
        };
        join(join(pushes, deletes), kill).await;
        in_work += usize::from(
            !database::rows(&system.database, "SELECT repository FROM scan_queue")
                .await
                .is_empty(),
        );
        // As if the time had passed after which the dead writer's lease may be taken.
        let expire = "UPDATE writer_lease SET expires_at = clock_timestamp() - interval '1 s'";
        client.execute(expire, &[]).await.unwrap();
        system.indexer.start().await.unwrap();
    }
    // This time it does pass.
    system.indexer.kill().await.unwrap();
    system.indexer.start().await.unwrap();

    database::equals_registry(&system).await;
    database::fits_together(&system.database).await;
    let terms: i64 = client.query_one("SELECT epoch FROM state", &[]).await.unwrap().get(0);
    assert!(
        terms > KILLS as i64 / 2,
        "hardly any that was killed was the writer: {terms}"
    );
    println!(
        "{} kills of {terms} writers, {in_work} with accepted work left",
        KILLS + 1
    );
}
