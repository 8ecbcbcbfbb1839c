//! The store, with etcd's v3 semantics: one revision counter, transactions that compare
//! `mod_revision`, ranges (now or at a revision, in pages), watches from a revision, compaction.
//! What is acknowledged is durable.
//!
//! Three stand behind it: the model in memory (`actors/src/apiserver/memory_store.rs`), and in
//! `backends/src/store` a directory of this machine and etcd. `tests/port_store` proves them alike.

mod path;

pub use path::{below, key_of, order, path, refusal};

use crate::objects::{Key, Kind, Name, Object};
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use smol_str::SmolStr;
use std::sync::Arc;

/// What names an object in the store; [`path`] says where it lives there.
pub type StoreKey = (Kind, Key);

#[derive(Clone, Debug)]
pub enum Request {
    Range(Range),
    /// If every comparison holds, all operations happen at one new revision; else none. A key is
    /// operated on once at most. What changes nothing takes no revision.
    Txn {
        id: u64,
        compare: Vec<(StoreKey, u64)>,
        then: Vec<Op>,
    },
    /// Forgets history: what was at a revision below this one, and what changed at one up to it.
    Compact {
        revision: u64,
    },
    /// All changes below `under` at `from` and later, each revision whole and in order: a stream.
    /// `from` may lie ahead; of a driver, 0 asks for what comes from now on.
    Watch {
        id: u64,
        under: Under,
        from: u64,
    },
}

/// What to read, and as of when. Answered in the order of paths.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// 0 is for who asks for one at a time.
    pub id: u64,
    pub under: Under,
    /// The page after this key.
    pub after: Option<StoreKey>,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// 0 for the current one.
    pub revision: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Under {
    #[default]
    All,
    Kind(Kind),
    Namespace(Kind, Name),
}

impl Under {
    pub fn holds(&self, (kind, key): &StoreKey) -> bool {
        match self {
            Under::All => true,
            Under::Kind(under) => kind == under,
            Under::Namespace(under, namespace) => kind == under && key.namespace == *namespace,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    /// The stored object gets the transaction's revision as its version.
    Put {
        key: StoreKey,
        value: Arc<Object>,
    },
    Delete {
        key: StoreKey,
    },
}

impl Op {
    pub fn key(&self) -> &StoreKey {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// What happened to one key.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object's version is the revision.
    Put(Arc<Object>),
    Deleted {
        key: StoreKey,
        revision: u64,
    },
}

impl Change {
    pub fn revision(&self) -> u64 {
        match self {
            Change::Put(object) => object.version,
            Change::Deleted { revision, .. } => *revision,
        }
    }
    pub fn key(&self) -> StoreKey {
        match self {
            Change::Put(object) => (object.kind(), object.key.clone()),
            Change::Deleted { key, .. } => key.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Reply {
    Range {
        id: u64,
        /// As of which it was read: the one asked for, or the current one.
        revision: u64,
        /// What was before this one is forgotten; 0 while nothing is.
        compacted: u64,
        /// There is more after the last one.
        more: bool,
        objects: Vec<Arc<Object>>,
    },
    /// Durable at this revision.
    Committed {
        id: u64,
        revision: u64,
    },
    /// A comparison failed: this key's `mod_revision` (0: absent) is another.
    Mismatch {
        id: u64,
        key: StoreKey,
        found: u64,
    },
    /// No answer in time: it may have happened. A compaction's id is 0.
    Unknown {
        id: u64,
    },
    /// It did not happen, and will not if it is asked again as it is.
    Refused {
        id: u64,
        why: SmolStr,
    },
    Compacted {
        revision: u64,
    },
    /// Of a watch: everything up to and including this revision was told. Without changes, this is
    /// progress: a driver says how often it comes.
    Watched {
        id: u64,
        revision: u64,
        changes: Vec<Change>,
    },
    /// What was asked for is older than what is remembered; a watch ends with it.
    Forgotten {
        id: u64,
        compacted: u64,
    },
    /// A range at a revision that is not reached yet; this is the current one.
    Ahead {
        id: u64,
        revision: u64,
    },
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        match self {
            Request::Watch { .. } => Answers::Stream,
            _ => Answers::One,
        }
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Reply::Range { revision, compacted, objects, .. } => {
                hasher.u64(*revision);
                hasher.u64(*compacted);
                hasher.u64(objects.len() as u64);
            }
            Reply::Committed { id, revision } => {
                hasher.u64(*id);
                hasher.u64(*revision);
            }
            Reply::Mismatch { id, found, .. } => {
                hasher.u64(*id);
                hasher.u64(!*found);
            }
            Reply::Unknown { id } => hasher.u64(!*id),
            Reply::Compacted { revision } => hasher.u64(revision.rotate_left(32)),
            Reply::Refused { id, .. } => hasher.u64(id.rotate_left(16)),
            Reply::Watched { id, revision, changes } => {
                hasher.u64(*id);
                hasher.u64(*revision);
                hasher.u64(!(changes.len() as u64));
            }
            Reply::Forgotten { id, compacted: revision } | Reply::Ahead { id, revision } => {
                hasher.u64(!*id);
                hasher.u64(!*revision);
            }
        }
    }
}
