//! One image: a manifest, a config and layers.

use std::collections::BTreeMap;

use flagstate_common::media_type::{DOCKER_MANIFEST, OCI_MANIFEST};
use serde_json::{Value, json};

use super::{Blob, Layer, Manifest, Platform};

/// Media types of the two families.
struct Family {
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

const OCI: Family = Family {
    manifest: OCI_MANIFEST,
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};
const DOCKER: Family = Family {
    manifest: DOCKER_MANIFEST,
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

/// Builds an image; without further calls a plain OCI image for amd64 and Linux with one layer.
#[derive(Clone)]
pub struct ImageBuilder {
    seed: String,
    family: &'static Family,
    platform: Platform,
    created: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    layers: Vec<Layer>,
    config: Option<Blob>,
    artifact_type: Option<String>,
    subject: Option<Value>,
    names_its_media_type: bool,
}

impl ImageBuilder {
    /// Images of different seeds have different digests.
    #[must_use]
    pub fn new(seed: &str) -> Self {
        Self {
            seed: seed.to_owned(),
            family: &OCI,
            platform: Platform::new("linux", "amd64"),
            created: "2024-02-29T12:00:00Z".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            layers: Vec::new(),
            config: None,
            artifact_type: None,
            subject: None,
            names_its_media_type: true,
        }
    }

    /// As Docker's own media types (image manifest version 2, schema 2).
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.family = &DOCKER;
        self
    }

    /// Where it runs.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str) -> Self {
        self.platform.os = os.to_owned();
        self.platform.architecture = architecture.to_owned();
        self
    }

    /// Variant of the architecture.
    #[must_use]
    pub fn variant(mut self, variant: &str) -> Self {
        self.platform.variant = variant.to_owned();
        self
    }

    /// Version of the operating system.
    #[must_use]
    pub fn os_version(mut self, os_version: &str) -> Self {
        self.platform.os_version = os_version.to_owned();
        self
    }

    /// When it was built, RFC 3339.
    #[must_use]
    pub fn created(mut self, created: &str) -> Self {
        self.created = created.to_owned();
        self
    }

    /// A label, which stands in the config.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation, which stands in the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// One more layer, above the others; see [`Layer::new`].
    #[must_use]
    pub fn layer(mut self, seed: &str) -> Self {
        self.layers.push(Layer::new(seed));
        self
    }

    /// Another document instead of the image config.
    #[must_use]
    pub fn config(mut self, config: Blob) -> Self {
        self.config = Some(config);
        self
    }

    /// `artifactType` of the manifest.
    #[must_use]
    pub fn artifact_type(mut self, artifact_type: &str) -> Self {
        self.artifact_type = Some(artifact_type.to_owned());
        self
    }

    /// The manifest that this one refers to.
    #[must_use]
    pub fn subject(mut self, subject: &Manifest) -> Self {
        self.subject = Some(subject.descriptor());
        self
    }

    /// Leaves `mediaType` out of the manifest, as the OCI specification permits.
    #[must_use]
    pub fn without_media_type(mut self) -> Self {
        self.names_its_media_type = false;
        self
    }

    /// The image.
    #[must_use]
    pub fn build(mut self) -> Manifest {
        if self.layers.is_empty() {
            self.layers.push(Layer::new(&self.seed));
        }
        let platform = self.config.is_none().then(|| self.platform.clone());
        let config = self.config.clone().unwrap_or_else(|| self.image_config());
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| Blob::new(self.family.layer, layer.compressed.clone()))
            .collect();
        let mut document = json!({
            "schemaVersion": 2,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        if self.names_its_media_type {
            document["mediaType"] = json!(self.family.manifest);
        }
        if !self.annotations.is_empty() {
            document["annotations"] = json!(self.annotations);
        }
        if let Some(artifact_type) = self.artifact_type {
            document["artifactType"] = json!(artifact_type);
        }
        if let Some(subject) = self.subject {
            document["subject"] = subject;
        }
        let mut manifest = Manifest::new(self.family.manifest, document.to_string());
        manifest.blobs = [vec![config], layers].concat();
        manifest.platform = platform;
        manifest
    }

    fn image_config(&self) -> Blob {
        Blob::json(self.family.config, &self.config_document())
    }

    /// The image config (OCI image specification, "Image Configuration"), for those who want to spoil it.
    pub(super) fn config_document(&self) -> Value {
        let mut document = self.platform.to_json();
        document["created"] = json!(self.created);
        document["author"] = json!("Flagstate");
        document["config"] = json!({"Cmd": ["/bin/sh"], "Env": [format!("SEED={}", self.seed)]});
        if !self.labels.is_empty() {
            document["config"]["Labels"] = json!(self.labels);
        }
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        document["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        document["history"] = json!(self.history());
        document
    }

    fn history(&self) -> Vec<Value> {
        let step = |position| json!({"created": self.created, "created_by": format!("COPY layer-{position} /")});
        let command = json!({"created": self.created, "created_by": "CMD [\"/bin/sh\"]", "empty_layer": true});
        (0..self.layers.len()).map(step).chain([command]).collect()
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::image::{Arch, ImageConfiguration, ImageManifest};

    use super::*;

    #[test]
    fn the_documents_are_what_the_specification_asks_for() {
        let image = ImageBuilder::new("a")
            .variant("v2")
            .label("k", "v")
            .annotation("n", "m")
            .layer("x")
            .layer("y");
        let built = image.clone().build();
        let manifest = ImageManifest::from_reader(&built.body[..]).unwrap();
        assert_eq!(manifest.layers().len(), 2);
        assert_eq!(manifest.annotations().as_ref().unwrap()["n"], "m");
        assert_eq!(
            manifest.config().digest().to_string(),
            built.blobs[0].digest.to_string()
        );
        let config = ImageConfiguration::from_reader(&built.blobs[0].bytes[..]).unwrap();
        assert_eq!(config.architecture(), &Arch::Amd64);
        assert_eq!(config.labels_of_config().unwrap()["k"], "v");
        let diff_ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        assert_eq!(config.rootfs().diff_ids(), &diff_ids);
    }

    #[test]
    fn the_same_calls_give_the_same_digest_and_another_seed_another() {
        let build = |seed| ImageBuilder::new(seed).label("b", "1").label("a", "2").build();
        assert_eq!(build("a"), build("a"));
        assert_ne!(build("a").digest, build("b").digest);
    }

    #[test]
    fn the_config_of_a_known_image_never_changes() {
        let image = ImageBuilder::new("known").build();
        assert_eq!(
            image.blobs[0].digest.to_string(),
            "sha256:a10523600e91df15cb804cdffd58fea66c94cc2336977dd080a5fcc16de99d57"
        );
    }
}
