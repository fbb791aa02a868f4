//! Tests of the whole system: the services' binaries, PostgreSQL, a real registry, the caching proxy and real clients.

#![allow(
    clippy::unwrap_used,
    reason = "Clippy does not take functions that tests share for tests"
)]

mod database;
mod etags;
mod events;
mod flatpak;
mod http;
mod kill;
mod program;
mod proxy;
mod reader_role;
mod shutdown;
mod skopeo;
