//! The table without its elements: sets and chains. What it says is in
//! `kubesim_actors::ports::rules::flat`.
//!
//! Registers: 0 the client's address, 1 to 3 a front or a Service port's name (address, protocol,
//! port), 4 and 5 what is looked up with it, 8 and 9 whatever one expression needs.

use super::expression::{Compare, DROP, Dynamic, JUMP, Register, Rule};
use super::treated::Treated;
use kubesim_actors::ports::rules::FlatSettings;
use kubesim_actors::ports::rules::flat::{List, Policy, Treatment};
use smol_str::SmolStr;

/// `NFT_SET_*`
pub const INTERVAL: u32 = 4;
pub const MAP: u32 = 8;
const TIMEOUT: u32 = 0x10;
const EVALUATED: u32 = 0x20;
const CONCATENATED: u32 = 0x80;
/// `NFT_DATA_VERDICT`
pub const VERDICT: u32 = 0xffff_ff00;

/// Types as the `nft` program numbers them, so that it can print elements; the kernel only looks
/// whether a type is [`VERDICT`]. A concatenation is six bits a type.
const ADDRESS: u32 = 7;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const INTEGER: u32 = 4;
const FRONT: u32 = ADDRESS << 12 | PROTOCOL << 6 | PORT;
const BACKEND: u32 = ADDRESS << 6 | PORT;

pub struct SetSpec {
    pub name: &'static str,
    pub flags: u32,
    pub key: u32,
    /// Bytes of the key, four for each of its fields.
    pub key_length: u32,
    /// Type and bytes.
    pub value: Option<(u32, u32)>,
    /// At most so many elements; 0: as many as there are.
    pub size: u32,
}

pub const SERVICES: usize = 0;
pub const ALIASES: usize = 1;
pub const ENDPOINTS: usize = 2;
pub const MEMBERS: usize = 4;
pub const SOURCES: usize = 6;
pub const REFUSED: usize = 7;
pub const HAIRPIN: usize = 8;
pub const TREATMENTS: usize = 9;
pub const AFFINITY: usize = 10;

const fn set(name: &'static str, key: u32, key_length: u32, value: Option<(u32, u32)>) -> SetSpec {
    let flags = if value.is_some() { MAP } else { 0 };
    SetSpec { name, flags, key, key_length, value, size: 0 }
}

/// For lists, [`ENDPOINTS`] and [`MEMBERS`] are followed by those of [`List::Here`].
pub const SETS: [SetSpec; 11] = [
    set("services", FRONT, 12, Some((INTEGER << 6 | INTEGER, 8))),
    set("aliases", FRONT, 12, Some((FRONT, 12))),
    set("endpoints", FRONT << 6 | INTEGER, 16, Some((BACKEND, 8))),
    set("endpoints-here", FRONT << 6 | INTEGER, 16, Some((BACKEND, 8))),
    set("members", FRONT << 12 | BACKEND, 20, None),
    set("members-here", FRONT << 12 | BACKEND, 20, None),
    SetSpec { flags: INTERVAL | CONCATENATED, ..set("sources", FRONT << 6 | ADDRESS, 16, None) },
    set("refused", FRONT, 12, None),
    set("hairpin", ADDRESS << 6 | ADDRESS, 8, None),
    set("treatments", INTEGER << 6 | INTEGER, 8, Some((VERDICT, 0))),
    SetSpec {
        flags: MAP | TIMEOUT | EVALUATED,
        // A set of the packet path has a limit (`nft_dynset_init`). Clients of a node are fewer.
        size: 1 << 20,
        ..set("affinity", ADDRESS << 18 | FRONT, 16, Some((BACKEND, 8)))
    },
];

pub struct ChainSpec {
    pub name: SmolStr,
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// Where the kernel calls a base chain (`NF_INET_*`, `NF_IP_PRI_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

/// `NF_CT_STATE_BIT(IP_CT_NEW)` and `NF_CT_STATE_INVALID_BIT`, and `IPS_DST_NAT`
const NEW: u32 = 1 << 3;
const INVALID: u32 = 1;
const DST_NAT: u32 = 1 << 5;

/// The chains that every table has.
pub fn base_chains(settings: &FlatSettings) -> Vec<ChainSpec> {
    let chain = |name: &str, hook, rules| ChainSpec { name: name.into(), hook, rules };
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    let to_services = || vec![Rule::default().verdict(JUMP, "services")];
    let (invalid, refuse) = (Rule::default().ct_state(INVALID, 8).verdict(DROP, ""), refuse());
    let refuse_node_port = node_port(Rule::default().ct_state(NEW, 8));
    let refuse_node_port = refuse_node_port.lookup(SETS[REFUSED].name, 1, None).reject();
    vec![
        chain("services", None, services()),
        chain("nat-prerouting", hook("nat", 0, -100), to_services()),
        chain("nat-output", hook("nat", 3, -100), to_services()),
        chain("nat-postrouting", hook("nat", 4, 100), postrouting(settings)),
        chain("filter-input", hook("filter", 1, 0), vec![refuse.clone(), refuse_node_port]),
        // An out-of-window segment that is not translated back would reset the connection
        // (kubernetes/kubernetes#74839).
        chain("filter-forward", hook("filter", 2, 0), vec![invalid, refuse.clone()]),
        chain("filter-output", hook("filter", 3, 0), vec![refuse]),
    ]
}

fn services() -> Vec<Rule> {
    let treat = |rule: Rule| {
        let rule = rule.lookup(SETS[SERVICES].name, 1, Some(4));
        rule.lookup_verdict(SETS[TREATMENTS].name, 4)
    };
    vec![treat(front(Rule::default())), treat(node_port(Rule::default()))]
}

fn refuse() -> Rule {
    let new = front(Rule::default().ct_state(NEW, 8));
    new.lookup(SETS[REFUSED].name, 1, None).reject()
}

/// The mark is taken off again, so that a packet that passes the stack twice is masqueraded once.
fn postrouting(settings: &FlatSettings) -> Vec<Rule> {
    let mark = settings.mark;
    let marked = Rule::default().packet_mark(8).bitwise(8, mark.to_ne_bytes(), [0; 4]).compare(
        8,
        Compare::NotEqual,
        [0; 4],
    );
    let unmark = marked.packet_mark(8).bitwise(8, (!mark).to_ne_bytes(), [0; 4]).set_packet_mark(8);
    let itself = Rule::default().ct_status(DST_NAT, 8).source(0).destination(1);
    vec![unmark.masquerade(), itself.lookup(SETS[HAIRPIN].name, 0, None).masquerade()]
}

/// What the client wrote.
fn front(rule: Rule) -> Rule {
    rule.destination(1).protocol(2).destination_port(3)
}

/// The node port that the client wrote, if it wrote one of this node's addresses.
fn node_port(rule: Rule) -> Rule {
    let rule = rule.destination(8).bitwise(8, [255, 0, 0, 0], [0; 4]);
    let rule = rule.compare(8, Compare::NotEqual, [127, 0, 0, 0]).only_local(true, 8);
    rule.immediate(1, [0; 4]).protocol(2).destination_port(3)
}

/// The chain of a treatment.
pub fn treatment_chain(treated: &Treated, settings: &FlatSettings) -> ChainSpec {
    let Treatment { policy, everywhere, here, guarded, .. } = treated.treatment;
    let anyone = Rule::default();
    let mut rules = Vec::new();
    if guarded {
        let stranger = front(Rule::default()).source(4).lookup_not(SETS[SOURCES].name, 1);
        rules.push(stranger.verdict(DROP, ""));
    }
    match policy {
        Policy::Inside | Policy::InsideLocal => {
            rules.push(mark(from_pods(Compare::NotEqual, settings), settings));
        }
        Policy::Outside => rules.push(mark(Rule::default(), settings)),
        Policy::OutsideLocal => {
            let pods = from_pods(Compare::Equal, settings);
            pick(treated, List::Everywhere, everywhere, &pods, &mut rules);
            let own = Rule::default().only_local(false, 8);
            rules.push(mark(own.clone(), settings));
            pick(treated, List::Everywhere, everywhere, &own, &mut rules);
        }
    }
    match policy {
        Policy::Inside | Policy::Outside => {
            pick(treated, List::Everywhere, everywhere, &anyone, &mut rules);
        }
        Policy::InsideLocal | Policy::OutsideLocal => {
            pick(treated, List::Here, here, &anyone, &mut rules);
        }
    }
    ChainSpec { name: treated.name(), hook: None, rules }
}

fn from_pods(how: Compare, settings: &FlatSettings) -> Rule {
    let net = settings.pods.trunc();
    let masked = Rule::default().source(8).bitwise(8, net.netmask().octets(), [0; 4]);
    masked.compare(8, how, net.network().octets())
}

fn mark(rule: Rule, settings: &FlatSettings) -> Rule {
    let mark = settings.mark;
    let marked = rule.packet_mark(9).bitwise(9, (!mark).to_ne_bytes(), mark.to_ne_bytes());
    marked.set_packet_mark(9)
}

/// One of `count` endpoints for whom `who` holds: the one the client had, or any.
fn pick(treated: &Treated, list: List, count: u16, who: &Rule, rules: &mut Vec<Rule>) {
    if count == 0 {
        return rules.push(who.clone().verdict(DROP, ""));
    }
    let endpoints = SETS[ENDPOINTS + list as usize].name;
    let named = name_service(treated, Rule::default()).after(who);
    let random = |rule: Rule| {
        let numbered: Register = 4;
        rule.random(u32::from(count), numbered).lookup(endpoints, 1, Some(4))
    };
    let seconds = treated.treatment.affinity;
    if seconds > 0 {
        let (affinity, members) = (SETS[AFFINITY].name, SETS[MEMBERS + list as usize].name);
        let client = name_service(treated, Rule::default().source(0)).after(who);
        let had = client.clone().lookup(affinity, 0, Some(4)).lookup(members, 1, None);
        rules.push(had.dynamic(Dynamic::Update, affinity, 0, 4, seconds).dnat(4, 5));
        // What it had is no endpoint any more.
        rules.push(client.clone().dynamic(Dynamic::Delete, affinity, 0, 0, 0));
        let new = random(client).dynamic(Dynamic::Add, affinity, 0, 4, seconds);
        rules.push(new.dnat(4, 5));
    }
    // With affinity: the map is full.
    rules.push(random(named).dnat(4, 5));
}

/// The Service port's name.
fn name_service(treated: &Treated, rule: Rule) -> Rule {
    let aliases = SETS[ALIASES].name;
    match (treated.treatment.policy, treated.node_port) {
        (Policy::Inside | Policy::InsideLocal, _) => front(rule),
        (_, false) => front(rule).lookup(aliases, 1, Some(1)),
        (_, true) => {
            let port = rule.immediate(1, [0; 4]).protocol(2).destination_port(3);
            port.lookup(aliases, 1, Some(1))
        }
    }
}
