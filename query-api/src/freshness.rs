//! How new an answer has to be: never older than what this process knows of, and as new as the client demands.
//!
//! Reads may go to standbys that lag, each by another amount. One number holds them together: the newest revision that
//! a poll or a read of this process has seen ([`Present`]). A read begins with it as its floor: a snapshot that is older
//! is read again for [`PATIENCE`], then the client is told to come back. `Flagstate-Min-Revision: <era>.<n>` makes one
//! request wait until the number has risen so far; a revision of another era names nothing here, and no waiting helps.

mod demand;
mod poll;
mod present;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use flagstate_common::image::RepositoryImages;
use flagstate_common::revision::{ParseRevisionError, Revision};
use flagstate_common::search_query::{AsOf, SearchQuery};
use flagstate_common::store::read::{ReadError, ReadStore, Snapshot};
use thiserror::Error;
use tokio::time::{Instant, timeout};

pub(crate) use poll::poll;
pub(crate) use present::{Present, Sight};

/// Names the state that a response shows.
const REVISION: HeaderName = HeaderName::from_static("flagstate-revision");

/// Names the oldest state that a client wants to see.
const MIN_REVISION: HeaderName = HeaderName::from_static("flagstate-min-revision");

/// Says that the answer could not be checked against the database, and for how many seconds.
const STALE: HeaderName = HeaderName::from_static("flagstate-stale");

/// How long a request waits for a state that is new enough.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long to leave the database alone before looking again for a state that somebody waits for.
const PAUSE: Duration = Duration::from_millis(25);

/// How often to look whether anything has changed.
const CHANGE_INTERVAL: Duration = Duration::from_millis(100);

/// The longest that one exchange with the database may take, connecting to the second of two servers included. What
/// the server does for us ends by `statement_timeout`; this ends our waiting for a server that is silent.
const READ_LIMIT: Duration = Duration::from_secs(10);

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
        /// What the client demanded, or what this process has seen before.
        wanted: Revision,
        /// What there is.
        present: Revision,
    },
    /// A revision is demanded before the database was reached for the first time.
    #[error("no revision is known yet")]
    Unreached,
    /// The database took our question and said nothing.
    #[error("the database is silent for {waited:?}")]
    Silent {
        /// How long was waited.
        waited: Duration,
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

/// Tells the client since when nobody could check whether an answer is still right.
pub(crate) fn mark_stale(response: &mut HttpResponse, since: Duration) {
    response.headers_mut().insert(STALE, since.as_secs().into());
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
#[derive(Clone)]
pub(crate) struct FreshReader {
    store: ReadStore,
    present: Arc<Present>,
}

impl FreshReader {
    pub(crate) fn new(store: ReadStore, present: Arc<Present>) -> Self {
        Self { store, present }
    }

    /// Answers a query from a state that is not older than what is known when this begins.
    ///
    /// # Errors
    /// [`FreshnessError`]
    pub(crate) async fn search(&self, query: &SearchQuery) -> Result<Snapshot<Vec<RepositoryImages>>, FreshnessError> {
        let look = || async { Ok(self.store.revision().await?) };
        // A lagging standby takes a revision that was seen already for one of the future.
        let looks_first = match query.as_of() {
            Some(AsOf::Revision(asked)) => Some(asked) <= self.present.sight().revision(),
            Some(AsOf::Time(_)) | None => false,
        };
        let reading = read(&self.present, looks_first, look, || self.store.search(query));
        timeout(READ_LIMIT, reading)
            .await
            .unwrap_or(Err(FreshnessError::Silent { waited: READ_LIMIT }))
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

/// Reads until a snapshot is as new as what was known at the beginning, and tells `present` of it.
///
/// `read` may be expensive: once there is a reason to wait, `look` finds out when another read is worth it.
///
/// # Errors
/// What `look` and `read` fail with, or that no state was new enough within [`PATIENCE`].
async fn read<T, Look, Read>(
    present: &Present,
    mut looks_first: bool,
    look: impl Fn() -> Look,
    read: impl Fn() -> Read,
) -> Result<Snapshot<T>, FreshnessError>
where
    Look: Future<Output = Result<Revision, ReadError>>,
    Read: Future<Output = Result<Snapshot<T>, ReadError>>,
{
    let floor = present.sight().revision();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked_at = Instant::now();
        let seen = if looks_first { Some(look().await?) } else { None };
        let seen = match seen.filter(|seen| Some(*seen) < floor) {
            Some(older) => older,
            None => {
                let snapshot = read().await?;
                if Some(snapshot.revision) >= floor {
                    present.observe(snapshot.revision, asked_at);
                    return Ok(snapshot);
                }
                snapshot.revision
            }
        };
        if let Some(wanted) = floor
            && Instant::now() + PAUSE > deadline
        {
            return Err(FreshnessError::Behind { wanted, present: seen });
        }
        tokio::time::sleep(PAUSE).await;
        looks_first = true;
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
    async fn read_from(present: &Present, looks_first: bool, states: &[&str]) -> Result<Revision, FreshnessError> {
        let position = Cell::new(0);
        let next = || {
            let state = revision(states[position.get().min(states.len() - 1)]);
            position.set(position.get() + 1);
            state
        };
        let look = || std::future::ready(Ok(next()));
        let search = || {
            std::future::ready(Ok(Snapshot {
                revision: next(),
                value: (),
            }))
        };
        let snapshot = read(present, looks_first, look, search).await?;
        Ok(snapshot.revision)
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_state_is_read_again_until_it_has_caught_up() {
        let present = Present::default();
        for (looks_first, states, expected) in [
            (false, &["2.5"] as &[&str], "2.5"),
            (false, &["2.4", "1.9", "2.6"], "2.6"),
            (false, &["2.4", "2.6", "2.5", "2.6", "2.7"], "2.7"),
            (true, &["2.6", "2.7", "2.7"], "2.7"),
        ] {
            let read = read_from(&present, looks_first, states).await.expect("new enough");
            assert_eq!(read, revision(expected), "{states:?}");
        }
        assert!(matches!(
            read_from(&present, false, &["2.5"]).await,
            Err(FreshnessError::Behind { wanted, present })
                if wanted == revision("2.7") && present == revision("2.5")
        ));
        let later_era = read_from(&present, false, &["3.0"]).await.expect("newer");
        assert_eq!(present.sight().revision(), Some(later_era));
    }
}
