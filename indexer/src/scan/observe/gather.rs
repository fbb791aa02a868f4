//! Everything that a digest leads to: the manifest, its members level by level, and their configs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use flagstate_common::digest::Digest;
use flagstate_common::document::{Problem, ProblemCode, parse_config};
use flagstate_common::error_chain::Chain;
use flagstate_common::media_type::ManifestKind;
use flagstate_common::reference::Reference;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::store::StoreError;
use futures::{StreamExt as _, stream};

use super::super::manifest::{ObservedManifest, config_too_large};
use super::super::observation::StoredManifest;
use super::{FAILURES_IN_A_ROW, ObserveError, Observed, Observer, REQUESTS_PER_REPOSITORY, Share};
use crate::registry::{FetchedManifest, RegistryError};
use crate::store::WriteStore;

/// Bytes of manifests and configs that one tag may bring in.
const BYTES_PER_TAG: usize = 16 * 1024 * 1024;

/// Digests that are followed together, so that they share questions to the index.
const DIGESTS_AT_ONCE: usize = 16;

/// What some digests led to.
#[derive(Default)]
struct Gathered {
    manifests: BTreeMap<Digest, ObservedManifest>,
    stored: HashMap<Digest, StoredManifest>,
    held: BTreeSet<Digest>,
    shares: Vec<Share>,
    failures: Vec<String>,
    /// Members that the registry does not have.
    missing: BTreeSet<Digest>,
    /// From which of the first digests each one was reached.
    tops: HashMap<Digest, Digest>,
    budgets: HashMap<Digest, Budget>,
}

/// How much has been asked for on behalf of one of the first digests.
#[derive(Clone, Copy, Default)]
struct Budget {
    fetches: usize,
    bytes: usize,
}

/// A fetch that brought no content.
enum NotFetched {
    Missing,
    Failed(RegistryError),
}

impl Gathered {
    fn top(&self, digest: &Digest) -> Digest {
        self.tops.get(digest).unwrap_or(digest).clone()
    }

    fn spend(&mut self, digest: &Digest, fetches: usize, bytes: usize) {
        let budget = self.budgets.entry(self.top(digest)).or_default();
        budget.fetches += fetches;
        budget.bytes += bytes;
    }

    /// Whether nothing could be read and much was tried: the rest is left for later.
    fn is_hopeless(&self) -> bool {
        let is_read = |manifest: &ObservedManifest| manifest.content.is_some();
        self.failures.len() >= FAILURES_IN_A_ROW && !self.manifests.values().any(is_read)
    }

    fn fail(&mut self, what: &str, digest: &Digest, error: &NotFetched) {
        // A body that does not match is a problem of that image; asking again at once brings the same.
        if let NotFetched::Failed(error) = error
            && error.is_retryable()
            && !matches!(error, RegistryError::DigestMismatch { .. })
        {
            self.failures.push(format!("{what} {digest}: {}", Chain(error)));
        }
    }
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
        let mut unsettled: Vec<_> = digests.into_iter().filter(|(digest, _)| !is_settled(digest)).collect();
        observed.seen.held.extend(names);
        observed.stored.extend(stored);
        while !unsettled.is_empty() {
            let some = unsettled.split_off(unsettled.len().saturating_sub(DIGESTS_AT_ONCE));
            let gathered = self.gather_some(store, repository, some).await?;
            let is_hopeless = gathered.is_hopeless();
            observed
                .seen
                .manifests
                .extend(gathered.manifests.into_values().map(Arc::new));
            observed.seen.held.extend(gathered.held);
            observed.seen.failures.extend(gathered.failures);
            observed.stored.extend(gathered.stored);
            observed.held.extend(gathered.shares);
            self.stage(store, observed).await?;
            if is_hopeless {
                observed.leave_out(unsettled.iter().map(|(digest, _)| digest));
                break;
            }
        }
        Ok(())
    }

    async fn gather_some(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        tops: Vec<(Digest, Option<FetchedManifest>)>,
    ) -> Result<Gathered, StoreError> {
        let mut gathered = Gathered::default();
        let mut levels: Vec<Vec<Digest>> = vec![tops.iter().map(|(digest, _)| digest.clone()).collect()];
        for body in tops.into_iter().filter_map(|(_, body)| body) {
            self.keep(body, &mut gathered);
        }
        while let Some(level) = levels.last().filter(|level| !level.is_empty()) {
            if levels.len() > 1 {
                let stored = store.manifests(repository, level).await?;
                let settled = stored.iter().filter(|(_, known)| known.is_settled());
                gathered.held.extend(settled.map(|(digest, _)| digest.clone()));
                gathered.stored.extend(stored);
            }
            self.fetch_level(repository, level, levels.len() == 1, &mut gathered)
                .await;
            let next = self.next_level(level, levels.len(), &mut gathered);
            levels.push(next);
        }
        self.fetch_configs(store, repository, &mut gathered).await?;
        for level in levels.iter().rev() {
            level.iter().for_each(|digest| judge_members(digest, &mut gathered));
        }
        for problem in gathered.manifests.values().flat_map(|manifest| &manifest.problems) {
            self.metrics.limit_problem(problem);
        }
        Ok(gathered)
    }

    /// Members of the image indexes of a level that were not reached before.
    fn next_level(&self, level: &[Digest], depth: usize, gathered: &mut Gathered) -> Vec<Digest> {
        let mut next = Vec::new();
        for digest in level {
            let top = gathered.top(digest);
            let Some(manifest) = gathered.manifests.get_mut(digest) else {
                continue;
            };
            let members = manifest.member_digests();
            if depth > self.limits.index_depth && !members.is_empty() {
                let detail = format!(
                    "members below {} levels of image indexes are left out",
                    self.limits.index_depth
                );
                manifest.add_problem(Problem::new(ProblemCode::Limit, detail).at_limit("index_depth"));
                continue;
            }
            for member in members {
                if !level.contains(&member) && !gathered.tops.contains_key(&member) {
                    gathered.tops.insert(member.clone(), top.clone());
                    next.push(member);
                }
            }
        }
        next
    }

    /// Fetches the manifests of one level that are neither known nor here.
    async fn fetch_level(
        &self,
        repository: &RepositoryName,
        level: &[Digest],
        is_first: bool,
        gathered: &mut Gathered,
    ) {
        let mut wanted = Vec::new();
        for digest in level {
            if gathered.held.contains(digest) || gathered.manifests.contains_key(digest) {
                continue;
            }
            let top = gathered.top(digest);
            if self.is_spent(&top, gathered) {
                self.stop_at_limit(&top, gathered);
                continue;
            }
            gathered.spend(digest, 1, 0);
            wanted.push(digest.clone());
        }
        let mut fetches = stream::iter(wanted)
            .map(|digest| async {
                let fetched = self.fetch_manifest(repository, &digest).await;
                (digest, fetched)
            })
            .buffer_unordered(REQUESTS_PER_REPOSITORY);
        while let Some((digest, fetched)) = fetches.next().await {
            let top = gathered.top(&digest);
            if self.is_spent(&top, gathered) && !is_first {
                // More would not be kept; what is under way is given up.
                self.stop_at_limit(&top, gathered);
                continue;
            }
            match fetched {
                Ok((manifest, share)) => {
                    gathered.shares.push(share);
                    self.keep(manifest, gathered);
                }
                // The image index tells which of its members the registry does not have.
                Err(NotFetched::Missing) if !is_first => drop(gathered.missing.insert(digest)),
                Err(not_fetched) => {
                    gathered.fail("manifest", &digest, &not_fetched);
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
        gathered.spend(&digest, 0, body.len());
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
        gathered: &mut Gathered,
    ) -> Result<(), StoreError> {
        let mut wanted: BTreeMap<Digest, (u64, Digest)> = BTreeMap::new();
        for manifest in gathered.manifests.values_mut() {
            let Some(descriptor) = manifest.config_descriptor().cloned() else {
                continue;
            };
            match config_too_large(&descriptor, &self.limits) {
                Some(problem) => manifest.add_problem(problem),
                None => drop(wanted.insert(descriptor.digest, (descriptor.size, manifest.digest.clone()))),
            }
        }
        let digests: Vec<Digest> = wanted.keys().cloned().collect();
        let known = store.documents(&digests).await?;
        let mut unknown: Vec<(Digest, u64, Digest)> = Vec::new();
        for (digest, (size, of)) in wanted {
            let top = gathered.top(&of);
            if known.contains_key(&digest) {
                continue;
            }
            if self.is_spent(&top, gathered) {
                self.stop_at_limit(&top, gathered);
                continue;
            }
            gathered.spend(&of, 1, usize::try_from(size).unwrap_or(usize::MAX));
            unknown.push((digest, size, of));
        }
        let mut configs: HashMap<Digest, Result<(Bytes, bool), Problem>> = known
            .into_iter()
            .map(|(digest, body)| (digest, Ok((body.into(), true))))
            .collect();
        let mut fetches = stream::iter(unknown)
            .map(|(digest, size, _)| async move {
                let fetched = self.fetch_config(repository, &digest, size).await;
                (digest, fetched)
            })
            .buffer_unordered(REQUESTS_PER_REPOSITORY);
        while let Some((digest, fetched)) = fetches.next().await {
            let config = match fetched {
                Ok((body, share)) => {
                    gathered.shares.push(share);
                    Ok((body, false))
                }
                Err(not_fetched) => {
                    gathered.fail("config", &digest, &not_fetched);
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

    fn is_spent(&self, top: &Digest, gathered: &Gathered) -> bool {
        let budget = gathered.budgets.get(top).copied().unwrap_or_default();
        budget.fetches >= self.limits.fetches_per_tag || budget.bytes >= BYTES_PER_TAG
    }

    fn stop_at_limit(&self, top: &Digest, gathered: &mut Gathered) {
        if let Some(manifest) = gathered.manifests.get_mut(top) {
            let detail = format!(
                "it leads to more than {} manifests and configs, or {BYTES_PER_TAG} bytes of them; the rest is left out",
                self.limits.fetches_per_tag
            );
            manifest.add_problem(Problem::new(ProblemCode::Limit, detail).at_limit("fetches_per_tag"));
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
        match gathered.manifests.get(&member) {
            Some(manifest) => {
                healable |= manifest.healable;
                if manifest.content.is_none() {
                    missing.push(member);
                }
            }
            None if gathered.missing.contains(&member) => missing.push(member),
            // Known already, or left out at a limit.
            None => {}
        }
    }
    if let Some(index) = gathered.manifests.get_mut(digest) {
        for member in missing {
            index.add_problem(Problem::new(ProblemCode::MemberMissing, member));
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
                Problem::new(code, format_args!("the {what}: {}", Chain(error)))
            }
        }
    }
}
