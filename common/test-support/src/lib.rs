//! Test databases, registries and images for Flagstate's tests and for `cargo xtask`.

pub mod fake_registry;
