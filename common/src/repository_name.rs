//! Repository names (OCI distribution specification, "Pulling manifests": `<name>`).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest name that registries accept.
pub const MAX_LENGTH: usize = 255;

/// A repository's name within the registry, such as `apps/org.example.App`.
///
/// Path components of `[a-z0-9]` runs joined by `.`, `_`, `__` or dashes, joined by `/`; at most [`MAX_LENGTH`]
/// bytes. A value of this type is safe in a URL path and in a log line. The order is byte order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RepositoryName(Box<str>);

/// Why a text is no repository name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseRepositoryNameError {
    /// Nothing there.
    #[error("a repository name is not empty")]
    Empty,
    /// Longer than [`MAX_LENGTH`] bytes.
    #[error("a repository name has at most {MAX_LENGTH} bytes")]
    TooLong,
    /// A component that the grammar does not allow; counted from 1.
    #[error("path component {0} is not lower-case letters and digits joined by '.', '_', '__' or dashes")]
    BadComponent(usize),
}

impl RepositoryName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = ParseRepositoryNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParseRepositoryNameError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(ParseRepositoryNameError::TooLong);
        }
        match text.split('/').position(|part| !is_component(part)) {
            Some(index) => Err(ParseRepositoryNameError::BadComponent(index + 1)),
            None => Ok(Self(text.into())),
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_are_words = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    ends_are_words
        && bytes
            .split(is_word)
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|byte| *byte == b'-'))
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_grammar() {
        for name in ["a", "library/debian", "a.b/c_d/e__f/g-h/i---j", "0/1", &"a".repeat(255)] {
            assert!(name.parse::<RepositoryName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn rejects_uppercase_repository_name() {
        assert_eq!(
            "apps/Foo".parse::<RepositoryName>(),
            Err(ParseRepositoryNameError::BadComponent(2))
        );
    }

    #[test]
    fn rejects_what_could_escape_a_path_or_a_log_line() {
        for name in [
            "..", "../x", "a/..", "a//b", "/a", "a/", "a%2fb", "a b", "a\nb", "é", "a___b", "a..b", "-a", "a-", "a.-b",
            "🦀",
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name}");
        }
        assert_eq!(
            "a".repeat(256).parse::<RepositoryName>(),
            Err(ParseRepositoryNameError::TooLong)
        );
        assert_eq!("".parse::<RepositoryName>(), Err(ParseRepositoryNameError::Empty));
    }
}
