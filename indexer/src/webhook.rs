//! Taking in what registries notify: parse, keep, and only then say 202.

pub mod auth;
pub mod envelope;
pub mod handler;
pub mod intake;
