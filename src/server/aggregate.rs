//! Writes into ClusterRoles that aggregate others (`admin`, `edit`, `view`) what those come to, so
//! that whoever reads them sees it (kubernetes `pkg/controller/clusterroleaggregation`). What
//! somebody may does not wait for that: the server puts the rules together itself.

use super::clients::views;
use kubesim_actors::controllers::selectors;
use kubesim_actors::objects::{Kind, Object, View};
use kubesim_actors::ports::api::Reason;
use kubesim_backends::http::client::Client;
use serde_json::Value;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// After a write that was refused: another one came before, and is about to be seen.
const RETRY: Duration = Duration::from_secs(1);

/// For as long as it is polled.
pub async fn run(client: Client, note: impl Fn(String)) {
    let mut views = views(&client, Kind::ClusterRole);
    let mut known = View::empty(0);
    let mut failed = false;
    loop {
        let again = async {
            match failed {
                true => sleep(RETRY).await,
                false => pending().await,
            }
        };
        tokio::select! {
            view = views.recv() => {
                let Some(view) = view else { return };
                known = view;
            }
            () = again => {}
        }
        let noted = failed;
        failed = false;
        for role in behind(&known) {
            let name = role["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}");
            if let Err(why) = client.put(&path, &role).await {
                failed = true;
                if !noted && why.reason != Reason::Conflict {
                    note(format!("the role {name}: {why}"));
                }
            }
        }
    }
}

/// Roles that aggregate others and do not say all that these come to, as they should be.
fn behind(roles: &View) -> Vec<Value> {
    let of = |role: &Arc<Object>| {
        let mut value = role.to_json();
        if role.deleting() || !value["aggregationRule"].is_object() {
            return None;
        }
        let rules = aggregated(&value, roles);
        let had = value["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        (had != rules).then(|| {
            value["rules"] = rules.into();
            value
        })
    };
    roles.values().filter_map(of).collect()
}

/// The rules of the roles that a role chooses, each once.
fn aggregated(role: &Value, roles: &View) -> Vec<Value> {
    let mut rules = Vec::new();
    let chosen = role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten();
    for selector in chosen {
        let Ok(selector) = serde_json::from_value(selector.clone()) else { continue };
        for (key, other) in roles.iter() {
            let labels = selectors::labels(other.meta.labels.as_ref());
            if role["metadata"]["name"] == key.name.as_str()
                || !selectors::matches(&selector, labels)
            {
                continue;
            }
            let other = other.to_json();
            for rule in other["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(name: &str, label: &str, aggregates: Option<&str>, verbs: &[&str]) -> Object {
        let selectors = aggregates.map(|label| json!([{"matchLabels": {label: "true"}}]));
        let rules: Vec<Value> = verbs
            .iter()
            .map(|verb| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}))
            .collect();
        let mut role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {label: "true"}}, "rules": rules,
        });
        if let Some(selectors) = selectors {
            role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        }
        Object::from_json(role).expect("a role")
    }

    fn verbs(role: &Value) -> Vec<&str> {
        let rules = role["rules"].as_array().expect("rules").iter();
        rules.map(|rule| rule["verbs"][0].as_str().expect("a verb")).collect()
    }

    #[test]
    fn roles_come_to_what_they_choose_and_settle() {
        let mut view = View::empty(1);
        let mut version = 0;
        let mut put = |view: &mut View, role: Object| {
            version += 1;
            view.insert(role.key.clone(), Arc::new(role), version);
        };
        put(&mut view, role("a", "to-edit", None, &["get", "list"]));
        put(&mut view, role("b", "to-edit", None, &["list", "watch"]));
        put(&mut view, role("c", "other", None, &["delete"]));
        // Chosen by another, and in a circle with itself.
        put(&mut view, role("edit", "to-edit", Some("to-edit"), &[]));
        put(&mut view, role("admin", "none", Some("to-edit"), &["patch"]));
        let mut rounds = 0;
        loop {
            let behind = behind(&view);
            if behind.is_empty() {
                break;
            }
            rounds += 1;
            for role in behind {
                put(&mut view, Object::from_json(role).expect("a role"));
            }
        }
        assert!(rounds <= 2, "{rounds} rounds");
        for name in ["edit", "admin"] {
            let found = view.iter().find(|(key, _)| key.name == name).expect(name).1.to_json();
            assert_eq!(verbs(&found), ["get", "list", "watch"], "{name}");
        }
    }
}
