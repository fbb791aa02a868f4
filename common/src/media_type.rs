//! Media types, and which of them we know how to read (OCI image specification, "Media types").

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// `application/vnd.oci.image.manifest.v1+json`
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.artifact.manifest.v1+json`, from a release candidate of the specification
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// `application/vnd.docker.distribution.manifest.v2+json`
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `application/vnd.docker.distribution.manifest.list.v2+json`
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// `application/vnd.docker.distribution.manifest.v1+json`, recognised, not read
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The signed form of [`DOCKER_SCHEMA1`].
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What a request for a manifest says in `Accept`.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.artifact.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, \
     application/vnd.docker.distribution.manifest.v1+json;q=0.5, \
     */*;q=0.1";

/// The longest media type that is kept.
pub const MAX_LENGTH: usize = 255;

/// A media type without parameters, in lower case: `type/subtype` of RFC 6838 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MediaType(Box<str>);

/// Why a text is no media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseMediaTypeError {
    /// Longer than [`MAX_LENGTH`] bytes.
    #[error("a media type has at most {MAX_LENGTH} bytes")]
    TooLong,
    /// Not `type/subtype`.
    #[error("a media type is written type/subtype")]
    NotTypeSlashSubtype,
}

/// Whether a document lists manifests or is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ManifestKind {
    /// An image manifest: a config and layers.
    Image,
    /// An image index: descriptors of manifests.
    ImageIndex,
    /// Anything else that a registry stores as a manifest.
    Other,
}

impl MediaType {
    /// The media type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a manifest of this media type is.
    #[must_use]
    pub fn kind(&self) -> ManifestKind {
        match self.as_str() {
            OCI_MANIFEST | DOCKER_MANIFEST => ManifestKind::Image,
            OCI_INDEX | DOCKER_LIST => ManifestKind::ImageIndex,
            _ => ManifestKind::Other,
        }
    }

    /// Whether notifications about this media type are about manifests, and not about blobs.
    ///
    /// Unknown types count as manifests, except those that only blobs have.
    #[must_use]
    pub fn may_be_manifest(&self) -> bool {
        let text = self.as_str();
        let is_blob = text == "application/octet-stream"
            || text.contains(".layer.")
            || text.contains(".rootfs.")
            || text.contains(".image.config.")
            || text.contains("container.image.");
        !is_blob
    }
}

impl FromStr for MediaType {
    type Err = ParseMediaTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.split(';').next().unwrap_or_default().trim();
        if bare.len() > MAX_LENGTH {
            return Err(ParseMediaTypeError::TooLong);
        }
        let is_name = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&byte))
        };
        match bare.split_once('/') {
            Some((kind, subtype)) if is_name(kind) && is_name(subtype) => Ok(Self(bare.to_ascii_lowercase().into())),
            _ => Err(ParseMediaTypeError::NotTypeSlashSubtype),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_parameters_and_case() {
        let parsed: MediaType = "Application/JSON; charset=utf-8".parse().expect("valid");
        assert_eq!(parsed.as_str(), "application/json");
    }

    #[test]
    fn rejects_what_is_not_a_media_type() {
        for text in ["", "json", "a/", "/b", "a/b c", "a/b\u{0}", "a/b/c"] {
            assert_eq!(
                text.parse::<MediaType>(),
                Err(ParseMediaTypeError::NotTypeSlashSubtype),
                "{text}"
            );
        }
        assert_eq!(
            format!("a/{}", "b".repeat(300)).parse::<MediaType>(),
            Err(ParseMediaTypeError::TooLong)
        );
    }

    #[test]
    fn tells_blobs_from_manifests() {
        for (text, expected) in [
            (OCI_MANIFEST, true),
            (DOCKER_LIST, true),
            ("application/vnd.example.unknown+json", true),
            ("application/octet-stream", false),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", false),
            ("application/vnd.docker.container.image.v1+json", false),
            ("application/vnd.oci.image.config.v1+json", false),
            ("application/vnd.oci.image.layer.v1.tar+gzip", false),
        ] {
            let media_type: MediaType = text.parse().expect("valid");
            assert_eq!(media_type.may_be_manifest(), expected, "{text}");
        }
    }
}
