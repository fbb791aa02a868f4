//! Image indexes: lists of manifests, one for each platform.

use std::collections::BTreeMap;

use flagstate_common::media_type::{DOCKER_LIST, OCI_INDEX};
use serde_json::{Value, json};

use super::{Manifest, attestation};

/// Builds an image index; its members keep the order in which they are added.
#[derive(Clone)]
pub struct IndexBuilder {
    media_type: &'static str,
    names_its_media_type: bool,
    annotations: BTreeMap<String, String>,
    descriptors: Vec<Value>,
    members: Vec<Manifest>,
}

impl Default for IndexBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl IndexBuilder {
    /// An OCI image index.
    #[must_use]
    pub fn new() -> Self {
        Self {
            media_type: OCI_INDEX,
            names_its_media_type: true,
            annotations: BTreeMap::new(),
            descriptors: Vec::new(),
            members: Vec::new(),
        }
    }

    /// As Docker's manifest list.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.media_type = DOCKER_LIST;
        self
    }

    /// Leaves `mediaType` out of the document.
    #[must_use]
    pub fn without_media_type(mut self) -> Self {
        self.names_its_media_type = false;
        self
    }

    /// An annotation of the image index itself.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// A member, an image with its platform or a nested image index without.
    #[must_use]
    pub fn member(self, member: Manifest) -> Self {
        let mut descriptor = member.descriptor();
        if let Some(platform) = &member.platform {
            descriptor["platform"] = platform.to_json();
        }
        self.described_member(descriptor, member)
    }

    /// A member with a descriptor that tells something else.
    #[must_use]
    pub fn described_member(mut self, descriptor: Value, member: Manifest) -> Self {
        self.descriptors.push(descriptor);
        self.members.push(member);
        self
    }

    /// A descriptor of something that is not pushed.
    #[must_use]
    pub fn descriptor(mut self, descriptor: Value) -> Self {
        self.descriptors.push(descriptor);
        self
    }

    /// An attestation about each image so far, as BuildKit adds them: platform `unknown/unknown`, and annotations that
    /// tell what it is about.
    #[must_use]
    pub fn attested(self) -> Self {
        let images = self.members.clone();
        images.iter().fold(self, |index, image| {
            let member = attestation(image);
            let mut descriptor = member.descriptor();
            descriptor["platform"] = json!({"os": "unknown", "architecture": "unknown"});
            descriptor["annotations"] = json!({
                "vnd.docker.reference.digest": image.digest.to_string(),
                "vnd.docker.reference.type": "attestation-manifest",
            });
            index.described_member(descriptor, member)
        })
    }

    /// The image index.
    #[must_use]
    pub fn build(self) -> Manifest {
        let mut document = json!({"schemaVersion": 2, "manifests": self.descriptors});
        if self.names_its_media_type {
            document["mediaType"] = json!(self.media_type);
        }
        if !self.annotations.is_empty() {
            document["annotations"] = json!(self.annotations);
        }
        let mut index = Manifest::new(self.media_type, document.to_string());
        index.members = self.members;
        index
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::image::{Arch, ImageIndex};

    use super::super::ImageBuilder;
    use super::*;

    #[test]
    fn the_document_is_what_the_specification_asks_for_and_attestations_are_no_images() {
        let arm = ImageBuilder::new("arm")
            .platform("linux", "arm64")
            .variant("v8")
            .build();
        let amd = ImageBuilder::new("amd").build();
        let index = IndexBuilder::new()
            .member(arm.clone())
            .member(amd.clone())
            .attested()
            .build();
        let parsed = ImageIndex::from_reader(&index.body[..]).unwrap();
        assert_eq!(parsed.manifests().len(), 4);
        let platform = parsed.manifests()[0].platform().as_ref().unwrap();
        assert_eq!(
            (platform.architecture(), platform.variant().as_deref()),
            (&Arch::ARM64, Some("v8"))
        );
        assert_eq!(index.images(), [&arm, &amd]);
    }
}
