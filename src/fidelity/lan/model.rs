//! As the simulator models it.

use super::neighbour_line;
use super::{Act, BEHIND, BRIDGE, Lan, OWN_MAC, PAUSE, Seen, VNI, VXLAN, fdb_line, local};
use crate::fidelity::frame::VXLAN_PORT;
use crate::fidelity::model::{Begin, Written, connections};
use crate::fidelity::step::{LEGS, Router, SOCKETS, Step, ip, net};
use crate::fidelity::{wire, words};
use kubesim_actors::ports::network::{Errno, Proto, Request, Route, Vxlan};
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::family::V4;
use kubesim_sim::kernel::packet::{Frame, Payload};
use kubesim_sim::kernel::{Kernel, NeighbourState, NsId, Output, SocketEvent, SocketId};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

const HOST: NsId = NsId::HOST;

fn dice(number: u64) -> Rng {
    Rng::new(Stream { seed: 1, label: "kernel", index: number, incarnation: 0 })
}

#[derive(Clone)]
pub struct Model {
    lan: Lan,
    kernel: Kernel,
    now: Time,
    legs: Vec<u32>,
    sockets: Vec<SocketId>,
    seen: Seen,
    rules: Written,
}

impl Model {
    pub fn new(lan: Lan) -> Result<Model, String> {
        let mut model = Model {
            lan,
            kernel: Kernel::new(dice(0)),
            // Long enough ago for all that Linux compares with what never was.
            now: Time::from_secs(1000),
            legs: Vec::new(),
            sockets: Vec::new(),
            seen: Seen::default(),
            rules: Written::default(),
        };
        model.reset()?;
        Ok(model)
    }

    /// From now on other numbers come up.
    pub fn reseed(&mut self, number: u64) {
        self.kernel.set_rng(dice(number));
    }

    fn begin(&mut self) -> Result<(), Errno> {
        let (now, mut out) = (self.now, Vec::new());
        let (kernel, out) = (&mut self.kernel, &mut out);
        for key in ["net.ipv4.conf.all.forwarding", "net.ipv4.icmp_ratelimit"] {
            let value = if key.ends_with("forwarding") { "1" } else { "0" };
            kernel.set_sysctl(now, HOST, key, value, out)?;
        }
        for (leg, name) in LEGS.iter().enumerate() {
            let index = kernel.add_uplink(name, wire::router_mac(leg), 1500)?;
            kernel.set_up(now, HOST, index, true, out)?;
            self.legs.push(index);
        }
        if self.lan.has_bridge() {
            let bridge = kernel.add_bridge(HOST, BRIDGE, OWN_MAC, 1500)?;
            kernel.set_up(now, HOST, bridge, true, out)?;
            for leg in &self.legs {
                kernel.set_master(now, HOST, *leg, Some(bridge), out)?;
            }
        }
        if self.lan == Lan::Vxlan {
            let (vni, port, local) = (VNI, VXLAN_PORT, local());
            let spec =
                Vxlan { vni, port, local, mac: OWN_MAC, mtu: 1450, address: net("10.9.0.1/24") };
            let index = kernel.add_vxlan(HOST, VXLAN, &spec)?;
            kernel.set_up(now, HOST, index, true, out)?;
        }
        for (name, net) in self.lan.addresses() {
            let link = kernel.link(HOST, name).map(|link| link.index).ok_or(Errno::Enodev)?;
            kernel.add_address(now, HOST, link, net, out)?;
        }
        if self.lan == Lan::Vxlan {
            for (to, via) in BEHIND {
                let (to, via, dev) = (net(to), Some(ip(via)), VXLAN.into());
                let route = Route { to, via, dev, onlink: true, metric: 0 };
                kernel.add_route(now, HOST, &route, Proto::STATIC, out)?;
            }
        }
        if self.lan == Lan::Filtered {
            kernel.set_sysctl(now, HOST, "net.bridge.bridge-nf-call-iptables", "1", out)?;
            let Some(tables) = kernel.netfilter_mut(HOST) else { return Err(Errno::Einval) };
            tables.begin().map_err(|_| Errno::Einval)?;
        }
        for (owner, port) in (0..).zip(SOCKETS) {
            self.sockets.push(kernel.udp_bind(HOST, Ipv4Addr::UNSPECIFIED, port, owner)?);
        }
        Ok(())
    }

    fn inject(&mut self, leg: usize, frame: Frame) -> Vec<String> {
        let mut out = Vec::new();
        self.kernel.receive(self.now, self.legs[leg], frame, &mut out);
        self.settle(out)
    }

    /// By leg, as Linux' side reads it.
    fn settle(&mut self, out: Vec<Output>) -> Vec<String> {
        let (mut seen, mut got) = (Vec::new(), Vec::new());
        let mut out = VecDeque::from(out);
        while let Some(output) = out.pop_front() {
            match output {
                Output::Transmit { link, frame } => {
                    let leg = self.legs.iter().position(|index| *index == link);
                    let Some(leg) = leg else { continue };
                    if self.lan.answers()
                        && let Payload::Arp(arp) = &frame.payload
                    {
                        if let Some(answer) = wire::arp_answer(leg, arp) {
                            let mut more = Vec::new();
                            self.kernel.receive(self.now, link, answer, &mut more);
                            out.extend(more);
                        }
                        continue;
                    }
                    seen.push((leg, frame));
                }
                Output::Socket { owner, event: SocketEvent::Datagram { from, .. }, .. } => {
                    got.push(format!(
                        "socket {} got something from {from}",
                        SOCKETS[owner as usize]
                    ));
                }
                _ => {}
            }
        }
        seen.sort_by_key(|(leg, frame)| super::place(*leg, Some(frame)));
        got.sort_unstable();
        let words = |(leg, frame): (usize, Frame)| self.seen.frame(leg, &frame);
        let mut seen: Vec<String> = seen.into_iter().map(words).collect();
        seen.extend(got);
        seen.extend(self.tables());
        if self.lan == Lan::Filtered {
            seen.extend(connections::<V4>(&self.kernel, self.now, &mut self.seen.ports));
        }
        seen
    }

    fn tables(&self) -> Vec<String> {
        let name = |index: u32| {
            let link = self.kernel.links(HOST).find(|link| link.index == index);
            link.map_or_else(String::new, |link| link.name.to_string())
        };
        let mut lines: Vec<String> = Vec::new();
        for entry in self.kernel.neighbours(HOST) {
            let state = state_name(entry.state);
            lines.push(neighbour_line(entry.ip, &name(entry.dev), entry.mac, state));
        }
        if let Some(bridge) = self.kernel.link(HOST, BRIDGE) {
            let entries = self.kernel.fdb(HOST, bridge.index);
            lines.extend(entries.iter().map(|(mac, port, _)| fdb_line(*mac, &name(*port))));
        }
        lines.sort_unstable();
        lines
    }

    fn act_on(&mut self, act: &Act) -> Result<Vec<String>, String> {
        let (now, mut out) = (self.now, Vec::new());
        let done = match act {
            Act::Frame(leg, frame) => return Ok(self.inject(*leg, (**frame).clone())),
            Act::Tell(which, mac) => {
                return Ok(match self.seen.answer(*which, *mac) {
                    Some((leg, frame)) => self.inject(leg, frame),
                    None => Vec::new(),
                });
            }
            Act::Port(leg, joins) => {
                let bridge = self.kernel.link(HOST, BRIDGE).map(|link| link.index);
                let bridge = bridge.filter(|_| *joins);
                self.kernel.set_master(now, HOST, self.legs[*leg], bridge, &mut out)
            }
            Act::Hairpin(leg, on) => self.kernel.set_hairpin(HOST, self.legs[*leg], *on),
            Act::Fdb(entries) => {
                let (dev, entries) = (VXLAN.into(), entries.clone().into());
                self.kernel.network(now, &Request::SetFdb { dev, entries }, &mut out);
                Ok(())
            }
            Act::Permanent(neighbours) => {
                let (dev, entries) = (VXLAN.into(), neighbours.clone().into());
                self.kernel.network(now, &Request::SetNeighbours { dev, entries }, &mut out);
                Ok(())
            }
            Act::Pause => {
                let end = now + PAUSE;
                while let Some(at) = self.kernel.next_deadline().filter(|at| *at <= end) {
                    self.now = at;
                    self.kernel.timeout(at, &mut out);
                }
                self.now = end;
                Ok(())
            }
        };
        Ok(self.after(done, out))
    }

    fn after(&mut self, done: Result<(), Errno>, out: Vec<Output>) -> Vec<String> {
        let mut seen = vec![words::outcome(done)];
        seen.extend(self.settle(out));
        seen
    }
}

/// As `ip neigh` has it.
pub fn state_name(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Incomplete => "INCOMPLETE",
        NeighbourState::Reachable => "REACHABLE",
        NeighbourState::Stale => "STALE",
        NeighbourState::Delay => "DELAY",
        NeighbourState::Probe => "PROBE",
        NeighbourState::Failed => "FAILED",
        NeighbourState::Permanent => "PERMANENT",
    }
}

impl Router for Model {
    fn reset(&mut self) -> Result<(), String> {
        self.kernel = Kernel::new(dice(0));
        self.now = Time::from_secs(1000);
        (self.legs, self.sockets, self.seen, self.rules) = Default::default();
        self.begin().map_err(|errno| format!("making the model: {errno}"))
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let (now, mut out) = (self.now, Vec::new());
        let done = match step {
            Step::Lan(act) => return self.act_on(act),
            Step::Append(table, chain, rule) => {
                self.rules.append::<V4>(&mut self.kernel, *table, chain, rule)?;
                return Ok(Vec::new());
            }
            Step::Counters => return Ok(self.rules.counters::<V4>(&self.kernel)),
            Step::Packet(leg, packet) => {
                return Ok(self.inject(*leg, wire::inbound(*leg, packet)));
            }
            Step::SetUp(leg, up) => self.kernel.set_up(now, HOST, self.legs[*leg], *up, &mut out),
            Step::Sysctl(key, value) => {
                self.kernel.set_sysctl(now, HOST, key, &value.to_string(), &mut out)
            }
            Step::Send(from, to, port, len) => {
                let at = SOCKETS.iter().position(|socket| socket == from);
                let socket = self.sockets[at.ok_or("no such socket")?];
                let to = SocketAddrV4::new(*to, *port);
                self.kernel.udp_send(now, socket, None, to, Body::Empty, *len, &mut out)
            }
            other => return Err(format!("not here: {other}")),
        };
        Ok(self.after(done, out))
    }
}
