//! Regression tests of query-api for defects 10 and 25 of docs/DEFECTS.md; those of others stand with their subject.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::index::Index;
use crate::service::Service;

#[tokio::test]
async fn defect_10_each_repository_stands_once_and_in_byte_order_however_it_is_planned() {
    let mut index = Index::create().await;
    let mut expected = Vec::new();
    for number in 0..15 {
        // Collations other than that of bytes pass over punctuation.
        for name in ["apps/", "apps-", "apps.", "apps_", "app/s"].map(|start| format!("{start}{number}")) {
            index.push(&name, "image", &[]).await;
            index.push_index(&name, "index").await;
            expected.push(name);
        }
    }
    expected.sort();
    let settings = ["enable_sort", "enable_indexscan", "enable_mergejoin"];
    for setting in settings {
        let database = index.database.name();
        let off = format!("ALTER DATABASE {database} SET {setting} = off");
        index.client.execute(&off, &[]).await.expect("a setting");
    }
    let service = Service::start(&index);
    let answer = service.get("/index/static").await.json();
    let results = answer["Results"].as_array().expect("Results");
    let names: Vec<_> = results
        .iter()
        .map(|result| result["Name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, expected);
    for result in results {
        for (kind, tag) in [("Images", "image"), ("Lists", "index")] {
            let found = result[kind].as_array().expect("an array");
            assert_eq!(found.len(), 1, "{result}");
            assert_eq!(found[0]["Tags"][0], tag, "{result}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn defect_25_a_client_that_does_not_finish_its_request_is_sent_away() {
    let mut index = Index::create().await;
    index.push("apps/a", "v1", &[]).await;
    let service = Service::start(&index);
    let mut slow = TcpStream::connect(service.address).await.expect("a connection");
    slow.write_all(b"GET /index/static HTTP/1.1\r\nHost")
        .await
        .expect("sent");
    assert_eq!(service.get("/index/static").await.tags(), ["v1"]);
    let mut answer = Vec::new();
    // Nothing but the server's patience ends this.
    slow.read_to_end(&mut answer).await.expect("an end");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    service.stop().await;
}
