//! What a client sees, write by write.

use super::*;
use crate::objects::Uid;
use crate::ports::api::Reason;
use serde_json::json;

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
           "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}})
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
           "spec": {"selector": {"matchLabels": {"app": "a"}},
                    "template": {"metadata": {"labels": {"app": "a"}},
                                 "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}})
}

#[test]
fn what_must_exist_exists_from_the_start() {
    let mut rig = Rig::new();
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        assert!(rig.get(Kind::Namespace, &Key::cluster(name)).is_some(), "{name}");
    }
    let address = |rig: &Rig| {
        let service = rig.get(Kind::Service, &key("kubernetes"))?;
        service.service()?.0.cluster_ip.clone()
    };
    assert_eq!(address(&rig).as_deref(), Some("10.96.0.1"));
    rig.delete(Kind::Service, key("kubernetes")).unwrap();
    assert_eq!(address(&rig).as_deref(), Some("10.96.0.1"), "it comes back");
}

#[test]
fn a_store_that_is_slow_to_read_is_read_once_and_one_that_fails_again() {
    let mut rig = Rig::starting(config());
    for _ in 0..3 {
        assert!(std::mem::take(&mut rig.retry), "it looks again");
        rig.timeout(Timer::Retry);
        assert_eq!(rig.outgoing.len(), 1, "and asks nothing while it is answered");
    }
    let failed = [
        store::Reply::Unknown { id: 0 },
        store::Reply::Refused { id: 0, why: "a bad sector".into() },
    ];
    for reply in failed {
        rig.outgoing.clear();
        rig.retry = false;
        rig.reply(reply);
        assert!(rig.outgoing.is_empty() && rig.retry, "not at once");
        rig.timeout(Timer::Retry);
        assert_eq!(rig.outgoing.len(), 1);
    }
    rig.run();
    assert!(rig.get(Kind::Namespace, &Key::cluster("default")).is_some());
    rig.timeout(Timer::Retry);
    assert!(rig.outgoing.is_empty(), "all is known");
}

#[test]
fn requests_before_the_store_was_read_wait() {
    let mut rig = Rig::starting(config());
    let object = Arc::new(Object::from_json(pod("a")).unwrap());
    let call = rig.send(Request::Create { object });
    assert!(rig.answers.is_empty());
    rig.run();
    assert!(rig.answers[&call].is_ok());
}

#[test]
fn overlapping_networks_are_refused_and_so_is_every_request() {
    let config = Config { pod_network: "10.96.0.0/12".parse().unwrap(), ..config() };
    let mut rig = Rig::starting(config.clone());
    let why = rig.refused.clone().unwrap();
    assert!(why.contains("10.96.0.0/12") && why.contains("10.96.0.0/16"), "{why}");
    assert!(rig.create(pod("a")).unwrap_err().contains("overlaps"));
    let rig = Rig::starting(Config { refuse_overlap: false, ..config });
    assert_eq!(rig.refused, None);
}

#[test]
fn a_node_inside_the_pod_network_is_refused_with_both_ranges() {
    let mut rig = Rig::new();
    let node = |ip: &str| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
               "status": {"addresses": [{"type": "InternalIP", "address": ip}]}})
    };
    let why = rig.create(node("10.244.3.4")).unwrap_err();
    assert!(why.contains("10.244.3.4/32") && why.contains("10.244.0.0/16"), "{why}");
    rig.create(node("192.168.1.4")).unwrap();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.96.0.9"}]}});
    let key = Key::cluster("n1");
    let why = rig.patch(Kind::Node, key, Subresource::Status, status).unwrap_err();
    assert!(why.contains("the service network 10.96.0.0/16"), "{why}");
}

#[test]
fn a_pod_is_defaulted() {
    let mut rig = Rig::new();
    let made = rig.create(pod("a")).unwrap();
    assert!(made.uid != Uid::NONE && made.version > 0);
    let value = made.to_json();
    let spec = &value["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["schedulerName"], "default-scheduler");
    assert_eq!(spec["enableServiceLinks"], true);
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 300);
    assert_eq!(value["status"]["phase"], "Pending");
    assert_eq!(value["status"]["qosClass"], "BestEffort");
    assert_eq!(value["metadata"]["creationTimestamp"], "2023-11-14T22:13:20Z");
}

#[test]
fn a_write_with_an_old_version_is_a_conflict_and_one_without_is_not() {
    let mut rig = Rig::new();
    let first = rig.create(pod("a")).unwrap();
    let label = |text: &str| json!({"metadata": {"labels": {"x": text}}});
    let second = rig.patch(Kind::Pod, key("a"), Subresource::Main, label("1")).unwrap();
    assert!(second.version > first.version);
    let request = Request::Update { object: first.clone() };
    let error = rig.call(request).err().unwrap();
    assert_eq!(error.reason, Reason::Conflict);
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply \
         your changes to the latest version and try again"
    );
    let unversioned = Object { version: 0, ..(*first).clone() };
    let third = rig.object(Request::Update { object: Arc::new(unversioned) }).unwrap();
    assert_eq!(third.label("x"), None);
    let stale = json!({"metadata": {"resourceVersion": first.version.to_string(), "labels": {}}});
    let why = rig.patch(Kind::Pod, key("a"), Subresource::Main, stale).unwrap_err();
    assert!(why.contains("has been modified"), "{why}");
    let other = json!({"metadata": {"uid": "ffffffff-ffff-4fff-8123-456789abcdef"}});
    let why = rig.patch(Kind::Pod, key("a"), Subresource::Main, other).unwrap_err();
    assert!(why.contains("Precondition failed: UID in precondition"), "{why}");
}

#[test]
fn a_write_that_changes_nothing_takes_no_version() {
    let mut rig = Rig::new();
    let made = rig.create(pod("a")).unwrap();
    let before = rig.store.revision();
    let same = rig.object(Request::Update { object: made.clone() }).unwrap();
    let status = json!({"status": {"phase": "Pending"}});
    rig.patch(Kind::Pod, key("a"), Subresource::Status, status).unwrap();
    rig.object(Request::UpdateStatus { object: made.clone() }).unwrap();
    assert_eq!((same.version, rig.store.revision()), (made.version, before));
}

#[test]
fn a_status_write_and_a_spec_write_leave_each_other_alone() {
    let mut rig = Rig::new();
    let made = rig.create(deployment("d")).unwrap();
    assert_eq!(made.meta.generation, Some(1));
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 3}});
    let d = |rig: &mut Rig, sub, patch| rig.patch(Kind::Deployment, key("d"), sub, patch).unwrap();
    let status = d(&mut rig, Subresource::Status, both.clone());
    assert_eq!(status.deployment().unwrap().0.replicas, Some(1));
    assert_eq!(status.deployment().unwrap().1.replicas, Some(3));
    assert_eq!(status.meta.generation, Some(1));
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 9}});
    let spec = d(&mut rig, Subresource::Main, both);
    assert_eq!(spec.deployment().unwrap().0.replicas, Some(5));
    assert_eq!(spec.deployment().unwrap().1.replicas, Some(3));
    assert_eq!(spec.meta.generation, Some(2));
}

#[test]
fn a_deployment_is_defaulted_and_its_selector_stays() {
    let mut rig = Rig::new();
    let value = rig.create(deployment("d")).unwrap().to_json();
    let spec = &value["spec"];
    assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(spec["template"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let patch = json!({"spec": {"selector": {"matchLabels": {"app": "b"}},
                                "template": {"metadata": {"labels": {"app": "b"}}}}});
    let why = rig.patch(Kind::Deployment, key("d"), Subresource::Main, patch).unwrap_err();
    assert_eq!(
        why,
        "Deployment.apps \"d\" is invalid: spec.selector: Invalid value: \
         v1.LabelSelector{MatchLabels:map[string]string{\"app\":\"b\"}, \
         MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"
    );
    let mut other = deployment("e");
    other["spec"]["template"]["metadata"]["labels"] = json!({"app": "z"});
    let why = rig.create(other).unwrap_err();
    assert!(why.contains("`selector` does not match template `labels`"), "{why}");
}

#[test]
fn bad_objects_are_refused_in_upstreams_words() {
    let mut rig = Rig::new();
    let why = rig.create(pod("A_b")).unwrap_err();
    assert!(
        why.starts_with(
            "Pod \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 \
             subdomain must consist of"
        ),
        "{why}"
    );
    let mut empty = pod("a");
    empty["spec"]["containers"] = json!([]);
    assert_eq!(
        rig.create(empty).unwrap_err(),
        "Pod \"a\" is invalid: spec.containers: Required value"
    );
    let mut odd = pod("a");
    odd["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"port": 80}, "periodSeconds": -5});
    odd["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "lots", "memory": "2Gi"}, "limits": {"memory": "1Gi"}});
    let why = rig.create(odd).unwrap_err();
    let causes = [
        "spec.containers[0].resources.requests[cpu]: Invalid value: \"lots\": quantities must match",
        "spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal \
         to memory limit of 1Gi",
        "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -5: must be greater than \
         or equal to 0",
    ];
    assert!(causes.iter().all(|cause| why.contains(cause)), "{why}");
    let mut elsewhere = pod("a");
    elsewhere["metadata"]["namespace"] = json!("nowhere");
    assert_eq!(rig.create(elsewhere).unwrap_err(), "namespaces \"nowhere\" not found");
    rig.create(pod("a")).unwrap();
    assert_eq!(rig.create(pod("a")).unwrap_err(), "pods \"a\" already exists");
    let gone = rig.delete(Kind::Deployment, key("x")).unwrap_err();
    assert_eq!(gone, "deployments.apps \"x\" not found");
    let why = rig
        .patch(Kind::Pod, key("a"), Subresource::Main, json!({"spec": {"hostname": "h"}}))
        .unwrap_err();
    assert!(why.contains("spec: Forbidden: pod updates may not change fields other than"), "{why}");
    let image = json!({"spec": {"containers": [{"name": "c", "image": "nginx:2",
        "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File"}]}});
    rig.patch(Kind::Pod, key("a"), Subresource::Main, image).unwrap();
}

#[test]
fn names_are_generated_out_of_the_alphabet() {
    let mut rig = Rig::new();
    let mut manifest = pod("");
    manifest["metadata"] = json!({"generateName": "web-", "namespace": "default"});
    let (a, b) = (rig.create(manifest.clone()).unwrap(), rig.create(manifest).unwrap());
    assert_ne!(a.key, b.key);
    let suffix = a.key.name.strip_prefix("web-").unwrap();
    assert!(suffix.len() == 5 && suffix.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)));
    let mut nameless = pod("");
    nameless["metadata"] = json!({});
    let why = rig.create(nameless).unwrap_err();
    assert!(why.contains("metadata.name: Required value: name or generateName"), "{why}");
}

#[test]
fn a_bound_pod_is_deleted_in_two_steps() {
    let mut rig = Rig::new();
    let made = rig.create(pod("a")).unwrap();
    let bind = |node: &str| Request::Bind { pod: key("a"), uid: made.uid, node: node.into() };
    let bound = rig.object(bind("n1")).unwrap();
    assert_eq!(bound.pod().unwrap().0.node_name.as_deref(), Some("n1"));
    let error = rig.call(bind("n2")).err().unwrap();
    assert_eq!(error.reason, Reason::Conflict);
    assert!(error.message.ends_with("pod a is already assigned to node \"n1\""), "{error}");
    let marked = rig.delete(Kind::Pod, key("a")).unwrap();
    assert_eq!(marked.meta.deletion_grace_period_seconds, Some(30));
    let stamp = marked.to_json()["metadata"]["deletionTimestamp"].clone();
    assert_eq!(stamp, "2023-11-14T22:13:50Z");
    // Asking again changes nothing; a shorter grace does.
    rig.pass(5);
    let again = rig.delete(Kind::Pod, key("a")).unwrap();
    assert_eq!(again.version, marked.version);
    let grace = |seconds, uid| Request::Delete {
        kind: Kind::Pod,
        key: key("a"),
        options: DeleteOptions {
            uid,
            grace: Some(Duration::from_secs(seconds)),
            ..DeleteOptions::default()
        },
    };
    let shorter = rig.object(grace(10, None)).unwrap();
    let stamp = shorter.to_json()["metadata"]["deletionTimestamp"].clone();
    assert_eq!(stamp, "2023-11-14T22:13:30Z");
    let why = rig.object(grace(0, Some(Uid(7)))).unwrap_err();
    assert!(why.contains("Precondition failed"), "{why}");
    rig.object(grace(0, Some(made.uid))).unwrap();
    assert!(rig.get(Kind::Pod, &key("a")).is_none());
    // One that runs nowhere goes at once.
    rig.create(pod("b")).unwrap();
    rig.delete(Kind::Pod, key("b")).unwrap();
    assert!(rig.get(Kind::Pod, &key("b")).is_none());
}

#[test]
fn a_deletion_of_another_version_is_a_conflict() {
    let mut rig = Rig::new();
    let first = rig.create(deployment("d")).unwrap();
    let labels = json!({"metadata": {"labels": {"x": "y"}}});
    let second = rig.patch(Kind::Deployment, key("d"), Subresource::Main, labels).unwrap();
    let of = |version| Request::Delete {
        kind: Kind::Deployment,
        key: key("d"),
        options: DeleteOptions { version: Some(version), ..DeleteOptions::default() },
    };
    let error = rig.call(of(first.version)).err().unwrap();
    assert_eq!(error.reason, Reason::Conflict);
    let words = format!(
        "Operation cannot be fulfilled on Deployment.apps \"d\": the ResourceVersion in the \
         precondition ({}) does not match the ResourceVersion in record ({}). The object might \
         have been modified",
        first.version, second.version
    );
    assert_eq!(error.message, words);
    rig.object(of(second.version)).unwrap();
    assert!(rig.get(Kind::Deployment, &key("d")).is_none());
}

#[test]
fn an_object_with_a_finalizer_goes_when_the_last_one_does() {
    let mut rig = Rig::new();
    let mut manifest = deployment("d");
    manifest["metadata"]["finalizers"] = json!(["x.dev/a"]);
    rig.create(manifest).unwrap();
    let marked = rig.delete(Kind::Deployment, key("d")).unwrap();
    assert!(marked.deleting());
    let more = json!({"metadata": {"finalizers": ["x.dev/a", "x.dev/b"]}});
    let why = rig.patch(Kind::Deployment, key("d"), Subresource::Main, more).unwrap_err();
    assert!(why.contains("no new finalizers can be added"), "{why}");
    let none = json!({"metadata": {"finalizers": null}});
    rig.patch(Kind::Deployment, key("d"), Subresource::Main, none).unwrap();
    assert!(rig.get(Kind::Deployment, &key("d")).is_none());
}

#[test]
fn a_namespace_is_emptied_and_then_goes() {
    let mut rig = Rig::new();
    rig.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}))
        .unwrap();
    let mut inside = pod("a");
    inside["metadata"]["namespace"] = json!("x");
    let made = rig.create(inside.clone()).unwrap();
    rig.object(Request::Bind { pod: made.key.clone(), uid: made.uid, node: "n".into() }).unwrap();
    rig.delete(Kind::Namespace, Key::cluster("x")).unwrap();
    inside["metadata"]["name"] = json!("b");
    let why = rig.create(inside).unwrap_err();
    assert!(why.contains("because it is being terminated"), "{why}");
    assert!(rig.get(Kind::Pod, &made.key).unwrap().deleting());
    // The kubelet removes the pod, and a restart in between is no obstacle.
    rig.restart();
    rig.run();
    let options = DeleteOptions {
        uid: Some(made.uid),
        grace: Some(Duration::ZERO),
        ..DeleteOptions::default()
    };
    rig.object(Request::Delete { kind: Kind::Pod, key: made.key.clone(), options }).unwrap();
    assert!(rig.get(Kind::Namespace, &Key::cluster("x")).is_none());
    let why = rig.delete(Kind::Namespace, Key::cluster("default")).unwrap_err();
    assert!(why.contains("this namespace may not be deleted"), "{why}");
}

#[test]
fn nothing_is_answered_or_published_before_it_is_durable_and_in_order() {
    let mut rig = Rig::new();
    let make = |name: &str| {
        let object = Arc::new(Object::from_json(pod(name)).unwrap());
        Request::Create { object }
    };
    let (a, b) = (rig.send(make("a")), rig.send(make("b")));
    let again = rig.send(make("a"));
    // Two keys are in flight, the second write of `a` waits.
    assert_eq!(rig.outgoing.len(), 2);
    let requests = std::mem::take(&mut rig.outgoing);
    let replies: Vec<_> = requests.iter().map(|r| rig.store.request(r)).collect();
    let [first, second]: [_; 2] = replies.try_into().unwrap();
    rig.reply(second);
    assert!(rig.answers.is_empty() && rig.get(Kind::Pod, &key("b")).is_none());
    rig.reply(first);
    assert!(rig.answers[&a].is_ok() && rig.answers[&b].is_ok());
    assert_eq!(rig.answers[&again].as_ref().err().unwrap().reason, Reason::AlreadyExists);
}

#[test]
fn a_write_of_an_earlier_life_that_lands_late_is_found() {
    let mut rig = Rig::new();
    let object = Arc::new(Object::from_json(pod("a")).unwrap());
    rig.send(Request::Create { object });
    let late = rig.outgoing.pop().unwrap();
    rig.restart();
    rig.run();
    rig.store.request(&late);
    // The same name meets it, another one sees the gap.
    assert_eq!(rig.create(pod("a")).unwrap_err(), "pods \"a\" already exists");
    rig.create(pod("b")).unwrap();
    assert_eq!(rig.cache.revision, rig.store.revision());
}

#[test]
fn a_write_without_an_answer_is_unknown_until_the_store_was_read() {
    let mut rig = Rig::new();
    let object = Arc::new(Object::from_json(pod("a")).unwrap());
    let call = rig.send(Request::Create { object: object.clone() });
    let txn = rig.outgoing.pop().unwrap();
    rig.store.request(&txn);
    let store::Request::Txn { id, .. } = txn else { panic!("{txn:?}") };
    rig.reply(store::Reply::Unknown { id });
    assert_eq!(rig.answers[&call].as_ref().err().unwrap().reason, Reason::Unknown);
    let again = rig.send(Request::Create { object });
    assert!(!rig.answers.contains_key(&again));
    rig.run();
    assert_eq!(rig.answers[&again].as_ref().err().unwrap().reason, Reason::AlreadyExists);
}

#[test]
fn a_write_that_the_store_refuses_never_happened() {
    let mut rig = Rig::new();
    let object = Arc::new(Object::from_json(pod("a")).unwrap());
    let call = rig.send(Request::Create { object: object.clone() });
    let next = rig.send(Request::Create { object });
    let txn = rig.outgoing.pop().unwrap();
    let store::Request::Txn { id, .. } = txn else { panic!("{txn:?}") };
    rig.reply(store::Reply::Refused { id, why: "no room is left".into() });
    let error = rig.answers[&call].as_ref().err().unwrap();
    assert_eq!(error.reason, Reason::InternalError);
    assert!(error.message.contains("no room is left"), "{error}");
    rig.run();
    assert!(rig.answers[&next].is_ok(), "who waited behind it goes on");
}

#[test]
fn old_versions_are_compacted() {
    let mut rig = Rig::new();
    rig.create(pod("a")).unwrap();
    for n in 0..150 {
        let patch = json!({"metadata": {"labels": {"n": n.to_string()}}});
        rig.patch(Kind::Pod, key("a"), Subresource::Main, patch).unwrap();
    }
    rig.timeout(Timer::Compact);
    rig.run();
    assert_eq!(rig.cache.compacted, rig.cache.revision - 100);
}

#[test]
fn lists_are_by_namespace() {
    let mut rig = Rig::new();
    rig.create(pod("a")).unwrap();
    let len = |rig: &Rig, namespace: &str| match rig.cache.list(Kind::Pod, &namespace.into()) {
        Ok(Reply::List(view)) => view.len(),
        _ => usize::MAX,
    };
    assert_eq!((len(&rig, ""), len(&rig, "default"), len(&rig, "kube-system")), (1, 1, 0));
    let error = rig.cache.get(Kind::Pod, &key("z")).err().unwrap();
    assert_eq!(error.message, "pods \"z\" not found");
}
