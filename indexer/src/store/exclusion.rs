//! Hiding excluded repositories at once, and showing those that are included again.

use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bool, Text};
use diesel_async::{AsyncConnection, RunQueryDsl};
use flagstate_common::config::RepositoryFilter;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::store::sql::sql;

use super::{WriteError, WriteStore, revision};
use crate::scan::observation::Cause;

#[derive(QueryableByName)]
struct RepositoryRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    hidden: bool,
}

/// How many repositories changed sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exclusion {
    /// Hidden now.
    pub hidden: usize,
    /// Shown again.
    pub shown: usize,
}

impl WriteStore {
    /// Makes `repository.hidden` follow the configuration, in one revision if anything changes.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn exclude(&self, filter: &RepositoryFilter) -> Result<Exclusion, WriteError> {
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                let rows: Vec<RepositoryRow> = sql("SELECT id, name, hidden FROM repository ORDER BY id")
                    .load(connection)
                    .await?;
                let is_hidden = |row: &RepositoryRow| {
                    !row.name
                        .parse::<RepositoryName>()
                        .is_ok_and(|name| filter.allows(&name))
                };
                let (mut ids, mut hidden) = (Vec::new(), Vec::new());
                for row in rows.iter().filter(|row| is_hidden(row) != row.hidden) {
                    ids.push(row.id);
                    hidden.push(!row.hidden);
                }
                if ids.is_empty() {
                    return Ok(Exclusion::default());
                }
                let exclusion = Exclusion {
                    hidden: hidden.iter().filter(|hidden| **hidden).count(),
                    shown: hidden.iter().filter(|hidden| !**hidden).count(),
                };
                let n = revision::take(connection, &self.lease).await?;
                sql("WITH changed AS (
                         UPDATE repository r SET hidden = t.hidden FROM unnest($2, $3) AS t (id, hidden)
                         WHERE r.id = t.id
                         RETURNING r.id, r.name
                     )
                     INSERT INTO revision_change (n, ordinal, repository_id, cause)
                     SELECT $1, row_number() OVER (ORDER BY name) - 1, id, $4 FROM changed")
                .bind::<BigInt, _>(n)
                .bind::<Array<BigInt>, _>(ids)
                .bind::<Array<Bool>, _>(hidden)
                .bind::<Text, _>(Cause::Exclusion.as_str())
                .execute(connection)
                .await?;
                Ok(exclusion)
            })
            .await
    }
}
