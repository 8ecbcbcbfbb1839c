//! What bends scheduling and scale: `policy/v1`, `scheduling.k8s.io/v1`, `autoscaling/v2`.

use super::cells::{AGE, Cell, Column, NAME, Shown, column};
use super::declaration::{ALL, STATUS, cluster, namespaced, rules};
use super::{Declaration, Fields, Kind, Rules, templates};
use crate::objects::validation::Causes;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

pub(super) static POD_DISRUPTION_BUDGET: Declaration = Declaration {
    short: &["pdb"],
    subresources: STATUS,
    columns: &[
        NAME,
        column("Min Available", Cell::Or("spec.minAvailable", "N/A")),
        column("Max Unavailable", Cell::Or("spec.maxUnavailable", "N/A")),
        column("Allowed Disruptions", Cell::Number("status.disruptionsAllowed")),
        AGE,
    ],
    generation: true,
    rules: Some(Rules { validate: budget, ..rules::<PodDisruptionBudget>() }),
    ..namespaced(Kind::PodDisruptionBudget, "policy/v1", "poddisruptionbudgets")
};

/// `ValidatePodDisruptionBudgetSpec` (pkg/apis/policy/validation).
fn budget(fields: &Fields, causes: &mut Causes) {
    let both = ["spec.minAvailable", "spec.maxUnavailable"];
    if both.iter().all(|path| fields.at(path).is_some()) {
        let value = fields.at("spec").cloned().unwrap_or_default();
        causes.invalid("spec", value, "minAvailable and maxUnavailable cannot be both set");
    }
    templates::not_negative(fields, &both, causes);
    for path in both {
        let text = fields.text(path);
        let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok());
        if percent.is_some_and(|percent| percent > 100) {
            causes.invalid(path, format_args!("{text:?}"), "must not be greater than 100%");
        }
    }
    let policy = fields.text("spec.unhealthyPodEvictionPolicy");
    let supported = ["AlwaysAllow", "IfHealthyBudget"];
    if !policy.is_empty() && !supported.contains(&policy) {
        causes.unsupported("spec.unhealthyPodEvictionPolicy", policy, &supported);
    }
}

pub(super) static PRIORITY_CLASS: Declaration = Declaration {
    short: &["pc"],
    columns: &[
        NAME,
        column("Value", Cell::Number("value")),
        column("Global-Default", Cell::Flag("globalDefault", false)),
        AGE,
        column("PreemptionPolicy", Cell::Or("preemptionPolicy", "")),
    ],
    generation: true,
    rules: Some(Rules {
        defaults: |fields| fields.default("preemptionPolicy", "PreemptLowerPriority"),
        validate: priority,
        update: |new, old, causes| {
            for path in ["value", "preemptionPolicy"] {
                if new.at(path) != old.at(path) {
                    causes.forbidden(path, "may not be changed in an update.");
                }
            }
        },
        ..rules::<PriorityClass>()
    }),
    ..cluster(Kind::PriorityClass, "scheduling.k8s.io/v1", "priorityclasses")
};

/// Its name and value are judged by admission, which knows both.
fn priority(fields: &Fields, causes: &mut Causes) {
    let policy = fields.text("preemptionPolicy");
    let supported = ["Never", "PreemptLowerPriority"];
    if !supported.contains(&policy) {
        causes.unsupported("preemptionPolicy", policy, &supported);
    }
}

pub(super) static HORIZONTAL_POD_AUTOSCALER: Declaration = Declaration {
    short: &["hpa"],
    categories: ALL,
    subresources: STATUS,
    columns: &[
        NAME,
        column("Reference", Cell::Made(reference)),
        column("Targets", Cell::Made(targets)),
        column("MinPods", Cell::Or("spec.minReplicas", "<unset>")),
        Column { kind: "string", ..column("MaxPods", Cell::Number("spec.maxReplicas")) },
        Column { kind: "string", ..column("Replicas", Cell::Number("status.currentReplicas")) },
        AGE,
    ],
    rules: Some(Rules {
        defaults: complete_autoscaler,
        validate: autoscaler,
        ..rules::<HorizontalPodAutoscaler>()
    }),
    ..namespaced(Kind::HorizontalPodAutoscaler, "autoscaling/v2", "horizontalpodautoscalers")
};

fn complete_autoscaler(fields: &mut Fields) {
    fields.default("spec.minReplicas", 1);
    if fields.list("spec.metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        fields.set("spec.metrics", json!([cpu]));
    }
    if fields.at("spec.behavior").is_some_and(Value::is_object) {
        complete_behavior(fields);
    }
}

/// Where it is said how one direction goes, what is left out is filled in for both
/// (`pkg/apis/autoscaling/v2/defaults.go`); how long a scale-down waits is the controller's flag.
fn complete_behavior(fields: &mut Fields) {
    let policy =
        |kind: &str, value: i32| json!({"type": kind, "value": value, "periodSeconds": 15});
    let up = json!([policy("Pods", 4), policy("Percent", 100)]);
    fields.default("spec.behavior.scaleUp.stabilizationWindowSeconds", 0);
    fields.default("spec.behavior.scaleUp.selectPolicy", "Max");
    fields.default("spec.behavior.scaleUp.policies", up);
    fields.default("spec.behavior.scaleDown.selectPolicy", "Max");
    fields.default("spec.behavior.scaleDown.policies", json!([policy("Percent", 100)]));
}

fn autoscaler(fields: &Fields, causes: &mut Causes) {
    let (least, most) = (fields.number("spec.minReplicas"), fields.number("spec.maxReplicas"));
    let most = most.unwrap_or_default();
    if least.is_some_and(|least| least < 1) {
        let value = least.unwrap_or_default();
        causes.invalid("spec.minReplicas", value, "must be greater than or equal to 1");
    }
    if most < 1 {
        causes.invalid("spec.maxReplicas", most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        let why = "must be greater than or equal to `minReplicas`";
        causes.invalid("spec.maxReplicas", most, why);
    }
    for part in ["kind", "name"] {
        let path = format!("spec.scaleTargetRef.{part}");
        if fields.text(&path).is_empty() {
            causes.required(path, "");
        }
    }
}

fn reference(shown: &Shown<'_>) -> Value {
    let text = |part: &str| shown.fields.text(&format!("spec.scaleTargetRef.{part}"));
    format!("{}/{}", text("kind"), text("name")).into()
}

/// What is, and what is wanted (`formatHPAMetrics`).
fn targets(shown: &Shown<'_>) -> Value {
    let metrics = shown.fields.list("spec.metrics");
    let now = shown.fields.list("status.currentMetrics");
    let texts: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| one_target(metric, now.get(index).unwrap_or(&Value::Null)))
        .collect();
    let first = texts[..texts.len().min(2)].join(", ");
    match texts.len() {
        0 => "<none>".into(),
        1 | 2 => first.into(),
        count => format!("{first} + {} more...", count - 2).into(),
    }
}

fn one_target(metric: &Value, now: &Value) -> String {
    let (part, named) = match metric["type"].as_str().unwrap_or_default() {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, is) = (&metric[part]["target"], &now[part]["current"]);
    let text = |of: &Value, field: &str| of[field].as_str().map(str::to_owned);
    let unknown = || "<unknown>".to_owned();
    let name = match named {
        true => format!("{}: ", metric[part]["name"].as_str().unwrap_or_default()),
        false => String::new(),
    };
    if let Some(average) = text(wanted, "averageValue") {
        let is = text(is, "averageValue").unwrap_or_else(unknown);
        let note = if ["external", "object"].contains(&part) { " (avg)" } else { "" };
        return format!("{name}{is}/{average}{note}");
    }
    if named {
        let percent = |of: &Value| of["averageUtilization"].as_i64().map(|n| format!("{n}%"));
        let is = percent(is).unwrap_or_else(unknown);
        let wanted = percent(wanted).unwrap_or_else(|| "<auto>".to_owned());
        return format!("{name}{is}/{wanted}");
    }
    let is = text(is, "value").unwrap_or_else(unknown);
    format!("{is}/{}", text(wanted, "value").unwrap_or_default())
}
