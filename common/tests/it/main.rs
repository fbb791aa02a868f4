//! Tests of the reading store against a real PostgreSQL.

mod search_model;
