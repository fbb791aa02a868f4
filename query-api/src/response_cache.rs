//! Answers that are kept in memory: read and encoded once, however many ask, and given out while nothing changes.
//!
//! A key names what is asked; a *fill* reads it and gives the document's pieces and the revision that they are of. An
//! entry is fresh as long as no newer revision is known and the database has confirmed that lately; giving it out then
//! takes no connection, and no lock that is held while others fill. After a new revision the next request reads again
//! and the others wait for it; if the text is the same, the document stays and only its revision moves.
//!
//! When the database fails, an entry is given out as stale for as long as the configuration allows, counted from when
//! it was last known to be fresh. (docs/adr/0006)

mod entry;
mod single_flight;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use flagstate_common::config::Config;
use flagstate_common::revision::Revision;
use flagstate_common::store::read::Snapshot;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use tokio::time::{Instant, timeout};

use crate::caching::{self, Document, RepresentError};
use crate::error::ApiError;
use crate::freshness::{Present, Sight};
use crate::metrics::{Answered, CacheMetrics, Filled};
use crate::turns::Turns;
use entry::Entry;
use single_flight::SingleFlight;

pub(crate) use entry::Kept;

/// A request waits for a fill that much longer than one statement may take.
const FILL_GRACE: Duration = Duration::from_millis(500);

/// Eras are times after 1970.
const NO_ERA: i64 = i64::MIN;

/// What is asked: a kind of document and its canonical query. Equal keys have equal documents at equal revisions.
#[derive(Clone, Debug)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn new(kind: &'static str, canonical_query: &str) -> Self {
        Self(format!("{kind}?{canonical_query}"))
    }
}

/// What there is to answer with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) kept: Kept,
    /// The newest revision at which it was read.
    pub(crate) revision: Revision,
    /// When nobody can tell whether it is still right: how long ago that was known for the last time.
    pub(crate) stale_for: Option<Duration>,
}

/// The cache of one process.
pub(crate) struct ResponseCache {
    entries: Cache<String, Arc<Entry>>,
    flights: SingleFlight<Arc<Entry>>,
    present: Arc<Present>,
    turns: Turns,
    /// The era of the entries; [`NO_ERA`] before the first.
    era: AtomicI64,
    stale_if_error: Duration,
    /// How long a request waits for a fill.
    patience: Duration,
    metrics: CacheMetrics,
}

impl ResponseCache {
    pub(crate) fn new(config: &Config, present: Arc<Present>, turns: Turns, metrics: CacheMetrics) -> Self {
        let evictions = metrics.clone();
        let entries = Cache::builder()
            .max_capacity(config.cache.memory)
            .weigher(|key: &String, entry: &Arc<Entry>| entry.weight(key))
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.count_eviction();
                }
            })
            .build();
        Self {
            entries,
            flights: SingleFlight::new(),
            present,
            turns,
            era: AtomicI64::new(NO_ERA),
            stale_if_error: config.cache.stale_if_error,
            patience: config.database.statement_timeout + FILL_GRACE,
            metrics,
        }
    }

    /// The answer to a key: kept, or filled now. It is at least as new as what is known when this begins, unless it is
    /// stale, and never older than what is demanded, which must be [reached](Present::reach) already.
    ///
    /// # Errors
    /// The fill's, if there is nothing to give out in its place.
    pub(crate) async fn answer<F, I>(
        self: &Arc<Self>,
        key: &Key,
        content_type: &'static str,
        demanded: Option<Revision>,
        fill: impl Fn() -> F,
    ) -> Result<Answer, ApiError>
    where
        F: Future<Output = Result<Snapshot<I>, ApiError>> + Send + 'static,
        I: Iterator<Item = Result<Vec<u8>, serde_json::Error>> + Send + 'static,
    {
        let sight = self.present.settled().await;
        self.forget_other_eras(&sight);
        let entry = self.entries.get(&key.0);
        if let Some(entry) = &entry {
            if entry.is_fresh(&sight) {
                entry.was_fresh(&sight);
                return Ok(self.give(entry, Answered::Hit));
            }
            if !sight.is_current()
                && let Some(stale) = self.give_stale(entry, &sight, demanded)
            {
                return Ok(stale);
            }
        }
        let work = || self.clone().fill(key.clone(), content_type, fill());
        let filled = timeout(self.patience, async {
            loop {
                let filled = self.flights.join(&key.0, work).await?;
                // Work that was under way already may have begun before the newest revision was known.
                if filled.is_newest(&sight) {
                    return Ok(filled);
                }
            }
        });
        let error = match filled.await {
            Ok(Ok(filled)) => return Ok(self.give(&filled, Answered::Filled)),
            Ok(Err(error)) => ApiError::Shared(error),
            Err(_) => ApiError::Slow,
        };
        entry
            .filter(|_| error.is_outage())
            .and_then(|entry| self.give_stale(&entry, &sight, demanded))
            .ok_or(error)
    }

    fn give(&self, entry: &Entry, how: Answered) -> Answer {
        self.metrics.count_answer(how);
        Answer {
            kept: entry.kept.clone(),
            revision: entry.revision,
            stale_for: None,
        }
    }

    /// An entry that could not be checked, unless it is too old or there is no document in it.
    fn give_stale(&self, entry: &Entry, sight: &Sight, demanded: Option<Revision>) -> Option<Answer> {
        let stale_for = entry.stale_for(sight);
        let is_of_this_era = Some(entry.revision.era) == sight.revision().map(|newest| newest.era);
        let is_good_enough = stale_for <= self.stale_if_error && is_of_this_era && Some(entry.revision) >= demanded;
        match entry.kept {
            Kept::Document(_) if is_good_enough => Some(Answer {
                stale_for: Some(stale_for),
                ..self.give(entry, Answered::Stale)
            }),
            Kept::Document(_) | Kept::TooLong => None,
        }
    }

    /// Reads and encodes, unless somebody has just done so.
    async fn fill<F, I>(self: Arc<Self>, key: Key, content_type: &'static str, read: F) -> Result<Arc<Entry>, ApiError>
    where
        F: Future<Output = Result<Snapshot<I>, ApiError>> + Send,
        I: Iterator<Item = Result<Vec<u8>, serde_json::Error>> + Send + 'static,
    {
        let before = self.entries.get(&key.0);
        let sight = self.present.sight();
        if let Some(entry) = before.as_ref().filter(|entry| entry.is_fresh(&sight)) {
            return Ok(entry.clone());
        }
        let before = before.map(|entry| entry.kept.clone());
        let filled = self.read(before, content_type, read).await;
        let (entry, how) = filled.inspect_err(|_| self.metrics.count_fill(Filled::Failed))?;
        let entry = Arc::new(entry);
        self.entries.insert(key.0, entry.clone());
        // At once and not some entries later: the bound holds with large entries too.
        self.entries.run_pending_tasks();
        self.metrics.count_fill(how);
        self.metrics
            .observe(self.entries.entry_count(), self.entries.weighted_size());
        Ok(entry)
    }

    async fn read<F, I>(
        &self,
        before: Option<Kept>,
        content_type: &'static str,
        read: F,
    ) -> Result<(Entry, Filled), ApiError>
    where
        F: Future<Output = Result<Snapshot<I>, ApiError>>,
        I: Iterator<Item = Result<Vec<u8>, serde_json::Error>> + Send + 'static,
    {
        let _turn = self.turns.take().await?;
        let read_at = Instant::now();
        let snapshot = read.await?;
        let made = tokio::task::spawn_blocking(move || make(before, content_type, snapshot.value));
        let (kept, how) = made.await??;
        Ok((Entry::new(kept, snapshot.revision, read_at), how))
    }

    /// Revisions of another era name nothing any more, and what they showed may never have happened.
    fn forget_other_eras(&self, sight: &Sight) {
        let Some(newest) = sight.revision() else { return };
        if self.era.load(Ordering::Relaxed) == newest.era {
            return;
        }
        let before = self.era.swap(newest.era, Ordering::Relaxed);
        if before != newest.era && before != NO_ERA {
            self.entries.invalidate_all();
        }
    }
}

/// The document of these pieces: the one before, if its text is the same.
fn make<I>(before: Option<Kept>, content_type: &'static str, pieces: I) -> Result<(Kept, Filled), RepresentError>
where
    I: Iterator<Item = Result<Vec<u8>, serde_json::Error>>,
{
    let text = caching::assemble(pieces)?;
    Ok(match (before, text) {
        (Some(Kept::Document(document)), Some(text)) if document.is(&text) => (Kept::Document(document), Filled::Equal),
        (Some(Kept::TooLong), None) => (Kept::TooLong, Filled::Equal),
        (before, text) => {
            let kept = match text {
                Some(text) => Kept::Document(Arc::new(Document::encode(content_type, text)?)),
                None => Kept::TooLong,
            };
            let how = if before.is_some() { Filled::Changed } else { Filled::New };
            (kept, how)
        }
    })
}
