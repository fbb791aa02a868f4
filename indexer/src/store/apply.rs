//! One change set, one transaction, one revision.

use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bytea, Nullable, Text, Timestamptz};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::store::sql::sql;
use flagstate_common::tag::Tag;

use super::content::{self, Existing};
use super::queue::{Settlement, WorkItem, settle};
use super::stored::to_bytes;
use super::{WriteError, WriteStore, revision};
use crate::scan::observation::ChangeSet;

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

impl WriteStore {
    /// Makes the index as the change set says, and settles the work that led to it, all or nothing.
    ///
    /// Content goes first; the revision is taken late, since from then on other writers wait.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors; nothing was written then.
    pub async fn apply(
        &self,
        changes: &ChangeSet,
        settlement: Option<(&WorkItem, &Settlement)>,
    ) -> Result<(), WriteError> {
        let mut tries = 1;
        loop {
            match self.try_apply(changes, settlement).await {
                Err(error) if error.lost_race(tries) => tries += 1,
                result => return result,
            }
        }
    }

    async fn try_apply(
        &self,
        changes: &ChangeSet,
        settlement: Option<(&WorkItem, &Settlement)>,
    ) -> Result<(), WriteError> {
        let _nothing_is_swept = self.content.read().await;
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                content::store(connection, &changes.manifests, Existing::Replace, self.index_depth).await?;
                let repository = repository_id(connection, &changes.repository).await?;
                hold(connection, repository, changes).await?;
                let n = revision::take(connection, &self.lease).await?;
                log(connection, repository, n, changes).await?;
                end_tags(connection, repository, n, changes).await?;
                point_tags(connection, repository, n, changes).await?;
                date_tags(connection, repository, changes).await?;
                if let Some((item, settlement)) = settlement {
                    settle(connection, item, settlement).await?;
                }
                Ok(())
            })
            .await
    }
}

async fn repository_id(connection: &mut AsyncPgConnection, name: &RepositoryName) -> Result<i64, WriteError> {
    const FIND: &str = "SELECT id FROM repository WHERE name = $1";
    let found: Vec<IdRow> = sql(FIND).bind::<Text, _>(name.as_str()).load(connection).await?;
    if let [row, ..] = found.as_slice() {
        return Ok(row.id);
    }
    let row: IdRow = sql("INSERT INTO repository (name) VALUES ($1) RETURNING id")
        .bind::<Text, _>(name.as_str())
        .get_result(connection)
        .await?;
    Ok(row.id)
}

/// Records what the repository holds: the digests that were seen, and the members of those that were known before.
async fn hold(connection: &mut AsyncPgConnection, repository: i64, changes: &ChangeSet) -> Result<(), WriteError> {
    if changes.held.is_empty() {
        return Ok(());
    }
    let digests: Vec<_> = changes.held.keys().cloned().collect();
    sql(
        "WITH RECURSIVE seen AS (
             SELECT m.id, t.pushed_at FROM unnest($2, $3) AS t (digest, pushed_at) JOIN manifest m ON m.digest = t.digest
         ), held AS (
             SELECT id FROM seen
             UNION
             SELECT m.id FROM held JOIN index_member i ON i.image_index_id = held.id
                    JOIN manifest m ON m.digest = i.digest
             WHERE EXISTS (SELECT FROM repository_manifest h JOIN repository r ON r.id = h.repository_id
                           WHERE h.manifest_id = m.id AND NOT r.hidden)
         )
         INSERT INTO repository_manifest (repository_id, manifest_id, pushed_at)
         SELECT $1, id, (SELECT pushed_at FROM seen WHERE seen.id = held.id) FROM held
         ON CONFLICT (repository_id, manifest_id) DO NOTHING",
    )
    .bind::<BigInt, _>(repository)
    .bind::<Array<Bytea>, _>(to_bytes(&digests))
    .bind::<Array<Nullable<Timestamptz>>, _>(changes.held.values().copied().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes the change feed: tags in byte order, then one entry for whatever else changed.
async fn log(
    connection: &mut AsyncPgConnection,
    repository: i64,
    n: i64,
    changes: &ChangeSet,
) -> Result<(), WriteError> {
    let (mut tags, mut digests): (Vec<&str>, Vec<Option<Vec<u8>>>) = (Vec::new(), Vec::new());
    for tag in &changes.ended {
        tags.push(tag.as_str());
        digests.push(None);
    }
    for (tag, (digest, _)) in &changes.moved {
        tags.push(tag.as_str());
        digests.push(Some(digest.to_bytes()));
    }
    if tags.is_empty() {
        sql("INSERT INTO revision_change (n, ordinal, repository_id, cause) VALUES ($1, 0, $2, $3)")
            .bind::<BigInt, _>(n)
            .bind::<BigInt, _>(repository)
            .bind::<Text, _>(changes.cause.as_str())
            .execute(connection)
            .await?;
        return Ok(());
    }
    sql(
        "INSERT INTO revision_change (n, ordinal, repository_id, tag, old_manifest_id, new_manifest_id, cause)
         SELECT $1, row_number() OVER (ORDER BY c.tag COLLATE \"C\") - 1, $2, c.tag, t.manifest_id, m.id, $5
         FROM unnest($3, $4) AS c (tag, digest)
              LEFT JOIN tag t ON t.repository_id = $2 AND t.name = c.tag AND t.to_n IS NULL
              LEFT JOIN manifest m ON m.digest = c.digest",
    )
    .bind::<BigInt, _>(n)
    .bind::<BigInt, _>(repository)
    .bind::<Array<Text>, _>(tags)
    .bind::<Array<Nullable<Bytea>>, _>(digests)
    .bind::<Text, _>(changes.cause.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends what tags pointed at, of those that are gone and those that point elsewhere now.
async fn end_tags(
    connection: &mut AsyncPgConnection,
    repository: i64,
    n: i64,
    changes: &ChangeSet,
) -> Result<(), WriteError> {
    let names: Vec<&str> = changes
        .ended
        .iter()
        .chain(changes.moved.keys())
        .map(Tag::as_str)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    sql("UPDATE tag SET to_n = $2 WHERE repository_id = $1 AND name = ANY($3) AND to_n IS NULL")
        .bind::<BigInt, _>(repository)
        .bind::<BigInt, _>(n)
        .bind::<Array<Text>, _>(names)
        .execute(connection)
        .await?;
    Ok(())
}

async fn point_tags(
    connection: &mut AsyncPgConnection,
    repository: i64,
    n: i64,
    changes: &ChangeSet,
) -> Result<(), WriteError> {
    if changes.moved.is_empty() {
        return Ok(());
    }
    let (names, targets): (Vec<&Tag>, Vec<_>) = changes.moved.iter().unzip();
    let digests: Vec<Vec<u8>> = targets.iter().map(|(digest, _)| digest.to_bytes()).collect();
    let pointed = sql("INSERT INTO tag (repository_id, name, manifest_id, from_n, pushed_at)
         SELECT $1, t.name, m.id, $2, t.pushed_at
         FROM unnest($3, $4, $5) AS t (name, digest, pushed_at) JOIN manifest m ON m.digest = t.digest")
    .bind::<BigInt, _>(repository)
    .bind::<BigInt, _>(n)
    .bind::<Array<Text>, _>(names.iter().map(|tag| tag.as_str()).collect::<Vec<_>>())
    .bind::<Array<Bytea>, _>(digests)
    .bind::<Array<Nullable<Timestamptz>>, _>(targets.iter().map(|(_, at)| *at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    if pointed == changes.moved.len() {
        Ok(())
    } else {
        Err(WriteError::Vanished)
    }
}

async fn date_tags(connection: &mut AsyncPgConnection, repository: i64, changes: &ChangeSet) -> Result<(), WriteError> {
    if changes.dated.is_empty() {
        return Ok(());
    }
    sql(
        "UPDATE tag SET pushed_at = t.pushed_at FROM unnest($2, $3) AS t (name, pushed_at)
         WHERE repository_id = $1 AND tag.name = t.name AND to_n IS NULL",
    )
    .bind::<BigInt, _>(repository)
    .bind::<Array<Text>, _>(changes.dated.keys().map(Tag::as_str).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(changes.dated.values().copied().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
