//! What a registry is given: blobs, and manifests with everything they need.

use bytes::Bytes;
use flagstate_common::digest::Digest;
use serde_json::{Value, json};

/// A blob, with the digest and media type that manifests claim for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What descriptors say it is.
    pub media_type: String,
    /// What it is asked for by; only hostile ones have another than that of `bytes`.
    pub digest: Digest,
    /// Its size, as descriptors say; only hostile ones lie.
    pub size: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl Blob {
    /// An honest blob.
    #[must_use]
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            bytes,
        }
    }

    /// An honest JSON document, keys in byte order.
    #[must_use]
    pub fn json(media_type: &str, document: &Value) -> Self {
        Self::new(media_type, document.to_string())
    }

    /// A descriptor of it (OCI image specification, "Content Descriptors").
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.size})
    }
}

/// Where an image runs; what is empty is left out of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `os`
    pub os: String,
    /// `architecture`
    pub architecture: String,
    /// `variant`
    pub variant: String,
    /// `os.version`
    pub os_version: String,
}

impl Platform {
    /// Without variant and version.
    #[must_use]
    pub fn new(os: &str, architecture: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
            os_version: String::new(),
        }
    }

    /// The document's form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = json!({"os": self.os, "architecture": self.architecture});
        for (key, value) in [("variant", &self.variant), ("os.version", &self.os_version)] {
            if !value.is_empty() {
                object[key] = json!(value);
            }
        }
        object
    }
}

/// A manifest or image index, and what has to be in the repository before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The `Content-Type` it is stored and served with.
    pub media_type: String,
    /// What it is asked for by; only hostile ones have another than that of `body`.
    pub digest: Digest,
    /// The document.
    pub body: Bytes,
    /// Config and layers.
    pub blobs: Vec<Blob>,
    /// Members of an image index, in order.
    pub members: Vec<Manifest>,
    /// Where it runs, if it is an image.
    pub platform: Option<Platform>,
}

impl Manifest {
    /// An honest document that needs nothing else.
    #[must_use]
    pub fn new(media_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(&body),
            body,
            blobs: Vec::new(),
            members: Vec::new(),
            platform: None,
        }
    }

    /// The same document under a digest that is not its own.
    #[must_use]
    pub fn claiming(mut self, digest: Digest) -> Self {
        self.digest = digest;
        self
    }

    /// A descriptor of it, without platform.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.body.len()})
    }

    /// The images it leads to, itself if it is one, in the order of the documents; attestations are none.
    #[must_use]
    pub fn images(&self) -> Vec<&Manifest> {
        if self.members.is_empty() {
            return Vec::from_iter(self.platform.is_some().then_some(self));
        }
        self.members.iter().flat_map(Manifest::images).collect()
    }
}
