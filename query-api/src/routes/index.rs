//! `GET` and `HEAD` of `/index/static` and `/index/dynamic`: the flatpak registry-index protocol.
//!
//! Both answer the same query with the same document; caches may keep the one and not the other.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use flagstate_common::search_query::SearchQuery;

use super::Shared;
use crate::caching::{self, CachePolicy, Represented};
use crate::error::ApiError;
use crate::{freshness, long_body, wire};

pub(super) async fn get_static(request: HttpRequest, shared: web::Data<Shared>) -> Result<HttpResponse, ApiError> {
    answer(&request, &shared, &shared.public).await
}

pub(super) async fn get_dynamic(request: HttpRequest, shared: web::Data<Shared>) -> Result<HttpResponse, ApiError> {
    answer(&request, &shared, &CachePolicy::NoStore).await
}

async fn answer(request: &HttpRequest, shared: &Shared, policy: &CachePolicy) -> Result<HttpResponse, ApiError> {
    let query = SearchQuery::parse_index(request.query_string(), &shared.limits)?;
    let demanded = freshness::demanded(request.headers())?;
    let snapshot = shared.index.search(&query, demanded).await?;

    let codings = caching::accepted_codings(request.headers());
    let pieces = wire::pieces(&shared.registry, snapshot.value);
    let represented = web::block(move || caching::represent(pieces, codings)).await??;
    let mut response = match represented {
        Represented::Whole(representation) => representation.respond(request.headers(), policy),
        Represented::Long { coding, .. } if request.method() == Method::HEAD => {
            caching::respond_long(coding, futures::stream::empty())
        }
        Represented::Long { start, rest, coding } => {
            let turn = shared.long_bodies.clone().try_acquire_owned()?;
            let pieces = std::iter::once(Ok(start)).chain(rest);
            caching::respond_long(coding, long_body::send(pieces, coding, turn))
        }
    };
    freshness::mark(&mut response, snapshot.revision);
    Ok(response)
}
