//! Whether a process can do its work now: several named conditions, which must all hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Shared by the parts of a process that set conditions and the admin port that reads them.
///
/// Once shutdown is asked for it is not ready any more, whatever the conditions say.
#[derive(Clone, Debug)]
pub struct Readiness {
    shutdown: CancellationToken,
    /// Name → why it does not hold.
    conditions: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One condition; who holds it says whether it is met.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Ready as long as no condition is required and shutdown was not asked for.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            conditions: Arc::default(),
        }
    }

    /// Adds a condition, which is unmet until its holder says otherwise.
    #[must_use]
    pub fn require(&self, name: &'static str) -> Condition {
        let condition = Condition {
            name,
            readiness: self.clone(),
        };
        condition.unmet("not yet");
        condition
    }

    /// Whether everything holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }

    /// Why it is not ready, one text a condition; empty when it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let shutdown = self.shutdown.is_cancelled().then(|| "shutdown: asked for".to_owned());
        let conditions = self.conditions();
        let unmet = conditions
            .iter()
            .filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_ref()?)));
        shutdown.into_iter().chain(unmet).collect()
    }

    fn conditions(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// It holds.
    pub fn met(&self) {
        self.readiness.conditions().insert(self.name, None);
    }

    /// It does not hold; the reason is shown on the admin port, so it must hold no secret.
    pub fn unmet(&self, reason: impl Into<String>) {
        self.readiness.conditions().insert(self.name, Some(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_every_condition() {
        let readiness = Readiness::new(CancellationToken::new());
        assert!(readiness.is_ready());
        let database = readiness.require("database");
        let schema = readiness.require("schema");
        assert_eq!(readiness.reasons(), ["database: not yet", "schema: not yet"]);
        database.met();
        assert!(!readiness.is_ready());
        schema.clone().met();
        assert!(readiness.is_ready());
        database.unmet("connection refused");
        assert_eq!(readiness.reasons(), ["database: connection refused"]);
    }

    #[test]
    fn ends_with_shutdown() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        readiness.require("database").met();
        assert!(readiness.is_ready());
        shutdown.cancel();
        assert_eq!(readiness.reasons(), ["shutdown: asked for"]);
    }
}
