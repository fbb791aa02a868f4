//! What registries hold beside container images.

use flagstate_common::media_type::OCI_MANIFEST;
use serde_json::{Value, json};

use super::{Blob, ImageBuilder, Manifest};

/// The empty document that artifacts without a config point at (OCI image specification, "Guidance for an Empty Descriptor").
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";

/// An OCI manifest of one blob that is no image.
fn artifact(config: Blob, content: Blob, change: impl FnOnce(&mut Value)) -> Manifest {
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [content.descriptor()],
    });
    change(&mut document);
    let mut manifest = Manifest::new(OCI_MANIFEST, document.to_string());
    manifest.blobs = vec![config, content];
    manifest
}

/// A Helm chart; its config is the chart's metadata.
#[must_use]
pub fn helm_chart(name: &str, version: &str) -> Manifest {
    let metadata =
        json!({"apiVersion": "v2", "name": name, "version": version, "description": format!("Chart {name}")});
    let chart = format!("{name}-{version}");
    artifact(
        Blob::json("application/vnd.cncf.helm.config.v1+json", &metadata),
        Blob::new(
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            super::Layer::new(&chart).compressed,
        ),
        |document| {
            document["annotations"] = json!({
                "org.opencontainers.image.title": name,
                "org.opencontainers.image.version": version,
            });
        },
    )
}

/// A WebAssembly module (CNCF WASM OCI artifact layout); its config has a platform of its own kind.
#[must_use]
pub fn wasm_module(seed: &str) -> Manifest {
    let config = json!({"created": "2024-02-29T12:00:00Z", "architecture": "wasm", "os": "wasip1", "layerDigests": []});
    let module = [&b"\0asm\x01\0\0\0"[..], seed.as_bytes()].concat();
    artifact(
        Blob::json("application/vnd.wasm.config.v0+json", &config),
        Blob::new("application/wasm", module),
        |_| (),
    )
}

/// A cosign signature, which is stored as an image of the tag `sha256-<hex>.sig`.
#[must_use]
pub fn cosign_signature(of: &Manifest) -> Manifest {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": ""},
            "image": {"docker-manifest-digest": of.digest.to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let content = Blob::json("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
    let config = json!({"architecture": "", "created": "0001-01-01T00:00:00Z", "os": "", "config": {}, "history": [],
        "rootfs": {"type": "layers", "diff_ids": [content.digest.to_string()]}});
    artifact(
        Blob::json("application/vnd.oci.image.config.v1+json", &config),
        content,
        |document| {
            document["layers"][0]["annotations"] =
                json!({"dev.cosignproject.cosign/signature": "bm90IGEgc2lnbmF0dXJl"});
        },
    )
}

/// What BuildKit adds to an image index about an image: an in-toto statement.
#[must_use]
pub fn attestation(about: &Manifest) -> Manifest {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "_", "digest": {"sha256": about.digest.to_string().trim_start_matches("sha256:")}}],
        "predicate": {},
    });
    let content = Blob::json("application/vnd.in-toto+json", &statement);
    let config = json!({"architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [content.digest.to_string()]}});
    artifact(
        Blob::json("application/vnd.oci.image.config.v1+json", &config),
        content,
        |_| (),
    )
}

/// A software bill of materials that refers to its subject, and so needs no tag.
#[must_use]
pub fn sbom_referrer(subject: &Manifest) -> Manifest {
    let document = json!({"spdxVersion": "SPDX-2.3", "name": subject.digest.to_string()});
    let (config, content) = (Blob::new(EMPTY_CONFIG, "{}"), Blob::json("text/spdx+json", &document));
    artifact(config, content, |document| {
        document["artifactType"] = json!("application/spdx+json");
        document["subject"] = subject.descriptor();
        document["annotations"] = json!({"org.opencontainers.image.created": "2024-02-29T12:00:00Z"});
    })
}

/// An image manifest whose config is no JSON at all.
#[must_use]
pub fn config_is_not_json(seed: &str) -> Manifest {
    ImageBuilder::new(seed)
        .config(Blob::new(
            "application/vnd.example.settings.v1+toml",
            format!("seed = \"{seed}\"\n"),
        ))
        .build()
}

/// A manifest of a media type that nobody knows; few registries take it.
#[must_use]
pub fn image_of_unknown_media_type(seed: &str) -> Manifest {
    let media_type = "application/vnd.example.manifest.v7+json";
    let document = json!({"schemaVersion": 7, "mediaType": media_type, "seed": seed});
    Manifest::new(media_type, document.to_string())
}

/// An image with the labels by which flatpak finds applications and runtimes. It is found, not installed: its layer
/// holds no ostree commit.
#[must_use]
pub fn flatpak_app(id: &str, architecture: &str) -> ImageBuilder {
    let flatpak_architecture = match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    let runtime = format!("org.example.Platform/{flatpak_architecture}/stable");
    let metadata = format!("[Application]\nname={id}\nruntime={runtime}\ncommand=hello\n");
    ImageBuilder::new(id)
        .platform("linux", architecture)
        .label("org.flatpak.ref", &format!("app/{id}/{flatpak_architecture}/stable"))
        .label("org.flatpak.metadata", &metadata)
        .label("org.flatpak.installed-size", "4096")
        .label("org.flatpak.download-size", "1024")
        .label(
            "org.freedesktop.appstream.appdata",
            &format!("<component type=\"desktop\"><id>{id}</id></component>"),
        )
}
