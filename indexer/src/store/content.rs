//! Storing manifests and configs by their digest: rows that no reader sees until a tag leads to them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use diesel::sql_types::{Array, BigInt, Bool, Bytea, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use flagstate_common::digest::Digest;
use flagstate_common::media_type::ManifestKind;
use flagstate_common::store::sql::sql;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use super::stored::to_bytes;
use super::{WriteError, WriteStore, revision};
use crate::scan::manifest::ObservedManifest;

impl WriteStore {
    /// Stores content ahead of the change set that will lead to it, so that no scan has to hold all of it in memory.
    ///
    /// Only for manifests that are not stored yet: nothing that a reader can see changes.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn stage(&self, manifests: &[Arc<ObservedManifest>]) -> Result<(), WriteError> {
        let mut tries = 1;
        loop {
            match self.try_stage(manifests).await {
                Err(error) if error.lost_race(tries) => tries += 1,
                result => return result,
            }
        }
    }

    async fn try_stage(&self, manifests: &[Arc<ObservedManifest>]) -> Result<(), WriteError> {
        let _nothing_is_swept = self.content.read().await;
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                store(connection, manifests, Existing::Keep, self.index_depth).await?;
                revision::check(connection, &self.lease).await
            })
            .await
    }
}

/// What to do with a manifest that is stored already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Existing {
    /// Leave it.
    Keep,
    /// Write what is known now.
    Replace,
}

/// Stores manifests, their configs, layers and members, and what follows from them for searches.
pub(super) async fn store(
    connection: &mut AsyncPgConnection,
    manifests: &[Arc<ObservedManifest>],
    existing: Existing,
    index_depth: usize,
) -> Result<(), WriteError> {
    if manifests.is_empty() {
        return Ok(());
    }
    store_documents(connection, manifests).await?;
    store_manifests(connection, manifests, existing).await?;
    store_layers(connection, manifests).await?;
    store_members(connection, manifests).await?;
    derive_leaves(connection, manifests, index_depth).await
}

/// Compressed as `document.raw` keeps it.
fn compress(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into a Vec does not fail.
    match encoder.write_all(body).and_then(|()| encoder.finish()) {
        Ok(compressed) => compressed,
        Err(error) => unreachable!("a Vec refused bytes: {error}"),
    }
}

/// The bytes of a `document.raw`; `None` when it is damaged.
pub(super) fn uncompress(raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    ZlibDecoder::new(raw).read_to_end(&mut body).ok()?;
    Some(body)
}

async fn store_documents(
    connection: &mut AsyncPgConnection,
    manifests: &[Arc<ObservedManifest>],
) -> Result<(), WriteError> {
    let mut bodies: BTreeMap<&Digest, &[u8]> = BTreeMap::new();
    for manifest in manifests {
        let Some(content) = &manifest.content else { continue };
        bodies.insert(&manifest.digest, &content.body);
        if let (Some(config), Some(body)) = (&content.manifest.config, &content.config_body) {
            bodies.insert(&config.digest, body);
        }
    }
    sql("INSERT INTO document (digest, size, raw) SELECT * FROM unnest($1, $2, $3) ON CONFLICT (digest) DO NOTHING")
        .bind::<Array<Bytea>, _>(bodies.keys().map(|digest| digest.to_bytes()).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(bodies.values().map(|body| size(body.len() as u64)).collect::<Vec<_>>())
        .bind::<Array<Bytea>, _>(bodies.values().map(|body| compress(body)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

/// One array for each column of `manifest`, for `unnest`.
#[derive(Default)]
struct Columns {
    digest: Vec<Vec<u8>>,
    verified: Vec<bool>,
    kind: Vec<i16>,
    media_type: Vec<String>,
    artifact_type: Vec<String>,
    size: Vec<i64>,
    config_digest: Vec<Option<Vec<u8>>>,
    subject_digest: Vec<Option<Vec<u8>>>,
    created: Vec<Option<DateTime<Utc>>>,
    platform: Vec<Value>,
    annotations: Vec<Value>,
    labels: Vec<Value>,
    history: Vec<Value>,
    title: Vec<Option<String>>,
    description: Vec<Option<String>>,
    layers_size: Vec<i64>,
    terms: Vec<Value>,
    problems: Vec<Value>,
    healable: Vec<bool>,
    sanitised: Vec<bool>,
}

impl Columns {
    fn push(&mut self, observed: &ObservedManifest) {
        let content = observed.content.as_ref();
        let manifest = content.map(|content| &content.manifest);
        let config = content.map(|content| &content.config);
        let platform = config.map(|config| &config.platform);
        self.digest.push(observed.digest.to_bytes());
        self.verified.push(observed.is_verified());
        self.kind
            .push(content.map_or(OTHER, |content| kind_number(content.kind())));
        self.media_type.push(
            manifest
                .map(|manifest| manifest.media_type.to_string())
                .unwrap_or_default(),
        );
        self.artifact_type.push(
            manifest
                .map(|manifest| manifest.artifact_type.clone())
                .unwrap_or_default(),
        );
        self.size.push(
            content
                .map(|content| size(content.body.len() as u64))
                .unwrap_or_default(),
        );
        let config_digest = manifest
            .and_then(|manifest| manifest.config.as_ref())
            .map(|config| &config.digest);
        self.config_digest.push(config_digest.map(Digest::to_bytes));
        self.subject_digest.push(
            manifest
                .and_then(|manifest| manifest.subject.as_ref())
                .map(Digest::to_bytes),
        );
        self.created.push(config.and_then(|config| config.created));
        self.platform.push(platform.map_or(json!({}), |platform| {
            json!({
                "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
                "os_version": platform.os_version, "os_features": platform.os_features,
            })
        }));
        self.annotations.push(json!(
            manifest
                .map(|manifest| &manifest.annotations)
                .cloned()
                .unwrap_or_default()
        ));
        self.labels.push(json!(
            content.map(|content| content.labels().clone()).unwrap_or_default()
        ));
        self.history.push(json!(
            config.map(|config| config.history.as_slice()).unwrap_or_default()
        ));
        self.title
            .push(content.and_then(|content| content.title()).map(str::to_owned));
        self.description
            .push(content.and_then(|content| content.description()).map(str::to_owned));
        self.layers_size
            .push(content.map(|content| size(content.layers_size())).unwrap_or_default());
        self.terms.push(json!(
            content
                .map(|content| content.terms(&observed.digest))
                .unwrap_or_default()
        ));
        self.problems.push(json!(observed.problems));
        self.healable.push(observed.healable);
        let sanitised =
            |content: &crate::scan::manifest::Content| content.manifest.sanitised || content.config.sanitised;
        self.sanitised.push(content.is_some_and(sanitised));
    }
}

const OTHER: i16 = 2;

fn kind_number(kind: ManifestKind) -> i16 {
    match kind {
        ManifestKind::Image => 0,
        ManifestKind::ImageIndex => 1,
        ManifestKind::Other => OTHER,
    }
}

fn size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

async fn store_manifests(
    connection: &mut AsyncPgConnection,
    manifests: &[Arc<ObservedManifest>],
    existing: Existing,
) -> Result<(), WriteError> {
    let mut columns = Columns::default();
    for manifest in manifests {
        columns.push(manifest);
    }
    sql("INSERT INTO manifest (
            digest, verified, kind, media_type, artifact_type, size, config_digest, subject_digest, created,
            os, architecture, variant, os_version, os_features,
            annotations, labels, history, title, description, layers_size, terms, problems, healable, sanitised)
        SELECT digest, verified, kind, media_type, artifact_type, size, config_digest, subject_digest, created,
            coalesce(platform ->> 'os', ''), coalesce(platform ->> 'architecture', ''),
            coalesce(platform ->> 'variant', ''), coalesce(platform ->> 'os_version', ''),
            ARRAY(SELECT jsonb_array_elements_text(platform -> 'os_features')),
            annotations, labels, history, title, description, layers_size,
            ARRAY(SELECT jsonb_array_elements_text(terms)::bigint), problems, healable, sanitised
        FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) AS t (
            digest, verified, kind, media_type, artifact_type, size, config_digest, subject_digest, created, platform,
            annotations, labels, history, title, description, layers_size, terms, problems, healable, sanitised)
        ORDER BY digest
        ON CONFLICT (digest) DO UPDATE SET
            verified = excluded.verified, kind = excluded.kind, media_type = excluded.media_type,
            artifact_type = excluded.artifact_type, size = excluded.size, config_digest = excluded.config_digest,
            subject_digest = excluded.subject_digest, created = excluded.created, os = excluded.os,
            architecture = excluded.architecture, variant = excluded.variant, os_version = excluded.os_version,
            os_features = excluded.os_features, annotations = excluded.annotations, labels = excluded.labels,
            history = excluded.history, title = excluded.title, description = excluded.description,
            layers_size = excluded.layers_size, terms = excluded.terms, problems = excluded.problems,
            healable = excluded.healable, sanitised = excluded.sanitised
        WHERE $21 AND (excluded.verified OR NOT manifest.verified)
            AND (manifest.verified, manifest.problems, manifest.healable)
                IS DISTINCT FROM (excluded.verified, excluded.problems, excluded.healable)")
    .bind::<Array<Bytea>, _>(columns.digest)
    .bind::<Array<Bool>, _>(columns.verified)
    .bind::<Array<SmallInt>, _>(columns.kind)
    .bind::<Array<Text>, _>(columns.media_type)
    .bind::<Array<Text>, _>(columns.artifact_type)
    .bind::<Array<BigInt>, _>(columns.size)
    .bind::<Array<Nullable<Bytea>>, _>(columns.config_digest)
    .bind::<Array<Nullable<Bytea>>, _>(columns.subject_digest)
    .bind::<Array<Nullable<Timestamptz>>, _>(columns.created)
    .bind::<Array<Jsonb>, _>(columns.platform)
    .bind::<Array<Jsonb>, _>(columns.annotations)
    .bind::<Array<Jsonb>, _>(columns.labels)
    .bind::<Array<Jsonb>, _>(columns.history)
    .bind::<Array<Nullable<Text>>, _>(columns.title)
    .bind::<Array<Nullable<Text>>, _>(columns.description)
    .bind::<Array<BigInt>, _>(columns.layers_size)
    .bind::<Array<Jsonb>, _>(columns.terms)
    .bind::<Array<Jsonb>, _>(columns.problems)
    .bind::<Array<Bool>, _>(columns.healable)
    .bind::<Array<Bool>, _>(columns.sanitised)
    .bind::<Bool, _>(existing == Existing::Replace)
    .execute(connection)
    .await?;
    Ok(())
}

async fn store_layers(
    connection: &mut AsyncPgConnection,
    manifests: &[Arc<ObservedManifest>],
) -> Result<(), WriteError> {
    let (mut owner, mut position, mut digest, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut media_type, mut diff_id, mut chain_id) = (Vec::new(), Vec::new(), Vec::new());
    for manifest in manifests {
        let layers = manifest.content.iter().flat_map(|content| content.layers());
        for (index, layer) in (0_i32..).zip(layers) {
            owner.push(manifest.digest.to_bytes());
            position.push(index);
            digest.push(layer.descriptor.digest.to_bytes());
            sizes.push(size(layer.descriptor.size));
            media_type.push(layer.descriptor.media_type.as_str());
            diff_id.push(layer.diff_id.map(Digest::to_bytes));
            chain_id.push(layer.chain_id.as_ref().map(Digest::to_bytes));
        }
    }
    if owner.is_empty() {
        return Ok(());
    }
    sql(
        "INSERT INTO layer (manifest_id, position, digest, size, media_type, diff_id, chain_id)
         SELECT m.id, t.position, t.digest, t.size, t.media_type, t.diff_id, t.chain_id
         FROM unnest($1, $2, $3, $4, $5, $6, $7) AS t (owner, position, digest, size, media_type, diff_id, chain_id)
              JOIN manifest m ON m.digest = t.owner
         ORDER BY t.owner, t.position
         ON CONFLICT (manifest_id, position) DO UPDATE SET diff_id = excluded.diff_id, chain_id = excluded.chain_id
         WHERE layer.diff_id IS DISTINCT FROM excluded.diff_id AND excluded.diff_id IS NOT NULL",
    )
    .bind::<Array<Bytea>, _>(owner)
    .bind::<Array<Integer>, _>(position)
    .bind::<Array<Bytea>, _>(digest)
    .bind::<Array<BigInt>, _>(sizes)
    .bind::<Array<Text>, _>(media_type)
    .bind::<Array<Nullable<Bytea>>, _>(diff_id)
    .bind::<Array<Nullable<Bytea>>, _>(chain_id)
    .execute(connection)
    .await?;
    Ok(())
}

async fn store_members(
    connection: &mut AsyncPgConnection,
    manifests: &[Arc<ObservedManifest>],
) -> Result<(), WriteError> {
    let (mut owner, mut position, mut digest, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut media_type, mut details, mut annotations, mut attestation) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for manifest in manifests {
        let members = manifest.content.iter().flat_map(|content| &content.manifest.members);
        for (index, member) in (0_i32..).zip(members) {
            owner.push(manifest.digest.to_bytes());
            position.push(index);
            digest.push(member.descriptor.digest.to_bytes());
            sizes.push(size(member.descriptor.size));
            media_type.push(member.descriptor.media_type.as_str());
            details.push(json!({
                "artifact_type": member.artifact_type, "os": member.platform.os,
                "architecture": member.platform.architecture, "variant": member.platform.variant,
                "os_version": member.platform.os_version, "os_features": member.platform.os_features,
            }));
            annotations.push(json!(member.annotations));
            attestation.push(member.is_attestation());
        }
    }
    if owner.is_empty() {
        return Ok(());
    }
    sql(
        "INSERT INTO index_member (image_index_id, position, digest, size, media_type, artifact_type, os, architecture,
             variant, os_version, os_features, annotations, attestation)
         SELECT m.id, t.position, t.digest, t.size, t.media_type, t.details ->> 'artifact_type', t.details ->> 'os',
             t.details ->> 'architecture', t.details ->> 'variant', t.details ->> 'os_version',
             ARRAY(SELECT jsonb_array_elements_text(t.details -> 'os_features')), t.annotations, t.attestation
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
                  AS t (owner, position, digest, size, media_type, details, annotations, attestation)
              JOIN manifest m ON m.digest = t.owner
         ORDER BY t.owner, t.position
         ON CONFLICT (image_index_id, position) DO NOTHING",
    )
    .bind::<Array<Bytea>, _>(owner)
    .bind::<Array<Integer>, _>(position)
    .bind::<Array<Bytea>, _>(digest)
    .bind::<Array<BigInt>, _>(sizes)
    .bind::<Array<Text>, _>(media_type)
    .bind::<Array<Jsonb>, _>(details)
    .bind::<Array<Jsonb>, _>(annotations)
    .bind::<Array<Bool>, _>(attestation)
    .execute(connection)
    .await?;
    Ok(())
}

/// Works out anew which images the image indexes lead to that are, or are above, one of `manifests`.
async fn derive_leaves(
    connection: &mut AsyncPgConnection,
    manifests: &[Arc<ObservedManifest>],
    index_depth: usize,
) -> Result<(), WriteError> {
    let digests: Vec<Digest> = manifests.iter().map(|manifest| manifest.digest.clone()).collect();
    sql("WITH RECURSIVE touched AS (
             SELECT id, digest, kind FROM manifest WHERE digest = ANY($1)
             UNION
             SELECT above.id, above.digest, above.kind
             FROM touched JOIN index_member i ON i.digest = touched.digest
                  JOIN manifest above ON above.id = i.image_index_id
         ), walk AS (
             SELECT t.id AS top, i.digest, ARRAY[i.position] AS path, ARRAY[t.id] AS via, i.os, i.architecture
             FROM touched t JOIN index_member i ON i.image_index_id = t.id
             WHERE t.kind = 1 AND NOT i.attestation
             UNION ALL
             SELECT w.top, i.digest, w.path || i.position, w.via || m.id, i.os, i.architecture
             FROM walk w JOIN manifest m ON m.digest = w.digest JOIN index_member i ON i.image_index_id = m.id
             WHERE m.kind = 1 AND NOT i.attestation AND cardinality(w.via) < $2 AND m.id <> ALL(w.via)
         ), leaf AS (
             SELECT w.top, row_number() OVER (PARTITION BY w.top ORDER BY w.path) - 1 AS position, m.id,
                    coalesce(nullif(m.os, ''), w.os) AS os,
                    coalesce(nullif(m.architecture, ''), w.architecture) AS architecture, w.via,
                    ARRAY(SELECT unnest(m.terms) UNION
                          SELECT unnest(above.terms) FROM manifest above WHERE above.id = ANY(w.via)) AS terms
             FROM walk w JOIN manifest m ON m.digest = w.digest
             WHERE m.kind <> 1 AND m.verified
         ), stale AS (
             DELETE FROM index_leaf l USING touched t
             WHERE l.image_index_id = t.id
               AND l.position >= (SELECT count(*) FROM leaf WHERE leaf.top = t.id)
         )
         INSERT INTO index_leaf (image_index_id, position, manifest_id, os, architecture, via, terms)
         SELECT top, position, id, os, architecture, via, terms FROM leaf ORDER BY top, position
         ON CONFLICT (image_index_id, position) DO UPDATE
         SET manifest_id = excluded.manifest_id, os = excluded.os, architecture = excluded.architecture,
             via = excluded.via, terms = excluded.terms")
    .bind::<Array<Bytea>, _>(to_bytes(&digests))
    .bind::<Integer, _>(i32::try_from(index_depth).unwrap_or(i32::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_as_they_were() {
        for body in [&b""[..], b"{}", &[0; 100_000]] {
            assert_eq!(uncompress(&compress(body)).as_deref(), Some(body));
        }
        assert_eq!(uncompress(b"damaged"), None);
    }
}
