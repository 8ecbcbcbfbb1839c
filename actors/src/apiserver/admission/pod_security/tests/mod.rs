//! What is refused, and in which words.

mod of_baseline;
mod of_restricted;

use super::checks::{Check, Pod, violations};
use super::policy::{Level, Standard, Version};
use super::*;
use crate::objects::View;
use serde_json::{Value, json};
use std::sync::Arc;

const LATEST: Version = Version::Latest;

fn parts(pod: Value) -> (ObjectMeta, PodSpec) {
    let meta = serde_json::from_value(pod["metadata"].clone()).unwrap_or_default();
    (meta, serde_json::from_value(pod["spec"].clone()).expect("a spec"))
}

/// What one check says: `reason (detail)`, or nothing.
fn said_at(version: Version, check: Check, pod: Value) -> String {
    let (meta, spec) = parts(pod);
    let found = check(Pod { meta: &meta, spec: &spec, version });
    found.map(|found| format!("{} ({})", found.reason, found.detail)).unwrap_or_default()
}

fn said(check: Check, spec: Value) -> String {
    said_at(LATEST, check, json!({"spec": spec}))
}

/// A container for each of these security contexts, by the names `a`, `b` and so on.
fn each(contexts: &[Value]) -> Value {
    let names = ('a'..='z').map(String::from);
    let all = names.zip(contexts).map(|(name, own)| json!({"name": name, "securityContext": own}));
    all.collect()
}

/// All of what `restricted` says of a pod that says nothing.
const BARE: &str = "allowPrivilegeEscalation != false (container \"c\" must set \
     securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" \
     must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \
     \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" \
     must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";

fn bare() -> Value {
    json!({"containers": [{"name": "c", "image": "nginx"}]})
}

fn confined() -> Value {
    let own = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                     "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    json!({"containers": [{"name": "c", "image": "nginx", "securityContext": own}]})
}

#[test]
fn levels_and_versions() {
    let held = |level, version, spec: Value| {
        let (meta, spec) = parts(json!({"spec": spec}));
        violations(Standard { level, version }, &meta, &spec).unwrap_or_default()
    };
    let (baseline, restricted) = (Level::Baseline, Level::Restricted);
    assert_eq!(held(restricted, LATEST, bare()), BARE);
    assert_eq!(held(restricted, Version::Minor(99), bare()), BARE);
    assert_eq!(held(restricted, LATEST, confined()), "");
    assert_eq!(held(baseline, LATEST, bare()), "");
    assert_eq!(
        held(restricted, Version::Minor(7), bare()),
        "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"
    );
    let own = json!({"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]},
                     "allowPrivilegeEscalation": false, "runAsNonRoot": true,
                     "seccompProfile": {"type": "Unconfined"}});
    let wild = json!({"containers": [{"name": "c", "securityContext": own}], "hostNetwork": true,
                      "volumes": [{"name": "v", "hostPath": {"path": "/"}}]});
    let privileged = "privileged (container \"c\" must not set securityContext.privileged=true)";
    let host = "host namespaces (hostNetwork=true)";
    let adds = "container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add";
    let seccomp = "seccompProfile (container \"c\" must not set \
                   securityContext.seccompProfile.type to \"Unconfined\")";
    assert_eq!(
        held(baseline, LATEST, wild.clone()),
        format!(
            "non-default capabilities ({adds}), {host}, hostPath volumes (volume \"v\"), \
             {privileged}, {seccomp}"
        )
    );
    let volume = "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")";
    assert_eq!(
        held(restricted, LATEST, wild.clone()),
        format!(
            "{host}, {privileged}, unrestricted capabilities (container \"c\" must set \
             securityContext.capabilities.drop=[\"ALL\"]; {adds}), {volume}, {seccomp}"
        )
    );
    assert_eq!(
        held(restricted, Version::Minor(21), wild.clone()),
        format!("non-default capabilities ({adds}), {host}, {privileged}, {volume}, {seccomp}")
    );
    assert_eq!(held(Level::Privileged, LATEST, wild), "");
}

fn object(kind: &str, name: &str, rest: Value) -> Object {
    let mut whole = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    for (field, value) in rest.as_object().into_iter().flatten() {
        match field.as_str() {
            "labels" | "annotations" | "namespace" => whole["metadata"][field] = value.clone(),
            _ => whole[field] = value.clone(),
        }
    }
    Object::from_json(whole).expect("an object")
}

fn labelled(labels: &[(&str, &str)]) -> Object {
    let key = |name: &str| format!("pod-security.kubernetes.io/{name}");
    let labels = labels.iter().map(|(name, value)| (key(name), json!(value))).collect();
    object("Namespace", "n", json!({"labels": Value::Object(labels)}))
}

fn cache(labels: &[(&str, &str)]) -> Cache {
    let namespace = labelled(labels);
    let mut view = View::empty(0);
    view.insert(namespace.key.clone(), Arc::new(namespace), 1);
    let mut cache = Cache::default();
    cache.views.insert(Kind::Namespace, view);
    cache
}

fn pod(rest: Value) -> Object {
    let mut whole = json!({"namespace": "n", "spec": bare()});
    for (field, value) in rest.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    object("Pod", "a", whole)
}

fn refusal(answer: Result<(), Error>) -> String {
    answer.err().map(|error| error.message).unwrap_or_default()
}

#[test]
fn a_pod_is_refused() {
    let judged = |labels: &[(&str, &str)], new: &Object| refusal(check(new, None, &cache(labels)));
    let refused = |standard: &str| {
        format!("pods \"a\" is forbidden: violates PodSecurity \"{standard}\": {BARE}")
    };
    let bare = pod(json!({}));
    assert_eq!(judged(&[], &bare), "");
    assert_eq!(judged(&[("warn", "restricted"), ("audit", "restricted")], &bare), "");
    assert_eq!(judged(&[("enforce-version", "v1.30")], &bare), "", "of no level");
    assert_eq!(judged(&[("enforce", "baseline")], &bare), "");
    assert_eq!(judged(&[("enforce", "restricted")], &bare), refused("restricted:latest"));
    let older = [("enforce", "restricted"), ("enforce-version", "v1.25")];
    assert_eq!(judged(&older, &bare), refused("restricted:v1.25"));
    assert_eq!(judged(&older, &pod(json!({"spec": confined()}))), "");
    // What cannot be read is the strictest.
    assert_eq!(judged(&[("enforce", "strict")], &bare), refused("restricted:latest"));
    let odd = [("enforce", "restricted"), ("enforce-version", "v1.07")];
    assert_eq!(judged(&odd, &bare), refused("restricted:latest"));
}

#[test]
fn a_change_is_judged_if_it_is_of_interest() {
    let cache = cache(&[("enforce", "restricted")]);
    let old = pod(json!({}));
    let is_judged = |new: Value| check(&pod(new), Some(&old), &cache).is_err();
    assert!(!is_judged(json!({"labels": {"a": "b"}})));
    assert!(!is_judged(json!({"annotations": {"a": "b"}})));
    assert!(is_judged(json!({"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}})));
    let annotation = "container.seccomp.security.alpha.kubernetes.io/c";
    assert!(is_judged(json!({"annotations": {annotation: "unconfined"}})));
    let mut spec = bare();
    spec["ephemeralContainers"] = json!([{"name": "d", "image": "busybox"}]);
    assert!(is_judged(json!({"spec": spec})));
}

#[test]
fn labels_of_a_namespace_can_be_read() {
    let none = labelled(&[]);
    let bad = labelled(&[("enforce", "strict"), ("warn-version", "1.2"), ("audit", "")]);
    let label = "metadata.labels[pod-security.kubernetes.io/";
    let level = "must be one of privileged, baseline, restricted";
    let expected = format!(
        "Namespace \"n\" is invalid: [{label}enforce]: Invalid value: \"strict\": {level}, \
         {label}audit]: Invalid value: \"\": {level}, {label}warn-version]: Invalid value: \
         \"1.2\": must be \"latest\" or \"v1.x\"]"
    );
    let cache = Cache::default();
    assert_eq!(refusal(check(&bad, None, &cache)), expected);
    assert_eq!(refusal(check(&bad, Some(&none), &cache)), expected);
    assert_eq!(refusal(check(&bad, Some(&bad), &cache)), "", "it said so before");
    assert_eq!(refusal(check(&none, Some(&bad), &cache)), "");
    let good = labelled(&[
        ("enforce", "baseline"),
        ("enforce-version", "v1.0"),
        ("warn", "restricted"),
        ("warn-version", "latest"),
    ]);
    assert_eq!(refusal(check(&good, None, &cache)), "");
    let one = labelled(&[("enforce-version", "v2.0")]);
    assert_eq!(
        refusal(check(&one, None, &cache)),
        format!(
            "Namespace \"n\" is invalid: {label}enforce-version]: Invalid value: \"v2.0\": must \
             be \"latest\" or \"v1.x\""
        )
    );
}

#[test]
fn a_client_is_warned() {
    let expected = format!("would violate PodSecurity \"restricted:latest\": {BARE}");
    let strict = cache(&[("warn", "restricted")]);
    let bare_pod = pod(json!({}));
    assert_eq!(warnings(&bare_pod, None, &strict), std::slice::from_ref(&expected));
    assert_eq!(warnings(&bare_pod, Some(&bare_pod), &strict), [""; 0]);
    assert_eq!(warnings(&pod(json!({"spec": confined()})), None, &strict), [""; 0]);
    assert_eq!(warnings(&bare_pod, None, &cache(&[])), [""; 0]);
    // Warnings fail open.
    assert_eq!(warnings(&bare_pod, None, &cache(&[("warn", "strict")])), [""; 0]);
    let makers = [
        ("apps/v1", "Deployment", json!({"template": {"spec": bare()}})),
        ("apps/v1", "ReplicaSet", json!({"template": {"spec": bare()}})),
        ("apps/v1", "StatefulSet", json!({"template": {"spec": bare()}})),
        ("batch/v1", "CronJob", json!({"jobTemplate": {"spec": {"template": {"spec": bare()}}}})),
    ];
    for (version, kind, spec) in makers {
        let maker = json!({"apiVersion": version, "kind": kind, "spec": spec,
                           "metadata": {"name": "a", "namespace": "n"}});
        let maker = Object::from_json(maker).expect("an object");
        assert_eq!(
            warnings(&maker, Some(&maker), &strict),
            std::slice::from_ref(&expected),
            "{kind}"
        );
        assert_eq!(refusal(check(&maker, None, &cache(&[("enforce", "restricted")]))), "");
    }
}
