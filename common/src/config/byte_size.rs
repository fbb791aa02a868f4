//! Sizes in bytes: `64MiB`, `1GB`, or a plain number.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error;

/// Bytes per unit; of the binary ones the largest first, for printing.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes in its written form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum ParseByteSizeError {
    #[error("is larger than 64 bits can count")]
    TooLarge,
    #[error("is no size; write for example 512KiB, 64MiB, 1GB or a number of bytes")]
    Malformed,
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    /// A whole number, then a unit in any case, with or without a space between.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let end_of_number = text
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end_of_number);
        let unit = unit.trim_start();
        if number.is_empty() {
            return Err(ParseByteSizeError::Malformed);
        }
        let scale = if unit.is_empty() {
            1
        } else {
            UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, scale)| *scale)
                .ok_or(ParseByteSizeError::Malformed)?
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(scale))
            .map(Self)
            .ok_or(ParseByteSizeError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    /// In the largest binary unit that divides it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS
            .iter()
            .filter(|(name, _)| name.ends_with("iB"))
            .find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale));
        match binary {
            Some((name, scale)) => write!(formatter, "{}{name}", self.0 / scale),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

struct ByteSizeVisitor;

impl Visitor<'_> for ByteSizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a size such as 64MiB")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
        text.trim()
            .parse()
            .map_err(|error| E::custom(format_args!("{text:?} {error}")))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<ByteSize, E> {
        self.visit_str(&number.to_string())
    }
}

/// For fields that are a plain integer: `#[serde(with = "super::byte_size::plain")]`.
pub(super) mod plain {
    use super::{ByteSize, Deserialize, Deserializer, Serialize, Serializer, de};

    pub(in crate::config) fn serialize<T, S>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Copy + TryInto<u64>,
        S: Serializer,
    {
        let bytes = (*bytes).try_into().unwrap_or(u64::MAX);
        ByteSize(bytes).serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: TryFrom<u64>,
        D: Deserializer<'de>,
    {
        let ByteSize(bytes) = ByteSize::deserialize(deserializer)?;
        T::try_from(bytes)
            .map_err(|_too_large| de::Error::custom(format_args!("{bytes} is too large for this machine")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1KiB", 1024),
            ("1kib", 1024),
            ("64MiB", 64 * 1024 * 1024),
            ("64 MiB", 64 * 1024 * 1024),
            ("2GiB", 2 << 30),
            ("1kB", 1000),
            ("1KB", 1000),
            ("1MB", 1_000_000),
            ("1GB", 1_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        use ParseByteSizeError::{Malformed, TooLarge};
        for (text, error) in [
            ("", Malformed),
            ("MiB", Malformed),
            ("-1", Malformed),
            ("1.5MiB", Malformed),
            ("64M", Malformed),
            ("1 2", Malformed),
            ("18446744073709551616", TooLarge),
            ("99999999TiB", TooLarge),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(error), "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0", "1000", "1KiB", "64MiB", "3GiB", "1025"] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
    }
}
