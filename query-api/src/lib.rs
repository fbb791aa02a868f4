//! Answers questions about a container registry from Flagstate's index.
//!
//! This crate only reads: it contains no writing code, holds no credentials of a registry, and knows no SQL.
mod caching;
mod wire;
