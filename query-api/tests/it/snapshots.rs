//! One answer is one state of the index (promise 1, defect 29).

use std::sync::atomic::{AtomicBool, Ordering};

use crate::index::Index;
use crate::service::Service;

#[tokio::test]
async fn defect_29_images_lists_and_revision_are_of_one_snapshot() {
    const CHANGES: i64 = 60;
    let mut index = Index::create().await;
    // The tag is an image at every even number of changes and an image index at every odd one.
    let first = index.push("apps/a", "latest", &[]).await.n;
    let service = Service::start(&index);
    let is_done = AtomicBool::new(false);
    let write = async {
        for _ in 0..CHANGES / 2 {
            index.push_index("apps/a", "latest").await;
            index.push("apps/a", "latest", &[]).await;
        }
        is_done.store(true, Ordering::Relaxed);
    };
    let read = async {
        let mut seen = std::collections::BTreeSet::new();
        while !is_done.load(Ordering::Relaxed) {
            let answer = service.get("/index/static").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let revision = answer.header("flagstate-revision").expect("a revision");
            let (_, n) = revision.split_once('.').expect("a revision");
            let n: i64 = n.parse().expect("a number");
            let json = answer.json();
            let result = &json["Results"][0];
            let count = |kind: &str| result[kind].as_array().expect("an array").len();
            let expected = if (n - first) % 2 == 0 { (1, 0) } else { (0, 1) };
            assert_eq!((count("Images"), count("Lists")), expected, "at {revision}");
            assert!(seen.last().is_none_or(|last| *last <= n), "never backwards");
            seen.insert(n);
        }
        seen
    };
    let ((), seen) = tokio::join!(write, read);
    assert!(seen.len() > 1, "there was something to mix up: {seen:?}");
    service.stop().await;
}
