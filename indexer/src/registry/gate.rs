//! The gate that lets as many requests through at once as the [`Level`] says, first come, first served.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::concurrency::Level;

/// Counts requests in flight against a moving ceiling.
#[derive(Debug)]
pub(super) struct Gate {
    semaphore: Arc<Semaphore>,
    state: Mutex<State>,
    level_changed: LevelGauge,
}

/// Where the level is shown.
pub(super) type LevelGauge = prometheus::IntGauge;

#[derive(Debug)]
struct State {
    level: Level,
    /// Permits in existence, in use or not; follows the level, downwards as they come back.
    permits: usize,
}

/// One request's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    pub(super) fn new(ceiling: usize, level_changed: LevelGauge) -> Arc<Self> {
        let level = Level::new(ceiling);
        let permits = level.current();
        level_changed.set(permits as i64);
        Arc::new(Self {
            semaphore: Arc::new(Semaphore::new(permits)),
            state: Mutex::new(State { level, permits }),
            level_changed,
        })
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Slot {
        // The semaphore is never closed; were it, nobody could be kept out.
        let permit = Arc::clone(&self.semaphore).acquire_owned().await.ok();
        Slot {
            gate: Arc::clone(self),
            permit,
        }
    }

    /// Makes the permits follow the level as far as they are not in use.
    fn adjust(&self, state: &mut State) {
        let wanted = state.level.current();
        self.level_changed.set(wanted as i64);
        if wanted > state.permits {
            self.semaphore.add_permits(wanted - state.permits);
            state.permits = wanted;
        } else {
            let surplus = state.permits - wanted;
            state.permits -= self.semaphore.forget_permits(surplus);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The registry answered, with whatever status.
    pub(super) fn answered(&self) {
        let is_full = self.gate.semaphore.available_permits() == 0;
        let mut state = self.gate.lock();
        state.level.answered(Instant::now(), is_full);
        self.gate.adjust(&mut state);
    }

    /// The request that was sent at `sent` met a sign of overload.
    pub(super) fn overloaded(&self, sent: Instant) {
        let mut state = self.gate.lock();
        state.level.overloaded(sent, Instant::now());
        self.gate.adjust(&mut state);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        drop(self.permit.take());
        self.gate.adjust(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(ceiling: usize) -> Arc<Gate> {
        let gauge = LevelGauge::new("level", "level").expect("valid");
        Gate::new(ceiling, gauge)
    }

    #[tokio::test]
    async fn lets_no_more_through_than_the_level() {
        let gate = gate(2);
        let first = gate.enter().await;
        let second = gate.enter().await;
        let mut third = Box::pin(gate.enter());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        assert!(futures::poll!(&mut third).is_ready());
        drop(second);
    }

    #[tokio::test]
    async fn shrinks_as_places_come_back() {
        let gate = gate(4);
        let mut slots = Vec::new();
        for _ in 0..4 {
            slots.push(gate.enter().await);
        }
        slots[0].overloaded(Instant::now());
        assert_eq!(gate.level_changed.get(), 2);
        slots.truncate(2);
        let mut next = Box::pin(gate.enter());
        assert!(futures::poll!(&mut next).is_pending());
        slots.truncate(1);
        assert!(futures::poll!(&mut next).is_ready());
        drop(slots);
        assert_eq!(gate.semaphore.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_cancelled_wait_costs_no_place() {
        let gate = gate(1);
        let slot = gate.enter().await;
        let mut waiting = Box::pin(gate.enter());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        drop(slot);
        assert!(futures::poll!(Box::pin(gate.enter())).is_ready());
    }
}
