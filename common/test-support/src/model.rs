//! A registry in memory, and the answers that the contract gives about it.
//!
//! This is what the reading store is compared with. It is written from the contract's words, knows nothing of SQL and
//! of the production code that reads queries, and prefers the obvious loop to the fast one.

#![allow(clippy::expect_used, reason = "only tests run the model, and fail with it")]

mod answer;
mod documents;
mod generate;
mod question;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use flagstate_common::annotations::Annotations;
use flagstate_common::digest::Digest;
use flagstate_common::media_type::MediaType;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;

pub use generate::generate;
pub use question::{OPERATORS, Question, ask};

/// What each tag of each repository points at.
pub type State = BTreeMap<RepositoryName, BTreeMap<Tag, Digest>>;

/// A registry with everything that it was.
#[derive(Debug)]
pub struct Registry {
    /// The era of all its revisions.
    pub era: i64,
    /// Every manifest that is known, whoever holds it.
    pub manifests: BTreeMap<Digest, Manifest>,
    /// Every repository that ever was.
    pub repositories: BTreeMap<RepositoryName, Repository>,
    /// The states, by the number of their revision; the first one is empty.
    pub states: Vec<State>,
    /// When each state began; never decreases.
    pub times: Vec<DateTime<Utc>>,
}

/// What does not change with a repository's tags.
#[derive(Debug, Default)]
pub struct Repository {
    /// Whether it is excluded.
    pub hidden: bool,
    /// Manifests that it holds or held.
    pub holds: BTreeSet<Digest>,
}

/// A manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Whether its body could be read and had its digest.
    pub verified: bool,
    /// Its media type.
    pub media_type: MediaType,
    /// Its artifact type, else the media type of its config.
    pub artifact_type: String,
    /// Its own annotations.
    pub annotations: Annotations,
    /// What it describes.
    pub content: Content,
    /// The document that its digest is of.
    pub document: Vec<u8>,
    /// The config that the document names.
    pub config_document: Option<Vec<u8>>,
}

/// What a manifest describes.
#[derive(Clone, Debug)]
pub enum Content {
    /// An image, or anything else that is no image index, with what its config tells.
    Image {
        /// Operating system; empty when the config does not tell.
        os: String,
        /// Architecture; empty when the config does not tell.
        architecture: String,
        /// Labels.
        labels: Annotations,
    },
    /// An image index.
    ImageIndex {
        /// Its members, in order.
        members: Vec<Member>,
    },
}

/// A member of an image index.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which manifest.
    pub digest: Digest,
    /// Operating system by the image index.
    pub os: String,
    /// Architecture by the image index.
    pub architecture: String,
    /// Whether an annotation says that it is a statement about another member.
    pub is_reference: bool,
}

impl Member {
    /// Whether it is a statement about another member and no image.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.is_reference || (self.os == "unknown" && self.architecture == "unknown")
    }
}

/// An image that an image index leads to.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Its manifest.
    pub digest: Digest,
    /// By its config, else by the image index that lists it.
    pub os: String,
    /// By its config, else by the image index that lists it.
    pub architecture: String,
    /// The image indexes that lead to it, the top one first.
    pub via: Vec<Digest>,
}

impl Registry {
    /// The images that an image index leads to, in order; also those that could not be verified, which are not shown.
    #[must_use]
    pub fn leaves(&self, image_index: &Digest) -> Vec<Leaf> {
        self.leaves_below(image_index, &[])
    }

    fn leaves_below(&self, image_index: &Digest, above: &[Digest]) -> Vec<Leaf> {
        let via = [above, std::slice::from_ref(image_index)].concat();
        let mut leaves = Vec::new();
        let Some(Content::ImageIndex { members }) = self.manifests.get(image_index).map(|manifest| &manifest.content)
        else {
            return leaves;
        };
        for member in members {
            if member.is_attestation() {
                continue;
            }
            let Some(manifest) = self.manifests.get(&member.digest) else {
                continue;
            };
            match &manifest.content {
                Content::ImageIndex { .. } if !manifest.verified => {}
                Content::ImageIndex { .. } => leaves.extend(self.leaves_below(&member.digest, &via)),
                Content::Image { os, architecture, .. } => {
                    let told = |config: &String, descriptor: &String| {
                        if config.is_empty() {
                            descriptor.clone()
                        } else {
                            config.clone()
                        }
                    };
                    leaves.push(Leaf {
                        digest: member.digest.clone(),
                        os: told(os, &member.os),
                        architecture: told(architecture, &member.architecture),
                        via: via.clone(),
                    });
                }
            }
        }
        leaves
    }

    /// The number of the state that was there at `time`.
    #[must_use]
    pub fn number_at(&self, time: DateTime<Utc>) -> usize {
        self.times.iter().rposition(|began| *began <= time).unwrap_or_default()
    }

    /// The number of the newest state.
    #[must_use]
    pub fn newest(&self) -> usize {
        self.states.len() - 1
    }
}
