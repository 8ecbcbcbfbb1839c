//! `rbac.authorization.k8s.io/v1`.

use super::cells::{AGE, Cell, Column, NAME, Shown, column, wide};
use super::declaration::{cluster, namespaced, rules};
use super::{Declaration, Fields, Kind, Rules};
use crate::objects::names;
use crate::objects::validation::Causes;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject,
};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io/v1";
const API_GROUP: &str = "rbac.authorization.k8s.io";
const ROLE_COLUMNS: &[Column] = &[NAME, column("Created At", Cell::Created)];
const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column("Role", Cell::Made(role)),
    AGE,
    wide("Users", Cell::Made(|shown| subjects(shown, "User"))),
    wide("Groups", Cell::Made(|shown| subjects(shown, "Group"))),
    wide("ServiceAccounts", Cell::Made(|shown| subjects(shown, "ServiceAccount"))),
];

pub(super) static ROLE: Declaration = Declaration {
    columns: ROLE_COLUMNS,
    name: names::path_segment,
    rules: Some(Rules {
        validate: |fields, causes| policy_rules(fields, true, causes),
        ..rules::<Role>()
    }),
    ..namespaced(Kind::Role, GROUP, "roles")
};

pub(super) static CLUSTER_ROLE: Declaration = Declaration {
    columns: ROLE_COLUMNS,
    name: names::path_segment,
    rules: Some(Rules {
        validate: |fields, causes| policy_rules(fields, false, causes),
        ..rules::<ClusterRole>()
    }),
    ..cluster(Kind::ClusterRole, GROUP, "clusterroles")
};

pub(super) static ROLE_BINDING: Declaration = Declaration {
    columns: BINDING_COLUMNS,
    name: names::path_segment,
    rules: Some(Rules {
        defaults: complete,
        validate: |fields, causes| binding(fields, true, causes),
        update: same_role,
        ..rules::<RoleBinding>()
    }),
    ..namespaced(Kind::RoleBinding, GROUP, "rolebindings")
};

pub(super) static CLUSTER_ROLE_BINDING: Declaration = Declaration {
    columns: BINDING_COLUMNS,
    name: names::path_segment,
    rules: Some(Rules {
        defaults: complete,
        validate: |fields, causes| binding(fields, false, causes),
        update: same_role,
        ..rules::<ClusterRoleBinding>()
    }),
    ..cluster(Kind::ClusterRoleBinding, GROUP, "clusterrolebindings")
};

fn role(shown: &Shown<'_>) -> Value {
    format!("{}/{}", shown.fields.text("roleRef.kind"), shown.fields.text("roleRef.name")).into()
}

fn subjects(shown: &Shown<'_>, kind: &str) -> Value {
    let all: Vec<Subject> = shown.fields.part("subjects");
    let mine = all.into_iter().filter(|subject| subject.kind == kind);
    let names = mine.map(|subject| match subject.namespace.filter(|ns| !ns.is_empty()) {
        Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{}", subject.name),
        _ => subject.name,
    });
    names.collect::<Vec<_>>().join(", ").into()
}

/// `ValidatePolicyRule` (pkg/apis/rbac/validation).
fn policy_rules(fields: &Fields, namespaced: bool, causes: &mut Causes) {
    let rules: Vec<PolicyRule> = fields.part("rules");
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("rules[{index}]");
        let len = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        if rule.verbs.is_empty() {
            causes.required(format_args!("{field}.verbs"), "verbs must contain at least one value");
        }
        let resources = len(&rule.api_groups) + len(&rule.resources) + len(&rule.resource_names);
        if len(&rule.non_resource_urls) > 0 {
            let urls = format!("{:?}", rule.non_resource_urls.clone().unwrap_or_default());
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                causes.invalid(format_args!("{field}.nonResourceURLs"), &urls, why);
            }
            if resources > 0 {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                causes.invalid(format_args!("{field}.nonResourceURLs"), &urls, why);
            }
            continue;
        }
        if len(&rule.api_groups) == 0 {
            let why = "resource rules must supply at least one api group";
            causes.required(format_args!("{field}.apiGroups"), why);
        }
        if len(&rule.resources) == 0 {
            let why = "resource rules must supply at least one resource";
            causes.required(format_args!("{field}.resources"), why);
        }
    }
}

/// `SetDefaults_RoleBinding`, `SetDefaults_Subject` (pkg/apis/rbac/v1/defaults.go).
fn complete(fields: &mut Fields) {
    fields.default("roleRef.apiGroup", API_GROUP);
    let mut subjects = fields.list("subjects").to_vec();
    for subject in &mut subjects {
        let people = matches!(subject["kind"].as_str(), Some("User" | "Group"));
        if people && subject["apiGroup"].as_str().is_none_or(str::is_empty) {
            subject["apiGroup"] = API_GROUP.into();
        }
    }
    if !subjects.is_empty() {
        fields.set("subjects", subjects);
    }
}

fn binding(fields: &Fields, namespaced: bool, causes: &mut Causes) {
    let group = fields.text("roleRef.apiGroup");
    if group != API_GROUP {
        causes.unsupported("roleRef.apiGroup", group, &[API_GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    let kind = fields.text("roleRef.kind");
    if !kinds.contains(&kind) {
        causes.unsupported("roleRef.kind", kind, kinds);
    }
    match fields.text("roleRef.name") {
        "" => causes.required("roleRef.name", ""),
        name => {
            for why in names::path_segment(name) {
                causes.invalid("roleRef.name", format_args!("{name:?}"), why);
            }
        }
    }
    let subjects: Vec<Subject> = fields.part("subjects");
    for (index, subject) in subjects.iter().enumerate() {
        let field = format!("subjects[{index}]");
        if subject.name.is_empty() {
            causes.required(format_args!("{field}.name"), "");
        }
        let group = subject.api_group.as_deref().unwrap_or_default();
        match subject.kind.as_str() {
            "ServiceAccount" => {
                for why in Some(&subject.name)
                    .filter(|n| !n.is_empty())
                    .map_or(Vec::new(), |name| names::subdomain(name))
                {
                    let value = format_args!("{:?}", subject.name);
                    causes.invalid(format_args!("{field}.name"), value, why);
                }
                if !group.is_empty() {
                    causes.unsupported(format_args!("{field}.apiGroup"), group, &[""]);
                }
                if !namespaced && subject.namespace.as_deref().is_none_or(str::is_empty) {
                    causes.required(format_args!("{field}.namespace"), "");
                }
            }
            "User" | "Group" if group != API_GROUP => {
                causes.unsupported(format_args!("{field}.apiGroup"), group, &[API_GROUP]);
            }
            "User" | "Group" => {}
            other => {
                let supported = ["Group", "ServiceAccount", "User"];
                causes.unsupported(format_args!("{field}.kind"), other, &supported);
            }
        }
    }
}

fn same_role(new: &Fields, old: &Fields, causes: &mut Causes) {
    if new.at("roleRef") != old.at("roleRef") {
        let value = new.at("roleRef").cloned().unwrap_or_default();
        causes.invalid("roleRef", value, "cannot change roleRef");
    }
}
