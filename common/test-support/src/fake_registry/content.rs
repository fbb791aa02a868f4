//! What the registry holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use flagstate_common::digest::Digest;

/// Repositories by name, in byte order.
#[derive(Debug, Default)]
pub(super) struct Content {
    repositories: BTreeMap<String, Repository>,
}

/// One repository. Names are plain text, so that a test can use those that a grammar forbids.
#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) tags: BTreeMap<String, Digest>,
    pub(super) manifests: BTreeMap<Digest, Manifest>,
    pub(super) blobs: BTreeMap<Digest, Bytes>,
}

/// A stored manifest.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) body: Bytes,
}

impl Content {
    pub(super) fn names(&self) -> Vec<String> {
        self.repositories.keys().cloned().collect()
    }

    pub(super) fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.get(name)
    }

    fn entry(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub(super) fn put_blob(&mut self, repository: &str, body: Bytes) -> Digest {
        let digest = Digest::of(&body);
        self.entry(repository).blobs.insert(digest.clone(), body);
        digest
    }

    pub(super) fn put_manifest(&mut self, repository: &str, media_type: &str, body: Bytes) -> Digest {
        let digest = Digest::of(&body);
        let manifest = Manifest {
            media_type: media_type.to_owned(),
            body,
        };
        let repository = self.entry(repository);
        repository.manifests.insert(digest.clone(), manifest);
        digest
    }

    pub(super) fn tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        let tags = &mut self.entry(repository).tags;
        tags.insert(tag.to_owned(), digest.clone());
    }

    pub(super) fn delete_tag(&mut self, repository: &str, tag: &str) -> bool {
        self.entry(repository).tags.remove(tag).is_some()
    }

    pub(super) fn delete_manifest(&mut self, repository: &str, digest: &Digest) -> bool {
        let repository = self.entry(repository);
        repository.tags.retain(|_, tagged| tagged != digest);
        repository.manifests.remove(digest).is_some()
    }

    pub(super) fn delete_repository(&mut self, repository: &str) -> bool {
        self.repositories.remove(repository).is_some()
    }
}

impl Repository {
    /// The manifest that a tag or a digest names.
    pub(super) fn manifest(&self, reference: &str) -> Option<(Digest, &Manifest)> {
        let digest = match self.tags.get(reference) {
            Some(digest) => digest.clone(),
            None => reference.parse().ok()?,
        };
        let manifest = self.manifests.get(&digest)?;
        Some((digest, manifest))
    }
}
