//! Looking at what notifications named, and at nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use chrono::{DateTime, Utc};
use flagstate_common::digest::Digest;
use flagstate_common::error_chain::Chain;
use flagstate_common::reference::Reference;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;
use futures::{Stream, StreamExt as _, stream};

use super::super::hint::{Action, Hint, Look, Target};
use super::super::observation::{Listing, SeenTag, StoredRepository};
use super::{ObserveError, Observed, Observer, REQUESTS_PER_REPOSITORY};
use crate::registry::RegistryError;
use crate::store::WriteStore;

/// What the registry said about the things that hints named; what it did not answer about is in neither map.
struct Answers {
    /// What each tag points at; `None` when it is not there.
    tags: BTreeMap<Tag, Option<Digest>>,
    /// Whether each manifest is there, as far as it was asked.
    digests: BTreeMap<Digest, bool>,
}

impl Observer {
    /// Looks at what `hints` name, and says what becomes of each. What one of them names may fail without the others:
    /// it is looked at again.
    ///
    /// # Errors
    /// When the registry answers nothing, or too much of what it answers leads to cannot be read: the hints are then
    /// tried again later, all of them.
    pub async fn hinted(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        hints: &[Hint],
        stored: &StoredRepository,
    ) -> Result<(Observed, Vec<Look>), ObserveError> {
        let mut observed = Observed::new(Listing::NotAsked);
        let mut failures = Vec::new();
        let mut answers = Answers {
            tags: BTreeMap::new(),
            digests: self.ask_for_deleted(repository, hints, &mut failures).await,
        };
        let mut tags: BTreeSet<Tag> = hints.iter().filter_map(Hint::tag).cloned().collect();
        let points_at_deleted = stored
            .tags
            .iter()
            .filter(|(_, tag)| answers.digests.get(&tag.digest) == Some(&false));
        tags.extend(points_at_deleted.map(|(tag, _)| tag.clone()));
        let has_answer = !answers.digests.is_empty();
        // Manifests first: meanwhile the registry may get to writing the tag.
        let pushed = hints.iter().filter(|hint| hint.action == Action::Push);
        let pushed: BTreeSet<Digest> = pushed.filter_map(Hint::digest).cloned().collect();
        let (pushed, absent) = self.ask_for_unheld(store, repository, pushed, &mut failures).await?;
        let mut announced = self.gather_named(store, repository, pushed, &mut observed).await?;
        announced.extend(absent.into_iter().map(|digest| (digest, false)));
        for (digest, _) in announced.iter().filter(|(_, is_there)| !**is_there) {
            // Nothing is recorded of what was announced and is not there: it may come, or never be.
            observed.seen.manifests.retain(|manifest| manifest.digest != *digest);
            observed.seen.held.remove(digest);
        }
        answers.tags = self.ask_for_tags(repository, tags, &mut failures).await;
        let found = answers.tags.values().flatten();
        let found = found
            .filter(|digest| announced.get(*digest) != Some(&true))
            .cloned()
            .collect();
        let found = self.gather_named(store, repository, found, &mut observed).await?;
        for (digest, is_there) in announced.into_iter().chain(found) {
            let known = answers.digests.entry(digest).or_insert(is_there);
            *known |= is_there;
        }
        match failures.pop() {
            Some((_, error)) if answers.tags.is_empty() && !has_answer => return Err(error.into()),
            last => failures.extend(last),
        }
        for (what, error) in failures {
            tracing::warn!(
                repository.name = %repository, scan.trigger = "notification", error = %Chain(&error),
                "{what} could not be asked for; it is looked at again"
            );
        }
        let now = Utc::now();
        let looks: Vec<Look> = hints.iter().map(|hint| answers.judge(hint, hints, now)).collect();
        record(hints, &answers, stored, &mut observed);
        Ok((observed, looks))
    }

    /// Splits digests into those that the repository has, or that have to be read to find out, and those it does not have.
    ///
    /// What is known from another repository needs no reading, but a notification's word for its being here, too, is not
    /// enough.
    async fn ask_for_unheld(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        digests: BTreeSet<Digest>,
        failures: &mut Vec<(String, RegistryError)>,
    ) -> Result<(BTreeSet<Digest>, BTreeSet<Digest>), ObserveError> {
        let names: Vec<Digest> = digests.iter().cloned().collect();
        let stored = store.manifests(repository, &names).await?;
        let is_elsewhere = |digest: &Digest| {
            let known = stored.get(digest);
            known.is_some_and(|known| known.is_settled() && !known.held_here)
        };
        let (elsewhere, mut there): (BTreeSet<_>, BTreeSet<_>) = digests.into_iter().partition(is_elsewhere);
        let answers = self.ask_for_digests(repository, elsewhere.clone(), failures).await;
        let (here, absent) = elsewhere
            .into_iter()
            .partition(|digest| answers.get(digest) == Some(&true));
        there.extend::<BTreeSet<Digest>>(here);
        Ok((there, absent))
    }

    /// Reads what `digests` lead to, and says of each whether it is there, in whatever form.
    async fn gather_named(
        &self,
        store: &WriteStore,
        repository: &RepositoryName,
        digests: BTreeSet<Digest>,
        observed: &mut Observed,
    ) -> Result<BTreeMap<Digest, bool>, ObserveError> {
        let bodies = digests.iter().map(|digest| (digest.clone(), None)).collect();
        self.gather(store, repository, bodies, observed).await?;
        let unread = observed.seen.manifests.iter();
        let unread = unread.filter(|manifest| manifest.content.is_none() && manifest.healable);
        let unread: BTreeSet<&Digest> = unread.map(|manifest| &manifest.digest).collect();
        Ok(digests
            .into_iter()
            .map(|digest| {
                let is_there = !unread.contains(&digest);
                (digest, is_there)
            })
            .collect())
    }

    /// Whether the manifests that are said to be deleted are still there.
    async fn ask_for_deleted(
        &self,
        repository: &RepositoryName,
        hints: &[Hint],
        failures: &mut Vec<(String, RegistryError)>,
    ) -> BTreeMap<Digest, bool> {
        let deleted = hints.iter().filter(|hint| hint.action == Action::Delete);
        let digests: BTreeSet<Digest> = deleted
            .filter_map(|hint| match &hint.target {
                Target::Digest(digest) => Some(digest.clone()),
                Target::Tag(..) | Target::Repository => None,
            })
            .collect();
        self.ask_for_digests(repository, digests, failures).await
    }

    /// Whether manifests are there, as far as the registry answers.
    async fn ask_for_digests(
        &self,
        repository: &RepositoryName,
        digests: BTreeSet<Digest>,
        failures: &mut Vec<(String, RegistryError)>,
    ) -> BTreeMap<Digest, bool> {
        let answers = stream::iter(digests).map(|digest| async {
            let head = self
                .client
                .head_manifest(repository, &Reference::from(digest.clone()))
                .await;
            (digest, head.map(|head| head.is_some()))
        });
        collect_answers(answers.buffer_unordered(REQUESTS_PER_REPOSITORY), failures).await
    }

    async fn ask_for_tags(
        &self,
        repository: &RepositoryName,
        tags: BTreeSet<Tag>,
        failures: &mut Vec<(String, RegistryError)>,
    ) -> BTreeMap<Tag, Option<Digest>> {
        let answers = stream::iter(tags).map(|tag| async {
            let digest = self.ask_for_tag(repository, &tag).await;
            (tag, digest)
        });
        collect_answers(answers.buffer_unordered(REQUESTS_PER_REPOSITORY), failures).await
    }

    async fn ask_for_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        let reference = Reference::from(tag.clone());
        match self.client.head_manifest(repository, &reference).await? {
            None => Ok(None),
            Some(head) if head.digest.is_some() => Ok(head.digest),
            Some(_) => {
                let manifest = self.client.get_manifest(repository, &reference).await?;
                Ok(manifest.map(|manifest| manifest.digest))
            }
        }
    }
}

/// Keeps answers and failures apart.
async fn collect_answers<K: Ord + Display, V>(
    mut answers: impl Stream<Item = (K, Result<V, RegistryError>)> + Unpin,
    failures: &mut Vec<(String, RegistryError)>,
) -> BTreeMap<K, V> {
    let mut collected = BTreeMap::new();
    while let Some((key, answer)) = answers.next().await {
        match answer {
            Ok(value) => drop(collected.insert(key, value)),
            Err(error) => failures.push((key.to_string(), error)),
        }
    }
    collected
}

impl Answers {
    fn judge(&self, hint: &Hint, hints: &[Hint], now: DateTime<Utc>) -> Look {
        let (agrees, explained) = match (hint.action, &hint.target) {
            (Action::Push, Target::Tag(tag, named)) => match (self.tags.get(tag), named) {
                // A tag may be written before its manifest can be had everywhere.
                (Some(Some(seen)), Some(named)) => (
                    seen == named && self.digests.get(named) != Some(&false),
                    seen != named && names_later(hints, hint, seen),
                ),
                // Without a digest there is nothing to agree with: look for a while at what the tag becomes.
                (Some(Some(_)), None) => (false, true),
                (Some(None), _) => (false, deletes_later(hints, hint)),
                (None, _) => (false, false),
            },
            (Action::Push, Target::Digest(digest)) => {
                (self.digests.get(digest) == Some(&true), deletes_later(hints, hint))
            }
            (Action::Delete, Target::Tag(tag, _)) => (matches!(self.tags.get(tag), Some(None)), false),
            (Action::Delete, Target::Digest(digest)) => (self.digests.get(digest) == Some(&false), false),
            // What becomes of the repository as a whole, a scan of it tells.
            (_, Target::Repository) => (false, false),
        };
        if agrees {
            Look::Done
        } else {
            hint.after_disagreement(explained, now)
        }
    }
}

/// Whether a push that arrived later names what the tag points at.
fn names_later(hints: &[Hint], hint: &Hint, seen: &Digest) -> bool {
    hints.iter().any(|other| {
        other.action == Action::Push
            && other.tag() == hint.tag()
            && other.digest() == Some(seen)
            && other.arrived_at >= hint.arrived_at
    })
}

/// Whether a removal that arrived later names the tag or the digest.
fn deletes_later(hints: &[Hint], hint: &Hint) -> bool {
    hints.iter().any(|other| {
        other.action == Action::Delete
            && other.arrived_at >= hint.arrived_at
            && match &other.target {
                Target::Tag(tag, _) => Some(tag) == hint.tag(),
                Target::Digest(digest) => Some(digest) == hint.digest(),
                Target::Repository => true,
            }
    })
}

/// Puts the answers into the observation: a tag that is not there ends only if a notification said so.
fn record(hints: &[Hint], answers: &Answers, stored: &StoredRepository, observed: &mut Observed) {
    let said_to_be_gone: BTreeSet<&Tag> = hints
        .iter()
        .filter(|hint| hint.action == Action::Delete)
        .filter_map(Hint::tag)
        .collect();
    for (tag, digest) in &answers.tags {
        match digest {
            Some(digest) => drop(observed.seen.tags.insert(tag.clone(), SeenTag::At(digest.clone()))),
            None => {
                let points_at = stored.tags.get(tag).map(|tag| &tag.digest);
                let is_deleted = points_at.is_some_and(|digest| answers.digests.get(digest) == Some(&false))
                    && hints
                        .iter()
                        .any(|hint| hint.action == Action::Delete && hint.digest() == points_at);
                if said_to_be_gone.contains(tag) || is_deleted {
                    observed.seen.tags.insert(tag.clone(), SeenTag::Gone);
                }
            }
        }
    }
    for hint in hints.iter().filter(|hint| hint.action == Action::Push) {
        let Some(digest) = hint.digest() else { continue };
        observed.seen.pushed.insert(digest.clone(), hint.happened_at);
        if let Some(tag) = hint.tag()
            && answers.tags.get(tag) == Some(&Some(digest.clone()))
        {
            observed
                .seen
                .pushed_tags
                .insert(tag.clone(), (digest.clone(), hint.happened_at));
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().expect("tag")
    }

    fn hint(action: Action, target: Target, arrived: i64) -> Hint {
        let arrived_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(arrived);
        Hint {
            action,
            target,
            arrived_at,
            happened_at: arrived_at,
            explained: false,
        }
    }

    fn judge(hints: &[Hint], tags: &[(&str, Option<&str>)], digests: &[(&str, bool)], now: i64) -> Vec<&'static str> {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let answers = Answers {
            tags: tags.iter().map(|(name, at)| (tag(name), at.map(digest))).collect(),
            digests: digests.iter().map(|(name, there)| (digest(name), *there)).collect(),
        };
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(now);
        let name = |look| match look {
            Look::Done => "done",
            Look::Explained => "explained",
            Look::Again { .. } => "again",
            Look::GivenUp => "given up",
        };
        hints.iter().map(|hint| name(answers.judge(hint, hints, now))).collect()
    }

    fn push(name: &str, digest: &str, arrived: i64) -> Hint {
        hint(
            Action::Push,
            Target::Tag(tag(name), Some(Digest::of(digest.as_bytes()))),
            arrived,
        )
    }

    #[test]
    fn a_push_is_done_when_the_tag_names_its_digest() {
        let hints = [push("a", "1", 0)];
        assert_eq!(judge(&hints, &[("a", Some("1"))], &[], 0), ["done"]);
        assert_eq!(
            judge(&hints, &[("a", Some("0"))], &[], 0),
            ["again"],
            "notified before the tag was written"
        );
        assert_eq!(judge(&hints, &[("a", None)], &[], 100), ["again"], "slow storage");
        assert_eq!(judge(&hints, &[("a", Some("0"))], &[], 1000), ["given up"]);
    }

    #[test]
    fn a_push_is_not_done_before_its_manifest_can_be_read() {
        let hints = [push("a", "1", 0)];
        assert_eq!(judge(&hints, &[("a", Some("1"))], &[("1", false)], 0), ["again"]);
        assert_eq!(judge(&hints, &[("a", Some("1"))], &[("1", false)], 100), ["again"]);
        assert_eq!(judge(&hints, &[("a", Some("1"))], &[("1", true)], 0), ["done"]);
    }

    #[test]
    fn what_the_registry_did_not_answer_about_is_looked_at_again() {
        let hints = [push("a", "1", 0), hint(Action::Delete, Target::Tag(tag("b"), None), 0)];
        assert_eq!(judge(&hints, &[], &[], 0), ["again", "again"]);
    }

    #[test]
    fn an_older_push_waits_shortly_for_tags_written_in_another_order() {
        let hints = [push("a", "1", 0), push("a", "2", 1)];
        assert_eq!(judge(&hints, &[("a", Some("2"))], &[], 1), ["again", "done"]);
        assert_eq!(judge(&hints, &[("a", Some("2"))], &[], 10), ["explained", "done"]);
        assert_eq!(
            judge(&hints, &[("a", Some("1"))], &[], 10),
            ["done", "again"],
            "an older push explains nothing"
        );
    }

    #[test]
    fn a_removal_is_done_when_the_registry_confirms_it() {
        let digest = Digest::of(b"1");
        let by_digest = [hint(Action::Delete, Target::Digest(digest), 0)];
        assert_eq!(judge(&by_digest, &[], &[("1", false)], 0), ["done"]);
        assert_eq!(judge(&by_digest, &[], &[("1", true)], 0), ["again"]);
        assert_eq!(judge(&by_digest, &[], &[("1", true)], 100), ["given up"]);
        let by_tag = [hint(Action::Delete, Target::Tag(tag("a"), None), 0)];
        assert_eq!(judge(&by_tag, &[("a", None)], &[], 0), ["done"]);
        assert_eq!(judge(&by_tag, &[("a", Some("1"))], &[], 0), ["again"]);
    }

    #[test]
    fn a_removal_explains_an_older_push() {
        let hints = [push("a", "1", 0), hint(Action::Delete, Target::Tag(tag("a"), None), 1)];
        assert_eq!(judge(&hints, &[("a", None)], &[], 5), ["explained", "done"]);
    }
}
