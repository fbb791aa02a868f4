//! What a search finds: repositories with the images and image indexes in them.
//!
//! An image may stand in many places of one answer; its texts, which may be large, are in memory once.

use std::sync::Arc;

use crate::annotations::Annotations;
use crate::digest::Digest;
use crate::media_type::MediaType;
use crate::repository_name::RepositoryName;
use crate::tag::Tag;

/// One image as searches see it. An empty text says that neither config nor image index told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// Digest of the image manifest.
    pub digest: Digest,
    /// Media type of the image manifest.
    pub media_type: MediaType,
    /// Operating system, from the config, else from the image index it stands in.
    pub os: String,
    /// Architecture, from the config, else from the image index it stands in.
    pub architecture: String,
    /// Annotations of the image manifest.
    pub annotations: Arc<Annotations>,
    /// Labels of the config.
    pub labels: Arc<Annotations>,
}

/// An image that tags point at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaggedImage {
    /// The image.
    pub image: Image,
    /// All tags of that digest in that repository, in byte order, never empty.
    pub tags: Vec<Tag>,
}

/// An image index that tags point at, with those of its images that were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaggedImageIndex {
    /// Digest of the image index.
    pub digest: Digest,
    /// Media type of the image index.
    pub media_type: MediaType,
    /// Annotations of the image index itself.
    pub annotations: Arc<Annotations>,
    /// Matching images, in the order of the document, through nested image indexes too.
    pub images: Vec<Image>,
    /// All tags of that digest in that repository, in byte order, never empty.
    pub tags: Vec<Tag>,
}

/// What was found in one repository; both lists are sorted by first tag, then digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepositoryImages {
    /// The repository.
    pub name: RepositoryName,
    /// Images that are tagged themselves.
    pub images: Vec<TaggedImage>,
    /// Image indexes that are tagged.
    pub image_indexes: Vec<TaggedImageIndex>,
}
