//! Being the writer, or waiting to be: the lease is taken, renewed while this process works, and given back.

use std::sync::Arc;
use std::time::Duration;

use flagstate_common::config::{Config, RepositoryFilter};
use flagstate_common::revision::Revision;
use flagstate_common::store::Pool;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::gc::Collector;
use crate::metrics::IndexerMetrics;
use crate::registry::RegistryClient;
use crate::scan::observe::Observer;
use crate::scan::progress::Progress;
use crate::scan::schedule::{ScanSummary, Scanner, serve_queue};
use crate::scan::worker::{WorkError, Worker};
use crate::store::{
    Acquired, LeaseError, LeaseStore, QueueStore, RequestStore, Swept, WriteError, WriteStore, WriterLease,
};

/// How often the writer renews its lease.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How often a standby asks whether the lease is free.
const STANDBY_POLL: Duration = Duration::from_secs(2);
/// How long to wait after the database refused.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Why this process cannot be the writer.
#[derive(Debug, Error)]
pub enum LeaderError {
    /// Asking for the lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Writing.
    #[error(transparent)]
    Work(#[from] WorkError),
}

/// What a writer needs; the same for every term.
#[derive(Clone)]
pub struct Leader {
    pool: Pool,
    lease: LeaseStore,
    client: RegistryClient,
    config: Arc<Config>,
    holder: String,
    wake: Arc<Notify>,
    metrics: Arc<IndexerMetrics>,
}

/// One term as the writer.
pub struct Term {
    /// Makes full scans.
    pub scanner: Scanner,
    /// Collects what nothing needs.
    pub collector: Collector,
    worker: Worker,
    lease: WriterLease,
    progress: Arc<Progress>,
}

impl Leader {
    /// A leader that calls itself `holder`; `wake` tells it of new work in the queue.
    #[must_use]
    pub fn new(
        pool: Pool,
        client: RegistryClient,
        config: Arc<Config>,
        holder: String,
        wake: Arc<Notify>,
        metrics: Arc<IndexerMetrics>,
    ) -> Self {
        let lease = LeaseStore::new(pool.clone());
        Self {
            pool,
            lease,
            client,
            config,
            holder,
            wake,
            metrics,
        }
    }

    /// Tries to become the writer; `Err` in the result names who is.
    ///
    /// # Errors
    /// When the index is of another registry and `adopt` is not set; database errors.
    pub async fn try_begin(&self, adopt: bool) -> Result<Result<Term, String>, LeaseError> {
        let url = self.config.registry.url.as_str();
        match self.lease.try_acquire(&self.holder, url, adopt).await? {
            Acquired::HeldBy { holder } => Ok(Err(holder)),
            Acquired::Writer {
                lease,
                revision,
                new_era,
            } => {
                self.metrics.set_writer(Some(lease.epoch()));
                tell_begin(&lease, revision, new_era);
                let store = WriteStore::open(self.pool.clone(), lease.clone(), self.config.limits.index_depth);
                let observer = Observer::new(self.client.clone(), self.config.limits.clone(), self.metrics.clone());
                let filter: RepositoryFilter = self.config.registry.repositories.clone();
                let collector = Collector::new(store.clone(), self.config.history.keep, self.metrics.clone());
                let worker = Worker::new(store, observer, filter, self.metrics.clone());
                let progress = Arc::new(Progress::new(self.lease.last_completed_scan().await?));
                let uses_catalog = self.config.registry.catalog;
                let scanner = Scanner::new(worker.clone(), progress.clone(), self.metrics.clone(), uses_catalog);
                Ok(Ok(Term {
                    scanner,
                    collector,
                    worker,
                    lease,
                    progress,
                }))
            }
        }
    }

    /// Is the writer whenever nobody else is, until cancelled.
    ///
    /// # Errors
    /// When the index is of another registry and `adopt` is not set.
    pub async fn run(&self, adopt: bool, cancel: &CancellationToken) -> Result<(), LeaseError> {
        let mut told = None;
        while !cancel.is_cancelled() {
            let pause = match self.try_begin(adopt).await {
                Ok(Ok(term)) => {
                    told = None;
                    self.serve(term, cancel).await;
                    continue;
                }
                Ok(Err(holder)) => {
                    if told.as_ref() != Some(&holder) {
                        tracing::info!(writer.holder = holder, "standby: another indexer is the writer");
                        told = Some(holder);
                    }
                    STANDBY_POLL
                }
                Err(error @ LeaseError::OtherRegistry { .. }) => return Err(error),
                Err(LeaseError::Store(error)) => {
                    tracing::warn!(error = %error, "the writer's lease cannot be asked for");
                    DATABASE_PAUSE
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = cancel.cancelled() => {}
            }
        }
        Ok(())
    }

    /// One term: until cancelled, or another process is the writer.
    async fn serve(&self, term: Term, cancel: &CancellationToken) {
        let term_ends = cancel.child_token();
        let requests = RequestStore::new(self.pool.clone());
        let interval = self.config.interval.fetch_all;
        let work = async {
            let _ends = term_ends.clone().drop_guard();
            term.worker.store().exclude(term.worker.filter()).await?;
            tokio::try_join!(
                serve_queue(term.worker.clone(), self.wake.clone(), term_ends.clone()),
                term.scanner.run(&requests, interval, &term_ends),
                async {
                    let interval = self.config.interval.garbage_collect;
                    Ok(term.collector.run(&requests, interval, &term_ends).await?)
                },
            )?;
            Ok::<(), WorkError>(())
        };
        let (worked, ()) = tokio::join!(work, self.keep(&term, &term_ends));
        self.end(&term).await;
        match worked {
            Ok(()) => {}
            Err(error) if error.is_fenced() => tracing::warn!(error = %error, "another indexer became the writer"),
            Err(error) => {
                tracing::warn!(error = %error, "the writer's work broke off");
                sleep(DATABASE_PAUSE).await;
            }
        }
    }

    /// Renews the lease until the term ends, and ends the term when the lease is lost.
    async fn keep(&self, term: &Term, ends: &CancellationToken) {
        let queue = QueueStore::new(self.pool.clone());
        let mut ticks = interval(RENEW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = ends.cancelled() => return,
            }
            let progress = term.progress.snapshot();
            self.metrics.set_progress(&progress);
            match self.lease.renew(&term.lease, progress).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(writer.epoch = term.lease.epoch(), "the writer's lease was lost");
                    ends.cancel();
                }
                // The database tells when it is back; until then nothing can be written anyway.
                Err(error) => tracing::warn!(error = %error, "the writer's lease could not be renewed"),
            }
            if let Ok(status) = queue.status().await {
                self.metrics.set_queue(&status);
            }
        }
    }

    /// Ends a term: the lease is given back, with what the last scan achieved.
    pub async fn end(&self, term: &Term) {
        self.metrics.set_writer(None);
        let progress = term.progress.snapshot();
        if let Err(error) = self.lease.renew(&term.lease, progress).await {
            tracing::warn!(error = %error, "the last progress could not be told");
        }
        match self.lease.release(&term.lease).await {
            Ok(()) => tracing::info!(writer.epoch = term.lease.epoch(), "the writer's lease was given back"),
            Err(error) => tracing::warn!(error = %error, "the writer's lease could not be given back; it runs out"),
        }
    }

    /// One full scan within a term that was begun for it; `tell` is called with the progress now and then.
    ///
    /// # Errors
    /// When another process became the writer, or the database fails.
    pub async fn scan_once(
        &self,
        term: &Term,
        mut tell: impl FnMut(crate::store::ScanProgress),
    ) -> Result<ScanSummary, LeaderError> {
        let ends = CancellationToken::new();
        let mut ticks = interval(Duration::from_millis(500));
        let scan = async {
            term.worker
                .store()
                .exclude(term.worker.filter())
                .await
                .map_err(WorkError::from)?;
            term.scanner.scan().await
        };
        let telling = async {
            loop {
                ticks.tick().await;
                tell(term.progress.snapshot());
            }
        };
        tokio::select! {
            summary = scan => Ok(summary?),
            () = telling => unreachable!("telling never ends"),
            () = self.keep(term, &ends) => Err(WorkError::from(term.lost()).into()),
        }
    }

    /// One collection within a term that was begun for it.
    ///
    /// # Errors
    /// When another process became the writer, or the database fails.
    pub async fn collect_once(&self, term: &Term) -> Result<Swept, LeaderError> {
        let ends = CancellationToken::new();
        tokio::select! {
            swept = term.collector.collect() => Ok(swept.map_err(WorkError::from)?),
            () = self.keep(term, &ends) => Err(WorkError::from(term.lost()).into()),
        }
    }
}

impl Term {
    fn lost(&self) -> WriteError {
        WriteError::Fenced {
            epoch: self.lease.epoch(),
        }
    }
}

fn tell_begin(lease: &WriterLease, revision: Revision, new_era: bool) {
    if new_era {
        tracing::warn!(
            writer.epoch = lease.epoch(), revision = %revision,
            "this is not the database that the last writer wrote to: a new era begins, and everything is scanned"
        );
    } else {
        tracing::info!(writer.epoch = lease.epoch(), revision = %revision, "this indexer is the writer");
    }
}
