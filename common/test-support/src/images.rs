//! Images of every kind that registries hold, built from a seed: the same calls give the same bytes.

mod artifacts;
mod content;
pub mod hostile;
mod image;
mod index;
mod layer;
mod samples;

pub use artifacts::{
    attestation, config_is_not_json, cosign_signature, flatpak_app, helm_chart, image_of_unknown_media_type,
    sbom_referrer, wasm_module,
};
pub use content::{Blob, Manifest, Platform};
pub use image::ImageBuilder;
pub use index::IndexBuilder;
pub use layer::Layer;
pub use samples::{SampleImage, SampleImages};
