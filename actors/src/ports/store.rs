//! The store, with etcd's v3 semantics: one revision counter, transactions that compare
//! `mod_revision`, ranges, compaction. What is acknowledged is durable.

use crate::objects::{Key, Kind, Object};
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use std::sync::Arc;

/// Where an object lives in the store: `/registry/<plural>/<namespace>/<name>`.
pub type StoreKey = (Kind, Key);

#[derive(Clone, Debug)]
pub enum Request {
    /// Everything, as of the current revision: asked once at start.
    Range,
    /// If every comparison holds, all operations happen at one new revision; else none.
    Txn { id: u64, compare: Vec<(StoreKey, u64)>, then: Vec<Op> },
    /// Forgets history before `revision`.
    Compact { revision: u64 },
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

#[derive(Clone, Debug)]
pub enum Reply {
    Range {
        revision: u64,
        compacted: u64,
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
    /// No answer in time: it may have happened.
    Unknown {
        id: u64,
    },
    Compacted {
        revision: u64,
    },
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        Answers::One
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Reply::Range { revision, compacted, objects } => {
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
        }
    }
}
