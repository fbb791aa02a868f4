//! The HTTP client of tests and xtask.

use std::sync::Once;
use std::time::Duration;

use anyhow::Result;

static PROVIDER: Once = Once::new();

/// A client that uses no proxy and gives up after a minute.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> Result<reqwest::Client> {
    // Fails only when somebody else was first, and then there is one.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    Ok(reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()?)
}
