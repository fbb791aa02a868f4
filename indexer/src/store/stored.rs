//! What a scan needs to know of what is stored, before it asks the registry.

use std::collections::{BTreeMap, HashMap};

use diesel::QueryableByName;
use diesel::sql_types::{Array, Bool, Bytea, Jsonb, Nullable, Text};
use diesel_async::RunQueryDsl;
use flagstate_common::digest::Digest;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::store::StoreError;
use flagstate_common::store::sql::sql;
use flagstate_common::tag::Tag;
use serde_json::Value;

use super::WriteStore;
use super::content::uncompress;
use crate::scan::observation::{StoredManifest, StoredRepository, StoredTag};

#[derive(QueryableByName)]
struct TagRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bytea)]
    digest: Vec<u8>,
    #[diesel(sql_type = Bool)]
    healable: bool,
    #[diesel(sql_type = Bool)]
    has_push_time: bool,
}

#[derive(QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = Bool)]
    is_known: bool,
}

#[derive(QueryableByName)]
struct ManifestRow {
    #[diesel(sql_type = Bytea)]
    digest: Vec<u8>,
    #[diesel(sql_type = Bool)]
    verified: bool,
    #[diesel(sql_type = Bool)]
    healable: bool,
    #[diesel(sql_type = Jsonb)]
    problems: Value,
    #[diesel(sql_type = Bool)]
    held_here: bool,
    #[diesel(sql_type = Bool)]
    held_somewhere: bool,
}

#[derive(QueryableByName)]
struct DocumentRow {
    #[diesel(sql_type = Bytea)]
    digest: Vec<u8>,
    #[diesel(sql_type = Bytea)]
    raw: Vec<u8>,
}

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Which of a repository's tags to read.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// All of them.
    All,
    /// These, and those that point at these digests.
    Named(&'a [Tag], &'a [Digest]),
}

/// Whether manifest `m` leads repository `r` to an image that it is not recorded as holding, and that some repository
/// that is shown holds: one that could be read only after `r` was looked at.
macro_rules! lacks_leaf {
    () => {
        "EXISTS (SELECT FROM index_leaf l WHERE l.image_index_id = m.id
             AND NOT EXISTS (SELECT FROM repository_manifest h
                             WHERE h.repository_id = r.id AND h.manifest_id = l.manifest_id)
             AND EXISTS (SELECT FROM repository_manifest h JOIN repository s ON s.id = h.repository_id
                         WHERE h.manifest_id = l.manifest_id AND NOT s.hidden)
             AND cardinality(l.via) = (SELECT count(*) FROM repository_manifest h
                                       WHERE h.repository_id = r.id AND h.manifest_id = ANY(l.via)))"
    };
}

impl WriteStore {
    /// The repository as the index has it.
    ///
    /// # Errors
    /// Database errors.
    pub async fn repository(&self, name: &RepositoryName, which: Which<'_>) -> Result<StoredRepository, StoreError> {
        let (tags, digests) = match which {
            Which::All => (None, None),
            Which::Named(tags, digests) => (Some(tags), Some(digests)),
        };
        let mut connection = self.pool.connection().await?;
        let known: KnownRow = sql("SELECT EXISTS (SELECT FROM repository WHERE name = $1) AS is_known")
            .bind::<Text, _>(name.as_str())
            .get_result(&mut connection)
            .await?;
        let rows: Vec<TagRow> = sql(concat!(
            "SELECT t.name, m.digest, m.healable OR ",
            lacks_leaf!(),
            " AS healable,
                    t.pushed_at IS NOT NULL AS has_push_time
             FROM repository r JOIN tag t ON t.repository_id = r.id JOIN manifest m ON m.id = t.manifest_id
             WHERE r.name = $1 AND t.to_n IS NULL AND ($2 IS NULL OR t.name = ANY($2) OR m.digest = ANY($3))"
        ))
        .bind::<Text, _>(name.as_str())
        .bind::<Nullable<Array<Text>>, _>(tags.map(|tags| tags.iter().map(Tag::as_str).collect::<Vec<_>>()))
        .bind::<Nullable<Array<Bytea>>, _>(digests.map(to_bytes))
        .load(&mut connection)
        .await?;
        let tags: Option<BTreeMap<Tag, StoredTag>> = rows
            .into_iter()
            .map(|row| {
                let digest = Digest::from_bytes(&row.digest)?;
                let stored = StoredTag {
                    digest,
                    healable: row.healable,
                    has_push_time: row.has_push_time,
                };
                Some((row.name.parse().ok()?, stored))
            })
            .collect();
        let tags = tags.ok_or(StoreError::Corrupt {
            what: "a tag's name or digest",
        })?;
        Ok(StoredRepository {
            is_known: known.is_known,
            tags,
        })
    }

    /// Those of the digests that are stored, as seen from a repository.
    ///
    /// # Errors
    /// Database errors.
    pub async fn manifests(
        &self,
        repository: &RepositoryName,
        digests: &[Digest],
    ) -> Result<HashMap<Digest, StoredManifest>, StoreError> {
        if digests.is_empty() {
            return Ok(HashMap::new());
        }
        let mut connection = self.pool.connection().await?;
        let rows: Vec<ManifestRow> = sql(concat!(
            "SELECT m.digest, m.verified, m.healable, m.problems,
                    EXISTS (SELECT FROM repository_manifest h JOIN repository r ON r.id = h.repository_id
                            WHERE h.manifest_id = m.id AND r.name = $1 AND NOT ",
            lacks_leaf!(),
            ") AS held_here,
                    EXISTS (SELECT FROM repository_manifest h JOIN repository r ON r.id = h.repository_id
                            WHERE h.manifest_id = m.id AND NOT r.hidden) AS held_somewhere
             FROM manifest m WHERE m.digest = ANY($2)"
        ))
        .bind::<Text, _>(repository.as_str())
        .bind::<Array<Bytea>, _>(to_bytes(digests))
        .load(&mut connection)
        .await?;
        let manifests: Option<_> = rows
            .into_iter()
            .map(|row| {
                let stored = StoredManifest {
                    verified: row.verified,
                    healable: row.healable,
                    // A problem of a later release reads as another problem, and so is written anew.
                    problems: serde_json::from_value(row.problems).unwrap_or_default(),
                    held_here: row.held_here,
                    held_somewhere: row.held_somewhere,
                };
                Some((Digest::from_bytes(&row.digest)?, stored))
            })
            .collect();
        manifests.ok_or(StoreError::Corrupt {
            what: "a manifest's digest",
        })
    }

    /// The bytes of those of the documents that are stored.
    ///
    /// # Errors
    /// Database errors.
    pub async fn documents(&self, digests: &[Digest]) -> Result<HashMap<Digest, Vec<u8>>, StoreError> {
        if digests.is_empty() {
            return Ok(HashMap::new());
        }
        let mut connection = self.pool.connection().await?;
        let rows: Vec<DocumentRow> = sql("SELECT d.digest, d.raw FROM document d
             WHERE d.digest = ANY($1) AND EXISTS (
                 SELECT FROM manifest m JOIN repository_manifest h ON h.manifest_id = m.id
                        JOIN repository r ON r.id = h.repository_id
                 WHERE m.config_digest = d.digest AND NOT r.hidden)")
        .bind::<Array<Bytea>, _>(to_bytes(digests))
        .load(&mut connection)
        .await?;
        let documents: Option<_> = rows
            .into_iter()
            .map(|row| Some((Digest::from_bytes(&row.digest)?, uncompress(&row.raw)?)))
            .collect();
        documents.ok_or(StoreError::Corrupt { what: "a document" })
    }

    /// Names of repositories that hold a tag now and that a scan of `seen` did not come by, in byte order.
    ///
    /// # Errors
    /// Database errors.
    pub async fn repositories_beside(&self, seen: &[RepositoryName]) -> Result<Vec<RepositoryName>, StoreError> {
        let mut connection = self.pool.connection().await?;
        let rows: Vec<NameRow> = sql("SELECT r.name FROM repository r
             WHERE EXISTS (SELECT FROM tag t WHERE t.repository_id = r.id AND t.to_n IS NULL)
               AND NOT EXISTS (SELECT FROM unnest($1) AS s (name) WHERE s.name = r.name)
             ORDER BY r.name")
        .bind::<Array<Text>, _>(seen.iter().map(RepositoryName::as_str).collect::<Vec<_>>())
        .load(&mut connection)
        .await?;
        let names: Option<Vec<_>> = rows.into_iter().map(|row| row.name.parse().ok()).collect();
        names.ok_or(StoreError::Corrupt {
            what: "a repository's name",
        })
    }
}

/// The stored form of digests.
pub(super) fn to_bytes(digests: &[Digest]) -> Vec<Vec<u8>> {
    digests.iter().map(Digest::to_bytes).collect()
}
