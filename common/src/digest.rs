//! Content digests, the only identity of a manifest, config or layer (OCI image specification, "Digests").
//!
//! Only registered algorithms are accepted: a digest that cannot be verified cannot name content here.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};
use thiserror::Error;

/// A verified-form digest: `sha256:<64 hex>` or `sha512:<128 hex>`, lower case.
///
/// The order is the byte order of the text form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256, what registries use.
    Sha256([u8; 32]),
    /// SHA-512, permitted by the specification and rare.
    Sha512(Box<[u8; 64]>),
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseDigestError {
    /// There is no `:` between algorithm and value.
    #[error("a digest is written <algorithm>:<hex>, and this has no colon")]
    NoAlgorithm,
    /// The algorithm is not registered by the specification.
    #[error("the digest algorithm is not sha256 or sha512")]
    UnknownAlgorithm,
    /// The value has the wrong length for its algorithm.
    #[error("{algorithm} takes {expected} hex digits, not {found}")]
    WrongLength {
        /// The algorithm's name.
        algorithm: &'static str,
        /// Digits the algorithm takes.
        expected: usize,
        /// Digits found.
        found: usize,
    },
    /// The value holds something else than `0-9a-f`.
    #[error("a digest's value is lower-case hex")]
    NotLowerHex,
}

/// The first byte of the stored form, which keeps algorithms apart.
const TAG_SHA256: u8 = 1;
const TAG_SHA512: u8 = 2;

impl Digest {
    /// The SHA-256 digest of `body`.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(body).into())
    }

    /// Whether `body` has this digest.
    #[must_use]
    pub fn matches(&self, body: &[u8]) -> bool {
        match self {
            Self::Sha256(hash) => Sha256::digest(body)[..] == hash[..],
            Self::Sha512(hash) => Sha512::digest(body)[..] == hash[..],
        }
    }

    /// The form that is stored: one byte for the algorithm, then the hash; its order is that of the text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => [&[TAG_SHA256], &hash[..]].concat(),
            Self::Sha512(hash) => [&[TAG_SHA512], &hash[..]].concat(),
        }
    }

    /// Reads what [`Digest::to_bytes`] wrote; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, hash) = bytes.split_first()?;
        match *tag {
            TAG_SHA256 => Some(Self::Sha256(hash.try_into().ok()?)),
            TAG_SHA512 => Some(Self::Sha512(Box::new(hash.try_into().ok()?))),
            _ => None,
        }
    }

    /// `sha256` or `sha512`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, value) = text.split_once(':').ok_or(ParseDigestError::NoAlgorithm)?;
        match algorithm {
            "sha256" => lower_hex::<32>("sha256", value).map(Self::Sha256),
            "sha512" => lower_hex::<64>("sha512", value).map(|hash| Self::Sha512(Box::new(hash))),
            _ => Err(ParseDigestError::UnknownAlgorithm),
        }
    }
}

fn lower_hex<const N: usize>(algorithm: &'static str, value: &str) -> Result<[u8; N], ParseDigestError> {
    if value.len() != 2 * N {
        return Err(ParseDigestError::WrongLength {
            algorithm,
            expected: 2 * N,
            found: value.len(),
        });
    }
    if !value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(ParseDigestError::NotLowerHex);
    }
    let mut hash = [0; N];
    hex::decode_to_slice(value, &mut hash)
        .map(|()| hash)
        .or(Err(ParseDigestError::NotLowerHex))
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash: &[u8] = match self {
            Self::Sha256(hash) => hash,
            Self::Sha512(hash) => &hash[..],
        };
        write!(formatter, "{}:{}", self.algorithm(), hex::encode(hash))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        for digest in [
            Digest::of(b"abc"),
            Digest::Sha512(Box::new(Sha512::digest(b"abc").into())),
        ] {
            assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
            assert_eq!(Digest::from_bytes(&digest.to_bytes()), Some(digest.clone()));
            assert!(digest.matches(b"abc"));
            assert!(!digest.matches(b"abd"));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let hex64 = "a".repeat(64);
        for (text, error) in [
            ("", ParseDigestError::NoAlgorithm),
            ("latest", ParseDigestError::NoAlgorithm),
            ("md5:abc", ParseDigestError::UnknownAlgorithm),
            ("SHA256:abc", ParseDigestError::UnknownAlgorithm),
            (
                "sha256:abc",
                ParseDigestError::WrongLength {
                    algorithm: "sha256",
                    expected: 64,
                    found: 3,
                },
            ),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
        let upper = format!("sha256:{}", hex64.to_uppercase());
        assert_eq!(upper.parse::<Digest>(), Err(ParseDigestError::NotLowerHex));
    }
}
