//! Platforms (OCI image specification, "Image index", `platform`; the same names in the image config).

/// What an image runs on. An empty text says that the document did not tell.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Platform {
    /// Operating system, in `GOOS` words.
    pub os: String,
    /// CPU architecture, in `GOARCH` words.
    pub architecture: String,
    /// Variant of the CPU, such as `v8`.
    pub variant: String,
    /// Version of the operating system, used by Windows images.
    pub os_version: String,
    /// Features of the operating system that are needed.
    pub os_features: Vec<String>,
}

impl Platform {
    /// `unknown/unknown`: how image indexes mark members that are no images.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}
