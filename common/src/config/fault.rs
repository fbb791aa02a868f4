//! What is wrong with a configuration, all of it at once.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::repository_filter::ParseRepositoryPatternError;
use super::secret::ReadSecretError;

/// Everything that is wrong with a configuration; prints one line a fault.
#[derive(Debug, Error)]
pub struct ConfigErrors(Vec<Fault>);

impl ConfigErrors {
    /// The faults, in the order in which they were found.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            fault.fmt(formatter)?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Fault {
    /// Full path of the key, such as `registry.url`; empty when it concerns a source as a whole.
    pub key: String,
    /// Where the key was given; `None` when it was given nowhere.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin, problem } = self;
        match origin {
            Some(origin) if key.is_empty() => write!(formatter, "{origin}: {problem}"),
            Some(origin) => write!(formatter, "{key}: {problem} (from {origin})"),
            None => write!(formatter, "{key}: {problem}"),
        }
    }
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// YAML text that was handed over.
    Text,
    /// An environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Text => formatter.write_str("the configuration text"),
            Self::Environment(variable) => write!(formatter, "environment variable {variable}"),
        }
    }
}

/// What can be wrong. No text of it holds a value that may be secret.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    UnreadableFile(#[source] io::Error),
    /// The file is no YAML.
    #[error("is not YAML: {0}")]
    NotYaml(#[source] serde_yaml::Error),
    /// The file is YAML, but no mapping from sections to keys.
    #[error("is not a mapping of sections")]
    NotSections,
    /// The environment variable is not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// The environment variable names a key within another variable's key, or the same key again.
    #[error("says the same as another environment variable, or contradicts it")]
    AmbiguousVariable,
    /// No such key.
    #[error("unknown key, the nearest known one is {nearest}")]
    UnknownKey {
        /// The known key most like it.
        nearest: String,
    },
    /// A value of another kind than expected.
    #[error("is {found}, expected {expected}")]
    WrongType {
        /// The kind of value.
        found: &'static str,
        /// What it should be.
        expected: String,
    },
    /// A value that cannot be understood.
    #[error("{reason}")]
    Malformed {
        /// Why.
        reason: String,
    },
    /// Required, and given nowhere.
    #[error("is required; give it in the file or as {variable}")]
    Missing {
        /// The environment variable that sets it.
        variable: String,
    },
    /// Zero, where that makes no sense.
    #[error("must be more than 0")]
    Zero,
    /// More than it may be.
    #[error("must be at most {maximum}")]
    TooLarge {
        /// The most that it may be.
        maximum: u64,
    },
    /// An empty list, where that makes no sense.
    #[error("must not be empty; \"**\" stands for every repository")]
    NoPattern,
    /// Two keys of which one may be given.
    #[error("and {other} exclude each other")]
    Excludes {
        /// The other key.
        other: &'static str,
    },
    /// A key that means nothing without another.
    #[error("needs {other} too")]
    Needs {
        /// The other key.
        other: &'static str,
    },
    /// Two addresses that one process would listen on twice.
    #[error("is the same address as {other}")]
    SameAddress {
        /// The other key.
        other: &'static str,
    },
    /// No URL, or one of another scheme.
    #[error("is not an http or https URL")]
    NotHttp,
    /// A URL with more than scheme, host, port and path.
    #[error("must be without user, password, query and fragment")]
    TooMuchUrl,
    /// The path of the registry protocol, which is added anyway.
    #[error("must be without /v2, which is added to it")]
    HasApiPath,
    /// Neither a URL nor a path on this host.
    #[error("is neither an http or https URL nor a relative one")]
    NotPublicUrl,
    /// No `host` or `host:port`.
    #[error("{value:?} is not a host or host:port")]
    NotHost {
        /// What was given.
        value: String,
    },
    /// No IP address with a port.
    #[error("{value:?} is not an address such as 0.0.0.0:8088 or [::]:8088")]
    NotAddress {
        /// What was given.
        value: String,
    },
    /// A proxy that is no URL.
    #[error("is not the URL of an HTTP proxy")]
    NotProxy,
    /// A log level that the logs do not know.
    #[error("is neither a level (error, warn, info, debug, trace, off) nor a list of target=level")]
    NotLogLevel,
    /// A repository pattern that could never match.
    #[error("{pattern:?} {source}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why it is none.
        source: ParseRepositoryPatternError,
    },
    /// A secret's file is bad.
    #[error(transparent)]
    SecretFile(#[from] ReadSecretError),
}

/// Collects faults; a fault in consequence of another one is left out.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault, unless its key or the section that the key stands in is known as faulty.
    pub(super) fn add(&mut self, key: &str, origin: Option<Origin>, problem: Problem) {
        let is_consequence = self.0.iter().any(|fault| {
            let rest = key.strip_prefix(fault.key.as_str());
            !fault.key.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if !is_consequence {
            self.0.push(Fault {
                key: key.to_owned(),
                origin,
                problem,
            });
        }
    }

    /// Adds what was found without knowledge of where values came from.
    pub(super) fn absorb(&mut self, others: Self, origin_of: impl Fn(&str) -> Option<Origin>) {
        for fault in others.0 {
            let origin = origin_of(&fault.key);
            self.add(&fault.key, origin, fault.problem);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Faults> for ConfigErrors {
    fn from(faults: Faults) -> Self {
        Self(faults.0)
    }
}
