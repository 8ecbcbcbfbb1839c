use super::*;
use crate::http::accept::Form;
use crate::http::versions::Served;
use kubesim_runtime::Wall;
use std::time::Duration;

const NOW: u64 = 1_700_000_000;

fn cells_of(value: Value) -> Vec<String> {
    let object = Object::from_json(value).expect("an object");
    let now = Wall::from_unix_nanos(0) + Duration::from_secs(NOW);
    let kind = object.kind();
    let served = Served::held(kind);
    let show = &Show { served, form: Form::Table, include: Include::None, now };
    let table = table(kind, &[Arc::new(object)], json!({}), show, true);
    let cells = table["rows"][0]["cells"].as_array().expect("cells").clone();
    assert_eq!(cells.len(), kind.declaration().columns.len(), "{kind}");
    let text = |cell: Value| cell.as_str().map_or(cell.to_string(), str::to_owned);
    cells.into_iter().map(text).collect()
}

#[test]
fn every_kind_has_a_cell_for_each_column() {
    for kind in Kind::ALL {
        cells_of(json!({"apiVersion": kind.api_version(), "kind": kind.name(),
            "metadata": {"name": "a"}, "involvedObject": {}, "addressType": "IPv4",
            "endpoints": []}));
    }
}

fn pod(spec: Value, status: Value, deleted: bool) -> String {
    let mut meta = json!({"name": "a", "creationTimestamp": "2023-11-14T22:12:20Z"});
    if deleted {
        meta["deletionTimestamp"] = "2023-11-14T22:13:00Z".into();
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta,
                     "spec": spec, "status": status});
    cells_of(pod)[1..].join(" ")
}

#[test]
fn a_pod_is_summed_up_in_a_word() {
    let one = json!({"containers": [{"name": "c"}], "nodeName": "n1"});
    let running = |ready: bool| {
        json!({"name": "c", "image": "", "imageID": "", "ready": ready,
        "restartCount": 0, "state": {"running": {}}})
    };
    let ended = |reason: &str| {
        json!({"name": "d", "image": "", "imageID": "", "ready": false,
        "restartCount": 2, "state": {"terminated": {"exitCode": 3, "reason": reason}},
        "lastState": {"terminated": {"exitCode": 3, "finishedAt": "2023-11-14T22:11:20Z"}}})
    };
    let wide = "10.1.0.2 n1 <none> <none>";
    let ips = json!([{"ip": "10.1.0.2"}]);
    let status = json!({"phase": "Running", "podIPs": ips, "containerStatuses": [running(true)]});
    assert_eq!(pod(one.clone(), status.clone(), false), format!("1/1 Running 0 60s {wide}"));
    assert_eq!(pod(one.clone(), status, true), format!("1/1 Terminating 0 60s {wide}"));
    let two = json!({"containers": [{"name": "c"}, {"name": "d"}]});
    let crash = json!({"phase": "Running", "containerStatuses": [running(true), ended("Error")]});
    let rest = "60s <none> <none> <none> <none>";
    assert_eq!(pod(two.clone(), crash, false), format!("1/2 Error 2 (2m ago) {rest}"));
    let done =
        json!({"phase": "Running", "containerStatuses": [running(true), ended("Completed")]});
    assert_eq!(pod(two, done, false), format!("1/2 NotReady 2 (2m ago) {rest}"));
    let coded = json!({"phase": "Failed", "containerStatuses": [ended("")]});
    let plain = json!({"containers": [{"name": "d"}]});
    assert_eq!(pod(plain, coded, true), format!("0/1 ExitCode:3 2 (2m ago) {rest}"));
    let init =
        json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "d"}]});
    let waits = json!({"name": "d", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "PodInitializing"}}});
    let first = json!({"name": "i", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0}}});
    let starting = json!({"phase": "Pending", "initContainerStatuses": [first, waits]});
    assert_eq!(pod(init.clone(), starting, false), format!("0/1 Init:1/2 0 {rest}"));
    let failing = json!({"phase": "Pending", "initContainerStatuses": [ended("")]});
    assert_eq!(pod(init, failing, false), format!("0/1 Init:ExitCode:3 2 (2m ago) {rest}"));
}

#[test]
fn services_nodes_and_events_are_shown_as_upstream_does() {
    let meta = json!({"name": "a", "creationTimestamp": "2023-11-14T22:03:20Z",
        "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}});
    let service = |kind: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"type": kind, "clusterIP": "10.0.0.1", "selector": {"b": "1", "a": "2"},
            "externalName": "x.example",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}, {"port": 53, "protocol": "UDP"}]}})
    };
    assert_eq!(
        cells_of(service("NodePort")),
        ["a", "NodePort", "10.0.0.1", "<none>", "80:30000/TCP,53/UDP", "10m", "a=2,b=1"]
    );
    assert_eq!(cells_of(service("LoadBalancer"))[3], "<pending>");
    assert_eq!(cells_of(service("ExternalName"))[3], "x.example");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": meta,
        "spec": {"unschedulable": true}, "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    assert_eq!(
        cells_of(node),
        [
            "a",
            "NotReady,SchedulingDisabled",
            "control-plane,x",
            "10m",
            "",
            "192.0.2.1",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>"
        ]
    );
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": meta, "type": "Normal",
        "reason": "Started", "message": "it started\n", "count": 3,
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": "2023-11-14T22:03:20Z", "lastTimestamp": "2023-11-14T22:13:10Z"});
    assert_eq!(
        cells_of(event),
        [
            "10s",
            "Normal",
            "Started",
            "pod/p",
            "spec.containers{c}",
            "kubelet, n1",
            "it started",
            "10m",
            "3",
            "a"
        ]
    );
}
