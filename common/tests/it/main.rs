//! Tests of the reading store against a real PostgreSQL.

mod read_store;
mod search_model;
mod search_plans;
