//! How new an answer has to be: never older than what this process answered before, and as new as the client demands.
//!
//! Reads may go to standbys that lag, each by another amount. A request that begins after an answer was given never
//! gets an older state than that answer's: a snapshot that is older is read again for [`PATIENCE`], then the client is
//! told to come back. `Flagstate-Min-Revision: <era>.<n>` raises the bar for one request; a revision of another era
//! names nothing here, and no waiting helps.

mod floor;

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use flagstate_common::image::RepositoryImages;
use flagstate_common::revision::{ParseRevisionError, Revision};
use flagstate_common::search_query::{AsOf, SearchQuery};
use flagstate_common::store::read::{ReadError, ReadStore, Snapshot};
use thiserror::Error;
use tokio::time::Instant;

use floor::Floor;

/// Names the state that a response shows.
const REVISION: HeaderName = HeaderName::from_static("flagstate-revision");

/// Names the oldest state that a client wants to see.
const MIN_REVISION: HeaderName = HeaderName::from_static("flagstate-min-revision");

/// How long a request waits for a state that is new enough.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long to leave the database alone before looking again for a state that somebody waits for.
const PAUSE: Duration = Duration::from_millis(25);

/// How often to look whether anything has changed.
const CHANGE_INTERVAL: Duration = Duration::from_millis(100);

/// Why there is no state to answer from.
#[derive(Debug, Error)]
pub(crate) enum FreshnessError {
    /// The header is not one revision.
    #[error("Flagstate-Min-Revision: {0}")]
    Malformed(#[from] ParseRevisionError),
    /// The header names a revision of another era.
    #[error("revision {demanded} is of another era than the present revision {present}")]
    OtherEra {
        /// What the client demanded.
        demanded: Revision,
        /// What there is.
        present: Revision,
    },
    /// The state is not there yet, or not here.
    #[error("the index is at revision {present} and {wanted} is wanted")]
    Behind {
        /// What the client demanded, or what was answered before.
        wanted: Revision,
        /// What there is.
        present: Revision,
    },
    /// The database did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Tells the client which state an answer shows.
pub(crate) fn mark(response: &mut HttpResponse, revision: Revision) {
    if let Ok(text) = HeaderValue::try_from(revision.to_string()) {
        response.headers_mut().insert(REVISION, text);
    }
}

/// Reads the client's demand; more than one header line is malformed.
///
/// # Errors
/// [`FreshnessError::Malformed`] unless there is no such header or it holds one revision.
pub(crate) fn demanded(request: &HeaderMap) -> Result<Option<Revision>, FreshnessError> {
    let mut lines = request.get_all(&MIN_REVISION);
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => {
            let text = line.to_str().unwrap_or_default();
            Ok(Some(text.parse()?))
        }
        (Some(_), Some(_)) => Err(ParseRevisionError.into()),
    }
}

/// The index as this process reads it.
pub(crate) struct FreshReader {
    store: ReadStore,
    newest: Newest,
}

impl FreshReader {
    pub(crate) fn new(store: ReadStore) -> Self {
        Self {
            store,
            newest: Newest::default(),
        }
    }

    /// Answers a query from a state that is new enough.
    ///
    /// # Errors
    /// [`FreshnessError`]
    pub(crate) async fn search(
        &self,
        query: &SearchQuery,
        demanded: Option<Revision>,
    ) -> Result<Snapshot<Vec<RepositoryImages>>, FreshnessError> {
        // A lagging standby takes a revision that was answered from already for one of the future.
        let known = match query.as_of() {
            Some(AsOf::Revision(asked)) if Some(asked) <= self.newest.get() => Some(asked),
            Some(AsOf::Revision(_) | AsOf::Time(_)) | None => None,
        };
        let look = || async { Ok(self.store.revision().await?) };
        self.newest
            .read(demanded.or(known), look, || self.store.search(query))
            .await
    }

    /// Waits until the index has changed since that revision; `false` if it has not by the deadline.
    ///
    /// Compares with what the caller saw, so that a change between its reading and its waiting is not missed.
    ///
    /// # Errors
    /// [`FreshnessError::Read`]
    pub(crate) async fn changes_after(&self, seen: Revision, deadline: Instant) -> Result<bool, FreshnessError> {
        while Instant::now() < deadline {
            tokio::time::sleep_until(deadline.min(Instant::now() + CHANGE_INTERVAL)).await;
            if self.store.revision().await.map_err(ReadError::from)? > seen {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The newest state that this process has answered from.
#[derive(Debug, Default)]
struct Newest(Mutex<Option<Revision>>);

impl Newest {
    /// The revision, if anything was answered yet.
    fn get(&self) -> Option<Revision> {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn raise(&self, revision: Revision) {
        let mut newest = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *newest = (*newest).max(Some(revision));
    }

    /// Reads until a snapshot is new enough, and remembers it.
    ///
    /// `read` may be expensive: once there is a reason to wait, `look` finds out when another read is worth it.
    ///
    /// # Errors
    /// What `look` and `read` fail with, or that no state was new enough within [`PATIENCE`].
    async fn read<T, Look, Read>(
        &self,
        demanded: Option<Revision>,
        look: impl Fn() -> Look,
        read: impl Fn() -> Read,
    ) -> Result<Snapshot<T>, FreshnessError>
    where
        Look: Future<Output = Result<Revision, ReadError>>,
        Read: Future<Output = Result<Snapshot<T>, ReadError>>,
    {
        let floor = Floor {
            answered: self.get(),
            demanded,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut looks_first = demanded.is_some();
        loop {
            let (present, shortfall) = 'attempt: {
                if looks_first {
                    let present = look().await?;
                    if let Err(shortfall) = floor.judge(present) {
                        break 'attempt (present, shortfall);
                    }
                }
                let snapshot = read().await?;
                match floor.judge(snapshot.revision) {
                    Ok(()) => {
                        self.raise(snapshot.revision);
                        return Ok(snapshot);
                    }
                    Err(shortfall) => (snapshot.revision, shortfall),
                }
            };
            if shortfall.is_final() || Instant::now() + PAUSE > deadline {
                return Err(shortfall.into_error(present));
            }
            tokio::time::sleep(PAUSE).await;
            looks_first = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn revision(text: &str) -> Revision {
        text.parse().expect("revision")
    }

    #[test]
    fn a_demand_is_one_revision() {
        for (lines, expected) in [
            (&[] as &[&str], Some(None)),
            (&["3.14"], Some(Some(revision("3.14")))),
            (&[""], None),
            (&["3"], None),
            (&["3.1, 3.2"], None),
            (&["3.1", "3.1"], None),
            (&["\u{e4}"], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(MIN_REVISION, HeaderValue::try_from(*line).expect("header"));
            }
            let found = demanded(&headers).ok();
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    /// A database whose every look and read shows the next of these states, and the last one for ever.
    async fn read_from(newest: &Newest, demanded: Option<&str>, states: &[&str]) -> Result<Revision, FreshnessError> {
        let position = Cell::new(0);
        let next = || {
            let state = revision(states[position.get().min(states.len() - 1)]);
            position.set(position.get() + 1);
            state
        };
        let look = || std::future::ready(Ok(next()));
        let read = || {
            std::future::ready(Ok(Snapshot {
                revision: next(),
                value: (),
            }))
        };
        let snapshot = newest.read(demanded.map(revision), look, read).await?;
        Ok(snapshot.revision)
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_state_is_read_again_until_it_has_caught_up() {
        let newest = Newest::default();
        for (states, expected) in [
            (&["2.5"] as &[&str], "2.5"),
            (&["2.4", "1.9", "2.6"], "2.6"),
            (&["2.4", "2.6", "2.5", "2.7"], "2.7"),
        ] {
            let read = read_from(&newest, None, states).await.expect("new enough");
            assert_eq!(read, revision(expected), "{states:?}");
        }
        assert!(matches!(
            read_from(&newest, None, &["2.5"]).await,
            Err(FreshnessError::Behind { wanted, present })
                if wanted == revision("2.7") && present == revision("2.5")
        ));
        let later_era = read_from(&newest, None, &["3.0"]).await.expect("newer");
        assert_eq!(newest.get(), Some(later_era));
    }

    #[tokio::test(start_paused = true)]
    async fn a_demand_is_waited_for_and_then_refused() {
        let newest = Newest::default();
        for (demanded, states, expected) in [
            ("2.2", &["2.1", "2.2"] as &[&str], "2.2"),
            ("2.4", &["2.4", "2.3", "2.4"], "2.4"),
            ("3.0", &["2.5", "3.1"], "3.1"),
        ] {
            let read = read_from(&newest, Some(demanded), states).await.expect("came");
            assert_eq!(read, revision(expected), "{demanded} {states:?}");
        }
        assert!(matches!(
            read_from(&newest, Some("3.9"), &["3.1"]).await,
            Err(FreshnessError::Behind { wanted, .. }) if wanted == revision("3.9")
        ));
        for demanded in ["2.2", "4.0"] {
            assert!(
                matches!(
                    read_from(&newest, Some(demanded), &["3.1"]).await,
                    Err(FreshnessError::OtherEra { .. })
                ),
                "{demanded}"
            );
        }
    }
}
