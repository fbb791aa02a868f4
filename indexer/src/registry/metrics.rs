//! What the registry client counts.

use std::time::Duration;

use flagstate_common::metrics::{LimitHits, register};
use prometheus::{Counter, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Every metric of this module: name, help.
pub const METRICS: [(&str, &str); 8] = [
    REQUESTS,
    SECONDS,
    IN_FLIGHT,
    CONCURRENCY,
    RETRIES,
    PAUSES,
    PAUSED,
    DROPPED,
];

const REQUESTS: (&str, &str) = (
    "flagstate_registry_requests_total",
    "HTTP exchanges with the registry, its storage and its token endpoint, by operation and outcome",
);
const SECONDS: (&str, &str) = (
    "flagstate_registry_request_seconds",
    "Duration of these exchanges, from the first byte sent to the last byte read",
);
const IN_FLIGHT: (&str, &str) = ("flagstate_registry_requests_in_flight", "Exchanges that are under way");
const CONCURRENCY: (&str, &str) = (
    "flagstate_registry_concurrency",
    "Calls that may be in flight at once; finds itself below registry.concurrency",
);
const RETRIES: (&str, &str) = (
    "flagstate_registry_retries_total",
    "Calls that were tried again, by operation",
);
const PAUSES: (&str, &str) = (
    "flagstate_registry_pauses_total",
    "Times the registry asked the client to wait",
);
const PAUSED: (&str, &str) = (
    "flagstate_registry_pause_seconds_total",
    "Seconds the registry asked the client to wait, after the limit",
);
const DROPPED: (&str, &str) = (
    "flagstate_registry_names_dropped_total",
    "Names in catalogs and tag lists outside the grammar of the specification",
);

/// From a cached HEAD nearby to a deadline.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0, 60.0];

/// What a call to the registry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Catalog,
    Tags,
    HeadManifest,
    GetManifest,
    GetConfig,
    Token,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::HeadManifest => "head_manifest",
            Self::GetManifest => "get_manifest",
            Self::GetConfig => "get_config",
            Self::Token => "token",
        }
    }
}

/// The client's metrics; a clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct RegistryMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
    pub(super) concurrency: IntGauge,
    retries: IntCounterVec,
    pauses: IntCounter,
    paused: Counter,
    dropped: IntCounter,
    limit_hits: LimitHits,
}

impl RegistryMetrics {
    /// Registers the metrics; limits that something ran into are counted in `limit_hits`.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn new(registry: &Registry, limit_hits: LimitHits) -> Result<Self, prometheus::Error> {
        let opts = |(name, help): (&str, &str)| Opts::new(name, help);
        let seconds = HistogramOpts {
            common_opts: opts(SECONDS),
            buckets: BUCKETS.to_vec(),
        };
        let outcome = ["operation", "outcome"];
        Ok(Self {
            requests: register(registry, IntCounterVec::new(opts(REQUESTS), &outcome)?)?,
            seconds: register(registry, HistogramVec::new(seconds, &["operation"])?)?,
            in_flight: register(registry, IntGauge::with_opts(opts(IN_FLIGHT))?)?,
            concurrency: register(registry, IntGauge::with_opts(opts(CONCURRENCY))?)?,
            retries: register(registry, IntCounterVec::new(opts(RETRIES), &["operation"])?)?,
            pauses: register(registry, IntCounter::with_opts(opts(PAUSES))?)?,
            paused: register(registry, Counter::with_opts(opts(PAUSED))?)?,
            dropped: register(registry, IntCounter::with_opts(opts(DROPPED))?)?,
            limit_hits,
        })
    }

    /// An exchange begins; it ends when the guard is dropped, finished or not.
    pub(super) fn started(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(super) fn exchanged(&self, operation: Operation, outcome: &str, took: Duration) {
        let operation = operation.label();
        self.requests.with_label_values(&[operation, outcome]).inc();
        let seconds = self.seconds.with_label_values(&[operation]);
        seconds.observe(took.as_secs_f64());
    }

    pub(super) fn retried(&self, operation: Operation) {
        self.retries.with_label_values(&[operation.label()]).inc();
    }

    pub(super) fn paused(&self, pause: Duration) {
        self.pauses.inc();
        self.paused.inc_by(pause.as_secs_f64());
    }

    pub(super) fn names_dropped(&self, names: usize) {
        self.dropped.inc_by(names as u64);
    }

    pub(super) fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.hit(limit);
    }
}

/// One exchange under way.
pub(super) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn registers_what_the_list_says() {
        let registry = Registry::new();
        let limit_hits = LimitHits::register(&Registry::new()).expect("registers");
        let metrics = RegistryMetrics::new(&registry, limit_hits.clone()).expect("registers");
        metrics.exchanged(Operation::Token, "success", Duration::ZERO);
        metrics.retried(Operation::Token);
        let families = registry.gather();
        let found: BTreeSet<(&str, &str)> = families.iter().map(|family| (family.name(), family.help())).collect();
        assert_eq!(found, METRICS.into_iter().collect());
        assert!(RegistryMetrics::new(&registry, limit_hits).is_err());
    }
}
