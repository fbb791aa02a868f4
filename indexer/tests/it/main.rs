//! The indexer against real PostgreSQL and real or hostile registries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may be blunt"
)]

mod absence;
mod defects;
mod documentation;
mod events;
mod gc;
mod harness;
mod hints;
mod hostile;
mod leaves;
mod model;
mod registry;
mod scan;
