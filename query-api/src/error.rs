//! Every failure of a request, and the one table that says how it looks to the client.
//!
//! Clients get problem details (RFC 9457) that are never stored. Of a failure on our side they learn only its kind and
//! the id of the request; the log has the rest under that id. No SQL, path or secret is in either of the two texts that
//! a client can see: the fixed ones here, and the `Display` of errors about the client's own request.

use std::sync::Arc;

use actix_web::error::BlockingError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use flagstate_common::search_query::QueryError;
use flagstate_common::store::StoreError;
use flagstate_common::store::read::ReadError;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::TryAcquireError;
use tokio::task::JoinError;

use crate::caching::{NO_STORE, RepresentError};
use crate::exchange::RequestId;
use crate::freshness::FreshnessError;
use crate::routes::assert::RequestError;

/// When to come back, in seconds, after what passes by itself.
const RETRY_AFTER: u32 = 1;

/// Why a request has no answer.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    /// The query is not valid.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is no state to answer from.
    #[error(transparent)]
    Freshness(#[from] FreshnessError),
    /// The answer could not be made.
    #[error(transparent)]
    Represent(#[from] RepresentError),
    /// `POST /assert` was asked something it does not understand.
    #[error(transparent)]
    Assert(#[from] RequestError),
    /// Nothing is there.
    #[error("there is nothing at this path")]
    NotFound,
    /// The resource has other methods.
    #[error("this resource answers {allowed}")]
    MethodNotAllowed {
        /// As `Allow` lists them.
        allowed: &'static str,
    },
    /// Too many requests of a costly kind are being answered.
    #[error("too many requests of this kind are being answered")]
    Busy,
    /// The answer takes longer than a request waits.
    #[error("the answer is not ready in time")]
    Slow,
    /// What others who waited for the same answer get too.
    #[error(transparent)]
    Shared(Arc<ApiError>),
    /// The process is about to end.
    #[error("the process is stopping")]
    Stopping,
    /// The framework refused the request before it came to us.
    #[error("the request is malformed")]
    Refused(StatusCode),
    /// Code of ours panicked.
    #[error("code panicked: {0}")]
    Panicked(String),
    /// A blocking thread was lost, to a panic or to the end of the process.
    #[error(transparent)]
    Blocking(#[from] BlockingError),
}

impl From<TryAcquireError> for ApiError {
    fn from(_no_permit: TryAcquireError) -> Self {
        Self::Busy
    }
}

impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        Self::Panicked(error.to_string())
    }
}

/// How a failure looks to the client.
struct Face {
    status: StatusCode,
    /// Names the kind of failure, as the last part of the problem's `type`.
    kind: &'static str,
    title: &'static str,
}

impl ApiError {
    fn face(&self) -> Face {
        match self {
            Self::Query(_) => face(StatusCode::BAD_REQUEST, "query", "The query is not valid"),
            Self::Freshness(error) => freshness_face(error),
            Self::Represent(RepresentError::Serialise(_) | RepresentError::Encode(_)) => INTERNAL,
            Self::Assert(error) => match error {
                RequestError::Timeout => face(StatusCode::BAD_REQUEST, "wait", "The timeout is not valid"),
                RequestError::Body(_) => face(StatusCode::BAD_REQUEST, "body", "The body is not valid"),
                RequestError::Incomplete => face(StatusCode::BAD_REQUEST, "body", "The body did not arrive"),
                RequestError::TooLarge => face(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            },
            Self::NotFound => face(StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed { .. } => face(StatusCode::METHOD_NOT_ALLOWED, "method", "Method not allowed"),
            Self::Busy => face(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many requests at once"),
            Self::Slow => SLOW,
            Self::Shared(error) => error.face(),
            Self::Stopping => face(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping"),
            Self::Refused(status) => Face {
                status: *status,
                kind: "malformed",
                title: "The request is malformed",
            },
            Self::Panicked(_) | Self::Blocking(_) => INTERNAL,
        }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.face().status
    }

    /// The limit that the request ran into, if that is why it failed.
    pub(crate) fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Query(error) => error.limit(),
            Self::Shared(error) => error.limit(),
            _ => None,
        }
    }

    /// Whether the database is out of reach or out of breath, so that an older answer is better than none.
    ///
    /// Not when it shows an older state than we know: that answer would be as old.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Busy | Self::Slow | Self::Freshness(FreshnessError::Silent { .. }) => true,
            Self::Freshness(FreshnessError::Read(ReadError::Store(error))) => {
                store_face(error).status == StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Shared(error) => error.is_outage(),
            _ => false,
        }
    }

    /// The answer: problem details with the request's id.
    pub(crate) fn respond(&self, request_id: RequestId) -> HttpResponse {
        let Face { status, kind, title } = self.face();
        let detail = if status.is_server_error() {
            SERVER_DETAIL.to_owned()
        } else {
            self.to_string()
        };
        let mut response = HttpResponse::build(status);
        response.insert_header(NO_STORE);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER));
        }
        if let Self::MethodNotAllowed { allowed } = self {
            response.insert_header((header::ALLOW, *allowed));
        }
        response.content_type("application/problem+json").json(Problem {
            kind: format!("urn:flagstate:problem:{kind}"),
            title,
            status: status.as_u16(),
            detail,
            request_id: request_id.to_string(),
        })
    }
}

/// Lets handlers return the error; [`crate::exchange`] turns it into problem details, for it knows the request's id.
impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status()
    }
}

fn freshness_face(error: &FreshnessError) -> Face {
    match error {
        FreshnessError::Malformed(_) => face(
            StatusCode::BAD_REQUEST,
            "min-revision",
            "The demanded revision is not valid",
        ),
        FreshnessError::OtherEra { .. } => face(StatusCode::GONE, "other-era", "The revision is of another era"),
        FreshnessError::Behind { .. } => face(
            StatusCode::SERVICE_UNAVAILABLE,
            "behind",
            "The index is not that far yet",
        ),
        FreshnessError::Unreached | FreshnessError::Silent { .. } => UNAVAILABLE,
        FreshnessError::Read(ReadError::AsOfFuture) => {
            face(StatusCode::BAD_REQUEST, "future", "as_of is in the future")
        }
        FreshnessError::Read(ReadError::AsOfGone { .. }) => {
            face(StatusCode::GONE, "gone", "as_of is before the kept history")
        }
        FreshnessError::Read(ReadError::OtherEra { .. }) => {
            face(StatusCode::GONE, "other-era", "The revision is of another era")
        }
        FreshnessError::Read(ReadError::Store(error)) => store_face(error),
    }
}

/// A database that is out of reach or out of breath is 503, so that caches go on with what they have and clients come
/// back; one that answers and refuses is our fault.
fn store_face(error: &StoreError) -> Face {
    match error {
        StoreError::Busy { .. } => face(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many requests at once"),
        StoreError::Timeout { .. } => SLOW,
        StoreError::Connection { .. }
        | StoreError::Disconnected { .. }
        | StoreError::LostRace { .. }
        | StoreError::Exhausted { .. }
        | StoreError::ReadOnly { .. } => UNAVAILABLE,
        StoreError::Refused { .. } | StoreError::Corrupt { .. } => INTERNAL,
    }
}

const INTERNAL: Face = Face {
    status: StatusCode::INTERNAL_SERVER_ERROR,
    kind: "internal",
    title: "Internal error",
};

const UNAVAILABLE: Face = Face {
    status: StatusCode::SERVICE_UNAVAILABLE,
    kind: "unavailable",
    title: "The index cannot be read at the moment",
};

const SLOW: Face = Face {
    status: StatusCode::SERVICE_UNAVAILABLE,
    kind: "timeout",
    title: "The query takes too long",
};

const SERVER_DETAIL: &str = "This is not about your request. The service's log has more under the request id.";

fn face(status: StatusCode, kind: &'static str, title: &'static str) -> Face {
    Face { status, kind, title }
}

/// The members of RFC 9457, 3.1, and one of ours.
#[derive(Serialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    request_id: String,
}
