//! Removing from the index what nothing needs. Never from the registry.
//!
//! Needed is what a tag points at, now or within the kept history; what an image index leads to that its repository
//! holds; and what refers to a subject that its repository holds. The rest goes, once it is old enough not to belong
//! to a push that is under way.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bytea, Double, Nullable};
use diesel_async::{AsyncConnection, RunQueryDsl};
use flagstate_common::store::sql::sql;

use super::{WriteError, WriteStore, revision};

/// How old something has to be before it can be garbage, in seconds: pushes bring members and referrers before what
/// leads to them.
const MINIMUM_AGE_SECONDS: f64 = 3600.0;
/// Rows that one transaction looks at, while nothing is added.
const WINDOW: i64 = 2000;
/// History rows that one transaction removes.
const HISTORY_BATCH: i64 = 1000;

/// Where the next window begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    repository: i64,
    manifest: i64,
}

impl Window {
    /// Before the first row.
    pub const START: Self = Self {
        repository: 0,
        manifest: 0,
    };
}

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Ends of tags beyond the kept history.
    pub tags: u64,
    /// Manifests that repositories held.
    pub held: u64,
    /// Manifests themselves.
    pub manifests: u64,
    /// Raw documents.
    pub documents: u64,
}

impl std::ops::AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.tags += other.tags;
        self.held += other.held;
        self.manifests += other.manifests;
        self.documents += other.documents;
    }
}

impl Swept {
    /// Whether nothing was removed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(QueryableByName)]
struct HeldWindowRow {
    #[diesel(sql_type = BigInt)]
    removed: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    repository_id: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    manifest_id: Option<i64>,
}

#[derive(QueryableByName)]
struct ManifestWindowRow {
    #[diesel(sql_type = BigInt)]
    removed: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

#[derive(QueryableByName)]
struct DocumentWindowRow {
    #[diesel(sql_type = BigInt)]
    removed: i64,
    #[diesel(sql_type = Nullable<Bytea>)]
    last: Option<Vec<u8>>,
}

impl WriteStore {
    /// Moves the begin of the kept history up to what was so `keep` ago, by the database's clock; older revisions are gone
    /// from then on.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn forget_before(&self, keep: Duration) -> Result<(), WriteError> {
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                sql("UPDATE state SET history_n = oldest.n, history_at = oldest.at
                     FROM (SELECT n, at FROM revision WHERE at <= clock_timestamp() - make_interval(secs => $1) ORDER BY at DESC, n DESC LIMIT 1) AS oldest
                     WHERE oldest.n > history_n")
                .bind::<Double, _>(keep.as_secs_f64())
                .execute(connection)
                .await?;
                revision::check(connection, &self.lease).await
            })
            .await
    }

    /// Removes a batch of tags and changes that ended before the kept history began; 0 when there are no more.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn sweep_history(&self) -> Result<u64, WriteError> {
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                let tags = sql("DELETE FROM tag WHERE (repository_id, name, from_n) IN (
                         SELECT repository_id, name, from_n FROM tag
                         WHERE to_n <= (SELECT history_n FROM state) ORDER BY to_n LIMIT $1)")
                .bind::<BigInt, _>(HISTORY_BATCH)
                .execute(connection)
                .await?;
                let revisions = sql("DELETE FROM revision WHERE n IN (
                         SELECT n FROM revision WHERE n < (SELECT history_n FROM state) ORDER BY n LIMIT $1)")
                .bind::<BigInt, _>(HISTORY_BATCH)
                .execute(connection)
                .await?;
                revision::check(connection, &self.lease).await?;
                Ok((tags + revisions) as u64)
            })
            .await
    }

    /// Looks at a window of what repositories hold and removes what they need not hold; `None` after the last window.
    ///
    /// What is removed may have needed other things: the windows have to be gone through until nothing is removed.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn sweep_held(&self, window: &Window) -> Result<(u64, Option<Window>), WriteError> {
        let _nothing_is_added = self.content.write().await;
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                let row: HeldWindowRow = sql("WITH looked_at AS (
                         SELECT h.repository_id, h.manifest_id, h.first_seen, m.digest, m.subject_digest
                         FROM repository_manifest h JOIN manifest m ON m.id = h.manifest_id
                         WHERE (h.repository_id, h.manifest_id) > ($1, $2)
                         ORDER BY h.repository_id, h.manifest_id LIMIT $3
                     ), removed AS (
                         DELETE FROM repository_manifest h USING looked_at l
                         WHERE h.repository_id = l.repository_id AND h.manifest_id = l.manifest_id
                           AND l.first_seen < clock_timestamp() - make_interval(secs => $4)
                           AND NOT EXISTS (SELECT FROM tag t
                                           WHERE t.manifest_id = l.manifest_id AND t.repository_id = l.repository_id)
                           AND NOT EXISTS (SELECT FROM index_member i JOIN repository_manifest above
                                               ON above.manifest_id = i.image_index_id
                                           WHERE i.digest = l.digest AND above.repository_id = l.repository_id)
                           AND NOT EXISTS (SELECT FROM manifest s JOIN repository_manifest subject
                                               ON subject.manifest_id = s.id
                                           WHERE s.digest = l.subject_digest
                                             AND subject.repository_id = l.repository_id)
                         RETURNING h.manifest_id
                     )
                     SELECT (SELECT count(*) FROM removed) AS removed, last.repository_id, last.manifest_id
                     FROM (SELECT 1) AS one LEFT JOIN (
                         SELECT repository_id, manifest_id FROM looked_at
                         ORDER BY repository_id DESC, manifest_id DESC LIMIT 1) AS last ON true")
                .bind::<BigInt, _>(window.repository)
                .bind::<BigInt, _>(window.manifest)
                .bind::<BigInt, _>(WINDOW)
                .bind::<Double, _>(MINIMUM_AGE_SECONDS)
                .get_result(connection)
                .await?;
                revision::check(connection, &self.lease).await?;
                let last = row.repository_id.zip(row.manifest_id);
                let next = last.map(|(repository, manifest)| Window { repository, manifest });
                Ok((row.removed.unsigned_abs(), next))
            })
            .await
    }

    /// Looks at a window of manifests after `after` and removes those that no repository holds; `None` after the last.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn sweep_manifests(&self, after: i64) -> Result<(u64, Option<i64>), WriteError> {
        let _nothing_is_added = self.content.write().await;
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                let row: ManifestWindowRow = sql("WITH looked_at AS (
                         SELECT id, first_seen FROM manifest WHERE id > $1 ORDER BY id LIMIT $2
                     ), removed AS (
                         DELETE FROM manifest m USING looked_at l
                         WHERE m.id = l.id AND l.first_seen < clock_timestamp() - make_interval(secs => $3)
                           AND NOT EXISTS (SELECT FROM repository_manifest h WHERE h.manifest_id = m.id)
                           AND NOT EXISTS (SELECT FROM tag t WHERE t.manifest_id = m.id)
                         RETURNING m.id
                     )
                     SELECT (SELECT count(*) FROM removed) AS removed, (SELECT max(id) FROM looked_at) AS last")
                .bind::<BigInt, _>(after)
                .bind::<BigInt, _>(WINDOW)
                .bind::<Double, _>(MINIMUM_AGE_SECONDS)
                .get_result(connection)
                .await?;
                revision::check(connection, &self.lease).await?;
                Ok((row.removed.unsigned_abs(), row.last))
            })
            .await
    }

    /// Looks at a window of documents after `after` and removes those of no manifest; `None` after the last.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn sweep_documents(&self, after: &[u8]) -> Result<(u64, Option<Vec<u8>>), WriteError> {
        let _nothing_is_added = self.content.write().await;
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                let row: DocumentWindowRow = sql("WITH looked_at AS (
                         SELECT digest FROM document WHERE digest > $1 ORDER BY digest LIMIT $2
                     ), removed AS (
                         DELETE FROM document d USING looked_at l
                         WHERE d.digest = l.digest
                           AND NOT EXISTS (SELECT FROM manifest m WHERE m.digest = d.digest)
                           AND NOT EXISTS (SELECT FROM manifest m WHERE m.config_digest = d.digest)
                         RETURNING d.digest
                     )
                     SELECT (SELECT count(*) FROM removed) AS removed,
                            (SELECT digest FROM looked_at ORDER BY digest DESC LIMIT 1) AS last")
                .bind::<Bytea, _>(after)
                .bind::<BigInt, _>(WINDOW)
                .get_result(connection)
                .await?;
                revision::check(connection, &self.lease).await?;
                Ok((row.removed.unsigned_abs(), row.last))
            })
            .await
    }
}
