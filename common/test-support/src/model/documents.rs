//! The documents of model manifests, so that their digests are true and a real registry can hold them.

use flagstate_common::annotations::Annotations;
use flagstate_common::digest::Digest;
use flagstate_common::media_type::{MediaType, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use super::{Content, Manifest, Member};

/// The media type of the configs of images.
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An image.
pub(super) fn image(
    os: &str,
    architecture: &str,
    labels: Annotations,
    annotations: Annotations,
    artifact_type: &str,
) -> (Digest, Manifest) {
    let config = json!({"os": os, "architecture": architecture, "config": {"Labels": labels}});
    let content = Content::Image {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        labels,
    };
    with_config(&config, IMAGE_CONFIG, artifact_type, annotations, content)
}

/// An artifact: its config is empty, and its type that of the config unless the manifest tells another one.
pub(super) fn artifact(config_type: &str, artifact_type: &str, annotations: Annotations) -> (Digest, Manifest) {
    with_config(&json!({}), config_type, artifact_type, annotations, untold())
}

/// A manifest of another kind, without a config.
pub(super) fn other(artifact_type: &str, annotations: Annotations) -> (Digest, Manifest) {
    let document = json!({
        "mediaType": OCI_ARTIFACT,
        "artifactType": artifact_type,
        "annotations": annotations,
    });
    seal(&document, OCI_ARTIFACT, artifact_type, annotations, untold(), None)
}

/// An image index.
pub(super) fn image_index(members: Vec<Member>, annotations: Annotations, artifact_type: &str) -> (Digest, Manifest) {
    let descriptors: Vec<Value> = members.iter().map(descriptor).collect();
    let document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "artifactType": artifact_type,
        "manifests": descriptors,
        "annotations": annotations,
    });
    seal(
        &document,
        OCI_INDEX,
        artifact_type,
        annotations,
        Content::ImageIndex { members },
        None,
    )
}

fn descriptor(member: &Member) -> Value {
    let mut annotations = Annotations::new();
    if member.is_reference {
        annotations.insert(
            "vnd.docker.reference.type".to_owned(),
            "attestation-manifest".to_owned(),
        );
    }
    json!({
        "mediaType": OCI_MANIFEST,
        "digest": member.digest.to_string(),
        "size": 2,
        "platform": {"os": member.os, "architecture": member.architecture},
        "annotations": annotations,
    })
}

fn untold() -> Content {
    Content::Image {
        os: String::new(),
        architecture: String::new(),
        labels: Annotations::new(),
    }
}

fn with_config(
    config: &Value,
    config_type: &str,
    artifact_type: &str,
    annotations: Annotations,
    content: Content,
) -> (Digest, Manifest) {
    let config = config.to_string().into_bytes();
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": config_type,
            "digest": Digest::of(&config).to_string(),
            "size": config.len(),
        },
        "layers": [],
        "annotations": annotations,
    });
    if !artifact_type.is_empty() {
        document["artifactType"] = artifact_type.into();
    }
    let artifact_type = if artifact_type.is_empty() {
        config_type
    } else {
        artifact_type
    };
    seal(
        &document,
        OCI_MANIFEST,
        artifact_type,
        annotations,
        content,
        Some(config),
    )
}

fn seal(
    document: &Value,
    media_type: &str,
    artifact_type: &str,
    annotations: Annotations,
    content: Content,
    config_document: Option<Vec<u8>>,
) -> (Digest, Manifest) {
    let media_type: MediaType = media_type.parse().expect("a media type");
    let document = document.to_string().into_bytes();
    let manifest = Manifest {
        verified: true,
        media_type,
        artifact_type: artifact_type.to_owned(),
        annotations,
        content,
        document,
        config_document,
    };
    (Digest::of(&manifest.document), manifest)
}
