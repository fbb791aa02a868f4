//! Tests of query-api over its ports, against a real PostgreSQL.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may be blunt")]

#![allow(clippy::expect_used, reason = "a test that lacks what it needs ends here")]

mod assertions;
mod caching;
mod database_failures;
mod freshness;
mod gate;
mod http;
mod http_surface;
mod index;
mod lifecycle;
mod reader_role;
mod service;
mod snapshots;
