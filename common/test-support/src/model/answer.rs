//! The naive answer to a query.

use std::collections::BTreeMap;

use chrono::DateTime;
use flagstate_common::annotations::Annotations;
use flagstate_common::digest::Digest;
use flagstate_common::image::{Image, RepositoryImages, TaggedImage, TaggedImageIndex};
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;

use super::{Content, Registry, State};

/// An image as a query sees it: what is tested, and what is shown.
pub(super) struct View {
    pub(super) repository: String,
    pub(super) tags: Vec<String>,
    pub(super) digests: Vec<String>,
    pub(super) artifact_type: String,
    pub(super) annotations: Vec<Annotations>,
    pub(super) image: Image,
}

/// One tagged manifest with the views on it.
pub(super) struct Tagged {
    repository: RepositoryName,
    digest: Digest,
    tags: Vec<Tag>,
    /// Of an image the one; of an image index its leaves.
    pub(super) views: Vec<View>,
    /// Of an image index without leaves: how it stands for itself.
    pub(super) alone: Option<View>,
}

impl Registry {
    /// What matches all `parameters`, which must be well-formed.
    #[must_use]
    pub fn answer(&self, parameters: &[(String, String)]) -> Vec<RepositoryImages> {
        let mut asked: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in parameters {
            asked.entry(name).or_default().push(value);
        }
        let number = match asked.remove("as_of") {
            None => self.newest(),
            Some(as_of) => self.number_of(as_of[0]),
        };
        let mut repositories: BTreeMap<String, RepositoryImages> = BTreeMap::new();
        for tagged in self.tagged(&self.states[number]) {
            let found = repositories
                .entry(tagged.repository.to_string())
                .or_insert_with(|| RepositoryImages {
                    name: tagged.repository.clone(),
                    images: Vec::new(),
                    image_indexes: Vec::new(),
                });
            let stands_alone = tagged.alone.as_ref().is_some_and(|view| matches(view, &asked));
            let images: Vec<Image> = tagged
                .views
                .iter()
                .filter(|view| matches(view, &asked))
                .map(|view| view.image.clone())
                .collect();
            if images.is_empty() && !stands_alone {
                continue;
            }
            let manifest = &self.manifests[&tagged.digest];
            match &manifest.content {
                Content::Image { .. } => found.images.push(TaggedImage {
                    image: images[0].clone(),
                    tags: tagged.tags,
                }),
                Content::ImageIndex { .. } => found.image_indexes.push(TaggedImageIndex {
                    digest: tagged.digest,
                    media_type: manifest.media_type.clone(),
                    annotations: manifest.annotations.clone().into(),
                    images,
                    tags: tagged.tags,
                }),
            }
        }
        let mut answer: Vec<_> = repositories
            .into_values()
            .filter(|found| !found.images.is_empty() || !found.image_indexes.is_empty())
            .collect();
        for found in &mut answer {
            found
                .images
                .sort_by_key(|found| (found.tags[0].to_string(), found.image.digest.to_string()));
            found
                .image_indexes
                .sort_by_key(|found| (found.tags[0].to_string(), found.digest.to_string()));
        }
        answer
    }

    fn number_of(&self, as_of: &str) -> usize {
        if let Ok(time) = DateTime::parse_from_rfc3339(as_of) {
            return self.number_at(time.to_utc());
        }
        let (_, number) = as_of.split_once('.').expect("a revision");
        number.parse().expect("a number")
    }

    /// Everything that is tagged and visible in a state.
    pub(super) fn tagged(&self, state: &State) -> Vec<Tagged> {
        let mut all = Vec::new();
        for (repository, tags) in state {
            if self.repositories[repository].hidden {
                continue;
            }
            let mut tags_of: BTreeMap<&Digest, Vec<Tag>> = BTreeMap::new();
            for (tag, digest) in tags {
                tags_of.entry(digest).or_default().push(tag.clone());
            }
            for (digest, tags) in tags_of {
                if self.manifests[digest].verified {
                    all.push(self.look_at(repository, digest, tags));
                }
            }
        }
        all
    }

    fn look_at(&self, repository: &RepositoryName, digest: &Digest, tags: Vec<Tag>) -> Tagged {
        let view = |digest: &Digest, os: &str, architecture: &str, via: &[Digest]| {
            let manifest = &self.manifests[digest];
            let labels = match &manifest.content {
                Content::Image { labels, .. } => labels.clone(),
                Content::ImageIndex { .. } => Annotations::new(),
            };
            let standing_in = via.iter().map(|digest| &self.manifests[digest]);
            View {
                repository: repository.to_string(),
                tags: tags.iter().map(Tag::to_string).collect(),
                digests: via.iter().chain([digest]).map(Digest::to_string).collect(),
                artifact_type: manifest.artifact_type.clone(),
                annotations: standing_in
                    .chain([manifest])
                    .map(|manifest| manifest.annotations.clone())
                    .collect(),
                image: Image {
                    digest: digest.clone(),
                    media_type: manifest.media_type.clone(),
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    annotations: manifest.annotations.clone().into(),
                    labels: labels.into(),
                },
            }
        };
        let (views, alone) = match &self.manifests[digest].content {
            Content::Image { os, architecture, .. } => (vec![view(digest, os, architecture, &[])], None),
            Content::ImageIndex { .. } => {
                let holds = &self.repositories[repository].holds;
                let views: Vec<_> = self
                    .leaves(digest)
                    .iter()
                    .filter(|leaf| holds.contains(&leaf.digest) && self.manifests[&leaf.digest].verified)
                    .map(|leaf| view(&leaf.digest, &leaf.os, &leaf.architecture, &leaf.via))
                    .collect();
                let alone = views.is_empty().then(|| view(digest, "", "", &[]));
                (views, alone)
            }
        };
        Tagged {
            repository: repository.clone(),
            digest: digest.clone(),
            tags,
            views,
            alone,
        }
    }
}

/// Whether some tag of the view makes all that is asked true.
fn matches(view: &View, asked: &BTreeMap<&str, Vec<&str>>) -> bool {
    view.tags.iter().any(|tag| {
        asked
            .iter()
            .all(|(name, values)| values.iter().any(|value| holds(view, tag, name, value)))
    })
}

fn holds(view: &View, tag: &str, name: &str, value: &str) -> bool {
    match name {
        "repository" => view.repository == value,
        "repository:matches" => glob_matches(value, &view.repository),
        "tag" => tag == value,
        "tag:matches" => glob_matches(value, tag),
        "os" => view.image.os == value,
        "architecture" => view.image.architecture == value,
        "digest" => view.digests.iter().any(|digest| digest == value),
        "artifact_type" => view.artifact_type == value,
        _ => match name.split_once(':') {
            Some(("label", rest)) => text_holds(&view.image.labels, rest, value),
            Some(("annotation", rest)) => view.annotations.iter().any(|texts| text_holds(texts, rest, value)),
            // A parameter that nobody knows is ignored.
            _ => true,
        },
    }
}

fn text_holds(texts: &Annotations, key_and_test: &str, value: &str) -> bool {
    match key_and_test.rsplit_once(':') {
        Some((key, "exists")) => texts.contains_key(key),
        Some((key, "matches")) => texts.get(key).is_some_and(|text| glob_matches(value, text)),
        _ => texts.get(key_and_test).is_some_and(|text| text == value),
    }
}

/// `*` is any text, `?` any one character, and the pattern speaks about the whole text.
fn glob_matches(pattern: &str, text: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    let mut text_rest = text.chars();
    match pattern_rest.next() {
        None => text.is_empty(),
        Some('*') => {
            glob_matches(pattern_rest.as_str(), text)
                || (text_rest.next().is_some() && glob_matches(pattern, text_rest.as_str()))
        }
        Some(wanted) => {
            text_rest.next().is_some_and(|found| wanted == '?' || wanted == found)
                && glob_matches(pattern_rest.as_str(), text_rest.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_speak_about_the_whole_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "🦀", true),
            ("a*", "ba", false),
            ("*a*b", "xaybzb", true),
            ("*a*b", "xaybz", false),
            ("%_", "ab", false),
        ] {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn keys_end_before_the_last_test() {
        let texts: Annotations = [("a:exists", "1"), ("", "x")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for (rest, value, expected) in [
            ("a:exists", "1", false),
            ("a:exists:exists", "1", true),
            ("a:exists:matches", "?", true),
            ("", "x", true),
            (":exists", "1", true),
            (":matches", "y", false),
        ] {
            assert_eq!(text_holds(&texts, rest, value), expected, "{rest}");
        }
    }
}
