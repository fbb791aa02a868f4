//! The proxy's configuration, in front of parts that tell what they were asked.

#![allow(
    clippy::unwrap_used,
    reason = "Clippy does not take functions that tests share for tests"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, HOST, IF_NONE_MATCH, LOCATION};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use flagstate_test_support::nginx::{Nginx, Options, Upstreams};
use flagstate_test_support::{http, ports, wait};
use reqwest::header::{ETAG, HeaderMap};
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// What the origin was asked. It answers with a number that rises: `/fresh` is so for long, `/brief` for a second and
/// usable for long, and anything else may not be stored.
#[derive(Clone, Default)]
struct Origin {
    count: Arc<AtomicU32>,
    encodings: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    fn asked(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }
}

async fn answer(request: HttpRequest, origin: web::Data<Origin>) -> HttpResponse {
    let number = origin.count.fetch_add(1, Ordering::SeqCst);
    let encoding = request
        .headers()
        .get(ACCEPT_ENCODING)
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    origin.encodings.lock().unwrap().push(encoding.clone());
    let freshness = match request.path() {
        "/fresh" => "public, max-age=600",
        "/brief" => "public, max-age=1, stale-while-revalidate=600, stale-if-error=600",
        _ => "no-store",
    };
    let etag = format!("\"{encoding}\"");
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CACHE_CONTROL, freshness))
        .insert_header((ETAG.as_str(), etag));
    response.insert_header(("Vary", "Accept-Encoding"));
    response.body(format!("{number} {}", request.uri()))
}

/// Tells what it was sent, in a Location as registries do.
async fn upload(request: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    use futures::StreamExt as _;
    let mut length = 0;
    while let Some(chunk) = payload.next().await {
        length += chunk.unwrap().len();
    }
    let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
    let location = format!(
        "{}://{}{}",
        header("x-forwarded-proto"),
        header(HOST.as_str()),
        request.uri()
    );
    HttpResponse::Accepted()
        .insert_header((LOCATION, location))
        .body(length.to_string())
}

/// After it what was fresh for a second is not, by a clock of whole seconds.
const LONGER_THAN_BRIEF: Duration = Duration::from_millis(2_100);

struct Stage {
    proxy: Nginx,
    origin: Origin,
    origin_server: ServerHandle,
    client: Client,
}

impl Stage {
    async fn set() -> Self {
        let origin = Origin::default();
        let (query_api, origin_server) = serve({
            let origin = web::Data::new(origin.clone());
            move |app: &mut web::ServiceConfig| {
                app.app_data(origin.clone()).default_service(web::to(answer));
            }
        });
        let (uploads, _) = serve(|app: &mut web::ServiceConfig| {
            app.default_service(web::to(upload));
        });
        let upstreams = Upstreams {
            registry: format!("http://{uploads}").parse().unwrap(),
            registry_is_elsewhere: false,
            indexer: uploads,
            query_api,
        };
        let proxy = Nginx::start(Options {
            address: ports::free().unwrap(),
            upstreams,
            directives: String::new(),
            on_line: None,
        })
        .await
        .unwrap();
        Self {
            proxy,
            origin,
            origin_server,
            client: http::client().unwrap(),
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut request = self.client.get(self.proxy.url().join(path).unwrap());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.headers().clone(), answer.text().await.unwrap())
    }
}

fn serve<F>(configure: F) -> (SocketAddr, ServerHandle)
where
    F: Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
{
    let server = HttpServer::new(move || App::new().configure(configure.clone()))
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
    let address = server.addrs()[0];
    let running = server.run();
    let handle = running.handle();
    tokio::spawn(running);
    (address, handle)
}

#[actix_web::test]
async fn answers_are_kept_by_uri_and_by_class_of_encoding() {
    let stage = Stage::set().await;
    let spellings = [
        ("gzip, br;q=0.5", "br"),
        ("BR", "br"),
        ("deflate,  br", "br"),
        ("gzip;q=1.0, *;q=0", "gzip"),
        ("gzip", "gzip"),
        ("gzip, br;q=0", "gzip"),
        ("br;q=0.000, gzip;q=0.05", "gzip"),
        ("gzip;q=0", "identity"),
        ("xgzip", "identity"),
        ("brotli", "identity"),
    ];
    for (spelling, class) in spellings {
        let (status, headers, _) = stage.get("/fresh", &[("accept-encoding", spelling)]).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[ETAG], format!("\"{class}\""), "{spelling}");
        assert_eq!(headers["vary"], "Accept-Encoding");
    }
    assert_eq!(*stage.origin.encodings.lock().unwrap(), ["br", "gzip", "identity"]);
    let other = stage.get("/fresh?a=1", &[("accept-encoding", "br")]).await;
    assert_eq!(
        (other.2.as_str(), other.1["cache-status"].to_str().unwrap()),
        ("3 /fresh?a=1", "flagstate; fwd=uri-miss")
    );
    let host = stage
        .get(
            "/fresh?a=1",
            &[("accept-encoding", "br"), ("host", "elsewhere.example")],
        )
        .await;
    assert_eq!(
        (host.2.as_str(), host.1["cache-status"].to_str().unwrap()),
        ("3 /fresh?a=1", "flagstate; hit")
    );
}

#[actix_web::test]
async fn validators_are_answered_from_the_cache_with_all_that_a_304_repeats() {
    let stage = Stage::set().await;
    stage.get("/fresh", &[]).await;
    for validator in ["\"identity\"", "W/\"identity\"", "\"x\", W/\"identity\"", "*"] {
        let (status, headers, body) = stage.get("/fresh", &[(IF_NONE_MATCH.as_str(), validator)]).await;
        assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{validator}");
        assert_eq!(headers[ETAG], "\"identity\"");
        assert_eq!(headers["cache-control"], "public, max-age=600");
        assert_eq!(headers["vary"], "Accept-Encoding");
    }
    let (status, ..) = stage.get("/fresh", &[(IF_NONE_MATCH.as_str(), "\"other\"")]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(stage.origin.asked(), 1);
}

#[actix_web::test]
async fn asking_for_a_revision_goes_past_the_cache_and_leaves_it_alone() {
    let stage = Stage::set().await;
    assert_eq!(stage.get("/fresh", &[]).await.2, "0 /fresh");
    assert_eq!(
        stage.get("/fresh", &[("flagstate-min-revision", "1.7")]).await.2,
        "1 /fresh"
    );
    assert_eq!(stage.get("/fresh", &[]).await.2, "0 /fresh");
}

#[actix_web::test]
async fn what_may_not_be_stored_is_not() {
    let stage = Stage::set().await;
    for path in ["/index/dynamic", "/other"] {
        assert_ne!(stage.get(path, &[]).await.2, stage.get(path, &[]).await.2, "{path}");
    }
}

#[actix_web::test]
async fn stale_answers_are_used_while_they_are_renewed() {
    let stage = Stage::set().await;
    assert_eq!(stage.get("/brief", &[]).await.2, "0 /brief");
    tokio::time::sleep(LONGER_THAN_BRIEF).await;
    let (_, headers, body) = stage.get("/brief", &[]).await;
    assert_eq!(
        (body.as_str(), headers["cache-status"].to_str().unwrap()),
        ("0 /brief", "flagstate; hit; detail=stale")
    );
    wait::until("it is renewed", async || {
        match stage.get("/brief", &[]).await.2.as_str() {
            "0 /brief" => Err("still the old one"),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
}

#[actix_web::test]
async fn an_origin_that_is_away_leaves_what_was_cached_and_503_for_the_rest() {
    let stage = Stage::set().await;
    stage.get("/brief", &[]).await;
    tokio::time::sleep(LONGER_THAN_BRIEF).await;
    stage.origin_server.stop(false).await;
    assert_eq!(stage.get("/brief", &[]).await.2, "0 /brief");
    let (status, headers, body) = stage.get("/never-asked", &[]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(headers.contains_key("retry-after"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], 503);
}

#[actix_web::test]
async fn uploads_and_notifications_of_any_size_pass_with_the_address_that_the_client_used() {
    let stage = Stage::set().await;
    for path in ["/v2/a/blobs/uploads/x%2Fy?state=a%20b", "/events"] {
        let url = stage.proxy.url().join(path).unwrap();
        let answer = stage
            .client
            .post(url.clone())
            .body(vec![0_u8; 20_000_000])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(answer.headers()[LOCATION.as_str()], url.as_str());
        assert_eq!(answer.text().await.unwrap(), "20000000");
    }
}

#[actix_web::test]
async fn a_query_string_of_eight_kibibytes_passes() {
    let stage = Stage::set().await;
    let path = format!("/fresh?label%3Aa={}", "x".repeat(8 * 1024 - 10));
    wait::until("it answers", async || {
        let (status, ..) = stage.get(&path, &[]).await;
        if status == StatusCode::OK { Ok(()) } else { Err(status) }
    })
    .await
    .unwrap();
    assert_eq!(stage.get(&path, &[]).await.1["cache-status"], "flagstate; hit");
}
