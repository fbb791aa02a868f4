//! Looking at the registry: requests only, no transaction is open meanwhile.
//!
//! Tags of a repository that was never seen are read by GET, so that one request brings tag and manifest; after that a
//! HEAD tells whether a tag moved. Manifests are asked for only when they are not known, configs once for each digest.

mod gather;
mod hinted;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use flagstate_common::config::Limits;
use flagstate_common::digest::Digest;
use flagstate_common::error_chain::Chain;
use flagstate_common::reference::Reference;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::store::StoreError;
use flagstate_common::tag::Tag;
use futures::{StreamExt as _, stream};
use thiserror::Error;

use super::flights::{Flights, Held};
use super::observation::{Listing, Observation, SeenTag, StoredManifest, StoredRepository};
use crate::metrics::IndexerMetrics;
use crate::registry::{FetchedManifest, RegistryClient, RegistryError, TagPage};
use crate::store::{WriteError, WriteStore};

/// Requests that one repository has in flight at most: half of the client's lowest level, so that one that hangs leaves
/// room for others.
const REQUESTS_PER_REPOSITORY: usize = 4;
/// Tags that are read before what they lead to is followed: a first look holds the manifests of so many.
const TAGS_AT_ONCE: usize = 100;
/// Failures in a row after which a repository is left alone for now.
const FAILURES_IN_A_ROW: usize = 8;
/// Bytes of new content that are stored ahead of the change set that will lead to them.
const STAGE_BYTES: usize = 4 * 1024 * 1024;

/// Why a repository could not be looked at as a whole.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The registry.
    #[error("the registry: {0}")]
    Registry(#[from] RegistryError),
    /// The index, which tells what is known.
    #[error("the index: {0}")]
    Store(#[from] StoreError),
    /// Content could not be stored ahead.
    #[error("the index: {0}")]
    Stage(#[from] WriteError),
    /// Some of it could not be read; the rest was written.
    #[error("{failures} reads failed, the last with: {last}")]
    Incomplete {
        /// How many.
        failures: usize,
        /// The last one.
        last: String,
    },
}

/// Looks at repositories.
#[derive(Clone)]
pub struct Observer {
    client: RegistryClient,
    limits: Arc<Limits>,
    metrics: Arc<IndexerMetrics>,
    manifests: Arc<Flights<FetchedManifest>>,
    configs: Arc<Flights<Bytes>>,
}

/// What one look brought, and what a plan needs beside it.
pub struct Observed {
    /// What was seen.
    pub seen: Observation,
    /// What is stored of the manifests in question.
    pub stored: HashMap<Digest, StoredManifest>,
    /// Content that other scans may share until it is stored.
    held: Vec<Share>,
}

/// Keeps content shared between scans.
enum Share {
    Manifest(#[expect(dead_code, reason = "kept for its being alive")] Held<FetchedManifest>),
    Config(#[expect(dead_code, reason = "kept for its being alive")] Held<Bytes>),
}

impl Observed {
    /// Forgets that tags point at these digests, which nobody asked for: the tags stay as they are stored.
    fn leave_out<'a>(&mut self, digests: impl Iterator<Item = &'a Digest>) {
        let digests: HashSet<&Digest> = digests.collect();
        self.seen
            .tags
            .retain(|_, tag| !matches!(tag, SeenTag::At(digest) if digests.contains(digest)));
        self.seen.held.retain(|digest| !digests.contains(digest));
    }

    fn new(listing: Listing) -> Self {
        Self {
            seen: Observation::empty(listing),
            stored: HashMap::new(),
            held: Vec::new(),
        }
    }
}

/// How reading one tag went.
enum TagRead {
    At(Digest, Option<FetchedManifest>),
    Missing,
    Failed(RegistryError),
}

impl Observer {
    /// Looks through `client`.
    #[must_use]
    pub fn new(client: RegistryClient, limits: Limits, metrics: Arc<IndexerMetrics>) -> Self {
        Self {
            client,
            limits: Arc::new(limits),
            metrics,
            manifests: Arc::default(),
            configs: Arc::default(),
        }
    }

    /// The client that this one looks through.
    #[must_use]
    pub fn client(&self) -> &RegistryClient {
        &self.client
    }

    /// Whether the registry's catalog names any repository: one whose storage was lost answers, and names none.
    pub async fn finds_something(&self) -> bool {
        match self.client.catalog().next().await {
            Ok(page) => page.is_some_and(|names| !names.is_empty()),
            Err(_) => false,
        }
    }

    /// Looks at all tags of a repository. New content is stored as it comes, so that memory does not grow with it.
    ///
    /// # Errors
    /// When the tags cannot be listed, or too much of them cannot be read.
    pub async fn whole(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        stored: &StoredRepository,
    ) -> Result<Observed, ObserveError> {
        let mut observed = Observed::new(Listing::Incomplete);
        let mut listed = HashSet::new();
        let mut pages = self.client.tags(repository);
        loop {
            match pages.next().await {
                Ok(TagPage::Page(tags)) => {
                    if !self.read_tags(store, repository, stored, &tags, &mut observed).await? {
                        return Ok(observed);
                    }
                    listed.extend(tags);
                }
                Ok(TagPage::End) => break,
                Ok(TagPage::NotFound) => {
                    observed.seen.listing = Listing::NotFound;
                    return Ok(observed);
                }
                Err(error) if listed.is_empty() => return Err(error.into()),
                Err(error) => {
                    observed.seen.failures.push(format!("listing tags: {}", Chain(&error)));
                    return Ok(observed);
                }
            }
        }
        if pages.is_complete() {
            observed.seen.listing = Listing::Complete(listed);
        } else {
            observed
                .seen
                .failures
                .push("the list of tags looped or broke off".to_owned());
        }
        Ok(observed)
    }

    /// Reads tags, and everything new that they lead to; `false` when so many failed in a row that the rest is left for
    /// later.
    async fn read_tags(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        stored: &StoredRepository,
        tags: &[Tag],
        observed: &mut Observed,
    ) -> Result<bool, ObserveError> {
        for tags in tags.chunks(TAGS_AT_ONCE) {
            let mut reads = stream::iter(tags.iter().cloned())
                .map(|tag| async {
                    let read = self.read_tag(repository, &tag, stored.is_known).await;
                    (tag, read)
                })
                .buffer_unordered(REQUESTS_PER_REPOSITORY);
            let mut bodies: BTreeMap<Digest, Option<FetchedManifest>> = BTreeMap::new();
            let mut failures = 0;
            while failures < FAILURES_IN_A_ROW
                && let Some((tag, read)) = reads.next().await
            {
                match read {
                    TagRead::At(digest, body) => {
                        failures = 0;
                        let known = stored.tags.get(&tag);
                        if !known.is_some_and(|known| known.digest == digest && !known.healable) {
                            let known = bodies.entry(digest.clone()).or_default();
                            *known = known.take().or(body);
                        }
                        observed.seen.tags.insert(tag, SeenTag::At(digest));
                    }
                    // Listed and not there: removed meanwhile, or a fault. The next listing decides.
                    TagRead::Missing => failures = 0,
                    TagRead::Failed(error) => {
                        failures += 1;
                        observed.seen.failures.push(format!("tag {tag}: {}", Chain(&error)));
                    }
                }
            }
            drop(reads);
            self.gather(store, repository, bodies, observed).await?;
            if failures >= FAILURES_IN_A_ROW {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn read_tag(&self, repository: &RepositoryName, tag: &Tag, by_head: bool) -> TagRead {
        let reference = Reference::from(tag.clone());
        if !by_head {
            match self.client.get_manifest(repository, &reference).await {
                Ok(Some(manifest)) => return TagRead::At(manifest.digest.clone(), Some(manifest)),
                Ok(None) => return TagRead::Missing,
                Err(error) if error.is_retryable() && !matches!(error, RegistryError::DigestMismatch { .. }) => {
                    return TagRead::Failed(error);
                }
                // Something is wrong with the body; HEAD tells which digest the problem belongs to.
                Err(_) => {}
            }
        }
        match self.client.head_manifest(repository, &reference).await {
            Ok(Some(head)) => match head.digest {
                Some(digest) => TagRead::At(digest, None),
                None => match self.client.get_manifest(repository, &reference).await {
                    Ok(Some(manifest)) => TagRead::At(manifest.digest.clone(), Some(manifest)),
                    Ok(None) => TagRead::Missing,
                    Err(error) => TagRead::Failed(error),
                },
            },
            Ok(None) => TagRead::Missing,
            Err(error) => TagRead::Failed(error),
        }
    }

    /// Stores new content when there is much of it, and lets go of its bytes.
    async fn stage(&self, store: &WriteStore, observed: &mut Observed) -> Result<(), ObserveError> {
        let seen = &mut observed.seen;
        let size: usize = seen.manifests.iter().map(|manifest| manifest.size()).sum();
        if size < STAGE_BYTES {
            return Ok(());
        }
        // What is stored in any form may be visible, so it waits for its revision.
        let is_new =
            |manifest: &Arc<super::manifest::ObservedManifest>| !observed.stored.contains_key(&manifest.digest);
        let (new, known): (Vec<_>, Vec<_>) = std::mem::take(&mut seen.manifests).into_iter().partition(is_new);
        store.stage(&new).await?;
        seen.manifests = known;
        observed.held.clear();
        Ok(())
    }
}
