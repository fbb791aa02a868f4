//! Tests of the pool and the reading store against a real PostgreSQL.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may be blunt")]

mod pool;
mod pools;
mod read_store;
mod search_model;
mod search_plans;
mod tls;
