//! What a pod asks for as a whole (component-helpers `resource/helpers.go`, `PodRequests` and
//! `PodLimits`).

use super::PodSpec;
use super::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// Amounts by the names of what they are of.
pub type Amounts = BTreeMap<String, Quantity>;

pub fn requests(spec: &PodSpec) -> Amounts {
    let mut sum = total(spec, |resources| resources.requests.as_ref());
    add(&mut sum, &amounts(spec.overhead.as_ref()));
    sum
}

/// Overhead is part of a limit that there is, and makes none.
pub fn limits(spec: &PodSpec) -> Amounts {
    let mut sum = total(spec, |resources| resources.limits.as_ref());
    for (name, more) in amounts(spec.overhead.as_ref()) {
        if let Some(amount) = sum.get_mut(&name) {
            *amount = amount.plus(more);
        }
    }
    sum
}

type Part = for<'a> fn(&'a ResourceRequirements) -> Option<&'a BTreeMap<String, Text>>;

/// Of the containers together with the init containers that go on beside them, or of an init
/// container and those that were started before it, whichever is more.
pub fn total(spec: &PodSpec, part: Part) -> Amounts {
    let of = |container: &Container| amounts(container.resources.as_ref().and_then(part));
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &of(container));
    }
    let (mut beside, mut before) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut here = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut beside, &here);
            add(&mut sum, &here);
            here = beside.clone();
        } else {
            add(&mut here, &beside);
        }
        most(&mut before, &here);
    }
    most(&mut sum, &before);
    sum
}

/// What is no quantity counts for nothing: validation refuses it.
pub fn amounts(texts: Option<&BTreeMap<String, Text>>) -> Amounts {
    let texts = texts.into_iter().flatten();
    texts.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0)?))).collect()
}

pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = sum.plus(*amount);
    }
}

fn most(of: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let most = of.entry(name.clone()).or_insert(*amount);
        *most = most.max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(cpu: &str, restarts: Value) -> Value {
        json!({"name": "c", "restartPolicy": restarts,
               "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn cpu(amounts: &Amounts) -> String {
        amounts.get("cpu").map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn a_pod_asks_for_what_it_needs_at_its_busiest() {
        let (task, sidecar) = (Value::Null, json!("Always"));
        let cases = [
            (vec![], vec!["100m", "200m"], "300m"),
            (vec![container("1", task.clone())], vec!["100m", "200m"], "1"),
            (vec![container("50m", sidecar.clone())], vec!["100m"], "150m"),
            // The task runs beside the sidecar that was started before it.
            (
                vec![container("50m", sidecar.clone()), container("1", task.clone())],
                vec!["100m"],
                "1050m",
            ),
            (vec![container("1", task), container("50m", sidecar)], vec!["100m"], "1"),
        ];
        for (init, main, expected) in cases {
            let main: Vec<_> = main.into_iter().map(|cpu| container(cpu, Value::Null)).collect();
            let spec = json!({"initContainers": init, "containers": main});
            let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
            assert_eq!(cpu(&requests(&spec)), expected);
            assert_eq!(cpu(&limits(&spec)), expected);
        }
    }

    #[test]
    fn overhead_is_requested_and_makes_no_limit() {
        let spec = json!({"overhead": {"cpu": "250m"}, "containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m"}}}]});
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        assert_eq!((cpu(&requests(&spec)), cpu(&limits(&spec))), ("350m".into(), String::new()));
    }
}
