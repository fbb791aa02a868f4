//! The second port: `/livez`, `/readyz` and `/metrics`, for orchestrators and Prometheus.
//!
//! `/livez` says only that the process answers; it looks at nothing, for a probe that fails with the database
//! would restart processes that the database needs left alone. GET and HEAD only, and no other
//! path is known.

use std::io;
use std::net::{SocketAddr, TcpListener};

use actix_web::dev::Server;
use actix_web::http::Method;
use actix_web::http::header::{ALLOW, CACHE_CONTROL};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use prometheus::Registry;

use crate::metrics;
use crate::readiness::Readiness;

/// A server that is bound and not yet running.
pub struct AdminServer {
    /// Where it listens, the port filled in.
    pub address: SocketAddr,
    /// Runs while it is awaited; its handle stops it. It does not look at signals.
    pub server: Server,
}

/// Binds the admin port; must be called within the runtime.
///
/// # Errors
///
/// The address must be free.
pub fn bind(address: SocketAddr, readiness: Readiness, registry: Registry) -> io::Result<AdminServer> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(readiness.clone()))
            .app_data(web::Data::new(registry.clone()))
            .default_service(web::to(answer))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?
    .run();
    Ok(AdminServer { address, server })
}

async fn answer(request: HttpRequest, readiness: web::Data<Readiness>, registry: web::Data<Registry>) -> HttpResponse {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return HttpResponse::MethodNotAllowed()
            .insert_header((ALLOW, "GET, HEAD"))
            .finish();
    }
    match request.path() {
        "/livez" => text(HttpResponse::Ok(), "alive\n"),
        "/readyz" => readyz(&readiness),
        "/metrics" => all_metrics(&registry),
        _ => HttpResponse::NotFound().finish(),
    }
}

fn readyz(readiness: &Readiness) -> HttpResponse {
    let reasons = readiness.reasons();
    if reasons.is_empty() {
        text(HttpResponse::Ok(), "ready\n")
    } else {
        text(HttpResponse::ServiceUnavailable(), reasons.join("\n") + "\n")
    }
}

fn all_metrics(registry: &Registry) -> HttpResponse {
    match metrics::encode(registry) {
        Ok(body) => HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(body),
        Err(error) => {
            tracing::error!(error = %error, "metrics cannot be encoded");
            HttpResponse::InternalServerError().finish()
        }
    }
}

fn text(mut builder: actix_web::HttpResponseBuilder, body: impl Into<String>) -> HttpResponse {
    builder
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("text/plain; charset=utf-8")
        .body(body.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::metrics::LimitHits;

    /// The status and the rest of an answer.
    async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    #[tokio::test]
    async fn answers_probes_and_metrics_and_nothing_else() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        let database = readiness.require("database");
        let registry = Registry::new();
        LimitHits::register(&registry).unwrap();
        let AdminServer { address, server } = bind("127.0.0.1:0".parse().unwrap(), readiness, registry).unwrap();
        let handle = server.handle();
        let running = tokio::spawn(server);

        let (status, answer) = ask(address, "GET", "/readyz").await;
        assert_eq!(status, 503);
        assert!(answer.ends_with("\r\n\r\ndatabase: not yet\n"), "{answer}");
        assert_eq!(ask(address, "GET", "/livez").await.0, 200);

        database.met();
        assert_eq!(ask(address, "GET", "/readyz").await.0, 200);
        let (status, answer) = ask(address, "HEAD", "/readyz").await;
        assert_eq!(status, 200);
        assert!(answer.ends_with("\r\n\r\n"), "HEAD has no body: {answer}");

        let (status, answer) = ask(address, "GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            answer.contains("flagstate_limit_hits_total{limit=\"manifest\"} 0"),
            "{answer}"
        );

        for path in ["/", "/index/static", "/metrics/", "/debug"] {
            assert_eq!(ask(address, "GET", path).await.0, 404, "{path}");
        }
        assert_eq!(ask(address, "POST", "/readyz").await.0, 405);

        shutdown.cancel();
        assert_eq!(ask(address, "GET", "/readyz").await.0, 503);
        assert_eq!(ask(address, "GET", "/livez").await.0, 200);

        handle.stop(true).await;
        running.await.unwrap().unwrap();
    }
}
