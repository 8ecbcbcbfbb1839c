//! What of the machine a container sees, and where it leaves its last words.

use smol_str::SmolStr;

/// A file or directory of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Where the container has it.
    pub path: SmolStr,
    /// Where the machine has it.
    pub source: SmolStr,
    pub read_only: bool,
    pub propagation: Propagation,
}

/// Whether what is mounted below it later is seen on the other side (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// A container's `terminationMessagePath` and `terminationMessagePolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// The file that it may write; empty for none.
    pub path: SmolStr,
    /// The end of its log will do, of one that fails and writes nothing.
    pub or_log: bool,
}
