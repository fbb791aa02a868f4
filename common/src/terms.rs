//! Filter terms: 64-bit hashes of what a filter can ask for by equality, so that one array index serves all of them.
//!
//! A hit on a hash is always checked on the value itself; a collision costs time and changes no answer.

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Something that a filter can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term<'a> {
    /// The config has a label of this key.
    LabelExists(&'a str),
    /// The config has this label with this value.
    Label(&'a str, &'a str),
    /// The manifest has an annotation of this key.
    AnnotationExists(&'a str),
    /// The manifest has this annotation with this value.
    Annotation(&'a str, &'a str),
    /// The manifest has this digest.
    Digest(&'a Digest),
    /// The manifest has this artifact type.
    ArtifactType(&'a str),
}

impl Term<'_> {
    /// The stored hash: the first 8 bytes of a SHA-256 over the kind and the length-prefixed parts.
    #[must_use]
    pub fn hash(&self) -> i64 {
        let digest_text;
        let (kind, parts): (u8, [&str; 2]) = match self {
            Self::LabelExists(key) => (1, [key, ""]),
            Self::Label(key, value) => (2, [key, value]),
            Self::AnnotationExists(key) => (3, [key, ""]),
            Self::Annotation(key, value) => (4, [key, value]),
            Self::Digest(digest) => {
                digest_text = digest.to_string();
                (5, [&digest_text, ""])
            }
            Self::ArtifactType(value) => (6, [value, ""]),
        };
        let mut hasher = Sha256::new();
        hasher.update([kind]);
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let mut head = [0; 8];
        head.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keys_and_values_do_not_run_into_each_other() {
        let terms = [
            Term::LabelExists("ab"),
            Term::Label("ab", ""),
            Term::Label("a", "b"),
            Term::Annotation("a", "b"),
            Term::AnnotationExists("ab"),
            Term::ArtifactType("ab"),
        ];
        for (index, one) in terms.iter().enumerate() {
            for other in &terms[index + 1..] {
                assert_ne!(one.hash(), other.hash(), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn hashes_are_stored_and_so_never_change() {
        assert_eq!(Term::Label("a", "b").hash(), -4_071_046_166_883_627_570);
    }
}
