//! The table without its elements: sets and chains. What it says is in
//! `kubesim_actors::ports::rules::flat`.
//!
//! Registers: 0 the client's address, 1 to 3 a front or a Service port's name (address, protocol,
//! port), 4 and 5 what is looked up with it, 8 and 9 whatever one expression needs.

use super::expression::{Compare, DROP, Dynamic, GOTO, JUMP, Rule};
use super::led::{Led, Treated};
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
/// Numbers in the machine's order: those of packets' marks and of their priorities.
const NUMBER: u32 = 19;
const PRIORITY: u32 = 23;
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
pub const ENDPOINTS: usize = 1;
pub const MEMBERS: usize = 3;
pub const SOURCES: usize = 5;
pub const REFUSED: usize = 6;
pub const HAIRPIN: usize = 7;
pub const STICKY: usize = 8;
pub const TREATMENTS: usize = 9;
pub const AFFINITY: usize = 10;

const fn set(name: &'static str, key: u32, key_length: u32, value: Option<(u32, u32)>) -> SetSpec {
    let flags = if value.is_some() { MAP } else { 0 };
    SetSpec { name, flags, key, key_length, value, size: 0 }
}

/// [`ENDPOINTS`] and [`MEMBERS`] are of [`List::Everywhere`]; those of [`List::Here`] follow.
pub const SETS: [SetSpec; 11] = [
    set("services", FRONT, 12, Some((PRIORITY, 4))),
    set("endpoints", FRONT << 6 | NUMBER, 16, Some((BACKEND, 8))),
    set("endpoints-here", FRONT << 6 | NUMBER, 16, Some((BACKEND, 8))),
    set("members", FRONT << 6 | ADDRESS, 16, Some((BACKEND, 8))),
    set("members-here", FRONT << 6 | ADDRESS, 16, Some((BACKEND, 8))),
    SetSpec { flags: INTERVAL | CONCATENATED, ..set("sources", FRONT << 6 | ADDRESS, 16, None) },
    set("refused", FRONT, 12, None),
    set("hairpin", ADDRESS << 6 | ADDRESS, 8, None),
    set("sticky", FRONT, 12, Some((VERDICT, 0))),
    set("treatments", PRIORITY, 4, Some((VERDICT, 0))),
    SetSpec {
        flags: MAP | TIMEOUT | EVALUATED,
        // A set of the packet path has a limit (`nft_dynset_init`). Clients of a node are fewer.
        size: 1 << 20,
        ..set("affinity", ADDRESS << 18 | FRONT, 16, Some((ADDRESS, 4)))
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
    let invalid = Rule::default().ct_state(INVALID, 8).verdict(DROP, "");
    let refuse = front(Rule::default().ct_state(NEW, 8)).lookup(SETS[REFUSED].name, 1, None);
    let refuse_node_port = node_port(Rule::default().ct_state(NEW, 8));
    let refuse_node_port = refuse_node_port.lookup(SETS[REFUSED].name, 1, None).reject();
    // To remember comes last: what leads there does not come back.
    let filter = |mut rules: Vec<Rule>| {
        rules.push(refuse.clone().reject());
        rules.extend(remember_sticky());
        rules
    };
    // Forwarded packets get their priority from the kernel; those of sockets get none here, as
    // what they had is not known any more.
    let no_priority = Rule::default().ct_state(NEW, 8).ct_status(DST_NAT, 8);
    let no_priority = no_priority.immediate(8, [0; 4]).set_priority(8);
    let mut chains = vec![
        chain("services", None, services()),
        chain("nat-prerouting", hook("nat", 0, -100), to_services()),
        chain("nat-output", hook("nat", 3, -100), to_services()),
        chain("nat-postrouting", hook("nat", 4, 100), postrouting(settings)),
        chain("filter-input", hook("filter", 1, 0), filter(vec![refuse_node_port])),
        // An out-of-window segment that is not translated back would reset the connection
        // (kubernetes/kubernetes#74839).
        chain("filter-forward", hook("filter", 2, 0), filter(vec![invalid])),
        chain("filter-output", hook("filter", 3, 0), filter(vec![no_priority])),
    ];
    for list in [List::Everywhere, List::Here] {
        for node_port in [false, true] {
            chains.push(chain(pick(list, node_port), None, vec![by_number(list, node_port)]));
            chains.push(chain(had(list, node_port), None, by_client(list, node_port)));
        }
    }
    chains
}

/// A packet's treatment is looked up in two steps, and its priority carries the number from one to
/// the other, and later that of its endpoint: rules share no registers. Only first packets of
/// connections come here, and the kernel gives those it forwards their priority afterwards
/// (`ip_forward`, net/ipv4/ip_forward.c).
fn services() -> Vec<Rule> {
    let treat = |rule: Rule| {
        let rule = rule.lookup(SETS[SERVICES].name, 1, Some(4)).set_priority(4);
        rule.priority(5).lookup_verdict(SETS[TREATMENTS].name, 5)
    };
    vec![treat(front(Rule::default())), treat(node_port(Rule::default()))]
}

/// A client that was led to an endpoint of a sticky front: here the address that it got is known.
fn remember_sticky() -> [Rule; 2] {
    let led = || Rule::default().ct_state(NEW, 8).ct_status(DST_NAT, 8);
    let sticky = SETS[STICKY].name;
    [
        led().written_destination(1).protocol(2).written_port(3).lookup_verdict(sticky, 1),
        nothing(led().written_destination(1)).protocol(2).written_port(3).lookup_verdict(sticky, 1),
    ]
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
    nothing(rule.destination(1)).protocol(2).destination_port(3)
}

/// The address of a node port, 0.0.0.0: as the `nft` program can write it in a concatenation.
fn nothing(rule: Rule) -> Rule {
    rule.bitwise(1, [0; 4], [0; 4])
}

/// A chain that elements lead to.
pub fn led_chain(led: &Led, settings: &FlatSettings) -> ChainSpec {
    let rules = match led {
        Led::Treated(treated) => treat(treated, settings),
        Led::Remember(seconds) => remember(*seconds),
    };
    ChainSpec { name: led.name(), hook: None, rules }
}

fn remember(seconds: u32) -> Vec<Rule> {
    let key = Rule::default().source(0).written_destination(1).protocol(2).written_port(3);
    let got = key.destination(4);
    vec![got.dynamic(Dynamic::Update, SETS[AFFINITY].name, 0, 4, seconds)]
}

fn treat(treated: &Treated, settings: &FlatSettings) -> Vec<Rule> {
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
            choose(treated, List::Everywhere, everywhere, &pods, &mut rules);
            let own = Rule::default().only_local(false, 8);
            rules.push(mark(own.clone(), settings));
            choose(treated, List::Everywhere, everywhere, &own, &mut rules);
        }
    }
    match policy {
        Policy::Inside | Policy::Outside => {
            choose(treated, List::Everywhere, everywhere, &anyone, &mut rules);
        }
        Policy::InsideLocal | Policy::OutsideLocal => {
            choose(treated, List::Here, here, &anyone, &mut rules);
        }
    }
    rules
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

/// One of `count` endpoints for whom `who` holds: the one the client had, or any. A chain that
/// looked into the large maps itself would cost a walk over all of their elements when it is made
/// (`nf_tables_bind_set`, net/netfilter/nf_tables_api.c).
fn choose(treated: &Treated, list: List, count: u16, who: &Rule, rules: &mut Vec<Rule>) {
    if count == 0 {
        return rules.push(who.clone().verdict(DROP, ""));
    }
    let node_port = treated.node_port;
    if treated.treatment.sticky {
        rules.push(who.clone().verdict(JUMP, had(list, node_port)));
    }
    let numbered = who.clone().random(u32::from(count), 4).set_priority(4);
    rules.push(numbered.verdict(GOTO, pick(list, node_port)));
}

/// The chain that goes to the endpoint with a number.
fn pick(list: List, node_port: bool) -> &'static str {
    match (list, node_port) {
        (List::Everywhere, false) => "pick",
        (List::Everywhere, true) => "pick-node-port",
        (List::Here, false) => "pick-here",
        (List::Here, true) => "pick-node-port-here",
    }
}

/// The chain that goes to the endpoint the client had, or comes back.
fn had(list: List, node_port: bool) -> &'static str {
    match (list, node_port) {
        (List::Everywhere, false) => "had",
        (List::Everywhere, true) => "had-node-port",
        (List::Here, false) => "had-here",
        (List::Here, true) => "had-node-port-here",
    }
}

fn by_number(list: List, node_port: bool) -> Rule {
    let endpoints = SETS[ENDPOINTS + list as usize].name;
    key(node_port).priority(4).lookup(endpoints, 1, Some(4)).dnat(4, 5)
}

fn by_client(list: List, node_port: bool) -> Vec<Rule> {
    let (affinity, members) = (SETS[AFFINITY].name, SETS[MEMBERS + list as usize].name);
    let client = || front(Rule::default().source(0));
    vec![
        client().lookup(affinity, 0, Some(4)).set_priority(4),
        key(node_port).priority(4).lookup(members, 1, Some(4)).dnat(4, 5),
        // What it had is no endpoint any more.
        client().dynamic(Dynamic::Delete, affinity, 0, 0, 0),
    ]
}

/// The front that elements are about.
fn key(node_port: bool) -> Rule {
    let rule = Rule::default().destination(1);
    let rule = if node_port { nothing(rule) } else { rule };
    rule.protocol(2).destination_port(3)
}
