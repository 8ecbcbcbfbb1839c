//! Faults that could do nothing in this cluster, whenever they strike.

use super::super::diagnostic::suggest;
use super::super::fields::Fields;
use super::super::model::{
    ActorName, Anchor, Cluster, Expect, Expectation, FaultKind, Loss, Node, ObjectRef, Which,
    Workload,
};
use super::super::tree::{At, Item};
use super::moves::{Placed, place};
use super::{ACTORS, Reader};
use crate::kernel::sysctl;
use k8s_openapi::api::core::v1::Toleration;
use kubesim_actors::kubelet;
use kubesim_actors::objects::{Body, Key, Kind, Name, Object};
use kubesim_actors::scheduler::tolerates;
use std::collections::BTreeSet;

/// What faults are to fit.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub nodes: &'a [Node],
    pub cluster: &'a Cluster,
    pub workloads: &'a [Workload],
}

impl Reader<'_> {
    pub fn faults_fit(&self, placed: &[Placed<'_>], given: Given<'_>) {
        for (fault, item) in placed {
            match &fault.kind {
                FaultKind::Kill { actor, nodes, .. }
                | FaultKind::Stop { actor, nodes }
                | FaultKind::Start { actor, nodes } => {
                    self.actor_fits(place(item, "actor"), *actor, nodes, given);
                }
                FaultKind::NodeAdd { nodes } => self.joins(item, nodes, placed, given),
                FaultKind::DhcpPushDns { network, .. } => self.pushes(item, network),
                FaultKind::Patch { of, .. }
                | FaultKind::Scale { of, .. }
                | FaultKind::Delete { of } => self.is_defined(item, of, placed, given),
                FaultKind::Sysctl { key, value, .. } => {
                    self.sysctl_key(place(item, "key"), key);
                    self.sysctl_value(place(item, "value"), key, *value);
                }
                _ => {}
            }
        }
    }

    /// Pods that are expected to run again have somewhere to do so.
    pub fn pods_fit(
        &self,
        top: Fields<'_>,
        expectations: &[Expectation],
        placed: &[Placed<'_>],
        given: Given<'_>,
    ) {
        for one in expectations {
            let by = match &one.expect {
                Expect::Rollout { by, .. } => by,
                Expect::Replicas { by, ready, .. } if *ready > 0 => by,
                _ => continue,
            };
            let Anchor::Fault { fault, .. } = &by.after else { continue };
            let pods = templates(&one.expect, placed, given);
            let lost = |pod: &Tolerations<'_>| takes_all(fault, pod, placed, given);
            let Some(lost) = pods.iter().find_map(lost) else { continue };
            let named = |item: &&Item| {
                item.table().and_then(|table| table.get("name")?.text()) == Some(&one.name)
            };
            let item = top.tables("expect").iter().find(named);
            let message = format!("after `{fault}` no machine is left that takes pods");
            let help = format!(
                "it powers off all {lost} of them for good: let it last (`lasts`), or name fewer \
                 (a [[node]] has its `count` in racks of `rack-size`)"
            );
            self.log.error(item.map_or(top.at, |item| place(item, "after")), message, help);
        }
    }

    /// One of these machines runs the actor at all.
    fn actor_fits(&self, at: At, actor: ActorName, nodes: &[Name], given: Given<'_>) {
        let word = ACTORS.iter().find(|(_, known)| *known == actor).map_or("", |(word, _)| word);
        let absent = match actor {
            ActorName::Proxy if !given.cluster.proxy => Some("`cluster.proxy` is false"),
            ActorName::Dns if !given.cluster.dns => Some("`cluster.dns` is false"),
            _ => None,
        };
        if let Some(why) = absent {
            return self.log.error(at, format!("no machine runs `{word}`: {why}"), "");
        }
        let of_server =
            matches!(actor, ActorName::Apiserver | ActorName::Controllers | ActorName::Scheduler);
        let Some(server) = given.nodes.iter().find(|node| node.server) else { return };
        if of_server && !nodes.is_empty() && !nodes.contains(&server.name) {
            let on = nodes.join(", ");
            let message = format!("`{word}` does not run on {on}");
            self.log.error(at, message, format!("it runs on the server, `{}`", server.name));
        }
    }

    /// Who joins is not there from the start, or was lost.
    fn joins(&self, item: &Item, nodes: &[Name], placed: &[Placed<'_>], given: Given<'_>) {
        let lost: BTreeSet<&Name> =
            placed.iter().flat_map(|(fault, _)| loses(&fault.kind)).collect();
        let there =
            |node: &&Node| nodes.contains(&node.name) && !node.off && !lost.contains(&node.name);
        if let Some(node) = given.nodes.iter().find(there) {
            let message = format!("`{}` is there from the start and cannot join", node.name);
            self.log.error(place(item, "nodes"), message, "give its [[node]] off = true");
        }
    }

    fn pushes(&self, item: &Item, network: &Name) {
        let lan = self.networks.iter().find(|lan| lan.name == *network);
        if lan.is_some_and(|lan| lan.dhcp.is_none()) {
            let message = format!("the network `{network}` has no DHCP server");
            self.log.error(place(item, "network"), message, "give it a dhcp table");
        }
    }

    /// Objects that only a manifest (or, of a Node, a machine) can bring about. Others come and go:
    /// whether they are there shows when the fault strikes.
    fn is_defined(&self, item: &Item, of: &ObjectRef, placed: &[Placed<'_>], given: Given<'_>) {
        let Which::Key(key) = &of.which else { return };
        let by_hand = [Kind::Deployment, Kind::Service, Kind::ConfigMap, Kind::Node];
        // Manifests with mistakes define what nobody can tell.
        let unsure = ["fault", "workload", "node"].iter().any(|w| self.names.unsure.contains(w));
        if unsure || !by_hand.contains(&of.kind) {
            return;
        }
        let applied = placed.iter().flat_map(|(fault, _)| match &fault.kind {
            FaultKind::Apply { objects } => objects.as_slice(),
            _ => &[],
        });
        let manifests = given.workloads.iter().flat_map(|workload| &workload.objects);
        let objects = manifests.chain(applied).map(|manifest| &*manifest.object);
        let objects: Vec<&Object> = objects.filter(|object| object.kind() == of.kind).collect();
        let nodes = given.nodes.iter().map(|node| Key::cluster(node.name.clone()));
        let own = match of.kind {
            Kind::Node => nodes.collect(),
            Kind::Service => vec![Key::new("default", "kubernetes")],
            _ => Vec::new(),
        };
        let known: Vec<Key> = objects.iter().map(|object| object.key.clone()).chain(own).collect();
        // A name that the API makes up is not known here.
        if known.contains(key) || known.iter().any(|key| key.name.is_empty()) {
            return;
        }
        let message = format!("nothing in the file makes a {} {key}", of.kind);
        let names: Vec<String> = known.iter().map(Key::to_string).collect();
        let help = suggest(&key.to_string(), names.iter().map(String::as_str));
        self.log.error(place(item, "object"), message, help);
    }

    /// A sysctl that the modelled kernel acts on or remembers.
    pub fn sysctl_key(&self, at: At, key: &str) {
        if !key.is_empty() && !sysctl::is_known(key) {
            let like = sysctl::like(key);
            self.log.unknown(at, "sysctl", key, like.iter().map(String::as_str));
        }
    }

    pub fn sysctl_value(&self, at: At, key: &str, value: i64) {
        if sysctl::is_known(key)
            && let Err(takes) = sysctl::takes(key, value)
        {
            self.log.error(at, format!("the sysctl {key} cannot be {value}"), takes);
        }
    }
}

type Tolerations<'a> = &'a [Toleration];

/// What the pods of each Deployment that is expected to run tolerate; of one that the file does
/// not show, nothing.
fn templates<'a>(
    expect: &Expect,
    placed: &'a [Placed<'_>],
    given: Given<'a>,
) -> Vec<Tolerations<'a>> {
    let applied = placed.iter().flat_map(|(fault, _)| match &fault.kind {
        FaultKind::Apply { objects } => objects.as_slice(),
        _ => &[],
    });
    let manifests = given.workloads.iter().flat_map(|workload| &workload.objects);
    let meant = |object: &&Object| match expect {
        Expect::Replicas { deployment, .. } => object.key == *deployment,
        Expect::Rollout { labels, .. } => {
            labels.iter().all(|(key, value)| object.label(key) == Some(value.as_str()))
        }
        _ => false,
    };
    let objects = manifests.chain(applied).map(|manifest| &*manifest.object).filter(meant);
    let mut found: Vec<Tolerations<'_>> = objects.filter_map(tolerations).collect();
    if found.is_empty() {
        found.push(&[]);
    }
    found
}

/// Of a Deployment's pods.
fn tolerations(object: &Object) -> Option<Tolerations<'_>> {
    let Body::Deployment { spec, .. } = &object.body else { return None };
    let pod = spec.template.spec.as_ref()?;
    Some(pod.tolerations.as_deref().unwrap_or_default())
}

/// How many machines take such pods, if the fault powers all of them off for good.
fn takes_all(
    fault: &Name,
    pod: Tolerations<'_>,
    placed: &[Placed<'_>],
    given: Given<'_>,
) -> Option<usize> {
    let kind = &placed.iter().find(|(other, _)| other.name == *fault)?.0.kind;
    let FaultKind::PowerOff { nodes, lasts: None } = kind else { return None };
    let gone: BTreeSet<&Name> = nodes.iter().collect();
    let returns = |(other, _): &Placed<'_>| match &other.kind {
        FaultKind::PowerOn { nodes } | FaultKind::NodeAdd { nodes } => !nodes.is_empty(),
        _ => false,
    };
    let keeps_out = |taint: &String| {
        kubelet::taint(taint).is_some_and(|taint| {
            let hard = ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str());
            hard && !pod.iter().any(|toleration| tolerates(toleration, &taint))
        })
    };
    let mut takers = given.nodes.iter().filter(|node| !node.taints.iter().any(keeps_out));
    let count = takers.clone().count();
    let all = count > 0 && takers.all(|node| gone.contains(&node.name));
    (all && !placed.iter().any(returns)).then_some(count)
}

/// Machines that a fault takes away.
fn loses(kind: &FaultKind) -> &[Name] {
    match kind {
        FaultKind::PowerOff { nodes, .. } | FaultKind::NodeDelete { nodes, .. } => nodes,
        FaultKind::Kill { nodes, loss: Loss::Power | Loss::Disk, .. } => nodes,
        _ => &[],
    }
}
