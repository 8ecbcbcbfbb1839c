//! Where one client's new connections to one destination may be led, and what keeps them from it:
//! the tables that a packet meets before its destination is decided, walked for it. For judges.
//!
//! Of a test the answer is known (it asks of what is given), or it may hold or not (a mark, dice, a
//! device or source that is anybody's). What may be, counts as a way; what ends a way for certain
//! ends it.

use super::compile::{Action, ChainId, Compiled};
use super::flat::FlatTable;
use super::ipvs::Ipvs;
use super::leads::{Place, Written};
use super::matches::{Test, interface_is, state};
use super::table::{Chained, Owner, Ruleset};
use super::walk::Outcome;
use super::{Hook, Netfilter, State};
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::{AddrType, Match, Protocol, Table};
use kubesim_runtime::Hasher;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// As far as rules tell clients from each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// A program of the machine itself.
    Here,
    /// Who comes in, with the source and the device that a foreign rule asks for, and the device
    /// that it comes in by.
    Outside { source: Option<Ipv4Addr>, input: Option<SmolStr>, via: Option<SmolStr> },
}

/// What a client writes: a destination in full.
#[derive(Clone, Copy, Debug)]
pub struct To {
    pub ip: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

/// Where it may be led.
#[derive(Clone, Debug, Default)]
pub struct Led {
    /// In order, with the foreign rule that each was met by.
    pub to: BTreeMap<Place, Option<String>>,
    /// The foreign rule that what was not led came to its end by.
    pub ended_by: Option<String>,
}

/// The rules of a namespace, ready to be asked about many destinations.
pub struct Ways<'a> {
    state: Option<&'a State>,
    flat: BTreeMap<Written, Vec<Place>>,
    virtuals: BTreeMap<Written, Vec<Place>>,
    /// Rules of long chains by the one destination that they are for, and the others.
    sorted: BTreeMap<ChainId, Sorted>,
}

#[derive(Default)]
struct Sorted {
    to_one: BTreeMap<u32, Vec<usize>>,
    rest: Vec<usize>,
}

/// Two of it are alike only if the rules are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alike {
    parts: Vec<u64>,
    /// Somebody wrote rules by hand.
    pub foreign: bool,
}

/// The tables that a packet meets before its destination is decided, in their order.
const WALKED: [Table; 3] = [Table::Raw, Table::Mangle, Table::Nat];

/// Chains from this length on are sorted.
const LONG: usize = 32;

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Here => f.write_str("the machine's own programs"),
            Client::Outside { source: None, input: None, .. } => f.write_str("who comes in"),
            Client::Outside { source: Some(source), input: None, .. } => write!(f, "{source}"),
            Client::Outside { source: None, input: Some(input), .. } => {
                write!(f, "who comes in by {input}")
            }
            Client::Outside { source: Some(source), input: Some(input), .. } => {
                write!(f, "{source} by {input}")
            }
        }
    }
}

impl Netfilter {
    pub fn ways(&self) -> Ways<'_> {
        let state = self.state.as_deref();
        let flat =
            state.into_iter().flat_map(|state| &state.beside.flat).flat_map(FlatTable::leads);
        let ipvs = state.and_then(|state| state.beside.ipvs.as_deref());
        let mut ways = Ways {
            state,
            flat: by_front(flat),
            virtuals: by_front(ipvs.into_iter().flat_map(Ipvs::leads)),
            sorted: BTreeMap::new(),
        };
        if let Some(state) = state {
            ways.sort(&state.rules);
        }
        ways
    }

    /// What [`Ways::lead`] and [`Netfilter::leads`] depend on, in a machine whose node ports are on
    /// these addresses.
    pub fn alike(&self, node: &[Ipv4Addr]) -> Alike {
        let mut alike = Alike { parts: Vec::new(), foreign: false };
        let Some(state) = self.state.as_deref() else { return alike };
        if let Some(ipvs) = &state.beside.ipvs {
            alike.parts.push(virtuals(ipvs, node));
        }
        let mut reach = Reach { rules: &state.rules, seen: BTreeSet::new(), alike: &mut alike };
        for table in WALKED {
            for hook in [Hook::Prerouting, Hook::Output] {
                reach.own(state.rules.built_in(table, hook));
            }
        }
        alike.parts.extend(state.beside.flat.iter().flat_map(FlatTable::alike));
        alike
    }
}

/// One number for where virtual services lead, whatever a node's own addresses are and in whichever
/// order they make its node ports come.
fn virtuals(ipvs: &Ipvs, node: &[Ipv4Addr]) -> u64 {
    let leads = ipvs.leads().map(|(front, (ip, port))| {
        let own = node.iter().position(|own| *own == front.ip);
        let mut hasher = Hasher::default();
        hasher.u64(own.map_or(u64::from(front.ip.to_bits()), |at| 1 << 32 | at as u64));
        hasher.u64((front.protocol as u64) << 32 | u64::from(front.port) << 16 | u64::from(port));
        hasher.u64(u64::from(ip.to_bits()));
        hasher.finish()
    });
    leads.fold(0, u64::wrapping_add)
}

/// The chains that the walked ones lead to. What an owner shares with other machines counts as a
/// whole.
struct Reach<'a> {
    rules: &'a Ruleset,
    seen: BTreeSet<ChainId>,
    alike: &'a mut Alike,
}

impl Reach<'_> {
    fn own(&mut self, chain: &Chained) {
        let foreign = (0..chain.entries().len()).any(|at| self.rules.is_foreign(chain, at));
        self.alike.foreign |= foreign;
        self.compiled(chain.compiled());
    }

    fn compiled(&mut self, chain: &Compiled) {
        self.alike.parts.push(std::ptr::from_ref(chain) as u64);
        for rule in &chain.rules {
            if let Action::Jump(to) | Action::Goto(to) = rule.action {
                self.jump(to);
            }
        }
    }

    fn jump(&mut self, to: ChainId) {
        if !self.seen.insert(to) {
            return;
        }
        let rules = self.rules;
        if let Some(chain) = rules.user.get(&to) {
            return self.own(chain);
        }
        let of = |owner: &&Owner| owner.local.contains_key(&to) || owner.compiled.get(to).is_some();
        let Some(owner) = rules.owners.iter().find(of) else { return };
        match owner.local.get(&to) {
            Some(local) => self.compiled(&local.compiled),
            None => self.shared(owner),
        }
    }

    fn shared(&mut self, owner: &Owner) {
        let set = Arc::as_ptr(&owner.compiled) as u64;
        if self.alike.parts.contains(&set) {
            return;
        }
        self.alike.parts.push(set);
        self.alike.parts.extend(owner.flushed.map(u64::from));
        // It may lead out of itself, and this machine may have chains in the place of some of it.
        let instead = owner.local.keys().chain(self.rules.user.keys());
        let instead = instead.copied().filter(|id| owner.compiled.get(*id).is_some());
        for id in owner.compiled.unresolved().map(|(id, _)| id).chain(instead) {
            self.jump(id);
        }
    }
}

fn by_front(leads: impl Iterator<Item = (Front, Place)>) -> BTreeMap<Written, Vec<Place>> {
    let mut by_front: BTreeMap<Written, Vec<Place>> = BTreeMap::new();
    for (front, to) in leads {
        by_front.entry(front.into()).or_default().push(to);
    }
    by_front
}

impl Ways<'_> {
    fn sort(&mut self, rules: &Ruleset) {
        let long = |chain: &Compiled| chain.table == Table::Nat && chain.rules.len() >= LONG;
        for (id, chain) in rules.standing() {
            if !long(chain) {
                continue;
            }
            let mut sorted = Sorted::default();
            for (number, rule) in chain.rules.iter().enumerate() {
                let one = chain.tests(rule).iter().find_map(|test| match test {
                    Test::Destination { addr, mask: u32::MAX, not: false } => Some(*addr),
                    _ => None,
                });
                match one {
                    Some(ip) => sorted.to_one.entry(ip).or_default().push(number),
                    None => sorted.rest.push(number),
                }
            }
            self.sorted.insert(id, sorted);
        }
    }

    /// The clients that the rules may treat differently: those of no special kind first.
    pub fn clients(&self) -> Vec<Client> {
        let anybody = Client::Outside { source: None, input: None, via: None };
        let mut clients = vec![anybody, Client::Here];
        let Some(state) = self.state else { return clients };
        let incoming = WALKED.map(|table| state.rules.built_in(table, Hook::Prerouting));
        let users = state.rules.user.values().filter(|chain| chain.key.table != Table::Filter);
        for chain in incoming.into_iter().chain(users) {
            for number in 0..chain.entries().len() {
                if !state.rules.is_foreign(chain, number) {
                    continue;
                }
                let matches = &chain.entries()[number].rule.matches;
                let source = matches.iter().find_map(|found| match found {
                    Match::Source { net, not: false } => net.hosts().next(),
                    _ => None,
                });
                let input = matches.iter().find_map(|found| match found {
                    Match::InInterface { name, not: false } => {
                        Some(name.strip_suffix('+').unwrap_or(name).into())
                    }
                    _ => None,
                });
                let client = Client::Outside { source, input, via: None };
                if !clients.contains(&client) {
                    clients.push(client);
                }
            }
        }
        clients
    }

    /// Where the client's first packet may be led on a machine with these addresses.
    pub fn lead(&self, client: &Client, to: To, own: &[Ipv4Addr]) -> Led {
        let Some(state) = self.state else { return Led::default() };
        let hook = if *client == Client::Here { Hook::Output } else { Hook::Prerouting };
        let (path, by) = (Vec::new(), None);
        let mut walk = Walk {
            ways: self,
            rules: &state.rules,
            client,
            to,
            own,
            path,
            by,
            led: Led::default(),
            untracked: None,
        };
        for table in WALKED {
            let first = state.rules.built_in(table, hook);
            if table == Table::Nat && walk.untracked.is_some() {
                walk.led.ended_by = walk.untracked.take().flatten();
                return walk.led;
            }
            match walk.chain(first.compiled(), Some(first), None) {
                Ends::No | Ends::With(Outcome::Accept) => {}
                Ends::With(_) => return walk.led,
            }
        }
        let node_port = Written { ip: None, ..to.into() };
        let flat = self.flat.get(&to.into());
        let flat = flat.or_else(|| self.flat.get(&node_port).filter(|_| own.contains(&to.ip)));
        let virtuals = self.virtuals.get(&to.into());
        let mut led = walk.led;
        for place in flat.into_iter().chain(virtuals).flatten() {
            led.to.entry(*place).or_default();
        }
        led
    }
}

impl From<To> for Written {
    fn from(to: To) -> Self {
        Written { ip: Some(to.ip), protocol: Some(to.protocol), port: Some(to.port) }
    }
}

/// Whether a packet's way through a table is certainly over.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    No,
    With(Outcome),
}

struct Walk<'a> {
    ways: &'a Ways<'a>,
    rules: &'a Ruleset,
    client: &'a Client,
    to: To,
    own: &'a [Ipv4Addr],
    path: Vec<ChainId>,
    /// The last foreign rule on the way to where it is.
    by: Option<(&'a Chained, usize)>,
    led: Led,
    /// Conntrack does not see it, nor does NAT, and by whose rule.
    untracked: Option<Option<String>>,
}

impl<'a> Walk<'a> {
    fn chain(
        &mut self,
        chain: &'a Compiled,
        own: Option<&'a Chained>,
        id: Option<ChainId>,
    ) -> Ends {
        let sorted = id.and_then(|id| self.ways.sorted.get(&id));
        let numbers = match sorted {
            None => (0..chain.rules.len()).collect(),
            Some(sorted) => {
                let here = sorted.to_one.get(&self.to.ip.to_bits()).into_iter().flatten();
                let mut numbers: Vec<usize> = here.chain(&sorted.rest).copied().collect();
                numbers.sort_unstable();
                numbers
            }
        };
        for number in numbers {
            let rule = &chain.rules[number];
            let Some(certain) = self.holds(chain.table, chain.tests(rule)) else { continue };
            let before = self.by;
            if let Some(own) = own.filter(|own| self.rules.is_foreign(own, number)) {
                self.by = Some((own, number));
            }
            let ends = match rule.action {
                Action::Jump(id) => self.enter(id),
                Action::Goto(id) => match self.enter(id) {
                    Ends::No if certain => {
                        self.by = before;
                        return Ends::No;
                    }
                    ends => ends,
                },
                Action::Return if certain => {
                    self.note_end();
                    self.by = before;
                    return Ends::No;
                }
                Action::End(outcome) => self.end(outcome, certain),
                Action::NoTrack if certain => {
                    self.untracked = Some(self.named());
                    Ends::No
                }
                _ => Ends::No,
            };
            self.by = before;
            if certain && ends != Ends::No {
                return ends;
            }
        }
        Ends::No
    }

    fn enter(&mut self, id: ChainId) -> Ends {
        if self.path.contains(&id) {
            return Ends::No;
        }
        let Some(next) = self.rules.find(id) else { return Ends::No };
        self.path.push(id);
        let ends = self.chain(next.chain, self.rules.user.get(&id), Some(id));
        self.path.pop();
        ends
    }

    fn end(&mut self, outcome: Outcome, certain: bool) -> Ends {
        match outcome {
            Outcome::Dnat { to, port } => {
                let by = self.named();
                self.led.to.entry((to, port.unwrap_or(self.to.port))).or_insert(by);
            }
            _ if certain => self.note_end(),
            _ => {}
        }
        Ends::With(outcome)
    }

    /// A foreign rule keeps the packet from those behind it.
    fn note_end(&mut self) {
        if let Some(by) = self.named() {
            self.led.ended_by = Some(by);
        }
    }

    fn named(&self) -> Option<String> {
        self.by.map(|(chain, number)| chain.told(number))
    }

    /// Whether the tests hold for certain (`true`), or may; `None` if they do not.
    fn holds(&self, table: Table, tests: &[Test]) -> Option<bool> {
        let mut certain = true;
        for test in tests {
            certain &= match self.answer(table, test) {
                Some(false) => return None,
                Some(true) => true,
                None => false,
            };
        }
        Some(certain)
    }

    /// A test's answer where it is known.
    fn answer(&self, table: Table, test: &Test) -> Option<bool> {
        let (source, input) = match self.client {
            Client::Here => (None, Some("")),
            Client::Outside { source, input, via } => {
                (*source, via.as_deref().or(input.as_deref()))
            }
        };
        let local = |ip: &Ipv4Addr| ip.is_loopback() || self.own.contains(ip);
        Some(match test {
            Test::Source { addr, mask, not } if *mask == 0 => (*addr == 0) != *not,
            Test::Source { addr, mask, not } => (source?.to_bits() & mask == *addr) != *not,
            Test::Destination { addr, mask, not } => (self.to.ip.to_bits() & mask == *addr) != *not,
            Test::Protocol { is, not } => (self.to.protocol == *is) != *not,
            Test::DestinationPort { from, to, not } => {
                (*from..=*to).contains(&self.to.port) != *not
            }
            Test::InInterface { name, not } => interface_is(Some(input?), name) != *not,
            Test::OutInterface { name, not } if *self.client != Client::Here => {
                interface_is(None, name) != *not
            }
            Test::DestinationType { is: AddrType::Local, not } => local(&self.to.ip) != *not,
            Test::SourceType { is: AddrType::Local, not } => (*self.client == Client::Here) != *not,
            // It is the first packet of its connection; the raw table comes before that is known.
            Test::CtState { any, not } if table != Table::Raw && self.untracked.is_none() => {
                (any & state::NEW != 0) != *not
            }
            // Whichever port a client is given (net.ipv4.ip_local_port_range).
            Test::SourcePort { from: ..=32_768, to: 60_999.., not } => !*not,
            // Asking changes a list, and always holds.
            Test::RecentSet { .. } => true,
            _ => return None,
        })
    }
}
