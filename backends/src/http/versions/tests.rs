use super::*;
use serde_json::json;

fn scaler(fields: Value) -> Value {
    let mut scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                            "metadata": {"name": "a", "annotations": {"mine": "kept"}}});
    for (name, value) in fields.as_object().into_iter().flatten() {
        scaler[name] = value.clone();
    }
    scaler
}

fn versions() -> (Served, Served) {
    let held = Served::held(Kind::HorizontalPodAutoscaler);
    let old = held.in_version("autoscaling/v1").expect("it is served");
    (held, old)
}

fn annotation(scaler: &Value, name: &str) -> Value {
    let name = format!("autoscaling.alpha.kubernetes.io/{name}");
    let text = scaler["metadata"]["annotations"][&name].as_str();
    text.map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"))
}

#[test]
fn an_autoscaler_says_in_annotations_what_its_old_version_cannot() {
    let (v2, v1) = versions();
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let pods = json!({"type": "Pods", "pods": {
        "metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
        "target": {"type": "AverageValue", "averageValue": "100m"}}});
    let outside = json!({"type": "External", "external": {"metric": {"name": "queue"},
        "target": {"type": "Value", "value": "30"}}});
    let ingress = json!({"type": "Object", "object": {"metric": {"name": "rate"},
        "describedObject": {"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"},
        "target": {"type": "AverageValue", "averageValue": "2"}}});
    let memory = json!({"type": "ContainerResource", "containerResource": {"name": "memory",
        "container": "c", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let found = json!({"type": "Resource", "resource": {"name": "cpu",
        "current": {"averageUtilization": 40, "averageValue": "200m"}}});
    let condition = json!({"type": "AbleToScale", "status": "True", "reason": "x"});
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Min",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}});
    // Upstream puts the metrics of annotations before the one of its own.
    let new = scaler(json!({
        "spec": {"minReplicas": 1, "maxReplicas": 5, "behavior": behavior,
                 "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                 "metrics": [pods, outside, ingress, memory, cpu]},
        "status": {"desiredReplicas": 2, "currentMetrics": [found], "conditions": [condition]},
    }));
    let old = v2.converted(new.clone(), &v1);
    assert_eq!(old["apiVersion"], "autoscaling/v1");
    let spec = json!({"minReplicas": 1, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50,
                      "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
    assert_eq!(old["spec"], spec);
    let status = json!({"desiredReplicas": 2, "currentCPUUtilizationPercentage": 40});
    assert_eq!(old["status"], status);
    let metrics = annotation(&old, "metrics");
    let expected = json!({"type": "Pods", "pods": {"metricName": "hits",
        "selector": {"matchLabels": {"a": "b"}}, "targetAverageValue": "100m"}});
    assert_eq!((metrics.as_array().map(Vec::len), &metrics[0]), (Some(4), &expected));
    let expected = json!({"type": "External",
                          "external": {"metricName": "queue", "targetValue": "30"}});
    assert_eq!(metrics[1], expected);
    let expected = json!([{"type": "Resource", "resource": {"name": "cpu",
        "currentAverageUtilization": 40, "currentAverageValue": "200m"}}]);
    assert_eq!(annotation(&old, "current-metrics"), expected);
    assert_eq!(annotation(&old, "conditions"), json!([condition]));
    let expected = json!({"ScaleDown": {"StabilizationWindowSeconds": 60, "SelectPolicy": "Min",
        "Policies": [{"Type": "Pods", "Value": 1, "PeriodSeconds": 15}]}});
    assert_eq!(annotation(&old, "behavior"), expected);
    assert_eq!(v1.converted(old, &v2), new);
}

#[test]
fn an_autoscaler_that_wants_nothing_wants_cpus_to_be_busy() {
    let (v2, v1) = versions();
    let target = json!({"type": "Utilization", "averageUtilization": 80});
    let wanted = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    let new = v1.converted(scaler(json!({"spec": {"maxReplicas": 3}})), &v2);
    assert_eq!(new["spec"], json!({"maxReplicas": 3, "metrics": wanted}));
    // An annotation that says nothing is none, and is not kept.
    let mut odd = scaler(json!({"spec": {"maxReplicas": 3}}));
    odd["metadata"]["annotations"] =
        json!({"autoscaling.alpha.kubernetes.io/metrics": "{", "other": "x"});
    let odd = v1.converted(odd, &v2);
    assert_eq!(odd["spec"]["metrics"], wanted);
    assert_eq!(odd["metadata"]["annotations"], json!({"other": "x"}));
    // A number that old Go always writes means nothing beside an average.
    let mut average = scaler(json!({"spec": {"maxReplicas": 3}}));
    let text = json!([{"type": "Object", "object": {"metricName": "m", "targetValue": "0",
        "target": {"kind": "Ingress", "name": "i"}, "averageValue": "2"}}]);
    average["metadata"]["annotations"] =
        json!({"autoscaling.alpha.kubernetes.io/metrics": text.to_string()});
    let target = v1.converted(average, &v2)["spec"]["metrics"][0]["object"]["target"].clone();
    assert_eq!(target, json!({"type": "AverageValue", "averageValue": "2"}));
}

#[test]
fn an_event_has_other_names_in_its_own_group() {
    let core = Served::held(Kind::Event);
    let own = core.in_version("events.k8s.io/v1").expect("it is served");
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"},
        "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "count": 2,
        "source": {"component": "kubelet"}, "firstTimestamp": "2024-01-01T00:00:00Z",
        "lastTimestamp": "2024-01-01T00:01:00Z", "reportingComponent": "c", "reason": "r"});
    let expected = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "a"}, "regarding": {"kind": "Pod", "name": "p"}, "note": "m",
        "deprecatedCount": 2, "deprecatedSource": {"component": "kubelet"},
        "deprecatedFirstTimestamp": "2024-01-01T00:00:00Z",
        "deprecatedLastTimestamp": "2024-01-01T00:01:00Z", "reportingController": "c",
        "reason": "r"});
    assert_eq!(core.converted(event.clone(), &own), expected);
    assert_eq!(own.converted(expected, &core), event);
    assert_eq!(own.selected("regarding.name").as_deref(), Some("involvedObject.name"));
    assert_eq!(
        (own.selected("involvedObject.name"), core.selected("regarding.name")),
        (None, None)
    );
}

#[test]
fn every_version_reads_what_it_writes() {
    for served in Served::of_the_start().filter(|served| !served.is_held()) {
        let bare = json!({"apiVersion": served.kind.api_version(), "kind": served.kind.name(),
                          "metadata": {"name": "a", "namespace": "x"}});
        let held = Object::from_json(bare).expect("an object");
        let (object, unknown) = served.read(&served.json(&held));
        assert!(object.is_ok() && unknown.is_empty(), "{served:?}: {unknown:?}");
    }
}
