//! Ceilings for foreign input, each under its own name in `limits:` and in `flagstate_limit_hits_total{limit}`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Sizes are bytes unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// One manifest.
    #[serde(with = "super::byte_size::plain")]
    pub manifest: u64,
    /// One image config.
    #[serde(with = "super::byte_size::plain")]
    pub config: u64,
    /// One notification, decoded.
    #[serde(with = "super::byte_size::plain")]
    pub notification: u64,
    /// Nesting of JSON; serde_json stops here by itself, so it can only be lowered.
    pub json_depth: usize,
    /// Image indexes within image indexes.
    pub index_depth: usize,
    /// Members of one image index.
    pub index_members: usize,
    /// Requests that reading one tag may cause.
    pub fetches_per_tag: usize,
    /// Labels, or annotations, of one image.
    pub labels: usize,
    /// One label's key.
    #[serde(with = "super::byte_size::plain")]
    pub label_key: usize,
    /// One label's value.
    #[serde(with = "super::byte_size::plain")]
    pub label_value: usize,
    /// A query string, encoded.
    #[serde(with = "super::byte_size::plain")]
    pub query_string: usize,
    /// Values in one query.
    pub query_terms: usize,
    /// Different keys in one query.
    pub query_keys: usize,
    /// Characters of a `:matches` pattern.
    pub pattern: usize,
    /// `*` in a `:matches` pattern.
    pub pattern_stars: usize,
    /// Entries on a page.
    pub page_size: usize,
    /// Redirects of one registry request.
    pub registry_redirects: usize,
    /// How long a `Retry-After` is obeyed.
    #[serde(with = "super::duration::plain")]
    pub retry_after: Duration,
}

impl Limits {
    /// The names of all limits, as `limits:` and the label of the metric have them.
    pub const NAMES: [&str; 18] = [
        "manifest",
        "config",
        "notification",
        "json_depth",
        "index_depth",
        "index_members",
        "fetches_per_tag",
        "labels",
        "label_key",
        "label_value",
        "query_string",
        "query_terms",
        "query_keys",
        "pattern",
        "pattern_stars",
        "page_size",
        "registry_redirects",
        "retry_after",
    ];
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            manifest: 4 * MIB,
            config: 8 * MIB,
            notification: MIB,
            json_depth: 128,
            index_depth: 4,
            index_members: 1_000,
            fetches_per_tag: 2_000,
            labels: 1_000,
            label_key: 1024,
            label_value: 512 * 1024,
            query_string: 8 * 1024,
            query_terms: 64,
            query_keys: 16,
            pattern: 128,
            pattern_stars: 4,
            page_size: 1_000,
            registry_redirects: 5,
            retry_after: Duration::from_secs(15 * 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_every_limit() {
        let limits = serde_json::to_value(Limits::default()).unwrap();
        let fields: BTreeSet<&str> = limits.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, BTreeSet::from(Limits::NAMES));
    }
}
