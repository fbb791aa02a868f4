//! One HTTP exchange: from the request, over redirects, to the last byte of the answer, under one deadline.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use flagstate_common::config::Limits;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::body;
use super::error::{BadBody, RedirectRefusal, RegistryError};
use super::metrics::{Operation, RegistryMetrics};
use super::redirect;
use super::retry::{self, Pause};
use super::transport::Transport;

/// How much of an error's body is read to tell what it means.
const ERROR_BODY: u64 = 64 * 1024;

/// A request, and what its answer may be.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: &'static str,
    /// Where redirects end; a token endpoint gets none, for its request carries the password.
    pub(super) redirects: usize,
    /// Bytes of a successful body.
    pub(super) limit: u64,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Where it came from, after redirects.
    pub(super) url: Url,
    /// Whether no redirect left the origin of the request's URL.
    pub(super) is_at_origin: bool,
    pub(super) body: Bytes,
    /// The size of a body that was larger than the limit; it was not read to its end.
    pub(super) oversize: Option<u64>,
}

/// Performs exchanges; what all calls of a client share.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) transport: Transport,
    pub(super) metrics: RegistryMetrics,
    pub(super) limits: Limits,
    pause: Pause,
    deadline: Duration,
}

impl Exchange {
    pub(super) fn new(transport: Transport, metrics: RegistryMetrics, limits: &Limits, deadline: Duration) -> Self {
        Self {
            transport,
            metrics,
            limits: limits.clone(),
            pause: Pause::default(),
            deadline,
        }
    }

    /// Waits for the end of a pause, then sends the request and reads the answer.
    ///
    /// `authorization` goes to the origin of the request's URL and to no other.
    pub(super) async fn perform(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        self.pause.is_over().await;
        let started = Instant::now();
        let _in_flight = self.metrics.started();
        let result = match timeout(self.deadline, self.follow(request, authorization)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(RegistryError::Timeout { after: self.deadline }),
        };
        let outcome = match &result {
            Ok(answer) => answer.outcome(),
            Err(error) => error.label(),
        };
        self.metrics.exchanged(request.operation, outcome, started.elapsed());
        result
    }

    async fn follow(&self, request: &Request, authorization: Option<&HeaderValue>) -> Result<Answer, RegistryError> {
        let mut url = request.url.clone();
        let mut is_at_origin = true;
        let mut redirects = 0;
        loop {
            let headers = headers(request, authorization.filter(|_| is_at_origin));
            let response = self.transport.send(&request.method, &url, headers).await?;
            let Some(next) = redirect::target(&url, response.status(), response.headers())? else {
                return self.receive(request, url, is_at_origin, response).await;
            };
            if redirects == request.redirects {
                self.metrics.limit_hit("registry_redirects");
                return Err(RedirectRefusal::TooMany.into());
            }
            redirects += 1;
            is_at_origin &= next.origin() == url.origin();
            url = next;
        }
    }

    async fn receive(
        &self,
        request: &Request,
        url: Url,
        is_at_origin: bool,
        response: reqwest::Response,
    ) -> Result<Answer, RegistryError> {
        let status = response.status();
        let headers = response.headers().clone();
        self.obey_pause(status, &headers)?;
        let is_encoded = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
        if is_encoded && status.is_success() {
            return Err(BadBody::Encoded.into());
        }
        let limit = if status.is_success() { request.limit } else { ERROR_BODY };
        let body = if request.method == Method::HEAD {
            body::Body::default()
        } else {
            body::read(response, limit).await?
        };
        Ok(Answer {
            status,
            headers,
            url,
            is_at_origin,
            body: body.bytes,
            oversize: body.is_cut.then_some(body.seen),
        })
    }

    /// Begins a pause of the whole client if the answer asks for one.
    fn obey_pause(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), RegistryError> {
        let asked = retry::retry_after(headers, SystemTime::now());
        let pause = match (status, asked) {
            (StatusCode::TOO_MANY_REQUESTS, asked) => asked.unwrap_or(retry::DEFAULT_PAUSE),
            (StatusCode::SERVICE_UNAVAILABLE, Some(asked)) => asked,
            _ => return Ok(()),
        };
        let longest = self.limits.retry_after;
        if pause > longest {
            self.metrics.limit_hit("retry_after");
        }
        let pause = pause.min(longest);
        self.metrics.paused(pause);
        self.pause.extend(pause);
        Err(RegistryError::RateLimited { pause })
    }
}

fn headers(request: &Request, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(request.accept));
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers
}

/// The specification's error document; codes in order of appearance.
#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
}

impl Answer {
    /// The body of a 200, and the error that any other answer is.
    pub(super) fn into_body(self, limit: u64) -> Result<Bytes, RegistryError> {
        if self.status != StatusCode::OK {
            return Err(self.error());
        }
        match self.oversize {
            Some(_) => Err(RegistryError::TooLarge { limit }),
            None => Ok(self.body),
        }
    }

    /// What an answer without success means.
    pub(super) fn error(&self) -> RegistryError {
        match self.status {
            StatusCode::UNAUTHORIZED => RegistryError::Unauthorized { withheld_from: None },
            StatusCode::FORBIDDEN => RegistryError::Forbidden,
            status => RegistryError::Status {
                status: status.as_u16(),
            },
        }
    }

    /// Whether it says that something does not exist, in the registry's own voice.
    ///
    /// A 404 with a body that is not the specification's error document comes from something before the registry
    /// (a load balancer without a backend, say) and tells nothing about the registry's content.
    pub(super) fn is_absence(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
            && self.oversize.is_none()
            && (self.body.is_empty() || self.error_codes().is_some())
    }

    /// Whether the specification's error document is there and names `code`.
    pub(super) fn has_error_code(&self, code: &str) -> bool {
        self.error_codes()
            .is_some_and(|codes| codes.iter().any(|found| found.code == code))
    }

    fn error_codes(&self) -> Option<Vec<ErrorEntry>> {
        let document: ErrorDocument = serde_json::from_slice(&self.body).ok()?;
        Some(document.errors)
    }

    fn outcome(&self) -> &'static str {
        match self.status {
            StatusCode::OK => "success",
            StatusCode::NOT_FOUND => "not_found",
            _ => self.error().label(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("valid"),
            headers: HeaderMap::new(),
            url: "http://registry/".parse().expect("valid"),
            is_at_origin: true,
            body: Bytes::from_static(body.as_bytes()),
            oversize: None,
        }
    }

    #[test]
    fn only_the_registry_says_that_something_is_absent() {
        for (status, body, expected) in [
            (404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"x"}]}"#, true),
            (404, r#"{"errors":[]}"#, true),
            (404, "", true),
            (404, "default backend - 404", false),
            (404, "<html>", false),
            (404, "{}", false),
            (200, "", false),
            (410, "", false),
        ] {
            assert_eq!(answer(status, body).is_absence(), expected, "{status} {body}");
        }
    }

    #[test]
    fn finds_error_codes() {
        let refused = answer(400, r#"{"errors":[{"code":"A"},{"code":"B","detail":{}}]}"#);
        assert!(refused.has_error_code("B"));
        assert!(!refused.has_error_code("C"));
        assert!(!answer(400, "<html>").has_error_code("A"));
    }
}
