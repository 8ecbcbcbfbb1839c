//! What the API serves, found by its path: the kinds as they are declared.

use kubesim_actors::objects::Kind;
pub use kubesim_actors::objects::kinds::{Declaration as Resource, Sub};

/// Every resource, in the order of [`Kind::ALL`].
pub fn all() -> impl Iterator<Item = &'static Resource> {
    Kind::ALL.iter().map(|kind| kind.declaration())
}

/// The resource of this name in a group's version.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    in_version(group, version).find(|resource| resource.plural == plural)
}

/// What a group's version has.
pub fn in_version(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    all().filter(move |resource| {
        resource.kind.group() == group && resource.kind.version() == version
    })
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

/// Groups but the core one, each with its one version.
pub fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups = Vec::new();
    for resource in all() {
        let group = (resource.kind.group(), resource.kind.version());
        if !group.0.is_empty() && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups.extend([(AUTHENTICATION, "v1"), (AUTHORIZATION, "v1")]);
    groups
}

/// Where a group's version is served: `/api/v1`, `/apis/apps/v1`.
pub fn prefix(group: &str, version: &str) -> String {
    match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }
}
