//! The one question that is asked all the time: which revision is the present one?

use std::sync::Arc;
use std::time::Duration;

use flagstate_common::store::read::ReadStore;
use tokio::time::{Instant, sleep_until, timeout};

use super::READ_LIMIT;
use super::present::Present;

/// From one question to the next.
const INTERVAL: Duration = Duration::from_millis(100);

/// After that long without an answer the database counts as lost; the question stays open, for it may be waiting for
/// the second of several servers.
const ANSWER_EXPECTED: Duration = Duration::from_millis(900);

/// Asks for ever.
pub(crate) async fn poll(store: ReadStore, present: Arc<Present>) {
    loop {
        let asked_at = Instant::now();
        let question = store.revision();
        tokio::pin!(question);
        let answer = match timeout(ANSWER_EXPECTED, &mut question).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                present.lose();
                timeout(READ_LIMIT, question).await
            }
        };
        match answer {
            Ok(Ok(revision)) => present.observe(revision, asked_at),
            // Whoever watches readiness says so in the log.
            Ok(Err(_)) | Err(_) => present.lose(),
        }
        sleep_until(asked_at + INTERVAL).await;
    }
}
