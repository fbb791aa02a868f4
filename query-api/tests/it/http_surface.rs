//! Paths, methods, the shape of answers and of errors (defects 25 and 26).

use serde_json::json;

use crate::http;
use crate::index::Index;
use crate::service::{REGISTRY, Service};

#[tokio::test]
async fn answers_in_the_protocol_s_shape() {
    let mut index = Index::create().await;
    index.push("apps/b", "latest", &[("b", "2"), ("a", "1")]).await;
    index.push_index("apps/a", "1.0").await;
    let service = Service::start(&index);
    let answer = service.get("/index/static").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    insta::assert_snapshot!(String::from_utf8(answer.body).expect("a text"));

    let nothing = service.get("/index/static?tag=none").await;
    assert_eq!(nothing.json(), json!({"Registry": REGISTRY, "Results": []}));
    service.stop().await;
}

#[tokio::test]
async fn defect_25_unknown_paths_are_404_and_unknown_methods_405() {
    let mut index = Index::create().await;
    index.push("apps/a", "latest", &[]).await;
    let service = Service::start(&index);
    for target in [
        "/",
        "/index",
        "/index/",
        "/index/static/",
        "/index%2Fstatic",
        "/INDEX/static",
        "/home",
        "/livez",
        "/readyz",
        "/metrics",
        "/debug/pprof/",
        "/events",
        "/v2/",
        "/api/v1/nothing",
    ] {
        let answer = service.get(target).await;
        assert_eq!(answer.status, 404, "{target}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("apps/a"), "{target}");
    }
    for target in ["/index/static", "/index/dynamic"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let answer = service.request(method, target, &[], "").await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET, HEAD")),
                "{method} {target}"
            );
        }
    }
    let answer = service.get("/assert").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    service.stop().await;
}

#[tokio::test]
async fn errors_are_problem_details_that_say_what_and_where() {
    let index = Index::create().await;
    let service = Service::start(&index);
    for (target, status, kind, words) in [
        ("/nowhere", 404, "not-found", "path"),
        ("/index/static?label:a:exists=2", 400, "query", "'label:a:exists'"),
        ("/index/static?tag=%00", 400, "query", "'tag'"),
        ("/index/static?tag=%ff", 400, "query", "'tag'"),
        ("/index/static?tag=%z", 400, "query", "'tag'"),
        ("/index/static?junk=%z", 400, "query", "'junk'"),
        ("/index/static?digest=x", 400, "query", "'digest'"),
        ("/index/static?as_of=yesterday", 400, "query", "'as_of'"),
        ("/index/static?as_of=2999-01-01T00:00:00Z", 400, "future", "future"),
        ("/index/static?as_of=1.1", 410, "other-era", "era"),
        ("/index/static?as_of=1990-01-01T00:00:00Z", 410, "gone", "kept"),
    ] {
        let answer = service.get(target).await;
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{target}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{target}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{target}");
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:flagstate:problem:{kind}"), "{target}");
        assert_eq!(problem["status"], status, "{target}");
        assert!(problem["title"].is_string(), "{problem}");
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains(words)),
            "{problem}"
        );
        assert_eq!(problem["request_id"].as_str().map(str::len), Some(32), "{problem}");
    }
    service.stop().await;
}

#[tokio::test]
async fn queries_over_a_limit_are_refused_before_the_database_and_counted() {
    // Nobody listens there: whoever asks the database gets 503.
    let service = Service::start_with("postgres://nobody@127.0.0.1:1/nowhere", "2s", false);
    let long = format!("tag={}", "x".repeat(8192));
    let terms: String = (0..65).map(|number| format!("tag=v{number}&")).collect();
    let keys: String = (0..17).map(|number| format!("label:k{number}=v&")).collect();
    let pattern = format!("tag:matches={}", "x".repeat(129));
    for (query, limit) in [
        (long.as_str(), "query_string"),
        (&terms, "query_terms"),
        (&keys, "query_keys"),
        (&pattern, "pattern"),
        ("tag:matches=*****", "pattern_stars"),
    ] {
        let line = format!("flagstate_limit_hits_total{{limit=\"{limit}\"}} ");
        assert!(service.metrics().await.contains(&format!("{line}0\n")), "{limit}");
        assert_eq!(
            service.get(&format!("/index/static?{query}")).await.status,
            400,
            "{limit}"
        );
        assert!(service.metrics().await.contains(&format!("{line}1\n")), "{limit}");
    }
    assert_eq!(service.get("/index/static").await.status, 503);
    service.stop().await;
}

#[tokio::test]
async fn defect_26_health_readiness_and_metrics_are_on_their_own_port() {
    let mut index = Index::create().await;
    let revision = index.push("apps/secret-name", "latest", &[]).await;
    let service = Service::start(&index);
    assert_eq!(
        http::request(service.admin_address, "GET", "/livez", &[], "")
            .await
            .status,
        200
    );
    service.becomes_ready().await;
    let target = "/index/static?repository=apps/secret-name";
    assert_eq!(service.get(target).await.tags(), ["latest"]);
    for target in ["/apps/secret-name", "/another/path"] {
        assert_eq!(service.request("BREW", target, &[], "").await.status, 404);
    }
    let metrics = loop {
        let metrics = service.metrics().await;
        if metrics.contains(&format!("flagstate_revision {}\n", revision.n)) {
            break metrics;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    for line in [
        "flagstate_http_requests_total{method=\"GET\",route=\"/index/static\",status=\"200\"} 1",
        "flagstate_http_requests_total{method=\"other\",route=\"other\",status=\"404\"} 2",
        "flagstate_http_request_seconds_count{route=\"/index/static\"} 1",
        "flagstate_database_up 1",
        "flagstate_scan_age_seconds -1",
        &format!("flagstate_revision_era {}", revision.era),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    assert!(metrics.contains("flagstate_build_info{"));
    assert!(!metrics.contains("secret-name"));
    service.stop().await;
}

#[tokio::test]
async fn assert_is_nowhere_unless_it_is_switched_on() {
    let index = Index::create().await;
    let service = Service::start_with(&index.database.reader_url(), "2s", false);
    let answer = service.request("POST", "/assert", &[], r#"{"Assertions": []}"#).await;
    assert_eq!(answer.status, 404);
    service.stop().await;
}
