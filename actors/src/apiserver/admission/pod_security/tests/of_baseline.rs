//! Each check of `baseline`, as upstream's check_*_test.go tries it.

use super::*;

#[test]
fn app_armor() {
    let check: Check = baseline::app_armor;
    let profile = |kind: &str| json!({"appArmorProfile": {"type": kind}});
    let (default, none) = (profile("RuntimeDefault"), profile("Unconfined"));
    assert_eq!(said(check, json!({"securityContext": default})), "");
    assert_eq!(
        said(check, json!({"securityContext": none})),
        r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#
    );
    let spec = json!({"securityContext": default, "containers": [{"name": "foo"}],
                      "initContainers": [{"name": "bar", "securityContext": none}]});
    assert_eq!(
        said(check, spec),
        "forbidden AppArmor profile (container \"bar\" must not set AppArmor profile type to \
         \"Unconfined\")"
    );
    let annotated = |all: &[(&str, &str)]| {
        let prefix = "container.apparmor.security.beta.kubernetes.io/";
        let all = all.iter().map(|(name, value)| (format!("{prefix}{name}"), json!(value)));
        let all: Value = Value::Object(all.collect());
        said_at(LATEST, check, json!({"metadata": {"annotations": all}, "spec": {}}))
    };
    let fine = [("a", ""), ("b", "runtime/default"), ("c", "localhost/"), ("d", "localhost/x")];
    assert_eq!(annotated(&fine), "");
    let bad = [("", "bogus"), ("e", "unconfined"), ("d", "localhost/foo")];
    assert_eq!(
        annotated(&bad),
        "forbidden AppArmor profiles (annotations must not set AppArmor profile type to \
         \"container.apparmor.security.beta.kubernetes.io/=\"bogus\"\", \
         \"container.apparmor.security.beta.kubernetes.io/e=\"unconfined\"\")"
    );
}

#[test]
fn capabilities() {
    let adds = |all: Value| json!({"capabilities": {"add": all}});
    let fine = each(&[adds(json!(["CHOWN", "NET_BIND_SERVICE"])), json!({})]);
    assert_eq!(said(baseline::capabilities, json!({"containers": fine})), "");
    let bad = each(&[
        adds(json!(["FOO", "BAR"])),
        adds(json!(["BAR", "BAZ"])),
        adds(json!(["NET_BIND_SERVICE", "CHOWN"])),
    ]);
    assert_eq!(
        said(baseline::capabilities, json!({"containers": bad})),
        "non-default capabilities (containers \"a\", \"b\" must not include \"BAR\", \"BAZ\", \
         \"FOO\" in securityContext.capabilities.add)"
    );
}

#[test]
fn what_is_the_nodes() {
    let check: Check = baseline::host_namespaces;
    assert_eq!(said(check, json!({"hostNetwork": false})), "");
    assert_eq!(
        said(check, json!({"hostIPC": true, "hostPID": true, "hostNetwork": true})),
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)"
    );
    let check: Check = baseline::host_paths;
    let (path, empty) = (json!({"path": "/"}), json!({}));
    assert_eq!(said(check, json!({"volumes": [{"name": "a", "emptyDir": empty}]})), "");
    let volumes = json!([{"name": "a", "hostPath": path}, {"name": "b", "emptyDir": empty},
                         {"name": "c", "hostPath": path}]);
    let expected = r#"hostPath volumes (volumes "a", "c")"#;
    assert_eq!(said(check, json!({"volumes": volumes})), expected);
}

#[test]
fn host_ports() {
    let with = |name: &str, ports: &[i32]| {
        let ports = ports.iter().map(|port| json!({"containerPort": 1, "hostPort": port}));
        json!({"name": name, "ports": ports.collect::<Value>()})
    };
    let say = |all: Value| said(baseline::host_ports, json!({"containers": all}));
    assert_eq!(say(json!([with("a", &[0])])), "");
    let one = json!([with("a", &[0]), with("b", &[0, 20])]);
    assert_eq!(say(one), "hostPort (container \"b\" uses hostPort 20)");
    let some = json!([with("a", &[0]), with("b", &[0, 10, 20]), with("c", &[10, 100, 30])]);
    assert_eq!(say(some), "hostPort (containers \"b\", \"c\" use hostPorts 10, 100, 20, 30)");
}

#[test]
fn privileged() {
    let own = |yes: bool| json!({"privileged": yes});
    let say = |all: Value| said(baseline::privileged, json!({"containers": all}));
    assert_eq!(say(each(&[own(false), json!({})])), "");
    assert_eq!(
        say(each(&[own(true), own(false), own(true)])),
        "privileged (containers \"a\", \"c\" must not set securityContext.privileged=true)"
    );
}

/// The three lists, in their order.
#[test]
fn every_container_is_seen() {
    let one = |name: &str| json!([{"name": name, "securityContext": {"privileged": true}}]);
    let spec = json!({"containers": one("main"), "ephemeralContainers": one("late"),
                      "initContainers": one("early")});
    assert_eq!(
        said(baseline::privileged, spec),
        "privileged (containers \"early\", \"main\", \"late\" must not set \
         securityContext.privileged=true)"
    );
}

#[test]
fn proc_mount() {
    let own = |kind: &str| json!({"procMount": kind});
    let say = |all: Value, host: bool| {
        said(baseline::proc_mount, json!({"containers": all, "hostUsers": host}))
    };
    assert_eq!(say(each(&[json!({}), own("Default")]), true), "");
    let expected = "procMount (containers \"b\", \"c\" must not set securityContext.procMount \
                    to \"Unmasked\", \"other\")";
    let bad = each(&[own("Default"), own("Unmasked"), own("other")]);
    assert_eq!(say(bad.clone(), true), expected);
    assert_eq!(say(bad, false), expected, "the relaxation is of 1.35");
}

#[test]
fn se_linux() {
    let own = |key: &str, value: &str| json!({"seLinuxOptions": {key: value}});
    let fine = ["", "container_t", "container_init_t", "container_kvm_t"];
    let fine = fine.map(|kind| own("type", kind));
    let check: Check = baseline::se_linux;
    assert_eq!(said(check, json!({"containers": each(&fine)})), "");
    let bad = each(&[own("type", "bar"), own("user", "bar"), own("role", "baz")]);
    let pod = json!({"seLinuxOptions": {"type": "foo", "user": "bar", "role": "baz"}});
    assert_eq!(
        said(check, json!({"securityContext": pod, "containers": bad})),
        "seLinuxOptions (pod and containers \"a\", \"b\", \"c\" set forbidden \
         securityContext.seLinuxOptions: types \"bar\", \"foo\"; user may not be set; role \
         may not be set)"
    );
    let engine = json!({"spec": {"securityContext": own("type", "container_engine_t")}});
    assert_eq!(said_at(Version::Minor(31), check, engine.clone()), "");
    assert_eq!(
        said_at(Version::Minor(30), check, engine),
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \
         \"container_engine_t\")"
    );
}

#[test]
fn seccomp() {
    let own = |kind: &str| json!({"seccompProfile": {"type": kind}});
    let check: Check = baseline::seccomp;
    let fine = each(&[own("Localhost"), json!({})]);
    assert_eq!(said(check, json!({"containers": fine})), "");
    let bad = each(&[json!({}), own("RuntimeDefault"), own("Unconfined"), own("Unconfined")]);
    assert_eq!(
        said(check, json!({"securityContext": own("Unconfined"), "containers": bad})),
        "seccompProfile (pod and containers \"c\", \"d\" must not set \
         securityContext.seccompProfile.type to \"Unconfined\")"
    );
    let annotations = json!({
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/a": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/b": "docker/default",
    });
    let pod = json!({"metadata": {"annotations": annotations},
                     "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
    assert_eq!(said_at(LATEST, check, pod.clone()), "");
    assert_eq!(
        said_at(Version::Minor(18), check, pod),
        "seccompProfile (forbidden annotations \
         container.seccomp.security.alpha.kubernetes.io/a=\"unconfined\", \
         seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
}

#[test]
fn sysctls() {
    let named = |names: &[&str]| {
        let all = names.iter().map(|name| json!({"name": name, "value": "1"}));
        json!({"spec": {"securityContext": {"sysctls": all.collect::<Value>()}}})
    };
    let say = |version, names: &[&str]| said_at(version, baseline::sysctls, named(names));
    assert_eq!(say(LATEST, &["b", "a"]), "forbidden sysctls (b, a)");
    for (since, name) in [
        (27, "net.ipv4.ip_local_reserved_ports"),
        (29, "net.ipv4.tcp_keepalive_time"),
        (32, "net.ipv4.tcp_rmem"),
    ] {
        let always = "kernel.shm_rmid_forced";
        assert_eq!(say(LATEST, &[name, always]), "");
        assert_eq!(say(Version::Minor(since), &[name, always]), "");
        let expected = format!("forbidden sysctls ({name})");
        assert_eq!(say(Version::Minor(since - 1), &[name, always]), expected);
    }
}

#[test]
fn host_process() {
    let own = |yes: bool| json!({"windowsOptions": {"hostProcess": yes}});
    let say = |pod: bool, all: &[Value]| {
        let spec = json!({"securityContext": own(pod), "containers": each(all)});
        said(baseline::host_process, spec)
    };
    assert_eq!(say(false, &[own(false), json!({"windowsOptions": {}})]), "");
    assert_eq!(
        say(true, &[own(false), own(true), own(true)]),
        "hostProcess (pod and containers \"b\", \"c\" must not set \
         securityContext.windowsOptions.hostProcess=true)"
    );
}
