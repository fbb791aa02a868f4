//! The durable queue: one row a repository, whatever arrives.
//!
//! Arrivals merge into the row and raise its generation; work that was read at an older generation only removes what it
//! read. So no wake-up is lost, and the queue is bounded by repositories, not by notifications.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use flagstate_common::digest::Digest;
use flagstate_common::repository_name::{ParseRepositoryNameError, RepositoryName};
use flagstate_common::store::sql::sql;
use flagstate_common::store::{Pool, StoreError};
use flagstate_common::tag::Tag;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{WriteError, WriteStore, revision};
use crate::scan::hint::{Action, Hint, Target};

/// Hints that one row holds; beyond, the whole repository is scanned instead. The newest removal stays even then: it
/// vouches for a repository that turns out to be empty.
const MAX_HINTS: i32 = 128;
/// Failures in a row after which a repository is in quarantine.
pub(super) const QUARANTINE_AFTER: i32 = 8;
/// The delay after the first failure, in seconds; it doubles with each further one.
const FIRST_BACKOFF_SECONDS: f64 = 1.0;
/// The longest delay after failures, in seconds: also how often a repository in quarantine is tried.
const MAX_BACKOFF_SECONDS: f64 = 900.0;
/// How far a new notification may pull a failing repository's next try forward: no nearer than this, in seconds.
const IMPATIENT_BACKOFF_SECONDS: f64 = 5.0;

/// New work for one repository.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The repository.
    pub repository: RepositoryName,
    /// What to look at; `None` is everything.
    pub hint: Option<Hint>,
}

/// Accepted work of one repository, as it was when it was read.
#[derive(Clone, Debug)]
pub struct WorkItem {
    /// The repository.
    pub repository: RepositoryName,
    /// The row's generation.
    pub generation: i64,
    /// Whether everything is to be scanned.
    pub whole: bool,
    /// What else is to be looked at.
    pub hints: Vec<Hint>,
    /// Failures in a row so far.
    pub attempts: i32,
    /// When the oldest of it arrived.
    pub enqueued_at: DateTime<Utc>,
    /// When the whole was last asked for by a notification.
    pub whole_at: Option<DateTime<Utc>>,
    /// Seconds since then, when it was read; `None` when no notification asked.
    pub settled_seconds: Option<f64>,
}

/// What becomes of a row whose work was tried.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// These hints are done, and so is the scan of the whole if `whole`; look at the rest again at `again_at`.
    Done {
        /// Whether the whole repository was scanned, late enough to count.
        whole: bool,
        /// Hints that are done.
        hints: Vec<Hint>,
        /// Hints that stay, and that something newer explains.
        explained: Vec<Hint>,
        /// When to look at the remaining ones.
        again_at: Option<DateTime<Utc>>,
    },
    /// It failed, and is tried again later.
    Failed {
        /// What went wrong, without secrets.
        error: String,
    },
}

/// The queue in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueStatus {
    /// Rows.
    pub repositories: i64,
    /// Rows in quarantine.
    pub quarantined: i64,
    /// Rows that are due and not in quarantine.
    pub due: i64,
    /// Age of the oldest due row in seconds.
    pub oldest_seconds: f64,
}

/// Takes work in, without a lease, so that a standby can accept notifications too.
#[derive(Clone)]
pub struct QueueStore {
    pool: Pool,
}

/// Why a row cannot be read back: a later release wrote it, or somebody by hand.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("the queue holds what this release cannot read: {0}")]
struct UnreadableWork(String);

/// A hint as it stands in the row's `hints` object.
#[derive(Serialize, Deserialize, PartialEq)]
struct HintRow {
    #[serde(rename = "do")]
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    arrived_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    explained: bool,
    happened_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct WorkRow {
    #[diesel(sql_type = Text)]
    repository: String,
    #[diesel(sql_type = BigInt)]
    generation: i64,
    #[diesel(sql_type = Bool)]
    whole: bool,
    #[diesel(sql_type = Jsonb)]
    hints: Value,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Timestamptz)]
    enqueued_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    whole_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Double>)]
    settled_seconds: Option<f64>,
    #[diesel(sql_type = Double)]
    due_in_seconds: f64,
}

#[derive(QueryableByName)]
struct StatusRow {
    #[diesel(sql_type = BigInt)]
    repositories: i64,
    #[diesel(sql_type = BigInt)]
    quarantined: i64,
    #[diesel(sql_type = BigInt)]
    due: i64,
    #[diesel(sql_type = Double)]
    oldest_seconds: f64,
}

impl QueueStore {
    /// A store on `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Takes all of it into the queue, in one statement and one commit.
    ///
    /// # Errors
    /// Database errors; nothing was taken in then.
    pub async fn enqueue(&self, arrivals: &[Arrival]) -> Result<(), StoreError> {
        // One row a repository, in one order, so that two callers never wait for each other crosswise.
        let mut rows: BTreeMap<&RepositoryName, (bool, Map<String, Value>)> = BTreeMap::new();
        for arrival in arrivals {
            let (whole, hints) = rows.entry(&arrival.repository).or_default();
            match &arrival.hint {
                None => *whole = true,
                Some(hint) => {
                    let (key, value) = encode(hint);
                    hints.insert(key, value);
                }
            }
        }
        let (mut repositories, mut wholes, mut hints) = (Vec::new(), Vec::new(), Vec::new());
        for (repository, (whole, hint)) in rows {
            repositories.push(repository.as_str());
            wholes.push(whole);
            hints.push(Value::Object(hint));
        }
        let mut connection = self.pool.connection().await?;
        sql("INSERT INTO scan_queue AS q (repository, whole, whole_at, hints)
             SELECT t.repository, t.whole OR too_many, CASE WHEN t.whole OR too_many THEN clock_timestamp() END,
                    CASE WHEN too_many THEN newest_removal ELSE t.hints END
             FROM unnest($1, $2, $3) AS t (repository, whole, hints),
                  LATERAL (SELECT count(*) > $4 AS too_many FROM jsonb_object_keys(t.hints)) AS counted,
                  LATERAL (SELECT coalesce((SELECT jsonb_build_object(key, value) FROM jsonb_each(t.hints)
                                            WHERE value ->> 'do' = 'delete'
                                            ORDER BY value ->> 'arrived_at' DESC LIMIT 1), '{}') AS newest_removal) AS kept
             ON CONFLICT (repository) DO UPDATE
             SET generation = q.generation + 1,
                 whole = q.whole OR excluded.whole
                         OR (SELECT count(*) > $4 FROM jsonb_object_keys(q.hints || excluded.hints)),
                 whole_at = CASE WHEN excluded.whole
                                      OR (SELECT count(*) > $4 FROM jsonb_object_keys(q.hints || excluded.hints))
                                 THEN clock_timestamp() ELSE q.whole_at END,
                 hints = CASE WHEN (SELECT count(*) > $4 FROM jsonb_object_keys(q.hints || excluded.hints))
                              THEN coalesce((SELECT jsonb_build_object(key, value)
                                             FROM jsonb_each(q.hints || excluded.hints)
                                             WHERE value ->> 'do' = 'delete'
                                             ORDER BY value ->> 'arrived_at' DESC LIMIT 1), '{}')
                              ELSE q.hints || excluded.hints END,
                 not_before = least(q.not_before, clock_timestamp()
                              + make_interval(secs => CASE WHEN q.attempts = 0 THEN 0 ELSE $5 END)),
                 enqueued_at = least(q.enqueued_at, excluded.enqueued_at)")
        .bind::<Array<Text>, _>(repositories)
        .bind::<Array<Bool>, _>(wholes)
        .bind::<Array<Jsonb>, _>(hints)
        .bind::<Integer, _>(MAX_HINTS)
        .bind::<Double, _>(IMPATIENT_BACKOFF_SECONDS)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// The queue in numbers.
    ///
    /// # Errors
    /// Database errors.
    pub async fn status(&self) -> Result<QueueStatus, StoreError> {
        let mut connection = self.pool.connection().await?;
        let row: StatusRow = sql("SELECT count(*) AS repositories,
                    count(*) FILTER (WHERE attempts >= $1) AS quarantined,
                    count(*) FILTER (WHERE attempts < $1 AND not_before <= clock_timestamp()) AS due,
                    coalesce(extract(epoch FROM clock_timestamp() - min(enqueued_at)
                        FILTER (WHERE attempts < $1 AND not_before <= clock_timestamp()))::float8, 0) AS oldest_seconds
             FROM scan_queue")
        .bind::<Integer, _>(QUARANTINE_AFTER)
        .get_result(&mut connection)
        .await?;
        let StatusRow {
            repositories,
            quarantined,
            due,
            oldest_seconds,
        } = row;
        Ok(QueueStatus {
            repositories,
            quarantined,
            due,
            oldest_seconds,
        })
    }
}

impl WriteStore {
    /// Work that is due, longest due first, but for the repositories that are being worked on; and how long until the
    /// next of the rest is due.
    ///
    /// # Errors
    /// Database errors; [`WriteError::Fenced`] when work cannot be read back and this process is no longer the writer.
    pub async fn due(
        &self,
        busy: &[RepositoryName],
        limit: usize,
    ) -> Result<(Vec<WorkItem>, Option<Duration>), WriteError> {
        let mut connection = self.pool.connection().await?;
        let mut rows: Vec<WorkRow> = sql("SELECT repository, generation, whole, hints, attempts, enqueued_at,
                    whole_at, extract(epoch FROM clock_timestamp() - whole_at)::float8 AS settled_seconds,
                    extract(epoch FROM not_before - clock_timestamp())::float8 AS due_in_seconds
             FROM scan_queue WHERE NOT repository = ANY($1) ORDER BY not_before LIMIT $2")
        .bind::<Array<Text>, _>(busy.iter().map(RepositoryName::as_str).collect::<Vec<_>>())
        .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(&mut connection)
        .await?;
        let first_later = rows
            .iter()
            .position(|row| row.due_in_seconds > 0.0)
            .unwrap_or(rows.len());
        let next = rows.get(first_later).map(|row| row.due_in_seconds);
        rows.truncate(first_later);
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let (repository, generation) = (row.repository.clone(), row.generation);
            match decode(row) {
                Ok(item) => items.push(item),
                Err(error) => self.put_off(&mut connection, &repository, generation, &error).await?,
            }
        }
        Ok((
            items,
            next.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        ))
    }

    /// Lets a row fail that cannot be read back: it stops no other, and ends in quarantine.
    async fn put_off(
        &self,
        connection: &mut AsyncPgConnection,
        repository: &str,
        generation: i64,
        error: &UnreadableWork,
    ) -> Result<(), WriteError> {
        tracing::warn!(repository.name = repository, error = %error, "the queue holds what cannot be read");
        connection
            .transaction(async |connection| {
                revision::check(connection, &self.lease).await?;
                Ok(fail(connection, repository, generation, &error.to_string()).await?)
            })
            .await
    }

    /// Settles a row in a transaction of its own, for work that changed nothing.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], database errors.
    pub async fn settle(&self, item: &WorkItem, settlement: &Settlement) -> Result<(), WriteError> {
        let mut connection = self.pool.connection().await?;
        connection
            .transaction(async |connection| {
                // The state before the queue's row, as `apply` takes them: two orders could end in a deadlock with
                // an arrival of several repositories in between.
                revision::check(connection, &self.lease).await?;
                settle(connection, item, settlement).await
            })
            .await
    }

    /// Puts a repository whose scan failed into the queue, to be tried again.
    ///
    /// # Errors
    /// Database errors.
    pub async fn enqueue_failed(&self, repository: &RepositoryName, error: &str) -> Result<(), WriteError> {
        let mut connection = self.pool.connection().await?;
        sql(
            "INSERT INTO scan_queue AS q (repository, whole, attempts, last_error, not_before)
             VALUES ($1, true, 1, $2, clock_timestamp() + make_interval(secs => $3 * (0.5 + random())))
             ON CONFLICT (repository) DO UPDATE
             SET generation = q.generation + 1, whole = true, whole_at = clock_timestamp(),
                 last_error = excluded.last_error",
        )
        .bind::<Text, _>(repository.as_str())
        .bind::<Text, _>(error)
        .bind::<Double, _>(FIRST_BACKOFF_SECONDS)
        .execute(&mut connection)
        .await?;
        Ok(())
    }
}

/// Settles a row within the transaction that holds the effect of its work.
pub(super) async fn settle(
    connection: &mut AsyncPgConnection,
    item: &WorkItem,
    settlement: &Settlement,
) -> Result<(), WriteError> {
    match settlement {
        Settlement::Done {
            whole,
            hints,
            explained,
            again_at,
        } => {
            let explained: Map<String, Value> = explained.iter().map(encode).collect();
            let done: Map<String, Value> = hints.iter().map(encode).collect();
            // A hint that arrived again since it was read has another time of arrival, and stays.
            sql("WITH rest AS (
                     SELECT q.whole AND NOT ($4 AND whole_at IS NOT DISTINCT FROM $6) AS whole, coalesce(
                         (SELECT jsonb_object_agg(key, CASE
                              WHEN $7 -> key -> 'arrived_at' = value -> 'arrived_at'
                              THEN jsonb_set(value, '{explained}', 'true') ELSE value END)
                          FROM jsonb_each(q.hints)
                          WHERE $3 -> key -> 'arrived_at' IS DISTINCT FROM value -> 'arrived_at'), '{}') AS hints
                     FROM scan_queue AS q WHERE repository = $1 FOR UPDATE
                 ), gone AS (
                     DELETE FROM scan_queue USING rest WHERE repository = $1 AND NOT rest.whole AND rest.hints = '{}'
                 )
                 UPDATE scan_queue
                 SET hints = rest.hints, whole = rest.whole, attempts = 0, last_error = NULL,
                     not_before = CASE WHEN generation <> $2 OR $5 IS NULL THEN clock_timestamp() ELSE $5 END
                 FROM rest
                 WHERE repository = $1 AND (rest.whole OR rest.hints <> '{}')")
            .bind::<Text, _>(item.repository.as_str())
            .bind::<BigInt, _>(item.generation)
            .bind::<Jsonb, _>(Value::Object(done))
            .bind::<Bool, _>(*whole)
            .bind::<Nullable<Timestamptz>, _>(*again_at)
            .bind::<Nullable<Timestamptz>, _>(item.whole_at)
            .bind::<Jsonb, _>(Value::Object(explained))
            .execute(connection)
            .await?;
        }
        Settlement::Failed { error } => {
            fail(connection, item.repository.as_str(), item.generation, error).await?;
        }
    }
    Ok(())
}

/// Puts a row off after a failure. What arrived meanwhile need not wait as long as what failed again and again.
async fn fail(
    connection: &mut AsyncPgConnection,
    repository: &str,
    generation: i64,
    error: &str,
) -> Result<(), diesel::result::Error> {
    sql("UPDATE scan_queue
         SET attempts = attempts + 1, last_error = $2,
             not_before = clock_timestamp() + make_interval(
                 secs => least(CASE WHEN generation = $6 THEN $4 ELSE $5 END,
                               $3 * power(2, least(attempts, 20))) * (0.5 + random() / 2))
         WHERE repository = $1")
    .bind::<Text, _>(repository)
    .bind::<Text, _>(error)
    .bind::<Double, _>(FIRST_BACKOFF_SECONDS)
    .bind::<Double, _>(MAX_BACKOFF_SECONDS)
    .bind::<Double, _>(IMPATIENT_BACKOFF_SECONDS)
    .bind::<BigInt, _>(generation)
    .execute(connection)
    .await?;
    Ok(())
}

/// The key under which equal hints meet, and the hint.
fn encode(hint: &Hint) -> (String, Value) {
    let action = match hint.action {
        Action::Push => "push",
        Action::Delete => "delete",
    };
    let (tag, digest) = (hint.tag().map(Tag::to_string), hint.digest().map(Digest::to_string));
    let key = format!(
        "{action} {}@{}",
        tag.as_deref().unwrap_or_default(),
        digest.as_deref().unwrap_or_default()
    );
    let mut value = Map::from_iter([
        ("do".to_owned(), Value::from(action)),
        ("arrived_at".to_owned(), Value::from(hint.arrived_at.to_rfc3339())),
        ("happened_at".to_owned(), Value::from(hint.happened_at.to_rfc3339())),
    ]);
    value.extend(tag.map(|tag| ("tag".to_owned(), Value::from(tag))));
    value.extend(digest.map(|digest| ("digest".to_owned(), Value::from(digest))));
    (key, Value::Object(value))
}

fn decode(row: WorkRow) -> Result<WorkItem, UnreadableWork> {
    let repository: RepositoryName = row
        .repository
        .parse()
        .map_err(|error: ParseRepositoryNameError| UnreadableWork(error.to_string()))?;
    let hints: HashMap<String, HintRow> =
        serde_json::from_value(row.hints).map_err(|error| UnreadableWork(error.to_string()))?;
    let hints: Result<Vec<Hint>, UnreadableWork> = hints.into_values().map(decode_hint).collect();
    let mut hints = hints?;
    hints.sort_by_key(|hint| hint.arrived_at);
    Ok(WorkItem {
        repository,
        generation: row.generation,
        whole: row.whole,
        hints,
        attempts: row.attempts,
        enqueued_at: row.enqueued_at,
        whole_at: row.whole_at,
        settled_seconds: row.settled_seconds,
    })
}

fn decode_hint(row: HintRow) -> Result<Hint, UnreadableWork> {
    let action = match row.action.as_str() {
        "push" => Action::Push,
        "delete" => Action::Delete,
        other => return Err(UnreadableWork(format!("unknown action {other:?}"))),
    };
    let tag = row
        .tag
        .map(|tag| tag.parse::<Tag>())
        .transpose()
        .map_err(|error| UnreadableWork(error.to_string()))?;
    let digest = row
        .digest
        .map(|digest| digest.parse::<Digest>())
        .transpose()
        .map_err(|error| UnreadableWork(error.to_string()))?;
    let target = match (tag, digest) {
        (Some(tag), digest) => Target::Tag(tag, digest),
        (None, Some(digest)) => Target::Digest(digest),
        (None, None) => Target::Repository,
    };
    Ok(Hint {
        action,
        target,
        arrived_at: row.arrived_at,
        explained: row.explained,
        happened_at: row.happened_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_reads_back_as_it_was_and_equal_ones_meet() {
        let digest = Digest::of(b"a");
        let tag: Tag = "latest".parse().expect("tag");
        let mut keys = std::collections::HashSet::new();
        for action in [Action::Push, Action::Delete] {
            for target in [
                Target::Tag(tag.clone(), None),
                Target::Tag(tag.clone(), Some(digest.clone())),
                Target::Digest(digest.clone()),
                Target::Repository,
            ] {
                let now = Utc::now();
                let hint = Hint {
                    action,
                    target,
                    arrived_at: now,
                    explained: false,
                    happened_at: now,
                };
                let (key, value) = encode(&hint);
                assert!(keys.insert(key.clone()));
                let row = serde_json::from_value(value).expect("readable");
                assert_eq!(decode_hint(row), Ok(hint.clone()));
                let later = Hint {
                    arrived_at: now + chrono::TimeDelta::seconds(1),
                    ..hint
                };
                assert_eq!(encode(&later).0, key);
            }
        }
    }
}
