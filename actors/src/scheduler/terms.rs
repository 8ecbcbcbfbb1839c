//! Rules about other pods: required pod affinity and anti-affinity, and hard topology spread
//! (upstream plugins interpodaffinity and podtopologyspread).
//!
//! Each distinct term keeps, per domain of its topology key, how many placed pods match it and how
//! many placed pods demand it as anti-affinity. A placement changes the terms' counts; nothing is
//! counted anew for a pod. Clusters without such rules have no terms and pay nothing.

use super::filter::Rules;
use super::nodes::{Node, Nodes};
use super::placed::Placed;
use crate::controllers::labels_match;
use crate::objects::{LabelSelector, Object};
use k8s_openapi::api::core::v1::PodAffinityTerm;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
struct Term {
    /// Empty: all.
    namespaces: Vec<String>,
    /// `None` matches nothing.
    selector: Option<LabelSelector>,
    topology_key: String,
    matching: BTreeMap<String, u32>,
    demanding: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Default)]
pub struct Terms {
    by_key: BTreeMap<String, usize>,
    all: Vec<Term>,
    /// The state of the nodes' labels that the counts are of.
    topology: u64,
    domains: BTreeMap<String, (u64, BTreeSet<String>)>,
}

/// The terms of one pod to be placed, looked up once.
pub struct Demand<'a> {
    pod: &'a Object,
    rules: &'a Rules,
    affinity: Vec<usize>,
    anti_affinity: Vec<usize>,
    /// Term, greatest skew, fewest matching pods of any domain.
    spread: Vec<(usize, i32, u32)>,
    /// Terms that placed pods demand and this pod matches.
    unwelcome: Vec<usize>,
}

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const SPREAD: &str = "node(s) didn't match pod topology spread constraints";

impl Term {
    fn matches(&self, pod: &Object) -> bool {
        let here = self.namespaces.is_empty()
            || self.namespaces.iter().any(|namespace| *namespace == pod.key.namespace.as_str());
        let selector = self.selector.as_ref();
        here && selector.is_some_and(|selector| labels_match(selector, pod))
    }
}

fn bump(counts: &mut BTreeMap<String, u32>, domain: &str, up: bool) {
    let count = counts.entry(domain.to_owned()).or_default();
    *count = if up { *count + 1 } else { count.saturating_sub(1) };
    if *count == 0 {
        counts.remove(domain);
    }
}

impl Terms {
    /// There are no rules about other pods.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of an affinity term; a new one is counted over all placed pods.
    fn of_affinity(
        &mut self,
        term: &PodAffinityTerm,
        namespace: &str,
        placed: &Placed,
        nodes: &Nodes,
    ) -> usize {
        let everywhere = term.namespace_selector.as_ref().is_some_and(|selector| {
            selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
                && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
        });
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if everywhere {
            namespaces.clear();
        } else if namespaces.is_empty() {
            namespaces.push(namespace.to_owned());
        }
        self.intern(namespaces, term.label_selector.as_ref(), &term.topology_key, placed, nodes)
    }

    fn intern(
        &mut self,
        namespaces: Vec<String>,
        selector: Option<&LabelSelector>,
        topology_key: &str,
        placed: &Placed,
        nodes: &Nodes,
    ) -> usize {
        let key = serde_json::to_string(&(&namespaces, selector, topology_key)).unwrap_or_default();
        if let Some(number) = self.by_key.get(&key) {
            return *number;
        }
        let mut term = Term {
            namespaces,
            selector: selector.cloned(),
            topology_key: topology_key.to_owned(),
            matching: BTreeMap::new(),
            demanding: BTreeMap::new(),
        };
        for (pod, node) in placed.pods() {
            let domain = nodes.all[node as usize].label(topology_key);
            if let Some(domain) = domain.filter(|_| term.matches(pod)) {
                bump(&mut term.matching, domain, true);
            }
        }
        self.all.push(term);
        self.by_key.insert(key, self.all.len() - 1);
        self.all.len() - 1
    }

    /// A pod came to a node, or left it.
    pub fn place(&mut self, pod: &Object, node: u32, up: bool, placed: &Placed, nodes: &Nodes) {
        let own =
            pod.pod().and_then(|(spec, _)| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
        let own = own
            .and_then(|apart| apart.required_during_scheduling_ignored_during_execution.as_ref());
        if self.all.is_empty() && own.is_none() {
            return;
        }
        let demands: Vec<usize> = own
            .into_iter()
            .flatten()
            .map(|term| self.of_affinity(term, &pod.key.namespace, placed, nodes))
            .collect();
        let node = &nodes.all[node as usize];
        for (number, term) in self.all.iter_mut().enumerate() {
            let Some(domain) = node.label(&term.topology_key) else { continue };
            if term.matches(pod) {
                bump(&mut term.matching, domain, up);
            }
            if demands.contains(&number) {
                bump(&mut term.demanding, domain, up);
            }
        }
    }

    /// Labels of nodes changed: every count may be of another domain now.
    pub fn recount(&mut self, placed: &Placed, nodes: &Nodes) {
        if self.all.is_empty() || self.topology == nodes.topology {
            return;
        }
        self.topology = nodes.topology;
        for term in &mut self.all {
            term.matching.clear();
            term.demanding.clear();
        }
        for (pod, node) in placed.pods() {
            self.place(pod, node, true, &Placed::default(), nodes);
        }
    }

    /// What there is to heed for this pod; `None` for nothing.
    pub fn demand<'a>(
        &mut self,
        pod: &'a Object,
        rules: &'a Rules,
        placed: &Placed,
        nodes: &Nodes,
    ) -> Option<Demand<'a>> {
        let plain =
            rules.affinity.is_empty() && rules.anti_affinity.is_empty() && rules.spread.is_empty();
        if plain && self.all.is_empty() {
            return None;
        }
        let namespace = &rules.namespace;
        let mut number = |term| self.of_affinity(term, namespace, placed, nodes);
        let affinity = rules.affinity.iter().map(&mut number).collect();
        let anti_affinity = rules.anti_affinity.iter().map(&mut number).collect();
        let mut spread = Vec::new();
        for constraint in &rules.spread {
            let (key, selector) = (&constraint.topology_key, constraint.label_selector.as_ref());
            let number = self.intern(vec![namespace.clone()], selector, key, placed, nodes);
            let fewest = self.fewest(number, rules, nodes);
            spread.push((number, constraint.max_skew, fewest));
        }
        let unwelcome = |term: &(usize, &Term)| !term.1.demanding.is_empty() && term.1.matches(pod);
        let unwelcome = self.all.iter().enumerate().filter(unwelcome).map(|(n, _)| n).collect();
        Some(Demand { pod, rules, affinity, anti_affinity, spread, unwelcome })
    }

    /// The fewest matching pods of any domain that the pod's own node rules allow.
    fn fewest(&mut self, number: usize, rules: &Rules, nodes: &Nodes) -> u32 {
        let term = &self.all[number];
        let key = format!("{} {rules:?}", term.topology_key);
        let known = self.domains.entry(key).or_insert((u64::MAX, BTreeSet::new()));
        if known.0 != nodes.topology {
            let allowed = nodes
                .all
                .iter()
                .filter(|node| node.object.as_ref().is_some_and(|object| rules.selects(object)));
            let domains = allowed.filter_map(|node| node.label(&term.topology_key));
            *known = (nodes.topology, domains.map(str::to_owned).collect());
        }
        let count = |domain: &String| term.matching.get(domain).copied().unwrap_or(0);
        known.1.iter().map(count).min().unwrap_or(0)
    }

    /// Why the pod may not go to this node; `None` if it may.
    pub fn refusal(&self, demand: &Demand<'_>, node: &Node) -> Option<&'static str> {
        let count = |number: usize| {
            let term = &self.all[number];
            let domain = node.label(&term.topology_key)?;
            Some(term.matching.get(domain).copied().unwrap_or(0))
        };
        let skewed = |(number, max, fewest): &(usize, i32, u32)| {
            let own = u32::from(self.all[*number].matches(demand.pod));
            count(*number).is_none_or(|n| i64::from(n + own) - i64::from(*fewest) > i64::from(*max))
        };
        if demand.spread.iter().any(skewed) {
            return Some(SPREAD);
        }
        let demanded = |number: &usize| {
            let term = &self.all[*number];
            node.label(&term.topology_key).is_some_and(|d| term.demanding.contains_key(d))
        };
        if !demand.affinity.iter().all(|number| count(*number).is_some_and(|n| n > 0))
            && !self.is_first_of_its_kind(demand, node)
        {
            return Some(AFFINITY);
        }
        if demand.anti_affinity.iter().any(|number| count(*number).is_some_and(|n| n > 0)) {
            return Some(ANTI_AFFINITY);
        }
        demand.unwelcome.iter().any(demanded).then_some(EXISTING)
    }

    /// A pod that wants to be near its own kind may go anywhere while there is none of it.
    fn is_first_of_its_kind(&self, demand: &Demand<'_>, node: &Node) -> bool {
        debug_assert_eq!(demand.affinity.len(), demand.rules.affinity.len());
        demand.affinity.iter().all(|number| {
            let term = &self.all[*number];
            term.matching.is_empty()
                && term.matches(demand.pod)
                && node.label(&term.topology_key).is_some()
        })
    }
}
