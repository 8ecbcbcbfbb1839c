use super::*;
use crate::objects::Object;
use crate::objects::validation::Causes;
use kubesim_runtime::Wall;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// 2023-11-14T22:13:20Z.
const NOW: u64 = 1_700_000_000;

#[test]
fn every_kind_is_declared_as_itself() {
    let mut paths = BTreeSet::new();
    for kind in Kind::ALL {
        let declared = kind.declaration();
        assert_eq!(declared.kind, kind.name());
        assert!(paths.insert((kind.api_version(), kind.plural())), "{kind}");
        assert_eq!(Kind::of(kind.api_version(), kind.name()), Some(*kind));
        assert_eq!(kind.rules().is_some(), *kind >= Kind::Secret, "{kind}");
        let own = declared.columns.iter().filter(|c| matches!(c.cell, Cell::Own)).count();
        let expected = if kind.rules().is_some() { 0 } else { declared.columns.len() };
        assert_eq!(own, expected, "{kind}");
    }
}

fn object(kind: Kind, fields: Value) -> Object {
    let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.name(),
        "metadata": {"name": "a", "creationTimestamp": "2023-11-14T22:12:20Z"}});
    for (name, value) in fields.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    Object::from_json(object).expect("an object")
}

fn cells(kind: Kind, fields: Value) -> Vec<String> {
    let now = Wall::from_unix_nanos(0) + Duration::from_secs(NOW);
    let row = row(&object(kind, fields), now).expect("a row");
    assert_eq!(row.len(), kind.declaration().columns.len());
    row.into_iter().map(|cell| cell.as_str().map_or(cell.to_string(), str::to_owned)).collect()
}

/// What `printers.go` of release 1.33 makes of the same objects, worked out by hand.
#[test]
fn rows_are_as_upstream_prints_them() {
    let secret = json!({"type": "Opaque", "data": {"a": "eA==", "b": ""}});
    assert_eq!(cells(Kind::Secret, secret), ["a", "Opaque", "2", "60s"]);
    let ports = json!([{"port": 80}, {"port": 443}]);
    let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
    let subsets = json!({"subsets": [{"addresses": addresses, "ports": ports}]});
    let shown = "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more...";
    assert_eq!(cells(Kind::Endpoints, subsets), ["a", shown, "60s"]);
    assert_eq!(cells(Kind::Endpoints, json!({})), ["a", "<none>", "60s"]);
    let hard = json!({"limits.cpu": "2", "pods": "10", "requests.cpu": "1"});
    let quota = json!({"status": {"hard": hard, "used": {"pods": "3"}}});
    assert_eq!(
        cells(Kind::ResourceQuota, quota),
        ["a", "pods: 3/10, requests.cpu: 0/1", "limits.cpu: 0/2", "60s"]
    );
    assert_eq!(cells(Kind::Role, json!({})), ["a", "2023-11-14T22:12:20Z"]);
    let subjects = json!([{"kind": "User", "name": "jane"}, {"kind": "Group", "name": "ops"},
        {"kind": "ServiceAccount", "name": "default", "namespace": "x"}]);
    let binding = json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": subjects});
    assert_eq!(
        cells(Kind::RoleBinding, binding),
        ["a", "Role/r", "60s", "jane", "ops", "x/default"]
    );
}

#[test]
fn workloads_rows_are_as_upstream_prints_them() {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i:1"},
        {"name": "d", "image": "j"}], "nodeSelector": {"disk": "ssd"}}});
    let selector = json!({"matchLabels": {"app": "x"}});
    let set = json!({"spec": {"replicas": 3, "serviceName": "", "selector": selector,
        "template": template}, "status": {"replicas": 2, "readyReplicas": 2}});
    assert_eq!(cells(Kind::StatefulSet, set), ["a", "2/3", "60s", "c,d", "i:1,j"]);
    let set = json!({"spec": {"selector": selector, "template": template}, "status": {
        "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberReady": 2,
        "updatedNumberScheduled": 1, "numberMisscheduled": 0}});
    assert_eq!(
        cells(Kind::DaemonSet, set),
        ["a", "3", "3", "2", "1", "0", "disk=ssd", "60s", "c,d", "i:1,j", "app=x"]
    );
    let spec = json!({"completions": 3, "parallelism": 1, "template": template});
    let job = |status: Value| cells(Kind::Job, json!({"spec": spec, "status": status}));
    let started = json!({"startTime": "2023-11-14T22:12:30Z", "succeeded": 1});
    assert_eq!(job(started)[..5], ["a", "Running", "1/3", "50s", "60s"]);
    let done = json!({"startTime": "2023-11-14T22:12:30Z", "succeeded": 3,
        "completionTime": "2023-11-14T22:12:45Z",
        "conditions": [{"type": "Complete", "status": "True"}]});
    assert_eq!(job(done), ["a", "Complete", "3/3", "15s", "60s", "c,d", "i:1,j", "<none>"]);
    let cron = json!({"spec": {"schedule": "*/5 * * * *", "suspend": false,
        "jobTemplate": {"spec": {"template": template}}},
        "status": {"active": [{"name": "x"}], "lastScheduleTime": "2023-11-14T22:10:00Z"}});
    let row = cells(Kind::CronJob, cron);
    assert_eq!(row[..7], ["a", "*/5 * * * *", "<none>", "False", "1", "3m20s", "60s"]);
    let metric = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 80}}});
    let scaler = json!({"spec": {"maxReplicas": 5, "minReplicas": 2, "metrics": [metric],
        "scaleTargetRef": {"kind": "Deployment", "name": "web"}},
        "status": {"currentReplicas": 2, "desiredReplicas": 2}});
    assert_eq!(
        cells(Kind::HorizontalPodAutoscaler, scaler),
        ["a", "Deployment/web", "cpu: <unknown>/80%", "2", "5", "2", "60s"]
    );
    let budget = json!({"spec": {"minAvailable": "50%"}, "status": {"currentHealthy": 1,
        "desiredHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 2}});
    assert_eq!(cells(Kind::PodDisruptionBudget, budget), ["a", "50%", "N/A", "1", "60s"]);
}

#[test]
fn storage_and_networks_rows_are_as_upstream_prints_them() {
    let volume = json!({"spec": {"capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "storageClassName": "fast",
        "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
        "claimRef": {"namespace": "x", "name": "c"}}, "status": {"phase": "Bound"}});
    assert_eq!(
        cells(Kind::PersistentVolume, volume),
        [
            "a",
            "5Gi",
            "RWO,RWX",
            "Retain",
            "Bound",
            "x/c",
            "fast",
            "<unset>",
            "",
            "60s",
            "Filesystem"
        ]
    );
    let pending = json!({"spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}});
    assert_eq!(
        cells(Kind::PersistentVolumeClaim, pending),
        ["a", "Pending", "", "", "", "", "<unset>", "60s", "<unset>"]
    );
    let class = object(Kind::StorageClass, json!({"provisioner": "p"}));
    let mut default = class.to_json();
    default["metadata"]["annotations"] =
        json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let now = Wall::from_unix_nanos(0) + Duration::from_secs(NOW);
    let default = row(&Object::from_json(default).expect("a class"), now).expect("a row");
    assert_eq!(
        default,
        [
            json!("a (default)"),
            json!("p"),
            json!("Delete"),
            json!("Immediate"),
            json!(false),
            json!("60s")
        ]
    );
    let rule = |host: &str| json!({"host": host});
    let rules = json!([rule("a.example"), rule("b.example"), rule("c.example"), rule("d.example")]);
    let ingress = json!({"spec": {"rules": rules, "tls": [{}], "ingressClassName": "nginx"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    assert_eq!(
        cells(Kind::Ingress, ingress),
        ["a", "nginx", "a.example,b.example,c.example + 1 more...", "192.0.2.1", "80, 443", "60s"]
    );
    let csr = json!({"spec": {"request": "eA==", "signerName": "s/x", "username": "jane",
        "expirationSeconds": 86_400}, "status": {"certificate": "eA==",
        "conditions": [{"type": "Approved", "status": "True"}]}});
    assert_eq!(
        cells(Kind::CertificateSigningRequest, csr),
        ["a", "60s", "s/x", "jane", "24h", "Approved,Issued"]
    );
}

fn wrong(kind: Kind, fields: Value) -> Vec<String> {
    let object = object(kind, fields);
    let plain = object.plain().expect("a kind with rules");
    let rules = kind.rules().expect("rules");
    let mut fields = (*plain.fields).clone();
    (rules.defaults)(&mut fields);
    let mut causes = Causes::default();
    (rules.validate)(&fields, &mut causes);
    causes.into_list()
}

#[test]
fn what_is_wrong_is_said_in_upstreams_words() {
    assert_eq!(wrong(Kind::Secret, json!({"stringData": {"a": "x"}})), [""; 0]);
    let key = wrong(Kind::Secret, json!({"data": {"a/b": "eA=="}}));
    assert!(key[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key"), "{key:?}");
    let tls = wrong(Kind::Secret, json!({"type": "kubernetes.io/tls"}));
    assert_eq!(tls, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
    let role = json!({"rules": [{"verbs": [], "resources": ["pods"]}]});
    assert_eq!(
        wrong(Kind::Role, role),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group"
        ]
    );
    let binding = json!({"roleRef": {"kind": "Rule", "name": "x"}, "subjects": [{"kind": "Me"}]});
    assert_eq!(
        wrong(Kind::ClusterRoleBinding, binding),
        [
            "roleRef.kind: Unsupported value: \"Rule\": supported values: \"ClusterRole\"",
            "subjects[0].name: Required value",
            "subjects[0].kind: Unsupported value: \"Me\": supported values: \"Group\", \
             \"ServiceAccount\", \"User\""
        ]
    );
    let pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(
        wrong(Kind::Job, json!({"spec": {"template": pod}})),
        ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \
             \"Never\""]
    );
    let both = json!({"spec": {"minAvailable": 1, "maxUnavailable": 1}});
    assert!(wrong(Kind::PodDisruptionBudget, both)[0].ends_with("cannot be both set"));
    let path = json!({"path": "x", "pathType": "Prefix", "backend": {"service": {"name": "s"}}});
    assert_eq!(
        wrong(Kind::Ingress, json!({"spec": {"rules": [{"http": {"paths": [path]}}]}})),
        [
            "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            "spec.rules[0].http.paths[0].backend: Required value: port name or number is required"
        ]
    );
}

#[test]
fn what_may_not_change_may_not() {
    let update = |kind: Kind, new: Value, old: Value| {
        let fields = |fields: Value| (*object(kind, fields).plain().expect("plain").fields).clone();
        let mut causes = Causes::default();
        (kind.rules().expect("rules").update)(&fields(new), &fields(old), &mut causes);
        causes.into_list()
    };
    let fixed = json!({"immutable": true, "data": {"a": "eA=="}});
    let why = "field is immutable when `immutable` is set";
    assert_eq!(
        update(Kind::Secret, json!({}), fixed),
        [format!("immutable: Forbidden: {why}"), format!("data: Forbidden: {why}")]
    );
    let role = |name: &str| json!({"roleRef": {"kind": "Role", "name": name, "apiGroup": ""}});
    let changed = update(Kind::RoleBinding, role("b"), role("a"));
    assert!(changed[0].ends_with("cannot change roleRef"), "{changed:?}");
    let class = |value: i64| json!({"value": value});
    assert_eq!(
        update(Kind::PriorityClass, class(2), class(1)),
        ["value: Forbidden: may not be changed in an update."]
    );
    let set = |replicas: i64, service: &str| {
        json!({"spec": {"replicas": replicas, "serviceName": service, "selector": {},
                        "template": {}}})
    };
    assert_eq!(update(Kind::StatefulSet, set(2, "s"), set(1, "s")), [""; 0]);
    assert!(update(Kind::StatefulSet, set(1, "t"), set(1, "s"))[0].starts_with("spec: Forbidden"));
}
