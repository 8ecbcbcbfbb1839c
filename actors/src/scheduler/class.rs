//! A class of pods: all that ask for the same. What fits and how well is kept per class, in a
//! structure sorted by score; a commitment changes one node of it.

use super::filter::{self, Rules};
use super::nodes::Nodes;
use super::resources::Load;
use crate::objects::{Object, PodSpec};
use kubesim_runtime::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Class {
    pub rules: Rules,
    pub load: Arc<Load>,
    /// Up to where the nodes' log is worked in.
    position: u64,
    entries: Vec<Entry>,
    /// Score, dice (upstream, too, draws lots among the best), number of the node; the last is
    /// best.
    ranked: BTreeSet<(i64, u32, u32)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    /// There is no such Node.
    Gone,
    Fits {
        score: i64,
        dice: u32,
    },
    Refused(Arc<[String]>),
}

/// What makes two pods alike for the scheduler; pods with rules about other pods are alike only
/// within a namespace.
pub fn key_of(pod: &Object, spec: &PodSpec) -> String {
    let load = Load::of(spec);
    let affinity = spec.affinity.as_ref();
    let about_pods = affinity
        .is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some())
        || spec.topology_spread_constraints.is_some();
    let namespace = if about_pods { pod.key.namespace.as_str() } else { "" };
    let rules = (&spec.node_selector, affinity, &spec.tolerations);
    let rules = serde_json::to_string(&(rules, &spec.topology_spread_constraints, namespace));
    format!("{load:?} {}", rules.unwrap_or_default())
}

impl Class {
    pub fn new(pod: &Object, spec: &PodSpec) -> Self {
        Class {
            rules: Rules::of(pod, spec),
            load: Arc::new(Load::of(spec)),
            position: 0,
            entries: Vec::new(),
            ranked: BTreeSet::new(),
        }
    }

    /// Works in what changed since last time. O(changes * log nodes).
    pub fn catch_up(&mut self, nodes: &Nodes, rng: &mut Rng) {
        let end = nodes.end();
        if self.position == end {
            return;
        }
        let known = self.entries.len();
        self.entries.resize(nodes.all.len(), Entry::Gone);
        match nodes.since(self.position).filter(|_| known > 0) {
            Some(changes) => {
                for (at, number) in changes.iter().enumerate() {
                    // The last of several changes in a row says it all.
                    if changes.get(at + 1) != Some(number) {
                        self.judge(*number, nodes, rng);
                    }
                }
            }
            None => {
                for number in 0..nodes.all.len() as u32 {
                    self.judge(number, nodes, rng);
                }
            }
        }
        self.position = end;
    }

    fn judge(&mut self, number: u32, nodes: &Nodes, rng: &mut Rng) {
        let node = &nodes.all[number as usize];
        let entry = match &node.object {
            None => Entry::Gone,
            Some(object) => match filter::refusals(&self.rules, &self.load, node, object) {
                None => {
                    let score = filter::score(&self.rules, &self.load, node, object);
                    Entry::Fits { score, dice: rng.u64() as u32 }
                }
                Some(reasons) => Entry::Refused(reasons),
            },
        };
        let slot = &mut self.entries[number as usize];
        if let Entry::Fits { score, dice } = *slot {
            self.ranked.remove(&(score, dice, number));
        }
        if let Entry::Fits { score, dice } = entry {
            self.ranked.insert((score, dice, number));
        }
        *slot = entry;
    }

    /// The nodes that fit, best first.
    pub fn best(&self) -> impl Iterator<Item = u32> {
        self.ranked.iter().rev().map(|(_, _, number)| *number)
    }

    pub fn fits_somewhere(&self) -> bool {
        !self.ranked.is_empty()
    }

    /// Why each node was refused, counted.
    pub fn reasons(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            if let Entry::Refused(reasons) = entry {
                for reason in reasons.iter() {
                    *counts.entry(reason.clone()).or_default() += 1;
                }
            }
        }
        counts
    }
}
