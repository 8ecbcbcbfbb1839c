//! What the API has, in one place: each kind's resource, its names and what can be done with it.

use kubesim_actors::objects::Kind;

/// One resource, below its kind's group and version.
#[derive(Debug)]
pub struct Resource {
    pub kind: Kind,
    pub singular: &'static str,
    pub short: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub subresources: &'static [Sub],
    /// For fields that upstream has one of as a selector besides the name and the namespace.
    pub fields: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    Status,
    Scale,
    Binding,
    Eviction,
}

impl Sub {
    pub fn name(self) -> &'static str {
        match self {
            Sub::Status => "status",
            Sub::Scale => "scale",
            Sub::Binding => "binding",
            Sub::Eviction => "eviction",
        }
    }
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Sub::Status | Sub::Scale => &["get", "patch", "update"],
            Sub::Binding | Sub::Eviction => &["create"],
        }
    }
    /// Of what is read and written there: group, version, kind.
    pub fn type_of(self, kind: Kind) -> (&'static str, &'static str, &'static str) {
        match self {
            Sub::Status => (kind.group(), version(kind), kind.name()),
            Sub::Scale => ("autoscaling", "v1", "Scale"),
            Sub::Binding => ("", "v1", "Binding"),
            Sub::Eviction => ("policy", "v1", "Eviction"),
        }
    }
}

impl Resource {
    pub fn verbs(&self) -> &'static [&'static str] {
        // Each namespace is deleted by its name, as upstream has it.
        if self.kind == Kind::Namespace { SINGLE } else { VERBS }
    }
}

const SINGLE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

const STATUS: &[Sub] = &[Sub::Status];
const SCALED: &[Sub] = &[Sub::Scale, Sub::Status];
const ALL: &[&str] = &["all"];

macro_rules! resource {
    ($kind:ident, $singular:literal, $short:expr, $categories:expr, $subs:expr, $fields:expr) => {
        Resource {
            kind: Kind::$kind,
            singular: $singular,
            short: $short,
            categories: $categories,
            subresources: $subs,
            fields: $fields,
        }
    };
}

/// In the order of [`Kind::ALL`].
pub const RESOURCES: &[Resource] = &[
    resource!(Namespace, "namespace", &["ns"], &[], STATUS, &["status.phase"]),
    resource!(Node, "node", &["no"], &[], STATUS, &["spec.unschedulable"]),
    resource!(
        Pod,
        "pod",
        &["po"],
        ALL,
        &[Sub::Binding, Sub::Eviction, Sub::Status],
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    ),
    resource!(Service, "service", &["svc"], ALL, STATUS, &["spec.clusterIP", "spec.type"]),
    resource!(ConfigMap, "configmap", &["cm"], &[], &[], &[]),
    resource!(
        Event,
        "event",
        &["ev"],
        &[],
        &[],
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ]
    ),
    resource!(Deployment, "deployment", &["deploy"], ALL, SCALED, &[]),
    resource!(ReplicaSet, "replicaset", &["rs"], ALL, SCALED, &["status.replicas"]),
    resource!(EndpointSlice, "endpointslice", &[], &[], &[], &[]),
    resource!(Lease, "lease", &[], &[], &[], &[]),
    resource!(Subnet, "subnet", &[], &[], STATUS, &[]),
];

/// The resource of a kind.
pub fn of(kind: Kind) -> &'static Resource {
    let found = RESOURCES.iter().find(|resource| resource.kind == kind);
    found.expect("every kind has a resource")
}

/// The resource of this name in a group's version.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    in_version(group, version).find(|resource| resource.kind.plural() == plural)
}

/// What a group's version has.
pub fn in_version(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().filter(move |resource| {
        resource.kind.group() == group && self::version(resource.kind) == version
    })
}

/// Groups but the core one, each with its one version.
pub fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups = Vec::new();
    for resource in RESOURCES {
        let group = (resource.kind.group(), version(resource.kind));
        if !group.0.is_empty() && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

/// `v1` of `apps/v1`.
pub fn version(kind: Kind) -> &'static str {
    kind.api_version().rsplit('/').next().unwrap_or_default()
}

/// Where a group's version is served: `/api/v1`, `/apis/apps/v1`.
pub fn prefix(group: &str, version: &str) -> String {
    match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_resource() {
        let kinds: Vec<Kind> = RESOURCES.iter().map(|resource| resource.kind).collect();
        assert_eq!(kinds, Kind::ALL);
        for resource in RESOURCES {
            assert_eq!(resource.singular, resource.kind.name().to_lowercase());
        }
    }
}
