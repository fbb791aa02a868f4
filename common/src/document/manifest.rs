//! Manifests of every kind (OCI image specification, "Image manifest" and "Image index"; Docker schema 2).

use serde_json::Value;

use super::fields::{Object, text, texts, texts_by_key};
use super::json::{self, JsonError};
use super::problem::{Problem, ProblemCode};
use crate::annotations::Annotations;
use crate::config::Limits;
use crate::digest::Digest;
use crate::media_type::{self, ManifestKind, MediaType};
use crate::platform::Platform;

/// Names some content by digest, size in bytes and media type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The content's digest.
    pub digest: Digest,
    /// The content's declared size in bytes.
    pub size: u64,
    /// The content's media type; empty when the document does not tell.
    pub media_type: String,
}

/// A member of an image index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// What the member is.
    pub descriptor: Descriptor,
    /// Its artifact type by the descriptor; empty when it does not tell.
    pub artifact_type: String,
    /// Its platform by the descriptor.
    pub platform: Platform,
    /// Annotations of the descriptor.
    pub annotations: Annotations,
}

impl Member {
    /// Whether the member is a statement about another member, as BuildKit adds them, and no image.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.platform.is_unknown() || self.annotations.contains_key("vnd.docker.reference.type")
    }
}

/// What a manifest says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParsedManifest {
    /// How the document is to be read.
    pub kind: ManifestKind,
    /// Whether the document has one clear reading; if not, it must not be shown.
    pub is_clear: bool,
    /// From the document, else from its shape, else from the Content-Type it came with.
    pub media_type: MediaType,
    /// The document's `artifactType`, else the media type of its config, else empty.
    pub artifact_type: String,
    /// The config, of anything but an image index.
    pub config: Option<Descriptor>,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Members of an image index, in order.
    pub members: Vec<Member>,
    /// The manifest that this one refers to.
    pub subject: Option<Digest>,
    /// Annotations of the manifest.
    pub annotations: Annotations,
    /// Whether some text was changed to make it storable.
    pub sanitised: bool,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// What a manifest without any media type is served and kept as.
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// Reads a verified manifest body that was served as `content_type`.
#[must_use]
pub fn parse_manifest(body: &[u8], content_type: Option<&MediaType>, limits: &Limits) -> ParsedManifest {
    let (object, sanitised, mut problems) = match json::parse(body, limits.json_depth) {
        Ok(json::Json {
            value: Value::Object(object),
            sanitised,
        }) => (object, sanitised, Vec::new()),
        Ok(_) => (
            Object::new(),
            false,
            vec![Problem::new(ProblemCode::NotJson, "the manifest is not a JSON object")],
        ),
        Err(error @ JsonError::TooDeep { .. }) => (
            Object::new(),
            false,
            vec![Problem::new(ProblemCode::Limit, format_args!("the manifest is {error}")).at_limit("json_depth")],
        ),
        Err(error @ JsonError::Syntax(_)) => (
            Object::new(),
            false,
            vec![Problem::new(
                ProblemCode::NotJson,
                format_args!("the manifest is {error}"),
            )],
        ),
    };
    let declared = object
        .get("mediaType")
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<MediaType>().ok());
    let reading = reading(&object, declared.as_ref(), content_type);
    if let Err(reason) = &reading {
        problems.push(Problem::new(ProblemCode::Ambiguous, reason));
    }
    let is_clear = reading.is_ok();
    let media_type = reading.unwrap_or_else(|_| declared.or_else(|| content_type.cloned()).unwrap_or_else(unknown));
    let kind = if is_clear {
        media_type.kind()
    } else {
        ManifestKind::Other
    };
    let mut parsed = ParsedManifest {
        kind,
        is_clear,
        media_type,
        artifact_type: String::new(),
        config: None,
        layers: Vec::new(),
        members: Vec::new(),
        subject: None,
        annotations: texts_by_key(object.get("annotations"), "annotations", limits, &mut problems),
        sanitised,
        problems: Vec::new(),
    };
    if is_clear {
        parsed.artifact_type = text(&object, "artifactType", &mut problems);
        parsed.subject = object
            .get("subject")
            .and_then(|value| descriptor(value, "the subject", &mut problems))
            .map(|subject| subject.digest);
        match kind {
            ManifestKind::ImageIndex => parsed.members = members(&object, limits, &mut problems),
            ManifestKind::Image | ManifestKind::Other => {
                parsed.config = object
                    .get("config")
                    .and_then(|value| descriptor(value, "the config", &mut problems));
                parsed.layers = layers(&object, &mut problems);
            }
        }
        if parsed.artifact_type.is_empty()
            && let Some(config) = &parsed.config
        {
            parsed.artifact_type.clone_from(&config.media_type);
        }
    }
    parsed.problems = problems;
    parsed
}

/// The one media type as which the document may be read, or why there is none.
///
/// A document that has both members and layers, or whose shape contradicts its type, would be read as one kind by some
/// clients and as another by others (OCI image specification 1.0.1, `mediaType`).
fn reading(
    object: &Object,
    declared: Option<&MediaType>,
    content_type: Option<&MediaType>,
) -> Result<MediaType, &'static str> {
    let is_known = |media_type: &&MediaType| media_type.kind() != ManifestKind::Other;
    let served = content_type.filter(is_known);
    let lists = object.contains_key("manifests");
    let layered = object.contains_key("layers") || object.contains_key("config");
    if lists && layered {
        return Err("it has both members and layers or a config");
    }
    if let (Some(declared), Some(served)) = (declared, served)
        && declared != served
    {
        return Err("its mediaType is not the Content-Type it is served with");
    }
    let media_type = match declared.or(served) {
        Some(media_type) => media_type.clone(),
        None if lists => known(media_type::OCI_INDEX),
        None if layered => known(media_type::OCI_MANIFEST),
        None => return Ok(content_type.cloned().unwrap_or_else(unknown)),
    };
    match media_type.kind() {
        ManifestKind::Image if lists => Err("it has members, and the media type of an image manifest"),
        ManifestKind::ImageIndex if layered => Err("it has layers or a config, and the media type of an image index"),
        ManifestKind::Image | ManifestKind::ImageIndex | ManifestKind::Other => Ok(media_type),
    }
}

#[expect(clippy::expect_used, reason = "only called with constants that a test parses")]
fn known(text: &'static str) -> MediaType {
    text.parse().expect("a media type constant")
}

fn unknown() -> MediaType {
    known(UNKNOWN_MEDIA_TYPE)
}

fn descriptor(value: &Value, what: &str, problems: &mut Vec<Problem>) -> Option<Descriptor> {
    let mut bad = |reason: &str| {
        problems.push(Problem::new(
            ProblemCode::BadDescriptor,
            format_args!("{what} {reason}"),
        ))
    };
    let Value::Object(object) = value else {
        if !value.is_null() {
            bad("is not a descriptor");
        }
        return None;
    };
    let digest = match object.get("digest").and_then(Value::as_str).map(str::parse::<Digest>) {
        Some(Ok(digest)) => digest,
        Some(Err(error)) => {
            bad(&format!("has no usable digest: {error}"));
            return None;
        }
        None => {
            bad("has no digest");
            return None;
        }
    };
    let Some(size) = object
        .get("size")
        .and_then(Value::as_u64)
        .filter(|size| i64::try_from(*size).is_ok())
    else {
        bad("has no usable size");
        return None;
    };
    let media_type = object.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    Some(Descriptor {
        digest,
        size,
        media_type: media_type.to_owned(),
    })
}

fn layers(object: &Object, problems: &mut Vec<Problem>) -> Vec<Descriptor> {
    let entries = object
        .get("layers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate();
    entries
        .filter_map(|(index, value)| descriptor(value, &format!("layer {index}"), problems))
        .collect()
}

fn members(object: &Object, limits: &Limits, problems: &mut Vec<Problem>) -> Vec<Member> {
    let entries = object
        .get("manifests")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if entries.len() > limits.index_members {
        let detail = format!(
            "left out {} members beyond the limit",
            entries.len() - limits.index_members
        );
        problems.push(Problem::new(ProblemCode::Limit, detail).at_limit("index_members"));
    }
    let kept = entries.iter().take(limits.index_members).enumerate();
    kept.filter_map(|(index, value)| member(value, &format!("member {index}"), limits, problems))
        .collect()
}

fn member(value: &Value, what: &str, limits: &Limits, problems: &mut Vec<Problem>) -> Option<Member> {
    let descriptor = descriptor(value, what, problems)?;
    let object = value.as_object()?;
    let platform = match object.get("platform") {
        Some(Value::Object(platform)) => Platform {
            os: text(platform, "os", problems),
            architecture: text(platform, "architecture", problems),
            variant: text(platform, "variant", problems),
            os_version: text(platform, "os.version", problems),
            os_features: texts(platform, "os.features"),
        },
        _ => Platform::default(),
    };
    Some(Member {
        descriptor,
        artifact_type: text(object, "artifactType", problems),
        platform,
        annotations: texts_by_key(object.get("annotations"), "annotations of a member", limits, problems),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value, content_type: &str) -> ParsedManifest {
        let content_type = content_type.parse().ok();
        parse_manifest(value.to_string().as_bytes(), content_type.as_ref(), &Limits::default())
    }

    fn codes(parsed: &ParsedManifest) -> Vec<ProblemCode> {
        parsed.problems.iter().map(|problem| problem.code).collect()
    }

    fn blob(text: &str, media_type: &str) -> Value {
        json!({"digest": Digest::of(text.as_bytes()).to_string(), "size": text.len(), "mediaType": media_type})
    }

    #[test]
    fn constants_are_media_types() {
        for text in [media_type::OCI_INDEX, media_type::OCI_MANIFEST, UNKNOWN_MEDIA_TYPE] {
            assert_eq!(known(text).as_str(), text);
        }
    }

    #[test]
    fn a_manifest_without_media_type_is_read_by_its_shape() {
        for content_type in ["", "application/json", media_type::OCI_MANIFEST] {
            let parsed = parse(
                &json!({"config": blob("c", "x/y"), "layers": [blob("l", "x/z")]}),
                content_type,
            );
            assert_eq!(parsed.media_type.as_str(), media_type::OCI_MANIFEST, "{content_type}");
            assert_eq!((parsed.kind, parsed.layers.len()), (ManifestKind::Image, 1));
            assert_eq!(parsed.artifact_type, "x/y");
        }
        let index = parse(&json!({"manifests": []}), "");
        assert_eq!(
            (index.kind, index.media_type.as_str()),
            (ManifestKind::ImageIndex, media_type::OCI_INDEX)
        );
    }

    #[test]
    fn two_readings_are_none() {
        let (image, index, docker) = (
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX,
            media_type::DOCKER_MANIFEST,
        );
        for (value, content_type) in [
            (json!({"manifests": [], "layers": []}), ""),
            (json!({"manifests": [], "config": {}}), index),
            (json!({"mediaType": image, "manifests": []}), image),
            (json!({"mediaType": index, "layers": []}), index),
            (json!({"mediaType": index, "manifests": []}), image),
            (json!({"mediaType": image, "layers": []}), docker),
            (json!({"layers": []}), index),
        ] {
            let parsed = parse(&value, content_type);
            assert!(!parsed.is_clear, "{value} as {content_type}");
            assert_eq!(codes(&parsed), [ProblemCode::Ambiguous], "{value} as {content_type}");
            assert_eq!(parsed.kind, ManifestKind::Other);
        }
    }

    #[test]
    fn unknown_types_and_what_is_not_json_are_kept_with_a_problem() {
        let chart = parse(
            &json!({"mediaType": "application/vnd.example+json", "config": blob("c", "helm/config")}),
            "application/vnd.example+json",
        );
        assert_eq!(
            (chart.kind, chart.artifact_type.as_str()),
            (ManifestKind::Other, "helm/config")
        );
        assert!(chart.is_clear && chart.problems.is_empty());
        let text_type: MediaType = "text/plain".parse().expect("valid");
        let text = parse_manifest(b"hello", Some(&text_type), &Limits::default());
        assert_eq!(
            (text.media_type.as_str(), codes(&text)),
            ("text/plain", vec![ProblemCode::NotJson])
        );
        assert!(text.is_clear);
    }

    #[test]
    fn one_bad_member_leaves_the_others() {
        let parsed = parse(
            &json!({"manifests": [
                {"digest": "sha256:zz", "size": 1},
                null,
                {"digest": Digest::of(b"a").to_string(), "size": 1, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1", "os.features": ["f", 3]}},
                {"digest": Digest::of(b"b").to_string(), "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
                {"digest": Digest::of(b"c").to_string(), "size": -1},
            ]}),
            "",
        );
        assert_eq!(parsed.members.len(), 2);
        assert_eq!(parsed.members[0].platform.variant, "v8");
        assert_eq!(parsed.members[0].platform.os_features, ["f"]);
        assert_eq!(
            parsed.members.iter().map(Member::is_attestation).collect::<Vec<_>>(),
            [false, true]
        );
        assert_eq!(codes(&parsed), [ProblemCode::BadDescriptor, ProblemCode::BadDescriptor]);
    }

    #[test]
    fn limits_leave_out_and_say_so() {
        let limits = Limits {
            index_members: 2,
            labels: 1,
            label_value: 3,
            ..Limits::default()
        };
        let member = blob("m", media_type::OCI_MANIFEST);
        let value =
            json!({"manifests": [member, member, member], "annotations": {"a": "1", "b": "2", "c": "long", "d": 4}});
        let parsed = parse_manifest(value.to_string().as_bytes(), None, &limits);
        assert_eq!((parsed.members.len(), parsed.annotations.len()), (2, 1));
        let expected = [
            ProblemCode::NotText,
            ProblemCode::Limit,
            ProblemCode::Limit,
            ProblemCode::Limit,
        ];
        assert_eq!(codes(&parsed), expected);
    }
}
