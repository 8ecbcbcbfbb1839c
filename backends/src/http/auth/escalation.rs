//! Nobody grants what they do not hold: roles and bindings are checked before they are written
//! (kubernetes `pkg/registry/rbac/*/policybased/storage.go`, `pkg/registry/rbac/validation/
//! rule.go`). The verbs `escalate` on a role and `bind` on the role of a binding lift it.

use super::attributes::{Attributes, Objects};
use super::user::{MASTERS, User};
use super::{index, rules};
use crate::http::Inner;
use crate::http::read::initializing;
use crate::http::status::Failure;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use kubesim_actors::objects::kinds::Fields;
use kubesim_actors::objects::{Kind, Object};
use std::collections::BTreeSet;

impl Inner {
    /// Whether a user may write this; `old` is what it replaces.
    pub fn confirm_grant(
        &self,
        user: &User,
        new: &Object,
        old: Option<&Object>,
    ) -> Result<(), Failure> {
        let Some(plain) = new.plain().filter(|_| !user.is_in(MASTERS)) else { return Ok(()) };
        let fields = &plain.fields;
        let old = old.and_then(Object::plain).map(|old| &*old.fields);
        let same = |field: &str| old.is_some_and(|old| old.at(field) == fields.at(field));
        match new.kind() {
            Kind::Role | Kind::ClusterRole => {
                if same("rules") && same("aggregationRule") {
                    return Ok(());
                }
                self.confirm_role(user, new, fields, old)
            }
            Kind::RoleBinding | Kind::ClusterRoleBinding => {
                if same("roleRef") && same("subjects") {
                    return Ok(());
                }
                self.confirm_binding(user, new, fields)
            }
            _ => Ok(()),
        }
    }

    fn confirm_role(
        &self,
        user: &User,
        new: &Object,
        fields: &Fields,
        old: Option<&Fields>,
    ) -> Result<(), Failure> {
        if self.may(user, "escalate", new.kind(), &new.key.namespace, &new.key.name)? {
            return Ok(());
        }
        let aggregates =
            |fields: &Fields| fields.at("aggregationRule").is_some_and(|rule| !rule.is_null());
        // What it will aggregate may be anything.
        if aggregates(fields) || old.is_some_and(aggregates) {
            let all = || Some(vec!["*".to_owned()]);
            let verbs = || vec!["*".to_owned()];
            let everything = [
                PolicyRule {
                    verbs: verbs(),
                    api_groups: all(),
                    resources: all(),
                    ..PolicyRule::default()
                },
                PolicyRule { verbs: verbs(), non_resource_urls: all(), ..PolicyRule::default() },
            ];
            self.confirm_held(user, new, &everything)?;
        }
        self.confirm_held(user, new, &fields.part::<Vec<PolicyRule>>("rules"))
    }

    fn confirm_binding(&self, user: &User, new: &Object, fields: &Fields) -> Result<(), Failure> {
        let role: RoleRef = fields.part("roleRef");
        let kind = if role.kind == "Role" { Kind::Role } else { Kind::ClusterRole };
        let namespace = &new.key.namespace;
        if self.may(user, "bind", kind, namespace, &role.name)? {
            return Ok(());
        }
        let found = {
            let state = self.state.borrow();
            let cache = state.history.cache().ok_or_else(initializing)?;
            index::rules_of(cache, &role, namespace)
        };
        let rules = found.map_err(|_| Failure::not_found(kind, &role.name))?;
        self.confirm_held(user, new, &rules)
    }

    fn may(
        &self,
        user: &User,
        verb: &str,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<bool, Failure> {
        let objects = Objects {
            group: kind.group().to_owned(),
            resource: kind.plural().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Objects::default()
        };
        Ok(self.decide(user, &Attributes::objects(verb, objects))?.allowed)
    }

    /// The user holds all of the rules where the object is.
    fn confirm_held(
        &self,
        user: &User,
        new: &Object,
        wanted: &[PolicyRule],
    ) -> Result<(), Failure> {
        let index = self.granted()?;
        let grants = index.of(user, &new.key.namespace).into_iter();
        let held = grants.filter_map(|grant| grant.rules.as_ref().ok());
        let held: Vec<PolicyRule> = held.flat_map(|rules| rules.iter().cloned()).collect();
        let missing = rules::missing(&held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let told: BTreeSet<String> = rules::compact(missing).iter().map(rules::described).collect();
        let told: Vec<String> = told.into_iter().collect();
        let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        let (kind, name) = (new.kind(), &new.key.name);
        let message = format!(
            "{}.{} {name:?} is forbidden: user {:?} (groups=[{}]) is attempting to grant RBAC \
             permissions not currently held:\n{}",
            kind.plural(),
            kind.group(),
            user.name,
            groups.join(" "),
            told.join("\n")
        );
        Err(Failure::new(403, "Forbidden", message).about(kind, name))
    }
}
