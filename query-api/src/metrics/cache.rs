//! The metrics of the cache of answers.

use flagstate_common::metrics::register;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

pub(super) const ANSWERS: (&str, &str) = (
    "flagstate_cache_answers_total",
    "Answers to queries whose documents are kept, by how: hit, filled (read first, or waited for who did), stale",
);
pub(super) const FILLS: (&str, &str) = (
    "flagstate_cache_fills_total",
    "Documents that were read to be kept, by outcome: new, equal or changed in place of one that was kept, failed",
);
pub(super) const ENTRIES: (&str, &str) = ("flagstate_cache_entries", "Documents that are kept");
pub(super) const BYTES: (&str, &str) = (
    "flagstate_cache_bytes",
    "Memory of the documents that are kept, all encodings, keys and overhead counted; at most cache.memory",
);
pub(super) const EVICTIONS: (&str, &str) = (
    "flagstate_cache_evictions_total",
    "Documents that had to go, or were not kept at all, for want of memory",
);

/// How an answer came about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered {
    /// From memory.
    Hit,
    /// Read for this request, or for another one that it waited for.
    Filled,
    /// From memory, because the database failed.
    Stale,
}

/// What came of a fill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filled {
    /// There was nothing before.
    New,
    /// The same as before.
    Equal,
    /// Something else than before.
    Changed,
    /// Nothing.
    Failed,
}

/// What the cache counts and measures; cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct CacheMetrics {
    hits: IntCounter,
    filled: IntCounter,
    stale: IntCounter,
    fills: IntCounterVec,
    entries: IntGauge,
    bytes: IntGauge,
    evictions: IntCounter,
}

impl CacheMetrics {
    /// Adds the metrics to a registry.
    ///
    /// # Errors
    /// Their names must be new in the registry.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |(name, help), label: &str| register(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let gauge = |(name, help)| register(registry, IntGauge::new(name, help)?);
        let answers = counters(ANSWERS, "how")?;
        let fills = counters(FILLS, "outcome")?;
        for outcome in [Filled::New, Filled::Equal, Filled::Changed, Filled::Failed] {
            fills.with_label_values(&[outcome.label()]);
        }
        Ok(Self {
            hits: answers.with_label_values(&["hit"]),
            filled: answers.with_label_values(&["filled"]),
            stale: answers.with_label_values(&["stale"]),
            fills,
            entries: gauge(ENTRIES)?,
            bytes: gauge(BYTES)?,
            evictions: register(registry, IntCounter::new(EVICTIONS.0, EVICTIONS.1)?)?,
        })
    }

    pub(crate) fn count_answer(&self, how: Answered) {
        match how {
            Answered::Hit => self.hits.inc(),
            Answered::Filled => self.filled.inc(),
            Answered::Stale => self.stale.inc(),
        }
    }

    pub(crate) fn count_fill(&self, outcome: Filled) {
        self.fills.with_label_values(&[outcome.label()]).inc();
    }

    pub(crate) fn count_eviction(&self) {
        self.evictions.inc();
    }

    pub(crate) fn observe(&self, entries: u64, bytes: u64) {
        let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.entries.set(whole(entries));
        self.bytes.set(whole(bytes));
    }
}

impl Filled {
    fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Equal => "equal",
            Self::Changed => "changed",
            Self::Failed => "failed",
        }
    }
}
