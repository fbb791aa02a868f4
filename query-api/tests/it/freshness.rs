//! How new answers are (promise 8).

use std::time::Duration;

use flagstate_common::revision::Revision;

use crate::http::Answer;
use crate::index::Index;
use crate::service::Service;

async fn get_since(service: &Service, revision: &str) -> Answer {
    service
        .get_with("/index/static", &[("Flagstate-Min-Revision", revision)])
        .await
}

#[tokio::test]
async fn a_demanded_revision_is_there_or_is_refused() {
    let mut index = Index::create().await;
    let first = index.push("apps/a", "v1", &[]).await;
    let present = index.push("apps/a", "v2", &[]).await;
    let service = Service::start(&index);
    for (demanded, status) in [
        (first.to_string(), 200),
        (present.to_string(), 200),
        (
            Revision {
                n: present.n + 1,
                ..present
            }
            .to_string(),
            503,
        ),
        (
            Revision {
                era: present.era - 1,
                ..present
            }
            .to_string(),
            410,
        ),
        (
            Revision {
                era: present.era + 1,
                ..present
            }
            .to_string(),
            410,
        ),
        ("1".to_owned(), 400),
        ("latest".to_owned(), 400),
        (String::new(), 400),
        (format!("{present}, {present}"), 400),
    ] {
        let answer = get_since(&service, &demanded).await;
        assert_eq!(answer.status, status, "{demanded}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{demanded}");
        if status == 200 {
            assert_eq!(answer.header("flagstate-revision"), Some(present.to_string().as_str()));
        } else {
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{demanded}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_demanded_revision_that_comes_in_time_is_waited_for() {
    let mut index = Index::create().await;
    let first = index.push("apps/a", "v1", &[]).await;
    let service = Service::start(&index);
    assert_eq!(service.get("/index/static").await.status, 200);
    let demanded = Revision {
        n: first.n + 1,
        ..first
    }
    .to_string();
    let push = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        index.push("apps/a", "v2", &[]).await
    };
    let (answer, pushed) = tokio::join!(get_since(&service, &demanded), push);
    assert_eq!(pushed.to_string(), demanded);
    assert_eq!(
        (answer.status, answer.tags()),
        (200, vec!["v1".to_owned(), "v2".to_owned()])
    );
    service.stop().await;
}

#[tokio::test]
async fn no_answer_is_older_than_one_that_was_given_before() {
    let mut index = Index::create().await;
    index.push("apps/a", "v1", &[]).await;
    let present = index.push("apps/a", "v2", &[]).await;
    let service = Service::start(&index);
    assert_eq!(service.get("/index/static").await.status, 200);

    // A standby that lags, then one that was restored with another past.
    for lagging in [
        Revision {
            n: present.n - 1,
            ..present
        },
        Revision {
            era: present.era - 1,
            n: present.n + 9,
        },
    ] {
        index.set_revision(lagging).await;
        let answer = service.get("/index/static?tag=v1").await;
        assert_eq!(answer.status, 503, "{lagging}");
        assert_eq!(answer.json()["type"], "urn:flagstate:problem:behind");
        assert!(answer.header("retry-after").is_some());
        // What is kept is newer than what the database shows.
        let answer = service.get("/index/static").await;
        assert_eq!(
            (answer.status, answer.header("flagstate-revision")),
            (200, Some(present.to_string().as_str())),
            "{lagging}"
        );
    }

    let catch_up = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        index.set_revision(present).await;
    };
    let (answer, ()) = tokio::join!(service.get("/index/static?tag=v1"), catch_up);
    assert_eq!(answer.status, 200);

    let next_era = Revision {
        era: present.era + 1,
        n: 0,
    };
    index.set_revision(next_era).await;
    let answer = service.get_since("/index/static", next_era, &[]).await;
    assert_eq!(
        (answer.status, answer.header("flagstate-revision")),
        (200, Some(next_era.to_string().as_str()))
    );
    service.stop().await;
}

#[tokio::test]
async fn a_revision_that_was_answered_is_not_of_the_future_on_a_standby_that_lags() {
    let mut index = Index::create().await;
    index.push("apps/a", "v1", &[]).await;
    let present = index.push("apps/a", "v2", &[]).await;
    let service = Service::start(&index);
    assert_eq!(service.get("/index/static").await.status, 200);
    index
        .set_revision(Revision {
            n: present.n - 1,
            ..present
        })
        .await;
    let target = format!("/index/static?as_of={present}");
    assert_eq!(service.get(&target).await.status, 503);
    index.set_revision(present).await;
    assert_eq!(service.get(&target).await.status, 200);
    let target = format!("/index/static?as_of={}.{}", present.era, present.n + 1);
    assert_eq!(service.get(&target).await.status, 400);
    service.stop().await;
}
