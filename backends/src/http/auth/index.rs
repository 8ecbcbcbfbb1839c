//! Who was granted which rules, as the bindings of one version of the cluster have it (kubernetes
//! `pkg/registry/rbac/validation/rule.go`). Made anew when one of its four kinds changes, so that a
//! request looks up its user and groups and reads no binding.

use super::user::{User, account_name};
use k8s_openapi::api::rbac::v1::{AggregationRule, PolicyRule, RoleRef, Subject};
use kubesim_actors::apiserver::Cache;
use kubesim_actors::controllers::selectors;
use kubesim_actors::objects::{Key, Kind, Name, Object};
use std::collections::BTreeMap;
use std::rc::Rc;

const KINDS: [Kind; 4] =
    [Kind::ClusterRole, Kind::ClusterRoleBinding, Kind::Role, Kind::RoleBinding];

/// Which versions of the four kinds it is of.
pub type Version = [Option<(u64, u64)>; 4];

pub fn version(cache: &Cache) -> Version {
    KINDS.map(|kind| cache.views.get(&kind).map(|view| (view.history(), view.version())))
}

#[derive(Debug, Default)]
pub struct Index {
    /// By the namespace, which is empty for what is granted everywhere, and the subject.
    grants: BTreeMap<(Name, Who), Vec<Rc<Grant>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    User(String),
    Group(String),
}

/// A binding.
#[derive(Debug)]
pub struct Grant {
    /// Or what is wrong with the role.
    pub rules: Result<Rc<[PolicyRule]>, String>,
    binding: Key,
    role: RoleRef,
    subjects: Vec<Subject>,
}

impl Grant {
    /// `ClusterRoleBinding "a" of ClusterRole "b" to User "c"`.
    pub fn described(&self, user: &User) -> String {
        let Key { namespace, name } = &self.binding;
        let binding = match namespace.is_empty() {
            true => format!("ClusterRoleBinding {name:?}"),
            false => format!("RoleBinding {:?}", format!("{name}/{namespace}")),
        };
        let mut subjects = self.subjects.iter();
        let subject = subjects.find(|subject| match who(subject, namespace) {
            Some(Who::User(name)) => user.name == name,
            Some(Who::Group(group)) => user.groups.contains(&group),
            None => false,
        });
        let subject = subject.map_or(String::new(), |subject| match subject.kind.as_str() {
            "ServiceAccount" => {
                let other = subject.namespace.as_deref().filter(|other| !other.is_empty());
                let name = format!("{}/{}", subject.name, other.unwrap_or(namespace));
                format!("{} {name:?}", subject.kind)
            }
            kind => format!("{kind} {:?}", subject.name),
        });
        format!("{binding} of {} {:?} to {subject}", self.role.kind, self.role.name)
    }
}

/// Whom a subject of a binding in this namespace means.
fn who(subject: &Subject, namespace: &str) -> Option<Who> {
    match subject.kind.as_str() {
        "User" => Some(Who::User(subject.name.clone())),
        "Group" => Some(Who::Group(subject.name.clone())),
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
            let namespace = own.unwrap_or(namespace);
            (!namespace.is_empty()).then(|| Who::User(account_name(namespace, &subject.name)))
        }
        _ => None,
    }
}

impl Index {
    pub fn new(cache: &Cache) -> Index {
        let mut index = Index::default();
        let mut roles = Roles { cache, cluster: BTreeMap::new() };
        for kind in [Kind::ClusterRoleBinding, Kind::RoleBinding] {
            let bindings = cache.views.get(&kind).into_iter().flat_map(|view| view.values());
            for binding in bindings {
                index.add(binding, &mut roles);
            }
        }
        index
    }

    fn add<'a>(&mut self, binding: &'a Object, roles: &mut Roles<'a>) {
        let Some(plain) = binding.plain() else { return };
        let role: RoleRef = plain.fields.part("roleRef");
        let subjects: Vec<Subject> = plain.fields.part("subjects");
        let rules = roles.referred(&role, &binding.key.namespace);
        let key = binding.key.clone();
        let grant = Rc::new(Grant { rules, binding: key, role, subjects });
        for subject in &grant.subjects {
            let namespace = &binding.key.namespace;
            let Some(who) = who(subject, namespace) else { continue };
            let grants = self.grants.entry((namespace.clone(), who)).or_default();
            if !grants.iter().any(|one| Rc::ptr_eq(one, &grant)) {
                grants.push(Rc::clone(&grant));
            }
        }
    }

    /// All that a user was granted, everywhere and in a namespace, each once.
    pub fn of(&self, user: &User, namespace: &str) -> Vec<&Rc<Grant>> {
        let mut found: Vec<&Rc<Grant>> = Vec::new();
        let mut places = vec![Name::default()];
        places.extend(Some(Name::from(namespace)).filter(|name| !name.is_empty()));
        for place in places {
            let groups = user.groups.iter().map(|group| Who::Group(group.clone()));
            for who in [Who::User(user.name.clone())].into_iter().chain(groups) {
                let grants = self.grants.get(&(place.clone(), who)).into_iter().flatten();
                for grant in grants {
                    if !found.iter().any(|one| Rc::ptr_eq(one, grant)) {
                        found.push(grant);
                    }
                }
            }
        }
        found
    }
}

/// The rules of roles, each read once.
struct Roles<'a> {
    cache: &'a Cache,
    cluster: BTreeMap<Name, Rc<[PolicyRule]>>,
}

impl<'a> Roles<'a> {
    fn referred(&mut self, role: &RoleRef, namespace: &Name) -> Result<Rc<[PolicyRule]>, String> {
        let name = Name::from(role.name.as_str());
        match role.kind.as_str() {
            "ClusterRole" => self
                .cluster_role(&name, &mut Vec::new())
                .ok_or_else(|| format!("clusterrole.rbac.authorization.k8s.io {name:?} not found")),
            "Role" => {
                let key = Key { namespace: namespace.clone(), name };
                let object = self.cache.object(Kind::Role, &key);
                let rules = object.and_then(|object| object.plain());
                let rules = rules.map(|plain| plain.fields.part::<Vec<PolicyRule>>("rules"));
                rules.map(Rc::from).ok_or_else(|| {
                    format!("role.rbac.authorization.k8s.io {:?} not found", key.name)
                })
            }
            other => Err(format!("unsupported role reference kind: {other:?}")),
        }
    }

    /// Its own rules, or those of the roles that it aggregates; `above` are roles that aggregate
    /// this one.
    fn cluster_role(&mut self, name: &Name, above: &mut Vec<Name>) -> Option<Rc<[PolicyRule]>> {
        if let Some(rules) = self.cluster.get(name) {
            return Some(Rc::clone(rules));
        }
        let role = self.cache.object(Kind::ClusterRole, &Key::cluster(name.clone()))?;
        let fields = &role.plain()?.fields;
        let rule: Option<AggregationRule> = fields.part("aggregationRule");
        let Some(rule) = rule else {
            let rules: Rc<[PolicyRule]> = fields.part::<Vec<PolicyRule>>("rules").into();
            self.cluster.insert(name.clone(), Rc::clone(&rules));
            return Some(rules);
        };
        above.push(name.clone());
        let rules: Rc<[PolicyRule]> = self.aggregated(&rule, above).into();
        above.pop();
        // Within a circle of roles, what is above this one is not in it yet.
        if above.is_empty() {
            self.cluster.insert(name.clone(), Rc::clone(&rules));
        }
        Some(rules)
    }

    /// As `pkg/controller/clusterroleaggregation` puts them together.
    fn aggregated(&mut self, rule: &AggregationRule, above: &mut Vec<Name>) -> Vec<PolicyRule> {
        let mut rules: Vec<PolicyRule> = Vec::new();
        let cache: &'a Cache = self.cache;
        let view = cache.views.get(&Kind::ClusterRole);
        for selector in rule.cluster_role_selectors.iter().flatten() {
            let chosen = view.into_iter().flat_map(|view| view.values()).filter(|role| {
                selectors::matches(selector, selectors::labels(role.meta.labels.as_ref()))
            });
            for role in chosen.filter(|role| !role.deleting()) {
                if above.contains(&role.key.name) {
                    continue;
                }
                let own = self.cluster_role(&role.key.name, above);
                for one in own.iter().flat_map(|own| own.iter()) {
                    if !rules.contains(one) {
                        rules.push(one.clone());
                    }
                }
            }
        }
        rules
    }
}

/// What a cluster's role comes to, if there is one.
pub fn rules_of(
    cache: &Cache,
    role: &RoleRef,
    namespace: &Name,
) -> Result<Rc<[PolicyRule]>, String> {
    Roles { cache, cluster: BTreeMap::new() }.referred(role, namespace)
}
