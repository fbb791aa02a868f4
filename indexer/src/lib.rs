//! The indexer: keeps Flagstate's index equal to a container registry.
//!
//! A notification becomes a durable row in the queue ([`webhook`]); a worker looks at the registry ([`registry`]), compares
//! with what is stored and writes the difference as one revision ([`scan`], [`store`]). One process of many writes at a
//! time.

pub mod app;
pub mod gc;
pub mod leader;
pub mod metrics;
pub mod registry;
pub mod scan;
pub mod store;
pub mod webhook;
