//! Which revision a search is about.

use chrono::{DateTime, Utc};
use diesel::sql_query;
use diesel::sql_types::{Nullable, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use super::ReadError;
use crate::revision::Revision;
use crate::search_query::AsOf;
use crate::store::rows::StateRow;

/// Times never decrease with `n`, so the last revision by time is the largest `n`.
const STATE: &str = "SELECT s.era, s.n, s.history_n, s.history_at, now() AS now, \
     (SELECT v.n FROM revision v WHERE v.at <= $1 AND v.era = s.era \
      ORDER BY v.at DESC, v.n DESC LIMIT 1) AS n_then \
     FROM state s";

/// Reads the state of the transaction's snapshot, with what is needed to [resolve](StateRow::resolve) `as_of`.
pub(super) async fn state(
    connection: &mut AsyncPgConnection,
    as_of: Option<AsOf>,
) -> Result<StateRow, diesel::result::Error> {
    let time = match as_of {
        Some(AsOf::Time(time)) => Some(time),
        Some(AsOf::Revision(_)) | None => None,
    };
    sql_query(STATE)
        .bind::<Nullable<Timestamptz>, Option<DateTime<Utc>>>(time)
        .get_result(connection)
        .await
}

impl StateRow {
    /// The present revision.
    pub(super) fn revision(&self) -> Revision {
        Revision {
            era: self.era,
            n: self.n,
        }
    }

    /// The number of the revision that `as_of` names; `None` for the present.
    pub(super) fn resolve(&self, as_of: Option<AsOf>) -> Result<Option<i64>, ReadError> {
        match as_of {
            None => Ok(None),
            Some(AsOf::Time(time)) if time > self.now => Err(ReadError::AsOfFuture),
            Some(AsOf::Time(time)) if time < self.history_at => Err(self.gone()),
            // A history that begins with the era has no revision of its own in the log.
            Some(AsOf::Time(_)) => Ok(Some(self.n_then.unwrap_or(self.history_n).max(self.history_n))),
            Some(AsOf::Revision(asked)) if asked.era != self.era => Err(ReadError::OtherEra { asked, era: self.era }),
            Some(AsOf::Revision(asked)) if asked.n > self.n => Err(ReadError::AsOfFuture),
            Some(AsOf::Revision(asked)) if asked.n < self.history_n => Err(self.gone()),
            Some(AsOf::Revision(asked)) => Ok(Some(asked.n)),
        }
    }

    fn gone(&self) -> ReadError {
        ReadError::AsOfGone {
            oldest: Revision {
                era: self.era,
                n: self.history_n,
            },
            oldest_at: self.history_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn outcome(n_then: Option<i64>, as_of: Option<AsOf>) -> String {
        let state = StateRow {
            era: 7,
            n: 20,
            history_n: 10,
            history_at: at(1_000),
            now: at(3_000),
            n_then,
        };
        match state.resolve(as_of) {
            Ok(Some(n)) => n.to_string(),
            Ok(None) => "present".to_owned(),
            Err(ReadError::AsOfFuture) => "future".to_owned(),
            Err(ReadError::AsOfGone { oldest, oldest_at }) => {
                assert_eq!((oldest.to_string().as_str(), oldest_at), ("7.10", at(1_000)));
                "gone".to_owned()
            }
            Err(ReadError::OtherEra { asked, era }) => format!("{asked} not {era}"),
            Err(ReadError::Store(error)) => error.to_string(),
        }
    }

    #[test]
    fn the_kept_history_is_askable_and_nothing_else() {
        let revision = |era, n| Some(AsOf::Revision(Revision { era, n }));
        let time = |seconds| Some(AsOf::Time(at(seconds)));
        for (n_then, as_of, expected) in [
            (None, None, "present"),
            (None, revision(7, 9), "gone"),
            (None, revision(7, 10), "10"),
            (None, revision(7, 20), "20"),
            (None, revision(7, 21), "future"),
            (None, revision(6, 15), "6.15 not 7"),
            (None, revision(8, 15), "8.15 not 7"),
            (Some(9), time(999), "gone"),
            (Some(10), time(1_000), "10"),
            (Some(15), time(2_000), "15"),
            (Some(20), time(3_000), "20"),
            (Some(20), time(3_001), "future"),
            (None, time(1_500), "10"),
        ] {
            assert_eq!(outcome(n_then, as_of), expected, "{as_of:?}");
        }
    }
}
