//! Requests for certificates: whose they are, and who decides.

use super::world::{Answered, Ask, World, play};
use super::*;
use crate::http::auth::User;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Of jane in the group team, and of jane in system:masters, by openssl.
const JANE: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHYMIGAAgEAMB4xDTALBgNVBAoMBHRlYW0xDTALBgNVBAMMBGphbmUwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQvbWX9u4QpJ6YWOKLrZri7hiHr62yaH/l5DbZD
51jDxliPFyIKpMbRy1L2QHHmRHt7nmXPCa/UsY5HZ+I66y3roAAwCgYIKoZIzj0E
AwIDRwAwRAIgBxjhwkM4NptpQJiqsz+zI15AK3XniHYSxXs7sBVERo8CIG2h3ylh
kEqvutaLmBY+gaNCvqmWXaH/c5SKbARajBVo
-----END CERTIFICATE REQUEST-----
";
const MASTER: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHjMIGKAgEAMCgxFzAVBgNVBAoMDnN5c3RlbTptYXN0ZXJzMQ0wCwYDVQQDDARq
YW5lMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEL21l/buEKSemFjii62a4u4Yh
6+tsmh/5eQ22Q+dYw8ZYjxciCqTG0ctS9kBx5kR7e55lzwmv1LGOR2fiOust66AA
MAoGCCqGSM49BAMCA0gAMEUCIQCqhzX8YE/VjW40JMxkBHCMVAryy0ZhBGALrBVL
/IlYygIgDBTDwvnI8AlCITKutMbajJyMvdvruz2fxNSy/PkrrW4=
-----END CERTIFICATE REQUEST-----
";

fn request(name: &str, pem: &str, signer: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"request": BASE64_STANDARD.encode(pem),
           "signerName": signer, "usages": ["client auth"], "username": "somebody else",
           "groups": ["system:masters"]}})
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

async fn as_user(world: &World, name: &str, words: &str, body: &Value) -> Answered {
    let user = Some(User { name: name.to_owned(), ..User::default() });
    world.ask(Ask { words, body: body.to_string(), user, ..Ask::default() }).await
}

async fn may(world: &World, name: &str, rules: Value) {
    let role = json!({"metadata": {"name": name}, "rules": rules});
    world.send(&format!("POST {ROLES}/clusterroles"), &role).await.ok();
    let binding = json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": name}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
    world.send(&format!("POST {ROLES}/clusterrolebindings"), &binding).await.ok();
}

fn rule(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": ["certificates.k8s.io"], "resources": resources})
}

fn decided(mut request: Value, kind: &str) -> Value {
    let one = json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
    let mut all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.push(one);
    request["status"]["conditions"] = all.into();
    request
}

#[test]
fn a_request_is_whose_who_makes_it() {
    play(|world| async move {
        may(&world, "joe", json!([rule(&["create", "update"], &["certificatesigningrequests"])]))
            .await;
        let words = format!("POST {REQUESTS}");
        let made = as_user(&world, "joe", &words, &request("a", JANE, CLIENT)).await.ok();
        assert_eq!(made["spec"]["username"], "joe");
        assert_eq!(made["spec"]["groups"], json!(["system:authenticated"]));
        let mut other = made.clone();
        other["spec"]["username"] = "jane".into();
        other["spec"]["signerName"] = "example.com/a".into();
        other["metadata"]["labels"] = json!({"a": "b"});
        let changed = as_user(&world, "joe", &format!("PUT {REQUESTS}/a"), &other).await.ok();
        assert_eq!(changed["spec"], made["spec"]);
        assert_eq!(changed["metadata"]["labels"], json!({"a": "b"}));
        let refused = as_user(&world, "joe", &words, &request("b", MASTER, CLIENT)).await;
        let message = "certificatesigningrequests.certificates.k8s.io \"b\" is forbidden: use of \
                       kubernetes.io/kube-apiserver-client signer with system:masters group is \
                       not allowed";
        assert_eq!((refused.code, &refused.json()["message"]), (403, &message.into()));
        let forged = JANE.replace("BVERo8", "BVERo9");
        for wrong in ["", "no PEM", forged.as_str()] {
            let refused = as_user(&world, "joe", &words, &request("b", wrong, CLIENT)).await;
            assert_eq!(refused.refusal(), (422, "Invalid".to_owned()), "{wrong}");
        }
    });
}

#[test]
fn who_approves_needs_the_signer_and_decides_once() {
    play(|world| async move {
        let approves = rule(&["update"], &["certificatesigningrequests/approval"]);
        may(&world, "ann", json!([approves])).await;
        let mut signer = rule(&["approve"], &["signers"]);
        signer["resourceNames"] = json!(["example.com/*"]);
        may(&world, "bob", json!([approves, signer])).await;
        let asked = request("a", JANE, "example.com/a");
        let made = world.send(&format!("POST {REQUESTS}"), &asked).await.ok();
        let words = format!("PUT {REQUESTS}/a/approval");
        let refused = as_user(&world, "ann", &words, &decided(made.clone(), "Approved")).await;
        let message = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not \
                       permitted to approve requests with signerName \"example.com/a\"";
        assert_eq!((refused.code, &refused.json()["message"]), (403, &message.into()));
        let mut sent = decided(made.clone(), "Approved");
        sent["status"]["certificate"] = BASE64_STANDARD.encode("mine").into();
        let approved = as_user(&world, "bob", &words, &sent).await.ok();
        let condition = &approved["status"]["conditions"][0];
        assert!(
            condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string()
        );
        assert!(approved["status"]["certificate"].is_null(), "{approved}");
        let both = as_user(&world, "bob", &words, &decided(approved.clone(), "Denied")).await;
        let message = both.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(
            message.contains("Approved and Denied conditions are mutually exclusive"),
            "{message}"
        );
        let mut without = approved.clone();
        without["status"]["conditions"] = json!([]);
        let taken = as_user(&world, "bob", &words, &without).await;
        let message = "CertificateSigningRequest.certificates.k8s.io \"a\" is invalid: \
                       status.conditions: Forbidden: updates may not remove a condition of type \
                       \"Approved\"";
        assert_eq!((taken.code, &taken.json()["message"]), (422, &message.into()));
    });
}

#[test]
fn who_signs_needs_the_signer_and_does_not_approve() {
    play(|world| async move {
        let status = rule(&["update"], &["certificatesigningrequests/status"]);
        may(&world, "ann", json!([status])).await;
        let mut signer = rule(&["sign"], &["signers"]);
        signer["resourceNames"] = json!(["example.com/a"]);
        may(&world, "bob", json!([status, signer])).await;
        let asked = request("a", JANE, "example.com/a");
        let made = world.send(&format!("POST {REQUESTS}"), &asked).await.ok();
        let words = format!("PUT {REQUESTS}/a/status");
        let mut signed = made.clone();
        signed["status"] = json!({"certificate": BASE64_STANDARD.encode("one")});
        let refused = as_user(&world, "ann", &words, &signed).await;
        let message = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not \
                       permitted to sign requests with signerName \"example.com/a\"";
        assert_eq!((refused.code, &refused.json()["message"]), (403, &message.into()));
        let approved = as_user(&world, "bob", &words, &decided(made.clone(), "Approved")).await;
        assert_eq!(approved.refusal(), (422, "Invalid".to_owned()));
        let there = as_user(&world, "bob", &words, &signed).await.ok();
        assert_eq!(there["status"]["certificate"], signed["status"]["certificate"]);
        let mut again = there.clone();
        again["status"]["certificate"] = BASE64_STANDARD.encode("two").into();
        let refused = as_user(&world, "bob", &words, &again).await;
        let message = refused.json()["message"].to_string();
        assert!(
            message.contains("updates may not modify existing certificate content"),
            "{message}"
        );
    });
}
