//! Collecting what nothing needs, from the index only, every `interval.garbage_collect` and when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::IndexerMetrics;
use crate::store::{RequestKind, RequestStore, Swept, Window, WriteError, WriteStore};

/// How often requests for collections are looked for.
const REQUEST_POLL: Duration = Duration::from_secs(1);
/// How long to wait after a collection that the database broke off.
const RETRY: Duration = Duration::from_secs(60);

/// Collects.
#[derive(Clone)]
pub struct Collector {
    store: WriteStore,
    keep: Duration,
    metrics: Arc<IndexerMetrics>,
}

impl Collector {
    /// A collector that leaves what ended within the last `keep`.
    #[must_use]
    pub fn new(store: WriteStore, keep: Duration, metrics: Arc<IndexerMetrics>) -> Self {
        Self { store, keep, metrics }
    }

    /// Collects at every `interval`, and when somebody asks, until cancelled.
    ///
    /// # Errors
    /// When this process is no longer the writer.
    pub async fn run(
        &self,
        requests: &RequestStore,
        interval: Option<Duration>,
        cancel: &CancellationToken,
    ) -> Result<(), WriteError> {
        let mut due = interval.map(|interval| Instant::now() + interval);
        loop {
            tokio::select! {
                () = sleep(REQUEST_POLL) => {}
                () = cancel.cancelled() => return Ok(()),
            }
            let asked = requests.take_up(RequestKind::Gc).await.unwrap_or_else(|error| {
                tracing::warn!(error = %error, "requests for collections cannot be read");
                Vec::new()
            });
            if asked.is_empty() && due.is_none_or(|due| due > Instant::now()) {
                continue;
            }
            let outcome = tokio::select! {
                swept = self.collect() => match swept {
                    Ok(swept) => {
                        due = interval.map(|interval| Instant::now() + interval);
                        sentence(&swept)
                    }
                    Err(error @ WriteError::Fenced { .. }) => return Err(error),
                    Err(error) => {
                        tracing::warn!(error = %error, "the collection broke off; it is tried again");
                        due = interval.map(|interval| Instant::now() + interval.min(RETRY));
                        format!("it broke off: {error}")
                    }
                },
                () = cancel.cancelled() => return Ok(()),
            };
            if !asked.is_empty()
                && let Err(error) = requests.finish(&asked, &outcome).await
            {
                tracing::warn!(error = %error, "the answer to a request for a collection could not be written");
            }
        }
    }

    /// One collection: the history, then what repositories hold, then manifests, then documents, in small transactions.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors; what was removed until then stays removed, and nothing else is amiss.
    pub async fn collect(&self) -> Result<Swept, WriteError> {
        let began = Instant::now();
        let mut swept = Swept::default();
        self.store.forget_before(self.keep).await?;
        loop {
            match self.store.sweep_history().await? {
                0 => break,
                tags => swept.tags += tags,
            }
        }
        // What is no longer held may have been all that needed something else.
        loop {
            let before = swept.held;
            let mut window = Some(Window::START);
            while let Some(from) = window {
                let (removed, next) = self.store.sweep_held(&from).await?;
                swept.held += removed;
                window = next;
            }
            if swept.held == before {
                break;
            }
        }
        let mut after = Some(0);
        while let Some(from) = after {
            let (removed, next) = self.store.sweep_manifests(from).await?;
            swept.manifests += removed;
            after = next;
        }
        let mut after = Some(Vec::new());
        while let Some(from) = after {
            let (removed, next) = self.store.sweep_documents(&from).await?;
            swept.documents += removed;
            after = next;
        }
        self.metrics.observe_collection(&swept, began.elapsed());
        tracing::info!(
            gc.tags = swept.tags,
            gc.held = swept.held,
            gc.manifests = swept.manifests,
            gc.documents = swept.documents,
            gc.seconds = began.elapsed().as_secs_f64(),
            "collected"
        );
        Ok(swept)
    }
}

/// What a collection did, for people.
#[must_use]
pub fn sentence(swept: &Swept) -> String {
    let Swept {
        tags,
        held,
        manifests,
        documents,
    } = swept;
    format!(
        "removed {manifests} manifests and {documents} documents that nothing needs, {held} places and {tags} entries of history"
    )
}
