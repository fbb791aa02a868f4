//! The newest revision that this process knows of, and when the database last confirmed it.
//!
//! Polls and reads report what they saw. The revision only rises: a database that shows an older one is a standby that
//! lags, and confirms that what we know is at least as new as that standby. (docs/adr/0006)

use std::time::Duration;

use flagstate_common::revision::Revision;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::demand::Demand;
use super::{FreshnessError, PATIENCE};

/// Without a word from the database for that long, nobody knows whether the newest known revision is still the present
/// one. With the poll's interval and the answer's own time it makes up the 1.25 s of promise 9.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// What is known at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    newest: Option<(Revision, Instant)>,
    is_lost: bool,
}

impl Sight {
    /// The newest known revision.
    pub(crate) fn revision(&self) -> Option<Revision> {
        self.newest.map(|(revision, _)| revision)
    }

    /// When the database last confirmed that revision.
    pub(crate) fn confirmed_at(&self) -> Option<Instant> {
        self.newest.map(|(_, confirmed_at)| confirmed_at)
    }

    /// Whether that revision is the present one, as far as promise 9 wants to know.
    pub(crate) fn is_current(&self) -> bool {
        self.confirmed_at()
            .is_some_and(|confirmed_at| confirmed_at.elapsed() <= MAX_SILENCE)
    }
}

/// Shared by those who find out and those who want to know.
#[derive(Debug)]
pub(crate) struct Present(watch::Sender<Sight>);

impl Default for Present {
    fn default() -> Self {
        Self(watch::Sender::new(Sight::default()))
    }
}

impl Present {
    /// What is known now.
    pub(crate) fn sight(&self) -> Sight {
        *self.0.borrow()
    }

    /// What is known now, or very soon if the process has just slept for longer than the database may be silent.
    pub(crate) async fn settled(&self) -> Sight {
        let is_settled = |sight: &Sight| sight.newest.is_none() || sight.is_lost || sight.is_current();
        let sight = self.sight();
        if is_settled(&sight) {
            return sight;
        }
        let mut sights = self.0.subscribe();
        match timeout(PATIENCE, sights.wait_for(is_settled)).await {
            Ok(Ok(sight)) => *sight,
            Ok(Err(_)) | Err(_) => self.sight(),
        }
    }

    /// Takes over what the database showed to somebody who began to ask at that time.
    pub(crate) fn observe(&self, revision: Revision, asked_at: Instant) {
        self.0.send_modify(|sight| {
            let (newest, confirmed_at) = sight.newest.unwrap_or((revision, asked_at));
            *sight = Sight {
                newest: Some((newest.max(revision), confirmed_at.max(asked_at))),
                is_lost: false,
            };
        });
    }

    /// Takes over that the database does not answer.
    pub(super) fn lose(&self) {
        self.0
            .send_if_modified(|sight| !std::mem::replace(&mut sight.is_lost, true));
    }

    /// Waits for [`PATIENCE`] until a demanded revision is known.
    ///
    /// # Errors
    /// [`FreshnessError`] when it is not, at once if waiting does not help.
    pub(crate) async fn reach(&self, demanded: Revision) -> Result<(), FreshnessError> {
        let judge = |sight: &Sight| Demand::judge(demanded, sight.revision());
        let mut sights = self.0.subscribe();
        let waited = timeout(PATIENCE, sights.wait_for(|sight| judge(sight).is_final())).await;
        // However it ended, what is known now decides.
        drop(waited);
        judge(&self.sight()).into_result(demanded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn revision(text: &str) -> Revision {
        text.parse().expect("revision")
    }

    #[tokio::test(start_paused = true)]
    async fn the_revision_only_rises_and_a_lagging_standby_confirms_it() {
        let present = Present::default();
        assert!(!present.sight().is_current());
        for (seen, known) in [
            ("2.5", "2.5"),
            ("2.4", "2.5"),
            ("1.9", "2.5"),
            ("2.6", "2.6"),
            ("3.0", "3.0"),
        ] {
            advance(MAX_SILENCE * 2).await;
            assert!(!present.sight().is_current(), "{seen}");
            present.observe(revision(seen), Instant::now());
            assert!(present.sight().is_current(), "{seen}");
            assert_eq!(present.sight().revision(), Some(revision(known)), "{seen}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_long_ago_confirms_nothing() {
        let present = Present::default();
        let asked_at = Instant::now();
        advance(MAX_SILENCE * 2).await;
        present.observe(revision("2.5"), asked_at);
        assert!(!present.sight().is_current());
        present.observe(revision("2.5"), Instant::now());
        present.observe(revision("2.6"), asked_at);
        assert!(present.sight().is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_sleep_the_next_poll_is_waited_for_unless_the_database_is_lost() {
        let present = Present::default();
        present.observe(revision("2.5"), Instant::now());
        advance(MAX_SILENCE * 2).await;
        let poll = async {
            tokio::time::sleep(PATIENCE / 2).await;
            present.observe(revision("2.6"), Instant::now());
        };
        let (sight, ()) = tokio::join!(present.settled(), poll);
        assert_eq!((sight.revision(), sight.is_current()), (Some(revision("2.6")), true));

        present.lose();
        advance(MAX_SILENCE * 2).await;
        let before = Instant::now();
        assert!(!present.settled().await.is_current());
        assert_eq!(Instant::now(), before, "the paused clock did not have to move");
    }

    #[tokio::test(start_paused = true)]
    async fn a_demand_is_waited_for_and_then_refused() {
        let present = Present::default();
        assert!(matches!(
            present.reach(revision("2.2")).await,
            Err(FreshnessError::Unreached)
        ));
        present.observe(revision("2.1"), Instant::now());
        for (demanded, comes) in [("2.1", "2.1"), ("2.2", "2.2"), ("2.4", "2.9"), ("3.0", "3.1")] {
            let poll = async {
                tokio::time::sleep(PATIENCE / 2).await;
                present.observe(revision(comes), Instant::now());
            };
            let (reached, ()) = tokio::join!(present.reach(revision(demanded)), poll);
            assert!(reached.is_ok(), "{demanded} {comes}");
        }
        assert!(matches!(
            present.reach(revision("3.9")).await,
            Err(FreshnessError::Behind { wanted, .. }) if wanted == revision("3.9")
        ));
        for demanded in ["2.2", "4.0"] {
            assert!(
                matches!(
                    present.reach(revision(demanded)).await,
                    Err(FreshnessError::OtherEra { .. })
                ),
                "{demanded}"
            );
        }
    }
}
