//! Answers questions about a container registry from Flagstate's index.
//!
//! This crate only reads: it contains no writing code, holds no credentials of a registry, and knows no SQL.
pub mod app;
mod assertion;
mod caching;
mod error;
mod exchange;
mod freshness;
mod long_body;
pub mod metrics;
mod response_cache;
mod routes;
mod turns;
mod wire;
