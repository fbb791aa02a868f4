//! Random registries: small, so that everything meets everything, and full of what is hard.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta};
use flagstate_common::annotations::Annotations;
use flagstate_common::digest::Digest;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::{Content, Manifest, Member, Registry, Repository, State, documents};

const REPOSITORIES: [&str; 9] = [
    "app", "app/a", "app-a", "app.a", "app_a", "app/a/b", "a", "z0", "lib/x__1",
];
const TAGS: [&str; 11] = [
    "latest", "Latest", "1.0", "1.0.1", "1_0", "v-1", "v_1", "_x", "a.b", "dev", "A",
];
pub(super) const OS: [&str; 5] = ["linux", "linux", "windows", "Linux", ""];
pub(super) const ARCHITECTURES: [&str; 5] = ["amd64", "amd64", "arm64", "s390x", ""];
pub(super) const ARTIFACT_TYPES: [&str; 4] = [
    "application/vnd.example.sbom+json",
    "application/vnd.oci.image.config.v1+json",
    "text/x_y",
    "",
];
pub(super) const KEYS: [&str; 14] = [
    "org.flatpak.ref",
    "a",
    "A",
    "",
    ":",
    "a:exists",
    "a:matches",
    "exists",
    "%",
    "_",
    "\\",
    "é",
    "a b&c=d+e",
    "'",
];
pub(super) const VALUES: [&str; 20] = [
    "app/org.example.App/x86_64/stable",
    "",
    "1",
    "v",
    "%",
    "_",
    "\\",
    "*",
    "?",
    "a%b",
    "a_b",
    "axb",
    "a\\b",
    "a\\%b",
    "é",
    "🦀",
    "a*b",
    "a+b c&d=e",
    "e\u{301}",
    "\n",
];
const REVISIONS: usize = 12;

/// The registry of `seed`.
#[must_use]
pub fn generate(seed: u64) -> Registry {
    let mut rng = StdRng::seed_from_u64(seed);
    let manifests = manifests(&mut rng);
    let names: Vec<RepositoryName> = sample(&mut rng, &REPOSITORIES, 5)
        .into_iter()
        .map(|name| name.parse().expect("a repository name"))
        .collect();
    let states = states(&mut rng, &names, &manifests.keys().collect::<Vec<_>>());
    let mut time = DateTime::from_timestamp(1_700_000_000, 250_000_000).expect("a time");
    let times = states
        .iter()
        .map(|_| {
            // Now and then two revisions bear the same time.
            time += TimeDelta::microseconds([0, 1, 1_000_003][rng.random_range(0..3)]);
            time
        })
        .collect();
    let repositories = repositories(&mut rng, &names, &states, &manifests);
    Registry {
        era: 1_700_000_000,
        manifests,
        repositories,
        states,
        times,
    }
}

pub(super) fn pick<'a>(rng: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(rng).expect("something to choose from")
}

fn sample<'a>(rng: &mut StdRng, from: &[&'a str], count: usize) -> Vec<&'a str> {
    from.sample(rng, count).copied().collect()
}

fn texts(rng: &mut StdRng) -> Annotations {
    let count = rng.random_range(0..6);
    sample(rng, &KEYS, count)
        .into_iter()
        .map(|key| (key.to_owned(), pick(rng, &VALUES).to_owned()))
        .collect()
}

fn manifests(rng: &mut StdRng) -> BTreeMap<Digest, Manifest> {
    let mut manifests = BTreeMap::new();
    for _ in 0..12 {
        let (os, architecture) = (pick(rng, &OS), pick(rng, &ARCHITECTURES));
        let artifact_type = if rng.random_bool(0.2) {
            pick(rng, &ARTIFACT_TYPES)
        } else {
            ""
        };
        let image = documents::image(os, architecture, texts(rng), texts(rng), artifact_type);
        manifests.extend([image]);
    }
    for _ in 0..2 {
        let types = (pick(rng, &ARTIFACT_TYPES[..3]), pick(rng, &ARTIFACT_TYPES));
        let artifact = documents::artifact(types.0, types.1, texts(rng));
        let other = documents::other(pick(rng, &ARTIFACT_TYPES), texts(rng));
        manifests.extend([artifact, other]);
    }
    // What image indexes of one level list comes from the levels below.
    for count in [4, 3, 2] {
        let below: Vec<Digest> = manifests.keys().cloned().collect();
        for _ in 0..count {
            let members = (0..rng.random_range(0..5)).map(|_| member(rng, &below)).collect();
            let artifact_type = pick(rng, &ARTIFACT_TYPES);
            manifests.extend([documents::image_index(members, texts(rng), artifact_type)]);
        }
    }
    for manifest in manifests.values_mut() {
        manifest.verified = rng.random_bool(0.95);
    }
    manifests
}

fn member(rng: &mut StdRng, below: &[Digest]) -> Member {
    let digest = if rng.random_bool(0.05) {
        Digest::of(b"gone from the registry")
    } else {
        below.choose(rng).expect("a manifest").clone()
    };
    let is_attestation = rng.random_bool(0.15);
    let is_unknown = is_attestation && rng.random_bool(0.5);
    Member {
        digest,
        os: if is_unknown { "unknown" } else { pick(rng, &OS) }.to_owned(),
        architecture: if is_unknown {
            "unknown"
        } else {
            pick(rng, &ARCHITECTURES)
        }
        .to_owned(),
        is_reference: is_attestation && !is_unknown,
    }
}

fn states(rng: &mut StdRng, names: &[RepositoryName], digests: &[&Digest]) -> Vec<State> {
    let mut state = State::new();
    let mut states = vec![state.clone()];
    while states.len() <= REVISIONS {
        for _ in 0..rng.random_range(3..12) {
            let name = names.choose(rng).expect("a repository");
            let tags = state.entry(name.clone()).or_default();
            let tag: Tag = pick(rng, &TAGS).parse().expect("a tag");
            match rng.random_range(0..20) {
                0 => tags.clear(),
                1..5 => drop(tags.remove(&tag)),
                _ => {
                    let digest = *digests.choose(rng).expect("a manifest");
                    tags.insert(tag, digest.clone());
                }
            }
        }
        states.push(state.clone());
    }
    states
}

/// A repository holds what was tagged in it and nearly all that this leads to.
fn repositories(
    rng: &mut StdRng,
    names: &[RepositoryName],
    states: &[State],
    manifests: &BTreeMap<Digest, Manifest>,
) -> BTreeMap<RepositoryName, Repository> {
    let hidden = rng.random_range(0..names.len());
    names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let tagged: BTreeSet<Digest> = states
                .iter()
                .filter_map(|state| state.get(name))
                .flat_map(|tags| tags.values().cloned())
                .collect();
            let mut holds = BTreeSet::new();
            let mut open: Vec<Digest> = tagged.iter().cloned().collect();
            while let Some(digest) = open.pop() {
                let Some(manifest) = manifests.get(&digest) else {
                    continue;
                };
                if let Content::ImageIndex { members } = &manifest.content {
                    open.extend(members.iter().map(|member| member.digest.clone()));
                }
                if tagged.contains(&digest) || rng.random_bool(0.95) {
                    holds.insert(digest);
                }
            }
            (
                name.clone(),
                Repository {
                    hidden: number == hidden,
                    holds,
                },
            )
        })
        .collect()
}
