use std::fmt;

macro_rules! kinds {
    ($($kind:ident, $plural:literal, $api_version:literal, $namespaced:literal;)*) => {
        /// Every kind the cluster knows, in the order in which discovery lists them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($kind,)* }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// `Pod`, as in a manifest's `kind`.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind),)* }
            }
            /// `pods`, as in a path.
            pub const fn plural(self) -> &'static str {
                match self { $(Kind::$kind => $plural,)* }
            }
            /// `v1`, `apps/v1`: as in a manifest's `apiVersion`.
            pub const fn api_version(self) -> &'static str {
                match self { $(Kind::$kind => $api_version,)* }
            }
            pub const fn namespaced(self) -> bool {
                match self { $(Kind::$kind => $namespaced,)* }
            }
        }
    };
}

kinds! {
    Namespace, "namespaces", "v1", false;
    Node, "nodes", "v1", false;
    Pod, "pods", "v1", true;
    Service, "services", "v1", true;
    ConfigMap, "configmaps", "v1", true;
    Event, "events", "v1", true;
    Deployment, "deployments", "apps/v1", true;
    ReplicaSet, "replicasets", "apps/v1", true;
    EndpointSlice, "endpointslices", "discovery.k8s.io/v1", true;
    Lease, "leases", "coordination.k8s.io/v1", true;
    Subnet, "subnets", "net.kubesim.dev/v1", false;
}

impl Kind {
    /// The kind of a manifest's `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        let same = |k: &&Kind| k.api_version() == api_version && k.name() == kind;
        Kind::ALL.iter().find(same).copied()
    }
    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        self.api_version().rsplit_once('/').map_or("", |(group, _)| group)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
