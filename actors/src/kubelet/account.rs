//! What the kubelet says of itself when a person asks.

use super::Kubelet;
use super::container_state::{Ctr, State};
use super::local::Local;
use super::pod::{Pod, Sandbox};
use kubesim_runtime::Account;
use std::fmt::Display;

pub fn of(kubelet: &Kubelet) -> Account {
    let k = &kubelet.local;
    let mut account = Account::default();
    let Account { sees, wants } = &mut account;
    let name = &k.config.node;
    match k.address {
        Some(address) => sees.push(format!("this machine is the node {name}, at {address}")),
        None => wants.push(format!("an address on {} for the node {name}", k.config.interface)),
    }
    match k.node_uid {
        Some(uid) => sees.push(format!("the API has the node, as {uid}")),
        None => wants.push("the API to show or take the node".to_owned()),
    }
    match (&k.down, k.listed) {
        (Some(why), _) => wants.push(format!("the container runtime back: {why}")),
        (None, true) => sees.push("the container runtime answers".to_owned()),
        (None, false) => wants.push("the container runtime to say what runs".to_owned()),
    }
    match k.subnet {
        Some(subnet) => sees.push(format!("pods have addresses of {}", subnet.gateway.trunc())),
        None => wants.push(format!("a subnet for pods, in {}", k.config.subnet_env)),
    }
    for pod in kubelet.pods.values() {
        sees.push(seen(pod));
        wants.extend(wanted(pod, k).map(|what| format!("pod {}: {what}", pod.object.key)));
    }
    account
}

fn seen(pod: &Pod) -> String {
    let key = &pod.object.key;
    let sandbox = match (pod.sandbox, pod.ip) {
        (Sandbox::None, _) => "no sandbox".to_owned(),
        (Sandbox::Creating, _) => "its sandbox is being made".to_owned(),
        (Sandbox::Up, None) => "on the node's network".to_owned(),
        (Sandbox::Up, Some(ip)) => format!("at {ip}"),
        (Sandbox::Removing, _) => "its sandbox is being removed".to_owned(),
    };
    let containers = pod.containers.iter().map(|ctr| format!("{} {}", ctr.name, state(ctr)));
    let containers = containers.collect::<Vec<_>>().join(", ");
    format!("pod {key}: {sandbox}; {containers}")
}

fn state(ctr: &Ctr) -> String {
    match &ctr.state {
        State::Waiting { reason: "", .. } => "waits".to_owned(),
        State::Waiting { reason, .. } => format!("waits ({reason})"),
        State::Starting => "is being started".to_owned(),
        State::Running { .. } if let Some(hook) = &ctr.hook => {
            format!("runs its {} hook", hook.moment)
        }
        State::Running { .. } if ctr.stopping => "is being stopped".to_owned(),
        State::Running { .. } => "runs".to_owned(),
        State::Exited { how, .. } => format!("ended with {}", how.exit_code),
    }
}

/// What of a pod is not as it should be, and why.
fn wanted(pod: &Pod, k: &Local) -> impl Iterator<Item = String> {
    let mut wants = Vec::new();
    let because = |what: &str, why: &dyn Display| format!("{what}: {why}");
    if let Some(rejection) = &pod.rejected {
        wants.push(because("it was refused", &rejection.message));
    } else if pod.ending() {
        if !pod.is_gone() {
            wants.push("it is to end".to_owned());
        }
    } else {
        match pod.sandbox {
            Sandbox::None if pod.supplies.is_some() => {
                wants.push("a sandbox, once its volumes are there".to_owned());
            }
            Sandbox::None => wants.push("a sandbox".to_owned()),
            Sandbox::Up if pod.waits_for_ports(k) => {
                wants.push("its host ports to lead to it".to_owned());
            }
            _ => {}
        }
        for ctr in &pod.containers {
            if let State::Waiting { reason, message, .. } = &ctr.state
                && !reason.is_empty()
            {
                wants.push(because(&format!("container {} to start", ctr.name), message));
            }
        }
    }
    if pod.report.status_in_flight {
        wants.push("the API to take its status".to_owned());
    }
    wants.into_iter()
}
