//! What the indexer counts.

use std::time::Duration;

use chrono::Utc;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

use flagstate_common::config::Limits;
use flagstate_common::document::Problem;
use flagstate_common::metrics::{LimitHits, register};

use crate::scan::hint::{Action, Hint, Look};
use crate::scan::observation::ChangeSet;
use crate::scan::schedule::ScanSummary;
use crate::store::{QueueStatus, Swept};

/// Every metric of this module: name, help.
pub const METRICS: [(&str, &str); 19] = [
    COLLECTED,
    COLLECTION_SECONDS,
    REQUESTS,
    EVENTS,
    SCANS,
    SCAN_SECONDS,
    CHANGES,
    VISIBLE,
    QUEUE,
    QUARANTINED,
    QUEUE_OLDEST,
    FULL_SCANS,
    FULL_SCAN_SECONDS,
    FULL_SCAN_COMPLETED,
    FULL_SCAN_DONE,
    FULL_SCAN_KNOWN,
    WRITER,
    CATALOG_EMPTIED,
    EPOCH,
];

const REQUESTS: (&str, &str) = ("flagstate_events_requests_total", "Requests to /events, by outcome");
const EVENTS: (&str, &str) = (
    "flagstate_events_total",
    "Events in these requests, by whether and why they are no work",
);
const SCANS: (&str, &str) = (
    "flagstate_repository_scans_total",
    "Looks at one repository, by trigger and outcome",
);
const SCAN_SECONDS: (&str, &str) = (
    "flagstate_repository_scan_seconds",
    "Duration of scans of one whole repository",
);
const CHANGES: (&str, &str) = ("flagstate_changes_total", "Changes that were committed, by kind");
const VISIBLE: (&str, &str) = (
    "flagstate_push_visible_seconds",
    "From the arrival of a push notification to the commit that shows it",
);
const QUEUE: (&str, &str) = ("flagstate_queue_repositories", "Repositories in the queue");
const QUARANTINED: (&str, &str) = (
    "flagstate_queue_quarantined_repositories",
    "Repositories that failed 8 times in a row and are tried rarely",
);
const QUEUE_OLDEST: (&str, &str) = ("flagstate_queue_oldest_seconds", "Age of the oldest work that is due");
const FULL_SCANS: (&str, &str) = ("flagstate_full_scans_total", "Full scans, by outcome");
const FULL_SCAN_SECONDS: (&str, &str) = ("flagstate_full_scan_seconds", "Duration of the last full scan");
const FULL_SCAN_COMPLETED: (&str, &str) = (
    "flagstate_full_scan_completed_timestamp_seconds",
    "When the last full scan that saw the whole catalog ended, in seconds since 1970; 0 before the first",
);
const FULL_SCAN_DONE: (&str, &str) = (
    "flagstate_full_scan_repositories_done",
    "Repositories that the running full scan has finished",
);
const FULL_SCAN_KNOWN: (&str, &str) = (
    "flagstate_full_scan_repositories",
    "Repositories that the running full scan knows of so far",
);
const COLLECTED: (&str, &str) = (
    "flagstate_collected_rows_total",
    "Rows that nothing needed and that were removed from the index, by kind",
);
const COLLECTION_SECONDS: (&str, &str) = ("flagstate_collection_seconds", "Duration of the last collection");
const WRITER: (&str, &str) = ("flagstate_writer", "1 when this process writes, 0 when it is a standby");
const CATALOG_EMPTIED: (&str, &str) = (
    "flagstate_catalog_emptied",
    "1 when the registry showed nothing and the index holds something",
);
const EPOCH: (&str, &str) = (
    "flagstate_writer_epoch",
    "Epoch of this process's lease; 0 for a standby",
);

/// Seconds, from a look nearby to a large repository.
const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// The indexer's metrics.
pub struct IndexerMetrics {
    requests: IntCounterVec,
    events: IntCounterVec,
    scans: IntCounterVec,
    scan_seconds: Histogram,
    changes: IntCounterVec,
    visible: Histogram,
    queue: IntGauge,
    quarantined: IntGauge,
    queue_oldest: Gauge,
    full_scans: IntCounterVec,
    full_scan_seconds: Gauge,
    full_scan_completed: Gauge,
    full_scan_done: IntGauge,
    full_scan_known: IntGauge,
    collected: IntCounterVec,
    collection_seconds: Gauge,
    writer: IntGauge,
    catalog_emptied: IntGauge,
    epoch: IntGauge,
    limit_hits: LimitHits,
}

impl IndexerMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn new(registry: &Registry, limit_hits: LimitHits) -> Result<Self, prometheus::Error> {
        let opts = |(name, help): (&str, &str)| Opts::new(name, help);
        let seconds = |metric| HistogramOpts {
            common_opts: opts(metric),
            buckets: SECONDS.to_vec(),
        };
        Ok(Self {
            requests: register(registry, IntCounterVec::new(opts(REQUESTS), &["outcome"])?)?,
            events: register(registry, IntCounterVec::new(opts(EVENTS), &["outcome"])?)?,
            scans: register(registry, IntCounterVec::new(opts(SCANS), &["trigger", "outcome"])?)?,
            scan_seconds: register(registry, Histogram::with_opts(seconds(SCAN_SECONDS))?)?,
            changes: register(registry, IntCounterVec::new(opts(CHANGES), &["kind"])?)?,
            visible: register(registry, Histogram::with_opts(seconds(VISIBLE))?)?,
            queue: register(registry, IntGauge::with_opts(opts(QUEUE))?)?,
            quarantined: register(registry, IntGauge::with_opts(opts(QUARANTINED))?)?,
            queue_oldest: register(registry, Gauge::with_opts(opts(QUEUE_OLDEST))?)?,
            full_scans: register(registry, IntCounterVec::new(opts(FULL_SCANS), &["outcome"])?)?,
            full_scan_seconds: register(registry, Gauge::with_opts(opts(FULL_SCAN_SECONDS))?)?,
            full_scan_completed: register(registry, Gauge::with_opts(opts(FULL_SCAN_COMPLETED))?)?,
            full_scan_done: register(registry, IntGauge::with_opts(opts(FULL_SCAN_DONE))?)?,
            full_scan_known: register(registry, IntGauge::with_opts(opts(FULL_SCAN_KNOWN))?)?,
            collected: register(registry, IntCounterVec::new(opts(COLLECTED), &["kind"])?)?,
            collection_seconds: register(registry, Gauge::with_opts(opts(COLLECTION_SECONDS))?)?,
            writer: register(registry, IntGauge::with_opts(opts(WRITER))?)?,
            catalog_emptied: register(registry, IntGauge::with_opts(opts(CATALOG_EMPTIED))?)?,
            epoch: register(registry, IntGauge::with_opts(opts(EPOCH))?)?,
            limit_hits,
        })
    }

    /// A request to `/events` was answered.
    pub fn count_request(&self, outcome: &'static str) {
        self.requests.with_label_values(&[outcome]).inc();
    }

    /// An event was read.
    pub fn count_event(&self, outcome: &'static str) {
        self.events.with_label_values(&[outcome]).inc();
    }

    /// Something ran into the limit of this name.
    pub fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.hit(limit);
    }

    /// An image has this problem; one of a limit counts as a hit of it.
    pub fn limit_problem(&self, problem: &Problem) {
        let name = problem
            .limit
            .as_deref()
            .and_then(|limit| Limits::NAMES.into_iter().find(|name| *name == limit));
        if let Some(name) = name {
            self.limit_hits.hit(name);
        }
    }

    /// A repository was looked at.
    pub fn count_scan(&self, trigger: &'static str, outcome: &'static str) {
        self.scans.with_label_values(&[trigger, outcome]).inc();
    }

    /// A whole repository was scanned.
    pub fn observe_scan(&self, took: Duration) {
        self.scan_seconds.observe(took.as_secs_f64());
    }

    /// A change set was committed.
    pub fn count_change(&self, changes: &ChangeSet) {
        for (kind, count) in [
            ("tags_moved", changes.moved.len()),
            ("tags_ended", changes.ended.len()),
            ("manifests", changes.manifests.len()),
        ] {
            self.changes.with_label_values(&[kind]).inc_by(count as u64);
        }
    }

    /// Hints were looked at; pushes that the registry agrees with are visible now.
    pub fn observe_visible(&self, hints: &[Hint], looks: &[Look]) {
        let done = hints.iter().zip(looks).filter(|(_, look)| **look == Look::Done);
        for (hint, _) in done.filter(|(hint, _)| hint.action == Action::Push) {
            let took = (Utc::now() - hint.arrived_at).to_std().unwrap_or_default();
            self.visible.observe(took.as_secs_f64());
        }
    }

    /// A full scan ended.
    pub fn observe_full_scan(&self, summary: &ScanSummary, took: Duration) {
        let outcome = if summary.is_complete { "complete" } else { "incomplete" };
        self.full_scans.with_label_values(&[outcome]).inc();
        self.full_scan_seconds.set(took.as_secs_f64());
        self.catalog_emptied.set(i64::from(summary.emptied));
    }

    /// A collection ended.
    pub fn observe_collection(&self, swept: &Swept, took: Duration) {
        for (kind, count) in [
            ("history", swept.tags),
            ("held", swept.held),
            ("manifests", swept.manifests),
            ("documents", swept.documents),
        ] {
            self.collected.with_label_values(&[kind]).inc_by(count);
        }
        self.collection_seconds.set(took.as_secs_f64());
    }

    /// The present state of the queue.
    pub fn set_queue(&self, status: &QueueStatus) {
        self.queue.set(status.repositories);
        self.quarantined.set(status.quarantined);
        self.queue_oldest.set(status.oldest_seconds);
    }

    /// How far the running full scan is, and when the last complete one ended.
    pub fn set_progress(&self, progress: &crate::store::ScanProgress) {
        self.full_scan_done
            .set(i64::try_from(progress.done).unwrap_or(i64::MAX));
        self.full_scan_known
            .set(i64::try_from(progress.known).unwrap_or(i64::MAX));
        let completed = progress.completed_at.map(|at| at.timestamp_millis() as f64 / 1000.0);
        self.full_scan_completed.set(completed.unwrap_or_default());
    }

    /// This process became the writer with this epoch, or stopped to be it.
    pub fn set_writer(&self, epoch: Option<i64>) {
        self.writer.set(i64::from(epoch.is_some()));
        self.epoch.set(epoch.unwrap_or_default());
    }
}
