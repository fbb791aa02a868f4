//! Tests of query-api over its ports, against a real PostgreSQL.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may be blunt")]

mod assertions;
mod caching;
mod database_failures;
mod defects;
mod documentation;
mod freshness;
mod gate;
mod http;
mod http_surface;
mod index;
mod lifecycle;
mod reader_role;
mod response_cache;
mod service;
mod snapshots;
