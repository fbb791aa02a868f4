//! Waiting for something to become so.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for the slowest machine; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until `holds` says yes, and returns what it says.
///
/// # Errors
/// When it does not within a minute; tells what `holds` said last.
pub async fn until<T, E: Debug>(what: &str, mut holds: impl AsyncFnMut() -> Result<T, E>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = match holds().await {
            Ok(value) => return Ok(value),
            Err(last) => last,
        };
        if Instant::now() > deadline {
            bail!("not within {PATIENCE:?}: {what}; last: {last:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
