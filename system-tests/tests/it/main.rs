//! Tests of the whole system: the services' binaries, PostgreSQL, a real registry, the caching proxy and real clients.

#![allow(
    clippy::unwrap_used,
    reason = "Clippy does not take functions that tests share for tests"
)]

mod database;
mod etags;
mod flatpak;
mod http;
mod program;
mod proxy;
mod skopeo;
