//! Facts of netfilter, each by a packet or a command.

mod conntrack;
mod kube;
mod port;
mod round_trip;
mod six;
mod walk;

use super::matches::{Key, Scene};
use super::walk::{Outcome, Walk};
use super::*;
use crate::body::Body;
use crate::kernel::packet::{Icmp, L4, Tcp, TcpFlags};
use kubesim_actors::ports::rules::parse::parse_rule;
use kubesim_actors::ports::rules::text;
use kubesim_actors::ports::rules::{BaseRule, Chain, ChainKey, ChainSet, Place, Reply, Request};
use kubesim_runtime::Stream;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub(super) fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

pub(super) fn rng(seed: u64) -> Rng {
    Rng::new(Stream { seed, label: "netfilter", index: 0, incarnation: 0 })
}

pub(super) fn packet(src: &str, dst: &str, l4: L4) -> Packet {
    Packet {
        src: ip(src),
        dst: ip(dst),
        ttl: 64,
        dont_fragment: true,
        len: 60,
        segment: 60,
        l4,
        body: Body::Empty,
        mark: 0,
        ct: Ct::None,
    }
}

pub(super) fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> Packet {
    packet(src, dst, L4::Udp { sport, dport })
}

/// `flags` of `SAFR`.
pub(super) fn tcp(src: &str, sport: u16, dst: &str, dport: u16, flags: &str) -> Packet {
    let has = |c| flags.contains(c);
    let flags = TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
    packet(src, dst, L4::Tcp(Tcp { sport, dport, seq: 0, ack: 0, flags, len: 0 }))
}

pub(super) fn ping(src: &str, dst: &str, id: u16) -> Packet {
    packet(src, dst, L4::Icmp(Icmp::EchoRequest { id, seq: 1 }))
}

/// The answer to a packet, as its receiver writes it.
pub(super) fn answer(to: &Packet) -> Packet {
    let l4 = match &to.l4 {
        L4::Udp { sport, dport } => L4::Udp { sport: *dport, dport: *sport },
        L4::Tcp(tcp) => {
            let mut flags = TcpFlags { ack: true, ..TcpFlags::default() };
            flags.syn = tcp.flags.syn;
            L4::Tcp(Tcp { sport: tcp.dport, dport: tcp.sport, flags, ..*tcp })
        }
        L4::Icmp(Icmp::EchoRequest { id, seq }) => L4::Icmp(Icmp::EchoReply { id: *id, seq: *seq }),
        other => other.clone(),
    };
    Packet { src: to.dst, dst: to.src, l4, ct: Ct::None, mark: 0, ..to.clone() }
}

/// `src:sport > dst:dport`
pub(super) fn shown(packet: &Packet) -> String {
    let (sport, dport) = packet.ports();
    format!("{}:{sport} > {}:{dport}", packet.src, packet.dst)
}

/// A node: its own addresses are `192.168.0.1` (eth0) and `10.1.0.1` (cni0).
pub(super) struct Node {
    pub nf: Netfilter,
    pub rng: Rng,
    pub now: Time,
    pub masquerade_to: Option<Ipv4Addr>,
    pub output: &'static str,
}

impl Node {
    pub fn new() -> Node {
        let masquerade_to = Some(ip("192.168.0.1"));
        let output = "eth0";
        Node { nf: Netfilter::default(), rng: rng(1), now: Time::ZERO, masquerade_to, output }
    }

    pub fn with(commands: &[&str]) -> Node {
        let mut node = Node::new();
        node.run(commands);
        node
    }

    pub fn run(&mut self, commands: &[&str]) {
        for line in commands {
            self.nf.command(line).expect(line);
        }
    }

    pub fn at(&mut self, hook: Hook, packet: &mut Packet) -> Verdict {
        let local = |ip: Ipv4Addr| {
            let own = [[192, 168, 0, 1], [10, 1, 0, 1], [127, 0, 0, 1]];
            if own.contains(&ip.octets()) { AddrType::Local } else { AddrType::Unicast }
        };
        let context = HookContext {
            now: self.now,
            input: matches!(hook, Hook::Prerouting | Hook::Input | Hook::Forward).then_some("cni0"),
            output: matches!(hook, Hook::Postrouting | Hook::Forward).then_some(self.output),
            physdev_in: false,
            sent_on: false,
            has_type: &|ip, is| local(ip) == is,
            masquerade_to: &|_| self.masquerade_to,
        };
        self.nf.hook(hook, packet, &context, &mut self.rng)
    }

    fn through(&mut self, hooks: &[Hook], mut packet: Packet) -> Result<Packet, Verdict> {
        for hook in hooks {
            match self.at(*hook, &mut packet) {
                Verdict::Accept => {}
                other => return Err(other),
            }
        }
        Ok(packet)
    }

    pub fn forward(&mut self, packet: Packet) -> Result<Packet, Verdict> {
        self.through(&[Hook::Prerouting, Hook::Forward, Hook::Postrouting], packet)
    }
    pub fn receive(&mut self, packet: Packet) -> Result<Packet, Verdict> {
        self.through(&[Hook::Prerouting, Hook::Input], packet)
    }
    pub fn send(&mut self, packet: Packet) -> Result<Packet, Verdict> {
        self.through(&[Hook::Output, Hook::Postrouting], packet)
    }

    pub fn apply(&mut self, owner: &str, base: &[BaseRule], shared: &ChainSet) -> Reply {
        let request = Request::Apply {
            owner: owner.into(),
            base: base.into(),
            shared: shared.clone(),
            local: Arc::new([]),
        };
        self.nf.request(&request, self.now)
    }

    pub fn missing(&mut self, owner: &str) -> Vec<String> {
        match self.nf.request(&Request::Verify { owner: owner.into() }, self.now) {
            Reply::Verified { missing, .. } => missing,
            other => panic!("{other:?}"),
        }
    }
}

/// A set from lines `table -A CHAIN …`; a chain without rules is a line `table CHAIN`.
pub(super) fn chains(lines: &[&str], version: u64) -> ChainSet {
    let mut set = ChainSet::empty(1);
    for line in lines {
        let (table, rest) = line.split_once(' ').expect("a table");
        let table = table_named(table);
        let (name, rule) = match parse_rule(rest) {
            Ok((name, rule)) => (name, Some(rule)),
            Err(_) if !rest.starts_with('-') => (rest.into(), None),
            Err(error) => panic!("{error}"),
        };
        let key = ChainKey { table, name };
        let mut rules = set.get(&key).map_or(Vec::new(), |chain| chain.rules.clone());
        rules.extend(rule);
        set.insert(key, Arc::new(Chain { rules }), version);
    }
    set
}

pub(super) fn table_named(name: &str) -> Table {
    let named = table::TABLES.into_iter().find(|table| text::table_name(*table) == name);
    named.expect("a table's name")
}

/// `table place -A CHAIN …`, place `first` or `last`.
pub(super) fn base(lines: &[&str]) -> Vec<BaseRule> {
    let one = |line: &&str| {
        let mut parts = line.splitn(3, ' ');
        let table = table_named(parts.next().expect("a table"));
        let first = parts.next() == Some("first");
        let place = if first { Place::First } else { Place::Last };
        let (chain, rule) = parse_rule(parts.next().expect("a rule")).expect("a rule");
        BaseRule { table, chain, place, rule }
    };
    lines.iter().map(one).collect()
}
