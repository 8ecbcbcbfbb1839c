//! What a container may use and may do, in the units of the CRI (`LinuxContainerResources` and
//! `LinuxContainerSecurityContext` of k8s.io/cri-api/pkg/apis/runtime/v1/api.proto).

use smol_str::SmolStr;

/// The cgroup of a container; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Its weight among others: 1024 a CPU.
    pub cpu_shares: u64,
    /// Microseconds of CPU time that it may use in each period.
    pub cpu_quota: u64,
    /// In microseconds.
    pub cpu_period: u64,
    /// In bytes.
    pub memory_limit: u64,
    /// From -1000 (never killed for want of memory) to 1000 (first).
    pub oom_score: i32,
}

/// `None` and empty mean the image's or the runtime's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Security {
    pub privileged: bool,
    pub user: Option<i64>,
    pub group: Option<i64>,
    /// Refused if the image would run as root.
    pub non_root: bool,
    pub groups: Vec<i64>,
    pub read_only: bool,
    pub no_new_privileges: bool,
    pub capabilities: Capabilities,
    pub seccomp: Seccomp,
    /// All of /proc is visible and may be written.
    pub unmasked_proc: bool,
}

/// Names without `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A file below the kubelet's folder of profiles.
    Localhost(SmolStr),
}
