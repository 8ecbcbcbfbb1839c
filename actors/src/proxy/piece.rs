//! The rules of one Service: what [`super::compile`] puts together.

use super::compile::{Mode, Shape};
use super::names::{self, EXTERNAL_SERVICES, MARK_MASQ, NODE_PORTS, PROXY_FIREWALL, SERVICES};
use super::service::{Endpoint, ServicePort, endpoints, service_ports, usable};
use super::{ipvs, nft};
use crate::objects::{Name, Object};
use crate::ports::rules::flat::{self, FlatKey, FlatValue};
use crate::ports::rules::virtuals::Virtual;
use crate::ports::rules::{
    AddrType, Chain, ChainKey, Match, Protocol, RejectWith, Rule, Table, Target,
};
use ipnet::Ipv4Net;
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The chains to which every Service may add rules, in the order of [`Piece::shared`].
pub const COMMON: [(Table, &str); 6] = [
    (Table::Nat, SERVICES),
    (Table::Nat, NODE_PORTS),
    (Table::Filter, SERVICES),
    (Table::Filter, EXTERNAL_SERVICES),
    (Table::Filter, NODE_PORTS),
    (Table::Filter, PROXY_FIREWALL),
];
pub const NAT_SERVICES: usize = 0;
pub const NAT_NODE_PORTS: usize = 1;
pub const FILTER_SERVICES: usize = 2;
pub const FILTER_EXTERNAL: usize = 3;
const FILTER_NODE_PORTS: usize = 4;
pub const FILTER_FIREWALL: usize = 5;

/// What one Service adds, as on a node that has none of its endpoints; what differs on a node
/// that has some is [`super::local`]'s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Its rules in each of the [`COMMON`] chains.
    pub shared: [Vec<Rule>; 6],
    /// Its own chains, all in the nat table.
    pub chains: Vec<(SmolStr, Arc<Chain>)>,
    /// Ports for which a node's own endpoints matter.
    pub local: Vec<LocalPort>,
    /// Its elements in the order of their keys, in nftables mode.
    pub flat: Vec<(FlatKey, FlatValue)>,
    /// Its virtual services, in ipvs mode.
    pub virtuals: BTreeMap<flat::Front, Arc<Virtual>>,
    /// Its endpoints by node, in nftables and ipvs mode.
    pub on_nodes: Vec<(Name, Ipv4Addr)>,
    /// Where its traffic may be rewritten to, by what the client wrote.
    pub fronts: Vec<(Front, Arc<[Backend]>)>,
    /// Every endpoint, whatever its state.
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPort {
    pub port: ServicePort,
    pub endpoints: Vec<Endpoint>,
}

/// A destination as a client writes it; a node port is on any address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Front {
    pub protocol: Protocol,
    pub ip: Option<Ipv4Addr>,
    pub port: u16,
}

/// Where it is rewritten to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub protocol: Protocol,
    pub ip: Ipv4Addr,
    pub port: u16,
}

impl Piece {
    /// `None` if there is nothing to serve.
    pub fn of(service: &Object, slices: &[Arc<Object>], shape: Shape) -> Option<Piece> {
        let mut piece = Piece::default();
        let ports = service_ports(service);
        for (label, port) in &ports {
            let endpoints = endpoints(label.as_deref(), port.protocol, slices);
            match shape.mode {
                Mode::Iptables => piece.port(port, &endpoints, shape.cluster_cidr),
                Mode::Nftables => {
                    nft::elements(port, &endpoints, &mut piece.flat);
                    piece.on_nodes.extend(endpoints.iter().map(|e| (e.node.clone(), e.ip)));
                }
                Mode::Ipvs => {
                    piece.health_check(port);
                    ipvs::port(&mut piece, port, &endpoints);
                    piece.on_nodes.extend(endpoints.iter().map(|e| (e.node.clone(), e.ip)));
                }
            }
            piece.connections(port, &endpoints);
            if port.uses_local_endpoints() {
                piece.local.push(LocalPort { port: port.clone(), endpoints });
            }
        }
        if shape.mode == Mode::Ipvs {
            let ports: Vec<_> = ports.iter().map(|(_, port)| port).collect();
            ipvs::rules(&mut piece, &ports, shape.cluster_cidr);
        }
        piece.flat.sort_by_key(|(key, _)| *key);
        piece.flat.dedup_by_key(|(key, _)| *key);
        (!ports.is_empty()).then_some(piece)
    }

    fn port(&mut self, port: &ServicePort, endpoints: &[Endpoint], cluster_cidr: Ipv4Net) {
        let used = usable(endpoints.iter());
        self.health_check(port);
        if used.is_empty() {
            self.refuse(port);
            return;
        }
        let inside = if port.internal_local { &port.names.local } else { &port.names.cluster };
        let cluster_ip = to(port, port.cluster_ip, " cluster IP", Target::Jump(inside.clone()));
        self.shared[NAT_SERVICES].push(cluster_ip);
        self.capture_external(port);
        for (chain, rule) in no_local_endpoints(port) {
            self.shared[chain].push(rule);
        }
        if port.internal_local {
            // Upstream leaves the rule above out on nodes without an endpoint. Here the rule is
            // shared by all nodes, and leads into a chain that is empty on those.
            self.chain(&port.names.local, Vec::new());
        }
        if port.externally_accessible() {
            self.chain(&port.names.external, external_rules(port, cluster_cidr, false));
        }
        if port.uses_firewall() {
            self.chain(&port.names.firewall, firewall_rules(port));
        }
        if port.uses_cluster_endpoints() {
            let mut rules = Vec::new();
            if !port.internal_local {
                rules.push(masquerade_outsiders(port, cluster_cidr));
            }
            rules.extend(balance(port, &used));
            self.chain(&port.names.cluster, rules);
            for endpoint in used {
                let (name, chain) = endpoint_chain(port, endpoint);
                self.chains.push((name, chain));
            }
        }
    }

    fn chain(&mut self, name: &SmolStr, rules: Vec<Rule>) {
        self.chains.push((name.clone(), Arc::new(Chain { rules })));
    }

    fn health_check(&mut self, port: &ServicePort) {
        let Some(number) = port.health_check_port else {
            return;
        };
        let matches = vec![
            Match::Protocol { is: Protocol::Tcp, not: false },
            Match::Comment(format_smolstr!("{} health check node port", port.name)),
            dport(number),
        ];
        self.shared[FILTER_NODE_PORTS].push(Rule { matches, target: Target::Accept });
    }

    /// A port without endpoints says so at once.
    fn refuse(&mut self, port: &ServicePort) {
        let reject = Target::Reject(RejectWith::PortUnreachable);
        let why = " has no endpoints";
        self.shared[FILTER_SERVICES].push(to(port, port.cluster_ip, why, reject.clone()));
        self.shared[FILTER_EXTERNAL].extend(to_externals(port, why, &reject));
    }

    fn capture_external(&mut self, port: &ServicePort) {
        let external = Target::Jump(port.names.external.clone());
        for ip in &port.external_ips {
            let rule = to(port, *ip, " external IP", external.clone());
            self.shared[NAT_SERVICES].push(rule);
        }
        for ip in &port.load_balancer_ips {
            let chain =
                if port.uses_firewall() { &port.names.firewall } else { &port.names.external };
            let target = Target::Jump(chain.clone());
            self.shared[NAT_SERVICES].push(to(port, *ip, " loadbalancer IP", target));
            if port.uses_firewall() {
                let why = format_smolstr!(" traffic not accepted by {}", port.names.firewall);
                self.shared[FILTER_FIREWALL].push(to(port, *ip, &why, Target::Drop));
            }
        }
        if let Some(number) = port.node_port {
            let matches = vec![
                Match::Protocol { is: port.protocol, not: false },
                Match::Comment(port.name.clone()),
                dport(number),
            ];
            self.shared[NAT_NODE_PORTS].push(Rule { matches, target: external });
        }
    }

    /// What conntrack may hold for this port (pkg/proxy/conntrack/cleanup.go: endpoints that
    /// serve keep their flows).
    fn connections(&mut self, port: &ServicePort, endpoints: &[Endpoint]) {
        let protocol = port.protocol;
        let backend = |one: &Endpoint| Backend { protocol, ip: one.ip, port: one.port };
        let serving: Arc<[Backend]> =
            endpoints.iter().filter(|one| one.serving).map(backend).collect();
        let addresses = [port.cluster_ip].into_iter();
        let addresses = addresses.chain(port.external_ips.iter().copied());
        let addresses = addresses.chain(port.load_balancer_ips.iter().copied());
        let fronts = addresses.map(|ip| Front { protocol, ip: Some(ip), port: port.port });
        let node_port = port.node_port.map(|port| Front { protocol, ip: None, port });
        for front in fronts.chain(node_port) {
            self.fronts.push((front, Arc::clone(&serving)));
        }
        self.backends.extend(endpoints.iter().map(backend));
    }
}

/// Rules that drop what would need an endpoint on the very node, by index into [`COMMON`].
pub fn no_local_endpoints(port: &ServicePort) -> Vec<(usize, Rule)> {
    let why = " has no local endpoints";
    let mut rules = Vec::new();
    if port.internal_local {
        rules.push((FILTER_SERVICES, to(port, port.cluster_ip, why, Target::Drop)));
    }
    if port.external_local {
        let externals = to_externals(port, why, &Target::Drop);
        rules.extend(externals.into_iter().map(|rule| (FILTER_EXTERNAL, rule)));
    }
    rules
}

/// `KUBE-EXT-…`. With the policy Local, `here` says whether this node has an endpoint.
pub fn external_rules(port: &ServicePort, cluster_cidr: Ipv4Net, here: bool) -> Vec<Rule> {
    let about =
        |what: &str| Match::Comment(format_smolstr!("{what} {} external destinations", port.name));
    let masquerade = || Target::Jump(MARK_MASQ.into());
    let cluster = || Target::Jump(port.names.cluster.clone());
    if !port.external_local {
        let matches = vec![about("masquerade traffic for")];
        return vec![
            Rule { matches, target: masquerade() },
            Rule { matches: Vec::new(), target: cluster() },
        ];
    }
    let from_here = |what: &str, target: Target| {
        let matches = vec![about(what), Match::SourceType { is: AddrType::Local, not: false }];
        Rule { matches, target }
    };
    let pods = Match::Source { net: cluster_cidr, not: false };
    let mut rules = vec![
        Rule { matches: vec![pods, about("pod traffic for")], target: cluster() },
        from_here("masquerade LOCAL traffic for", masquerade()),
        from_here("route LOCAL traffic for", cluster()),
    ];
    if here {
        let target = Target::Jump(port.names.local.clone());
        rules.push(Rule { matches: Vec::new(), target });
    }
    rules
}

/// `KUBE-FW-…`: only the allowed sources get on to `KUBE-EXT-…`.
fn firewall_rules(port: &ServicePort) -> Vec<Rule> {
    let allowed = |net: &Ipv4Net| Rule {
        matches: vec![
            Match::Source { net: net.trunc(), not: false },
            Match::Comment(format_smolstr!("{} loadbalancer IP", port.name)),
        ],
        target: Target::Jump(port.names.external.clone()),
    };
    let rest =
        format_smolstr!("other traffic to {} will be dropped by {PROXY_FIREWALL}", port.name);
    let mut rules: Vec<_> = port.source_ranges.iter().map(allowed).collect();
    rules.push(Rule { matches: vec![Match::Comment(rest)], target: Target::None });
    rules
}

/// What is not from a pod may come back by another way: it gets this node's address.
pub fn masquerade_outsiders(port: &ServicePort, cluster_cidr: Ipv4Net) -> Rule {
    let mut rule = to(port, port.cluster_ip, " cluster IP", Target::Jump(MARK_MASQ.into()));
    rule.matches.insert(0, Match::Source { net: cluster_cidr.trunc(), not: true });
    rule
}

/// The rules that choose an endpoint: the one the client had, or any with equal probability.
pub fn balance(port: &ServicePort, endpoints: &[&Endpoint]) -> Vec<Rule> {
    let mut rules = Vec::with_capacity(endpoints.len() * 2);
    let named: Vec<_> = endpoints
        .iter()
        .map(|one| {
            let comment = format_smolstr!("{} -> {}", port.name, one.text);
            (Match::Comment(comment), names::endpoint(&port.name, port.protocol, &one.text))
        })
        .collect();
    if let Some(seconds) = port.affinity {
        for (comment, name) in &named {
            let recent = Match::RecentCheck { name: name.clone(), seconds };
            let matches = vec![comment.clone(), recent];
            rules.push(Rule { matches, target: Target::Jump(name.clone()) });
        }
    }
    let count = named.len();
    for (i, (comment, name)) in named.into_iter().enumerate() {
        let mut matches = vec![comment];
        if i + 1 < count {
            matches.push(Match::Random { probability: probability(count - i) });
        }
        rules.push(Rule { matches, target: Target::Jump(name) });
    }
    rules
}

/// `KUBE-SEP-…`: an endpoint that calls itself through the Service gets the node's address as
/// source (hairpin), and everything the endpoint's as destination.
pub fn endpoint_chain(port: &ServicePort, endpoint: &Endpoint) -> (SmolStr, Arc<Chain>) {
    let name = names::endpoint(&port.name, port.protocol, &endpoint.text);
    let comment = Match::Comment(port.name.clone());
    let itself = Match::Source { net: endpoint.ip.into(), not: false };
    let hairpin =
        Rule { matches: vec![itself, comment.clone()], target: Target::Jump(MARK_MASQ.into()) };
    let mut matches = vec![Match::Protocol { is: port.protocol, not: false }, comment];
    if port.affinity.is_some() {
        matches.push(Match::RecentSet { name: name.clone() });
    }
    let target = Target::Dnat { to: endpoint.ip, port: Some(endpoint.port) };
    let rules = vec![hairpin, Rule { matches, target }];
    (name, Arc::new(Chain { rules }))
}

/// One of `n`: upstream writes ten digits, iptables rounds them to the kernel's 1/2^31.
fn probability(n: usize) -> u32 {
    let digits = (1e10 / n as f64).round() / 1e10;
    (digits * f64::from(1u32 << 31)).round() as u32
}

pub fn dport(port: u16) -> Match {
    Match::DestinationPort { from: port, to: port, not: false }
}

/// Traffic to the port on one address; `what` follows the port's name in the comment.
pub fn to(port: &ServicePort, ip: Ipv4Addr, what: &str, target: Target) -> Rule {
    let matches = vec![
        Match::Destination { net: ip.into(), not: false },
        Match::Protocol { is: port.protocol, not: false },
        Match::Comment(format_smolstr!("{}{what}", port.name)),
        dport(port.port),
    ];
    Rule { matches, target }
}

/// Traffic to the port on all addresses outside the cluster.
fn to_externals(port: &ServicePort, what: &str, target: &Target) -> Vec<Rule> {
    let addresses = port.external_ips.iter().chain(&port.load_balancer_ips);
    let mut rules: Vec<_> = addresses.map(|ip| to(port, *ip, what, target.clone())).collect();
    if let Some(number) = port.node_port {
        let matches = vec![
            Match::Protocol { is: port.protocol, not: false },
            Match::Comment(format_smolstr!("{}{what}", port.name)),
            Match::DestinationType { is: AddrType::Local, not: false },
            dport(number),
        ];
        rules.push(Rule { matches, target: target.clone() });
    }
    rules
}

/// A chain of the nat table.
pub fn nat(name: &SmolStr) -> ChainKey {
    ChainKey { table: Table::Nat, name: name.clone() }
}
