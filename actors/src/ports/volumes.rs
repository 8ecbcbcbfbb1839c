//! What a pod's containers have mounted, as directories and files of the node: empty directories,
//! paths of the machine itself, and files that the kubelet wrote.
//!
//! Volumes are laid out as upstream's kubelet has them (`pkg/kubelet/kubelet_getters.go`):
//! `pods/UID/volumes/PLUGIN/NAME`, and `pods/UID/volume-subpaths/NAME/CONTAINER/INDEX` for a part
//! of one. Whatever is asked for may be there already: asking twice is as good as once.

use crate::objects::Uid;
use kubesim_runtime::{Answers, Digest, Effect, Hasher};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Which pods have something here: what no pod claims, its owner removes. Says nothing if
    /// there are none.
    List,
    /// A directory that everybody may write (mode 0777), empty when it is made.
    Empty { volume: Volume, medium: Medium, access: Access },
    /// A path of the machine.
    HostPath { volume: Volume, path: SmolStr, kind: PathKind },
    /// A directory of the machine that outlives the pods that have it. One of ours is made if it is
    /// missing (`make`), for everybody (mode 0777); another one must be there
    /// (pkg/volume/local/local.go).
    Local { volume: Volume, path: SmolStr, make: bool, access: Access },
    /// Removes such a directory with all that is in it.
    Discard { path: SmolStr },
    /// These files and no others, all of them or, to whoever reads meanwhile, those before
    /// (`AtomicWriter`, pkg/volume/util/atomic_writer.go).
    Files { volume: Volume, files: Arc<Files>, access: Access },
    /// A file or directory within a volume that is there. It is made, as a directory, if it is
    /// missing, and nothing that the volume's own links say leads out of it.
    Part { part: Part, path: SmolStr },
    /// All of the pod's, and what was mounted for it.
    Remove { pod: Uid },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    pub pod: Uid,
    pub name: SmolStr,
    pub plugin: Plugin,
}

/// Below which directory a volume is: each kind of source has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plugin {
    EmptyDir,
    /// Has no directory of its own.
    HostPath,
    /// Nor has this.
    Local,
    ConfigMap,
    DownwardApi,
    /// In memory, as are those of [`Plugin::Projected`]: they never come to a disk.
    Secret,
    Projected,
}

impl Plugin {
    /// `EscapeQualifiedName` of the plugin's name (k8s.io/utils/strings).
    pub fn directory(self) -> &'static str {
        match self {
            Plugin::EmptyDir => "kubernetes.io~empty-dir",
            Plugin::HostPath => "kubernetes.io~host-path",
            Plugin::Local => "kubernetes.io~local-volume",
            Plugin::ConfigMap => "kubernetes.io~configmap",
            Plugin::DownwardApi => "kubernetes.io~downward-api",
            Plugin::Secret => "kubernetes.io~secret",
            Plugin::Projected => "kubernetes.io~projected",
        }
    }

    /// Whether its files are kept in memory only.
    pub fn in_memory(self) -> bool {
        matches!(self, Plugin::Secret | Plugin::Projected)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Medium {
    /// The disk that the node's own things are on.
    Disk,
    /// A tmpfs of at most so many bytes; `None`: of half of the machine's memory.
    Memory { limit: Option<u64> },
}

/// For whom a volume is, besides root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// `fsGroup`: it owns all of the volume, and may read it and, where files may be written,
    /// write it (pkg/volume/volume_linux.go).
    pub group: Option<u32>,
}

/// `type` of a `hostPath`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// Nothing is checked: whatever is there, or a directory that the runtime makes.
    Any,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// By relative path, with `/` between its names.
pub type Files = BTreeMap<SmolStr, File>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File {
    pub content: Arc<[u8]>,
    /// Permissions, as 0o644.
    pub mode: u32,
    /// Whom it belongs to, if not to root.
    pub owner: Option<u32>,
}

/// A part of a volume, as one container mounts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    pub pod: Uid,
    pub volume: SmolStr,
    pub container: SmolStr,
    /// Which of the container's mounts it is for.
    pub index: u32,
    /// Where the volume is on the machine.
    pub within: SmolStr,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    Listed {
        pods: Arc<[Uid]>,
    },
    /// Where the volume is on the machine, or why not.
    Ready {
        pod: Uid,
        volume: SmolStr,
        result: Result<SmolStr, SmolStr>,
    },
    Part {
        pod: Uid,
        container: SmolStr,
        index: u32,
        result: Result<SmolStr, SmolStr>,
    },
    Removed {
        pod: Uid,
        result: Result<(), SmolStr>,
    },
    Discarded {
        path: SmolStr,
        result: Result<(), SmolStr>,
    },
}

impl Effect for Request {
    fn answers(&self) -> Answers {
        match self {
            Request::List => Answers::Stream,
            _ => Answers::One,
        }
    }
}

impl Digest for Reply {
    fn digest(&self, hasher: &mut Hasher) {
        self.hash(hasher);
    }
}

/// Whether a path of [`Files`] stays where it belongs (`validatePath` of atomic_writer.go).
pub fn check_file(path: &str) -> Result<(), SmolStr> {
    check_part(path)?;
    match path.starts_with("..") {
        true => Err(SmolStr::from(format!("invalid path: must not start with '..': {path}"))),
        false => Ok(()),
    }
}

/// The same of a [`Request::Part`] (`validateSubPath` of pkg/apis/core/validation).
pub fn check_part(path: &str) -> Result<(), SmolStr> {
    let why = if path.is_empty() {
        "not be empty"
    } else if path.starts_with('/') {
        "be relative path"
    } else if path.split('/').any(|name| name == "..") {
        "not contain '..'"
    } else {
        return Ok(());
    };
    Err(SmolStr::from(format!("invalid path: must {why}: {path}")))
}
