//! The metrics of query-api, each with its help text; `docs/METRICS.md` is checked against [`DESCRIPTIONS`].
//!
//! No label takes its values from requests: routes and methods that are not ours count as `other`.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use flagstate_common::store::read::Status;
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

/// One metric, as documentation and code know it.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// What it counts or measures.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
}

const REQUESTS: Description = Description {
    name: "flagstate_http_requests_total",
    help: "Requests on the public port, by route, method and status.",
    labels: &["route", "method", "status"],
};
const SECONDS: Description = Description {
    name: "flagstate_http_request_seconds",
    help: "Time from a request's arrival to the head of its answer.",
    labels: &["route"],
};
const BYTES: Description = Description {
    name: "flagstate_http_response_bytes_total",
    help: "Bytes of answers' bodies as encoded; streamed ones do not count.",
    labels: &["route"],
};
const LIMIT_HITS: Description = Description {
    name: "flagstate_limit_hits_total",
    help: "Requests that were refused because of a limit, by its name in the configuration.",
    labels: &["limit"],
};
const ERA: Description = Description {
    name: "flagstate_revision_era",
    help: "Era of the index's revision, as this process last saw it.",
    labels: &[],
};
const NUMBER: Description = Description {
    name: "flagstate_revision_number",
    help: "Number of the index's revision within its era, as this process last saw it.",
    labels: &[],
};
const REVISION_AGE: Description = Description {
    name: "flagstate_revision_age_seconds",
    help: "Time since the index's revision was committed, by the database's clock.",
    labels: &[],
};
const SCAN_AGE: Description = Description {
    name: "flagstate_scan_age_seconds",
    help: "Time since the last complete scan of the registry ended; -1 before the first one.",
    labels: &[],
};
const QUEUE_LENGTH: Description = Description {
    name: "flagstate_queue_repositories",
    help: "Repositories that wait for the indexer to look at them.",
    labels: &[],
};
const QUEUE_AGE: Description = Description {
    name: "flagstate_queue_age_seconds",
    help: "Time since the oldest waiting work was accepted; 0 when nothing waits.",
    labels: &[],
};
const DATABASE_UP: Description = Description {
    name: "flagstate_database_up",
    help: "1 if the database answered when it was last asked, else 0.",
    labels: &[],
};

/// Every metric of this process that is not described in the common crate.
pub const DESCRIPTIONS: &[Description] = &[
    REQUESTS,
    SECONDS,
    BYTES,
    LIMIT_HITS,
    ERA,
    NUMBER,
    REVISION_AGE,
    SCAN_AGE,
    QUEUE_LENGTH,
    QUEUE_AGE,
    DATABASE_UP,
];

/// Upper bounds of the request histogram, in seconds.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// Where the process counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    bytes: IntCounterVec,
    limit_hits: IntCounterVec,
    era: IntGauge,
    number: IntGauge,
    revision_age: Gauge,
    scan_age: Gauge,
    queue_length: IntGauge,
    queue_age: Gauge,
    database_up: IntGauge,
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
    /// # Errors
    /// If the registry has metrics of these names already.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = HistogramOpts::new(SECONDS.name, SECONDS.help).buckets(BUCKETS.to_vec());
        let counters = |description: Description| {
            let counters = IntCounterVec::new(description.options(), description.labels)?;
            register(registry, counters)
        };
        let gauge = |description: Description| {
            register(registry, Gauge::with_opts(description.options())?)
        };
        let whole_gauge = |description: Description| {
            register(registry, IntGauge::with_opts(description.options())?)
        };
        Ok(Self {
            requests: counters(REQUESTS)?,
            seconds: register(registry, HistogramVec::new(histogram, SECONDS.labels)?)?,
            bytes: counters(BYTES)?,
            limit_hits: counters(LIMIT_HITS)?,
            era: whole_gauge(ERA)?,
            number: whole_gauge(NUMBER)?,
            revision_age: gauge(REVISION_AGE)?,
            scan_age: gauge(SCAN_AGE)?,
            queue_length: whole_gauge(QUEUE_LENGTH)?,
            queue_age: gauge(QUEUE_AGE)?,
            database_up: whole_gauge(DATABASE_UP)?,
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
        self.requests
            .with_label_values(&[route, method, status.as_str()])
            .inc();
        self.seconds
            .with_label_values(&[route])
            .observe(elapsed.as_secs_f64());
        self.bytes.with_label_values(&[route]).inc_by(*bytes);
    }

    pub(crate) fn count_limit_hit(&self, limit: &'static str) {
        self.limit_hits.with_label_values(&[limit]).inc();
    }

    /// Takes over how fresh the index is; `None` when the database did not tell, which leaves the ages as they were.
    pub(crate) fn observe(&self, status: Option<&Status>) {
        self.database_up.set(status.is_some().into());
        let Some(status) = status else { return };
        let age = |since: DateTime<Utc>| (status.now - since).as_seconds_f64().max(0.0);
        self.era.set(status.revision.era);
        self.number.set(status.revision.n);
        self.revision_age.set(age(status.revision_at));
        self.scan_age.set(status.scan_completed_at.map_or(-1.0, age));
        self.queue_length
            .set(i64::try_from(status.queue_length).unwrap_or(i64::MAX));
        self.queue_age
            .set(status.oldest_enqueued_at.map_or(0.0, age));
    }
}

impl Description {
    fn options(self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
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

    #[test]
    fn names_follow_the_convention_and_have_help() {
        for description in DESCRIPTIONS {
            assert!(description.name.starts_with("flagstate_"), "{description:?}");
            assert!(description.help.ends_with('.'), "{description:?}");
        }
    }

    #[test]
    fn all_that_is_registered_is_described() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).expect("metrics");
        metrics.count_limit_hit("pattern");
        metrics.record(&Exchange {
            route: "other",
            method: "GET",
            status: StatusCode::OK,
            elapsed: Duration::ZERO,
            bytes: 1,
        });
        let mut gathered: Vec<_> = registry
            .gather()
            .into_iter()
            .map(|family| (family.name().to_owned(), family.help().to_owned()))
            .collect();
        let mut described: Vec<_> = DESCRIPTIONS
            .iter()
            .map(|description| (description.name.to_owned(), description.help.to_owned()))
            .collect();
        gathered.sort();
        described.sort();
        assert_eq!(gathered, described);
    }

    #[test]
    fn labels_are_bounded_whatever_is_sent() {
        assert_eq!(route(Some("/index/static")), "/index/static");
        assert_eq!(route(Some("/anything")), "other");
        assert_eq!(route(None), "other");
        assert_eq!(method(&Method::from_bytes(b"BREW").expect("a token")), "other");
    }
}
