//! Transactions: none is open while the registry is asked, and those of parallel scans do not harm each other
//! (defect 30).

use std::collections::HashMap;
use std::time::Duration;

use flagstate_test_support::fake_registry::{Kind, Rule};
use flagstate_test_support::images::{ImageBuilder, IndexBuilder};

use super::{Scene, fill, hang, index_contents, post, pushed, until, value};

#[tokio::test(flavor = "multi_thread")]
async fn defect_30_no_transaction_is_open_while_the_registry_is_asked() {
    let scene = Scene::create().await;
    scene.push("apps/scanned", "latest");
    let notified = scene.push("apps/notified", "latest");
    // Tags and manifests are there already when the configs do not come.
    scene.registry.add(Rule::on("/v2/*/blobs/*", hang()));
    let (indexer, events) = scene.start("", "");
    assert_eq!(
        post(&events, pushed("apps/notified", "latest", &notified).to_string()).await,
        202
    );
    until("the registry hangs", async || {
        let asked = scene.registry.count(Kind::Blob);
        if asked >= 2 { Ok(()) } else { Err(asked) }
    })
    .await;
    let open = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL";
    // The heartbeat and the queue's poll are short; what is open because of the registry stays open.
    let mut fewest = i64::MAX;
    for _ in 0..20 {
        fewest = fewest.min(value::<i64>(&scene.database, open).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(fewest, 0);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_30_rows_that_scans_share_are_written_in_the_order_of_their_digests() {
    let scene = Scene::create().await;
    let client = scene.database.client().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE written (number bigserial, relation text, transaction xid8, digest bytea);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO written (relation, transaction, digest)
                 VALUES (TG_TABLE_NAME, pg_current_xact_id(), NEW.digest);
                 RETURN NULL;
             END $$;
             CREATE TRIGGER note AFTER INSERT ON manifest FOR EACH ROW EXECUTE FUNCTION note();
             CREATE TRIGGER note AFTER INSERT ON document FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await
        .unwrap();
    for number in 0..40 {
        scene.push("apps/a", &format!("v{number}"));
    }
    // Large ones are stored ahead of the change set, on a path of its own.
    for number in 0..40 {
        let large = ImageBuilder::new(&format!("large {number}"))
            .label("large", &"x".repeat(256 * 1024))
            .build();
        fill(&scene.registry, "apps/large", &large, &[&format!("v{number}")]);
    }
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let rows = client
        .query(
            "SELECT relation || ' ' || transaction, digest FROM written ORDER BY number",
            &[],
        )
        .await
        .unwrap();
    let mut by_transaction: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for row in &rows {
        by_transaction.entry(row.get(0)).or_default().push(row.get(1));
    }
    assert!(
        by_transaction.values().any(|digests| digests.len() > 20),
        "{}",
        rows.len()
    );
    for (transaction, digests) in by_transaction {
        assert!(digests.is_sorted(), "{transaction}");
    }
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_30_parallel_scans_of_shared_digests_do_not_fail() {
    const SHARED: usize = 40;
    let scene = Scene::create().await;
    let member = |number: usize| ImageBuilder::new(&format!("shared {number}")).build();
    for repository in 0..16 {
        for place in 0..SHARED {
            // Each repository comes by the shared ones in another order.
            let number = (place * 7 + repository * 5) % SHARED;
            let index = IndexBuilder::new()
                .member(member(number))
                .member(member((number + 1) % SHARED));
            let name = format!("apps/{repository}");
            fill(&scene.registry, &name, &index.build(), &[&format!("v{place}")]);
        }
    }
    let (indexer, _) = scene.start("", "");
    let outcome = indexer.scan().await;
    assert!(outcome.contains("0 failed"), "{outcome}");
    assert_eq!(indexer.count("flagstate_repository_scans_total", Some("failure")), 0);
    let index = index_contents(&scene.database).await;
    assert!(index.repositories().len() == 16 && index.repositories().values().all(|tags| tags.len() == SHARED));
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_30_a_transaction_that_lost_a_race_is_tried_again() {
    let scene = Scene::create().await;
    let client = scene.database.client().await.unwrap();
    for (state, relation) in [("40P01", "manifest"), ("40001", "tag")] {
        client
            .batch_execute(&format!(
                "CREATE SEQUENCE lost_{relation};
                 CREATE FUNCTION lose_{relation}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF nextval('lost_{relation}') <= 2 THEN
                         RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '{state}';
                     END IF;
                     RETURN NEW;
                 END $$;
                 CREATE TRIGGER lose BEFORE INSERT ON {relation} FOR EACH ROW EXECUTE FUNCTION lose_{relation}()"
            ))
            .await
            .unwrap();
    }
    let image = scene.push("apps/a", "latest");
    let (indexer, _) = scene.start("", "");
    let outcome = indexer.scan().await;
    assert!(outcome.contains("0 failed"), "{outcome}");
    assert_eq!(scene.digest("apps/a", "latest").await, Some(image.digest.to_string()));
    let races: i64 = value(&scene.database, "SELECT last_value FROM lost_tag").await;
    assert!(races > 2, "{races}");
    indexer.stop().await;
}
