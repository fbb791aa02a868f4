//! Which images an image index leads to, kept up to date whatever comes first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flagstate_common::config::Limits;
use flagstate_common::digest::Digest;
use flagstate_common::document::{Problem, ProblemCode, parse_config};
use flagstate_indexer::scan::manifest::ObservedManifest;
use flagstate_indexer::scan::observation::{Cause, ChangeSet};
use flagstate_test_support::model::{Content, Manifest, Registry, generate};
use flagstate_test_support::postgres::TestDatabase;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::Client;

use super::harness::{pool, write_store};

/// A leaf as it is stored; terms sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Leaf {
    digest: Digest,
    os: String,
    architecture: String,
    via: Vec<Digest>,
    terms: BTreeSet<i64>,
}

fn read(digest: &Digest, manifest: &Manifest) -> ObservedManifest {
    let limits = Limits::default();
    let body = manifest.document.clone().into();
    let mut observed = ObservedManifest::read(digest.clone(), body, Some(&manifest.media_type), &limits);
    if let (Some(content), Some(config)) = (&mut observed.content, &manifest.config_document) {
        content.config = parse_config(config, &limits);
        content.config_body = Some(config.clone().into());
    }
    observed
}

fn unread(digest: &Digest) -> ObservedManifest {
    ObservedManifest::unread(
        digest.clone(),
        Problem::new(ProblemCode::Unreadable, "by order of the test"),
    )
}

fn change(manifests: Vec<Arc<ObservedManifest>>) -> ChangeSet {
    ChangeSet {
        repository: "apps/a".parse().unwrap(),
        cause: Cause::Scan,
        held: manifests
            .iter()
            .map(|manifest| (manifest.digest.clone(), None))
            .collect(),
        manifests,
        moved: BTreeMap::new(),
        ended: BTreeSet::new(),
        dated: BTreeMap::new(),
    }
}

async fn stored(client: &Client) -> BTreeMap<Digest, Vec<Leaf>> {
    let rows = client
        .query(
            "SELECT i.digest, m.digest, l.os, l.architecture, l.terms, l.position,
                    ARRAY(SELECT v.digest FROM unnest(l.via) WITH ORDINALITY AS u (id, place)
                          JOIN manifest v ON v.id = u.id ORDER BY u.place)
             FROM index_leaf l JOIN manifest i ON i.id = l.image_index_id JOIN manifest m ON m.id = l.manifest_id
             ORDER BY l.image_index_id, l.position",
            &[],
        )
        .await
        .unwrap();
    let digest = |bytes: &[u8]| Digest::from_bytes(bytes).unwrap();
    let mut stored: BTreeMap<Digest, Vec<Leaf>> = BTreeMap::new();
    for row in rows {
        let leaves = stored.entry(digest(row.get(0))).or_default();
        assert_eq!(
            row.get::<_, i32>(5),
            i32::try_from(leaves.len()).unwrap(),
            "positions have no gaps"
        );
        let via: Vec<Vec<u8>> = row.get(6);
        leaves.push(Leaf {
            digest: digest(row.get(1)),
            os: row.get(2),
            architecture: row.get(3),
            via: via.iter().map(|bytes| digest(bytes)).collect(),
            terms: row.get::<_, Vec<i64>>(4).into_iter().collect(),
        });
    }
    stored
}

/// What the model says of the manifests that it knows.
fn expected(known: &Registry) -> BTreeMap<Digest, Vec<Leaf>> {
    let terms = |digest: &Digest| read(digest, &known.manifests[digest]).content.unwrap().terms(digest);
    let indexes = known
        .manifests
        .iter()
        .filter(|(_, manifest)| manifest.verified && matches!(manifest.content, Content::ImageIndex { .. }));
    let leaves = indexes.map(|(index, _)| {
        let leaves = known.leaves(index).into_iter();
        let shown = leaves.filter(|leaf| known.manifests[&leaf.digest].verified);
        let leaves = shown.map(|leaf| Leaf {
            terms: leaf.via.iter().chain([&leaf.digest]).flat_map(terms).collect(),
            digest: leaf.digest,
            os: leaf.os,
            architecture: leaf.architecture,
            via: leaf.via,
        });
        (index.clone(), leaves.collect::<Vec<_>>())
    });
    leaves.filter(|(_, leaves)| !leaves.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_equal_a_naive_walk() {
    const SEEDS: u64 = 16;
    let mut nested = 0;
    for seed in 0..SEEDS {
        let database = TestDatabase::create().await.unwrap();
        let client = database.client().await.unwrap();
        let store = write_store(&pool(&database)).await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut known = generate(seed);
        let all = std::mem::take(&mut known.manifests);
        // Each manifest is read once; some were there before, and could not be read.
        let mut order: Vec<Digest> = all.keys().cloned().collect();
        let twice: Vec<Digest> = order.iter().filter(|_| random.random_bool(0.3)).cloned().collect();
        order.extend(twice.iter().cloned());
        order.shuffle(&mut random);
        let mut waiting: BTreeSet<Digest> = twice.into_iter().collect();
        while !order.is_empty() {
            let count = random.random_range(1..5).min(order.len());
            let mut batch: BTreeMap<Digest, bool> = BTreeMap::new();
            for digest in order.drain(..count) {
                let is_read = batch.contains_key(&digest) || !waiting.remove(&digest);
                batch.insert(digest, is_read);
            }
            let is_new = batch.keys().all(|digest| !known.manifests.contains_key(digest));
            let observed = batch.iter().map(|(digest, is_read)| match is_read {
                true => Arc::new(read(digest, &all[digest])),
                false => Arc::new(unread(digest)),
            });
            let observed: Vec<_> = observed.collect();
            if is_new && random.random_bool(0.5) {
                store.stage(&observed).await.unwrap();
            } else {
                store.apply(&change(observed), None).await.unwrap();
            }
            for (digest, is_read) in batch {
                let mut manifest = all[&digest].clone();
                manifest.verified = is_read;
                known.manifests.insert(digest, manifest);
            }
            let (stored, expected) = (stored(&client).await, expected(&known));
            assert_eq!(
                stored,
                expected,
                "seed {seed}, {} manifests known",
                known.manifests.len()
            );
            nested += stored.values().flatten().filter(|leaf| leaf.via.len() > 1).count();
        }
        assert!(known.manifests.values().all(|manifest| manifest.verified));
    }
    assert!(nested > 50, "only {nested} leaves of nested image indexes were seen");
}
