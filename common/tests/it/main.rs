//! Tests of the reading store against a real PostgreSQL.

#![allow(clippy::expect_used, reason = "what fails here fails the test")]

mod read_store;
mod search_model;
mod search_plans;
