//! Why the database did not do what it was asked.
//!
//! diesel-async hands on the kind of an error or its message, not its SQLSTATE. What has no kind of its own is told
//! by its message, in PostgreSQL's untranslated words: under another `lc_messages` a deadlock or a timeout counts as
//! [`StoreError::Refused`], which is never retried on the spot.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use diesel::result::DatabaseErrorKind;
use thiserror::Error;

/// What went wrong between us and PostgreSQL.
#[derive(Debug, Error)]
pub enum StoreError {
    /// All connections were in use for too long.
    #[error("no database connection became free within {waited:?}")]
    Busy {
        /// How long was waited.
        waited: Duration,
    },
    /// No connection can be made.
    #[error("no connection to the database: {cause}")]
    Connection {
        /// Why.
        cause: Cause,
        /// Whether waiting may help: not when the server refuses the password, or the URL is wrong.
        may_pass: bool,
    },
    /// The connection broke, or the server is going down, or coming up.
    #[error("the connection to the database was lost: {cause}")]
    Disconnected {
        /// Why.
        cause: Cause,
    },
    /// Another transaction was in the way (SQLSTATE 40001, 40P01); the same transaction may go through if run again.
    #[error("another transaction was in the way: {cause}")]
    LostRace {
        /// What the server said.
        cause: Cause,
    },
    /// The statement, or its wait for a lock, took longer than it may (57014, 55P03).
    #[error("the statement took too long: {cause}")]
    Timeout {
        /// What the server said.
        cause: Cause,
    },
    /// The server lacks disk, memory or connections (class 53).
    #[error("the database lacks resources: {cause}")]
    Exhausted {
        /// What the server said.
        cause: Cause,
    },
    /// A write came to a standby, as during a failover (25006).
    #[error("the database is read-only: {cause}")]
    ReadOnly {
        /// What the server said.
        cause: Cause,
    },
    /// The statement is wrong for this database: schema, privileges, constraints.
    #[error("the database refuses: {cause}")]
    Refused {
        /// What the server said.
        cause: Cause,
    },
    /// The index holds what this release cannot read.
    #[error("the index holds what cannot be read: {what}")]
    Corrupt {
        /// What it is.
        what: &'static str,
    },
}

/// An error of a library, printed with all that caused it.
#[derive(Debug)]
pub struct Cause(Box<dyn Error + Send + Sync>);

impl Cause {
    pub(super) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(formatter, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl StoreError {
    /// Whether the same call may succeed if it is made again, at once or some time later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection { may_pass, .. } => *may_pass,
            Self::Busy { .. }
            | Self::Disconnected { .. }
            | Self::LostRace { .. }
            | Self::Timeout { .. }
            | Self::Exhausted { .. }
            | Self::ReadOnly { .. } => true,
            Self::Refused { .. } | Self::Corrupt { .. } => false,
        }
    }

    /// Whether the whole transaction is worth running again at once.
    #[must_use]
    pub fn is_lost_race(&self) -> bool {
        matches!(self, Self::LostRace { .. })
    }
}

/// How PostgreSQL's messages begin, by what they mean.
const LOST_RACE: [&str; 1] = ["deadlock detected"];
const TIMEOUT: [&str; 2] = [
    "canceling statement due to statement timeout",
    "canceling statement due to lock timeout",
];
const DISCONNECTED: [&str; 6] = [
    "terminating connection",
    "terminating background worker",
    "the database system is ",
    "the database system has ",
    "canceling statement due to user request",
    "server closed the connection",
];
const EXHAUSTED: [&str; 6] = [
    "could not extend file",
    "could not write to file",
    "out of memory",
    "out of shared memory",
    "sorry, too many clients already",
    "remaining connection slots are reserved",
];

impl From<diesel::result::Error> for StoreError {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::Error as Diesel;
        let make: fn(Cause) -> Self = match &error {
            Diesel::DatabaseError(kind, information) => match kind {
                DatabaseErrorKind::SerializationFailure => |cause| Self::LostRace { cause },
                DatabaseErrorKind::ReadOnlyTransaction => |cause| Self::ReadOnly { cause },
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                    |cause| Self::Disconnected { cause }
                }
                DatabaseErrorKind::Unknown => by_message(information.message()),
                // Constraints, and kinds that diesel may add.
                _ => |cause| Self::Refused { cause },
            },
            Diesel::BrokenTransactionManager => |cause| Self::Disconnected { cause },
            // A rollback is tried after another error, which is the one to judge by.
            Diesel::RollbackErrorOnCommit { .. } => |cause| Self::Disconnected { cause },
            _ => |cause| Self::Refused { cause },
        };
        make(Cause::new(error))
    }
}

fn by_message(message: &str) -> fn(Cause) -> StoreError {
    let is_one_of = |beginnings: &[&str]| beginnings.iter().any(|beginning| message.starts_with(beginning));
    if is_one_of(&LOST_RACE) {
        |cause| StoreError::LostRace { cause }
    } else if is_one_of(&TIMEOUT) {
        |cause| StoreError::Timeout { cause }
    } else if is_one_of(&DISCONNECTED) {
        |cause| StoreError::Disconnected { cause }
    } else if is_one_of(&EXHAUSTED) {
        |cause| StoreError::Exhausted { cause }
    } else {
        |cause| StoreError::Refused { cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database_error(kind: DatabaseErrorKind, message: &str) -> StoreError {
        diesel::result::Error::DatabaseError(kind, Box::new(message.to_owned())).into()
    }

    #[test]
    fn tells_what_is_worth_trying_again() {
        use DatabaseErrorKind::{
            ClosedConnection, ReadOnlyTransaction, SerializationFailure, UnableToSendCommand, UniqueViolation, Unknown,
        };
        for (kind, message, retryable, lost_race) in [
            (SerializationFailure, "could not serialize access", true, true),
            (Unknown, "deadlock detected", true, true),
            (Unknown, "canceling statement due to statement timeout", true, false),
            (Unknown, "canceling statement due to lock timeout", true, false),
            (
                Unknown,
                "terminating connection due to administrator command",
                true,
                false,
            ),
            (Unknown, "the database system is shutting down", true, false),
            (
                Unknown,
                "could not extend file \"base/1\": No space left on device",
                true,
                false,
            ),
            (
                ReadOnlyTransaction,
                "cannot execute INSERT in a read-only transaction",
                true,
                false,
            ),
            (ClosedConnection, "x", true, false),
            (UnableToSendCommand, "connection closed", true, false),
            (UniqueViolation, "duplicate key", false, false),
            (Unknown, "relation \"tag\" does not exist", false, false),
            (Unknown, "permission denied for table tag", false, false),
        ] {
            let error = database_error(kind, message);
            assert_eq!(error.is_retryable(), retryable, "{error:?}");
            assert_eq!(error.is_lost_race(), lost_race, "{error:?}");
            assert!(error.to_string().ends_with(message), "{error}");
        }
        assert!(!StoreError::from(diesel::result::Error::NotFound).is_retryable());
    }
}
