//! The metrics of query-api, each with its help text; `docs/METRICS.md` is checked against [`METRICS`].
//!
//! No label takes its values from requests: routes and methods that are not ours count as `other`.

mod cache;

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use flagstate_common::metrics::{LimitHits, register};
use flagstate_common::store::PoolStatus;
use flagstate_common::store::read::Status;
use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

pub(crate) use cache::{Answered, CacheMetrics, Filled};

/// Every metric of this module: name, help.
pub const METRICS: [(&str, &str); 17] = [
    REQUESTS,
    SECONDS,
    BYTES,
    ERA,
    NUMBER,
    REVISION_AGE,
    SCAN_AGE,
    DATABASE_UP,
    POOL_MAXIMUM,
    POOL_SIZE,
    POOL_AVAILABLE,
    POOL_WAITING,
    cache::ANSWERS,
    cache::FILLS,
    cache::ENTRIES,
    cache::BYTES,
    cache::EVICTIONS,
];

const REQUESTS: (&str, &str) = (
    "flagstate_http_requests_total",
    "Requests on the public port, by route, method and status",
);
const SECONDS: (&str, &str) = (
    "flagstate_http_request_seconds",
    "From a request's arrival to the head of its answer, by route",
);
const BYTES: (&str, &str) = (
    "flagstate_http_response_bytes_total",
    "Bytes of answers' bodies as they are encoded, by route; streamed ones do not count",
);
const ERA: (&str, &str) = (
    "flagstate_revision_era",
    "Era of the index's revision, as this process last saw it",
);
const NUMBER: (&str, &str) = (
    "flagstate_revision",
    "Number of the index's revision within its era, as this process last saw it",
);
const REVISION_AGE: (&str, &str) = (
    "flagstate_revision_age_seconds",
    "Since the index's revision was committed, by the database's clock",
);
const SCAN_AGE: (&str, &str) = (
    "flagstate_scan_age_seconds",
    "Since the last scan that saw the whole registry ended, by the database's clock; -1 before the first",
);
const DATABASE_UP: (&str, &str) = (
    "flagstate_database_up",
    "1 when the database answered the last time it was asked, else 0",
);
const POOL_MAXIMUM: (&str, &str) = (
    "flagstate_database_pool_maximum",
    "The most database connections that there may be",
);
const POOL_SIZE: (&str, &str) = (
    "flagstate_database_pool_connections",
    "Database connections that there are",
);
const POOL_AVAILABLE: (&str, &str) = (
    "flagstate_database_pool_available",
    "Database connections that nobody uses",
);
const POOL_WAITING: (&str, &str) = (
    "flagstate_database_pool_waiting",
    "Requests that wait for a database connection",
);

/// Upper bounds of the request histogram, in seconds.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// What query-api counts and measures.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    bytes: IntCounterVec,
    era: IntGauge,
    number: IntGauge,
    revision_age: Gauge,
    scan_age: Gauge,
    database_up: IntGauge,
    pool_maximum: IntGauge,
    pool_size: IntGauge,
    pool_available: IntGauge,
    pool_waiting: IntGauge,
    cache: CacheMetrics,
    limit_hits: LimitHits,
}

/// One answered request.
pub(crate) struct Exchange {
    pub(crate) route: &'static str,
    pub(crate) method: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) elapsed: Duration,
    pub(crate) bytes: u64,
}

impl Metrics {
    /// Adds the metrics to a registry.
    ///
    /// # Errors
    /// Their names must be new in the registry.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |(name, help), labels: &[&str]| register(registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let gauge = |(name, help)| register(registry, Gauge::new(name, help)?);
        let whole_gauge = |(name, help)| register(registry, IntGauge::new(name, help)?);
        let seconds = HistogramOpts::new(SECONDS.0, SECONDS.1).buckets(BUCKETS.to_vec());
        Ok(Self {
            requests: counters(REQUESTS, &["route", "method", "status"])?,
            seconds: register(registry, HistogramVec::new(seconds, &["route"])?)?,
            bytes: counters(BYTES, &["route"])?,
            era: whole_gauge(ERA)?,
            number: whole_gauge(NUMBER)?,
            revision_age: gauge(REVISION_AGE)?,
            scan_age: gauge(SCAN_AGE)?,
            database_up: whole_gauge(DATABASE_UP)?,
            pool_maximum: whole_gauge(POOL_MAXIMUM)?,
            pool_size: whole_gauge(POOL_SIZE)?,
            pool_available: whole_gauge(POOL_AVAILABLE)?,
            pool_waiting: whole_gauge(POOL_WAITING)?,
            cache: CacheMetrics::new(registry)?,
            limit_hits: LimitHits::register(registry)?,
        })
    }

    pub(crate) fn record(&self, exchange: &Exchange) {
        let Exchange {
            route,
            method,
            status,
            elapsed,
            bytes,
        } = exchange;
        self.requests.with_label_values(&[route, method, status.as_str()]).inc();
        self.seconds.with_label_values(&[route]).observe(elapsed.as_secs_f64());
        self.bytes.with_label_values(&[route]).inc_by(*bytes);
    }

    /// Those of the cache of answers.
    pub(crate) fn cache(&self) -> &CacheMetrics {
        &self.cache
    }

    /// Counts that a request ran into a limit, by its name in `limits:`.
    pub(crate) fn count_limit_hit(&self, limit: &'static str) {
        self.limit_hits.hit(limit);
    }

    /// Takes over how fresh the index is.
    pub(crate) fn database_answered(&self, status: &Status) {
        let age = |since: DateTime<Utc>| (status.now - since).as_seconds_f64().max(0.0);
        self.database_up.set(1);
        self.era.set(status.revision.era);
        self.number.set(status.revision.n);
        self.revision_age.set(age(status.revision_at));
        self.scan_age.set(status.scan_completed_at.map_or(-1.0, age));
    }

    /// Leaves the rest as it was last seen.
    pub(crate) fn database_is_gone(&self) {
        self.database_up.set(0);
    }

    /// Takes over how busy the pool is.
    pub(crate) fn observe_pool(&self, pool: PoolStatus) {
        let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.pool_maximum.set(whole(pool.maximum));
        self.pool_size.set(whole(pool.size));
        self.pool_available.set(whole(pool.available));
        self.pool_waiting.set(whole(pool.waiting));
    }
}

/// The label of a route, from the pattern that the request matched.
pub(crate) fn route(pattern: Option<&str>) -> &'static str {
    match pattern {
        Some("/index/static") => "/index/static",
        Some("/index/dynamic") => "/index/dynamic",
        Some("/assert") => "/assert",
        Some(_) | None => "other",
    }
}

/// The label of a method.
pub(crate) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn all_that_is_registered_is_listed_with_its_help() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).expect("metrics");
        metrics.record(&Exchange {
            route: "other",
            method: "GET",
            status: StatusCode::OK,
            elapsed: Duration::ZERO,
            bytes: 1,
        });
        let gathered: BTreeMap<_, _> = registry
            .gather()
            .into_iter()
            .map(|family| (family.name().to_owned(), family.help().to_owned()))
            .filter(|(name, _)| name != "flagstate_limit_hits_total")
            .collect();
        let listed = METRICS.map(|(name, help)| (name.to_owned(), help.to_owned()));
        assert_eq!(gathered, BTreeMap::from(listed));
        assert!(gathered.keys().all(|name| name.starts_with("flagstate_")));
    }

    #[test]
    fn labels_are_bounded_whatever_is_sent() {
        assert_eq!(route(Some("/index/static")), "/index/static");
        assert_eq!(route(Some("/anything")), "other");
        assert_eq!(route(None), "other");
        assert_eq!(method(&Method::from_bytes(b"BREW").expect("a token")), "other");
    }
}
