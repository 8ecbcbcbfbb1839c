//! A pod held against a standard (policy/registry.go, policy/checks.go), and what the checks share
//! (policy/visitor.go, policy/helpers.go).

use super::policy::{Level, Standard, Version};
use super::{baseline, restricted};
use crate::objects::{ObjectMeta, PodSpec};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSecurityContext, SecurityContext};

/// One look at a pod.
pub type Check = fn(Pod<'_>) -> Option<Violation>;

#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

impl Violation {
    pub fn new(reason: &'static str, detail: String) -> Option<Self> {
        Some(Violation { reason, detail })
    }
}

/// All that is wrong, in one line: the checks of `baseline` first, each list by upstream's ids.
pub fn violations(standard: Standard, meta: &ObjectMeta, spec: &PodSpec) -> Option<String> {
    let Standard { level, version } = standard;
    if level == Level::Privileged {
        return None;
    }
    let strict = level == Level::Restricted;
    let there = |since: u64| version >= Version::Minor(since);
    let baseline = baseline::CHECKS.iter();
    // Where a stricter check looks at the same, it alone speaks.
    let baseline = baseline.filter(|(stricter, _)| !(strict && stricter.is_some_and(there)));
    let restricted = restricted::CHECKS.iter().filter(|(since, _)| strict && there(*since));
    let checks = baseline.map(|(_, check)| check).chain(restricted.map(|(_, check)| check));
    let found = checks.filter_map(|check| check(Pod { meta, spec, version }));
    let found: Vec<String> =
        found.map(|Violation { reason, detail }| format!("{reason} ({detail})")).collect();
    (!found.is_empty()).then(|| found.join(", "))
}

#[derive(Clone, Copy)]
pub struct Pod<'a> {
    pub meta: &'a ObjectMeta,
    pub spec: &'a PodSpec,
    /// Of the standard that it is held against.
    pub version: Version,
}

/// What a container of any of the three lists says that is of interest.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub name: &'a str,
    pub security: Option<&'a SecurityContext>,
    pub ports: &'a [ContainerPort],
}

impl<'a> Seen<'a> {
    fn of(one: &'a Container) -> Self {
        Seen {
            name: &one.name,
            security: one.security_context.as_ref(),
            ports: one.ports.as_deref().unwrap_or_default(),
        }
    }
}

impl<'a> Pod<'a> {
    /// In upstream's order, which is that of the names in a text.
    fn containers(self) -> impl Iterator<Item = Seen<'a>> {
        let ephemeral = self.spec.ephemeral_containers.iter().flatten().map(|one| Seen {
            name: &one.name,
            security: one.security_context.as_ref(),
            ports: one.ports.as_deref().unwrap_or_default(),
        });
        let init = self.spec.init_containers.iter().flatten().map(Seen::of);
        init.chain(self.spec.containers.iter().map(Seen::of)).chain(ephemeral)
    }

    /// The names of the containers of which this is true.
    pub fn named(self, mut that: impl FnMut(Seen<'a>) -> bool) -> Vec<&'a str> {
        self.containers().filter(|one| that(*one)).map(|one| one.name).collect()
    }

    pub fn security(self) -> Option<&'a PodSecurityContext> {
        self.spec.security_context.as_ref()
    }

    pub fn since(self, minor: u64) -> bool {
        self.version >= Version::Minor(minor)
    }

    /// A pod that says so is spared, from 1.25 on, what Windows does not have.
    pub fn spared(self) -> bool {
        self.since(25) && self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }
}

/// `a` of one, `as` of others.
pub fn plural(one: &str, count: usize) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{one}{end}")
}

/// `"a", "b"`, with nothing escaped.
pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

/// `containers "a", "b"`.
pub fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// Who is to blame, to be joined by `and`.
pub fn setters(pod: bool, names: &[&str]) -> Vec<String> {
    let pod = pod.then(|| "pod".to_owned());
    pod.into_iter().chain((!names.is_empty()).then(|| containers(names))).collect()
}
