//! What was stored before, and what the registry was seen to hold: the two inputs of a plan.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use flagstate_common::digest::Digest;
use flagstate_common::document::Problem;
use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;

use crate::scan::manifest::ObservedManifest;

/// A repository as the index has it.
#[derive(Clone, Debug, Default)]
pub struct StoredRepository {
    /// Whether it was ever seen.
    pub is_known: bool,
    /// Its present tags, or those of them that matter to the scan.
    pub tags: BTreeMap<Tag, StoredTag>,
}

/// A tag as the index has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredTag {
    /// What it points at.
    pub digest: Digest,
    /// Whether that leads to something that could not be read yet, or only after this repository was looked at.
    pub healable: bool,
    /// Whether a notification told when it was pushed.
    pub has_push_time: bool,
}

/// A manifest as the index has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredManifest {
    /// Whether it is shown.
    pub verified: bool,
    /// Whether it leads to something that could not be read yet.
    pub healable: bool,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// Whether the repository in question is recorded as holding it, with all that it leads to.
    pub held_here: bool,
    /// Whether some repository that is shown holds it; if not, its content must be asked for before it is believed.
    pub held_somewhere: bool,
}

impl StoredManifest {
    /// Whether there is nothing to learn from asking the registry for it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.held_somewhere && !self.healable
    }
}

/// Which tags the registry listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listing {
    /// Tags were not listed; only some were looked at.
    NotAsked,
    /// Pages broke off, looped or failed: what is missing may well be there.
    Incomplete,
    /// All of them.
    Complete(HashSet<Tag>),
    /// The registry answered that there is no such repository.
    NotFound,
}

/// One tag as the registry has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SeenTag {
    /// It points at this digest.
    At(Digest),
    /// It is gone, as a notification said that it would be.
    Gone,
}

/// Everything that one look at a repository brought.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Which tags were listed.
    pub listing: Listing,
    /// Tags that were read.
    pub tags: BTreeMap<Tag, SeenTag>,
    /// Manifests that were read, or could not be.
    pub manifests: Vec<Arc<ObservedManifest>>,
    /// Everything that the repository was seen to hold: what its tags point at, members, referrers.
    pub held: BTreeSet<Digest>,
    /// When the registry says that manifests were pushed here.
    pub pushed: HashMap<Digest, DateTime<Utc>>,
    /// When the registry says that tags were pushed, with what they then pointed at.
    pub pushed_tags: HashMap<Tag, (Digest, DateTime<Utc>)>,
    /// Reads that failed in a way that may pass.
    pub failures: Vec<String>,
}

impl Observation {
    /// Nothing seen yet.
    #[must_use]
    pub fn empty(listing: Listing) -> Self {
        Self {
            listing,
            tags: BTreeMap::new(),
            manifests: Vec::new(),
            held: BTreeSet::new(),
            pushed: HashMap::new(),
            pushed_tags: HashMap::new(),
            failures: Vec::new(),
        }
    }
}

/// Why somebody looked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// A notification.
    Notification,
    /// A scan.
    Scan,
    /// The configuration excludes or includes repositories.
    Exclusion,
}

impl Cause {
    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::Scan => "scan",
            Self::Exclusion => "exclusion",
        }
    }
}

/// What has to change in the index, for one repository, all at once.
#[derive(Clone, Debug)]
pub struct ChangeSet {
    /// The repository.
    pub repository: RepositoryName,
    /// Why.
    pub cause: Cause,
    /// Manifests that are new, or of which more is known now, by digest.
    pub manifests: Vec<Arc<ObservedManifest>>,
    /// Manifests that the repository holds and that were not recorded so, with the time of their push.
    pub held: BTreeMap<Digest, Option<DateTime<Utc>>>,
    /// Tags that point elsewhere now, or are new, with the time of their push.
    pub moved: BTreeMap<Tag, (Digest, Option<DateTime<Utc>>)>,
    /// Tags that are gone.
    pub ended: BTreeSet<Tag>,
    /// Tags that point where they did, of which the time of the push is known now.
    pub dated: BTreeMap<Tag, DateTime<Utc>>,
}

impl ChangeSet {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.manifests.is_empty()
            && self.held.is_empty()
            && self.moved.is_empty()
            && self.ended.is_empty()
            && self.dated.is_empty()
    }
}
