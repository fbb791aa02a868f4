//! `GET` and `HEAD` of `/index/static` and `/index/dynamic`: the flatpak registry-index protocol.
//!
//! Both answer the same query with the same document; caches may keep the one and not the other.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::read::Snapshot;

use super::Shared;
use crate::caching::{self, CachePolicy, JSON};
use crate::error::ApiError;
use crate::response_cache::{Kept, Key};
use crate::wire::{self, Piece};
use crate::{freshness, long_body};

pub(super) async fn get_static(request: HttpRequest, shared: web::Data<Shared>) -> Result<HttpResponse, ApiError> {
    answer(&request, &shared, &shared.public).await
}

pub(super) async fn get_dynamic(request: HttpRequest, shared: web::Data<Shared>) -> Result<HttpResponse, ApiError> {
    answer(&request, &shared, &CachePolicy::NoStore).await
}

async fn answer(
    request: &HttpRequest,
    shared: &web::Data<Shared>,
    policy: &CachePolicy,
) -> Result<HttpResponse, ApiError> {
    let query = SearchQuery::parse_index(request.query_string(), &shared.limits)?;
    let demanded = freshness::demanded(request.headers())?;
    if let Some(demanded) = demanded {
        shared.present.reach(demanded).await?;
    }
    let key = Key::new("index", &query.canonical());
    let fill = || fill(shared.clone().into_inner(), query.clone());
    let answer = shared.cache.answer(&key, JSON, demanded, fill).await?;
    let mut response = match answer.kept {
        Kept::Document(document) => document.respond(request.headers(), policy),
        Kept::TooLong if request.method() == Method::HEAD => {
            let coding = caching::coding_for_long(request.headers());
            caching::respond_long(JSON, coding, futures::stream::empty())
        }
        Kept::TooLong => return stream(request, shared, &query).await,
    };
    freshness::mark(&mut response, answer.revision);
    if let Some(stale_for) = answer.stale_for {
        freshness::mark_stale(&mut response, stale_for);
    }
    Ok(response)
}

/// Reads what the document of a query is made of.
async fn fill(
    shared: Arc<Shared>,
    query: SearchQuery,
) -> Result<Snapshot<impl Iterator<Item = Piece> + Send>, ApiError> {
    let snapshot = shared.index.search(&query).await?;
    Ok(Snapshot {
        revision: snapshot.revision,
        value: wire::pieces(&shared.registry, snapshot.value),
    })
}

/// Reads for this one request what is too long to be kept.
async fn stream(
    request: &HttpRequest,
    shared: &web::Data<Shared>,
    query: &SearchQuery,
) -> Result<HttpResponse, ApiError> {
    let long_turn = shared.long_bodies.clone().try_acquire_owned()?;
    let snapshot = {
        let _turn = shared.turns.take().await?;
        fill(shared.clone().into_inner(), query.clone()).await?
    };
    let coding = caching::coding_for_long(request.headers());
    let body = long_body::send(snapshot.value, coding, long_turn);
    let mut response = caching::respond_long(JSON, coding, body);
    freshness::mark(&mut response, snapshot.revision);
    Ok(response)
}
