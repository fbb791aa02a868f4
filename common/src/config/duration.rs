//! Durations as Go writes them (`1h30m`, `1.5h`, `100ms`, `0`), plus `d` for 24 hours.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error;

/// Nanoseconds per unit, the longest first.
const UNITS: [(&str, u128); 9] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5, micro sign
    ("μs", 1_000), // U+03BC, Greek letter
    ("ns", 1),
];

/// The longest duration: what Go's 64 bits of nanoseconds hold, about 292 years.
const MAXIMUM: u128 = i64::MAX as u128;

/// A duration in its written form; never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoDuration(pub(super) Duration);

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum ParseDurationError {
    #[error("is negative")]
    Negative,
    #[error("is longer than 292 years")]
    TooLong,
    #[error("has a number without a unit; write for example 30s, 1h30m or 7d")]
    NoUnit,
    #[error("is no duration; write for example 30s, 1h30m or 7d")]
    Malformed,
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let nanoseconds = match unsigned {
            "0" => 0,
            "" => return Err(ParseDurationError::Malformed),
            _ => sum_of_parts(unsigned)?,
        };
        if negative && nanoseconds > 0 {
            return Err(ParseDurationError::Negative);
        }
        u64::try_from(nanoseconds)
            .map(|nanoseconds| Self(Duration::from_nanos(nanoseconds)))
            .map_err(|_too_large| ParseDurationError::TooLong)
    }
}

/// `([0-9]+(\.[0-9]*)?|\.[0-9]+)` and a unit, once or more.
fn sum_of_parts(mut rest: &str) -> Result<u128, ParseDurationError> {
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after_whole) = split_digits(rest);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(after_point) => split_digits(after_point),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(ParseDurationError::Malformed);
        }
        let end_of_unit = after_number
            .find(|character: char| character == '.' || character.is_ascii_digit())
            .unwrap_or(after_number.len());
        let (unit, after_unit) = after_number.split_at(end_of_unit);
        if unit.is_empty() {
            return Err(ParseDurationError::NoUnit);
        }
        let (_, scale) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(ParseDurationError::Malformed)?;
        total = nanoseconds(whole, fraction, *scale)
            .and_then(|part| part.checked_add(total))
            .filter(|total| *total <= MAXIMUM)
            .ok_or(ParseDurationError::TooLong)?;
        rest = after_unit;
    }
    Ok(total)
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `whole.fraction` times the unit, rounded down; `None` when that is far out of range.
fn nanoseconds(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // 18 digits are finer than any unit needs, and cannot overflow when multiplied by the largest.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = match fraction.parse::<u128>() {
        Ok(digits) => digits * scale / 10_u128.pow(u32::try_from(fraction.len()).ok()?),
        Err(_no_fraction) => 0,
    };
    whole.checked_mul(scale)?.checked_add(part)
}

impl fmt::Display for GoDuration {
    /// The shortest form in whole units: `1d12h`, `1m30s`, `0`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return formatter.write_str("0");
        }
        for (unit, scale) in UNITS {
            if rest >= scale {
                write!(formatter, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = GoDuration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a duration such as 1h30m")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
        text.trim()
            .parse()
            .map_err(|error| E::custom(format_args!("{text:?} {error}")))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<GoDuration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<GoDuration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<GoDuration, E> {
        self.visit_str(&number.to_string())
    }
}

/// For fields that are a plain [`Duration`]: `#[serde(with = "super::duration::plain")]`.
pub(super) mod plain {
    use super::{Deserialize, Deserializer, Duration, GoDuration, Serialize, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        GoDuration(*duration).serialize(serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        GoDuration::deserialize(deserializer).map(|GoDuration(duration)| duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_as_go_writes_them() {
        for (text, nanoseconds) in [
            ("0", 0_u64),
            ("-0", 0),
            ("0s", 0),
            ("1ns", 1),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("100ms", 100_000_000),
            ("30s", 30_000_000_000),
            ("+30s", 30_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("30m1h", 5_400_000_000_000),
            ("1h1m1.001s", 3_661_001_000_000),
            ("2d", 172_800_000_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX as u64),
        ] {
            assert_eq!(
                text.parse(),
                Ok(GoDuration(Duration::from_nanos(nanoseconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        use ParseDurationError::{Malformed, Negative, NoUnit, TooLong};
        for (text, error) in [
            ("", Malformed),
            ("-", Malformed),
            ("h", Malformed),
            (".s", Malformed),
            ("1x", Malformed),
            ("1 h", Malformed),
            ("1H", Malformed),
            ("--1s", Malformed),
            ("5 minutes", Malformed),
            ("30", NoUnit),
            ("1h30", NoUnit),
            ("-5s", Negative),
            ("-1.5h", Negative),
            ("300y", Malformed),
            ("9223372036854775808ns", TooLong),
            ("999999999999999999999999999999999999999999h", TooLong),
        ] {
            assert_eq!(text.parse::<GoDuration>(), Err(error), "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0", "1d", "1h30m", "30s", "100ms", "90d", "1d2h3m4s5ms6us7ns"] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.to_string(), text);
        }
    }
}
