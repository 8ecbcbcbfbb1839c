//! What a story may do to a machine, and how rules are written in it.

use kubesim_actors::ports::rules::parse::parse_rule;
use kubesim_actors::ports::rules::text::table_name;
use kubesim_actors::ports::rules::{
    BaseRule, Chain, ChainKey, ChainSet, Place, Reply, Request, Rule, Table,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// The client, on which the rules are, and the server beside it, its gateway to all else.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// All its addresses.
pub const SERVERS: [Ipv4Addr; 3] = [SERVER, Ipv4Addr::new(10, 9, 0, 3), Ipv4Addr::new(10, 9, 0, 4)];
/// Where the server answers over UDP, and on the first of them over TCP.
pub const PORTS: [u16; 2] = [8080, 8081];

pub const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];

/// A client with rules of its own and a server on one cable.
pub trait Machine {
    fn ask(&mut self, request: Request) -> Reply;
    /// The driver begins a new life; the kernel goes on.
    fn restart(&mut self);
    /// A third party's command, without the program's name.
    fn iptables(&mut self, command: &str);
    /// Whether it takes such a command.
    fn takes(&mut self, command: &str) -> bool;
    /// `nft delete table`, by a third party.
    fn delete_flat(&mut self, owner: &str);
    /// A third party's command. `false`: the model's tables are never changed by halves.
    fn nft(&mut self, command: &str) -> bool;
    /// A third party's command, without the program's name.
    fn ipvsadm(&mut self, command: &str);
    /// Virtual services and endpoints as `ipvsadm -Sn` prints them, sorted, without the flag by
    /// which the driver knows its own.
    fn ipvs(&mut self) -> Vec<String>;
    /// How many connections of a UDP front IPVS remembers to an endpoint of the first port.
    fn connections(&mut self, front: SocketAddrV4, endpoint: Ipv4Addr) -> u64;
    /// `ip link delete`, by a third party.
    fn delete_link(&mut self, name: &str);
    fn wait(&mut self, time: Duration);
    /// As `iptables-save` prints all tables.
    fn save(&mut self) -> String;
    /// Transactions that the driver has written in its life, where it can say.
    fn transactions(&mut self) -> Option<u64>;
    /// Packets that a rule of a built-in chain has matched, by its number from 0.
    fn packets(&mut self, table: Table, chain: &str, number: usize) -> u64;
    /// Sends a datagram from a port of the client: who answers, and from where the server saw it.
    fn udp(&mut self, sport: u16, to: SocketAddrV4) -> Option<Answered>;
    /// Opens a connection and leaves it open.
    fn tcp(&mut self, to: SocketAddrV4) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The address the answer came from, as the client sees it.
    pub by: SocketAddrV4,
    /// The server's port.
    pub at: u16,
}

/// An owner's wishes, from lines as `iptables-save` prints them. Rules in built-in chains go
/// first, or behind all others after the word `last`.
pub fn apply(owner: &str, text: &str, version: u64) -> Request {
    let (mut base, mut shared) = (Vec::new(), ChainSet::empty(1));
    for (key, rules, place) in chains_of(text) {
        if is_built_in(&key.name) {
            let rule = |rule| BaseRule { table: key.table, chain: key.name.clone(), place, rule };
            base.extend(rules.into_iter().map(rule));
        } else {
            shared.insert(key, Arc::new(Chain { rules }), version);
        }
    }
    shared.advance(version);
    Request::Apply { owner: owner.into(), base: base.into(), shared, local: Arc::new([]) }
}

fn chains_of(text: &str) -> Vec<(ChainKey, Vec<Rule>, Place)> {
    let mut table = Table::Filter;
    let mut found: Vec<(ChainKey, Vec<Rule>, Place)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let (place, line) = match line.strip_prefix("last ") {
            Some(rest) => (Place::Last, rest),
            None => (Place::First, line),
        };
        if let Some(name) = line.strip_prefix('*') {
            table = TABLES.into_iter().find(|t| table_name(*t) == name).expect("a table");
        } else if let Some(rest) = line.strip_prefix(':') {
            let name = rest.split(' ').next().expect("a name").into();
            found.push((ChainKey { table, name }, Vec::new(), place));
        } else if line.starts_with('-') {
            let (name, rule) = parse_rule(line).expect(line);
            let key = ChainKey { table, name };
            match found.iter_mut().find(|(k, _, p)| *k == key && *p == place) {
                Some((_, rules, _)) => rules.push(rule),
                None => found.push((key, vec![rule], place)),
            }
        }
    }
    found
}

pub fn is_built_in(name: &str) -> bool {
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&name)
}

/// All rules by chain, `table CHAIN`, with the chains that are empty but for built-in ones.
pub fn rules(saved: &str) -> BTreeMap<String, Vec<String>> {
    let mut table = "";
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in saved.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(name) = line.strip_prefix(':').and_then(|l| l.split(' ').next()) {
            if !is_built_in(name) {
                found.entry(format!("{table} {name}")).or_default();
            }
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let (name, rule) = rest.split_once(' ').unwrap_or((rest, ""));
            found.entry(format!("{table} {name}")).or_default().push(rule.to_owned());
        }
    }
    found
}

pub fn applied(reply: Reply) -> Result<(), String> {
    match reply {
        Reply::Applied { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

/// What an Apply found gone, and has put back.
pub fn put_back(reply: Reply) -> Vec<String> {
    match reply {
        Reply::Applied { missing, result: Ok(()), .. } => missing,
        other => panic!("{other:?}"),
    }
}

/// What is missing of an owner's.
pub fn missing(machine: &mut impl Machine, owner: &str) -> Vec<String> {
    match machine.ask(Request::Verify { owner: owner.into() }) {
        Reply::Verified { intact, missing, .. } => {
            assert_eq!(intact, missing.is_empty());
            missing
        }
        other => panic!("{other:?}"),
    }
}
