//! What was seen of nodes and pods during a run.

use super::network;
use crate::oracles;
use crate::scenario::{Expect, Expectation};
use crate::world::World;
use kubesim_actors::objects::{Kind, Name, Object, Uid};
use kubesim_runtime::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What nodes and pods were, as far as an expectation asks for it later.
#[derive(Debug, Default)]
pub struct History {
    /// Every pod subnet a node announced in its subnet.env, in order.
    pub subnets: BTreeMap<Name, Vec<(Time, String)>>,
    /// Who held a node's former subnet in the API when the node announced another.
    pub ghosts: BTreeMap<Name, String>,
    /// Every address its bridge had.
    pub bridges: BTreeMap<Name, Vec<(Time, String)>>,
    /// Pods that were seen Running, as they were then.
    pub pods: BTreeMap<Uid, Arc<Object>>,
    /// Pod subnets of Node objects, by node, as last seen.
    pub cidrs: BTreeMap<Name, String>,
}

impl History {
    pub fn remember(&mut self, world: &World, expectations: &[Expectation]) {
        let mut watched = BTreeSet::new();
        let mut pods = false;
        for expectation in expectations {
            match &expectation.expect {
                Expect::SubnetKept { nodes } | Expect::BridgeKept { nodes } => {
                    watched.extend(nodes.iter().cloned());
                }
                Expect::Restarts { .. } => pods = true,
                Expect::SubnetReassigned { .. } => self.remember_cidrs(world),
                _ => {}
            }
        }
        for node in watched {
            self.remember_node(world, node);
        }
        if pods {
            self.remember_pods(world);
        }
    }

    fn remember_node(&mut self, world: &World, node: Name) {
        let Some(index) = world.machine_named(&node) else { return };
        let machine = &world.machines[index as usize];
        let Some(bridge) = network::bridge_of(world, &node) else { return };
        if let Some(subnet) = network::announced_subnet(machine) {
            let seen = self.subnets.entry(node.clone()).or_default();
            let changed = seen.last().filter(|(_, known)| *known != subnet);
            if let Some(ghost) =
                changed.and_then(|(_, known)| oracles::ghost_lease(world, &node, known))
            {
                self.ghosts.entry(node.clone()).or_insert(ghost);
            }
            note(seen, world.now, subnet);
        }
        let state = machine.kernel.state();
        let address =
            state.links.iter().find(|link| link.name == bridge).and_then(|l| l.addresses.first());
        if let Some(address) = address {
            note(self.bridges.entry(node).or_default(), world.now, address.to_string());
        }
    }

    fn remember_pods(&mut self, world: &World) {
        for pod in world.objects(Kind::Pod) {
            let running =
                pod.pod().is_some_and(|(_, status)| status.phase.as_deref() == Some("Running"));
            if running && !self.pods.contains_key(&pod.uid) {
                self.pods.insert(pod.uid, Arc::clone(pod));
            }
        }
    }

    fn remember_cidrs(&mut self, world: &World) {
        for node in world.objects(Kind::Node) {
            if let Some(cidr) = node.node().and_then(|(spec, _)| spec.pod_cidr.clone()) {
                self.cidrs.insert(node.key.name.clone(), cidr);
            }
        }
    }
}

fn note(seen: &mut Vec<(Time, String)>, now: Time, value: String) {
    if seen.last().is_none_or(|(_, last)| *last != value) {
        seen.push((now, value));
    }
}
