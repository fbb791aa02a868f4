//! `POST /events`.
//!
//! 401 without a token that is accepted; 202 once the work is committed, and for everything that is no work or cannot be
//! understood, because a registry sends again for ever what it gets another answer to; 503 when nothing was committed.

use std::io::Read as _;
use std::sync::Arc;

use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use flagstate_common::config::RepositoryFilter;
use flate2::read::MultiGzDecoder;
use futures::StreamExt as _;

use super::auth::Tokens;
use super::envelope::{Ignored, parse};
use super::intake::Intake;
use crate::metrics::IndexerMetrics;

/// How much more than the limit is read and thrown away, so that a sender gets to see the answer.
const DISCARDED: u64 = 16;
/// How soon a sender may try again when the database refuses, in seconds.
const RETRY_AFTER: &str = "1";

/// What the handler needs.
pub struct Webhook {
    /// Who may post.
    pub tokens: Tokens,
    /// Where work goes.
    pub intake: Intake,
    /// Which repositories are worked on.
    pub filter: RepositoryFilter,
    /// Largest body in bytes, decoded.
    pub limit: u64,
    /// What is counted.
    pub metrics: Arc<IndexerMetrics>,
}

/// Why a body was not read.
enum BadBody {
    TooLarge,
    Broken,
    UnknownCoding,
}

/// Answers `POST /events`.
pub async fn events(request: HttpRequest, payload: Payload, webhook: Data<Webhook>) -> HttpResponse {
    let authorization = request
        .headers()
        .get(header::AUTHORIZATION)
        .map(header::HeaderValue::as_bytes);
    if !webhook.tokens.accept(authorization) {
        webhook.metrics.count_request("unauthorized");
        return HttpResponse::Unauthorized()
            .insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"flagstate\""))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .finish();
    }
    let body = match read(payload, webhook.limit).await {
        Ok(body) => decode(&request, body, webhook.limit),
        Err(error) => Err(error),
    };
    let events = match body {
        Ok(body) => parse(&body, &webhook.filter, Utc::now()),
        Err(error) => {
            let reason = match error {
                BadBody::TooLarge => {
                    webhook.metrics.limit_hit("notification");
                    "it is over the limit"
                }
                BadBody::Broken => "it broke off or cannot be decoded",
                BadBody::UnknownCoding => "its Content-Encoding is not known",
            };
            tracing::warn!(events.reason = reason, "a notification could not be read");
            vec![Err(Ignored::Unusable)]
        }
    };
    let mut arrivals = Vec::new();
    for event in events {
        match event {
            Ok(arrival) => {
                webhook.metrics.count_event("accepted");
                arrivals.push(arrival);
            }
            Err(reason) => {
                webhook.metrics.count_event(reason.as_str());
                if reason == Ignored::Unusable {
                    tracing::warn!("a notification has a shape that is not known");
                }
            }
        }
    }
    match webhook.intake.take(arrivals).await {
        Ok(()) => {
            webhook.metrics.count_request("accepted");
            HttpResponse::Accepted()
                .insert_header((header::CACHE_CONTROL, "no-store"))
                .finish()
        }
        Err(_) => {
            webhook.metrics.count_request("unavailable");
            HttpResponse::ServiceUnavailable()
                .insert_header((header::RETRY_AFTER, RETRY_AFTER))
                .insert_header((header::CACHE_CONTROL, "no-store"))
                .finish()
        }
    }
}

/// Reads up to `limit` bytes; what is longer is read to its end, within reason, and thrown away.
async fn read(mut payload: Payload, limit: u64) -> Result<Bytes, BadBody> {
    let mut body = BytesMut::new();
    let mut length = 0_u64;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.or(Err(BadBody::Broken))?;
        length += chunk.len() as u64;
        if length > limit.saturating_mul(DISCARDED) {
            break;
        }
        if length <= limit {
            body.extend_from_slice(&chunk);
        }
    }
    if length > limit {
        Err(BadBody::TooLarge)
    } else {
        Ok(body.freeze())
    }
}

/// Undoes the body's coding, within the limit.
fn decode(request: &HttpRequest, body: Bytes, limit: u64) -> Result<Bytes, BadBody> {
    let coding = request
        .headers()
        .get(header::CONTENT_ENCODING)
        .map(|coding| coding.as_bytes().trim_ascii());
    match coding {
        None | Some(b"" | b"identity") => Ok(body),
        Some(b"gzip" | b"x-gzip") => {
            let mut decoded = Vec::new();
            let mut decoder = MultiGzDecoder::new(&body[..]).take(limit + 1);
            decoder.read_to_end(&mut decoded).or(Err(BadBody::Broken))?;
            if decoded.len() as u64 > limit {
                Err(BadBody::TooLarge)
            } else {
                Ok(decoded.into())
            }
        }
        Some(_) => Err(BadBody::UnknownCoding),
    }
}
