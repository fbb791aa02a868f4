//! The same work for many is done once: whoever comes while it is under way waits for its outcome.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use crate::error::ApiError;

/// Gives all who wait the same outcome.
type Flight<T> = Shared<BoxFuture<'static, Result<T, Arc<ApiError>>>>;

/// Work under way, by what it is for.
pub(super) struct SingleFlight<T>(Arc<Mutex<HashMap<String, Flight<T>>>>);

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Joins the work for this key, or begins it.
    ///
    /// It runs to its end in a task of its own, also when everybody who waited is gone. A panic in it is an error, and
    /// ends it like any other.
    pub(super) fn join<W>(&self, key: &str, work: impl FnOnce() -> W) -> Flight<T>
    where
        W: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        match lock(&self.0).entry(key.to_owned()) {
            Entry::Occupied(flight) => flight.get().clone(),
            Entry::Vacant(place) => {
                let landing = Landing {
                    flights: self.0.clone(),
                    key: key.to_owned(),
                };
                let work = work();
                let task = tokio::spawn(async move {
                    let _landing = landing;
                    work.await
                });
                let flight = task.map(|ended| ended.map_err(ApiError::from).flatten().map_err(Arc::new));
                place.insert(flight.boxed().shared()).clone()
            }
        }
    }
}

/// Makes room for the next flight, however this one ends.
struct Landing<T> {
    flights: Arc<Mutex<HashMap<String, Flight<T>>>>,
    key: String,
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        let flight = lock(&self.flights).remove(&self.key);
        // Outside the lock: dropping the last handle of a flight runs code of others.
        drop(flight);
    }
}

fn lock<T>(flights: &Mutex<HashMap<String, Flight<T>>>) -> MutexGuard<'_, HashMap<String, Flight<T>>> {
    flights.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::yield_now;

    #[tokio::test]
    async fn many_get_what_is_done_once_and_the_next_begin_anew() {
        let flights = SingleFlight::new();
        let begun = Arc::new(AtomicUsize::new(0));
        let work = || {
            let begun = begun.clone();
            async move {
                yield_now().await;
                Ok(begun.fetch_add(1, Ordering::Relaxed))
            }
        };
        for round in 0..3 {
            let waiting: Vec<_> = (0..1000).map(|_| flights.join("key", work)).collect();
            for outcome in futures::future::join_all(waiting).await {
                assert_eq!(outcome.expect("done"), round);
            }
        }
        let (one, other) = tokio::join!(flights.join("key", work), flights.join("other key", work));
        assert_ne!(one.expect("done"), other.expect("done"));
        assert!(lock(&flights.0).is_empty());
    }

    #[tokio::test]
    async fn errors_and_panics_reach_all_who_wait_and_nobody_else() {
        let flights = SingleFlight::new();
        let fails = || async {
            yield_now().await;
            Err(ApiError::Busy)
        };
        let (one, other) = tokio::join!(flights.join("key", fails), flights.join("key", fails));
        for outcome in [one, other] {
            assert!(matches!(outcome, Err(error) if matches!(*error, ApiError::Busy)));
        }
        let outcome = flights.join("key", || async { panic!("in the work") }).await;
        assert!(matches!(outcome, Err(error) if matches!(*error, ApiError::Panicked(_))));
        assert_eq!(flights.join("key", || async { Ok(1) }).await.expect("done"), 1);
    }

    #[tokio::test]
    async fn the_work_ends_even_if_nobody_waits() {
        let flights = SingleFlight::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        drop(flights.join("key", || async move {
            yield_now().await;
            tell.send("done".to_owned()).map_err(|_nobody| ApiError::Busy)
        }));
        assert_eq!(told.await.as_deref(), Ok("done"));
    }
}
