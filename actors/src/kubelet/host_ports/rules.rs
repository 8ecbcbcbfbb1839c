//! The rules by which a node's ports lead to its pods, as CNI's portmap plugin has them
//! (containernetworking/plugins, plugins/meta/portmap/portmap_iptables.go), with two differences:
//! nothing is marked, as what is to be masqueraded is known by where it goes, and what
//! `route_localnet` would let in from outside is dropped again.

use super::Lead;
use crate::ports::rules::{
    AddrType, BaseRule, Chain, ChainKey, ChainSet, CtFilter, CtStates, Match, Place, Protocol,
    Request, Rule, Table, Target,
};
use ipnet::Ipv4Net;
use smol_str::{SmolStr, format_smolstr};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Under this name the rules port keeps them.
pub const OWNER: SmolStr = SmolStr::new_static("hostports");

const DNAT: SmolStr = SmolStr::new_static("HOSTPORT-DNAT");
const MASQUERADE: SmolStr = SmolStr::new_static("HOSTPORT-MASQ");
const LOOPBACK: SmolStr = SmolStr::new_static("HOSTPORT-LOOPBACK");

/// All of them; with no leads, the empty chains, which take the place of whatever was there.
pub fn apply(leads: &[Lead]) -> Request {
    let local = |rule: BaseRule| {
        let is = Match::DestinationType { is: AddrType::Local, not: false };
        let matches = rule.rule.matches.into_iter().chain([is]).collect();
        BaseRule { rule: Rule { matches, target: rule.rule.target }, ..rule }
    };
    let chain = |table, name, rules| (ChainKey { table, name }, Arc::new(Chain { rules }));
    Request::Apply {
        owner: OWNER,
        base: Arc::new([
            local(jump(Table::Nat, "PREROUTING", Place::Last, DNAT)),
            local(jump(Table::Nat, "OUTPUT", Place::Last, DNAT)),
            jump(Table::Nat, "POSTROUTING", Place::Last, MASQUERADE),
            jump(Table::Filter, "INPUT", Place::First, LOOPBACK),
        ]),
        shared: ChainSet::empty(0),
        local: Arc::new([
            chain(Table::Nat, DNAT, leads.iter().map(dnat).collect()),
            chain(Table::Nat, MASQUERADE, leads.iter().flat_map(masquerade).collect()),
            chain(Table::Filter, LOOPBACK, from_outside()),
        ]),
    }
}

/// Neither chains nor what leads to them.
pub fn withdraw() -> Request {
    let (base, shared, local) = (Arc::new([]), ChainSet::empty(0), Arc::new([]));
    Request::Apply { owner: OWNER, base, shared, local }
}

fn jump(table: Table, chain: &'static str, place: Place, to: SmolStr) -> BaseRule {
    let comment = Match::Comment(SmolStr::new_static("host ports of pods"));
    let rule = Rule { matches: vec![comment], target: Target::Jump(to) };
    BaseRule { table, chain: SmolStr::new_static(chain), place, rule }
}

fn port(number: u16) -> Match {
    Match::DestinationPort { from: number, to: number, not: false }
}

fn only(ip: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(ip, 32)
}

fn loopback() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)
}

fn dnat(lead: &Lead) -> Rule {
    let asked = lead.port;
    let on = asked.ip.map(|ip| Match::Destination { net: only(ip), not: false });
    let matches = on.into_iter().chain([
        Match::Protocol { is: asked.protocol, not: false },
        Match::Comment(format_smolstr!("{}", lead.pod)),
        port(asked.number),
    ]);
    let target = Target::Dnat { to: lead.ip, port: Some(asked.inside) };
    Rule { matches: matches.collect(), target }
}

/// A pod that asks for its own port would get an answer from itself, and a program on the node one
/// that is not for 127.0.0.1.
fn masquerade(lead: &Lead) -> [Rule; 2] {
    [only(lead.ip), loopback()].map(|net| Rule {
        matches: vec![
            Match::Source { net, not: false },
            Match::Destination { net: only(lead.ip), not: false },
            Match::Protocol { is: lead.port.protocol, not: false },
            port(lead.port.inside),
        ],
        target: Target::Masquerade { random_fully: true },
    })
}

/// As the proxy's `KUBE-FIREWALL` does it (CVE-2020-8558), which is there in one of its modes only.
fn from_outside() -> Vec<Rule> {
    let known = CtStates { related: true, established: true, ..CtStates::default() };
    let outside = |state, target| Rule {
        matches: vec![
            Match::Source { net: loopback(), not: true },
            Match::Destination { net: loopback(), not: false },
            state,
        ],
        target,
    };
    vec![
        outside(Match::CtDnat, Target::Return),
        outside(Match::CtState { any: known, not: true }, Target::Drop),
    ]
}

/// The connections that go on past a change: those that led to a pod that has the port no more,
/// and datagrams to a port that led nowhere until now, which would go on doing so.
pub fn stale(before: &[Lead], now: &[Lead]) -> Arc<[CtFilter]> {
    let gone = before.iter().filter(|lead| !now.contains(lead)).map(|lead| CtFilter {
        protocol: Some(lead.port.protocol),
        original_dport: Some(lead.port.number),
        dnat_to: Some(lead.ip),
        dnat_port: Some(lead.port.inside),
        ..CtFilter::default()
    });
    let new = now.iter().filter(|lead| !before.contains(lead));
    let new = new.filter(|lead| lead.port.protocol == Protocol::Udp).map(|lead| CtFilter {
        protocol: Some(Protocol::Udp),
        original_dst: lead.port.ip,
        original_dport: Some(lead.port.number),
        ..CtFilter::default()
    });
    gone.chain(new).collect()
}
