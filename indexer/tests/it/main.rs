//! The indexer against real PostgreSQL and real or hostile registries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may be blunt"
)]

mod defects;
mod documentation;
mod events;
mod gc;
mod harness;
mod hostile;
mod model;
mod registry;
mod scan;
