//! Values that must not be printed.

use std::fmt;
use std::sync::Arc;

/// A secret given as a value or as a file; it cannot be printed.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// A secret that is known already.
    #[must_use]
    pub fn from_value(value: &str) -> Self {
        Self(value.into())
    }

    /// The secret's present value.
    #[must_use]
    pub fn expose(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}
