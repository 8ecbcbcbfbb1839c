//! Each check of `restricted`, as upstream's check_*_test.go tries it.

use super::*;

#[test]
fn privilege_escalation() {
    let own = |yes: bool| json!({"allowPrivilegeEscalation": yes});
    let say =
        |all: &[Value]| said(restricted::privilege_escalation, json!({"containers": each(all)}));
    assert_eq!(say(&[own(false)]), "");
    assert_eq!(
        say(&[json!({}), own(true), own(false)]),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false)"
    );
}

#[test]
fn capabilities() {
    let own = |add: Value, drop: Value| json!({"capabilities": {"add": add, "drop": drop}});
    let say = |all: &[Value]| said(restricted::capabilities, json!({"containers": each(all)}));
    assert_eq!(say(&[own(json!(["NET_BIND_SERVICE"]), json!(["ALL"]))]), "");
    let bad = [
        own(json!(["FOO", "BAR"]), json!([])),
        own(json!(["BAR", "BAZ"]), json!([])),
        own(json!(["NET_BIND_SERVICE", "CHOWN"]), json!(["ALL", "FOO"])),
    ];
    assert_eq!(
        say(&bad),
        "unrestricted capabilities (containers \"a\", \"b\" must set \
         securityContext.capabilities.drop=[\"ALL\"]; containers \"a\", \"b\", \"c\" must not \
         include \"BAR\", \"BAZ\", \"CHOWN\", \"FOO\" in securityContext.capabilities.add)"
    );
}

#[test]
fn volumes() {
    let say = |volumes: Value| said(restricted::volumes, json!({"volumes": volumes}));
    let fine = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "csi": {"driver": "d"}},
                      {"name": "c", "image": {"reference": "i"}}]);
    assert_eq!(say(fine), "");
    let one = json!([{"name": "a", "hostPath": {"path": "/"}}]);
    assert_eq!(
        say(one),
        "restricted volume types (volume \"a\" uses restricted volume type \"hostPath\")"
    );
    let some = json!([{"name": "b", "nfs": {"server": "s", "path": "/"}},
                      {"name": "a", "hostPath": {"path": "/"}}, {"name": "c"}]);
    assert_eq!(
        say(some),
        "restricted volume types (volumes \"b\", \"a\", \"c\" use restricted volume types \
         \"hostPath\", \"nfs\", \"unknown\")"
    );
}

#[test]
fn run_as_non_root() {
    let own = |yes: bool| json!({"runAsNonRoot": yes});
    let say = |pod: Value, all: &[Value]| {
        let spec = json!({"securityContext": pod, "containers": each(all)});
        said(restricted::run_as_non_root, spec)
    };
    assert_eq!(say(own(true), &[json!({})]), "");
    assert_eq!(say(json!({}), &[own(true)]), "");
    for (pod, all, expected) in [
        (json!({}), vec![json!({})], r#"pod or container "a" must set"#),
        (own(false), vec![json!({})], "pod must not set"),
        (own(true), vec![json!({}), own(false), own(false)], r#"containers "b", "c" must not set"#),
        (
            json!({}),
            vec![json!({}), json!({}), own(true)],
            r#"pod or containers "a", "b" must set"#,
        ),
    ] {
        let end = !expected.contains("not");
        let expected =
            format!("runAsNonRoot != true ({expected} securityContext.runAsNonRoot={end})");
        assert_eq!(say(pod, &all), expected);
    }
}

#[test]
fn run_as_user() {
    let own = |user: i64| json!({"runAsUser": user});
    let say = |pod: Value, all: &[Value]| {
        let spec = json!({"securityContext": pod, "containers": each(all)});
        said(restricted::run_as_user, spec)
    };
    assert_eq!(say(own(1000), &[json!({}), own(1)]), "");
    let pod = "runAsUser=0 (pod must not set runAsUser=0)";
    assert_eq!(say(own(0), &[json!({})]), pod);
    let some = "runAsUser=0 (containers \"b\", \"c\" must not set runAsUser=0)";
    assert_eq!(say(own(1000), &[json!({}), own(0), own(0), own(1)]), some);
}

#[test]
fn seccomp() {
    let own = |kind: &str| json!({"seccompProfile": {"type": kind}});
    let say = |pod: Value, all: &[Value]| {
        let spec = json!({"securityContext": pod, "containers": each(all)});
        said(restricted::seccomp, spec)
    };
    assert_eq!(say(own("RuntimeDefault"), &[json!({})]), "");
    assert_eq!(say(json!({}), &[own("Localhost")]), "");
    assert_eq!(
        say(json!({}), &[json!({}), json!({}), own("Localhost")]),
        "seccompProfile (pod or containers \"a\", \"b\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(
        say(own("Unconfined"), &[json!({})]),
        "seccompProfile (pod must not set securityContext.seccompProfile.type to \
         \"Unconfined\")"
    );
}

#[test]
fn windows_is_spared() {
    let checks: [Check; 3] =
        [restricted::privilege_escalation, restricted::capabilities, restricted::seccomp];
    for check in checks {
        let pod =
            |os: &str| json!({"spec": {"os": {"name": os}, "containers": each(&[json!({})])}});
        assert_eq!(said_at(LATEST, check, pod("windows")), "");
        assert_ne!(said_at(LATEST, check, pod("linux")), "");
        assert_ne!(said_at(Version::Minor(24), check, pod("windows")), "");
    }
}
