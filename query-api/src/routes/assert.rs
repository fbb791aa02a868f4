//! `POST /assert?timeout=<seconds>`: does the index contain this, and if not yet, within that time?
//!
//! Body: `{"Query": {"<parameter>": "value" or ["value", ..]}, "Assertions": [{"Type": .., "Test": ..}]}`; the tests are
//! about `Results` of that query. Answers `{"Success", "Results", "Failures"}`, 200 if all assertions hold, else 400 with
//! those that do not. For tests and CI; off unless `components.assert_endpoint`.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use flagstate_common::search_query::SearchQuery;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokio::time::Instant;

use super::Shared;
use crate::assertion::Assertion;
use crate::caching::NO_STORE;
use crate::error::ApiError;
use crate::{freshness, wire};

/// Requests that are answered at once; each may wait long and read the index often.
pub(super) const MAX_AT_ONCE: usize = 32;

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// A longer timeout waits only that long.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request is not understood.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    /// `timeout` is no number of seconds, or something else stands in the query string.
    #[error("the only parameter is 'timeout', once, a number of seconds such as 2.5")]
    Timeout,
    /// The body is not the JSON that it should be.
    #[error("the body: {0}")]
    Body(#[from] serde_json::Error),
    /// The body ended early or took too long.
    #[error("the body did not arrive within {} s", BODY_DEADLINE.as_secs())]
    Incomplete,
    /// The body is longer than [`MAX_BODY`].
    #[error("the body has more than {MAX_BODY} bytes")]
    TooLarge,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RequestBody {
    #[serde(default)]
    query: BTreeMap<String, Values>,
    assertions: Vec<Assertion>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Verdict {
    success: bool,
    results: Value,
    failures: Vec<Assertion>,
}

pub(super) async fn post(
    request: HttpRequest,
    payload: web::Payload,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, ApiError> {
    let timeout = parse_timeout(request.query_string())?;
    let body: RequestBody =
        serde_json::from_slice(&read(payload).await?).map_err(RequestError::from)?;
    let query = SearchQuery::from_pairs(pairs(body.query), &shared.limits)?;
    let _turn = shared.assertions.try_acquire()?;
    let stopped = shared.stopping.cancelled();
    tokio::select! {
        response = judge(&shared, &query, &body.assertions, Instant::now() + timeout) => response,
        () = stopped => Err(ApiError::Stopping),
    }
}

/// Looks until all assertions hold or time is up; what is compared is what is waited from, so no change is missed.
async fn judge(
    shared: &Shared,
    query: &SearchQuery,
    assertions: &[Assertion],
    deadline: Instant,
) -> Result<HttpResponse, ApiError> {
    loop {
        let snapshot = shared.index.search(query, None).await?;
        let assertions = assertions.to_vec();
        let verdict = web::block(move || Verdict::new(&snapshot.value, assertions)).await??;
        if verdict.success || !shared.index.changes_after(snapshot.revision, deadline).await? {
            let status = if verdict.success { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            let mut response = HttpResponse::build(status).insert_header(NO_STORE).json(verdict);
            freshness::mark(&mut response, snapshot.revision);
            return Ok(response);
        }
    }
}
