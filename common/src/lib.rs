//! What both services of Flagstate share: the domain, the configuration, telemetry and the reading store.
//!
//! The domain modules know neither HTTP nor SQL. Only [`store`] knows SQL, and it only reads:
//! everything that writes lives in the indexer's crate, so that query-api cannot contain it.

pub mod admin;
pub mod annotations;
pub mod build;
pub mod config;
pub mod digest;
pub mod document;
pub mod error_chain;
pub mod glob;
pub mod healthcheck;
pub mod image;
pub mod media_type;
pub mod metrics;
pub mod platform;
pub mod readiness;
pub mod reference;
pub mod repository_name;
pub mod revision;
pub mod search_query;
pub mod shutdown;
pub mod store;
pub mod tag;
pub mod telemetry;
pub mod terms;
