//! The nodes, what is placed on each, and a log of which one changed last.

use super::resources::{Load, Resources};
use crate::objects::{Name, Object};
use kubesim_runtime::Lookup;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Node {
    /// `None` once the Node object is gone; pods may still be counted here.
    pub object: Option<Arc<Object>>,
    pub name: Name,
    pub allocatable: Resources,
    pub max_pods: i64,
    pub used: Resources,
    pub assumed: (i64, i64),
    pub pods: i64,
    pub ports: Vec<(String, String, i32)>,
}

/// Nodes by a dense number that a name keeps for good, and the log from which every class of pods
/// catches up with what changed.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    pub all: Vec<Node>,
    numbers: Lookup<Name, u32>,
    log: Vec<u32>,
    /// The position of the log's first entry.
    base: u64,
    /// Counts changes of labels and of the set of nodes.
    pub topology: u64,
    pub live: usize,
}

impl Node {
    fn new(name: &Name) -> Self {
        Node {
            object: None,
            name: name.clone(),
            allocatable: Resources::default(),
            max_pods: 0,
            used: Resources::default(),
            assumed: (0, 0),
            pods: 0,
            ports: Vec::new(),
        }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.object.as_ref()?.label(key)
    }
}

impl Nodes {
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).expect("fewer than 2^32 nodes");
        let name = Name::from(name);
        self.all.push(Node::new(&name));
        self.numbers.insert(name, number);
        number
    }

    /// Takes note of a Node as it is now.
    pub fn set(&mut self, name: &str, object: Option<&Arc<Object>>) {
        let number = self.number(name);
        let node = &mut self.all[number as usize];
        let labels = |object: Option<&Arc<Object>>| object.map(|o| o.meta.labels.clone());
        if labels(node.object.as_ref()) != labels(object) {
            self.topology += 1;
        }
        self.live += usize::from(object.is_some());
        self.live -= usize::from(node.object.is_some());
        node.object = object.cloned();
        if let Some((_, status)) = object.and_then(|object| object.node()) {
            node.allocatable = Resources::of(status.allocatable.as_ref());
            let pods = status.allocatable.as_ref().and_then(|all| all.get("pods"));
            let pods = pods.and_then(|pods| crate::objects::quantity::thousandths(&pods.0));
            node.max_pods = pods.map_or(0, |pods| pods / 1000);
        }
        self.changed(number);
    }

    /// Adds (`sign` 1) or takes away (-1) a pod's load.
    pub fn load(&mut self, number: u32, load: &Load, sign: i64) {
        let node = &mut self.all[number as usize];
        node.used.add(&load.requests, sign);
        node.assumed.0 += sign * load.assumed.0;
        node.assumed.1 += sign * load.assumed.1;
        node.pods += sign;
        for port in &load.ports {
            if sign > 0 {
                node.ports.push(port.clone());
            } else if let Some(at) = node.ports.iter().position(|taken| taken == port) {
                node.ports.swap_remove(at);
            }
        }
        self.changed(number);
    }

    fn changed(&mut self, number: u32) {
        if self.log.len() > 4 * self.all.len() + 1024 {
            let half = self.log.len() / 2;
            self.log.drain(..half);
            self.base += half as u64;
        }
        self.log.push(number);
    }

    pub fn end(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    /// The nodes that changed since that position; `None` if the log no longer reaches back, or
    /// looking at all nodes is cheaper.
    pub fn since(&self, position: u64) -> Option<&[u32]> {
        let from = usize::try_from(position.checked_sub(self.base)?).ok()?;
        self.log.get(from..).filter(|changes| changes.len() <= self.all.len())
    }
}
