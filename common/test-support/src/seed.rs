//! Writes a [model registry](crate::model) into a database, row by row, as the comments of the columns tell.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use flagstate_common::annotations::Annotations;
use flagstate_common::digest::Digest;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::terms::Term;
use tokio_postgres::{Client, Transaction};

use crate::model::{Content, Manifest, Registry};

/// Fills an empty, migrated database with a registry and its whole history.
///
/// # Errors
/// When PostgreSQL refuses.
pub async fn seed(client: &mut Client, registry: &Registry) -> Result<()> {
    let transaction = client.transaction().await?;
    let ids: BTreeMap<&Digest, i64> = registry.manifests.keys().zip(1..).collect();
    for (digest, manifest) in &registry.manifests {
        write_manifest(&transaction, ids[digest], digest, manifest).await?;
    }
    for digest in registry.manifests.keys() {
        write_leaves(&transaction, registry, &ids, digest).await?;
    }
    for ((name, repository), id) in registry.repositories.iter().zip(1_i64..) {
        transaction
            .execute(
                "INSERT INTO repository (id, name, hidden) OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)",
                &[&id, &name.as_str(), &repository.hidden],
            )
            .await?;
        for digest in &repository.holds {
            transaction
                .execute(
                    "INSERT INTO repository_manifest (repository_id, manifest_id) VALUES ($1, $2)",
                    &[&id, &ids[digest]],
                )
                .await?;
        }
        for (tag, digest, from, to) in stays(registry, name) {
            transaction
                .execute(
                    "INSERT INTO tag (repository_id, name, manifest_id, from_n, to_n) \
                     VALUES ($1, $2, $3, $4, $5)",
                    &[&id, &tag, &ids[&digest], &from, &to],
                )
                .await?;
        }
    }
    write_revisions(&transaction, registry).await?;
    transaction.commit().await?;
    Ok(())
}

async fn write_manifest(client: &Transaction<'_>, id: i64, digest: &Digest, manifest: &Manifest) -> Result<()> {
    let untold = String::new();
    let no_labels = Annotations::new();
    let (kind, os, architecture, labels) = match &manifest.content {
        Content::ImageIndex { .. } => (1_i16, &untold, &untold, &no_labels),
        Content::Image {
            os,
            architecture,
            labels,
        } if manifest.config_document.is_some() => (0, os, architecture, labels),
        Content::Image {
            os,
            architecture,
            labels,
        } => (2, os, architecture, labels),
    };
    let annotations = serde_json::to_string(&manifest.annotations)?;
    let labels = serde_json::to_string(labels)?;
    client
        .execute(
            "INSERT INTO manifest (id, digest, verified, kind, media_type, artifact_type, os, architecture, \
                 annotations, labels, terms) OVERRIDING SYSTEM VALUE \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10::text::jsonb, $11)",
            &[
                &id,
                &digest.to_bytes(),
                &manifest.verified,
                &kind,
                &manifest.media_type.as_str(),
                &manifest.artifact_type,
                os,
                architecture,
                &annotations,
                &labels,
                &terms(digest, manifest),
            ],
        )
        .await?;
    Ok(())
}

async fn write_leaves(
    client: &Transaction<'_>,
    registry: &Registry,
    ids: &BTreeMap<&Digest, i64>,
    image_index: &Digest,
) -> Result<()> {
    for (leaf, position) in registry.leaves(image_index).iter().zip(0_i32..) {
        let mut all_terms = terms(&leaf.digest, &registry.manifests[&leaf.digest]);
        for digest in &leaf.via {
            let manifest = &registry.manifests[digest];
            all_terms.push(Term::Digest(digest).hash());
            all_terms.extend(annotation_terms(&manifest.annotations));
        }
        let via: Vec<i64> = leaf.via.iter().map(|digest| ids[digest]).collect();
        client
            .execute(
                "INSERT INTO index_leaf (image_index_id, position, manifest_id, os, architecture, via, terms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    &ids[image_index],
                    &position,
                    &ids[&leaf.digest],
                    &leaf.os,
                    &leaf.architecture,
                    &via,
                    &all_terms,
                ],
            )
            .await?;
    }
    Ok(())
}

async fn write_revisions(client: &Transaction<'_>, registry: &Registry) -> Result<()> {
    for (time, n) in registry.times.iter().zip(0_i64..).skip(1) {
        client
            .execute(
                "INSERT INTO revision (n, era, at) VALUES ($1, $2, $3)",
                &[&n, &registry.era, time],
            )
            .await?;
    }
    let newest = i64::try_from(registry.newest())?;
    let first: &DateTime<Utc> = registry.times.first().context("a registry has a first state")?;
    let last = registry.times.last().context("a registry has a last state")?;
    client
        .execute(
            "UPDATE state SET era = $1, n = $2, at = $3, history_n = 0, history_at = $4",
            &[&registry.era, &newest, last, first],
        )
        .await?;
    Ok(())
}

/// From which revision to which each tag of a repository pointed where.
fn stays(registry: &Registry, name: &RepositoryName) -> Vec<(String, Digest, i64, Option<i64>)> {
    let mut ended = Vec::new();
    let mut present: BTreeMap<String, (Digest, i64)> = BTreeMap::new();
    for (state, n) in registry.states.iter().zip(0_i64..) {
        let now: BTreeMap<String, &Digest> = state
            .get(name)
            .into_iter()
            .flatten()
            .map(|(tag, digest)| (tag.to_string(), digest))
            .collect();
        let (stay, end): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut present)
            .into_iter()
            .partition(|(tag, (digest, _))| now.get(tag).is_some_and(|now| *now == digest));
        ended.extend(
            end.into_iter()
                .map(|(tag, (digest, from))| (tag, digest, from, Some(n))),
        );
        present = stay;
        for (tag, digest) in now {
            present.entry(tag).or_insert_with(|| (digest.clone(), n));
        }
    }
    let open = present
        .into_iter()
        .map(|(tag, (digest, from))| (tag, digest, from, None));
    ended.into_iter().chain(open).collect()
}

fn terms(digest: &Digest, manifest: &Manifest) -> Vec<i64> {
    let mut terms = annotation_terms(&manifest.annotations);
    terms.push(Term::Digest(digest).hash());
    if !manifest.artifact_type.is_empty() {
        terms.push(Term::ArtifactType(&manifest.artifact_type).hash());
    }
    if let Content::Image { labels, .. } = &manifest.content {
        for (key, value) in labels {
            terms.push(Term::LabelExists(key).hash());
            terms.push(Term::Label(key, value).hash());
        }
    }
    terms
}

fn annotation_terms(annotations: &Annotations) -> Vec<i64> {
    annotations
        .iter()
        .flat_map(|(key, value)| [Term::AnnotationExists(key).hash(), Term::Annotation(key, value).hash()])
        .collect()
}
