//! Manifests and configs as registries store them, read leniently (OCI image specification; Docker schema 2).
//!
//! What a registry serves is foreign: any field may be missing, of a wrong type or absurd. Reading never fails as a
//! whole. A part that cannot be used is left out and recorded as a [`Problem`], so that one odd image hides nothing else.
//! Keys are case-sensitive and the last of several equal keys wins.

mod config;
mod fields;
pub mod json;
mod manifest;
mod problem;
mod title;

pub use config::{ParsedConfig, chain_ids, parse_config};
pub use manifest::{Descriptor, Member, ParsedManifest, parse_manifest};
pub use problem::{Problem, ProblemCode};
pub use title::{description, title};
