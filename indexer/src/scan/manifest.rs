//! A manifest with its config as they were read, ready to be stored.

use bytes::Bytes;
use flagstate_common::annotations::Annotations;
use flagstate_common::config::Limits;
use flagstate_common::digest::Digest;
use flagstate_common::document::{
    Descriptor, ParsedConfig, ParsedManifest, Problem, ProblemCode, chain_ids, description, parse_manifest, title,
};
use flagstate_common::media_type::{ManifestKind, MediaType};
use flagstate_common::terms::Term;

/// A digest that some tag or image index names, and what could be read of it.
#[derive(Clone, Debug)]
pub struct ObservedManifest {
    /// The digest that it is known by.
    pub digest: Digest,
    /// Its content; `None` when no verified body could be had.
    pub content: Option<Content>,
    /// What could not be read, in a stable order.
    pub problems: Vec<Problem>,
    /// Whether it leads to something that a later scan may be able to read.
    pub healable: bool,
}

/// Verified content.
#[derive(Clone, Debug)]
pub struct Content {
    /// The manifest's bytes.
    pub body: Bytes,
    /// What they say.
    pub manifest: ParsedManifest,
    /// The config's bytes, unless they are stored already or could not be had.
    pub config_body: Option<Bytes>,
    /// What the config says; empty when there is none.
    pub config: ParsedConfig,
}

/// A layer as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer<'a> {
    /// What the manifest says.
    pub descriptor: &'a Descriptor,
    /// Digest of the uncompressed layer, when the config tells all of them.
    pub diff_id: Option<&'a Digest>,
    /// ChainID of the layers up to this one.
    pub chain_id: Option<Digest>,
}

impl ObservedManifest {
    /// A manifest whose body was read and verified; its config is yet to come.
    #[must_use]
    pub fn read(digest: Digest, body: Bytes, content_type: Option<&MediaType>, limits: &Limits) -> Self {
        let manifest = parse_manifest(&body, content_type, limits);
        let problems = manifest.problems.clone();
        let content = Content {
            body,
            manifest,
            config_body: None,
            config: ParsedConfig::default(),
        };
        Self {
            digest,
            content: Some(content),
            problems,
            healable: false,
        }
    }

    /// A manifest whose body could not be had.
    #[must_use]
    pub fn unread(digest: Digest, problem: Problem) -> Self {
        let healable = problem.code.is_healable();
        Self {
            digest,
            content: None,
            problems: vec![problem],
            healable,
        }
    }

    /// Adds what reading another part told.
    pub fn add_problem(&mut self, problem: Problem) {
        self.healable |= problem.code.is_healable();
        if let Err(place) = self.problems.binary_search(&problem) {
            self.problems.insert(place, problem);
        }
    }

    /// Whether it may be shown: verified, and with one clear reading.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.manifest.is_clear)
    }

    /// Bytes that it keeps in memory, roughly.
    #[must_use]
    pub fn size(&self) -> usize {
        let bodies = self
            .content
            .iter()
            .map(|content| content.body.len() + content.config_body.as_ref().map_or(0, Bytes::len));
        size_of::<Self>() + 2 * bodies.sum::<usize>()
    }

    /// Members of an image index, all of them.
    #[must_use]
    pub fn member_digests(&self) -> Vec<Digest> {
        let members = self.content.iter().flat_map(|content| &content.manifest.members);
        members.map(|member| member.descriptor.digest.clone()).collect()
    }

    /// The config that is to be read.
    #[must_use]
    pub fn config_descriptor(&self) -> Option<&Descriptor> {
        self.content.as_ref()?.manifest.config.as_ref()
    }
}

impl Content {
    /// Whether it lists manifests or is one.
    #[must_use]
    pub fn kind(&self) -> ManifestKind {
        self.manifest.kind
    }

    /// The image's title.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        title(&self.manifest.annotations, &self.config.labels)
    }

    /// The image's description.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        description(&self.manifest.annotations, &self.config.labels)
    }

    /// Labels of the image.
    #[must_use]
    pub fn labels(&self) -> &Annotations {
        &self.config.labels
    }

    /// Layers with the digests that the config adds, when it tells one for each.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer<'_>> {
        let told = self.config.diff_ids.len() == self.manifest.layers.len();
        let diff_ids = if told { self.config.diff_ids.as_slice() } else { &[] };
        let mut chain = chain_ids(diff_ids).into_iter();
        let mut diff_ids = diff_ids.iter();
        let layers = self.manifest.layers.iter();
        layers
            .map(|descriptor| Layer {
                descriptor,
                diff_id: diff_ids.next(),
                chain_id: chain.next(),
            })
            .collect()
    }

    /// Bytes of the distinct layers and the config, as declared.
    #[must_use]
    pub fn layers_size(&self) -> u64 {
        let mut blobs: Vec<&Descriptor> = self.manifest.layers.iter().chain(&self.manifest.config).collect();
        blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
        blobs.dedup_by(|one, other| one.digest == other.digest);
        blobs
            .iter()
            .fold(0_u64, |sum, blob| sum.saturating_add(blob.size))
            .min(i64::MAX as u64)
    }

    /// Hashes of everything that a filter can ask for by equality.
    #[must_use]
    pub fn terms(&self, digest: &Digest) -> Vec<i64> {
        let mut terms = vec![Term::Digest(digest).hash()];
        if !self.manifest.artifact_type.is_empty() {
            terms.push(Term::ArtifactType(&self.manifest.artifact_type).hash());
        }
        for (key, value) in self.labels() {
            terms.extend([Term::LabelExists(key).hash(), Term::Label(key, value).hash()]);
        }
        for (key, value) in &self.manifest.annotations {
            terms.extend([Term::AnnotationExists(key).hash(), Term::Annotation(key, value).hash()]);
        }
        terms.sort_unstable();
        terms.dedup();
        terms
    }
}

/// The problem to record for a config whose descriptor is over the limit.
#[must_use]
pub fn config_too_large(descriptor: &Descriptor, limits: &Limits) -> Option<Problem> {
    (descriptor.size > limits.config).then(|| {
        let detail = format!(
            "the config has {} bytes, the limit is {}",
            descriptor.size, limits.config
        );
        Problem::new(ProblemCode::TooLarge, detail).at_limit("config")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(body: &str) -> ObservedManifest {
        let body = Bytes::from(body.to_owned());
        ObservedManifest::read(Digest::of(&body), body, None, &Limits::default())
    }

    #[test]
    fn layers_take_their_digests_from_the_config_only_when_all_are_told() {
        let layer = |text: &str| format!(r#"{{"digest":"{}","size":10}}"#, Digest::of(text.as_bytes()));
        let mut manifest = observed(&format!(r#"{{"layers":[{},{}]}}"#, layer("a"), layer("b")));
        let content = manifest.content.as_mut().expect("read");
        content.config.diff_ids = vec![Digest::of(b"1")];
        assert!(
            content
                .layers()
                .iter()
                .all(|layer| layer.diff_id.is_none() && layer.chain_id.is_none())
        );
        content.config.diff_ids.push(Digest::of(b"2"));
        let layers = content.layers();
        assert_eq!(layers[1].diff_id, Some(&Digest::of(b"2")));
        assert_eq!(layers[1].chain_id, chain_ids(&content.config.diff_ids).pop());
    }

    #[test]
    fn a_layer_that_stands_twice_is_counted_once() {
        let layer = format!(r#"{{"digest":"{}","size":10}}"#, Digest::of(b"a"));
        let manifest = observed(&format!(r#"{{"layers":[{layer},{layer}]}}"#));
        assert_eq!(manifest.content.expect("read").layers_size(), 10);
    }

    #[test]
    fn problems_are_kept_once_and_in_order() {
        let mut manifest = observed("{}");
        for code in [
            ProblemCode::ConfigMissing,
            ProblemCode::TooLarge,
            ProblemCode::ConfigMissing,
        ] {
            manifest.add_problem(Problem::new(code, "x"));
        }
        let codes: Vec<_> = manifest.problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [ProblemCode::TooLarge, ProblemCode::ConfigMissing]);
        assert!(manifest.healable);
    }
}
