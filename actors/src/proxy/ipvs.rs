//! Services as virtual services of IPVS (see [`crate::ports::rules::virtuals`]): what ipvs mode
//! compiles to, after pkg/proxy/ipvs/proxier.go of Kubernetes 1.33.
//!
//! IPVS chooses endpoints and rewrites destinations; chains do the rest: they mark what has to be
//! masqueraded, keep strangers from guarded addresses, and refuse what is sent to a cluster address
//! and no port of its Service (upstream's KUBE-IPVS-FILTER: else the node's own programs would be
//! reached by it). Upstream matches all Services in a few rules with sets of ipset, which no port
//! here speaks. So each Service has rules of its own in the chains that it has in iptables mode as
//! well: the chains' driver and model do for both, and what is walked is a rule or two a Service
//! for the first packet of a connection. (The flat table of nftables mode would not do: its chains
//! rewrite destinations themselves, before IPVS sees them.)
//!
//! As upstream, and unlike iptables mode: of a front with `externalTrafficPolicy: Local`, everybody
//! gets the endpoints on this node, and where there are none everybody gets any.

use super::base;
use super::compile::Compiled;
use super::local::{Overlay, has_endpoint};
use super::names::{LOOP_BACK, MARK_MASQ, POSTROUTING};
use super::nft::treated_fronts;
use super::piece::{
    FILTER_EXTERNAL, FILTER_FIREWALL, LocalPort, NAT_NODE_PORTS, NAT_SERVICES, Piece, dport,
    masquerade_outsiders, nat, to,
};
use super::service::{Endpoint, ServicePort, usable};
use crate::objects::Key;
use crate::ports::rules::flat::{Front, Policy};
use crate::ports::rules::virtuals::{Virtual, VirtualSet};
use crate::ports::rules::{AddrType, Chain, ChainKey, Match, RejectWith, Rule, Target};
use imbl::OrdMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A node's own virtual services, which stand in for the shared ones of the same front.
pub type VirtualOverlay = Arc<[(Front, Arc<Virtual>)]>;

/// All virtual services of a cluster, as on a node without endpoints of its own.
#[derive(Clone, Debug)]
pub struct Virtuals {
    pub set: VirtualSet,
    /// Who wants a front: the first of them by name gets it.
    claims: OrdMap<Front, Arc<BTreeSet<Key>>>,
}

impl Virtuals {
    pub(super) fn new(mut set: VirtualSet, version: u64) -> Self {
        set.advance(version);
        Virtuals { set, claims: OrdMap::new() }
    }

    pub(super) fn advance(&mut self, version: u64) {
        self.set.advance(version);
    }

    /// What the Service `key` was becomes what it is. `pieces` are those of all Services by now.
    pub(super) fn update(
        &mut self,
        key: &Key,
        old: &Piece,
        new: &Piece,
        pieces: &OrdMap<Key, Arc<Piece>>,
    ) {
        let version = self.set.version();
        let fronts: BTreeSet<Front> =
            old.virtuals.keys().chain(new.virtuals.keys()).copied().collect();
        for front in fronts {
            self.claim(front, key, new.virtuals.contains_key(&front));
            let first = self.claims.get(&front).and_then(|claimants| claimants.first());
            let wanted = first.and_then(|key| pieces.get(key)?.virtuals.get(&front));
            match wanted {
                Some(service) if self.set.get(&front) == Some(service) => {}
                Some(service) => drop(self.set.insert(front, Arc::clone(service), version)),
                None => drop(self.set.remove(&front, version)),
            }
        }
    }

    fn claim(&mut self, front: Front, key: &Key, wants: bool) {
        let mut claimants = self.claims.get(&front).map(|all| (**all).clone()).unwrap_or_default();
        let changed = if wants { claimants.insert(key.clone()) } else { claimants.remove(key) };
        match claimants.is_empty() {
            _ if !changed => {}
            true => drop(self.claims.remove(&front)),
            false => drop(self.claims.insert(front, Arc::new(claimants))),
        }
    }

    /// Whether a front is this Service's.
    fn is_of(&self, front: &Front, key: &Key) -> bool {
        self.claims.get(front).and_then(|claimants| claimants.first()) == Some(key)
    }
}

/// One port of a Service, as on a node that has none of its endpoints.
pub(super) fn port(piece: &mut Piece, port: &ServicePort, endpoints: &[Endpoint]) {
    let everywhere = usable(endpoints.iter());
    for (front, policy, _) in treated_fronts(port) {
        let endpoints = if policy == Policy::InsideLocal { &[][..] } else { &everywhere };
        piece.virtuals.entry(front).or_insert_with(|| service(port, &front, endpoints));
    }
}

fn service(port: &ServicePort, front: &Front, endpoints: &[&Endpoint]) -> Arc<Virtual> {
    let endpoints = endpoints.iter().map(|one| (one.ip, one.port)).collect();
    let elsewhere =
        port.external_ips.contains(&front.ip) && !port.load_balancer_ips.contains(&front.ip);
    Arc::new(Virtual { endpoints, sticky: port.affinity, elsewhere })
}

/// The rules of one Service.
pub(super) fn rules(piece: &mut Piece, ports: &[&ServicePort], cluster_cidr: ipnet::Ipv4Net) {
    for port in ports {
        piece.shared[NAT_SERVICES].push(masquerade_outsiders(port, cluster_cidr));
        let externals = port.external_ips.iter().map(|ip| (ip, " external IP"));
        let balancers = port.load_balancer_ips.iter().map(|ip| (ip, " loadbalancer IP"));
        for (ip, what) in externals.chain(balancers) {
            let rule = to(port, *ip, what, Target::Jump(MARK_MASQ.into()));
            piece.shared[NAT_SERVICES].push(masqueraded(port, rule));
        }
        if let Some(number) = port.node_port {
            let protocol = Match::Protocol { is: port.protocol, not: false };
            let matches = vec![protocol, Match::Comment(port.name.clone()), dport(number)];
            let rule = Rule { matches, target: Target::Jump(MARK_MASQ.into()) };
            piece.shared[NAT_NODE_PORTS].push(masqueraded(port, rule));
        }
        if port.uses_firewall() {
            piece.shared[FILTER_FIREWALL].extend(firewall(port));
        }
        // The ports of a Service have one cluster address, and no other Service has it.
        let served = to(port, port.cluster_ip, " cluster IP", Target::Return);
        piece.shared[FILTER_EXTERNAL].push(served);
    }
    if let Some(port) = ports.first() {
        let matches = vec![
            Match::Destination { net: port.cluster_ip.into(), not: false },
            Match::Comment("no port of the service".into()),
        ];
        let target = Target::Reject(RejectWith::PortUnreachable);
        piece.shared[FILTER_EXTERNAL].push(Rule { matches, target });
    }
}

/// Everything from outside, or with the policy Local only what this node says itself: its source
/// may be the very address that it writes to.
fn masqueraded(port: &ServicePort, mut rule: Rule) -> Rule {
    if port.external_local {
        rule.matches.push(Match::SourceType { is: AddrType::Local, not: false });
    }
    rule
}

/// Only the allowed networks may. It is looked at where the destination is still what the client
/// wrote.
fn firewall(port: &ServicePort) -> impl Iterator<Item = Rule> {
    port.load_balancer_ips.iter().flat_map(move |ip| {
        let allowed = port.source_ranges.iter().map(move |net| {
            let mut rule = to(port, *ip, " loadbalancer IP", Target::Return);
            rule.matches.insert(0, Match::Source { net: net.trunc(), not: false });
            rule
        });
        let why = " traffic not accepted by its source ranges";
        allowed.chain([to(port, *ip, why, Target::Drop)])
    })
}

/// Chains of ipvs mode that are the same in every cluster: what an endpoint says to itself is
/// masqueraded by a chain that each node has of its own.
pub(super) fn fixed_chains() -> Vec<(ChainKey, Chain)> {
    let mut chains = base::fixed_chains();
    let back = nat(&LOOP_BACK.into());
    for (key, chain) in &mut chains {
        if (key.table, &*key.name) == (back.table, POSTROUTING) {
            let comment = Match::Comment("kubernetes service hairpin traffic".into());
            let target = Target::Jump(LOOP_BACK.into());
            chain.rules.insert(0, Rule { matches: vec![comment], target });
        }
    }
    chains.push((back, Chain { rules: Vec::new() }));
    chains
}

/// The node's own chain: an endpoint that calls itself through a Service gets the node's address
/// as source (upstream's set KUBE-LOOP-BACK). O(endpoints of the node).
pub fn loop_back(compiled: &Compiled, node: &str) -> Overlay {
    let itself = |ip: std::net::Ipv4Addr| Rule {
        matches: vec![
            Match::Source { net: ip.into(), not: false },
            Match::Destination { net: ip.into(), not: false },
        ],
        target: Target::Masquerade { random_fully: true },
    };
    let rules: Vec<Rule> = compiled.flat.on_node(node).map(itself).collect();
    match rules.is_empty() {
        true => Arc::new([]),
        false => Arc::new([(nat(&LOOP_BACK.into()), Arc::new(Chain { rules }))]),
    }
}

/// The node's own virtual services: none on most nodes. O(Services with a policy of Local).
pub fn virtual_overlay(compiled: &Compiled, node: &str) -> VirtualOverlay {
    let mut own: BTreeMap<Front, Arc<Virtual>> = BTreeMap::new();
    let pieces = compiled.local.iter().filter_map(|key| Some((key, compiled.pieces.get(key)?)));
    let ports = pieces.flat_map(|(key, piece)| piece.local.iter().map(move |port| (key, port)));
    for (key, local) in ports.filter(|(_, port)| has_endpoint(port, node)) {
        let LocalPort { port, endpoints } = local;
        let here = usable(endpoints.iter().filter(|one| one.node == node));
        for (front, policy, _) in treated_fronts(port) {
            let goes_by_node = matches!(policy, Policy::InsideLocal | Policy::OutsideLocal);
            if goes_by_node && compiled.virtuals.is_of(&front, key) {
                own.insert(front, service(port, &front, &here));
            }
        }
    }
    own.into_iter().collect()
}
