//! The roles and bindings that every cluster has: a table, `policy.txt`, and that they are there.
//! At its start the server makes those that are missing and adds what the others lack, but to one
//! whose annotation `rbac.authorization.kubernetes.io/autoupdate` says `false` (kubernetes
//! `pkg/registry/rbac/rest/storage_rbac.go`, `pkg/registry/rbac/reconciliation`).

use super::rules;
use crate::http::{Front, Inner};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kubesim_actors::objects::{Kind, Object};
use kubesim_actors::ports::api::{DeleteOptions, Error, Reason, Request};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

const EVERY_CLUSTER: &str = include_str!("policy.txt");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = "rbac.authorization.k8s.io";
/// Whose controllers' roles are called so.
const CONTROLLER: &str = "system:controller:";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
/// How often a write is tried, and the pause before another.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

impl Front {
    /// Makes or completes what every cluster has. The error is for people.
    pub async fn reconcile_roles(&self) -> Result<(), String> {
        self.reconcile_table(EVERY_CLUSTER).await
    }

    /// The same of what a table of that form says.
    pub async fn reconcile_table(&self, text: &str) -> Result<(), String> {
        let mut writes = JoinSet::new();
        for wanted in table(text) {
            let inner = Rc::clone(&self.0);
            writes.spawn_local(async move { inner.reconcile(&wanted).await });
        }
        while let Some(written) = writes.join_next().await {
            written.map_err(|error| format!("making the cluster's roles: {error}"))??;
        }
        Ok(())
    }
}

impl Inner {
    async fn reconcile(&self, wanted: &Value) -> Result<(), String> {
        let told = |why: &str| {
            let (kind, name) = (&wanted["kind"], &wanted["metadata"]["name"]);
            format!("making the {kind} {name}, which every cluster has: {why}")
        };
        let object = Object::from_json(wanted.clone()).map_err(|error| told(&error.to_string()))?;
        let (kind, key) = (object.kind(), object.key.clone());
        let mut tries = 0;
        loop {
            tries += 1;
            let live = {
                let state = self.state.borrow();
                let cache = state.history.cache();
                cache.and_then(|cache| cache.object(kind, &key).cloned())
            };
            let request = match &live {
                None => Request::Create { object: Arc::new(object.clone()) },
                Some(live) => match completed(&live.to_json(), wanted) {
                    Completed::AsItIs => return Ok(()),
                    // No role can take another's place in a binding.
                    Completed::OfAnotherRole => {
                        let options = DeleteOptions { uid: Some(live.uid), ..Default::default() };
                        Request::Delete { kind, key: key.clone(), options }
                    }
                    Completed::To(value) => {
                        let whole = Object::from_json(value);
                        let object = whole.map_err(|error| told(&error.to_string()))?;
                        Request::Update { object: Arc::new(object) }
                    }
                },
            };
            let deletes = matches!(request, Request::Delete { .. });
            match self.call(request, false).await {
                Ok(_) if deletes => {}
                Ok(_) => return Ok(()),
                Err(error) if tries < TRIES && passes(&error) => sleep(PAUSE).await,
                Err(error) => return Err(told(&error.message)),
            }
        }
    }
}

/// Another try may succeed.
fn passes(error: &Error) -> bool {
    !matches!(error.reason, Reason::Invalid | Reason::BadRequest | Reason::Forbidden)
}

#[derive(Debug, PartialEq)]
enum Completed {
    AsItIs,
    To(Value),
    OfAnotherRole,
}

/// What is there, with what it lacks.
fn completed(live: &Value, wanted: &Value) -> Completed {
    if live["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return Completed::AsItIs;
    }
    let mut whole = live.clone();
    for field in ["labels", "annotations"] {
        for (name, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            let place = &mut whole["metadata"][field][name];
            if place.is_null() {
                *place = value.clone();
            }
        }
    }
    if let Some(role) = wanted.get("roleRef") {
        if live["roleRef"] != *role {
            return Completed::OfAnotherRole;
        }
        add_missing(&mut whole, "/subjects", wanted);
    } else if wanted.get("aggregationRule").is_some() {
        if whole["aggregationRule"].is_null() {
            whole["aggregationRule"] = wanted["aggregationRule"].clone();
        }
        add_missing(&mut whole, "/aggregationRule/clusterRoleSelectors", wanted);
    } else {
        let read = |value: &Value| {
            serde_json::from_value::<Vec<PolicyRule>>(value["rules"].clone()).unwrap_or_default()
        };
        let mut rules = read(live);
        let missing = rules::missing(&rules, &read(wanted));
        if !missing.is_empty() {
            rules.extend(rules::compact(missing));
            whole["rules"] = json!(rules);
        }
    }
    if whole == *live { Completed::AsItIs } else { Completed::To(whole) }
}

/// Adds the elements of a list that it has not.
fn add_missing(whole: &mut Value, path: &str, wanted: &Value) {
    let wanted = wanted.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let has = whole.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let missing: Vec<Value> = wanted.filter(|one| !has.contains(one)).cloned().collect();
    if missing.is_empty() {
        return;
    }
    let all = Value::Array(has.into_iter().chain(missing).collect());
    match whole.pointer_mut(path) {
        Some(list) => *list = all,
        None => whole[path.trim_start_matches('/')] = all,
    }
}

/// The rules of a role of the table.
pub fn rules_of(role: &str) -> &'static [PolicyRule] {
    static RULES: LazyLock<BTreeMap<String, Vec<PolicyRule>>> = LazyLock::new(|| {
        let roles = table(EVERY_CLUSTER).into_iter().filter(|one| one["kind"] == "ClusterRole");
        let named = roles.filter_map(|role| {
            let name = role["metadata"]["name"].as_str()?.to_owned();
            Some((name, serde_json::from_value(role["rules"].clone()).ok()?))
        });
        named.collect()
    });
    RULES.get(role).map(Vec::as_slice).unwrap_or_default()
}

/// The objects of a table of the form of `policy.txt`, for who gives them to an API server as a
/// client. The error is for people.
pub fn roles(text: &str) -> Result<Vec<Object>, String> {
    let read = |value| Object::from_json(value).map_err(|error| error.to_string());
    table(text).into_iter().map(read).collect()
}

/// The objects of a table.
fn table(text: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["role", name, ref labels @ ..] => {
                objects.push(role(name, labels));
                if let Some(account) = name.rsplit('/').next().and_then(controller) {
                    objects.insert(0, binding(name, &[&format!("account:kube-system/{account}")]));
                }
            }
            ["bind", name, ref subjects @ ..] => objects.insert(0, binding(name, subjects)),
            ref rule => {
                if let Some(last) = objects.last_mut() {
                    add_rule(last, rule);
                }
            }
        }
    }
    objects
}

fn controller(role: &str) -> Option<&str> {
    role.strip_prefix(CONTROLLER)
}

fn meta(place: &str, mut labels: Map<String, Value>) -> Value {
    labels.insert("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".into());
    let mut meta = json!({"labels": labels, "annotations": {AUTOUPDATE: "true"}});
    match place.split_once('/') {
        Some((namespace, name)) => {
            meta["namespace"] = namespace.into();
            meta["name"] = name.into();
        }
        None => meta["name"] = place.into(),
    }
    meta
}

fn role(place: &str, labels: &[&str]) -> Value {
    let label = |label: &&str| (format!("{GROUP}/{label}"), Value::from("true"));
    let kind = if place.contains('/') { Kind::Role } else { Kind::ClusterRole };
    json!({"apiVersion": kind.api_version(), "kind": kind.name(), "rules": [],
           "metadata": meta(place, labels.iter().map(label).collect())})
}

fn add_rule(role: &mut Value, words: &[&str]) {
    if let ["=", label] = words {
        let labels = Map::from_iter([(format!("{GROUP}/{label}"), Value::from("true"))]);
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        return;
    }
    let split = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let verbs = |text: &str| -> Vec<String> {
        let mut verbs: Vec<&str> = Vec::new();
        for word in text.split(',') {
            match word {
                "read" => verbs.extend(READ),
                "write" => verbs.extend(WRITE),
                verb => verbs.push(verb),
            }
        }
        verbs.sort_unstable();
        verbs.into_iter().map(str::to_owned).collect()
    };
    let groups = |text: &str| -> Vec<String> {
        text.split(',').map(|group| if group == "core" { "" } else { group }.to_owned()).collect()
    };
    let rule = match words {
        ["events"] => {
            json!({"verbs": ["create", "patch", "update"], "resources": ["events"],
                   "apiGroups": ["", "events.k8s.io"]})
        }
        [of, "-", urls] => json!({"verbs": verbs(of), "nonResourceURLs": split(urls)}),
        [of, group, resources, names @ ..] => {
            let mut rule = json!({"verbs": verbs(of), "apiGroups": groups(group),
                                  "resources": split(resources)});
            if let Some(names) = names.first() {
                rule["resourceNames"] = json!(split(names));
            }
            rule
        }
        _ => return,
    };
    if let Some(rules) = role["rules"].as_array_mut() {
        rules.push(rule);
    }
}

fn binding(words: &str, subjects: &[&str]) -> Value {
    let (place, role) = words.split_once('>').unwrap_or((words, ""));
    let local = place.contains('/');
    let kind = if local { Kind::RoleBinding } else { Kind::ClusterRoleBinding };
    let name = place.rsplit('/').next().unwrap_or_default();
    let role = if role.is_empty() { name } else { role };
    let subject = |text: &&str| {
        let (kind, name) = text.split_once(':')?;
        Some(match (kind, name.split_once('/')) {
            ("account", Some((namespace, name))) => {
                json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
            }
            ("group", _) => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
            _ => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        })
    };
    let subjects: Vec<Value> = subjects.iter().filter_map(subject).collect();
    let of = if local { Kind::Role } else { Kind::ClusterRole };
    let mut binding = json!({
        "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": meta(place, Map::new()),
        "roleRef": {"apiGroup": GROUP, "kind": of.name(), "name": role},
    });
    if !subjects.is_empty() {
        binding["subjects"] = subjects.into();
    }
    binding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: &str, name: &str) -> Value {
        let all = table(EVERY_CLUSTER);
        let found = all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
        found.cloned().unwrap_or_else(|| panic!("{kind} {name}"))
    }

    #[test]
    fn every_line_of_the_table_counts() {
        let text = EVERY_CLUSTER;
        let count = |begins: &str| text.lines().filter(|line| line.starts_with(begins)).count();
        let all = table(text);
        let rules: usize = all.iter().filter_map(|one| one["rules"].as_array()).map(Vec::len).sum();
        let aggregates = all.iter().filter(|one| one.get("aggregationRule").is_some()).count();
        assert_eq!(rules + aggregates, count(" "));
        let roles = all.iter().filter(|one| one.get("rules").is_some()).count();
        assert_eq!(roles, count("role "));
        let controllers =
            text.lines().filter(|line| line.starts_with("role ") && line.contains(CONTROLLER));
        assert_eq!(all.len() - roles, count("bind ") + controllers.count());
        for one in all {
            let object = Object::from_json(one.clone()).expect("an object");
            let back = Object::from_json_strict(object.kind(), &one).1;
            assert!(back.is_empty(), "{back:?} of {}", object.key);
        }
    }

    #[test]
    fn lines_are_read_as_the_table_says() {
        let edit = named("ClusterRole", "edit");
        let labels = &edit["metadata"]["labels"];
        assert_eq!(labels["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        let selector = &edit["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"];
        assert_eq!(selector["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        let signers = named("ClusterRole", "system:certificates.k8s.io:kubelet-serving-approver");
        let expected = json!([{"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"],
            "resources": ["signers"], "resourceNames": ["kubernetes.io/kubelet-serving"]}]);
        assert_eq!(signers["rules"], expected);
        let reader = named("RoleBinding", "system::extension-apiserver-authentication-reader");
        assert_eq!(reader["roleRef"]["name"], "extension-apiserver-authentication-reader");
        let job = named("ClusterRoleBinding", "system:controller:job-controller");
        let account = json!([{"kind": "ServiceAccount", "namespace": "kube-system",
                              "name": "job-controller"}]);
        assert_eq!(job["subjects"], account);
    }

    #[test]
    fn what_lacks_something_gets_it_and_what_is_more_stays() {
        let wanted = named("ClusterRole", "system:kube-dns");
        assert_eq!(completed(&wanted, &wanted), Completed::AsItIs);
        let mut live = wanted.clone();
        live["rules"] = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["*"]}]);
        live["metadata"]["annotations"] = json!({});
        let Completed::To(whole) = completed(&live, &wanted) else { panic!("it lacks rules") };
        assert_eq!(whole["metadata"]["annotations"][AUTOUPDATE], "true");
        assert_eq!(whole["rules"][0], live["rules"][0]);
        assert_eq!(whole["rules"][1]["verbs"], json!(["watch"]));
        assert_eq!(completed(&whole, &wanted), Completed::AsItIs);
        live["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
        assert_eq!(completed(&live, &wanted), Completed::AsItIs);
        let wanted = named("ClusterRoleBinding", "system:discovery");
        let mut live = wanted.clone();
        live["subjects"] = json!([{"kind": "User", "apiGroup": GROUP, "name": "jane"}]);
        let Completed::To(whole) = completed(&live, &wanted) else { panic!("it lacks a subject") };
        assert_eq!(whole["subjects"].as_array().map(Vec::len), Some(2));
        live["roleRef"]["name"] = "other".into();
        assert_eq!(completed(&live, &wanted), Completed::OfAnotherRole);
    }
}
