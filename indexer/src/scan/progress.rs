//! How far the running full scan is: for logs, metrics, the lease's heartbeat and the terminal.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

use crate::store::ScanProgress;

/// Shared by the scan, which counts, and everybody who tells.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    known: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
}

impl Progress {
    /// Nothing scanned by this process; `completed_at` is when the last complete scan by any ended.
    #[must_use]
    pub fn new(completed_at: Option<DateTime<Utc>>) -> Self {
        let progress = Self::default();
        progress.times().completed_at = completed_at;
        progress
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full scan begins.
    pub fn start(&self) {
        self.done.store(0, Ordering::Relaxed);
        self.known.store(0, Ordering::Relaxed);
        self.times().started_at = Some(Utc::now());
    }

    /// The scan came to know of more repositories.
    pub fn add_known(&self, repositories: usize) {
        self.known.fetch_add(repositories as u64, Ordering::Relaxed);
    }

    /// The scan is done with one repository.
    pub fn add_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// A full scan that saw the whole catalog ended.
    pub fn complete(&self) {
        self.times().completed_at = Some(Utc::now());
    }

    /// The present state.
    #[must_use]
    pub fn snapshot(&self) -> ScanProgress {
        let times = self.times();
        ScanProgress {
            started_at: times.started_at,
            completed_at: times.completed_at,
            done: self.done.load(Ordering::Relaxed),
            known: self.known.load(Ordering::Relaxed),
        }
    }
}
