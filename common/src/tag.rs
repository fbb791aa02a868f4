//! Tags (OCI distribution specification, "Pulling manifests": `<reference>` as a tag).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest tag that the specification allows.
pub const MAX_LENGTH: usize = 128;

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. The order is byte order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tag(Box<str>);

/// Why a text is no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseTagError {
    /// Nothing there.
    #[error("a tag is not empty")]
    Empty,
    /// Longer than [`MAX_LENGTH`] bytes.
    #[error("a tag has at most {MAX_LENGTH} bytes")]
    TooLong,
    /// A character that the grammar does not allow.
    #[error("a tag is letters, digits, '_', '.' and '-', and does not start with '.' or '-'")]
    BadCharacter,
}

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseTagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_LENGTH {
            return Err(ParseTagError::TooLong);
        }
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let Some(first) = text.bytes().next() else {
            return Err(ParseTagError::Empty);
        };
        if !is_word(first) || !text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-')) {
            return Err(ParseTagError::BadCharacter);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_grammar() {
        for tag in ["latest", "_x", "1.2.3-rc.1", "A", &"a".repeat(128)] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
    }

    #[test]
    fn rejects_everything_else() {
        for (tag, error) in [
            ("", ParseTagError::Empty),
            (".a", ParseTagError::BadCharacter),
            ("-a", ParseTagError::BadCharacter),
            ("a/b", ParseTagError::BadCharacter),
            ("a b", ParseTagError::BadCharacter),
            ("é", ParseTagError::BadCharacter),
            ("sha256:00", ParseTagError::BadCharacter),
        ] {
            assert_eq!(tag.parse::<Tag>(), Err(error), "{tag}");
        }
        assert_eq!("a".repeat(129).parse::<Tag>(), Err(ParseTagError::TooLong));
    }
}
