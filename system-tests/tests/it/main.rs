//! Tests of the whole system: the services' binaries, PostgreSQL, a real registry, the caching proxy and real clients.

#![allow(
    clippy::unwrap_used,
    reason = "Clippy does not take functions that tests share for tests"
)]

mod caching;
mod database;
mod etags;
mod events;
mod flatpak;
mod http;
mod kill;
mod program;
mod proxy;
mod reader_role;
mod samples;
mod shutdown;
mod skopeo;
mod survival;

use flagstate_test_support::system::{Options, System, found_in};
use flagstate_test_support::wait;
use serde_json::{Value, json};

/// A system whose index follows notifications alone: no scan hides a lost one.
async fn system_without_scans() -> System {
    let options = Options::beside_this_test().unwrap();
    System::start(&options.configure(&json!({"interval": {"fetch_all": "0"}})))
        .await
        .unwrap()
}

/// Waits until a query finds exactly these digests in these repositories.
async fn until_found(system: &System, query: &str, expected: &[(String, String)]) {
    wait::until(query, async || {
        let found = match system.index(query).await {
            Ok(answer) => found_in(&answer),
            Err(error) => return Err(format!("{error:#}")),
        };
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
}

/// The body of a cached answer.
async fn cached(system: &System, query: &str) -> Value {
    let answer = system.get(&format!("/index/static?{query}")).await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}
