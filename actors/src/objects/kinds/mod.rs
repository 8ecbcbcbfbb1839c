//! Every kind that the cluster knows, each declared once: its names, its scope, what can be done
//! with it, its columns, and, of those that no component of ours works with, its rules. To add one,
//! declare it beside its like and name it in the list below.

mod apps;
mod batch;
mod cells;
mod core;
pub mod crd;
mod custom;
mod declaration;
mod fields;
mod networking;
mod policy;
mod rbac;
mod rest;
mod storage;
mod templates;
pub mod texts;

pub use cells::{Cell, Column, row};
pub use custom::{Custom, Interner, Names};
pub(super) use declaration::Parts;
pub use declaration::{Declaration, New, Rules, Sub};
pub use fields::Fields;

use std::fmt;

macro_rules! kinds {
    ($($kind:ident = $declaration:path;)*) => {
        /// Every kind the cluster knows. Those before [`Kind::Secret`] have types of their own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($kind,)*
            /// One that a CustomResourceDefinition declares.
            Custom(Custom),
        }

        /// The same without those that are declared while the cluster runs, to be counted.
        enum Number { $($kind,)* }

        impl Kind {
            /// All that are there from the start.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// `Pod`, as in a manifest's `kind`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => stringify!($kind),)*
                    Kind::Custom(custom) => custom.declaration().kind,
                }
            }
            pub fn declaration(self) -> &'static Declaration {
                match self {
                    $(Kind::$kind => &$declaration,)*
                    Kind::Custom(custom) => custom.declaration(),
                }
            }
            /// What stands for it in digests.
            pub fn number(self) -> u64 {
                match self {
                    $(Kind::$kind => Number::$kind as u64,)*
                    Kind::Custom(custom) => custom.number(),
                }
            }
        }
    };
}

kinds! {
    Namespace = core::NAMESPACE;
    Node = core::NODE;
    Pod = core::POD;
    Service = core::SERVICE;
    ConfigMap = core::CONFIG_MAP;
    Event = core::EVENT;
    Deployment = apps::DEPLOYMENT;
    ReplicaSet = apps::REPLICA_SET;
    EndpointSlice = networking::ENDPOINT_SLICE;
    Lease = rest::LEASE;
    Subnet = rest::SUBNET;

    Secret = core::SECRET;
    ServiceAccount = core::SERVICE_ACCOUNT;
    Endpoints = core::ENDPOINTS;
    LimitRange = core::LIMIT_RANGE;
    ResourceQuota = core::RESOURCE_QUOTA;
    PersistentVolume = storage::PERSISTENT_VOLUME;
    PersistentVolumeClaim = storage::PERSISTENT_VOLUME_CLAIM;
    ReplicationController = apps::REPLICATION_CONTROLLER;
    PodTemplate = core::POD_TEMPLATE;
    StatefulSet = apps::STATEFUL_SET;
    DaemonSet = apps::DAEMON_SET;
    ControllerRevision = apps::CONTROLLER_REVISION;
    Job = batch::JOB;
    CronJob = batch::CRON_JOB;
    HorizontalPodAutoscaler = policy::HORIZONTAL_POD_AUTOSCALER;
    PodDisruptionBudget = policy::POD_DISRUPTION_BUDGET;
    PriorityClass = policy::PRIORITY_CLASS;
    Ingress = networking::INGRESS;
    IngressClass = networking::INGRESS_CLASS;
    NetworkPolicy = networking::NETWORK_POLICY;
    Role = rbac::ROLE;
    RoleBinding = rbac::ROLE_BINDING;
    ClusterRole = rbac::CLUSTER_ROLE;
    ClusterRoleBinding = rbac::CLUSTER_ROLE_BINDING;
    StorageClass = storage::STORAGE_CLASS;
    VolumeAttachment = storage::VOLUME_ATTACHMENT;
    CSIDriver = storage::CSI_DRIVER;
    CSINode = storage::CSI_NODE;
    CSIStorageCapacity = storage::CSI_STORAGE_CAPACITY;
    CertificateSigningRequest = rest::CERTIFICATE_SIGNING_REQUEST;
    CustomResourceDefinition = crd::CUSTOM_RESOURCE_DEFINITION;
}

impl Kind {
    /// The kind of a manifest's `apiVersion` and `kind`, if it is there from the start.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        let same = |k: &&Kind| k.name() == kind && k.api_version() == api_version;
        Kind::ALL.iter().find(same).copied()
    }
    /// `pods`, as in a path.
    pub fn plural(self) -> &'static str {
        self.declaration().plural
    }
    /// `v1`, `apps/v1`: as in a manifest's `apiVersion`.
    pub fn api_version(self) -> &'static str {
        self.declaration().api_version
    }
    pub fn namespaced(self) -> bool {
        self.declaration().namespaced
    }
    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }
    /// `v1` of `apps/v1`.
    pub fn version(self) -> &'static str {
        self.api_version().rsplit('/').next().unwrap_or_default()
    }
    /// Of a kind without types of its own.
    pub fn rules(self) -> Option<&'static Rules> {
        self.declaration().rules.as_ref()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
