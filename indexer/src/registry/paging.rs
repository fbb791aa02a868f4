//! What the catalog and a repository's tags have in common: a list in pages, from a peer that may never end it.
//!
//! The distribution specification orders pages by `Link` headers. A list is complete only when a page without one
//! was read; every link must lead, on the registry's own origin, to a page with new entries. What cannot be
//! followed so ends the list and leaves it *incomplete*, and nobody may conclude that what it lacks is gone.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::warn;
use url::Url;

use super::auth::Access;
use super::client::RegistryClient;
use super::error::{BadBody, RegistryError};
use super::exchange::{Answer, Request};
use super::link;
use super::metrics::Operation;

/// Entries asked for on a page; what the reference implementation allows at most.
pub(super) const FIRST_PAGE_SIZE: usize = 1_000;

/// Entries asked for where that is refused.
const SMALLER_PAGE_SIZE: usize = 100;

/// Bytes of one page: registries that do not page send all at once.
const PAGE: u64 = 16 * 1024 * 1024;

/// Pages and entries of one list, far beyond any registry known.
const MAX_PAGES: usize = 20_000;
const MAX_ENTRIES: usize = 5_000_000;

/// Why a list has no end that can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Incomplete {
    /// Not read to its end yet.
    Unfinished,
    /// A page could not be read.
    Failed,
    /// A link leads to a page that was read, or a page that promises more brought nothing new.
    Loop,
    /// A link leads to another origin, or is no URL.
    ForeignLink,
    /// More pages or entries than any list has.
    TooLong,
}

/// A list that is being read.
#[derive(Debug)]
pub(super) struct Pager {
    client: RegistryClient,
    access: Access,
    operation: Operation,
    next: Option<Url>,
    /// Hashes of links followed and entries seen: what was there before is told from what is new without keeping it.
    links: HashSet<u64>,
    entries: HashSet<u64>,
    hasher: RandomState,
    incomplete: Option<Incomplete>,
}

/// What came of asking for a page.
pub(super) enum Page {
    /// Its entries as written, without those of earlier pages.
    Entries(Vec<String>),
    /// There is no further page.
    End,
    /// The list does not exist.
    NotFound,
}

/// The two documents, which differ in one key.
pub(super) trait Document: DeserializeOwned {
    fn into_entries(self) -> Vec<String>;
}

impl Pager {
    pub(super) fn new(client: &RegistryClient, access: Access, operation: Operation, url: Url) -> Self {
        Self {
            client: client.clone(),
            access,
            operation,
            next: Some(url),
            links: HashSet::new(),
            entries: HashSet::new(),
            hasher: RandomState::new(),
            incomplete: Some(Incomplete::Unfinished),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.incomplete.is_none()
    }

    /// The list is not what it seemed to be.
    pub(super) fn fail(&mut self) {
        self.incomplete = Some(Incomplete::Failed);
    }

    /// Reads the next page. After an error or an end there is none.
    pub(super) async fn next<D: Document>(&mut self) -> Result<Page, RegistryError> {
        let Some(url) = self.next.take() else {
            return Ok(Page::End);
        };
        let is_first = self.links.is_empty();
        let answer = match self.read(url, is_first).await {
            Ok(answer) => answer,
            Err(error) => {
                self.incomplete = Some(Incomplete::Failed);
                return Err(error);
            }
        };
        if is_first && answer.is_absence() {
            self.incomplete = None;
            return Ok(Page::NotFound);
        }
        let (from, link) = (answer.url.clone(), link::next(&answer.headers).map(str::to_owned));
        let entries = match parse::<D>(answer) {
            Ok(entries) => self.only_new(entries),
            Err(error) => {
                self.incomplete = Some(Incomplete::Failed);
                return Err(error);
            }
        };
        match self.follow(&from, link.as_deref(), !entries.is_empty()) {
            Ok(next) => {
                self.incomplete = next.as_ref().map(|_| Incomplete::Unfinished);
                self.next = next;
            }
            Err(incomplete) => {
                warn!(list = ?self.access, reason = ?incomplete, "the registry's list has no end that can be trusted");
                self.incomplete = Some(incomplete);
            }
        }
        Ok(Page::Entries(entries))
    }

    /// Asks for a page; for a smaller one if the registry refuses the size of the first.
    async fn read(&mut self, url: Url, is_first: bool) -> Result<Answer, RegistryError> {
        self.links.insert(self.hasher.hash_one(url.as_str()));
        if !is_first {
            return self.get(url).await;
        }
        let size = self.client.page_size();
        let answer = self.get(with_size(&url, size)).await?;
        let is_refused = answer.status == StatusCode::BAD_REQUEST
            && size > SMALLER_PAGE_SIZE
            && answer.has_error_code("PAGINATION_NUMBER_INVALID");
        if !is_refused {
            return Ok(answer);
        }
        let page_size = &self.client.shared.page_size;
        page_size.store(SMALLER_PAGE_SIZE, Ordering::Relaxed);
        self.get(with_size(&url, SMALLER_PAGE_SIZE)).await
    }

    async fn get(&self, url: Url) -> Result<Answer, RegistryError> {
        let request = Request {
            operation: self.operation,
            method: Method::GET,
            url,
            accept: "application/json",
            redirects: self.client.shared.exchange.limits.registry_redirects,
            limit: PAGE,
        };
        let accept = |answer: Answer| match answer.status {
            StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Ok(answer),
            _ => Err(answer.error()),
        };
        self.client.call(&self.access, &request, accept).await
    }

    fn only_new(&mut self, mut entries: Vec<String>) -> Vec<String> {
        entries.retain(|entry| self.entries.insert(self.hasher.hash_one(entry.as_str())));
        entries
    }

    /// Where a page's link leads: `None` at the end of the list.
    fn follow(&mut self, from: &Url, link: Option<&str>, has_new: bool) -> Result<Option<Url>, Incomplete> {
        let Some(link) = link else {
            return Ok(None);
        };
        let next = from.join(link).or(Err(Incomplete::ForeignLink))?;
        if !self.client.shared.exchange.transport.is_registry(&next) {
            return Err(Incomplete::ForeignLink);
        }
        if !has_new || self.links.contains(&self.hasher.hash_one(next.as_str())) {
            return Err(Incomplete::Loop);
        }
        if self.links.len() >= MAX_PAGES || self.entries.len() >= MAX_ENTRIES {
            return Err(Incomplete::TooLong);
        }
        Ok(Some(next))
    }
}

fn with_size(url: &Url, size: usize) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().append_pair("n", &size.to_string());
    url
}

fn parse<D: Document>(answer: Answer) -> Result<Vec<String>, RegistryError> {
    let body = answer.into_body(PAGE)?;
    let document: D = serde_json::from_slice(&body).or(Err(BadBody::NotJson))?;
    Ok(document.into_entries())
}

/// `null` is how the reference implementation writes an empty list; a missing key is no list at all.
pub(super) fn list_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
