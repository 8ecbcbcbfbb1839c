//! Who may what, with `kubectl`: `--as`, `auth can-i`, `auth whoami`, tokens.

use super::plane::{self, until};
use super::world::{Place, Server};
use super::{POD, each};

#[test]
fn kubectl_asks_who_may_what() {
    each(|_, server| {
        let refused = server.fails("get pods --as jane");
        let message = "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list \
                       resource \"pods\" in API group \"\" in the namespace \"default\"\n";
        assert_eq!(refused, message);
        server.kubectl("create rolebinding b --clusterrole=view --user=jane");
        assert_eq!(server.kubectl("get pods -o name --as jane"), "");
        assert_eq!(server.kubectl("auth can-i list pods --as jane"), "yes\n");
        let out = server.run(&["auth", "can-i", "delete", "pods", "--as", "jane"], "");
        assert_eq!((out.status.code(), &out.stdout[..]), (Some(1), &b"no\n"[..]));
        let rules = server.kubectl("auth can-i --list --as jane");
        assert!(rules.contains("configmaps") && rules.contains("[get list watch]"), "{rules}");
        // Release 1.27 asks by the beta of the review only.
        if server.kubectl("version --client -o json").contains("\"minor\": \"27\"") {
            return;
        }
        let me = server.kubectl("auth whoami -o jsonpath={.status.userInfo.username}");
        assert_eq!(me, "kubernetes-admin");
        let groups = "{.status.userInfo.groups}";
        let me =
            server.kubectl(&format!("auth whoami --as joe --as-group ops -o jsonpath={groups}"));
        assert_eq!(me, "[\"ops\",\"system:authenticated\"]");
    });
}

/// As the bearer of a token, and with no certificate.
fn bearing(server: &Server, place: &Place, token: &str, words: &str) -> Result<String, String> {
    let authority = place.0.join("data/pki/ca.crt");
    let authority = authority.to_str().expect("UTF-8");
    let mut all = vec!["--kubeconfig", "/dev/null", "--server", &server.url];
    all.extend(["--certificate-authority", authority, "--token", token]);
    all.extend(words.split_whitespace());
    let out = server.run(&all, "");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

#[test]
fn kubectl_is_a_service_account_by_its_token() {
    each(|place, server| {
        server.kubectl("create serviceaccount robot");
        server.kubectl("create rolebinding r --clusterrole=view --serviceaccount=default:robot");
        let token = server.kubectl("create token robot --duration 20m");
        let token = token.trim();
        assert_eq!(bearing(server, place, token, "get pods -o name"), Ok(String::new()));
        let refused = bearing(server, place, token, "get secrets").expect_err("it may not");
        let who = "User \"system:serviceaccount:default:robot\" cannot list resource \"secrets\"";
        assert!(refused.contains(who), "{refused}");
        server.with("create -f -", POD);
        let other =
            server.fails("create token robot --bound-object-kind Pod --bound-object-name one");
        assert!(other.contains("cannot bind token for serviceaccount \"robot\""), "{other}");
        server.kubectl("create secret generic s");
        let bound = "create token robot --bound-object-kind Secret --bound-object-name s";
        let bound = server.kubectl(bound);
        assert_eq!(
            bearing(server, place, bound.trim(), "get pods -o name"),
            Ok("pod/one\n".to_owned())
        );
        server.kubectl("delete secret s");
        let out = bearing(server, place, bound.trim(), "get pods").expect_err("it is good no more");
        assert!(out.contains("Unauthorized"), "{out}");
        let short = server.fails("create token robot --duration 5m");
        assert!(short.contains("may not specify a duration less than 10 minutes"), "{short}");
        let vault = server.kubectl("create token robot --audience vault");
        assert!(bearing(server, place, vault.trim(), "get pods").is_err());
        let keys = server.kubectl("get --raw /openid/v1/jwks");
        assert!(keys.contains("\"ES256\""), "{keys}");
    });
}

/// A controller writes into them what they come to.
#[test]
fn roles_that_aggregate_others_say_so() {
    plane::each(&[], |server| {
        let view = || server.kubectl("get clusterrole view -o jsonpath={.rules[*].resources}");
        until("the rules of view", || view().contains("configmaps"));
        assert!(!view().contains("boats"));
        server.kubectl("create clusterrole boats --verb=get --resource=configmaps/boats");
        let label = "rbac.authorization.k8s.io/aggregate-to-view=true";
        server.kubectl(&format!("label clusterrole boats {label}"));
        for role in ["view", "edit", "admin"] {
            let words = format!("get clusterrole {role} -o jsonpath={{.rules[*].resources}}");
            until(role, || server.kubectl(&words).contains("configmaps/boats"));
        }
    });
}
