//! The running program as its operators see it (defect 26).

use flagstate_test_support::{http, ports};
use tokio_util::sync::CancellationToken;

use super::{Scene, until};

#[tokio::test(flavor = "multi_thread")]
async fn defect_26_the_indexer_tells_health_readiness_version_and_metrics_on_its_own_port() {
    let scene = Scene::create().await;
    let image = scene.push("apps/secret-name", "latest");
    let (events, admin) = (ports::free().unwrap(), ports::free().unwrap());
    let listen = format!("listen: {{indexer: '{events}', indexer_admin: '{admin}'}}");
    let ends = CancellationToken::new();
    let config = scene.config("", &listen);
    let running = tokio::spawn(flagstate_indexer::app::run(config, false, ends.clone()));
    let client = http::client().unwrap();
    let get = async |address: std::net::SocketAddr, path: &str| {
        let answer = client.get(format!("http://{address}{path}")).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.unwrap()))
    };
    until("it is ready", async || match get(admin, "/readyz").await {
        Some((200, _)) => Ok(()),
        other => Err(other),
    })
    .await;
    scene.until_visible("apps/secret-name", "latest", &image).await;
    assert_eq!(get(admin, "/livez").await.unwrap().0, 200);
    let (status, metrics) = get(admin, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    for line in [
        "flagstate_build_info{",
        "flagstate_writer 1",
        "flagstate_writer_epoch 1",
        "flagstate_changes_total{kind=\"tags_moved\"} 1",
        "process_resident_memory_bytes ",
    ] {
        assert!(
            metrics.lines().any(|found| found.starts_with(line)),
            "{line} in\n{metrics}"
        );
    }
    assert!(!metrics.contains("secret-name"));
    for path in ["/livez", "/readyz", "/metrics", "/debug/pprof/"] {
        assert_eq!(get(events, path).await.unwrap().0, 404, "{path} on the public port");
    }
    ends.cancel();
    running.await.unwrap().unwrap();
}
