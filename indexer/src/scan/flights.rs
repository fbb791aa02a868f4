//! Content that is being fetched, or was fetched and is not stored yet, shared between scans that run at once.
//!
//! Repositories often hold the same manifests and configs. While one scan holds a digest, another that needs it waits
//! for it instead of asking the registry a second time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flagstate_common::digest::Digest;
use tokio::sync::OnceCell;

/// Below this number of entries nothing is forgotten early.
const SWEEP_FROM: usize = 1024;

/// What some scan holds; the value stays shared as long as this is kept.
pub type Held<T> = Arc<OnceCell<T>>;

/// Values by digest that some scan holds.
#[derive(Debug)]
pub struct Flights<T> {
    entries: Mutex<Entries<T>>,
}

#[derive(Debug)]
struct Entries<T> {
    cells: HashMap<Digest, Weak<OnceCell<T>>>,
    sweep_at: usize,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            entries: Mutex::new(Entries {
                cells: HashMap::new(),
                sweep_at: SWEEP_FROM,
            }),
        }
    }
}

impl<T: Clone> Flights<T> {
    /// The value of `digest`, fetched unless some scan holds it; a failed fetch is not shared.
    ///
    /// # Errors
    /// What `fetch` returns.
    pub async fn get<E>(&self, digest: &Digest, fetch: impl Future<Output = Result<T, E>>) -> Result<(T, Held<T>), E> {
        let cell = self.cell(digest);
        let value = cell.get_or_try_init(|| fetch).await?.clone();
        Ok((value, cell))
    }

    fn cell(&self, digest: &Digest) -> Held<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = entries.cells.get(digest).and_then(Weak::upgrade) {
            return cell;
        }
        if entries.cells.len() >= entries.sweep_at {
            entries.cells.retain(|_, cell| cell.strong_count() > 0);
            entries.sweep_at = SWEEP_FROM.max(2 * entries.cells.len());
        }
        let cell = Arc::default();
        entries.cells.insert(digest.clone(), Arc::downgrade(&cell));
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_fetched_once_while_somebody_holds_it() {
        let flights = Flights::default();
        let digest = Digest::of(b"a");
        let one = flights.get::<()>(&digest, async { Ok(1) });
        let two = flights.get::<()>(&digest, async { Ok(2) });
        let ((first, held), (second, _)) = tokio::try_join!(one, two).expect("fetched");
        assert_eq!((first, second), (1, 1));
        drop(held);
        assert_eq!(flights.get::<()>(&digest, async { Ok(3) }).await.expect("fetched").0, 3);
    }

    #[tokio::test]
    async fn a_failure_is_not_shared() {
        let flights = Flights::default();
        let digest = Digest::of(b"a");
        assert_eq!(flights.get(&digest, async { Err("down") }).await.err(), Some("down"));
        assert_eq!(flights.get::<()>(&digest, async { Ok(2) }).await.expect("fetched").0, 2);
    }

    #[tokio::test]
    async fn what_nobody_holds_is_forgotten() {
        let flights = Flights::default();
        for number in 0..10_000_u32 {
            flights
                .get::<()>(&Digest::of(&number.to_be_bytes()), async { Ok(()) })
                .await
                .expect("fetched");
        }
        assert!(flights.entries.lock().expect("not poisoned").cells.len() <= 2 * SWEEP_FROM);
    }
}
