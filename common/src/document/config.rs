//! Image configs (OCI image specification, "Image configuration"), and whatever else manifests call a config.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::fields::{text, texts, texts_by_key};
use super::json::{self, Json, JsonError};
use super::problem::{Problem, ProblemCode};
use crate::annotations::Annotations;
use crate::config::Limits;
use crate::digest::Digest;
use crate::platform::Platform;

/// What a config says about its image. A config that is no JSON object says nothing, and that is a problem.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ParsedConfig {
    /// When the image was built.
    pub created: Option<DateTime<Utc>>,
    /// What the image runs on.
    pub platform: Platform,
    /// Labels.
    pub labels: Annotations,
    /// Build history, as it stands in the document; an array.
    pub history: Vec<Value>,
    /// Digests of the uncompressed layers, lowest first; empty unless all of them can be read.
    pub diff_ids: Vec<Digest>,
    /// Whether some text was changed to make it storable.
    pub sanitised: bool,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// Reads a verified config body.
#[must_use]
pub fn parse_config(body: &[u8], limits: &Limits) -> ParsedConfig {
    let (object, sanitised) = match json::parse(body, limits.json_depth) {
        Ok(Json {
            value: Value::Object(object),
            sanitised,
        }) => (object, sanitised),
        Ok(_) => {
            return unreadable(Problem::new(
                ProblemCode::ConfigNotJson,
                "the config is not a JSON object",
            ));
        }
        Err(error @ JsonError::TooDeep { .. }) => {
            let problem = Problem::new(ProblemCode::Limit, format_args!("the config is {error}"));
            return unreadable(problem.at_limit("json_depth"));
        }
        Err(error @ JsonError::Syntax(_)) => {
            return unreadable(Problem::new(
                ProblemCode::ConfigNotJson,
                format_args!("the config is {error}"),
            ));
        }
    };
    let mut problems = Vec::new();
    let platform = Platform {
        os: text(&object, "os", &mut problems),
        architecture: text(&object, "architecture", &mut problems),
        variant: text(&object, "variant", &mut problems),
        os_version: text(&object, "os.version", &mut problems),
        os_features: texts(&object, "os.features"),
    };
    let runtime = object.get("config").and_then(Value::as_object);
    let labels = runtime.and_then(|runtime| runtime.get("Labels"));
    let diff_ids = object
        .get("rootfs")
        .and_then(|rootfs| rootfs.get("diff_ids"))
        .and_then(Value::as_array);
    let diff_ids: Option<Vec<Digest>> = diff_ids
        .into_iter()
        .flatten()
        .map(|diff_id| diff_id.as_str()?.parse().ok())
        .collect();
    ParsedConfig {
        created: object.get("created").and_then(Value::as_str).and_then(storable_time),
        platform,
        labels: texts_by_key(labels, "labels", limits, &mut problems),
        history: object
            .get("history")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        diff_ids: diff_ids.unwrap_or_default(),
        sanitised,
        problems,
    }
}

fn unreadable(problem: Problem) -> ParsedConfig {
    ParsedConfig {
        problems: vec![problem],
        ..ParsedConfig::default()
    }
}

/// An RFC 3339 time; absurd years are no time.
fn storable_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let years = "0001-01-01T00:00:00Z".parse::<DateTime<Utc>>().ok()?.."9999-12-31T00:00:00Z".parse().ok()?;
    years.contains(&time).then_some(time)
}

/// The ChainID of each layer: of what the layers up to this one make together (OCI image specification, "Layer ChainID").
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> ParsedConfig {
        parse_config(value.to_string().as_bytes(), &Limits::default())
    }

    #[test]
    fn reads_an_image_config() {
        let parsed = parse(&json!({
            "created": "2026-01-02T03:04:05.5+02:00", "os": "linux", "architecture": "arm64", "variant": "v8",
            "config": {"Labels": {"a": "1"}}, "history": [{"created_by": "x"}],
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"a").to_string()]},
        }));
        assert_eq!(parsed.created, Some("2026-01-02T01:04:05.5Z".parse().expect("time")));
        assert_eq!(
            (parsed.platform.os.as_str(), parsed.platform.variant.as_str()),
            ("linux", "v8")
        );
        assert_eq!(parsed.labels.get("a").map(String::as_str), Some("1"));
        assert_eq!((parsed.history.len(), parsed.diff_ids), (1, vec![Digest::of(b"a")]));
        assert_eq!(parsed.problems, []);
    }

    #[test]
    fn what_is_no_json_object_says_nothing() {
        for body in [&b"hello"[..], b"[]", b"\"x\"", b"", b"\x00\x01"] {
            let parsed = parse_config(body, &Limits::default());
            assert_eq!(parsed.problems.len(), 1, "{body:?}");
            assert_eq!(parsed.problems[0].code, ProblemCode::ConfigNotJson);
            assert_eq!(parsed.platform, Platform::default());
        }
    }

    #[test]
    fn odd_fields_fail_alone() {
        let parsed = parse(&json!({
            "created": "yesterday", "os": 5, "architecture": "amd64", "history": "none",
            "config": {"Labels": {"good": "1", "bad": 2}, "labels": {"other": "case"}},
            "rootfs": {"diff_ids": ["sha256:zz"]},
        }));
        assert_eq!((parsed.created, parsed.platform.architecture.as_str()), (None, "amd64"));
        assert_eq!(parsed.labels.keys().collect::<Vec<_>>(), ["good"]);
        assert_eq!(parsed.diff_ids, []);
        assert_eq!(
            parsed.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(),
            [ProblemCode::NotText; 2]
        );
        for labels in [json!(null), json!([])] {
            assert!(parse(&json!({"config": {"Labels": labels}})).labels.is_empty());
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        let abc = Digest::of(format!("{ab} {c}").as_bytes());
        assert_eq!(chain_ids(&[a.clone(), b, c]), [a, ab, abc]);
        assert_eq!(chain_ids(&[]), []);
    }
}
