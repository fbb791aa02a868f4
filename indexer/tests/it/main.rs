//! The indexer against real PostgreSQL and real or hostile registries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests may be blunt"
)]

mod absence;
mod authentication;
mod defects;
mod documentation;
mod events;
mod exclusion;
mod gc;
mod harness;
mod hints;
mod hostile;
mod lease;
mod leaves;
mod model;
mod queue;
mod registry;
mod scan;
