//! `POST /assert?timeout=<seconds>`: does the index contain this, and if not yet, within that time?
//!
//! Body: `{"Query": {"<parameter>": "value" or ["value", ..]}, "Assertions": [{"Type": .., "Test": ..}]}`; the tests are
//! about `Results` of that query. Answers `{"Success", "Results", "Failures"}`, 200 if all assertions hold, else 400 with
//! those that do not. For tests and CI; off unless `components.assert_endpoint`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use flagstate_common::image::RepositoryImages;
use flagstate_common::search_query::SearchQuery;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tokio::time::Instant;

use super::Shared;
use crate::assertion::Assertion;
use crate::caching::{NO_STORE, RepresentError};
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
    let body: RequestBody = serde_json::from_slice(&read(payload).await?).map_err(RequestError::from)?;
    let query = SearchQuery::from_pairs(pairs(body.query), &shared.limits)?;
    let assertions = body.assertions.into();
    let _turn = shared.assertions.try_acquire()?;
    let deadline = Instant::now() + timeout;
    tokio::select! {
        answer = judge(&shared, &query, assertions, deadline) => answer,
        () = shared.stopping.cancelled() => Err(ApiError::Stopping),
    }
}

/// Looks until all assertions hold or time is up, each time after a change since what was seen last.
async fn judge(
    shared: &Shared,
    query: &SearchQuery,
    assertions: Arc<[Assertion]>,
    deadline: Instant,
) -> Result<HttpResponse, ApiError> {
    loop {
        let snapshot = {
            let _turn = shared.turns.take().await?;
            shared.index.search(query).await?
        };
        let repositories = snapshot.value;
        let assertions = assertions.clone();
        let verdict = web::block(move || Verdict::new(&repositories, &assertions))
            .await?
            .map_err(RepresentError::from)?;
        if verdict.success || !shared.index.changes_after(snapshot.revision, deadline).await? {
            let mut answer = match verdict.success {
                true => HttpResponse::Ok(),
                false => HttpResponse::BadRequest(),
            };
            let mut answer = answer.insert_header(NO_STORE).json(verdict);
            freshness::mark(&mut answer, snapshot.revision);
            return Ok(answer);
        }
    }
}

impl Verdict {
    fn new(repositories: &[RepositoryImages], assertions: &[Assertion]) -> Result<Self, serde_json::Error> {
        let results = wire::results(repositories)?;
        let failures: Vec<_> = assertions
            .iter()
            .filter(|assertion| !assertion.holds(&results))
            .cloned()
            .collect();
        Ok(Self {
            success: failures.is_empty(),
            results,
            failures,
        })
    }
}

async fn read(payload: web::Payload) -> Result<Bytes, RequestError> {
    match tokio::time::timeout(BODY_DEADLINE, payload.to_bytes_limited(MAX_BODY)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(_))) | Err(_) => Err(RequestError::Incomplete),
        Ok(Err(_)) => Err(RequestError::TooLarge),
    }
}

fn pairs(query: BTreeMap<String, Values>) -> impl Iterator<Item = (String, String)> {
    query.into_iter().flat_map(|(name, values)| {
        let values = match values {
            Values::One(value) => vec![value],
            Values::Many(values) => values,
        };
        values.into_iter().map(move |value| (name.clone(), value))
    })
}

/// No query string is no waiting.
fn parse_timeout(query_string: &str) -> Result<Duration, RequestError> {
    if query_string.is_empty() {
        return Ok(Duration::ZERO);
    }
    let text = query_string.strip_prefix("timeout=").unwrap_or_default();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse()
        .ok()
        .filter(|_| is_plain)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .map(|timeout| timeout.min(MAX_TIMEOUT))
        .ok_or(RequestError::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        for (text, expected) in [
            ("", Some(Duration::ZERO)),
            ("timeout=0", Some(Duration::ZERO)),
            ("timeout=2", Some(Duration::from_secs(2))),
            ("timeout=2.5", Some(Duration::from_millis(2500))),
            ("timeout=60", Some(MAX_TIMEOUT)),
            ("timeout=99999999", Some(MAX_TIMEOUT)),
            ("timeout=", None),
            ("timeout", None),
            ("timeout=.", None),
            ("timeout=-1", None),
            ("timeout=1e3", None),
            ("timeout=inf", None),
            ("timeout=NaN", None),
            ("timeout=5s", None),
            ("timeout=1&timeout=2", None),
            ("timeot=1", None),
            ("a=1", None),
        ] {
            assert_eq!(parse_timeout(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_query_has_one_value_or_several() {
        let body: RequestBody =
            serde_json::from_str(r#"{"Query": {"tag": ["a", "b"], "os": "linux"}, "Assertions": []}"#).expect("valid");
        let found: Vec<_> = pairs(body.query).collect();
        let expected = [("os", "linux"), ("tag", "a"), ("tag", "b")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn unknown_members_and_other_shapes_are_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"Query": {}}"#,
            r#"{"query": {}, "Assertions": []}"#,
            r#"{"Query": {"tag": 1}, "Assertions": []}"#,
            r#"{"Query": {}, "Assertions": {}}"#,
            r#"{"Query": {}, "Assertions": [], "Timeout": 1}"#,
            r#"{"Query": {}, "Assertions": []} x"#,
        ] {
            assert!(serde_json::from_str::<RequestBody>(text).is_err(), "{text}");
        }
    }
}
