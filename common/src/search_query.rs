//! The query language: one grammar for every endpoint, read here and nowhere else.
//!
//! A query is a list of parameters, form-encoded. It follows the registry index protocol of
//! <https://github.com/flatpak/flatpak-oci-specs> (`registry-index.md`) and adds what is marked `+`:
//!
//! | parameter | matches |
//! |---|---|
//! | `repository`, `repository:matches`+ | the name of the repository |
//! | `tag`, `tag:matches` | a tag; the same one when both are there |
//! | `os`, `architecture` | platform; empty: where nothing tells |
//! | `digest`+ | the image, or an image index that it stands in |
//! | `artifact_type`+ | the manifest's artifact type, else its config's media type |
//! | `label:<key>`, `label:<key>:exists`, `label:<key>:matches` | a label of the config |
//! | `annotation:<key>`, `annotation:<key>:exists`, `annotation:<key>:matches` | an annotation of the manifest, or of an image index that it stands in |
//! | `as_of`+ | nothing: it names the time or the revision that is asked about |
//!
//! * The same parameter repeated is OR, different parameters are AND. `label:a` and `label:a:exists` are two.
//! * **Keys may contain `:`.** Only a last `:exists` or `:matches` is the test, all before it is the key. A label called
//!   `a:exists` is therefore asked for by `label:a:exists:exists=1` or `label:a:exists:matches=<glob>`.
//! * `:exists` takes only `1`. `:matches` takes a [glob](crate::glob).
//! * A `repository`, `tag` or empty `digest` that nothing can be called is dropped; when nothing else is left of its
//!   parameter, the query finds nothing.
//! * An `as_of` time may have a space before its offset, which is what a `+` becomes when it is not encoded.

mod error;
mod form;
mod parameter;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use url::form_urlencoded;

use crate::config::Limits;
use crate::digest::Digest;
use crate::glob::Glob;
use crate::repository_name::RepositoryName;
use crate::revision::Revision;
use crate::tag::Tag;

pub use error::{QueryError, Quoted};
use parameter::{Parameter, TextTest};

/// What is searched for: for each parameter the values of which one must match.
///
/// `None` does not ask; an empty set asks for what nothing is, and so finds nothing. Two queries that differ only in
/// order, repetition, encoding, unknown parameters or dropped values are equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SearchQuery {
    pub(crate) repositories: Option<BTreeSet<RepositoryName>>,
    pub(crate) repository_globs: Option<BTreeSet<Glob>>,
    pub(crate) tags: Option<BTreeSet<Tag>>,
    pub(crate) tag_globs: Option<BTreeSet<Glob>>,
    pub(crate) os: Option<BTreeSet<String>>,
    pub(crate) architectures: Option<BTreeSet<String>>,
    pub(crate) digests: Option<BTreeSet<Digest>>,
    pub(crate) artifact_types: Option<BTreeSet<String>>,
    pub(crate) labels: BTreeMap<String, TextFilter>,
    pub(crate) annotations: BTreeMap<String, TextFilter>,
    as_of: Option<AsOf>,
}

/// What is asked about the label or annotation of one key; all of it must hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct TextFilter {
    pub(crate) exists: bool,
    pub(crate) values: Option<BTreeSet<String>>,
    pub(crate) globs: Option<BTreeSet<Glob>>,
}

/// Which state of the index is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AsOf {
    /// The state at this time, in whole microseconds, as the database keeps them.
    Time(DateTime<Utc>),
    /// This very state.
    Revision(Revision),
}

impl SearchQuery {
    /// Reads a query string of `/index`, where unknown parameters are ignored as the protocol's other servers do.
    ///
    /// # Errors
    /// [`QueryError`], also for unknown parameters that are not well-formed.
    pub fn parse_index(query_string: &str, limits: &Limits) -> Result<Self, QueryError> {
        let pairs = decode(query_string, limits)?;
        Self::collect(pairs, limits, |_| Ok(()))
    }

    /// Reads a query string of `/api/v1`, where unknown parameters are refused; `also_known` are the endpoint's own.
    ///
    /// # Errors
    /// [`QueryError`]
    pub fn parse_strict(query_string: &str, limits: &Limits, also_known: &[&str]) -> Result<Self, QueryError> {
        let pairs = decode(query_string, limits)?;
        Self::collect(pairs, limits, |name| refuse(name, also_known))
    }

    /// Reads parameters that are decoded already, as JSON gives them; unknown ones are refused.
    ///
    /// The bytes of all names and values count as the query string's.
    ///
    /// # Errors
    /// [`QueryError`]
    pub fn from_pairs<I>(pairs: I, limits: &Limits) -> Result<Self, QueryError>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let bytes = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        within(bytes, limits.query_string, |found, most| QueryError::TooLong {
            found,
            most,
        })?;
        Self::collect(pairs, limits, |name| refuse(name, &[]))
    }

    /// Which state is asked about; `None` for the present.
    #[must_use]
    pub fn as_of(&self) -> Option<AsOf> {
        self.as_of
    }

    /// The one spelling of this query, form-encoded and sorted; equal queries have equal texts, and it reads back as
    /// the same query.
    #[must_use]
    pub fn canonical(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(self.pairs())
            .finish()
    }

    fn collect<I, F>(pairs: I, limits: &Limits, unknown: F) -> Result<Self, QueryError>
    where
        I: IntoIterator<Item = (String, String)>,
        F: Fn(&str) -> Result<(), QueryError>,
    {
        let mut query = Self::default();
        for (name, value) in pairs {
            if name.contains('\0') || value.contains('\0') {
                return Err(QueryError::Nul {
                    parameter: Quoted::new(&name),
                });
            }
            match Parameter::parse(&name) {
                Some(parameter) => query.add(parameter, &name, &value, limits)?,
                None => unknown(&name)?,
            }
        }
        query.check_size(limits)?;
        Ok(query)
    }

    fn add(&mut self, parameter: Parameter, name: &str, value: &str, limits: &Limits) -> Result<(), QueryError> {
        let glob = || glob_within(name, value, limits);
        match parameter {
            Parameter::Repository => insert(&mut self.repositories, value.parse().ok()),
            Parameter::RepositoryMatches => insert(&mut self.repository_globs, Some(glob()?)),
            Parameter::Tag => insert(&mut self.tags, value.parse().ok()),
            Parameter::TagMatches => insert(&mut self.tag_globs, Some(glob()?)),
            Parameter::Os => insert(&mut self.os, Some(value.to_owned())),
            Parameter::Architecture => insert(&mut self.architectures, Some(value.to_owned())),
            Parameter::Digest => insert(&mut self.digests, parse_digest(value)?),
            Parameter::ArtifactType => insert(&mut self.artifact_types, Some(value.to_owned())),
            Parameter::AsOf => {
                let as_of = AsOf::parse(value)?;
                if self.as_of.replace(as_of).is_some_and(|before| before != as_of) {
                    return Err(QueryError::AsOfTwice);
                }
            }
            Parameter::Label(key, test) => {
                self.labels.entry(key).or_default().add(test, name, value, limits)?;
            }
            Parameter::Annotation(key, test) => {
                self.annotations
                    .entry(key)
                    .or_default()
                    .add(test, name, value, limits)?;
            }
        }
        Ok(())
    }

    fn check_size(&self, limits: &Limits) -> Result<(), QueryError> {
        let pairs = self.pairs();
        let keys: BTreeSet<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        within(pairs.len(), limits.query_terms, |found, most| {
            QueryError::TooManyTerms { found, most }
        })?;
        within(keys.len(), limits.query_keys, |found, most| QueryError::TooManyKeys {
            found,
            most,
        })
    }

    /// Name and value of everything that is asked, sorted; a parameter with no values left has the empty one.
    fn pairs(&self) -> BTreeSet<(String, String)> {
        let mut pairs = BTreeSet::new();
        list(&mut pairs, "repository", &self.repositories);
        list(&mut pairs, "repository:matches", &self.repository_globs);
        list(&mut pairs, "tag", &self.tags);
        list(&mut pairs, "tag:matches", &self.tag_globs);
        list(&mut pairs, "os", &self.os);
        list(&mut pairs, "architecture", &self.architectures);
        list(&mut pairs, "digest", &self.digests);
        list(&mut pairs, "artifact_type", &self.artifact_types);
        list(&mut pairs, "as_of", &self.as_of.map(|as_of| [as_of]));
        for (family, filters) in [("label", &self.labels), ("annotation", &self.annotations)] {
            for (key, filter) in filters {
                let exists = filter.exists.then_some(["1"]);
                list(&mut pairs, &format!("{family}:{key}"), &filter.values);
                list(&mut pairs, &format!("{family}:{key}:exists"), &exists);
                list(&mut pairs, &format!("{family}:{key}:matches"), &filter.globs);
            }
        }
        pairs
    }
}

impl TextFilter {
    fn add(&mut self, test: TextTest, name: &str, value: &str, limits: &Limits) -> Result<(), QueryError> {
        match test {
            TextTest::Is => insert(&mut self.values, Some(value.to_owned())),
            TextTest::Matches => insert(&mut self.globs, Some(glob_within(name, value, limits)?)),
            TextTest::Exists if value == "1" => self.exists = true,
            TextTest::Exists => {
                return Err(QueryError::ExistsTakesOne {
                    parameter: Quoted::new(name),
                    value: Quoted::new(value),
                });
            }
        }
        Ok(())
    }
}

impl AsOf {
    fn parse(value: &str) -> Result<Self, QueryError> {
        if let Ok(revision) = value.parse() {
            return Ok(Self::Revision(revision));
        }
        parse_time(value).map(Self::Time).ok_or_else(|| QueryError::AsOf {
            value: Quoted::new(value),
        })
    }
}

impl std::fmt::Display for AsOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(time) => formatter.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Self::Revision(revision) => revision.fmt(formatter),
        }
    }
}

/// An RFC 3339 time, rounded down to microseconds; leap seconds count as the second after.
fn parse_time(value: &str) -> Option<DateTime<Utc>> {
    const OFFSET: usize = "+hh:mm".len();
    let mut text = value.to_owned();
    if let Some(sign) = text.len().checked_sub(OFFSET)
        && text.get(sign..=sign) == Some(" ")
    {
        text.replace_range(sign..=sign, "+");
    }
    let time = DateTime::parse_from_rfc3339(&text).ok()?;
    let time = DateTime::from_timestamp_micros(time.timestamp_micros())?;
    // Outside these years the text form is another one, and would not read back.
    (0..=9999).contains(&time.year()).then_some(time)
}

/// An empty text is the digest of nothing.
fn parse_digest(value: &str) -> Result<Option<Digest>, QueryError> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|source| QueryError::Digest {
        value: Quoted::new(value),
        source,
    })
}

fn glob_within(name: &str, value: &str, limits: &Limits) -> Result<Glob, QueryError> {
    let parameter = || Quoted::new(name);
    within(value.chars().count(), limits.pattern, |found, most| {
        QueryError::PatternTooLong {
            parameter: parameter(),
            found,
            most,
        }
    })?;
    within(value.matches('*').count(), limits.pattern_stars, |found, most| {
        QueryError::TooManyStars {
            parameter: parameter(),
            found,
            most,
        }
    })?;
    Ok(Glob::new(value))
}

fn decode(query_string: &str, limits: &Limits) -> Result<Vec<(String, String)>, QueryError> {
    within(query_string.len(), limits.query_string, |found, most| {
        QueryError::TooLong { found, most }
    })?;
    form::decode(query_string)
}

fn refuse(name: &str, also_known: &[&str]) -> Result<(), QueryError> {
    if also_known.contains(&name) {
        return Ok(());
    }
    Err(QueryError::UnknownParameter {
        parameter: Quoted::new(name),
        nearest: parameter::nearest(name, also_known),
    })
}

fn within<F>(found: usize, most: usize, error: F) -> Result<(), QueryError>
where
    F: FnOnce(usize, usize) -> QueryError,
{
    if found > most { Err(error(found, most)) } else { Ok(()) }
}

fn insert<T: Ord>(values: &mut Option<BTreeSet<T>>, value: Option<T>) {
    values.get_or_insert_default().extend(value);
}

fn list<'a, C>(pairs: &mut BTreeSet<(String, String)>, name: &str, values: &'a Option<C>)
where
    &'a C: IntoIterator<Item: ToString>,
{
    let Some(values) = values else { return };
    let mut values = values.into_iter().map(|value| value.to_string()).peekable();
    if values.peek().is_none() {
        pairs.insert((name.to_owned(), String::new()));
    }
    pairs.extend(values.map(|value| (name.to_owned(), value)));
}

#[cfg(test)]
mod tests;
