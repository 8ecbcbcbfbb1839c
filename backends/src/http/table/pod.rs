//! A pod's row: one word for all that its containers do.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubesim_actors::objects::Object;
use kubesim_actors::objects::kinds::texts as cells;
use kubesim_runtime::Wall;
use serde_json::Value;

/// What the containers come to.
#[derive(Default)]
struct Sum {
    word: String,
    ready: i32,
    total: usize,
    restarts: i32,
    last_restart: Option<Time>,
}

pub fn cells(object: &Object, spec: &PodSpec, status: &PodStatus, now: Wall) -> Vec<Value> {
    let sum = summed(object, spec, status);
    let restarts = match sum.last_restart.as_ref().filter(|_| sum.restarts > 0) {
        Some(last) => format!("{} ({} ago)", sum.restarts, cells::since(Some(last), now)),
        None => sum.restarts.to_string(),
    };
    let ips = status.pod_ips.iter().flatten().next().map(|ip| ip.ip.clone());
    let ip = ips.or_else(|| status.pod_ip.clone()).unwrap_or_default();
    let text = |text: &Option<String>| cells::or_none(text.clone().unwrap_or_default());
    vec![
        object.key.name.as_str().into(),
        format!("{}/{}", sum.ready, sum.total).into(),
        sum.word.into(),
        restarts.into(),
        cells::since(object.meta.creation_timestamp.as_ref(), now).into(),
        cells::or_none(ip).into(),
        text(&spec.node_name).into(),
        text(&status.nominated_node_name).into(),
        readiness_gates(spec, status).into(),
    ]
}

fn readiness_gates(spec: &PodSpec, status: &PodStatus) -> String {
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    let open = gates.iter().filter(|gate| has(status, &gate.condition_type)).count();
    if gates.is_empty() { "<none>".to_owned() } else { format!("{open}/{}", gates.len()) }
}

/// Whether a condition is true.
fn has(status: &PodStatus, condition: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|known| known.type_ == condition && known.status == "True")
}

fn summed(object: &Object, spec: &PodSpec, status: &PodStatus) -> Sum {
    let phase = status.phase.clone().unwrap_or_default();
    let word = status.reason.clone().filter(|reason| !reason.is_empty()).unwrap_or(phase.clone());
    let mut sum = Sum { word, total: spec.containers.len(), ..Sum::default() };
    let gated = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated")
    });
    if gated {
        sum.word = "SchedulingGated".to_owned();
    }
    let initialising = init_containers(spec, status, &mut sum);
    if !initialising || has(status, "Initialized") {
        main_containers(spec, status, &mut sum);
    }
    let ended = ["Succeeded", "Failed"].contains(&phase.as_str());
    if object.deleting() {
        if status.reason.as_deref() == Some("NodeLost") {
            sum.word = "Unknown".to_owned();
        } else if !ended {
            sum.word = "Terminating".to_owned();
        }
    }
    sum
}

/// An init container that goes on beside the main ones (KEP-753).
fn goes_on(spec: &PodSpec, name: &str) -> bool {
    let mut init = spec.init_containers.iter().flatten();
    init.any(|one| one.name == name && one.restart_policy.as_deref() == Some("Always"))
}

fn count(status: &ContainerStatus, sum: &mut Sum) {
    sum.restarts += status.restart_count;
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let finished = last.and_then(|ended| ended.finished_at.clone());
    if finished.as_ref().map(|time| time.0) > sum.last_restart.as_ref().map(|time| time.0) {
        sum.last_restart = finished;
    }
}

fn waiting(status: &ContainerStatus) -> Option<&str> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    waiting.reason.as_deref().filter(|reason| !reason.is_empty())
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

/// Why a container ended, in a word.
fn why(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.clone().filter(|reason| !reason.is_empty());
    reason.unwrap_or_else(|| match ended.signal.filter(|signal| *signal != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{}", ended.exit_code),
    })
}

/// Whether one of them is not done yet; the word is about it then.
fn init_containers(spec: &PodSpec, status: &PodStatus, sum: &mut Sum) -> bool {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    sum.total += init.iter().filter(|one| goes_on(spec, &one.name)).count();
    for (index, one) in status.init_container_statuses.iter().flatten().enumerate() {
        count(one, sum);
        if terminated(one).is_some_and(|ended| ended.exit_code == 0) {
            continue;
        }
        if goes_on(spec, &one.name) && one.started == Some(true) {
            sum.ready += i32::from(one.ready);
            continue;
        }
        sum.word = match (terminated(one), waiting(one)) {
            (Some(ended), _) => format!("Init:{}", why(ended)),
            (None, Some(reason)) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{index}/{}", init.len()),
        };
        return true;
    }
    false
}

fn main_containers(spec: &PodSpec, status: &PodStatus, sum: &mut Sum) {
    // What init containers restarted counts no more, once they are done.
    (sum.restarts, sum.last_restart) = (0, None);
    for one in status.init_container_statuses.iter().flatten() {
        if goes_on(spec, &one.name) {
            count(one, sum);
        }
    }
    let mut runs = false;
    for one in status.container_statuses.iter().flatten().rev() {
        count(one, sum);
        let running = one.state.as_ref().is_some_and(|state| state.running.is_some());
        if let Some(reason) = waiting(one) {
            sum.word = reason.to_owned();
        } else if let Some(ended) = terminated(one) {
            sum.word = why(ended);
        } else if one.ready && running {
            runs = true;
            sum.ready += 1;
        }
    }
    if sum.word == "Completed" && runs {
        sum.word = if has(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}
