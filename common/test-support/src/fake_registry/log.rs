//! The log of requests.

use std::time::{Duration, Instant};

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `GET /v2/`
    Base,
    /// `GET /v2/_catalog`
    Catalog,
    /// `GET /v2/<name>/tags/list`
    Tags,
    /// `HEAD /v2/<name>/manifests/<reference>`
    HeadManifest,
    /// `GET /v2/<name>/manifests/<reference>`
    GetManifest,
    /// `HEAD` or `GET /v2/<name>/blobs/<digest>`
    Blob,
    /// `GET /token`
    Token,
    /// Anything that writes: POST, PUT, PATCH, DELETE.
    Write,
    /// Anything else.
    Other,
}

impl Kind {
    pub(super) fn of(method: &str, path: &str) -> Self {
        match method {
            "GET" | "HEAD" => {}
            _ => return Self::Write,
        }
        match path {
            "/token" => Self::Token,
            "/v2/" | "/v2" => Self::Base,
            "/v2/_catalog" => Self::Catalog,
            _ if path.ends_with("/tags/list") => Self::Tags,
            _ if path.contains("/blobs/") => Self::Blob,
            _ if path.contains("/manifests/") && method == "HEAD" => Self::HeadManifest,
            _ if path.contains("/manifests/") => Self::GetManifest,
            _ => Self::Other,
        }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    /// What it is for.
    pub kind: Kind,
    /// `GET` and so on.
    pub method: String,
    /// The path as sent, still encoded.
    pub path: String,
    /// The query as sent.
    pub query: String,
    /// Names in lower case, values as sent.
    pub headers: Vec<(String, String)>,
    /// Whether it arrived while the registry had asked for a pause.
    pub is_in_pause: bool,
}

impl LoggedRequest {
    /// The first header of that lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(value)
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    requests: Vec<LoggedRequest>,
    paused_until: Option<Instant>,
    in_flight: usize,
    max_in_flight: usize,
}

impl Log {
    pub(super) fn arrived(&mut self, mut request: LoggedRequest) {
        request.is_in_pause = self.paused_until.is_some_and(|until| Instant::now() < until);
        self.requests.push(request);
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
    }

    pub(super) fn answered(&mut self) {
        self.in_flight -= 1;
    }

    /// Requests that arrive before the pause is over are marked.
    pub(super) fn pause(&mut self, pause: Duration) {
        self.paused_until = Instant::now().checked_add(pause);
    }

    pub(super) fn requests(&self) -> &[LoggedRequest] {
        &self.requests
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.max_in_flight = self.in_flight;
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }
}
