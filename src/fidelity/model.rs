//! The router as the simulator models it.

use super::connection::{self, Entry, Tuple};
use super::place::Place;
use super::refusals;
use super::step::{
    ADDRESSES, CHAINS, DEFAULT_GATEWAY, KEPT, LEGS, MTU, OWNERS, PAUSE, Router, Rules, SOCKETS,
    Setup, Step, flat_settings, ip, net, route_line,
};
use super::wire;
use super::words::{self, Ports};
use kubesim_actors::ports::network::{Errno, Proto, Route};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatSet, FlatValue};
use kubesim_actors::ports::rules::text::{rule_line, table_name};
use kubesim_actors::ports::rules::{Protocol, Request, Rule, Table};
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::family::V4;
use kubesim_sim::kernel::netfilter::{self, Filter, Netfilter};
use kubesim_sim::kernel::packet::{Frame, Packet, Payload};
use kubesim_sim::kernel::{Kernel, NsId, Output, SocketEvent, SocketId};
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

const HOST: NsId = NsId::HOST;
const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];

#[derive(Clone)]
pub struct Model {
    setup: Setup,
    kernel: Kernel,
    now: Time,
    legs: Vec<u32>,
    sockets: Vec<SocketId>,
    /// Packets that left, and by which leg.
    left: Vec<(usize, Packet)>,
    ports: Ports,
    rules: Written,
    /// What nftables mode has applied.
    elements: FlatSet,
}

fn dice(number: u64) -> Rng {
    Rng::new(Stream { seed: 1, label: "kernel", index: number, incarnation: 0 })
}

impl Model {
    /// Before anything is made in it.
    fn bare(setup: Setup) -> Model {
        Model {
            setup,
            kernel: Kernel::new(dice(0)),
            now: Time::ZERO,
            legs: Vec::new(),
            sockets: Vec::new(),
            left: Vec::new(),
            ports: Ports::default(),
            rules: Written::default(),
            elements: FlatSet::empty(1),
        }
    }

    pub fn new(setup: Setup) -> Result<Model, String> {
        let mut model = Model::bare(setup);
        model.begin().map_err(|errno| format!("making the model: {errno}"))?;
        Ok(model)
    }

    /// From now on other numbers come up.
    pub fn reseed(&mut self, number: u64) {
        self.kernel.set_rng(dice(number));
    }

    fn table(&self) -> Vec<String> {
        let lines = self.kernel.routes_with_source(HOST);
        lines.map(|(route, proto, src)| route_line(&route, proto, src)).collect()
    }

    fn begin(&mut self) -> Result<(), Errno> {
        let (now, mut out) = (self.now, Vec::new());
        for (leg, name) in LEGS.iter().enumerate() {
            let index = self.kernel.add_uplink(name, wire::router_mac(leg), MTU)?;
            self.kernel.set_up(now, HOST, index, true, &mut out)?;
            self.legs.push(index);
        }
        for (owner, port) in (0..).zip(SOCKETS) {
            self.sockets.push(self.kernel.udp_bind(HOST, [0; 4].into(), port, owner)?);
        }
        if let Setup::Router(_) = self.setup {
            self.begin_routing()?;
        }
        Ok(())
    }

    fn begin_routing(&mut self) -> Result<(), Errno> {
        let (now, mut out) = (self.now, Vec::new());
        let kernel = &mut self.kernel;
        for key in ["net.ipv4.conf.all.forwarding", "net.ipv4.icmp_ratelimit"] {
            let value = if key.ends_with("forwarding") { "1" } else { "0" };
            kernel.set_sysctl(now, HOST, key, value, &mut out)?;
        }
        for (leg, address) in ADDRESSES.iter().enumerate() {
            kernel.add_address(now, HOST, self.legs[leg], net(address), &mut out)?;
        }
        let (to, via, dev) = (net("0.0.0.0/0"), Some(ip(DEFAULT_GATEWAY)), LEGS[0].into());
        let route = Route { to, via, dev, onlink: false, metric: 0 };
        kernel.add_route(now, HOST, &route, Proto::STATIC, &mut out)?;
        let Some(tables) = kernel.netfilter_mut(HOST) else { return Err(Errno::Einval) };
        if self.setup == Setup::Router(Rules::Flat) {
            apply_flat(tables, OWNERS[1], FlatSet::empty(2), vec![KEPT], now);
            apply_flat(tables, OWNERS[0], FlatSet::empty(1), Vec::new(), now);
            return Ok(());
        }
        tables.begin().map_err(|_| Errno::Einval)
    }

    /// Elements of a node's own are local ones, as the proxy has it.
    fn apply_elements(&mut self) -> Result<(), String> {
        let (now, shared) = (self.now, self.elements.clone());
        apply_flat(self.netfilter()?, OWNERS[0], shared, Vec::new(), now);
        Ok(())
    }

    fn netfilter(&mut self) -> Result<&mut Netfilter, String> {
        self.kernel.netfilter_mut(HOST).ok_or_else(|| "the model has no rules".to_owned())
    }

    /// What leaves by which leg after a frame came in by one.
    fn inject(&mut self, leg: usize, frame: Frame) -> Vec<String> {
        let mut out = Vec::new();
        self.kernel.receive(self.now, self.legs[leg], frame, &mut out);
        self.settle(out)
    }

    /// As Linux' side does.
    fn settle(&mut self, out: Vec<Output>) -> Vec<String> {
        let (mut seen, mut got) = (Vec::new(), Vec::new());
        let mut out = VecDeque::from(out);
        while let Some(output) = out.pop_front() {
            match output {
                Output::Transmit { link, frame } => {
                    let leg = self.legs.iter().position(|index| *index == link);
                    let Some(leg) = leg else { continue };
                    self.outbound(leg, frame, &mut seen, &mut out);
                }
                Output::Socket { owner, event: SocketEvent::Datagram { from, .. }, .. } => {
                    got.push((owner, from));
                }
                _ => {}
            }
        }
        got.sort_by_key(|(owner, _)| *owner);
        for (owner, from) in got {
            let (port, sport) = (SOCKETS[owner as usize], self.ports.name(from.port()));
            seen.push(format!("socket {port} got something from {}:{sport}", from.ip()));
        }
        if let Setup::Router(_) = self.setup {
            seen.extend(connections::<V4>(&self.kernel, self.now, &mut self.ports));
        }
        seen
    }

    fn outbound(
        &mut self,
        leg: usize,
        frame: Frame,
        seen: &mut Vec<String>,
        out: &mut VecDeque<Output>,
    ) {
        match frame.payload {
            Payload::Ip(packet) => {
                seen.push(wire::departed(leg, frame.dst, &self.ports.packet(&packet)));
                self.left.push((leg, *packet));
            }
            Payload::Arp(arp) => {
                let Some(answer) = wire::arp_answer(leg, &arp) else { return };
                let mut more = Vec::new();
                self.kernel.receive(self.now, self.legs[leg], answer, &mut more);
                out.extend(more);
            }
            Payload::Ip6(_) => {}
        }
    }

    fn send_from(&mut self, port: u16, to: SocketAddrV4, len: u32) -> Result<Vec<String>, String> {
        let at = SOCKETS.iter().position(|socket| *socket == port);
        let socket = self.sockets[at.ok_or("no such socket")?];
        let mut out = Vec::new();
        let sent = self.kernel.udp_send(self.now, socket, None, to, Body::Empty, len, &mut out);
        let mut seen = vec![words::outcome(sent)];
        seen.extend(self.settle(out));
        Ok(seen)
    }
}

fn apply_flat(
    tables: &mut Netfilter,
    owner: &str,
    shared: FlatSet,
    local: Vec<(FlatKey, FlatValue)>,
    now: Time,
) {
    let (owner, settings, local) = (owner.into(), flat_settings(), local.into());
    tables.request(&Request::ApplyFlat { owner, settings, shared, local }, now);
}

fn of_model<F: Place>(entry: &netfilter::Entry<F>, now: Time) -> Entry<F> {
    Entry {
        original: tuple(&entry.original),
        reply: tuple(&entry.reply),
        seen_reply: entry.seen_reply,
        assured: entry.assured,
        src_nat: entry.src_nat,
        dst_nat: entry.dst_nat,
        state: entry.tcp_state().map_or("", netfilter::TcpState::name),
        timeout: connection::whole(entry.expires().since(now).as_secs() as u32),
    }
}

fn tuple<F: Place>(tuple: &netfilter::Tuple<F>) -> Tuple<F> {
    let netfilter::Tuple { src, dst, sport, dport, protocol } = *tuple;
    let protocol = match protocol {
        Protocol::Icmp => F::ICMP,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    Tuple { protocol, src, dst, sport, dport }
}

/// How many rules each chain has got.
#[derive(Clone, Debug, Default)]
pub struct Written(Vec<(Table, SmolStr, usize)>);

impl Written {
    pub fn append<F: Place>(
        &mut self,
        kernel: &mut Kernel,
        table: Table,
        chain: &SmolStr,
        rule: &Rule<F::Addr>,
    ) -> Result<(), String> {
        let tables = F::rules_mut(kernel).ok_or("the model has no rules")?;
        let line = || rule_line(chain, rule);
        tables
            .append(table, chain, rule.clone())
            .map_err(|error| format!("{}: {error}", line()))?;
        self.count(table, chain);
        Ok(())
    }

    /// As a person would; what came of it.
    pub fn attempt<F: Place>(
        &mut self,
        kernel: &mut Kernel,
        table: Table,
        chain: &SmolStr,
        rule: &Rule<F::Addr>,
    ) -> Result<String, String> {
        let tables = F::rules_mut(kernel).ok_or("the model has no rules")?;
        let command = format!("-t {} {}", table_name(table), rule_line(chain, rule));
        let done = tables.command(&command);
        if done.is_ok() {
            self.count(table, chain);
        }
        Ok(refusals::outcome(done))
    }

    fn count(&mut self, table: Table, chain: &SmolStr) {
        let of = |known: &&mut (Table, SmolStr, usize)| known.0 == table && known.1 == *chain;
        match self.0.iter_mut().find(of) {
            Some(known) => known.2 += 1,
            None => self.0.push((table, chain.clone(), 1)),
        }
    }

    pub fn counters<F: Place>(&self, kernel: &Kernel) -> Vec<String> {
        let Some(tables) = F::rules(kernel) else { return Vec::new() };
        let mut found = Vec::new();
        for (table, chain, count) in &self.0 {
            for number in 0..*count {
                let packets = tables.counter(*table, chain, number).unwrap_or_default();
                found.push(format!("{} {chain} {number}: {packets}", table_name(*table)));
            }
        }
        found.sort_unstable();
        found
    }
}

pub fn connections<F: Place>(kernel: &Kernel, now: Time, ports: &mut Ports) -> Vec<String> {
    let all = F::rules(kernel).into_iter().flat_map(Filter::conntrack);
    let live = all.filter(|entry| entry.expires() > now);
    connection::lines(live.map(|entry| of_model(entry, now)).collect(), ports)
}

/// What the real router's tables begin with.
pub trait Begin {
    fn begin(&mut self) -> Result<(), String>;
}

impl<F: Place> Begin for Filter<F> {
    fn begin(&mut self) -> Result<(), String> {
        for table in TABLES {
            CHAINS.iter().try_for_each(|chain| self.new_chain(table, chain))?;
        }
        self.new_chain(Table::Raw, "KEEP")?;
        self.command("-t raw -A KEEP -m conntrack --ctstate UNTRACKED")?;
        self.command("-t nat -A POSTROUTING -j MASQUERADE")?;
        self.command("-t nat -F POSTROUTING")
    }
}

impl Router for Model {
    fn reset(&mut self) -> Result<(), String> {
        *self = Model::bare(self.setup);
        self.begin().map_err(|errno| format!("making the model: {errno}"))
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let (now, mut out) = (self.now, Vec::new());
        let (kernel, out) = (&mut self.kernel, &mut out);
        let done = match step {
            Step::AddAddress(leg, net) => kernel.add_address(now, HOST, self.legs[*leg], *net, out),
            Step::DelAddress(leg, net) => kernel.del_address(now, HOST, self.legs[*leg], *net, out),
            Step::SetUp(leg, up) => kernel.set_up(now, HOST, self.legs[*leg], *up, out),
            Step::Mtu(leg, mtu) => kernel.set_mtu(now, HOST, self.legs[*leg], *mtu, out),
            Step::AddRoute(route, proto) => kernel.add_route(now, HOST, route, *proto, out),
            Step::DelRoute(route, proto) => kernel.del_route(now, HOST, route, *proto, out),
            Step::Sysctl(key, value) => kernel.set_sysctl(now, HOST, key, &value.to_string(), out),
            Step::Get(dst) => {
                let found = kernel.ip_route_get(HOST, *dst);
                return Ok(vec![found.unwrap_or_else(|errno| errno.to_string())]);
            }
            Step::Packet(leg, packet) => {
                return Ok(self.inject(*leg, wire::inbound(*leg, packet)));
            }
            Step::Answer(which, answer) => {
                return Ok(match wire::answer_to(&self.left, *which, *answer) {
                    Some((leg, packet)) => self.inject(leg, wire::inbound(leg, &packet)),
                    None => Vec::new(),
                });
            }
            Step::Send(from, to, port, len) => {
                return self.send_from(*from, SocketAddrV4::new(*to, *port), *len);
            }
            Step::Append(table, chain, rule) => {
                self.rules.append::<V4>(kernel, *table, chain, rule)?;
                return Ok(Vec::new());
            }
            Step::Try(table, chain, rule) => {
                return Ok(vec![self.rules.attempt::<V4>(kernel, *table, chain, rule)?]);
            }
            Step::PolicyDrop(chain) => {
                return self.netfilter()?.set_policy(chain, true).map(|()| Vec::new());
            }
            Step::Elements(elements) => {
                let version = self.elements.version() + 1;
                for (key, value) in elements {
                    self.elements.insert(*key, *value, version);
                }
                return self.apply_elements().map(|()| Vec::new());
            }
            Step::NoElements(keys) => {
                let version = self.elements.version() + 1;
                for key in keys {
                    self.elements.remove(key, version);
                }
                return self.apply_elements().map(|()| Vec::new());
            }
            Step::Lan(_) | Step::Six(_) => return Err(format!("not here: {step}")),
            Step::Counters => return Ok(self.rules.counters::<V4>(kernel)),
            Step::Counted(step) => {
                let mut seen = self.act(step)?;
                seen.extend(self.rules.counters::<V4>(&self.kernel));
                return Ok(seen);
            }
            Step::Pause => {
                self.now = now + PAUSE;
                return Ok(self.settle(Vec::new()));
            }
            Step::Wait(seconds) => {
                self.now = now + Duration::from_secs(u64::from(*seconds));
                return Ok(self.settle(Vec::new()));
            }
        };
        Ok(words::after(done, self.table()))
    }
}
