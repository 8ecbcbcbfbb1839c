//! Questions about who may what, as `kubectl auth` asks them.

use super::world::{Answered, Ask, World, play};
use super::*;
use crate::http::auth::User;

const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";
const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";

async fn ask(world: &World, who: &str, path: &str, spec: Value) -> Answered {
    let user = Some(User { name: who.to_owned(), ..User::default() });
    let words = format!("POST {path}");
    let body = json!({"spec": spec}).to_string();
    world.ask(Ask { words: &words, body, user, ..Ask::default() }).await
}

async fn jane_views(world: &World) {
    let path = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let made = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "view"}});
    world.send(path, &made).await.ok();
}

#[test]
fn everybody_may_ask_of_themselves() {
    play(|world| async move {
        jane_views(&world).await;
        let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
        let of = |namespace: &str, verb: &str| {
            json!({"resourceAttributes": {"namespace": namespace, "verb": verb,
                                          "resource": "pods"}})
        };
        for (namespace, verb, allowed) in
            [("default", "list", true), ("default", "create", false), ("a", "list", false)]
        {
            let answer = ask(&world, "jane", &path, of(namespace, verb)).await;
            assert_eq!(answer.code, 201);
            let answer = answer.json();
            assert_eq!(answer["status"]["allowed"], allowed, "{namespace} {verb}");
            assert_eq!(answer["kind"], "SelfSubjectAccessReview");
            if allowed {
                let reason = "RBAC: allowed by RoleBinding \"b/default\" of ClusterRole \"view\" \
                              to User \"jane\"";
                assert_eq!(answer["status"]["reason"], reason);
            }
        }
        let at = json!({"nonResourceAttributes": {"path": "/apis", "verb": "get"}});
        assert_eq!(ask(&world, "joe", &path, at).await.ok()["status"]["allowed"], true);
        assert_eq!(ask(&world, "joe", &path, json!({})).await.refusal().0, 422);
        let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
        let rules = ask(&world, "jane", &path, json!({"namespace": "default"})).await.ok();
        let listed = rules["status"]["resourceRules"].to_string();
        assert!(listed.contains("\"configmaps\"") && listed.contains("selfsubjectreviews"));
        let urls = rules["status"]["nonResourceRules"].to_string();
        assert!(urls.contains("/apis/*"), "{urls}");
        let path = format!("{AUTHENTICATION}/selfsubjectreviews");
        let me = ask(&world, "jane", &path, json!({})).await.ok()["status"]["userInfo"].clone();
        assert_eq!(me, json!({"username": "jane", "groups": ["system:authenticated"]}));
    });
}

#[test]
fn who_may_asks_of_others() {
    play(|world| async move {
        jane_views(&world).await;
        let path = format!("{AUTHORIZATION}/subjectaccessreviews");
        let spec = json!({"user": "jane", "resourceAttributes":
            {"namespace": "default", "verb": "get", "resource": "pods", "name": "a"}});
        assert_eq!(ask(&world, "joe", &path, spec.clone()).await.code, 403);
        let answer = world.send(&format!("POST {path}"), &json!({"spec": spec})).await;
        assert_eq!(answer.ok()["status"]["allowed"], true);
        let local = |namespace: &str| {
            format!("POST {AUTHORIZATION}/namespaces/{namespace}/localsubjectaccessreviews")
        };
        let answer = world.send(&local("default"), &json!({"spec": spec})).await.ok();
        assert_eq!(answer["status"]["allowed"], true);
        let elsewhere = world.send(&local("a"), &json!({"spec": spec})).await;
        assert_eq!(elsewhere.refusal().0, 400);
        let nobody = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
        assert_eq!(world.send(&format!("POST {path}"), &nobody).await.refusal().0, 422);
        let tokens = format!("POST {AUTHENTICATION}/tokenreviews");
        let answer = world.send(&tokens, &json!({"spec": {"token": "a.b"}})).await.ok();
        assert_eq!(answer["status"], json!({"user": {}, "error": "invalid bearer token"}));
        assert_eq!(world.send(&tokens, &json!({"spec": {}})).await.refusal().0, 400);
        assert_eq!(world.get(&path).await.refusal().0, 405);
        assert_eq!(world.get(&format!("{path}/a")).await.refusal().0, 404);
    });
}
