//! What has to change, from what was stored and what was seen. Pure.
//!
//! **Absence is not deletion.** A tag ends only when all tags were listed and it was not among them, or when a
//! notification said that it is gone and the registry confirmed it. A repository that is not found, or lists no tag,
//! ends its tags only when the caller vouches for the absence: it saw the whole catalog, and the catalog was not empty.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flagstate_common::digest::Digest;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;

use super::manifest::ObservedManifest;
use super::observation::{Cause, ChangeSet, Listing, Observation, SeenTag, StoredManifest, StoredRepository};

/// Compares; the result is empty when the registry is as stored.
#[must_use]
pub fn plan(
    repository: &RepositoryName,
    cause: Cause,
    absence_is_vouched_for: bool,
    stored: &StoredRepository,
    manifests: &HashMap<Digest, StoredManifest>,
    seen: &Observation,
) -> ChangeSet {
    let unreadable = unreadable(seen);
    let mut changes = ChangeSet {
        repository: repository.clone(),
        cause,
        manifests: news(manifests, &seen.manifests),
        held: newly_held(manifests, seen),
        moved: BTreeMap::new(),
        ended: absent(absence_is_vouched_for, stored, &seen.listing),
        dated: BTreeMap::new(),
    };
    for (tag, state) in &seen.tags {
        let before = stored.tags.get(tag);
        match state {
            SeenTag::Gone => {
                if before.is_some() {
                    changes.ended.insert(tag.clone());
                }
            }
            SeenTag::At(digest) => {
                changes.ended.remove(tag);
                let pushed_at = seen
                    .pushed_tags
                    .get(tag)
                    .filter(|(pushed, _)| pushed == digest)
                    .map(|(_, at)| *at);
                match before {
                    Some(before) if before.digest == *digest => {
                        if let Some(at) = pushed_at.filter(|_| !before.has_push_time) {
                            changes.dated.insert(tag.clone(), at);
                        }
                    }
                    // What cannot be verified, and may be later, does not replace what was.
                    Some(_) if unreadable.contains(digest) => {}
                    Some(_) | None => {
                        changes.moved.insert(tag.clone(), (digest.clone(), pushed_at));
                    }
                }
            }
        }
    }
    changes
}

/// Stored tags that a complete listing does not name.
fn absent(is_vouched_for: bool, stored: &StoredRepository, listing: &Listing) -> BTreeSet<Tag> {
    let gone: Vec<&Tag> = match listing {
        Listing::NotAsked | Listing::Incomplete => Vec::new(),
        Listing::NotFound => stored.tags.keys().filter(|_| is_vouched_for).collect(),
        Listing::Complete(tags) if tags.is_empty() => stored.tags.keys().filter(|_| is_vouched_for).collect(),
        Listing::Complete(tags) => stored.tags.keys().filter(|tag| !tags.contains(*tag)).collect(),
    };
    gone.into_iter().cloned().collect()
}

/// Digests that were asked for, could not be read, and may be readable later.
fn unreadable(seen: &Observation) -> BTreeSet<&Digest> {
    let unread = seen
        .manifests
        .iter()
        .filter(|manifest| manifest.content.is_none() && manifest.healable);
    unread.map(|manifest| &manifest.digest).collect()
}

/// Manifests that are not stored, or of which something else is known now, by digest.
fn news(
    stored: &HashMap<Digest, StoredManifest>,
    seen: &[std::sync::Arc<ObservedManifest>],
) -> Vec<std::sync::Arc<ObservedManifest>> {
    let is_news = |manifest: &&std::sync::Arc<ObservedManifest>| match stored.get(&manifest.digest) {
        None => true,
        // What was read once and cannot be read now stays as it is.
        Some(before) if before.verified && manifest.content.is_none() => false,
        Some(before) => {
            before.verified != manifest.is_verified()
                || before.problems != manifest.problems
                || before.healable != manifest.healable
        }
    };
    let mut news: Vec<_> = seen.iter().filter(is_news).cloned().collect();
    news.sort_by(|one, other| one.digest.cmp(&other.digest));
    news.dedup_by(|one, other| one.digest == other.digest);
    news
}

fn newly_held(
    stored: &HashMap<Digest, StoredManifest>,
    seen: &Observation,
) -> BTreeMap<Digest, Option<chrono::DateTime<chrono::Utc>>> {
    let is_new = |digest: &&Digest| !stored.get(*digest).is_some_and(|manifest| manifest.held_here);
    let held = seen.held.iter().filter(is_new);
    held.map(|digest| (digest.clone(), seen.pushed.get(digest).copied()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use bytes::Bytes;
    use chrono::DateTime;
    use flagstate_common::config::Limits;
    use flagstate_common::document::{Problem, ProblemCode};

    use super::super::observation::StoredTag;
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn tag(text: &str) -> Tag {
        text.parse().expect("tag")
    }

    fn stored(tags: &[(&str, &str)]) -> StoredRepository {
        let entry = |(name, at): &(&str, &str)| {
            let stored = StoredTag {
                digest: digest(at),
                healable: false,
                has_push_time: false,
            };
            (tag(name), stored)
        };
        StoredRepository {
            is_known: true,
            tags: tags.iter().map(entry).collect(),
        }
    }

    fn seen(listing: Listing, tags: &[(&str, SeenTag)]) -> Observation {
        let mut seen = Observation::empty(listing);
        seen.tags = tags.iter().map(|(name, state)| (tag(name), state.clone())).collect();
        seen
    }

    fn listed(tags: &[&str]) -> Listing {
        Listing::Complete(tags.iter().map(|name| tag(name)).collect::<HashSet<_>>())
    }

    fn changes(vouched: bool, stored: &StoredRepository, seen: &Observation) -> ChangeSet {
        let repository = "a/b".parse().expect("name");
        plan(&repository, Cause::Scan, vouched, stored, &HashMap::new(), seen)
    }

    fn names<'a>(tags: impl IntoIterator<Item = &'a Tag>) -> Vec<&'a str> {
        tags.into_iter().map(Tag::as_str).collect()
    }

    #[test]
    fn an_unchanged_repository_changes_nothing() {
        let seen = seen(listed(&["a"]), &[("a", SeenTag::At(digest("1")))]);
        assert!(changes(true, &stored(&[("a", "1")]), &seen).is_empty());
    }

    #[test]
    fn only_tags_that_moved_are_written() {
        let seen = seen(
            listed(&["a", "b", "c"]),
            &[
                ("a", SeenTag::At(digest("1"))),
                ("b", SeenTag::At(digest("9"))),
                ("c", SeenTag::At(digest("3"))),
            ],
        );
        let changes = changes(true, &stored(&[("a", "1"), ("b", "2")]), &seen);
        assert_eq!(names(changes.moved.keys()), ["b", "c"]);
        assert!(changes.ended.is_empty());
    }

    #[test]
    fn absence_ends_a_tag_only_after_a_complete_listing() {
        let stored = stored(&[("a", "1"), ("b", "2")]);
        for (listing, vouched, ended) in [
            (listed(&["a"]), false, vec!["b"]),
            (Listing::Incomplete, true, vec![]),
            (Listing::NotAsked, true, vec![]),
            (Listing::NotFound, false, vec![]),
            (Listing::NotFound, true, vec!["a", "b"]),
            (listed(&[]), false, vec![]),
            (listed(&[]), true, vec!["a", "b"]),
        ] {
            let changes = changes(vouched, &stored, &seen(listing.clone(), &[]));
            assert_eq!(names(&changes.ended), ended, "{listing:?} {vouched}");
        }
    }

    #[test]
    fn a_listed_tag_that_could_not_be_read_stays() {
        let changes = changes(true, &stored(&[("a", "1")]), &seen(listed(&["a"]), &[]));
        assert!(changes.is_empty());
    }

    #[test]
    fn a_confirmed_removal_ends_its_tag_alone() {
        let changes = changes(
            false,
            &stored(&[("a", "1"), ("b", "2")]),
            &seen(Listing::NotAsked, &[("a", SeenTag::Gone)]),
        );
        assert_eq!(names(&changes.ended), ["a"]);
    }

    #[test]
    fn what_cannot_be_verified_does_not_replace_what_was() {
        let bad = Arc::new(ObservedManifest::unread(
            digest("9"),
            Problem::new(ProblemCode::DigestMismatch, "x"),
        ));
        let mut seen = seen(
            Listing::NotAsked,
            &[("old", SeenTag::At(digest("9"))), ("new", SeenTag::At(digest("9")))],
        );
        seen.manifests.push(bad);
        let changes = changes(false, &stored(&[("old", "1")]), &seen);
        assert_eq!(names(changes.moved.keys()), ["new"]);
        assert_eq!(changes.manifests.len(), 1, "the problem is recorded");
    }

    #[test]
    fn the_same_problem_again_is_no_news() {
        let manifest = ObservedManifest::unread(digest("9"), Problem::new(ProblemCode::ManifestMissing, "x"));
        let before = StoredManifest {
            verified: false,
            healable: true,
            problems: manifest.problems.clone(),
            held_here: true,
            held_somewhere: true,
        };
        let mut seen = Observation::empty(Listing::NotAsked);
        seen.held.insert(digest("9"));
        seen.manifests.push(Arc::new(manifest));
        let known = HashMap::from([(digest("9"), before)]);
        let repository = "a/b".parse().expect("name");
        assert!(plan(&repository, Cause::Scan, true, &stored(&[]), &known, &seen).is_empty());
        let body = Bytes::from_static(b"{}");
        seen.manifests = vec![Arc::new(ObservedManifest::read(
            digest("9"),
            body,
            None,
            &Limits::default(),
        ))];
        let healed = plan(&repository, Cause::Scan, true, &stored(&[]), &known, &seen);
        assert_eq!(healed.manifests.len(), 1);
    }

    #[test]
    fn a_push_time_is_kept_when_it_was_not_known() {
        let mut seen = seen(Listing::NotAsked, &[("a", SeenTag::At(digest("1")))]);
        seen.pushed_tags.insert(tag("a"), (digest("1"), DateTime::UNIX_EPOCH));
        let changes = changes(false, &stored(&[("a", "1")]), &seen);
        assert_eq!(changes.dated.get(&tag("a")), Some(&DateTime::UNIX_EPOCH));
    }
}
