//! Who may what: clients of different users before one server.

use super::world::{Answered, Ask, World, play};
use super::*;
use crate::http::auth::User;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1";

fn user(name: &str, groups: &[&str]) -> Option<User> {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Some(User { name: name.to_owned(), groups, ..User::default() })
}

async fn as_user(world: &World, who: Option<User>, words: &str) -> Answered {
    world.ask(Ask { words, user: who, ..Ask::default() }).await
}

async fn jane(world: &World, words: &str) -> u16 {
    as_user(world, user("jane", &["team"]), words).await.code
}

fn role(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"metadata": {"name": "reader"},
           "rules": [{"verbs": verbs, "apiGroups": [""], "resources": resources}]})
}

fn binding(kind: &str, role: &str, subject: Value) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({"metadata": {"name": "b"}, "subjects": [subject],
           "roleRef": {"apiGroup": group, "kind": kind, "name": role}})
}

fn subject(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "name": name})
}

#[test]
fn what_is_refused_is_told_in_upstreams_words() {
    play(|world| async move {
        for (words, message, details) in [
            (
                "GET /api/v1/namespaces/default/pods",
                "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" \
                 in the namespace \"default\"",
                json!({"kind": "pods"}),
            ),
            (
                "PUT /apis/apps/v1/namespaces/a/deployments/b/status",
                "deployments.apps \"b\" is forbidden: User \"jane\" cannot update resource \
                 \"deployments/status\" in API group \"apps\" in the namespace \"a\"",
                json!({"kind": "deployments", "group": "apps", "name": "b"}),
            ),
            (
                "GET /api/v1/nodes?watch=1",
                "nodes is forbidden: User \"jane\" cannot watch resource \"nodes\" in API group \
                 \"\" at the cluster scope",
                json!({"kind": "nodes"}),
            ),
            ("GET /metrics", "forbidden: User \"jane\" cannot get path \"/metrics\"", json!({})),
        ] {
            let refused = as_user(&world, user("jane", &[]), words).await;
            assert_eq!(refused.refusal(), (403, "Forbidden".to_owned()), "{words}");
            let status = refused.json();
            assert_eq!((&status["message"], &status["details"]), (&message.into(), &details));
        }
        let stranger = as_user(&world, None, "GET /api/v1/pods").await.json();
        let message = stranger["message"].as_str().expect("a message").to_owned();
        assert!(message.contains("User \"system:anonymous\" cannot list"), "{message}");
    });
}

#[test]
fn a_binding_grants_in_its_namespace_and_while_it_is_there() {
    play(|world| async move {
        let roles = format!("{ROLES}/namespaces/default/roles");
        let bindings = format!("{ROLES}/namespaces/default/rolebindings");
        world.send(&format!("POST {MAPS}"), &map("a", "1")).await.ok();
        let get = format!("GET {MAPS}/a");
        let made = binding("Role", "reader", subject("User", "jane"));
        world.send(&format!("POST {bindings}"), &made).await.ok();
        let refused = as_user(&world, user("jane", &[]), &get).await.json();
        let missing = ": RBAC: role.rbac.authorization.k8s.io \"reader\" not found";
        assert!(refused["message"].as_str().expect("a message").ends_with(missing), "{refused}");
        let made = role(&["get", "list"], &["configmaps"]);
        world.send(&format!("POST {roles}"), &made).await.ok();
        assert_eq!(jane(&world, &get).await, 200);
        assert_eq!(jane(&world, &format!("GET {MAPS}")).await, 200);
        assert_eq!(jane(&world, &format!("GET {MAPS}?watch=1")).await, 403);
        assert_eq!(jane(&world, &format!("DELETE {MAPS}/a")).await, 403);
        assert_eq!(jane(&world, "GET /api/v1/configmaps").await, 403);
        assert_eq!(jane(&world, "GET /api/v1/namespaces/kube-public/configmaps").await, 403);
        world.send(&format!("DELETE {bindings}/b"), &json!({})).await.ok();
        assert_eq!(jane(&world, &get).await, 403);
    });
}

#[test]
fn groups_and_service_accounts_are_granted_too_and_roles_are_aggregated() {
    play(|world| async move {
        let cluster = format!("POST {ROLES}/clusterrolebindings");
        let made = binding("ClusterRole", "view", subject("Group", "team"));
        world.send(&cluster, &made).await.ok();
        assert_eq!(jane(&world, "GET /api/v1/pods").await, 200);
        assert_eq!(jane(&world, "GET /api/v1/namespaces/default/secrets").await, 403);
        let account = user("system:serviceaccount:default:robot", &[]);
        let secrets = "GET /api/v1/namespaces/default/secrets";
        assert_eq!(as_user(&world, account.clone(), secrets).await.code, 403);
        let made = binding("ClusterRole", "admin", subject("ServiceAccount", "robot"));
        let local = format!("POST {ROLES}/namespaces/default/rolebindings");
        world.send(&local, &made).await.ok();
        // By way of edit, which admin aggregates.
        assert_eq!(as_user(&world, account.clone(), secrets).await.code, 200);
        let elsewhere = "GET /api/v1/namespaces/kube-system/secrets";
        assert_eq!(as_user(&world, account, elsewhere).await.code, 403);
        // A role that is new is aggregated at once.
        let nodes = "GET /api/v1/nodes";
        assert_eq!(jane(&world, nodes).await, 403);
        let mut more = role(&["list"], &["nodes"]);
        more["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
        world.send(&format!("POST {ROLES}/clusterroles"), &more).await.ok();
        assert_eq!(jane(&world, nodes).await, 200);
    });
}

#[test]
fn who_may_impersonate_is_taken_for_another() {
    play(|world| async move {
        let get = async |who: Option<User>, headers: &[(&str, &str)]| {
            let words = "GET /api/v1/nodes";
            world.ask(Ask { words, user: who, headers, ..Ask::default() }).await
        };
        let master = super::world::master;
        let as_jane = [("impersonate-user", "jane")];
        assert_eq!(get(master(), &as_jane).await.code, 403);
        let masters = [("impersonate-user", "jane"), ("impersonate-group", "system:masters")];
        assert_eq!(get(master(), &masters).await.code, 200);
        let refused = get(user("joe", &[]), &masters).await.json();
        let message = "users \"jane\" is forbidden: User \"joe\" cannot impersonate resource \
                       \"users\" in API group \"\" at the cluster scope";
        assert_eq!(refused["message"], message);
        let mut may = role(&["impersonate"], &["users"]);
        may["rules"][0]["resourceNames"] = json!(["jane"]);
        world.send(&format!("POST {ROLES}/clusterroles"), &may).await.ok();
        let made = binding("ClusterRole", "reader", subject("User", "joe"));
        world.send(&format!("POST {ROLES}/clusterrolebindings"), &made).await.ok();
        let refused = get(user("joe", &[]), &as_jane).await.json();
        assert!(refused["message"].to_string().contains("User \\\"jane\\\""), "{refused}");
        let refused = get(user("joe", &[]), &masters).await.json();
        assert!(refused["message"].to_string().contains("User \\\"joe\\\""), "{refused}");
        assert_eq!(get(master(), &masters[1..]).await.code, 400);
    });
}

fn token(id: &str, data: &Value) -> Value {
    let mut said = json!({"token-id": id, "token-secret": "0123456789abcdef",
                          "usage-bootstrap-authentication": "true"});
    for (name, value) in data.as_object().into_iter().flatten() {
        said[name] = value.clone();
    }
    json!({"metadata": {"name": format!("bootstrap-token-{id}")},
           "type": "bootstrap.kubernetes.io/token", "stringData": said})
}

#[test]
fn a_token_says_who_asks_and_a_wrong_one_is_refused() {
    play(|world| async move {
        let secrets = "POST /api/v1/namespaces/kube-system/secrets";
        let group = "system:bootstrappers:nodes";
        world.send(secrets, &token("abcdef", &json!({"auth-extra-groups": group}))).await.ok();
        let over = json!({"expiration": "2020-01-01T00:00:00Z"});
        world.send(secrets, &token("expire", &over)).await.ok();
        let unused = json!({"usage-bootstrap-authentication": "false"});
        world.send(secrets, &token("unused", &unused)).await.ok();
        world.send(secrets, &token("groups", &json!({"auth-extra-groups": "a"}))).await.ok();
        let get = async |token: &str| {
            let header = format!("Bearer {token}");
            let headers = &[("authorization", header.as_str())][..];
            let words = "GET /api/v1/nodes";
            world.ask(Ask { words, user: None, headers, ..Ask::default() }).await
        };
        let known = get("abcdef.0123456789abcdef").await.json();
        let message = known["message"].as_str().expect("a message");
        assert!(message.contains("User \"system:bootstrap:abcdef\""), "{message}");
        for wrong in [
            "abcdef.0123456789abcdeg",
            "expire.0123456789abcdef",
            "unused.0123456789abcdef",
            "groups.0123456789abcdef",
            "absent.0123456789abcdef",
            "none",
        ] {
            let refused = get(wrong).await;
            assert_eq!(refused.refusal(), (401, "Unauthorized".to_owned()), "{wrong}");
        }
        let made = binding("ClusterRole", "system:node-proxier", subject("Group", group));
        world.send(&format!("POST {ROLES}/clusterrolebindings"), &made).await.ok();
        assert_eq!(get("abcdef.0123456789abcdef").await.code, 200);
    });
}

#[test]
fn a_token_that_the_server_makes_lets_machines_in_while_its_secret_is_there() {
    play(|world| async move {
        let token = world.front.make_bootstrap_token().await.expect("a token");
        let other = world.front.make_bootstrap_token().await.expect("another one");
        assert_ne!(token, other);
        assert!(world.front.knows_bootstrap_token(&token));
        let header = format!("Bearer {token}");
        let headers = &[("authorization", header.as_str())][..];
        let ask = Ask { words: "GET /api/v1/nodes", user: None, headers, ..Ask::default() };
        let known = world.ask(ask).await.json();
        let message = known["message"].as_str().expect("a message");
        let (id, secret) = token.split_once('.').expect("two words");
        assert!(message.contains(&format!("User \"system:bootstrap:{id}\"")), "{message}");
        assert!(!world.front.knows_bootstrap_token(&format!("{id}.{}", &secret[1..])));
        let path = format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}");
        world.send(&format!("DELETE {path}"), &json!({})).await.ok();
        assert!(!world.front.knows_bootstrap_token(&token));
        assert!(world.front.knows_bootstrap_token(&other));
    });
}

#[test]
fn what_every_cluster_has_is_made_once() {
    play(|world| async move {
        let path = format!("{ROLES}/clusterroles");
        let before = version(&world.get(&path).await.ok()).to_owned();
        world.front.reconcile_roles().await.expect("no work");
        assert_eq!(version(&world.get(&path).await.ok()), before);
        world.send(&format!("DELETE {path}/edit"), &json!({})).await.ok();
        let dns = format!("{path}/system:kube-dns");
        world.patch(&dns, "merge-patch", &json!({"rules": []})).await.ok();
        let bound = format!("{ROLES}/clusterrolebindings/system:kube-dns");
        world.send(&format!("DELETE {bound}"), &json!({})).await.ok();
        let mut other = binding("ClusterRole", "view", subject("User", "jane"));
        other["metadata"]["name"] = "system:kube-dns".into();
        world.send(&format!("POST {ROLES}/clusterrolebindings"), &other).await.ok();
        world.front.reconcile_roles().await.expect("the cluster's roles");
        world.get(&format!("{path}/edit")).await.ok();
        let rules = world.get(&dns).await.ok()["rules"].clone();
        assert_eq!(rules[0]["resources"], json!(["endpoints"]));
        let bound = world.get(&bound).await.ok();
        assert_eq!(bound["roleRef"]["name"], "system:kube-dns");
    });
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    play(|world| async move {
        let local = format!("POST {ROLES}/namespaces/default/rolebindings");
        let made = binding("ClusterRole", "admin", subject("User", "jane"));
        world.send(&local, &made).await.ok();
        let send = async |words: &str, body: &Value| {
            let user = user("jane", &["team"]);
            let ask = Ask { words, body: body.to_string(), user, ..Ask::default() };
            world.ask(ask).await
        };
        let roles = format!("POST {ROLES}/namespaces/default/roles");
        let refused = send(&roles, &role(&["get"], &["nodes"])).await;
        assert_eq!(refused.refusal(), (403, "Forbidden".to_owned()));
        let message = "roles.rbac.authorization.k8s.io \"reader\" is forbidden: user \"jane\" \
                       (groups=[\"team\" \"system:authenticated\"]) is attempting to grant RBAC \
                       permissions not currently held:\n\
                       {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}";
        assert_eq!(refused.json()["message"], message);
        send(&roles, &role(&["get"], &["pods"])).await.ok();
        let path = format!("{ROLES}/namespaces/default/roles/reader");
        assert_eq!(send(&format!("PUT {path}"), &role(&["*"], &["*"])).await.code, 403);
        // What stays as it is, is not granted.
        let mut more = role(&["get"], &["pods"]);
        more["metadata"]["labels"] = json!({"a": "b"});
        send(&format!("PUT {path}"), &more).await.ok();
        let mut made = binding("ClusterRole", "cluster-admin", subject("User", "jane"));
        made["metadata"]["name"] = "c".into();
        assert_eq!(send(&local, &made).await.refusal().0, 403);
        let mut none = binding("Role", "none", subject("User", "joe"));
        none["metadata"]["name"] = "d".into();
        assert_eq!(send(&local, &none).await.refusal().0, 404);
        let mut edit = binding("ClusterRole", "edit", subject("User", "joe"));
        edit["metadata"]["name"] = "e".into();
        send(&local, &edit).await.ok();
        let may = json!({"metadata": {"name": "binder"}, "rules": [{"verbs": ["bind"],
            "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]}]});
        world.send(&roles, &may).await.ok();
        let mut bound = binding("Role", "binder", subject("User", "jane"));
        bound["metadata"]["name"] = "f".into();
        world.send(&local, &bound).await.ok();
        send(&local, &made).await.ok();
    });
}
