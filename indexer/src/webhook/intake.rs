//! Requests in flight share commits: what arrives while one commit is under way goes into the next.

use std::sync::Arc;

use flagstate_common::store::StoreError;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::store::{Arrival, QueueStore};

/// Requests that may wait for the next commit.
const WAITING_REQUESTS: usize = 4096;
/// Events that go into one commit at most; a single larger request still goes as one.
const EVENTS_PER_COMMIT: usize = 2000;

/// One request's events, and whom to tell that they are committed.
struct Batch {
    arrivals: Vec<Arrival>,
    committed: oneshot::Sender<Result<(), Arc<StoreError>>>,
}

/// Takes events in; cheap to clone.
#[derive(Clone)]
pub struct Intake {
    batches: mpsc::Sender<Batch>,
}

/// Why events were not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The database failed; the requests of one commit share the failure.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The process is about to end.
    #[error("no more events are taken in")]
    Closed,
}

impl Intake {
    /// Starts taking in; `wake` is told after each commit. Ends when the last clone is dropped.
    #[must_use]
    pub fn start(queue: QueueStore, wake: Arc<Notify>) -> Self {
        let (batches, receiver) = mpsc::channel(WAITING_REQUESTS);
        tokio::spawn(commit_all(queue, wake, receiver));
        Self { batches }
    }

    /// Returns when the arrivals are committed.
    ///
    /// # Errors
    /// When they are not: the sender has to send them again.
    pub async fn take(&self, arrivals: Vec<Arrival>) -> Result<(), IntakeError> {
        if arrivals.is_empty() {
            return Ok(());
        }
        let (committed, answer) = oneshot::channel();
        self.batches
            .send(Batch { arrivals, committed })
            .await
            .or(Err(IntakeError::Closed))?;
        answer.await.or(Err(IntakeError::Closed))?.map_err(IntakeError::Store)
    }
}

async fn commit_all(queue: QueueStore, wake: Arc<Notify>, mut receiver: mpsc::Receiver<Batch>) {
    while let Some(first) = receiver.recv().await {
        let mut arrivals = first.arrivals;
        let mut waiting = vec![first.committed];
        while arrivals.len() < EVENTS_PER_COMMIT {
            let Ok(batch) = receiver.try_recv() else { break };
            arrivals.extend(batch.arrivals);
            waiting.push(batch.committed);
        }
        let result = queue.enqueue(&arrivals).await.map_err(Arc::new);
        if let Err(error) = &result {
            tracing::warn!(events.count = arrivals.len(), error = %error, "events were not taken in; they are sent again");
        } else {
            wake.notify_one();
        }
        for committed in waiting {
            // A request that was given up waits no more; its events are committed all the same.
            drop(committed.send(result.clone()));
        }
    }
}
