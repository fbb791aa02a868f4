//! What could not be read, kept with the image that it concerns.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One part of an image that could not be read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Which kind of problem.
    pub code: ProblemCode,
    /// Which limit, by its name in `limits:`, if one was hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Which part, in a sentence without secrets.
    pub detail: String,
}

/// The kinds of problems. The texts are part of the API.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// A manifest or config over its size limit.
    TooLarge,
    /// The body does not have the digest that names it.
    DigestMismatch,
    /// The document can be read as two kinds of manifest (GHSA-mc8v-mgrf-8f4m).
    Ambiguous,
    /// A manifest that is not a JSON object.
    NotJson,
    /// A count, depth or length over its limit; the rest was left out.
    Limit,
    /// A descriptor without a usable digest or size.
    BadDescriptor,
    /// A value that should be a text and is not.
    NotText,
    /// The registry does not have the manifest.
    ManifestMissing,
    /// The registry does not have the config.
    ConfigMissing,
    /// A config that is not a JSON object.
    ConfigNotJson,
    /// The registry does not have a member of the image index, or has it in no readable form.
    MemberMissing,
    /// The registry did not answer with the content.
    Unreadable,
}

impl ProblemCode {
    /// Whether reading again later may solve it.
    #[must_use]
    pub fn is_healable(self) -> bool {
        match self {
            Self::DigestMismatch
            | Self::ManifestMissing
            | Self::ConfigMissing
            | Self::MemberMissing
            | Self::Unreadable => true,
            Self::TooLarge
            | Self::Ambiguous
            | Self::NotJson
            | Self::Limit
            | Self::BadDescriptor
            | Self::NotText
            | Self::ConfigNotJson => false,
        }
    }
}

impl Problem {
    /// A problem with a sentence about the part.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl fmt::Display) -> Self {
        Self {
            code,
            limit: None,
            detail: detail.to_string(),
        }
    }

    /// The same, because the limit of this name was hit.
    #[must_use]
    pub fn at_limit(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit.to_owned());
        self
    }
}
