//! A repository's tags: `GET /v2/<name>/tags/list`.

use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;
use serde::Deserialize;

use super::auth::Access;
use super::client::RegistryClient;
use super::error::RegistryError;
use super::metrics::Operation;
use super::paging::{Document, Page, Pager, list_or_null};

/// A repository's tags, page by page.
#[derive(Debug)]
pub struct TagPages {
    client: RegistryClient,
    pager: Pager,
    dropped: usize,
}

/// What came of asking for a page of tags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TagPage {
    /// Tags that no earlier page had, in the registry's order.
    Page(Vec<Tag>),
    /// There is no further page; [`TagPages::is_complete`] says whether all tags were seen.
    End,
    /// The registry knows no such repository, or no tag in it.
    NotFound,
}

#[derive(Deserialize)]
struct TagList {
    #[serde(deserialize_with = "list_or_null")]
    tags: Vec<String>,
}

impl Document for TagList {
    fn into_entries(self) -> Vec<String> {
        self.tags
    }
}

impl RegistryClient {
    /// The tags of a repository; nothing is sent before the first page is asked for.
    #[must_use]
    pub fn tags(&self, repository: &RepositoryName) -> TagPages {
        let url = self.repository_url(repository, ["tags", "list"]);
        let access = Access::Pull(repository.clone());
        TagPages {
            client: self.clone(),
            pager: Pager::new(self, access, Operation::Tags, url),
            dropped: 0,
        }
    }
}

impl TagPages {
    /// The next page.
    ///
    /// # Errors
    /// When the page cannot be read. There is no further page then.
    pub async fn next(&mut self) -> Result<TagPage, RegistryError> {
        Ok(match self.pager.next::<TagList>().await? {
            Page::Entries(entries) => {
                let (tags, dropped) = self.client.in_grammar(&entries);
                self.dropped += dropped;
                TagPage::Page(tags)
            }
            Page::End => TagPage::End,
            Page::NotFound => TagPage::NotFound,
        })
    }

    /// Whether all tags were seen: only then is what was not seen absent. A list that was not found is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pager.is_complete()
    }

    /// How many tags were left out because they are outside the specification's grammar.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}
