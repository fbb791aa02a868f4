//! The JSON of the flatpak registry-index protocol, and nothing else knows it.
//!
//! Shape: `{"Registry": .., "Results": [{"Name", "Images": [..], "Lists": [..]}]}`. `Images` and `Lists` are always
//! arrays, empty `Annotations` and `Labels` are left out, images inside a list carry no `Tags`. Order is the domain's.
//! (github.com/flatpak/flatpak-oci-specs, registry-index.md)

use std::fmt::Display;

use flagstate_common::annotations::Annotations;
use flagstate_common::image::{Image, RepositoryImages, TaggedImage, TaggedImageIndex};
use flagstate_common::tag::Tag;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// A part of a document's text.
pub(crate) type Piece = Result<Vec<u8>, serde_json::Error>;

/// The document in pieces that concatenate to its text: a head, one piece a repository, a tail.
///
/// A piece is the unit of memory while a long document is sent; a repository is freed once its piece is made.
pub(crate) fn pieces(
    registry: &str,
    repositories: Vec<RepositoryImages>,
) -> impl Iterator<Item = Piece> + Send + use<> {
    let head = serde_json::to_vec(registry).map(|mut text| {
        text.splice(0..0, *br#"{"Registry":"#);
        text.extend_from_slice(br#","Results":["#);
        text
    });
    let results = repositories.into_iter().enumerate().map(|(index, repository)| {
        let mut piece = Vec::new();
        if index > 0 {
            piece.push(b',');
        }
        serde_json::to_writer(&mut piece, &WireResult::from(&repository))?;
        Ok(piece)
    });
    std::iter::once(head)
        .chain(results)
        .chain(std::iter::once(Ok(b"]}".to_vec())))
}

/// What stands under `Results`, as a JSON value.
///
/// # Errors
/// Never for our own types; serialisation is fallible by its signature.
pub(crate) fn results(repositories: &[RepositoryImages]) -> Result<Value, serde_json::Error> {
    repositories
        .iter()
        .map(|repository| serde_json::to_value(WireResult::from(repository)))
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WireResult<'a> {
    name: &'a str,
    images: Vec<WireImage<'a>>,
    lists: Vec<WireList<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WireImage<'a> {
    #[serde(serialize_with = "as_text")]
    digest: &'a dyn Display,
    media_type: &'a str,
    #[serde(rename = "OS")]
    os: &'a str,
    architecture: &'a str,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'a Annotations,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    labels: &'a Annotations,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WireList<'a> {
    #[serde(serialize_with = "as_text")]
    digest: &'a dyn Display,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'a Annotations,
    images: Vec<WireImage<'a>>,
    tags: Vec<&'a str>,
}

impl<'a> From<&'a RepositoryImages> for WireResult<'a> {
    fn from(repository: &'a RepositoryImages) -> Self {
        Self {
            name: repository.name.as_str(),
            images: repository.images.iter().map(WireImage::from).collect(),
            lists: repository.image_indexes.iter().map(WireList::from).collect(),
        }
    }
}

impl<'a> From<&'a TaggedImage> for WireImage<'a> {
    fn from(tagged: &'a TaggedImage) -> Self {
        Self {
            tags: Some(texts(&tagged.tags)),
            ..Self::from(&tagged.image)
        }
    }
}

impl<'a> From<&'a Image> for WireImage<'a> {
    fn from(image: &'a Image) -> Self {
        Self {
            digest: &image.digest,
            media_type: image.media_type.as_str(),
            os: &image.os,
            architecture: &image.architecture,
            annotations: &image.annotations,
            labels: &image.labels,
            tags: None,
        }
    }
}

impl<'a> From<&'a TaggedImageIndex> for WireList<'a> {
    fn from(image_index: &'a TaggedImageIndex) -> Self {
        Self {
            digest: &image_index.digest,
            media_type: image_index.media_type.as_str(),
            annotations: &image_index.annotations,
            images: image_index.images.iter().map(WireImage::from).collect(),
            tags: texts(&image_index.tags),
        }
    }
}

fn texts(tags: &[Tag]) -> Vec<&str> {
    tags.iter().map(Tag::as_str).collect()
}

fn as_text<S: Serializer>(value: &dyn Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use flagstate_common::media_type::{OCI_INDEX, OCI_MANIFEST};

    fn image(hex_digit: char, labels: &[(&str, &str)]) -> Image {
        Image {
            digest: format!("sha256:{}", hex_digit.to_string().repeat(64))
                .parse()
                .expect("digest"),
            media_type: OCI_MANIFEST.parse().expect("media type"),
            os: "linux".into(),
            architecture: "amd64".into(),
            annotations: Arc::default(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect::<Annotations>()
                .into(),
        }
    }

    fn tags(names: &[&str]) -> Vec<Tag> {
        names.iter().map(|name| name.parse().expect("tag")).collect()
    }

    fn repositories() -> Vec<RepositoryImages> {
        let annotations = Annotations::from([("org.example.key".to_owned(), "\u{fffd}<ü>\"".to_owned())]);
        let annotations = Arc::new(annotations);
        vec![
            RepositoryImages {
                name: "a".parse().expect("name"),
                images: vec![TaggedImage {
                    image: image('1', &[("b", "2"), ("a", "1")]),
                    tags: tags(&["1.0", "latest"]),
                }],
                image_indexes: vec![],
            },
            RepositoryImages {
                name: "b/c".parse().expect("name"),
                images: vec![],
                image_indexes: vec![TaggedImageIndex {
                    digest: image('2', &[]).digest,
                    media_type: OCI_INDEX.parse().expect("media type"),
                    annotations: annotations.clone(),
                    images: vec![
                        Image {
                            annotations,
                            ..image('4', &[])
                        },
                        image('3', &[]),
                    ],
                    tags: tags(&["latest"]),
                }],
            },
        ]
    }

    fn document(repositories: Vec<RepositoryImages>) -> String {
        let bytes = pieces("https://registry.example.com/", repositories)
            .collect::<Result<Vec<_>, _>>()
            .expect("serialisable")
            .concat();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn writes_the_protocol_s_fields_in_their_order() {
        insta::assert_snapshot!(document(repositories()));
    }

    #[test]
    fn an_empty_result_is_an_empty_array() {
        insta::assert_snapshot!(
            document(vec![]),
            @r#"{"Registry":"https://registry.example.com/","Results":[]}"#
        );
    }

    #[test]
    fn the_registry_is_escaped() {
        let text: Vec<u8> = pieces("a\"b", vec![])
            .collect::<Result<Vec<_>, _>>()
            .expect("serialisable")
            .concat();
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(value["Registry"], "a\"b");
    }

    #[test]
    fn the_value_equals_the_document_s_results() {
        let value: Value = serde_json::from_str(&document(repositories())).expect("JSON");
        assert_eq!(value["Results"], results(&repositories()).expect("serialisable"));
    }
}
