//! Which repositories exist as far as Flagstate is concerned.

use crate::repository_name::RepositoryName;

/// Include and exclude patterns; a repository is indexed when some include matches and no exclude does.
#[derive(Clone, Debug)]
pub struct RepositoryFilter;

impl RepositoryFilter {
    /// Whether the repository is indexed and shown.
    #[must_use]
    pub fn allows(&self, _name: &RepositoryName) -> bool {
        true
    }

    /// The names under `include` that hold no wildcard: what is scanned without a catalog.
    #[must_use]
    pub fn literal_names(&self) -> Vec<RepositoryName> {
        Vec::new()
    }
}
