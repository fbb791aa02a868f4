//! One kept answer, and what is known about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flagstate_common::revision::Revision;
use tokio::time::Instant;

use crate::caching::Document;
use crate::freshness::Sight;

/// What an entry takes beside its bodies and its key: itself, the headers' texts, its places in the cache.
const OVERHEAD: usize = 1024;

/// How exactly an entry remembers when it was last known to be fresh, in milliseconds.
const RESOLUTION: u64 = 1000;

/// A document as it is kept.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// With all its representations.
    Document(Arc<Document>),
    /// Not at all: it is longer than [`crate::caching::MAX_WHOLE_BODY`].
    TooLong,
}

/// What was read for a key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kept: Kept,
    /// The newest revision at which it was read.
    pub(super) revision: Revision,
    read_at: Instant,
    /// When it was last known to be fresh, in milliseconds after `read_at`.
    fresh_for: AtomicU64,
}

impl Entry {
    /// What a read that began at that time saw.
    pub(super) fn new(kept: Kept, revision: Revision, read_at: Instant) -> Self {
        Self {
            kept,
            revision,
            read_at,
            fresh_for: AtomicU64::default(),
        }
    }

    /// Bytes in memory.
    pub(super) fn weight(&self, key: &str) -> u32 {
        let bodies = match &self.kept {
            Kept::Document(document) => document.bytes(),
            Kept::TooLong => 0,
        };
        u32::try_from(bodies + key.len() + OVERHEAD).unwrap_or(u32::MAX)
    }

    /// Whether nothing newer than it is known.
    pub(super) fn is_newest(&self, sight: &Sight) -> bool {
        Some(self.revision) >= sight.revision()
    }

    /// Whether it is right, as far as promise 9 wants to know.
    pub(super) fn is_fresh(&self, sight: &Sight) -> bool {
        sight.is_current() && self.is_newest(sight)
    }

    /// Remembers that it was fresh when the database last confirmed the newest revision.
    pub(super) fn was_fresh(&self, sight: &Sight) {
        let Some(confirmed_at) = sight.confirmed_at() else {
            return;
        };
        let fresh_for = confirmed_at.saturating_duration_since(self.read_at).as_millis();
        let fresh_for = u64::try_from(fresh_for).unwrap_or(u64::MAX);
        // Rarely written, so that those who read it at once do not hinder each other.
        if fresh_for >= self.fresh_for.load(Ordering::Relaxed).saturating_add(RESOLUTION) {
            self.fresh_for.fetch_max(fresh_for, Ordering::Relaxed);
        }
    }

    /// How long ago it was last known to be fresh.
    pub(super) fn stale_for(&self, sight: &Sight) -> Duration {
        match sight.confirmed_at() {
            Some(confirmed_at) if self.is_newest(sight) => confirmed_at.max(self.read_at),
            Some(_) | None => self.read_at + Duration::from_millis(self.fresh_for.load(Ordering::Relaxed)),
        }
        .elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::JSON;
    use crate::freshness::Present;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    fn revision(n: i64) -> Revision {
        Revision { era: 1, n }
    }

    #[tokio::test(start_paused = true)]
    async fn staleness_counts_from_the_last_time_it_was_known_to_be_fresh() {
        let present = Present::default();
        present.observe(revision(5), Instant::now());
        let entry = Entry::new(Kept::TooLong, revision(5), Instant::now());
        advance(SECOND * 100).await;
        assert_eq!(entry.stale_for(&present.sight()), SECOND * 100, "nobody asked");
        present.observe(revision(5), Instant::now());
        advance(SECOND).await;
        assert_eq!(entry.stale_for(&present.sight()), SECOND, "a poll is enough");
        entry.was_fresh(&present.sight());
        advance(SECOND * 9).await;
        present.observe(revision(6), Instant::now());
        assert!(!entry.is_newest(&present.sight()));
        assert_eq!(
            entry.stale_for(&present.sight()),
            SECOND * 10,
            "as it was last given out"
        );
        let unused = Entry::new(Kept::TooLong, revision(5), Instant::now());
        advance(SECOND).await;
        assert_eq!(unused.stale_for(&present.sight()), SECOND, "as it was read");
    }

    #[test]
    fn an_entry_weighs_all_its_bodies_and_its_key() {
        let weigh = |kept, key| Entry::new(kept, revision(5), Instant::now()).weight(key) as usize;
        let document = Arc::new(Document::encode(JSON, vec![b'x'; 100_000]).expect("encodable"));
        let bytes = document.bytes();
        assert!(bytes > 100_000);
        assert_eq!(weigh(Kept::Document(document), "key"), bytes + 3 + OVERHEAD);
        assert_eq!(weigh(Kept::TooLong, ""), OVERHEAD);
    }
}
