//! Who may work for a new answer now: the bound that keeps costly queries away from everything else.
//!
//! A turn is held from before the read until the answer is made, so it bounds connections, memory and CPU at once.
//! There are fewer turns than database connections: the poll of the revision always finds one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::ApiError;

/// Connections of the pool that are never used for answers.
const RESERVED_CONNECTIONS: usize = 1;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_millis(500);

/// The turns of one process; cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    /// As many as a pool of that many connections allows; at least one.
    pub(crate) fn for_pool(connections: usize) -> Self {
        let turns = connections.saturating_sub(RESERVED_CONNECTIONS).max(1);
        Self(Arc::new(Semaphore::new(turns)))
    }

    /// A turn, over when it is dropped.
    ///
    /// # Errors
    /// [`ApiError::Busy`] when none became free in time.
    pub(crate) async fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        match timeout(PATIENCE, self.0.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(ApiError::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_fewer_turns_than_connections_but_one() {
        for (connections, expected) in [(1, 1), (2, 1), (8, 7)] {
            let turns = Turns::for_pool(connections);
            let mut taken = Vec::new();
            while let Ok(turn) = turns.take().await {
                taken.push(turn);
            }
            assert_eq!(taken.len(), expected, "{connections} connections");
            taken.pop();
            assert!(turns.take().await.is_ok());
        }
    }
}
