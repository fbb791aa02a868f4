//! Working on one repository at a time each: observe, plan, apply, settle.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use flagstate_common::config::RepositoryFilter;
use flagstate_common::error_chain::Chain;
use flagstate_common::repository_name::RepositoryName;
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::hint::{Action, Hint, Look, Target};
use super::observation::{Cause, Listing, StoredRepository};
use super::observe::{ObserveError, Observed, Observer};
use super::plan::plan;
use crate::metrics::IndexerMetrics;
use crate::store::{Settlement, Which, WorkItem, WriteError, WriteStore};

/// A scan of a whole repository that notifications asked for counts only when it began this many seconds after the last
/// of them: registries notify before they write tags.
const WHOLE_PATIENCE_SECONDS: f64 = 3.0;

/// Why work on a repository failed.
#[derive(Debug, Error)]
pub enum WorkError {
    /// Looking at it.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Writing about it.
    #[error("the index: {0}")]
    Write(#[from] WriteError),
}

impl From<flagstate_common::store::StoreError> for WorkError {
    fn from(error: flagstate_common::store::StoreError) -> Self {
        Self::Write(error.into())
    }
}

impl WorkError {
    /// Whether this process is no longer the writer, so that all work has to stop.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        match self {
            Self::Write(error) | Self::Observe(ObserveError::Stage(error)) => {
                matches!(error, WriteError::Fenced { .. })
            }
            Self::Observe(_) => false,
        }
    }
}

/// What a scan of a whole repository found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Whether anything was written.
    pub changed: bool,
    /// Whether the registry lists at least one tag.
    pub is_found: bool,
    /// Whether the registry does not find it, or lists no tag.
    pub is_absent: bool,
    /// Whether some of it could not be read, so that it is tried again.
    pub is_incomplete: bool,
    /// Whether tags are stored that would be removed, if only somebody vouched that it is gone.
    pub unvouched_absence: bool,
}

/// Works on repositories; cheap to clone.
#[derive(Clone)]
pub struct Worker {
    store: WriteStore,
    observer: Observer,
    filter: RepositoryFilter,
    metrics: Arc<IndexerMetrics>,
    busy: Arc<Busy>,
}

/// Which repositories are being worked on: never two workers on one.
#[derive(Default)]
struct Busy {
    locks: std::sync::Mutex<HashMap<RepositoryName, Arc<Mutex<()>>>>,
}

/// The right to work on a repository; given back when dropped.
struct Turn {
    busy: Arc<Busy>,
    repository: RepositoryName,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Busy {
    async fn turn(self: &Arc<Self>, repository: &RepositoryName) -> Turn {
        let lock = self.locks().entry(repository.clone()).or_default().clone();
        let guard = Some(lock.lock_owned().await);
        Turn {
            busy: self.clone(),
            repository: repository.clone(),
            guard,
        }
    }

    fn locks(&self) -> std::sync::MutexGuard<'_, HashMap<RepositoryName, Arc<Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = self.busy.locks();
        // Nobody else holds or waits for it when the map has the only reference.
        if locks
            .get(&self.repository)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            locks.remove(&self.repository);
        }
    }
}

impl Worker {
    /// A worker that writes to `store`.
    #[must_use]
    pub fn new(store: WriteStore, observer: Observer, filter: RepositoryFilter, metrics: Arc<IndexerMetrics>) -> Self {
        Self {
            store,
            observer,
            filter,
            metrics,
            busy: Arc::default(),
        }
    }

    /// The store that this worker writes to.
    #[must_use]
    pub fn store(&self) -> &WriteStore {
        &self.store
    }

    /// The observer that this worker looks through.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Which repositories are worked on.
    #[must_use]
    pub fn filter(&self) -> &RepositoryFilter {
        &self.filter
    }

    /// Repositories that somebody works on now: notifications about them wait without keeping a worker.
    #[must_use]
    pub fn in_work(&self) -> Vec<RepositoryName> {
        self.busy.locks().keys().cloned().collect()
    }

    /// Scans a whole repository on behalf of a full scan; a failure puts it into the queue, to be tried again.
    ///
    /// # Errors
    /// When the scan failed; when this process is no longer the writer.
    pub async fn scan(&self, repository: &RepositoryName, vouched: bool) -> Result<Scanned, WorkError> {
        let _turn = self.busy.turn(repository).await;
        let scanned = self.scan_whole(repository, Cause::Scan, vouched).await;
        let failure = match &scanned {
            Ok((_, failures)) => failures.first().cloned(),
            Err(error) => Some(Chain(error).to_string()),
        };
        match &failure {
            None => self.metrics.count_scan("scan", "success"),
            Some(failure) => {
                self.metrics.count_scan("scan", "failure");
                tracing::warn!(repository.name = %repository, scan.trigger = "scan", error = failure, "scan failed; it is tried again");
                if !scanned.as_ref().is_err_and(WorkError::is_fenced) {
                    self.store.enqueue_failed(repository, failure).await?;
                }
            }
        }
        scanned.map(|(scanned, _)| scanned)
    }

    /// Does the work of one row of the queue, and settles it.
    ///
    /// # Errors
    /// When the row could not be settled; failures of the work itself are settled as such.
    pub async fn serve(&self, item: &WorkItem) -> Result<(), WorkError> {
        let _turn = self.busy.turn(&item.repository).await;
        if !self.filter.allows(&item.repository) {
            let settlement = Settlement::Done {
                whole: true,
                hints: item.hints.clone(),
                explained: Vec::new(),
                again_at: None,
            };
            return Ok(self.store.settle(item, &settlement).await?);
        }
        let is_whole = item.whole || item.hints.iter().any(Hint::is_repository_removal);
        let result = if is_whole {
            self.serve_whole(item).await
        } else {
            self.serve_hints(item).await
        };
        match result {
            Ok(()) => {
                self.metrics.count_scan("notification", "success");
                Ok(())
            }
            Err(error) if error.is_fenced() => Err(error),
            Err(error) => {
                self.metrics.count_scan("notification", "failure");
                tracing::warn!(
                    repository.name = %item.repository, scan.trigger = "notification", scan.attempts = item.attempts + 1,
                    error = %Chain(&error), "work failed; it is tried again"
                );
                let error = Chain(&error).to_string();
                Ok(self.store.settle(item, &Settlement::Failed { error }).await?)
            }
        }
    }

    /// Looks at what was named; effect and settlement are one transaction.
    async fn serve_hints(&self, item: &WorkItem) -> Result<(), WorkError> {
        let (stored, observed, looks) = self.look(item).await?;
        let settlement = match incomplete(&observed.seen.failures) {
            None => settlement(false, &item.hints, &looks, None),
            Some(error) => Settlement::Failed {
                error: Chain(&error).to_string(),
            },
        };
        let changes = plan(
            &item.repository,
            Cause::Notification,
            false,
            &stored,
            &observed.stored,
            &observed.seen,
        );
        if changes.is_empty() {
            self.store.settle(item, &settlement).await?;
        } else {
            self.store.apply(&changes, Some((item, &settlement))).await?;
            self.metrics.count_change(&changes);
        }
        self.metrics.observe_visible(&item.hints, &looks);
        Ok(())
    }

    /// Looks at what was named, then at everything. A removal, of the repository or of something in it, vouches for
    /// what the registry then says: that it does not find the repository, or that no tag is left.
    async fn serve_whole(&self, item: &WorkItem) -> Result<(), WorkError> {
        let (stored, observed, mut looks) = self.look(item).await?;
        let changes = plan(
            &item.repository,
            Cause::Notification,
            false,
            &stored,
            &observed.stored,
            &observed.seen,
        );
        if !changes.is_empty() {
            self.store.apply(&changes, None).await?;
            self.metrics.count_change(&changes);
        }
        let vouched = item.hints.iter().any(|hint| hint.action == Action::Delete);
        let (scanned, mut failures) = self.scan_whole(&item.repository, Cause::Notification, vouched).await?;
        failures.extend(observed.seen.failures);
        if let Some(error) = incomplete(&failures) {
            return Err(error.into());
        }
        if scanned.is_absent {
            let removals = item
                .hints
                .iter()
                .zip(&mut looks)
                .filter(|(hint, _)| hint.is_repository_removal());
            removals.for_each(|(_, look)| *look = Look::Done);
        }
        let missing = item
            .settled_seconds
            .map_or(0.0, |seconds| WHOLE_PATIENCE_SECONDS - seconds);
        let counts = missing <= 0.0;
        let again = (item.whole && !counts).then(|| Utc::now() + TimeDelta::milliseconds((missing * 1000.0) as i64));
        self.store
            .settle(item, &settlement(counts, &item.hints, &looks, again))
            .await?;
        self.metrics.observe_visible(&item.hints, &looks);
        Ok(())
    }

    async fn look(&self, item: &WorkItem) -> Result<(StoredRepository, Observed, Vec<Look>), WorkError> {
        let tags: Vec<_> = item.hints.iter().filter_map(Hint::tag).cloned().collect();
        let digests: Vec<_> = item
            .hints
            .iter()
            .filter_map(|hint| match &hint.target {
                Target::Digest(digest) => Some(digest.clone()),
                Target::Tag(..) | Target::Repository => None,
            })
            .collect();
        let stored = self
            .store
            .repository(&item.repository, Which::Named(&tags, &digests))
            .await?;
        let (observed, looks) = self
            .observer
            .hinted(&self.store, &item.repository, &item.hints, &stored)
            .await?;
        Ok((stored, observed, looks))
    }

    /// Observes, plans and applies one whole repository; the second result tells reads that failed and may succeed later.
    async fn scan_whole(
        &self,
        repository: &RepositoryName,
        cause: Cause,
        vouched: bool,
    ) -> Result<(Scanned, Vec<String>), WorkError> {
        let began = tokio::time::Instant::now();
        let stored = self.store.repository(repository, Which::All).await?;
        let observed = self.observer.whole(&self.store, repository, &stored).await?;
        let (is_found, is_absent) = match &observed.seen.listing {
            Listing::NotFound => (false, true),
            Listing::Complete(tags) => (!tags.is_empty(), tags.is_empty()),
            Listing::NotAsked | Listing::Incomplete => (!observed.seen.tags.is_empty(), false),
        };
        // A full scan has seen the catalog; a notification's word needs a registry that still holds something.
        let vouched = vouched && (cause == Cause::Scan || !is_absent || self.observer.finds_something().await);
        let changes = plan(repository, cause, vouched, &stored, &observed.stored, &observed.seen);
        let changed = !changes.is_empty();
        if changed {
            self.store.apply(&changes, None).await?;
            self.metrics.count_change(&changes);
        }
        self.metrics.observe_scan(began.elapsed());
        tracing::info!(
            repository.name = %repository, scan.trigger = cause.as_str(), scan.tags = observed.seen.tags.len(),
            scan.tags_moved = changes.moved.len(), scan.tags_ended = changes.ended.len(),
            scan.manifests = changes.manifests.len(), scan.failures = observed.seen.failures.len(),
            scan.seconds = began.elapsed().as_secs_f64(), "repository scanned"
        );
        let unvouched_absence = is_absent && !vouched && !stored.tags.is_empty();
        let scanned = Scanned {
            changed,
            is_found,
            is_absent,
            is_incomplete: !observed.seen.failures.is_empty(),
            unvouched_absence,
        };
        Ok((scanned, observed.seen.failures))
    }
}

/// Reads that failed make the work fail, after what could be read was written.
fn incomplete(failures: &[String]) -> Option<ObserveError> {
    let last = failures.last()?.clone();
    Some(ObserveError::Incomplete {
        failures: failures.len(),
        last,
    })
}

fn settlement(whole: bool, hints: &[Hint], looks: &[Look], whole_again: Option<DateTime<Utc>>) -> Settlement {
    let pairs = || hints.iter().zip(looks);
    let done = pairs().filter(|(_, look)| !matches!(look, Look::Again { .. }));
    let again = pairs().filter_map(|(_, look)| match look {
        Look::Again { at, .. } => Some(*at),
        Look::Done | Look::Explained | Look::GivenUp => None,
    });
    let explained = pairs().filter(|(_, look)| matches!(look, Look::Again { explained: true, .. }));
    Settlement::Done {
        whole,
        hints: done.map(|(hint, _)| hint.clone()).collect(),
        explained: explained.map(|(hint, _)| hint.clone()).collect(),
        again_at: again.chain(whole_again).min(),
    }
}
