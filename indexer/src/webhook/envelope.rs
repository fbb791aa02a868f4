//! Notifications of the distribution registry and its relatives (`application/vnd.docker.distribution.events.v1+json`
//! and `v2+json`): which of them are work, and what they tell to look at.

use chrono::{DateTime, Utc};
use flagstate_common::config::RepositoryFilter;
use flagstate_common::digest::Digest;
use flagstate_common::media_type::MediaType;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;
use serde::Deserialize;
use serde_json::Value;

use crate::scan::hint::{Action, Hint, Target};
use crate::store::Arrival;

/// Why an event is no work. The texts are metric labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    /// Somebody read something, we among them.
    Pull,
    /// It is about a layer or a config.
    Blob,
    /// It is about a repository that the configuration excludes.
    Excluded,
    /// An action that we do not know.
    UnknownAction,
    /// It does not have the shape of an event, or names no repository.
    Unusable,
}

impl Ignored {
    /// As a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Blob => "blob",
            Self::Excluded => "excluded",
            Self::UnknownAction => "unknown_action",
            Self::Unusable => "unusable",
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    events: Vec<Value>,
}

#[derive(Deserialize)]
struct Event {
    action: String,
    #[serde(default)]
    timestamp: Option<Value>,
    target: EventTarget,
}

#[derive(Deserialize)]
struct EventTarget {
    #[serde(default, rename = "mediaType")]
    media_type: Option<String>,
    #[serde(default)]
    digest: Option<String>,
    repository: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    tag: Option<String>,
}

/// Reads a body: work, or why there is none, for each event in it; a body of another shape is one unusable event.
///
/// `now` is when it arrived.
#[must_use]
pub fn parse(body: &[u8], filter: &RepositoryFilter, now: DateTime<Utc>) -> Vec<Result<Arrival, Ignored>> {
    match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => envelope
            .events
            .into_iter()
            .map(|event| arrival(event, filter, now))
            .collect(),
        Err(_) => vec![Err(Ignored::Unusable)],
    }
}

fn arrival(event: Value, filter: &RepositoryFilter, now: DateTime<Utc>) -> Result<Arrival, Ignored> {
    let event: Event = serde_json::from_value(event).or(Err(Ignored::Unusable))?;
    let action = match event.action.as_str() {
        "pull" => return Err(Ignored::Pull),
        "push" | "mount" => Action::Push,
        "delete" => Action::Delete,
        _ => return Err(Ignored::UnknownAction),
    };
    let EventTarget {
        media_type,
        digest,
        repository,
        url,
        tag,
    } = event.target;
    let media_type = media_type.and_then(|text| text.parse::<MediaType>().ok());
    let is_blob = media_type.is_some_and(|media_type| !media_type.may_be_manifest())
        || url.is_some_and(|url| url.contains("/blobs/"));
    if is_blob {
        return Err(Ignored::Blob);
    }
    let repository: RepositoryName = repository.parse().or(Err(Ignored::Unusable))?;
    if !filter.allows(&repository) {
        return Err(Ignored::Excluded);
    }
    let digest = given(digest)
        .map(|digest| digest.parse::<Digest>())
        .transpose()
        .or(Err(Ignored::Unusable))?;
    let tag = given(tag)
        .map(|tag| tag.parse::<Tag>())
        .transpose()
        .or(Err(Ignored::Unusable))?;
    let target = match (tag, digest) {
        (Some(tag), digest) => Target::Tag(tag, digest),
        (None, Some(digest)) => Target::Digest(digest),
        (None, None) if action == Action::Delete => Target::Repository,
        (None, None) => return Ok(Arrival { repository, hint: None }),
    };
    let happened_at = event.timestamp.as_ref().and_then(Value::as_str);
    let happened_at = happened_at.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let happened_at = happened_at.map_or(now, |time| time.to_utc().min(now));
    Ok(Arrival {
        repository,
        hint: Some(Hint {
            action,
            target,
            arrived_at: now,
            happened_at,
            explained: false,
        }),
    })
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
