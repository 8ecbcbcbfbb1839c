//! Small text files: resolv.conf, manifests, subnet.env.

use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use smol_str::SmolStr;
use std::hash::Hash;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// The content now and after every change: in place, by rename, or by a symlink that turns
    /// elsewhere. Of a directory: one reply per file in it, less those whose name begins with a
    /// dot (half-written ones and `..data`; kubelet ignores them as well, pkg/kubelet/config).
    Watch {
        path: SmolStr,
    },
    /// The content once.
    Read {
        path: SmolStr,
    },
    /// Written to a temporary file, synced and renamed: readers see all of it or none. Missing
    /// directories are made.
    Write {
        path: SmolStr,
        content: Arc<str>,
    },
    Remove {
        path: SmolStr,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// `None`: there is no such file (any more).
    Content {
        path: SmolStr,
        content: Option<Arc<str>>,
    },
    Written {
        path: SmolStr,
        result: Result<(), SmolStr>,
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
        self.hash(hasher);
    }
}
