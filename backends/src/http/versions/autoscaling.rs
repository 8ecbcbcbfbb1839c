//! `autoscaling/v1`: autoscalers by one number, how busy CPUs are to be. The rest of what `v2` says
//! stands in annotations (kubernetes `pkg/apis/autoscaling/v1/conversion.go`, `annotations.go`).

use super::Other;
use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use kubesim_actors::objects::kinds::Fields;
use kubesim_actors::objects::{Kind, retyped};
use serde_json::{Map, Value, json};

pub static V1: Other = Other {
    kind: Kind::HorizontalPodAutoscaler,
    api_version: "autoscaling/v1",
    retyped: retyped::<HorizontalPodAutoscaler>,
    from_held: |autoscaler| in_place(autoscaler, older),
    to_held: |autoscaler| in_place(autoscaler, newer),
    fields: &[],
    check: |_, _, _| {},
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The fields of a metric's source, as the annotations have them and as `v2` does.
type Names = &'static [(&'static str, &'static str)];

/// Of what is wanted.
const WANTED: [(&str, Names); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("targetValue", "target.value"),
            ("averageValue", "target.averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("targetAverageValue", "target.averageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("targetAverageUtilization", "target.averageUtilization"),
            ("targetAverageValue", "target.averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("targetAverageUtilization", "target.averageUtilization"),
            ("targetAverageValue", "target.averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("targetValue", "target.value"),
            ("targetAverageValue", "target.averageValue"),
        ],
    ),
];

/// Of what there is.
const FOUND: [(&str, Names); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("currentValue", "current.value"),
            ("averageValue", "current.averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "metric.name"),
            ("selector", "metric.selector"),
            ("currentAverageValue", "current.averageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("currentAverageUtilization", "current.averageUtilization"),
            ("currentAverageValue", "current.averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("currentAverageUtilization", "current.averageUtilization"),
            ("currentAverageValue", "current.averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "metric.name"),
            ("metricSelector", "metric.selector"),
            ("currentValue", "current.value"),
            ("currentAverageValue", "current.averageValue"),
        ],
    ),
];

fn in_place(map: &mut Map<String, Value>, convert: fn(&mut Fields)) {
    let mut fields = Fields(std::mem::take(map));
    convert(&mut fields);
    *map = fields.0;
}

/// From `v2` to `v1`.
fn older(autoscaler: &mut Fields) {
    // None but those that are made here.
    take_annotations(autoscaler);
    let metrics = remove(autoscaler, "spec", "metrics");
    let found = remove(autoscaler, "status", "currentMetrics");
    let conditions = remove(autoscaler, "status", "conditions");
    let behavior = remove(autoscaler, "spec", "behavior");
    if let Some(busy) = list(&metrics).iter().find(|one| of_cpu(one)).and_then(wanted_busy) {
        autoscaler.set("spec.targetCPUUtilizationPercentage", busy.clone());
    }
    let busy = |one: &Value| one["resource"]["current"].get("averageUtilization").cloned();
    if let Some(busy) = list(&found).iter().filter(|one| of_cpu(one)).filter_map(busy).next_back() {
        autoscaler.set("status.currentCPUUtilizationPercentage", busy);
    }
    let others = list(&metrics).iter().filter(|one| !of_cpu(one) || wanted_busy(one).is_none());
    let others: Vec<Value> = others.map(|one| old(one, &WANTED)).collect();
    let found: Vec<Value> = list(&found).iter().map(|one| old(one, &FOUND)).collect();
    annotate(autoscaler, METRICS, others.into());
    annotate(autoscaler, CURRENT_METRICS, found.into());
    annotate(autoscaler, CONDITIONS, conditions);
    // It is written as Go's own type has its fields.
    annotate(autoscaler, BEHAVIOR, with_names(&behavior, char::to_ascii_uppercase));
}

/// From `v1` to `v2`. An annotation that cannot be read counts for nothing.
fn newer(autoscaler: &mut Fields) {
    let annotations = take_annotations(autoscaler);
    let said = |name: &str| -> Value {
        let text = annotations.get(name).and_then(Value::as_str);
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    if autoscaler.at("spec").is_some_and(Value::is_object) {
        let others = said(METRICS);
        let mut metrics: Vec<Value> = list(&others).iter().map(|one| new(one, true)).collect();
        let busy = remove(autoscaler, "spec", "targetCPUUtilizationPercentage");
        if !busy.is_null() || metrics.is_empty() {
            let busy = if busy.is_null() { DEFAULT_BUSY.into() } else { busy };
            let target = json!({"type": "Utilization", "averageUtilization": busy});
            metrics.push(cpu("target", target));
        }
        autoscaler.set("spec.metrics", metrics);
        let behavior = with_names(&said(BEHAVIOR), char::to_ascii_lowercase);
        if list_or_fields(&behavior) {
            autoscaler.set("spec.behavior", behavior);
        }
    }
    let busy = remove(autoscaler, "status", "currentCPUUtilizationPercentage");
    let found = said(CURRENT_METRICS);
    if !list(&found).is_empty() {
        let found: Vec<Value> = list(&found).iter().map(|one| new(one, false)).collect();
        autoscaler.set("status.currentMetrics", found);
    } else if !busy.is_null() {
        let found = cpu("current", json!({"averageUtilization": busy}));
        autoscaler.set("status.currentMetrics", vec![found]);
    }
    let conditions = said(CONDITIONS);
    if !list(&conditions).is_empty() {
        autoscaler.set("status.conditions", conditions);
    }
}

/// `DefaultCPUUtilization`.
const DEFAULT_BUSY: i64 = 80;

fn cpu(part: &str, value: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", part: value}})
}

fn of_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn wanted_busy(metric: &Value) -> Option<&Value> {
    metric["resource"]["target"].get("averageUtilization").filter(|busy| !busy.is_null())
}

/// A metric as annotations have it.
fn old(metric: &Value, parts: &[(&str, Names)]) -> Value {
    translated(metric, parts, |(old, new)| (new, old))
}

/// A metric as `v2` has it: of one that is wanted, it says which kind of number that is.
fn new(metric: &Value, wanted: bool) -> Value {
    if !wanted {
        return translated(metric, &FOUND, |names| names);
    }
    let mut metric = translated(metric, &WANTED, |names| names);
    for (part, _) in WANTED {
        let Some(Value::Object(source)) = metric.get_mut(part) else { continue };
        let mut fields = Fields(std::mem::take(source));
        let said = |field: &str| fields.at(&format!("target.{field}")).is_some();
        // One of an object always has a number in `v1`, which means nothing beside an average.
        let average = said("averageValue") && (part != "external" || !said("value"));
        let kind = match (said("averageUtilization"), average) {
            (true, _) => "Utilization",
            (_, true) => "AverageValue",
            _ => "Value",
        };
        if average {
            remove(&mut fields, "target", "value");
        }
        fields.set("target.type", kind);
        *source = fields.0;
    }
    metric
}

fn translated(
    metric: &Value,
    parts: &[(&str, Names)],
    way: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    let mut translated = json!({"type": metric["type"]});
    for (part, names) in parts {
        let Some(Value::Object(source)) = metric.get(part) else { continue };
        let (source, mut fields) = (Fields(source.clone()), Fields(Map::new()));
        for (from, to) in names.iter().copied().map(way) {
            if let Some(value) = source.at(from).filter(|value| !value.is_null()) {
                fields.set(to, value.clone());
            }
        }
        translated[part] = Value::Object(fields.0);
    }
    translated
}

/// With another first letter of each name.
fn with_names(value: &Value, letter: fn(&char) -> char) -> Value {
    match value {
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.is_null());
            let renamed = said.map(|(name, value)| {
                let mut letters = name.chars();
                let first = letters.next().map(|first| letter(&first));
                (first.into_iter().chain(letters).collect(), with_names(value, letter))
            });
            Value::Object(renamed.collect())
        }
        Value::Array(items) => items.iter().map(|item| with_names(item, letter)).collect(),
        plain => plain.clone(),
    }
}

/// Something is said in it.
fn list_or_fields(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Null if it was not there.
fn remove(fields: &mut Fields, part: &str, name: &str) -> Value {
    let part = fields.0.get_mut(part).and_then(Value::as_object_mut);
    part.and_then(|part| part.remove(name)).unwrap_or_default()
}

/// Those by which versions are converted; the others stay.
fn take_annotations(fields: &mut Fields) -> Map<String, Value> {
    let Some(Value::Object(meta)) = fields.0.get_mut("metadata") else { return Map::new() };
    let Some(Value::Object(all)) = meta.get_mut("annotations") else { return Map::new() };
    let ours = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];
    let taken: Map<String, Value> =
        ours.iter().filter_map(|name| all.remove_entry(*name)).collect();
    if all.is_empty() && !taken.is_empty() {
        meta.remove("annotations");
    }
    taken
}

fn annotate(fields: &mut Fields, name: &str, value: Value) {
    if list_or_fields(&value) {
        let meta = fields.0.entry("metadata").or_insert_with(|| json!({}));
        meta["annotations"][name] = value.to_string().into();
    }
}
