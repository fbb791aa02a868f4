//! The registry's repositories: `GET /v2/_catalog`.

use flagstate_common::repository_name::RepositoryName;
use serde::Deserialize;

use super::auth::Access;
use super::client::RegistryClient;
use super::error::RegistryError;
use super::metrics::Operation;
use super::paging::{Document, Page, Pager, list_or_null};

/// The catalog, page by page.
#[derive(Debug)]
pub struct CatalogPages {
    client: RegistryClient,
    pager: Pager,
    dropped: usize,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(deserialize_with = "list_or_null")]
    repositories: Vec<String>,
}

impl Document for Catalog {
    fn into_entries(self) -> Vec<String> {
        self.repositories
    }
}

impl RegistryClient {
    /// The names of all repositories; nothing is sent before the first page is asked for.
    #[must_use]
    pub fn catalog(&self) -> CatalogPages {
        let url = self.url(["_catalog"]);
        CatalogPages {
            client: self.clone(),
            pager: Pager::new(self, Access::Catalog, Operation::Catalog, url),
            dropped: 0,
        }
    }
}

impl CatalogPages {
    /// The next page's names that no earlier page had; `None` at the end, which [`Self::is_complete`] judges.
    ///
    /// # Errors
    /// When the page cannot be read. There is no further page then.
    pub async fn next(&mut self) -> Result<Option<Vec<RepositoryName>>, RegistryError> {
        match self.pager.next::<Catalog>().await? {
            Page::Entries(entries) => {
                let (names, dropped) = self.client.in_grammar(&entries);
                self.dropped += dropped;
                Ok(Some(names))
            }
            Page::End => Ok(None),
            // A registry without a catalog is not an empty registry.
            Page::NotFound => {
                self.pager.fail();
                Err(RegistryError::Status { status: 404 })
            }
        }
    }

    /// Whether all names were seen: only then is what was not seen absent.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pager.is_complete()
    }

    /// How many names were left out because they are outside the specification's grammar.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}
