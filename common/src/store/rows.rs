//! Rows as statements return them, and how columns become domain types.
//!
//! A stored value that is no valid domain value fails the statement: nothing but this program writes the tables, so
//! it means damage, and damage is not to be answered from.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, Queryable};
use diesel::pg::{Pg, PgValue};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Jsonb, Nullable, SingleValue, Text, Timestamptz};

use std::sync::Arc;

use crate::annotations::Annotations;
use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::repository_name::RepositoryName;
use crate::tag::Tag;

/// What `state` holds, and what it meant at the time that is asked about.
#[derive(QueryableByName)]
pub(super) struct StateRow {
    #[diesel(sql_type = BigInt)]
    pub(super) era: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) n: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) history_n: i64,
    #[diesel(sql_type = Timestamptz)]
    pub(super) history_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(super) now: DateTime<Utc>,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(super) n_then: Option<i64>,
}

/// A manifest that was found in a repository; for an image index with its matching leaves, in order.
#[derive(QueryableByName)]
pub(super) struct FoundRow {
    #[diesel(sql_type = Text)]
    pub(super) name: RepositoryName,
    #[diesel(sql_type = Array<Text>)]
    pub(super) tags: Vec<Tag>,
    #[diesel(sql_type = BigInt)]
    pub(super) manifest_id: i64,
    #[diesel(sql_type = Bool)]
    pub(super) is_image_index: bool,
    #[diesel(sql_type = Array<BigInt>)]
    pub(super) leaf_ids: Vec<i64>,
    #[diesel(sql_type = Array<Text>)]
    pub(super) leaf_os: Vec<String>,
    #[diesel(sql_type = Array<Text>)]
    pub(super) leaf_architectures: Vec<String>,
}

/// What is shown of a manifest.
#[derive(QueryableByName)]
pub(super) struct ManifestRow {
    #[diesel(sql_type = BigInt)]
    pub(super) id: i64,
    #[diesel(sql_type = Binary)]
    pub(super) digest: Digest,
    #[diesel(sql_type = Text)]
    pub(super) media_type: MediaType,
    #[diesel(sql_type = Text)]
    pub(super) os: String,
    #[diesel(sql_type = Text)]
    pub(super) architecture: String,
    #[diesel(sql_type = Jsonb)]
    pub(super) annotations: Texts,
    #[diesel(sql_type = Jsonb)]
    pub(super) labels: Texts,
}

/// How fresh the index is.
#[derive(QueryableByName)]
pub(super) struct StatusRow {
    #[diesel(sql_type = BigInt)]
    pub(super) era: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) n: i64,
    #[diesel(sql_type = Timestamptz)]
    pub(super) at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    pub(super) now: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(super) scan_completed_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = BigInt)]
    pub(super) queue_length: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub(super) oldest_enqueued_at: Option<DateTime<Utc>>,
}

/// Whether the migrations' own table is there.
#[derive(QueryableByName)]
pub(super) struct ExistsRow {
    #[diesel(sql_type = Bool)]
    pub(super) found: bool,
}

/// The version of one applied schema change.
#[derive(QueryableByName)]
pub(super) struct VersionRow {
    #[diesel(sql_type = Text)]
    pub(super) version: String,
}

/// A JSON object of texts.
pub(super) struct Texts(pub(super) Arc<Annotations>);

impl FromSql<Jsonb, Pg> for Texts {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            // The binary form of jsonb: its version, which is 1, and then the text.
            [1, json @ ..] => Ok(Self(serde_json::from_slice(json)?)),
            _ => Err("jsonb of an unknown version".into()),
        }
    }
}

impl FromSql<Binary, Pg> for Digest {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Self::from_bytes(value.as_bytes()).ok_or_else(|| "not the stored form of a digest".into())
    }
}

/// Reads a column by the type's own `FromStr`.
macro_rules! parsed_from_text {
    ($($type:ty),*) => {$(
        impl FromSql<Text, Pg> for $type {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                Ok(std::str::from_utf8(value.as_bytes())?.parse()?)
            }
        }
    )*};
}
parsed_from_text!(RepositoryName, Tag, MediaType);

/// What diesel's `FromSqlRow` derives, for types that know nothing of diesel.
macro_rules! single_column {
    ($($type:ty),*) => {$(
        impl<ST, DB: Backend> Queryable<ST, DB> for $type
        where
            Self: FromSql<ST, DB>,
            ST: SingleValue,
        {
            type Row = Self;

            fn build(row: Self) -> deserialize::Result<Self> {
                Ok(row)
            }
        }
    )*};
}
single_column!(RepositoryName, Tag, MediaType, Digest, Texts);
