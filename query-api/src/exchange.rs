//! One request from its arrival to its line in the log: its id, its errors, its metrics.
//!
//! Handlers return [`ApiError`]s and may panic; what the client sees of that is decided here, and the log says why, once.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, web};
use futures::FutureExt as _;

use crate::error::ApiError;
use crate::metrics::{self, Exchange, Metrics};

/// Names a request in the log and in the error that its client got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestId(u128);

impl RequestId {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// The outermost middleware of the public port.
///
/// # Errors
/// Only after a panic, with the whole answer inside the error.
pub(crate) async fn exchange(
    metrics: web::Data<Metrics>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let id = RequestId::random();
    let method = request.method().clone();
    let call = AssertUnwindSafe(next.call(request)).catch_unwind();
    let outcome = match call.await {
        Ok(Ok(response)) => Ok(explain_failure(response.map_into_boxed_body(), id, &metrics)),
        Ok(Err(error)) => Err(ApiError::Refused(error.as_response_error().status_code())),
        Err(panic) => Err(ApiError::Panicked(panic_text(panic.as_ref()))),
    };
    let mut outcome = outcome.map_err(|error| fail(&error, id, &metrics));
    let (route, response) = match &mut outcome {
        Ok(response) => (
            metrics::route(response.request().match_pattern().as_deref()),
            response.response_mut(),
        ),
        Err(response) => (metrics::route(None), response),
    };
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let exchange = Exchange {
        route,
        method: metrics::method(&method),
        status: response.status(),
        elapsed: started.elapsed(),
        bytes: match response.body().size() {
            BodySize::Sized(length) if method != Method::HEAD => length,
            BodySize::Sized(_) | BodySize::None | BodySize::Stream => 0,
        },
    };
    metrics.record(&exchange);
    tracing::debug!(
        request.id = %id,
        http.route = exchange.route,
        http.method = exchange.method,
        http.status = exchange.status.as_u16(),
        http.response_bytes = exchange.bytes,
        http.seconds = exchange.elapsed.as_secs_f64(),
        "answered",
    );
    outcome.map_err(|response| InternalError::from_response("handler panicked", response).into())
}

/// Puts problem details in the place of an error's own response.
fn explain_failure(response: ServiceResponse<BoxBody>, id: RequestId, metrics: &Metrics) -> ServiceResponse<BoxBody> {
    let Some(error) = response.response().error() else {
        return response;
    };
    let problem = match error.as_error::<ApiError>() {
        Some(error) => fail(error, id, metrics),
        None => fail(&ApiError::Refused(response.status()), id, metrics),
    };
    response.into_response(problem)
}

/// Counts and logs a failure, and gives the client's view of it.
fn fail(error: &ApiError, id: RequestId, metrics: &Metrics) -> HttpResponse {
    if let Some(limit) = error.limit() {
        metrics.count_limit_hit(limit);
    }
    let status = error.status();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(request.id = %id, error = causes(error), "a request has to come back later");
    } else if status.is_server_error() {
        tracing::error!(request.id = %id, error = causes(error), "a request failed");
    }
    error.respond(id)
}

/// The error and what led to it, each once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderMap;
    use actix_web::middleware::from_fn;
    use actix_web::{App, test};
    use serde_json::Value;

    async fn panics() -> HttpResponse {
        panic!("secret reason")
    }

    async fn fails() -> Result<HttpResponse, ApiError> {
        Err(ApiError::Busy)
    }

    async fn extracts(_: web::Json<Value>) -> HttpResponse {
        HttpResponse::Ok().finish()
    }

    async fn get(path: &str) -> (StatusCode, HeaderMap, Value) {
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("metrics");
        let app = test::init_service(
            App::new()
                .app_data(web::Data::new(metrics))
                .wrap(from_fn(exchange))
                .route("/panics", web::get().to(panics))
                .route("/fails", web::get().to(fails))
                .route("/extracts", web::get().to(extracts)),
        )
        .await;
        let request = test::TestRequest::get().uri(path).to_request();
        let response = match test::try_call_service(&app, request).await {
            Ok(response) => response.map_into_boxed_body().into_parts().1,
            Err(error) => error.error_response(),
        };
        let (head, body) = response.into_parts();
        let body = actix_web::body::to_bytes(body).await.expect("a body");
        let body = serde_json::from_slice(&body).expect("JSON");
        (head.status(), head.headers().clone(), body)
    }

    #[actix_web::test]
    async fn every_failure_is_a_problem_that_nobody_stores() {
        for (path, status) in [
            ("/panics", StatusCode::INTERNAL_SERVER_ERROR),
            ("/fails", StatusCode::SERVICE_UNAVAILABLE),
            ("/extracts", StatusCode::BAD_REQUEST),
        ] {
            let (found, headers, problem) = get(path).await;
            assert_eq!(found, status, "{path}");
            let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header(header::CONTENT_TYPE), Some("application/problem+json"), "{path}");
            assert_eq!(header(header::CACHE_CONTROL), Some("no-store"), "{path}");
            assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"), "{path}");
            assert_eq!(
                header(header::RETRY_AFTER).is_some(),
                status == StatusCode::SERVICE_UNAVAILABLE
            );
            assert_eq!(problem["status"], status.as_u16(), "{path}");
            assert_eq!(problem["request_id"].as_str().map(str::len), Some(32), "{path}");
            for member in ["type", "title", "detail"] {
                assert!(problem[member].is_string(), "{path} {member}");
            }
        }
    }

    #[actix_web::test]
    async fn a_panic_s_reason_stays_in_the_log() {
        let (_, _, problem) = get("/panics").await;
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }
}
