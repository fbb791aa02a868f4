//! Everything that a digest leads to: the manifest, its members level by level, and their configs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use flagstate_common::digest::Digest;
use flagstate_common::document::{Problem, ProblemCode, parse_config};
use flagstate_common::media_type::ManifestKind;
use flagstate_common::reference::Reference;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::store::StoreError;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::super::manifest::{ObservedManifest, config_too_large};
use super::super::observation::StoredManifest;
use super::{FAILURES_IN_A_ROW, ObserveError, Observed, Observer, REQUESTS_PER_REPOSITORY, Share};
use crate::registry::{FetchedManifest, RegistryError};
use crate::store::WriteStore;

/// Bytes of manifests and configs that one tag may bring in.
const BYTES_PER_TAG: usize = 64 * 1024 * 1024;

/// What one digest led to.
#[derive(Default)]
struct Gathered {
    manifests: BTreeMap<Digest, ObservedManifest>,
    stored: HashMap<Digest, StoredManifest>,
    held: BTreeSet<Digest>,
    shares: Vec<Share>,
    failures: Vec<String>,
    budget: Budget,
}

/// How much has been asked for on behalf of one tag.
#[derive(Default)]
struct Budget {
    fetches: usize,
    bytes: usize,
}

/// A fetch that brought no content.
enum NotFetched {
    Missing,
    Failed(RegistryError),
}

impl Observer {
    /// Reads what `digests` lead to, as far as it is not known, and records that the repository holds it.
    pub(super) async fn gather(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        digests: BTreeMap<Digest, Option<FetchedManifest>>,
        observed: &mut Observed,
    ) -> Result<(), ObserveError> {
        let names: Vec<Digest> = digests.keys().cloned().collect();
        let stored = store.manifests(repository, &names).await?;
        let is_settled = |digest: &Digest| stored.get(digest).is_some_and(StoredManifest::is_settled);
        let unsettled: Vec<_> = digests.into_iter().filter(|(digest, _)| !is_settled(digest)).collect();
        observed.seen.held.extend(names);
        observed.stored.extend(stored);
        let mut gathered = stream::iter(unsettled)
            .map(|(digest, body)| self.gather_one(store, repository, digest, body))
            .buffer_unordered(REQUESTS_PER_REPOSITORY);
        let mut failures_in_a_row = 0;
        while let Some(one) = gathered.try_next().await? {
            failures_in_a_row = if one.failures.is_empty() {
                0
            } else {
                failures_in_a_row + 1
            };
            if let (Some(last), FAILURES_IN_A_ROW) = (one.failures.last(), failures_in_a_row) {
                return Err(ObserveError::TooManyFailures {
                    failures: failures_in_a_row,
                    last: last.clone(),
                });
            }
            observed
                .seen
                .manifests
                .extend(one.manifests.into_values().map(Arc::new));
            observed.seen.held.extend(one.held);
            observed.seen.failures.extend(one.failures);
            observed.stored.extend(one.stored);
            observed.held.extend(one.shares);
        }
        Ok(())
    }

    async fn gather_one(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        top: Digest,
        body: Option<FetchedManifest>,
    ) -> Result<Gathered, StoreError> {
        let mut gathered = Gathered::default();
        let mut levels = vec![vec![top.clone()]];
        let mut came_by = HashSet::from([top.clone()]);
        if let Some(body) = body {
            gathered.budget.bytes += body.body.len();
            self.keep(body, &mut gathered);
        }
        while let Some(level) = levels.last().filter(|level| !level.is_empty()) {
            if levels.len() > 1 {
                let stored = store.manifests(repository, level).await?;
                gathered.held.extend(
                    stored
                        .iter()
                        .filter(|(_, known)| known.is_settled())
                        .map(|(digest, _)| digest.clone()),
                );
                gathered.stored.extend(stored);
            }
            self.fetch_level(repository, &top, level, &mut gathered).await;
            let mut next = Vec::new();
            for digest in level {
                let Some(manifest) = gathered.manifests.get_mut(digest) else {
                    continue;
                };
                let members = manifest.member_digests();
                if levels.len() > self.limits.index_depth && !members.is_empty() {
                    let detail = format!(
                        "members below {} levels of image indexes are left out",
                        self.limits.index_depth
                    );
                    manifest.add_problem(Problem::new(ProblemCode::Limit, detail));
                    continue;
                }
                next.extend(members.into_iter().filter(|member| came_by.insert(member.clone())));
            }
            levels.push(next);
        }
        self.fetch_configs(store, repository, &top, &mut gathered).await?;
        for level in levels.iter().rev() {
            level.iter().for_each(|digest| judge_members(digest, &mut gathered));
        }
        Ok(gathered)
    }

    /// Fetches the manifests of one level that are neither known nor here.
    async fn fetch_level(&self, repository: &RepositoryName, top: &Digest, level: &[Digest], gathered: &mut Gathered) {
        let mut wanted = Vec::new();
        for digest in level {
            if gathered.held.contains(digest) || gathered.manifests.contains_key(digest) {
                continue;
            }
            if self.is_spent(&gathered.budget) {
                self.stop_at_limit(top, gathered);
                break;
            }
            gathered.budget.fetches += 1;
            wanted.push(digest.clone());
        }
        let mut fetches = stream::iter(wanted)
            .map(|digest| async {
                let fetched = self.fetch_manifest(repository, &digest).await;
                (digest, fetched)
            })
            .buffer_unordered(REQUESTS_PER_REPOSITORY);
        while let Some((digest, fetched)) = fetches.next().await {
            match fetched {
                Ok((manifest, share)) => {
                    gathered.budget.bytes += manifest.body.len();
                    gathered.shares.push(share);
                    self.keep(manifest, gathered);
                }
                Err(NotFetched::Missing) if digest != *top => {}
                Err(not_fetched) => {
                    if let NotFetched::Failed(error) = &not_fetched
                        && error.is_retryable()
                    {
                        gathered.failures.push(format!("manifest {digest}: {error}"));
                    }
                    let problem = not_fetched.problem("manifest", ProblemCode::ManifestMissing);
                    gathered.held.insert(digest.clone());
                    gathered
                        .manifests
                        .insert(digest.clone(), ObservedManifest::unread(digest, problem));
                }
            }
        }
    }

    fn keep(&self, fetched: FetchedManifest, gathered: &mut Gathered) {
        let FetchedManifest {
            digest,
            content_type,
            body,
        } = fetched;
        let manifest = ObservedManifest::read(digest.clone(), body, content_type.as_ref(), &self.limits);
        gathered.held.insert(digest.clone());
        gathered.manifests.insert(digest, manifest);
    }

    async fn fetch_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(FetchedManifest, Share), NotFetched> {
        let fetch = async {
            let reference = Reference::from(digest.clone());
            let fetched = self.client.get_manifest(repository, &reference).await;
            fetched.map_err(NotFetched::Failed)?.ok_or(NotFetched::Missing)
        };
        let (manifest, held) = self.manifests.get(digest, fetch).await?;
        Ok((manifest, Share::Manifest(held)))
    }

    /// Reads the configs of all manifests that were fetched: from the index when they are there, else from the registry.
    async fn fetch_configs(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        top: &Digest,
        gathered: &mut Gathered,
    ) -> Result<(), StoreError> {
        let mut wanted: BTreeMap<Digest, u64> = BTreeMap::new();
        for manifest in gathered.manifests.values_mut() {
            let Some(descriptor) = manifest.config_descriptor().cloned() else {
                continue;
            };
            match config_too_large(&descriptor, &self.limits) {
                Some(problem) => manifest.add_problem(problem),
                None => drop(wanted.insert(descriptor.digest, descriptor.size)),
            }
        }
        let digests: Vec<Digest> = wanted.keys().cloned().collect();
        let known = store.documents(&digests).await?;
        let mut unknown: Vec<(Digest, u64)> = wanted
            .into_iter()
            .filter(|(digest, _)| !known.contains_key(digest))
            .collect();
        if gathered.budget.fetches + unknown.len() > self.limits.fetches_per_tag {
            unknown.truncate(self.limits.fetches_per_tag.saturating_sub(gathered.budget.fetches));
            self.stop_at_limit(top, gathered);
        }
        let mut configs: HashMap<Digest, Result<(Bytes, bool), Problem>> = known
            .into_iter()
            .map(|(digest, body)| (digest, Ok((body.into(), true))))
            .collect();
        let mut fetches = stream::iter(unknown)
            .map(|(digest, size)| async move {
                let fetched = self.fetch_config(repository, &digest, size).await;
                (digest, fetched)
            })
            .buffer_unordered(REQUESTS_PER_REPOSITORY);
        while let Some((digest, fetched)) = fetches.next().await {
            if self.is_spent(&gathered.budget) {
                self.stop_at_limit(top, gathered);
                break;
            }
            let config = match fetched {
                Ok((body, share)) => {
                    gathered.budget.bytes += body.len();
                    gathered.shares.push(share);
                    Ok((body, false))
                }
                Err(not_fetched) => {
                    if let NotFetched::Failed(error) = &not_fetched
                        && error.is_retryable()
                    {
                        gathered.failures.push(format!("config {digest}: {error}"));
                    }
                    Err(not_fetched.problem("config", ProblemCode::ConfigMissing))
                }
            };
            configs.insert(digest, config);
        }
        for manifest in gathered.manifests.values_mut() {
            let Some(descriptor) = manifest.config_descriptor() else {
                continue;
            };
            match configs.get(&descriptor.digest) {
                Some(Ok((body, is_stored))) => {
                    let config = parse_config(body, &self.limits);
                    for problem in config.problems.clone() {
                        manifest.add_problem(problem);
                    }
                    if let Some(content) = &mut manifest.content {
                        content.config_body = (!is_stored).then(|| body.clone());
                        content.config = config;
                    }
                }
                Some(Err(problem)) => manifest.add_problem(problem.clone()),
                None => {}
            }
        }
        Ok(())
    }

    async fn fetch_config(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
    ) -> Result<(Bytes, Share), NotFetched> {
        let fetch = async {
            let fetched = self.client.get_config(repository, digest, size).await;
            fetched.map_err(NotFetched::Failed)?.ok_or(NotFetched::Missing)
        };
        let (body, held) = self.configs.get(digest, fetch).await?;
        Ok((body, Share::Config(held)))
    }

    fn is_spent(&self, budget: &Budget) -> bool {
        budget.fetches >= self.limits.fetches_per_tag || budget.bytes >= BYTES_PER_TAG
    }

    fn stop_at_limit(&self, top: &Digest, gathered: &mut Gathered) {
        if let Some(manifest) = gathered.manifests.get_mut(top) {
            let detail = format!(
                "it leads to more than {} manifests and configs, or {BYTES_PER_TAG} bytes of them; the rest is left out",
                self.limits.fetches_per_tag
            );
            manifest.add_problem(Problem::new(ProblemCode::Limit, detail));
        }
    }
}

/// Records on an image index which of its members could not be had, and whether a later scan may have more luck.
fn judge_members(digest: &Digest, gathered: &mut Gathered) {
    let Some(index) = gathered.manifests.get(digest) else {
        return;
    };
    if index
        .content
        .as_ref()
        .is_none_or(|content| content.kind() != ManifestKind::ImageIndex)
    {
        return;
    }
    let (mut missing, mut healable) = (Vec::new(), false);
    for member in index.member_digests() {
        match (gathered.manifests.get(&member), gathered.stored.get(&member)) {
            (Some(manifest), _) => {
                healable |= manifest.healable;
                if manifest.content.is_none() {
                    missing.push(member);
                }
            }
            (None, Some(known)) if known.is_settled() => {}
            (None, _) => missing.push(member),
        }
    }
    if let Some(index) = gathered.manifests.get_mut(digest) {
        let at_limit = index.problems.iter().any(|problem| problem.code == ProblemCode::Limit);
        if !at_limit {
            for member in missing {
                index.add_problem(Problem::new(ProblemCode::MemberMissing, member));
            }
        }
        index.healable |= healable;
    }
}

impl NotFetched {
    fn problem(&self, what: &str, missing: ProblemCode) -> Problem {
        match self {
            Self::Missing => Problem::new(missing, format_args!("the registry does not have the {what}")),
            Self::Failed(error) => {
                let code = match error {
                    RegistryError::TooLarge { .. } => ProblemCode::TooLarge,
                    RegistryError::DigestMismatch { .. } => ProblemCode::DigestMismatch,
                    _ => ProblemCode::Unreadable,
                };
                Problem::new(code, format_args!("the {what}: {error}"))
            }
        }
    }
}
