//! The whole pipeline against the model: whatever a registry goes through, the index says what it holds, and held.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use flagstate_common::config::{Limits, RepositoryFilter};
use flagstate_common::digest::Digest;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::read::ReadStore;
use flagstate_common::tag::Tag;
use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Rule};
use flagstate_test_support::model::{Content, Registry, Repository, State, ask, generate};
use flagstate_test_support::postgres::TestDatabase;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio_postgres::Client;

use super::harness::{Pipeline, config, deleted, pool, post, pushed, until};

const STEPS: usize = 64;
const QUESTIONS_A_STEP: u64 = 24;
const QUESTIONS_AT_THE_END: u64 = 600;
const REPOSITORIES: [&str; 6] = ["app", "app/a", "app-a", "app_a", "lib/x__1", "z0"];
/// Never touched after the first step, so that the catalog never shows nothing.
const KEEPER: &str = "keeper";
const TAGS: [&str; 8] = ["latest", "Latest", "1.0", "1_0", "v-1", "_x", "a.b", "A"];
const SEEDS: [u64; 3] = [1, 2, 3];

/// How the indexer gets to know of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Scan,
    Notifications,
}

/// The registry, and what the index has to make of it.
struct World {
    random: StdRng,
    fake: FakeRegistry,
    /// What tags name in the registry.
    there: State,
    /// Manifests that the registry serves with another byte.
    damaged: BTreeSet<Digest>,
    /// Manifests that members name and the registry does not have.
    missing: BTreeSet<Digest>,
    /// Everything as the index has to know it: `verified` is what the indexer had occasion to read.
    model: Registry,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut manifests = BTreeMap::new();
        for seed in SEEDS {
            manifests.extend(generate(seed).manifests);
        }
        let mut random = StdRng::seed_from_u64(seed);
        let unreadable: Vec<Digest> = manifests.keys().filter(|_| random.random_bool(0.15)).cloned().collect();
        manifests.values_mut().for_each(|manifest| manifest.verified = false);
        let (damaged, missing) = unreadable.split_at(unreadable.len() / 2);
        let names = REPOSITORIES.iter().chain([&KEEPER]);
        let repositories = names.map(|name| (name.parse().unwrap(), Repository::default()));
        let world = Self {
            random,
            fake: FakeRegistry::builder().page_size(3).start().await.unwrap(),
            there: State::new(),
            damaged: damaged.iter().cloned().collect(),
            missing: missing.iter().cloned().collect(),
            model: Registry {
                era: 0,
                manifests,
                repositories: repositories.collect(),
                states: vec![State::new()],
                times: Vec::new(),
            },
        };
        world.set_faults();
        world
    }

    fn set_faults(&self) {
        self.fake.behave();
        for digest in &self.damaged {
            let path = format!("/v2/*/manifests/{digest}");
            self.fake.add(Rule::on(&path, Fault::WrongByte));
        }
    }

    /// Puts a manifest and all that it leads to, as far as the registry is to have it.
    fn put(&self, repository: &str, digest: &Digest) {
        let Some(manifest) = self
            .model
            .manifests
            .get(digest)
            .filter(|_| !self.missing.contains(digest))
        else {
            return;
        };
        if let Content::ImageIndex { members } = &manifest.content {
            members.iter().for_each(|member| self.put(repository, &member.digest));
        }
        if let Some(config) = &manifest.config_document {
            self.fake.put_blob(repository, config.clone());
        }
        let put = self
            .fake
            .put_manifest(repository, manifest.media_type.as_str(), manifest.document.clone());
        assert_eq!(put, *digest);
    }

    fn tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        self.put(repository, digest);
        self.fake.tag(repository, tag, digest);
        let tags = self.there.entry(repository.parse().unwrap()).or_default();
        tags.insert(tag.parse().unwrap(), digest.clone());
    }

    fn is_readable(&self, digest: &Digest) -> bool {
        !self.damaged.contains(digest) && !self.missing.contains(digest)
    }

    /// All that a manifest leads to, beside itself.
    fn below(&self, digest: &Digest) -> BTreeSet<Digest> {
        let mut below = BTreeSet::new();
        let mut open = vec![digest.clone()];
        while let Some(digest) = open.pop() {
            if let Some(Content::ImageIndex { members }) =
                self.model.manifests.get(&digest).map(|manifest| &manifest.content)
            {
                open.extend(members.iter().map(|member| member.digest.clone()));
                below.extend(members.iter().map(|member| member.digest.clone()));
            }
        }
        below
    }

    /// Changes one repository; the result is what a registry would tell.
    fn change(&mut self, repository: &str, way: Way) -> Vec<Value> {
        let name: RepositoryName = repository.parse().unwrap();
        let mut gone: BTreeSet<Digest> = BTreeSet::new();
        if self.random.random_bool(0.06) && self.there.get(&name).is_some_and(|tags| !tags.is_empty()) {
            self.fake.delete_repository(repository);
            self.there.remove(&name);
            return vec![deleted(repository, None, None)];
        }
        let mut touched: BTreeSet<Tag> = BTreeSet::new();
        for _ in 0..self.random.random_range(1..5) {
            let present = self.there.get(&name).cloned().unwrap_or_default();
            let victim = present.iter().choose(&mut self.random);
            match (self.random.random_range(0..10), victim) {
                (0..2, Some((tag, _))) => {
                    self.fake.delete_tag(repository, tag.as_str());
                    self.there.get_mut(&name).unwrap().remove(tag);
                    touched.insert(tag.clone());
                }
                (2, Some((_, digest))) => {
                    let is_needed = present.values().any(|other| self.below(other).contains(digest));
                    if is_needed {
                        continue;
                    }
                    self.fake.delete_manifest(repository, digest);
                    self.there.get_mut(&name).unwrap().retain(|_, at| at != digest);
                    gone.insert(digest.clone());
                    // Some registries tell only the digest.
                    let tells_tags = self.random.random_bool(0.5);
                    touched.extend(
                        present
                            .iter()
                            .filter(|(_, at)| *at == digest && tells_tags)
                            .map(|(tag, _)| tag.clone()),
                    );
                }
                _ => {
                    let tag = *TAGS.choose(&mut self.random).unwrap();
                    let may_be_tagged = |digest: &&Digest| {
                        self.is_readable(digest) || (way == Way::Scan && self.damaged.contains(*digest))
                    };
                    let candidates: Vec<Digest> = self.model.manifests.keys().filter(may_be_tagged).cloned().collect();
                    let digest = candidates.choose(&mut self.random).unwrap().clone();
                    self.tag(repository, tag, &digest);
                    gone.retain(|gone| *gone != digest && !self.below(&digest).contains(gone));
                    touched.insert(tag.parse().unwrap());
                }
            }
        }
        let mut events: Vec<Value> = gone
            .iter()
            .map(|digest| deleted(repository, None, Some(digest)))
            .collect();
        for tag in touched {
            match self.there.get(&name).and_then(|tags| tags.get(&tag)) {
                Some(digest) => {
                    let members = self.below(digest);
                    let readable = members
                        .iter()
                        .filter(|member| self.is_readable(member) && self.model.manifests.contains_key(*member));
                    events.extend(readable.map(|member| pushed(repository, None, member)));
                    events.push(pushed(repository, Some(tag.as_str()), digest));
                }
                None => events.push(deleted(repository, Some(tag.as_str()), None)),
            }
        }
        events
    }

    /// Makes one unreadable manifest readable, wherever a tag leads to it.
    fn heal(&mut self) {
        let healed = self
            .damaged
            .iter()
            .chain(&self.missing)
            .choose(&mut self.random)
            .cloned();
        let Some(healed) = healed else { return };
        self.damaged.remove(&healed);
        self.missing.remove(&healed);
        self.set_faults();
        for (repository, tags) in &self.there {
            tags.values().for_each(|digest| self.put(repository.as_str(), digest));
        }
    }

    /// What the index has to show of a repository now: what cannot be read does not replace what was.
    fn expected(&self, repository: &RepositoryName) -> BTreeMap<Tag, Digest> {
        let before = self
            .model
            .states
            .last()
            .unwrap()
            .get(repository)
            .cloned()
            .unwrap_or_default();
        let there = self.there.get(repository).cloned().unwrap_or_default();
        let expect = |(tag, digest): (Tag, Digest)| match before.get(&tag) {
            Some(before) if !self.is_readable(&digest) => (tag, before.clone()),
            Some(_) | None => (tag, digest),
        };
        there.into_iter().map(expect).collect()
    }

    /// The indexer had occasion to read what is there: it knows the manifests, and who holds them.
    fn learn(&mut self) {
        for (repository, tags) in &self.there {
            let holds = &mut self.model.repositories.get_mut(repository).unwrap().holds;
            let mut open: Vec<Digest> = tags.values().cloned().collect();
            while let Some(digest) = open.pop() {
                if self.missing.contains(&digest) {
                    continue;
                }
                let Some(manifest) = self.model.manifests.get_mut(&digest) else {
                    continue;
                };
                holds.insert(digest.clone());
                if self.damaged.contains(&digest) {
                    continue;
                }
                manifest.verified = true;
                if let Content::ImageIndex { members } = &manifest.content {
                    open.extend(members.iter().map(|member| member.digest.clone()));
                }
            }
        }
    }

    /// Takes over the revisions that the step led to; each is about one repository.
    async fn take_over(&mut self, client: &Client) {
        let newest = i64::try_from(self.model.newest()).unwrap();
        let rows = client
            .query(
                "SELECT v.n, v.at, array_agg(DISTINCT r.name) FROM revision v
                 JOIN revision_change c ON c.n = v.n JOIN repository r ON r.id = c.repository_id
                 WHERE v.n > $1 GROUP BY v.n, v.at ORDER BY v.n",
                &[&newest],
            )
            .await
            .unwrap();
        let mut seen = BTreeSet::new();
        for row in rows {
            let (n, at, names): (i64, DateTime<Utc>, Vec<String>) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(
                n,
                i64::try_from(self.model.states.len()).unwrap(),
                "revisions have no gaps"
            );
            let [name] = names.as_slice() else {
                panic!("revision {n} is about {names:?}");
            };
            assert!(seen.insert(name.clone()), "{name} changed twice in one step");
            let name: RepositoryName = name.parse().unwrap();
            let tags = self.expected(&name);
            let mut state = self.model.states.last().unwrap().clone();
            state.insert(name, tags);
            self.model.states.push(state);
            self.model.times.push(at);
        }
    }
}

/// What tags name in the index.
async fn index(client: &Client) -> State {
    let rows = client
        .query(
            "SELECT r.name, t.name, m.digest FROM tag t JOIN repository r ON r.id = t.repository_id
             JOIN manifest m ON m.id = t.manifest_id WHERE t.to_n IS NULL",
            &[],
        )
        .await
        .unwrap();
    let mut state = State::new();
    for row in rows {
        let (repository, tag, digest): (&str, &str, &[u8]) = (row.get(0), row.get(1), row.get(2));
        let tags = state.entry(repository.parse().unwrap()).or_default();
        tags.insert(tag.parse().unwrap(), Digest::from_bytes(digest).unwrap());
    }
    state
}

fn without_empty(state: &State) -> State {
    let filled = state.iter().filter(|(_, tags)| !tags.is_empty());
    filled.map(|(name, tags)| (name.clone(), tags.clone())).collect()
}

async fn check(store: &ReadStore, model: &Registry, query: &str, parameters: &[(String, String)], when: &str) -> bool {
    let parsed = SearchQuery::parse_index(query, &Limits::default()).unwrap();
    let found = store.search(&parsed).await.unwrap().value;
    let expected = model.answer(parameters);
    assert!(
        found == expected,
        "{when}: {query}\nindex: {found:#?}\nmodel: {expected:#?}"
    );
    !expected.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn model_equals_index_through_the_writer() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    let mut world = World::new(2026).await;
    let state = client
        .query_one("SELECT era, history_at FROM state", &[])
        .await
        .unwrap();
    world.model.era = state.get(0);
    world.model.times.push(state.get(1));
    let pipeline = Pipeline::start(config(&world.fake.url(), &database, "")).await;
    let store = ReadStore::new(pool(&database), RepositoryFilter::default());

    // Every repository is known before the first damaged manifest, so that tags are asked for by HEAD.
    let plain = world
        .model
        .manifests
        .keys()
        .find(|digest| world.is_readable(digest))
        .unwrap()
        .clone();
    for repository in REPOSITORIES.iter().chain([&KEEPER]) {
        world.tag(repository, "first", &plain);
    }
    let (mut asked, mut answered) = (0, 0);
    for step in 0..STEPS {
        let way = if step % 3 == 0 { Way::Scan } else { Way::Notifications };
        let mut events = Vec::new();
        if step > 0 {
            let count = world.random.random_range(1..4);
            for repository in REPOSITORIES.sample(&mut StdRng::seed_from_u64(step as u64), count) {
                events.extend(world.change(repository, way));
            }
            if step % 9 == 0 {
                world.heal();
            }
        }
        world.learn();
        let names: Vec<RepositoryName> = world.model.repositories.keys().cloned().collect();
        let expected: State = names.iter().map(|name| (name.clone(), world.expected(name))).collect();
        let expected = without_empty(&expected);
        match way {
            Way::Scan => {
                let summary = pipeline.scanner.scan().await.unwrap();
                assert!(summary.is_complete && summary.failed == 0, "step {step}: {summary:?}");
                assert_eq!(index(&client).await, expected, "step {step}");
            }
            Way::Notifications => {
                post(&pipeline.events, &events).await;
                until(&format!("step {step}: the notifications are served"), async || {
                    let left: i64 = client
                        .query_one("SELECT count(*) FROM scan_queue", &[])
                        .await
                        .unwrap()
                        .get(0);
                    let index = index(&client).await;
                    if left == 0 && index == expected {
                        Ok(())
                    } else {
                        Err((left, index))
                    }
                })
                .await;
            }
        }
        world.take_over(&client).await;
        assert_eq!(
            without_empty(world.model.states.last().unwrap()),
            expected,
            "step {step}"
        );
        for number in 0..QUESTIONS_A_STEP {
            // Every fourth question is about the present.
            let question = ask(&world.model, (step as u64 * QUESTIONS_A_STEP + number) * 4);
            let when = format!("step {step}");
            answered += u32::from(
                check(
                    &store,
                    &world.model,
                    &question.query_string,
                    &question.parameters,
                    &when,
                )
                .await,
            );
            asked += 1;
        }
    }
    assert!(world.model.newest() >= STEPS, "{} revisions", world.model.newest());
    for n in 0..world.model.states.len() {
        let as_of = format!("{}.{n}", world.model.era);
        let parameters = [("as_of".to_owned(), as_of.clone())];
        check(
            &store,
            &world.model,
            &format!("as_of={as_of}"),
            &parameters,
            "at the end",
        )
        .await;
        asked += 1;
    }
    for number in 0..QUESTIONS_AT_THE_END {
        let question = ask(&world.model, number);
        answered += u32::from(
            check(
                &store,
                &world.model,
                &question.query_string,
                &question.parameters,
                "at the end",
            )
            .await,
        );
        asked += 1;
    }
    println!(
        "{STEPS} steps, {} revisions, {asked} questions, {answered} with an answer; {} damaged, {} missing at the end",
        world.model.newest(),
        world.damaged.len(),
        world.missing.len()
    );
    assert!(
        answered * 2 >= asked,
        "too few questions have an answer: {answered} of {asked}"
    );
    pipeline.stop().await;
}
