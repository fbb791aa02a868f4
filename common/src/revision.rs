//! Revisions: the names of the index's states, in the order in which they were committed.
//!
//! A revision is written `<era>.<n>`. Within one era, `n` rises by one with each committed change of visible data.
//! A new era begins when the database may have lost commits (failover with a lost tail, restored backup): a number of
//! another era then names nothing. Eras only rise, so revisions are ordered, across eras too.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One committed state of the index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Revision {
    /// Which unbroken line of commits `n` belongs to.
    pub era: i64,
    /// How many changes were committed, never negative.
    pub n: i64,
}

/// The text is not `<era>.<n>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a revision is written <era>.<n>, two numbers joined by a dot")]
pub struct ParseRevisionError;

impl FromStr for Revision {
    type Err = ParseRevisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let is_plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| part.parse::<i64>().ok()).flatten()
        };
        let (era, n) = text.split_once('.').ok_or(ParseRevisionError)?;
        match (number(era), number(n)) {
            (Some(era), Some(n)) => Ok(Self { era, n }),
            _ => Err(ParseRevisionError),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.era, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        let revision = Revision {
            era: 1_763_000_000,
            n: 42,
        };
        assert_eq!(revision.to_string(), "1763000000.42");
        assert_eq!(revision.to_string().parse(), Ok(revision));
    }

    #[test]
    fn rejects_everything_else() {
        for text in [
            "",
            "1",
            "1.",
            ".1",
            "-1.2",
            "1.+2",
            "1.2.3",
            "1.99999999999999999999",
            "a.b",
            " 1.2",
        ] {
            assert_eq!(text.parse::<Revision>(), Err(ParseRevisionError), "{text}");
        }
    }

    #[test]
    fn a_later_era_is_newer_whatever_its_number() {
        assert!(Revision { era: 2, n: 0 } > Revision { era: 1, n: 9 });
    }
}
