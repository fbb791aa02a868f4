//! Why a query is refused, in words that are safe to show to whoever sent it.

use std::fmt;

use thiserror::Error;

use crate::digest::ParseDigestError;

/// Why a query is refused. Every text that came with the query is [`Quoted`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// The query is longer than `limits.query_string`.
    #[error("the query has {found} bytes, and {most} are allowed")]
    TooLong {
        /// Bytes of the query.
        found: usize,
        /// Bytes that are allowed.
        most: usize,
    },
    /// More different values than `limits.query_terms`.
    #[error("the query has {found} different values, and {most} are allowed")]
    TooManyTerms {
        /// Different values of the query.
        found: usize,
        /// Values that are allowed.
        most: usize,
    },
    /// More different keys than `limits.query_keys`.
    #[error("the query has {found} different keys, and {most} are allowed")]
    TooManyKeys {
        /// Different keys of the query.
        found: usize,
        /// Keys that are allowed.
        most: usize,
    },
    /// A pattern has more characters than `limits.pattern`.
    #[error("{parameter}: the pattern has {found} characters, and {most} are allowed")]
    PatternTooLong {
        /// Name of the parameter.
        parameter: Quoted,
        /// Characters of the pattern.
        found: usize,
        /// Characters that are allowed.
        most: usize,
    },
    /// A pattern has more `*` than `limits.pattern_stars`.
    #[error("{parameter}: the pattern has {found} '*', and {most} are allowed")]
    TooManyStars {
        /// Name of the parameter.
        parameter: Quoted,
        /// `*` in the pattern.
        found: usize,
        /// `*` that are allowed.
        most: usize,
    },
    /// A `%` without two hex digits behind it.
    #[error("{parameter}: '%' is not followed by two hex digits")]
    PercentEncoding {
        /// Name of the parameter, still encoded.
        parameter: Quoted,
    },
    /// The decoded bytes are not UTF-8.
    #[error("{parameter}: not UTF-8 after decoding")]
    NotUtf8 {
        /// Name of the parameter, still encoded.
        parameter: Quoted,
    },
    /// U+0000 in a name or value.
    #[error("{parameter}: contains U+0000")]
    Nul {
        /// Name of the parameter.
        parameter: Quoted,
    },
    /// A parameter that the endpoint does not know.
    #[error("{parameter} is no parameter here; the nearest one is '{nearest}'")]
    UnknownParameter {
        /// Name of the parameter.
        parameter: Quoted,
        /// The known name that looks most like it.
        nearest: String,
    },
    /// `:exists` with something else than 1.
    #[error("{parameter} takes only 1, not {value}")]
    ExistsTakesOne {
        /// Name of the parameter.
        parameter: Quoted,
        /// What it was given.
        value: Quoted,
    },
    /// A `digest` that is none.
    #[error("'digest': {value} is no digest: {source}")]
    Digest {
        /// What was given.
        value: Quoted,
        /// What is wrong with it.
        source: ParseDigestError,
    },
    /// An `as_of` that is neither a time nor a revision.
    #[error("'as_of': {value} is neither an RFC 3339 time nor a revision <era>.<n>")]
    AsOf {
        /// What was given.
        value: Quoted,
    },
    /// Two `as_of` that differ.
    #[error("'as_of' is given twice, with different values")]
    AsOfTwice,
}

impl QueryError {
    /// The limit that was hit, by its key under `limits:`; `None` when the query itself is wrong.
    #[must_use]
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::TooLong { .. } => Some("query_string"),
            Self::TooManyTerms { .. } => Some("query_terms"),
            Self::TooManyKeys { .. } => Some("query_keys"),
            Self::PatternTooLong { .. } => Some("pattern"),
            Self::TooManyStars { .. } => Some("pattern_stars"),
            Self::PercentEncoding { .. }
            | Self::NotUtf8 { .. }
            | Self::Nul { .. }
            | Self::UnknownParameter { .. }
            | Self::ExistsTakesOne { .. }
            | Self::Digest { .. }
            | Self::AsOf { .. }
            | Self::AsOfTwice => None,
        }
    }
}

/// Foreign text between quotes: control characters escaped, cut after 64 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(Box<str>);

impl Quoted {
    const LONGEST: usize = 64;

    /// Keeps what will be shown of `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut characters = text.chars();
        let mut shown: String = characters
            .by_ref()
            .take(Self::LONGEST)
            .flat_map(char::escape_debug)
            .collect();
        if characters.next().is_some() {
            shown.push('…');
        }
        Self(shown.into())
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "'{}'", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_foreign_text_safely() {
        for (text, quoted) in [
            ("tag", "'tag'".to_owned()),
            (
                "a'b\"\n\u{1b}[31m\u{202e}",
                r#"'a\'b\"\n\u{1b}[31m\u{202e}'"#.to_owned(),
            ),
            (&"é".repeat(65), format!("'{}…'", "é".repeat(64))),
        ] {
            assert_eq!(Quoted::new(text).to_string(), quoted);
        }
    }
}
