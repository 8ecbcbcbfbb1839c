//! Tokens of service accounts: asked for, used, and outlived by nothing they are bound to.

use super::world::{Answered, Ask, URL, World, play};
use super::*;
use crate::http::auth::ISSUER;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews";

async fn robot(world: &World) {
    world.send(&format!("POST {ACCOUNTS}"), &json!({"metadata": {"name": "robot"}})).await.ok();
}

async fn request(world: &World, spec: Value) -> Answered {
    world.send(&format!("POST {ACCOUNTS}/robot/token"), &json!({"spec": spec})).await
}

async fn token(world: &World, spec: Value) -> String {
    let answer = request(world, spec).await.ok();
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("three parts");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

async fn review(world: &World, token: &str, audiences: &[&str]) -> Value {
    let spec = json!({"token": token, "audiences": audiences});
    world.send(REVIEWS, &json!({"spec": spec})).await.ok()["status"].clone()
}

#[test]
fn a_token_is_asked_for_and_its_bearer_is_the_account() {
    play(|world| async move {
        robot(&world).await;
        let answer = request(&world, json!({"expirationSeconds": 7200})).await.ok();
        assert_eq!(
            (&answer["kind"], &answer["metadata"]["name"]),
            (&"TokenRequest".into(), &"robot".into())
        );
        assert_eq!(answer["spec"], json!({"audiences": [ISSUER], "expirationSeconds": 7200}));
        let token = answer["status"]["token"].as_str().expect("a token");
        let claims = claims(token);
        let uid = world.get(&format!("{ACCOUNTS}/robot")).await.ok()["metadata"]["uid"].clone();
        assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
        assert_eq!(claims["aud"], json!([ISSUER]));
        let whose =
            json!({"namespace": "default", "serviceaccount": {"name": "robot", "uid": uid}});
        assert_eq!(claims["kubernetes.io"], whose);
        let number = |field: &str| claims[field].as_i64().expect("a number");
        assert_eq!((number("exp") - number("iat"), number("nbf")), (7200, number("iat")));
        let expected = json!({
            "username": "system:serviceaccount:default:robot", "uid": uid,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default",
                       "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id":
                      [format!("JTI={}", claims["jti"].as_str().expect("an id"))]},
        });
        let status = review(&world, token, &[]).await;
        assert_eq!(status, json!({"authenticated": true, "audiences": [ISSUER], "user": expected}));
        let header = format!("Bearer {token}");
        let words = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
        let headers = &[("authorization", header.as_str())][..];
        let me = Ask { words, body: "{}".to_owned(), user: None, headers, ..Ask::default() };
        assert_eq!(world.ask(me).await.ok()["status"]["userInfo"], expected);
        let words = "GET /api/v1/nodes";
        let refused = world.ask(Ask { words, user: None, headers, ..Ask::default() }).await.json();
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains("User \"system:serviceaccount:default:robot\""), "{message}");
    });
}

#[test]
fn what_cannot_be_asked_for_is_refused_in_upstreams_words() {
    play(|world| async move {
        robot(&world).await;
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "name": "p"});
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "name": "m"});
        world.send("POST /api/v1/namespaces/default/pods", &super::pod("p")).await.ok();
        let secret = json!({"metadata": {"name": "s"}});
        world.send("POST /api/v1/namespaces/default/secrets", &secret).await.ok();
        let another = json!({"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "x"});
        for (spec, code, message) in [
            (
                json!({"expirationSeconds": 599}),
                422,
                "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: \
                 Invalid value: 599: may not specify a duration less than 10 minutes",
            ),
            (
                json!({"expirationSeconds": 4294967297_i64}),
                422,
                "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: \
                 Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
            ),
            (
                json!({"boundObjectRef": pod}),
                400,
                "cannot bind token for serviceaccount \"robot\" to pod running with different \
                 serviceaccount name.",
            ),
            (
                json!({"boundObjectRef": map}),
                400,
                "cannot bind token to object of type /v1, Kind=ConfigMap",
            ),
            (
                json!({"boundObjectRef": another}),
                409,
                "Operation cannot be fulfilled on Secret \"s\": the UID in the bound object \
                 reference (x) does not match the UID in record. The object might have been \
                 deleted and then recreated",
            ),
            (
                json!({"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "n"}}),
                404,
                "nodes \"n\" not found",
            ),
            (json!([]), 400, "TokenRequest cannot be read: spec: it must be an object of fields"),
        ] {
            let refused = request(&world, spec).await;
            assert_eq!((refused.code, &refused.json()["message"]), (code, &message.into()));
        }
        let words = format!("POST {ACCOUNTS}/robot/token");
        let other = world.send(&words, &json!({"metadata": {"name": "other"}})).await;
        let message = "TokenRequest.authentication.k8s.io \"robot\" is invalid: metadata.name: \
                       Invalid value: \"other\": must match the service account name if specified";
        assert_eq!((other.code, &other.json()["message"]), (422, &message.into()));
        let absent = world.send(&format!("POST {ACCOUNTS}/absent/token"), &json!({})).await;
        assert_eq!(absent.refusal(), (404, "NotFound".to_owned()));
        assert_eq!(world.get(&format!("{ACCOUNTS}/robot/token")).await.code, 405);
    });
}

#[test]
fn a_token_is_good_for_its_audiences() {
    play(|world| async move {
        robot(&world).await;
        let token = token(&world, json!({"audiences": ["vault", "bank"]})).await;
        let status = review(&world, &token, &["bank", "post"]).await;
        assert_eq!(
            (&status["authenticated"], &status["audiences"]),
            (&true.into(), &json!(["bank"]))
        );
        let status = review(&world, &token, &[]).await;
        let error = format!(
            "[invalid bearer token, token audiences [\"vault\" \"bank\"] is invalid for the target \
             audiences [{ISSUER:?}]]"
        );
        assert_eq!(status, json!({"user": {}, "error": error}));
        let header = format!("Bearer {token}");
        let (words, headers) = ("GET /version", &[("authorization", header.as_str())][..]);
        assert_eq!(world.ask(Ask { words, user: None, headers, ..Ask::default() }).await.code, 401);
    });
}

#[test]
fn a_token_goes_with_what_it_is_bound_to() {
    play(|world| async move {
        robot(&world).await;
        world.send("POST /api/v1/nodes", &json!({"metadata": {"name": "n"}})).await.ok();
        let mut pod = super::pod("p");
        pod["spec"]["serviceAccountName"] = "robot".into();
        pod["spec"]["nodeName"] = "n".into();
        world.send("POST /api/v1/namespaces/default/pods", &pod).await.ok();
        let secret = json!({"metadata": {"name": "s"}});
        world.send("POST /api/v1/namespaces/default/secrets", &secret).await.ok();
        let to = |kind: &str, name: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}});
        let of_pod = token(&world, to("Pod", "p")).await;
        let extra = review(&world, &of_pod, &[]).await["user"]["extra"].clone();
        for (what, name) in [("pod-name", "p"), ("node-name", "n")] {
            assert_eq!(extra[format!("authentication.kubernetes.io/{what}")], json!([name]));
        }
        let gone = "[invalid bearer token, service account token has been invalidated]";
        for (kind, name, path) in [
            ("Pod", "p", "/api/v1/namespaces/default/pods/p"),
            ("Secret", "s", "/api/v1/namespaces/default/secrets/s"),
            ("Node", "n", "/api/v1/nodes/n"),
        ] {
            let token = token(&world, to(kind, name)).await;
            assert_eq!(review(&world, &token, &[]).await["authenticated"], true, "{kind}");
            let now = json!({"gracePeriodSeconds": 0});
            world.send(&format!("DELETE {path}"), &now).await.ok();
            assert_eq!(review(&world, &token, &[]).await["error"], gone, "{kind}");
        }
        let token = token(&world, json!({})).await;
        world.send(&format!("DELETE {ACCOUNTS}/robot"), &json!({})).await.ok();
        let error = review(&world, &token, &[]).await["error"].clone();
        assert_eq!(error, "[invalid bearer token, serviceaccounts \"robot\" not found]");
        robot(&world).await;
        let error = review(&world, &token, &[]).await["error"].to_string();
        assert!(error.contains("service account UID") && error.contains("does not match claim"));
    });
}

#[test]
fn what_a_kubelet_asks_for_lasts_longer_than_it_says() {
    play(|world| async move {
        robot(&world).await;
        let mut pod = super::pod("p");
        pod["spec"]["serviceAccountName"] = "robot".into();
        world.send("POST /api/v1/namespaces/default/pods", &pod).await.ok();
        let to = json!({"kind": "Pod", "apiVersion": "v1", "name": "p"});
        let spec = json!({"boundObjectRef": to, "expirationSeconds": 3607});
        let claims = claims(&token(&world, spec).await);
        let since = |at: &Value| at.as_i64().zip(claims["iat"].as_i64()).map(|(at, iat)| at - iat);
        assert_eq!(since(&claims["exp"]), Some(365 * 24 * 3600));
        assert_eq!(since(&claims["kubernetes.io"]["warnafter"]), Some(3607));
    });
}

#[test]
fn others_find_the_key_to_check_tokens_by() {
    play(|world| async move {
        let found = world.get("/.well-known/openid-configuration").await.ok();
        assert_eq!(
            (&found["issuer"], &found["jwks_uri"]),
            (&ISSUER.into(), &format!("{URL}/openid/v1/jwks").into())
        );
        let keys = world.get("/openid/v1/jwks").await;
        assert_eq!(keys.json()["keys"][0]["alg"], "ES256");
        robot(&world).await;
        let token = token(&world, json!({})).await;
        let header = token.split('.').next().and_then(|h| BASE64_URL_SAFE_NO_PAD.decode(h).ok());
        let header: Value = serde_json::from_slice(&header.expect("base64")).expect("JSON");
        assert_eq!(header["kid"], keys.json()["keys"][0]["kid"]);
        // Service accounts may, nobody else.
        for (token, code) in [(Some(token), 200), (None, 403)] {
            let header = token.map(|token| format!("Bearer {token}"));
            let headers: Vec<(&str, &str)> =
                header.iter().map(|header| ("authorization", header.as_str())).collect();
            let words = "GET /openid/v1/jwks";
            let ask = Ask { words, user: None, headers: &headers, ..Ask::default() };
            assert_eq!(world.ask(ask).await.code, code);
        }
    });
}
