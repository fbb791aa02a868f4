//! What a notification tells: where to look, and when to look again. It never brings content.
//!
//! Registries notify **before** they write the tag, so the first look may come too early. A hint is looked at again,
//! with delays that grow with its age, until the registry agrees with it, a newer hint explains why it does not, or it
//! is too old to be believed.

use chrono::{DateTime, TimeDelta, Utc};
use flagstate_common::digest::Digest;
use flagstate_common::tag::Tag;

/// The first delay before another look.
const FIRST_DELAY: TimeDelta = TimeDelta::milliseconds(20);
/// A delay is this share of the hint's age: looks at 20, 40, 60, 90, 135 ms and so on.
const DELAY_OF_AGE: f64 = 0.5;
/// How long a push is waited for: storage that is eventually consistent may take minutes.
const PUSH_PATIENCE: TimeDelta = TimeDelta::minutes(10);
/// How long a removal is waited for; what is still there then was pushed again, or never removed.
const DELETE_PATIENCE: TimeDelta = TimeDelta::minutes(1);
/// How long a push that a newer one explains is still looked for: registries may write tags in another order than they
/// notify.
const EXPLAINED_PATIENCE: TimeDelta = TimeDelta::seconds(3);

/// What is said to have happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Something is there now.
    Push,
    /// Something is gone.
    Delete,
}

/// What it happened to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// A tag, and what it points at if the notification says so.
    Tag(Tag, Option<Digest>),
    /// A manifest, tagged or not.
    Digest(Digest),
    /// The repository as a whole.
    Repository,
}

/// One thing to look at in a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint {
    /// What is said to have happened.
    pub action: Action,
    /// What to look at.
    pub target: Target,
    /// When the hint arrived here; the clock of its age.
    pub arrived_at: DateTime<Utc>,
    /// When the registry says that it happened.
    pub happened_at: DateTime<Utc>,
    /// Whether an earlier look found something newer that explains why the registry does not agree.
    pub explained: bool,
}

/// What came of looking at a hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// The registry agrees: the hint is done.
    Done,
    /// Something newer explains why the registry does not agree: the hint is done, and was never visible.
    Explained,
    /// Look again.
    Again {
        /// When.
        at: DateTime<Utc>,
        /// Whether something newer explains the hint already.
        explained: bool,
    },
    /// The registry never agreed; what it says is the truth.
    GivenUp,
}

impl Hint {
    /// The tag that is to be looked at, if one is named.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        match &self.target {
            Target::Tag(tag, _) => Some(tag),
            Target::Digest(_) | Target::Repository => None,
        }
    }

    /// The digest that the hint names, if any.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match &self.target {
            Target::Tag(_, digest) => digest.as_ref(),
            Target::Digest(digest) => Some(digest),
            Target::Repository => None,
        }
    }

    /// Whether the repository itself is said to be gone.
    #[must_use]
    pub fn is_repository_removal(&self) -> bool {
        self.action == Action::Delete && self.target == Target::Repository
    }

    /// What to do after a look at `now` that did not agree; `explained` when a newer hint for the same tag names what
    /// was seen.
    #[must_use]
    pub fn after_disagreement(&self, explained: bool, now: DateTime<Utc>) -> Look {
        let explained = explained || self.explained;
        let age = (now - self.arrived_at).max(TimeDelta::zero());
        let patience = match self.action {
            Action::Push if explained => EXPLAINED_PATIENCE,
            Action::Push => PUSH_PATIENCE,
            Action::Delete => DELETE_PATIENCE,
        };
        if age >= patience {
            return if explained { Look::Explained } else { Look::GivenUp };
        }
        let share = TimeDelta::milliseconds((age.num_milliseconds() as f64 * DELAY_OF_AGE) as i64);
        let at = now + share.max(FIRST_DELAY);
        Look::Again { at, explained }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(action: Action) -> Hint {
        Hint {
            action,
            target: Target::Tag("latest".parse().expect("tag"), None),
            arrived_at: DateTime::UNIX_EPOCH,
            happened_at: DateTime::UNIX_EPOCH,
            explained: false,
        }
    }

    fn at(seconds: f64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds((seconds * 1000.0) as i64)
    }

    /// The times of all looks, in seconds, and how it ended.
    fn looks(hint: &Hint, explained: bool) -> (Vec<f64>, Look) {
        let mut times = vec![0.0];
        loop {
            let now = at(times[times.len() - 1]);
            match hint.after_disagreement(explained, now) {
                Look::Again { at: next, .. } => {
                    assert!(next > now);
                    times.push((next - DateTime::UNIX_EPOCH).num_milliseconds() as f64 / 1000.0);
                }
                end => return (times, end),
            }
        }
    }

    #[test]
    fn delays_grow_and_end() {
        let (times, end) = looks(&hint(Action::Push), false);
        assert_eq!(times[..5], [0.0, 0.02, 0.04, 0.06, 0.09]);
        assert!(times.len() < 40, "{} looks", times.len());
        assert!(
            times.iter().any(|time| (10.0..20.0).contains(time)),
            "slow storage is waited for"
        );
        assert_eq!(end, Look::GivenUp);
    }

    #[test]
    fn what_a_newer_push_explains_is_looked_for_shortly() {
        let (times, end) = looks(&hint(Action::Push), true);
        assert!(times.len() > 5 && times.len() < 20);
        assert_eq!(end, Look::Explained);
    }

    #[test]
    fn a_removal_is_not_waited_for_as_long_as_a_push() {
        assert!(looks(&hint(Action::Delete), false).0.len() < looks(&hint(Action::Push), false).0.len());
    }

    #[test]
    fn a_clock_that_went_back_only_delays() {
        let look = hint(Action::Push).after_disagreement(false, at(-5.0));
        let (at, explained) = (at(-4.98), false);
        assert_eq!(look, Look::Again { at, explained });
    }
}
