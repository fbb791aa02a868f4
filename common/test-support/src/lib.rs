//! Test databases, registries and images for Flagstate's tests and for `cargo xtask`.
//!
//! Every server that is started here is private: a free loopback port, a folder of its own, and an end that comes with
//! the process that asked for it, however that process ends.

pub mod docker_registry;
pub mod documented;
pub mod environment;
pub mod fake_registry;
pub mod http;
pub mod images;
pub mod model;
pub mod nginx;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod push;
pub mod registry_contents;
pub mod seed;
pub mod service;
pub mod system;
pub mod wait;
