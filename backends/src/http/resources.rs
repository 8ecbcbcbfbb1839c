//! What the API serves, found by its path: the kinds as they are declared, in their versions.

use super::versions::Served;
use kubesim_actors::objects::definition::preferred;
pub use kubesim_actors::objects::kinds::{Declaration as Resource, Sub};
use kubesim_actors::objects::{Definitions, Kind};

/// The resource of this name in a group's version.
pub fn find(group: &str, version: &str, plural: &str, definitions: &Definitions) -> Option<Served> {
    in_version(group, version, definitions).find(|served| served.kind.plural() == plural)
}

/// What a group's version has.
pub fn in_version(
    group: &str,
    version: &str,
    definitions: &Definitions,
) -> impl Iterator<Item = Served> {
    Served::all(definitions)
        .filter(move |served| served.group() == group && served.version() == version)
}

/// What is asked and answered at once, and not kept.
#[derive(Debug)]
pub struct Review {
    pub kind: &'static str,
    pub plural: &'static str,
    /// Each is of version 1 of its group.
    pub group: &'static str,
    pub namespaced: bool,
}

impl Review {
    pub fn api_version(&self) -> String {
        format!("{}/v1", self.group)
    }
}

const fn review(group: &'static str, kind: &'static str, plural: &'static str) -> Review {
    Review { kind, plural, group, namespaced: false }
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const REVIEWS: &[Review] = &[
    review(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews"),
    review(AUTHENTICATION, "TokenReview", "tokenreviews"),
    Review {
        namespaced: true,
        ..review(AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews")
    },
    review(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    review(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    review(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews"),
];

/// The reviews of a group's version.
pub fn reviews(group: &str, version: &str) -> impl Iterator<Item = &'static Review> {
    REVIEWS.iter().filter(move |review| review.group == group && version == "v1")
}

/// A group of the API.
#[derive(Debug, PartialEq)]
pub struct Group {
    /// Empty: the core group.
    pub name: &'static str,
    /// The one that clients are to prefer comes first.
    pub versions: Vec<&'static str>,
}

/// Groups in the order in which upstream names them, by their priorities (`aggregator.go` in
/// pkg/controlplane/apiserver and cmd/kube-apiserver/app): a client that asks for several kinds at
/// once shows them so.
const ORDER: [&str; 15] = [
    "apps",
    "events.k8s.io",
    AUTHENTICATION,
    AUTHORIZATION,
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];

/// All groups but the core one. Those that upstream does not have come last.
pub fn groups(definitions: &Definitions) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let kinds = Served::all(definitions).map(|served| (served.group(), served.version()));
    for (name, version) in kinds.chain([(AUTHENTICATION, "v1"), (AUTHORIZATION, "v1")]) {
        match groups.iter_mut().find(|group| group.name == name) {
            _ if name.is_empty() => {}
            Some(group) if group.versions.contains(&version) => {}
            Some(group) => group.versions.push(version),
            None => groups.push(Group { name, versions: vec![version] }),
        }
    }
    // Several definitions of a group have versions of their own.
    for group in groups.iter_mut().filter(|group| is_declared(group.name, definitions)) {
        group.versions.sort_by(|a, b| preferred(a, b));
    }
    let place = |group: &Group| ORDER.iter().position(|name| *name == group.name);
    groups.sort_by_key(|group| place(group).unwrap_or(ORDER.len()));
    groups
}

/// Whether all kinds of a group are declared ones.
pub fn is_declared(group: &str, definitions: &Definitions) -> bool {
    let ours = Kind::ALL.iter().any(|kind| kind.group() == group);
    !ours && definitions.iter().any(|definition| definition.kind.group() == group)
}

/// The core group.
pub fn core() -> Group {
    Group { name: "", versions: vec!["v1"] }
}

/// Where a group's version is served: `/api/v1`, `/apis/apps/v1`.
pub fn prefix(group: &str, version: &str) -> String {
    match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }
}
