//! What is worked on when: notifications as they come, full scans at the start and at every interval.
//!
//! The two have workers of their own, so that neither waits for the other. Work of full scans lives in memory only: a
//! scan without change writes nothing, and a scan that is interrupted begins anew with the next writer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use flagstate_common::error_chain::Chain;
use flagstate_common::repository_name::RepositoryName;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::worker::{Scanned, WorkError, Worker};
use crate::metrics::IndexerMetrics;
use crate::store::{RequestKind, RequestStore};

/// Repositories that notifications have in work at once.
const NOTIFICATION_WORKERS: usize = 8;
/// Repositories that a full scan has in work at once.
const SCAN_WORKERS: usize = 8;
/// How often the queue is looked at without being told: a standby may have taken work in.
const QUEUE_POLL: Duration = Duration::from_millis(250);
/// How often requests for full scans are looked for.
const REQUEST_POLL: Duration = Duration::from_secs(1);
/// How long to wait after the database refused.
const DATABASE_PAUSE: Duration = Duration::from_millis(500);
/// How soon a full scan that could not read the catalog is tried again, if the interval is not shorter; doubles each time.
const CATALOG_RETRY: Duration = Duration::from_secs(60);
/// The longest such delay.
const LONGEST_CATALOG_RETRY: Duration = Duration::from_secs(3600);
/// How long work that is under way may take when the term ends.
const LAST_WORK: Duration = Duration::from_secs(3);
/// How often a running scan tells how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Serves the queue until cancelled or no longer the writer.
///
/// A registry that hangs delays the end by a few seconds only: work that is broken off writes nothing, and its row stays
/// in the queue.
///
/// # Errors
/// When this process is no longer the writer.
pub async fn serve_queue(worker: Worker, wake: Arc<Notify>, cancel: CancellationToken) -> Result<(), WorkError> {
    let mut tasks: JoinSet<Result<(), WorkError>> = JoinSet::new();
    let mut busy: HashMap<Id, RepositoryName> = HashMap::new();
    while !cancel.is_cancelled() {
        let mut pause = QUEUE_POLL;
        let free = NOTIFICATION_WORKERS - tasks.len();
        if free > 0 {
            let mut in_work = worker.in_work();
            in_work.extend(busy.values().cloned());
            match worker.store().due(&in_work, free + 1).await {
                Ok((items, next)) => {
                    pause = next.map_or(pause, |next| pause.min(next));
                    for item in items.into_iter().take(free) {
                        let (worker, repository) = (worker.clone(), item.repository.clone());
                        let task = tasks.spawn(async move { worker.serve(&item).await });
                        busy.insert(task.id(), repository);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the queue cannot be read");
                    pause = DATABASE_PAUSE;
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = wake.notified(), if tasks.len() < NOTIFICATION_WORKERS => {}
            () = sleep(pause), if tasks.len() < NOTIFICATION_WORKERS => {}
            Some(ended) = tasks.join_next_with_id() => {
                finish(ended, &mut busy)?;
                // What else ended meanwhile makes room for one question instead of many.
                while let Some(ended) = tasks.try_join_next_with_id() {
                    finish(ended, &mut busy)?;
                }
            }
        }
    }
    let finishing = async {
        while let Some(ended) = tasks.join_next_with_id().await {
            finish(ended, &mut busy)?;
        }
        Ok(())
    };
    let finished = timeout(LAST_WORK, finishing).await;
    if !tasks.is_empty() {
        tracing::info!(
            queue.unfinished = tasks.len(),
            "work that did not end in time stays in the queue"
        );
    }
    tasks.shutdown().await;
    finished.unwrap_or(Ok(()))
}

fn finish(
    ended: Result<(Id, Result<(), WorkError>), JoinError>,
    busy: &mut HashMap<Id, RepositoryName>,
) -> Result<(), WorkError> {
    let (id, result) = match ended {
        Ok(ended) => ended,
        Err(panic) => {
            tracing::error!(error = %panic, "work on a repository panicked");
            (panic.id(), Ok(()))
        }
    };
    let repository = busy.remove(&id);
    match result {
        Err(error) if error.is_fenced() => Err(error),
        Err(error) => {
            let repository = repository.map(|name| name.to_string()).unwrap_or_default();
            tracing::warn!(repository.name = repository, error = %Chain(&error), "work could not be settled");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// How a full scan went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Repositories that were looked at.
    pub repositories: usize,
    /// Repositories in which something changed.
    pub changed: usize,
    /// Repositories that could not be read, and are tried again.
    pub failed: usize,
    /// Whether the whole catalog was read, so that what is missing in it may be believed to be gone.
    pub is_complete: bool,
    /// Whether the catalog was empty although the index is not: nothing was removed.
    pub emptied: bool,
}

impl std::fmt::Display for ScanSummary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            repositories,
            changed,
            failed,
            is_complete,
            emptied,
        } = self;
        write!(
            formatter,
            "{repositories} repositories scanned, {changed} changed, {failed} failed"
        )?;
        if *emptied {
            formatter.write_str("; the catalog is empty and the index is not, so nothing was removed")?;
        } else if !is_complete {
            formatter.write_str("; the catalog could not be read to its end, so nothing was removed")?;
        }
        Ok(())
    }
}

/// Makes full scans.
#[derive(Clone)]
pub struct Scanner {
    worker: Worker,
    progress: Arc<Progress>,
    metrics: Arc<IndexerMetrics>,
    uses_catalog: bool,
}

/// What a running scan has found so far.
#[derive(Default)]
struct Running {
    tasks: JoinSet<(RepositoryName, Result<Scanned, WorkError>)>,
    summary: ScanSummary,
    absent: Vec<RepositoryName>,
    /// Repositories that list at least one tag.
    found: usize,
}

impl Scanner {
    /// A scanner of all repositories that `worker` is allowed to work on.
    #[must_use]
    pub fn new(worker: Worker, progress: Arc<Progress>, metrics: Arc<IndexerMetrics>, uses_catalog: bool) -> Self {
        Self {
            worker,
            progress,
            metrics,
            uses_catalog,
        }
    }

    /// Scans at once and at every `interval`, and when somebody asks, until cancelled. A scan that could not read the
    /// catalog to its end is made again soon, also without an interval.
    ///
    /// # Errors
    /// When this process is no longer the writer.
    pub async fn run(
        &self,
        requests: &RequestStore,
        interval: Option<Duration>,
        cancel: &CancellationToken,
    ) -> Result<(), WorkError> {
        let mut retry = CATALOG_RETRY;
        let mut due = interval.map(|_| Instant::now());
        loop {
            let asked = match requests.take_up(RequestKind::Scan).await {
                Ok(asked) => asked,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "requests for scans cannot be read");
                    Vec::new()
                }
            };
            if !asked.is_empty() || due.is_some_and(|due| due <= Instant::now()) {
                let summary = tokio::select! {
                    summary = self.scan() => summary?,
                    () = cancel.cancelled() => return Ok(()),
                };
                let wait = if summary.is_complete {
                    retry = CATALOG_RETRY;
                    interval
                } else {
                    let wait = interval.map_or(retry, |interval| interval.min(retry));
                    retry = (retry * 2).min(LONGEST_CATALOG_RETRY);
                    Some(wait)
                };
                due = wait.map(|wait| Instant::now() + wait);
                if !asked.is_empty()
                    && let Err(error) = requests.finish(&asked, &summary.to_string()).await
                {
                    tracing::warn!(error = %Chain(&error), "the answer to a request for a scan could not be written");
                }
            }
            tokio::select! {
                () = sleep(REQUEST_POLL) => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// One full scan.
    ///
    /// # Errors
    /// When this process is no longer the writer; all other failures are in the summary.
    pub async fn scan(&self) -> Result<ScanSummary, WorkError> {
        let began = Instant::now();
        self.progress.start();
        tracing::info!("full scan begins");
        let mut running = Running::default();
        let telling = self.tell();
        let scanning = async {
            let seen = self.scan_what_is_there(&mut running).await?;
            if running.summary.is_complete {
                self.scan_what_may_be_gone(&mut running, &seen).await?;
            }
            Ok::<(), WorkError>(())
        };
        tokio::select! {
            result = scanning => result?,
            () = telling => {}
        }
        let summary = running.summary;
        if summary.is_complete {
            self.progress.complete();
        }
        self.metrics.observe_full_scan(&summary, began.elapsed());
        tracing::info!(
            scan.repositories = summary.repositories,
            scan.changed = summary.changed,
            scan.failed = summary.failed,
            scan.complete = summary.is_complete,
            scan.seconds = began.elapsed().as_secs_f64(),
            "full scan ended: {summary}"
        );
        Ok(summary)
    }

    /// Scans everything that the catalog, or without one the configuration and the index, names.
    async fn scan_what_is_there(&self, running: &mut Running) -> Result<Vec<RepositoryName>, WorkError> {
        let mut seen = Vec::new();
        if self.uses_catalog {
            let mut pages = self.worker.observer().client().catalog();
            running.summary.is_complete = loop {
                match pages.next().await {
                    Ok(Some(page)) => self.scan_page(running, page, &mut seen, false).await?,
                    Ok(None) => break pages.is_complete(),
                    Err(error) => {
                        tracing::warn!(error = %Chain(&error), "the catalog could not be read to its end");
                        break false;
                    }
                }
            };
        } else {
            let mut names: HashSet<RepositoryName> = self.worker.filter().literal_names().into_iter().collect();
            names.extend(self.worker.store().repositories_beside(&[]).await?);
            self.scan_page(running, names.into_iter().collect(), &mut seen, false)
                .await?;
            running.summary.is_complete = true;
        }
        self.finish_tasks(running, 0).await?;
        Ok(seen)
    }

    /// Scans what is stored and was not found: its absence is vouched for now, unless nothing at all was found.
    async fn scan_what_may_be_gone(&self, running: &mut Running, seen: &[RepositoryName]) -> Result<(), WorkError> {
        let gone_from_catalog = self.worker.store().repositories_beside(seen).await?;
        let empty = std::mem::take(&mut running.absent);
        let missing: Vec<_> = gone_from_catalog.into_iter().chain(empty).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if running.found == 0 {
            tracing::warn!(
                scan.repositories_missing = missing.len(),
                "the registry shows nothing and the index holds something: nothing is removed"
            );
            running.summary.emptied = true;
            running.summary.is_complete = false;
            return Ok(());
        }
        let mut ignored = Vec::new();
        self.scan_page(running, missing, &mut ignored, true).await?;
        self.finish_tasks(running, 0).await
    }

    async fn scan_page(
        &self,
        running: &mut Running,
        page: Vec<RepositoryName>,
        seen: &mut Vec<RepositoryName>,
        vouched: bool,
    ) -> Result<(), WorkError> {
        let allowed: Vec<_> = page
            .into_iter()
            .filter(|name| self.worker.filter().allows(name))
            .collect();
        self.progress.add_known(allowed.len());
        for repository in allowed {
            self.finish_tasks(running, SCAN_WORKERS - 1).await?;
            seen.push(repository.clone());
            let worker = self.worker.clone();
            running.tasks.spawn(async move {
                let scanned = worker.scan(&repository, vouched).await;
                (repository, scanned)
            });
        }
        Ok(())
    }

    /// Waits until at most `remaining` scans run.
    async fn finish_tasks(&self, running: &mut Running, remaining: usize) -> Result<(), WorkError> {
        while running.tasks.len() > remaining {
            let Some(ended) = running.tasks.join_next().await else {
                break;
            };
            self.progress.add_done();
            running.summary.repositories += 1;
            match ended {
                Ok((repository, Ok(scanned))) => {
                    running.summary.changed += usize::from(scanned.changed);
                    running.summary.failed += usize::from(scanned.is_incomplete);
                    running.found += usize::from(scanned.is_found);
                    if scanned.unvouched_absence {
                        running.absent.push(repository);
                    }
                }
                Ok((_, Err(error))) if error.is_fenced() => return Err(error),
                Ok((_, Err(_))) => running.summary.failed += 1,
                Err(panic) => {
                    tracing::error!(error = %panic, "the scan of a repository panicked");
                    running.summary.failed += 1;
                }
            }
        }
        Ok(())
    }

    /// Tells how far the scan is, now and then, for ever.
    async fn tell(&self) {
        loop {
            sleep(PROGRESS_EVERY).await;
            let progress = self.progress.snapshot();
            tracing::info!(
                scan.repositories_done = progress.done,
                scan.repositories = progress.known,
                "full scan goes on"
            );
        }
    }
}
