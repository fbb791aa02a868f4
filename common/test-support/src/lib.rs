//! Test databases, registries and images for Flagstate's tests and for `cargo xtask`.
//!
//! Every server that is started here is private: a free loopback port, a folder of its own, and an end that comes with
//! the process that asked for it, however that process ends.

pub mod environment;
pub mod ports;
pub mod postgres;
pub mod process;
