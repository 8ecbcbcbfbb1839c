//! What happens to the world, in words for whoever watches a run.

use crate::scenario::{
    ActorName, Disturbance, FaultKind, LinkTarget, Loss, ObjectRef, Place, SoftwareKind,
    UpstreamBehaviour, Which, WriteHow,
};
use kubesim_actors::objects::Name;
use std::fmt::Display;
use std::time::Duration;

/// A fault: `laptop moves to cafe, for 1.204 s`.
pub fn fault(kind: &FaultKind, lasts: Duration) -> String {
    let text = match kind {
        FaultKind::Move { node, network, .. } => format!("{node} moves to {network}"),
        FaultKind::LinkDown { target, .. } => format!("{} goes down", link(target)),
        FaultKind::LinkUp { target } => format!("{} comes up", link(target)),
        FaultKind::Partition { from, to, one_way, .. } => {
            let (from, to) = (list(from.iter().map(place)), list(to.iter().map(place)));
            let other = if *one_way { "" } else { ", nor the other way" };
            format!("nothing reaches {to} from {from}{other}")
        }
        FaultKind::Disturb { target, by, .. } => format!("{}: {}", link(target), disturbance(*by)),
        FaultKind::Kill { actor: name, nodes: on, loss, .. } => {
            format!("{} on {} dies{}", actor(*name), nodes(on), lost(*loss))
        }
        FaultKind::Stop { actor: name, nodes: on } => {
            format!("{} on {} is stopped", actor(*name), nodes(on))
        }
        FaultKind::Start { actor: name, nodes: on } => {
            format!("{} on {} is started", actor(*name), nodes(on))
        }
        FaultKind::PowerOff { nodes: on, .. } => format!("power lost: {}", nodes(on)),
        FaultKind::PowerOn { nodes: on } => format!("power back: {}", nodes(on)),
        FaultKind::NodeAdd { nodes: on } => format!("{} joins", nodes(on)),
        FaultKind::NodeDelete { nodes: on, power_off } => {
            let off = if *power_off { " and switched off" } else { "" };
            format!("{} is deleted{off}", nodes(on))
        }
        FaultKind::Apply { objects } => format!("{} objects applied", objects.len()),
        FaultKind::Patch { of, .. } => format!("{} patched", object(of)),
        FaultKind::Delete { of } => format!("{} deleted", object(of)),
        FaultKind::Scale { of, replicas } => format!("{} scaled to {replicas}", object(of)),
        FaultKind::WriteFile { nodes: on, path, how, .. } => {
            format!("{path} on {}: {}", nodes(on), write_how(*how))
        }
        FaultKind::Sysctl { nodes: on, key, value } => {
            format!("sysctl {key}={value} on {}", nodes(on))
        }
        FaultKind::Iptables { nodes: on, command } => {
            format!("iptables {command} on {}", nodes(on))
        }
        FaultKind::DhcpPushDns { network, dns } => {
            format!("DHCP of {network} hands out DNS {}", list(dns.iter()))
        }
        FaultKind::StartSoftware { nodes: on, software } => {
            format!("{} starts on {}", program(software.kind), nodes(on))
        }
        FaultKind::Upstream { upstream, behaviour: to } => {
            format!("upstream {upstream} {}", behaviour(*to))
        }
    };
    if lasts.is_zero() { text } else { format!("{text}, for {:.3} s", lasts.as_secs_f64()) }
}

/// A component, as scenario files call it.
pub fn actor(actor: ActorName) -> &'static str {
    match actor {
        ActorName::Apiserver => "apiserver",
        ActorName::Controllers => "controllers",
        ActorName::Scheduler => "scheduler",
        ActorName::Kubelet => "kubelet",
        ActorName::Netd => "netd",
        ActorName::Proxy => "proxy",
        ActorName::Dns => "dns",
    }
}

pub fn write_how(how: WriteHow) -> &'static str {
    match how {
        WriteHow::Rename => "a new file renamed over it",
        WriteHow::Symlink => "now a symlink to another file",
        WriteHow::InPlace => "written in place",
        WriteHow::Empty => "emptied",
    }
}

/// `a, b, c`
pub fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

fn nodes(nodes: &[Name]) -> String {
    match nodes {
        [] => "every node".to_owned(),
        [one] => one.to_string(),
        [one, two] => format!("{one} and {two}"),
        [first, .., last] => format!("{first} to {last} ({} nodes)", nodes.len()),
    }
}

pub fn link(target: &LinkTarget) -> String {
    match target {
        LinkTarget::Node(name) => format!("the cable of {name}"),
        LinkTarget::Link(name) => format!("link {name}"),
        LinkTarget::Network(name) => format!("network {name}"),
    }
}

fn place(place: &Place) -> String {
    match place {
        Place::Node(name) => name.to_string(),
        Place::Network(name) => format!("network {name}"),
        Place::Client(name) => format!("client {name}"),
        Place::Upstream(name) => format!("upstream {name}"),
    }
}

/// `5 ms more latency, 10 % lost`
fn disturbance(by: Disturbance) -> String {
    let mut parts = Vec::new();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    for (time, what) in [(by.latency, "latency"), (by.jitter, "jitter")] {
        if !time.is_zero() {
            parts.push(format!("{} ms more {what}", ms(time)));
        }
    }
    let shares = [(by.loss, "lost"), (by.duplicate, "duplicated"), (by.reorder, "reordered")];
    for (share, what) in shares {
        if share > 0.0 {
            parts.push(format!("{} % {what}", (share * 10_000.0).round() / 100.0));
        }
    }
    if parts.is_empty() { "nothing changes".to_owned() } else { parts.join(", ") }
}

fn lost(loss: Loss) -> &'static str {
    match loss {
        Loss::Process => "",
        Loss::Power => " with its machine's power",
        Loss::Disk => " with its machine's power and disk",
    }
}

/// `Deployment default/web`, `every Pod with app=web`
pub fn object(of: &ObjectRef) -> String {
    match &of.which {
        Which::Key(key) => format!("{} {key}", of.kind),
        Which::Labels(labels) => {
            let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
            format!("every {} with {}", of.kind, list(labels))
        }
    }
}

pub fn program(kind: SoftwareKind) -> String {
    match kind {
        SoftwareKind::Docker { major, minor } => format!("docker {major}.{minor}"),
        SoftwareKind::Ufw => "ufw".to_owned(),
        SoftwareKind::NetworkManager => "NetworkManager".to_owned(),
    }
}

fn behaviour(behaviour: UpstreamBehaviour) -> &'static str {
    match behaviour {
        UpstreamBehaviour::Answer => "answers",
        UpstreamBehaviour::Hang => "answers no more",
        UpstreamBehaviour::Refuse => "refuses every query",
        UpstreamBehaviour::ServFail => "fails every query (SERVFAIL)",
        UpstreamBehaviour::NxDomain => "denies every name (NXDOMAIN)",
    }
}
