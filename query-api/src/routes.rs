//! What is answered on the public port, and where. Everything else is 404; probes and metrics have their own port.

pub(crate) mod assert;
mod index;

use std::sync::Arc;

use actix_web::web;
use flagstate_common::config::{Config, Limits};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::caching::CachePolicy;
use crate::error::ApiError;
use crate::freshness::{FreshReader, Present};
use crate::long_body::MAX_LONG_BODIES;
use crate::metrics::Metrics;
use crate::response_cache::ResponseCache;
use crate::turns::Turns;

/// What the handlers of all workers share.
pub(crate) struct Shared {
    present: Arc<Present>,
    index: FreshReader,
    cache: Arc<ResponseCache>,
    turns: Turns,
    limits: Limits,
    /// What answers return as `Registry`: configured, never taken from a request.
    registry: String,
    public: CachePolicy,
    long_bodies: Arc<Semaphore>,
    assertions: Semaphore,
    stopping: CancellationToken,
}

impl Shared {
    pub(crate) fn new(
        config: &Config,
        index: FreshReader,
        present: Arc<Present>,
        metrics: &Metrics,
        stopping: CancellationToken,
    ) -> Self {
        let turns = Turns::for_pool(config.database.postgres.pool_size);
        let cache = ResponseCache::new(config, present.clone(), turns.clone(), metrics.cache().clone());
        Self {
            present,
            index,
            cache: Arc::new(cache),
            turns,
            limits: config.limits.clone(),
            registry: config.registry.public_url.clone(),
            public: CachePolicy::public(&config.cache),
            long_bodies: Arc::new(Semaphore::new(MAX_LONG_BODIES)),
            assertions: Semaphore::new(assert::MAX_AT_ONCE),
            stopping,
        }
    }
}

/// Registers the resources.
pub(crate) fn configure(service: &mut web::ServiceConfig, with_assert: bool) {
    service
        .service(
            web::resource("/index/static")
                .get(index::get_static)
                .head(index::get_static)
                .default_service(web::to(|| refuse_method("GET, HEAD"))),
        )
        .service(
            web::resource("/index/dynamic")
                .get(index::get_dynamic)
                .head(index::get_dynamic)
                .default_service(web::to(|| refuse_method("GET, HEAD"))),
        );
    if with_assert {
        service.service(
            web::resource("/assert")
                .post(assert::post)
                .default_service(web::to(|| refuse_method("POST"))),
        );
    }
    service.default_service(web::to(not_found));
}

async fn refuse_method(allowed: &'static str) -> Result<web::Bytes, ApiError> {
    Err(ApiError::MethodNotAllowed { allowed })
}

async fn not_found() -> Result<web::Bytes, ApiError> {
    Err(ApiError::NotFound)
}
