//! Metrics that both services have; each lives in a registry that is passed as an argument.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::build;
use crate::config::Limits;

/// Metrics of our own that both services have: name, help. Beside them stand the `process_*` metrics that Prometheus's
/// clients share.
pub const METRICS: [(&str, &str); 2] = [BUILD_INFO, LIMIT_HITS];

const BUILD_INFO: (&str, &str) = ("flagstate_build_info", "Which build this is; always 1");
const LIMIT_HITS: (&str, &str) = (
    "flagstate_limit_hits_total",
    "How often a limit of the configuration cut something off, by limit",
);

/// Content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Adds a metric to a registry and returns it; for types of metrics that are made of several.
///
/// # Errors
///
/// Its name must be new in the registry.
pub fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Adds what every process tells about itself: `flagstate_build_info` and `process_*`.
///
/// # Errors
///
/// The names must be new in the registry.
pub fn register_process(registry: &Registry) -> Result<(), prometheus::Error> {
    let options = Opts::new(BUILD_INFO.0, BUILD_INFO.1)
        .const_label("version", build::VERSION)
        .const_label("commit", build::COMMIT)
        .const_label("built", build::BUILT);
    register(registry, IntGauge::with_opts(options)?)?.set(1);
    registry.register(Box::new(ProcessCollector::for_self()))
}

/// Counts how often each limit of [`Limits`] cut something off: `flagstate_limit_hits_total{limit}`.
#[derive(Clone, Debug)]
pub struct LimitHits(IntCounterVec);

impl LimitHits {
    /// Adds the counter to a registry, every limit at 0.
    ///
    /// # Errors
    ///
    /// The name must be new in the registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = Opts::new(LIMIT_HITS.0, LIMIT_HITS.1);
        let hits = register(registry, IntCounterVec::new(options, &["limit"])?)?;
        for limit in Limits::NAMES {
            hits.with_label_values(&[limit]);
        }
        Ok(Self(hits))
    }

    /// Counts one hit of a limit, by its name in `limits:`.
    pub fn hit(&self, limit: &'static str) {
        debug_assert!(Limits::NAMES.contains(&limit), "no limit is called {limit}");
        self.0.with_label_values(&[limit]).inc();
    }
}

/// All metrics of a registry in Prometheus's text format.
///
/// # Errors
///
/// A metric without a name or of a wrong kind, which registering refuses already.
pub fn encode(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        String::from_utf8(encode(registry).unwrap()).unwrap()
    }

    #[test]
    fn tells_build_and_process() {
        let registry = Registry::new();
        register_process(&registry).unwrap();
        let text = text(&registry);
        let build_info = text
            .lines()
            .find(|line| line.starts_with("flagstate_build_info{"))
            .unwrap();
        assert!(build_info.ends_with("} 1"), "{build_info}");
        for label in [
            format!("version=\"{}\"", build::VERSION),
            format!("commit=\"{}\"", build::COMMIT),
            format!("built=\"{}\"", build::BUILT),
        ] {
            assert!(build_info.contains(&label), "{build_info}");
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn counts_limit_hits_from_zero() {
        let registry = Registry::new();
        let hits = LimitHits::register(&registry).unwrap();
        hits.hit("manifest");
        hits.clone().hit("manifest");
        let text = text(&registry);
        for line in [
            "flagstate_limit_hits_total{limit=\"manifest\"} 2",
            "flagstate_limit_hits_total{limit=\"retry_after\"} 0",
        ] {
            assert!(text.lines().any(|candidate| candidate == line), "{text}");
        }
    }

    #[test]
    fn refuses_the_same_name_twice() {
        let registry = Registry::new();
        LimitHits::register(&registry).unwrap();
        assert!(LimitHits::register(&registry).is_err());
    }
}
