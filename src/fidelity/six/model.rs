//! As the simulator models it.

use super::filter::default_route;
use super::{Act, Seen, Six, answer, asked, got_line, inbound, neighbour_line, net, place};
use crate::fidelity::lan::PAUSE;
use crate::fidelity::lan::model::state_name;
use crate::fidelity::model::{Begin, Written, connections};
use crate::fidelity::step::{LEGS, Router, SOCKETS, Step};
use crate::fidelity::{step, wire, words};
use kubesim_actors::ports::network::{Errno, Proto};
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::family::V6;
use kubesim_sim::kernel::packet::{Frame, Packet, Payload};
use kubesim_sim::kernel::{Kernel, NsId, Output, Placing, SocketEvent, SocketId};
use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

const HOST: NsId = NsId::HOST;
const SYSCTLS: [&str; 2] = ["net.ipv6.conf.all.disable_ipv6", "net.ipv6.icmp.ratelimit"];

#[derive(Clone)]
pub struct Model {
    six: Six,
    kernel: Kernel,
    now: Time,
    legs: Vec<u32>,
    sockets: Vec<SocketId>,
    seen: Seen,
    /// Packets that left, and by which leg.
    left: Vec<(usize, Packet<V6>)>,
    rules: Written,
}

impl Model {
    pub fn new(six: Six) -> Result<Model, String> {
        let (legs, sockets, seen, left, rules) = Default::default();
        // Long enough ago for all that Linux compares with what never was.
        let now = Time::from_secs(1000);
        let kernel = Kernel::new(dice(0));
        let mut model = Model { six, kernel, now, legs, sockets, seen, left, rules };
        model.reset()?;
        Ok(model)
    }

    fn begin(&mut self) -> Result<(), Errno> {
        let (now, mut out) = (self.now, Vec::new());
        for key in SYSCTLS {
            self.kernel.set_sysctl(now, HOST, key, "0", &mut out)?;
        }
        for (leg, name) in LEGS.iter().enumerate() {
            let index = self.kernel.add_uplink(name, wire::router_mac(leg), 1500)?;
            self.kernel.set_up(now, HOST, index, true, &mut out)?;
            self.legs.push(index);
        }
        for (leg, address) in self.legs.iter().zip(self.six.addresses()) {
            self.kernel.add_address6(now, HOST, *leg, net(address), &mut out)?;
        }
        for (owner, port) in (0..).zip(SOCKETS) {
            let socket = self.kernel.udp6_bind(HOST, Ipv6Addr::UNSPECIFIED, port, owner)?;
            self.sockets.push(socket);
        }
        if let Six::Filtered(_) = self.six {
            let key = "net.ipv6.conf.all.forwarding";
            self.kernel.set_sysctl(now, HOST, key, "1", &mut out)?;
            let route = (&default_route(), Proto::STATIC);
            self.kernel.add_route6(now, HOST, route, Placing::Alone, &mut out)?;
            let tables = self.kernel.netfilter6_mut(HOST).ok_or(Errno::Einval)?;
            tables.begin().map_err(|_| Errno::Einval)?;
        }
        Ok(())
    }

    /// From now on other numbers come up.
    pub fn reseed(&mut self, number: u64) {
        self.kernel.set_rng(dice(number));
    }

    /// What only a router with rules has.
    fn filter(&mut self, step: &Step) -> Result<Option<Vec<String>>, String> {
        let kernel = &mut self.kernel;
        Ok(Some(match step {
            Step::Six(Act::Append(table, chain, rule)) => {
                self.rules.append::<V6>(kernel, *table, chain, rule)?;
                Vec::new()
            }
            Step::Six(Act::Try(table, chain, rule)) => {
                vec![self.rules.attempt::<V6>(kernel, *table, chain, rule)?]
            }
            Step::Six(Act::Answer(which, answer)) => {
                match wire::answer_to(&self.left, *which, *answer) {
                    Some((leg, packet)) => self.inject(leg, inbound(leg, &packet)),
                    None => Vec::new(),
                }
            }
            Step::PolicyDrop(chain) => {
                let tables = kernel.netfilter6_mut(HOST).ok_or("the model has no rules")?;
                tables.set_policy(chain, true)?;
                Vec::new()
            }
            Step::Counters => self.rules.counters::<V6>(kernel),
            Step::Counted(step) => {
                let mut seen = self.act(step)?;
                seen.extend(self.rules.counters::<V6>(&self.kernel));
                seen
            }
            Step::Pause => {
                self.now += step::PAUSE;
                self.settle(Vec::new())
            }
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(u64::from(*seconds));
                self.settle(Vec::new())
            }
            _ => return Ok(None),
        }))
    }

    fn inject(&mut self, leg: usize, frame: Frame) -> Vec<String> {
        let mut out = Vec::new();
        self.kernel.receive(self.now, self.legs[leg], frame, &mut out);
        self.settle(out)
    }

    /// By leg, as Linux' side reads it.
    fn settle(&mut self, out: Vec<Output>) -> Vec<String> {
        let (mut seen, mut got, mut out) = (Vec::new(), Vec::new(), VecDeque::from(out));
        while let Some(output) = out.pop_front() {
            let (link, frame) = match output {
                Output::Transmit { link, frame } => (link, frame),
                Output::Socket { owner, event: SocketEvent::Datagram6 { from, .. }, .. } => {
                    got.push((owner, from));
                    continue;
                }
                _ => continue,
            };
            let Some(leg) = self.legs.iter().position(|index| *index == link) else { continue };
            match asked(&frame).filter(|_| self.six.answers()) {
                None => seen.push((leg, frame)),
                Some(question) => {
                    let mut more = Vec::new();
                    let answer = answer(leg, question, None);
                    self.kernel.receive(self.now, link, answer, &mut more);
                    out.extend(more);
                }
            }
        }
        seen.sort_by_key(|(leg, frame)| place(*leg, Some(frame)));
        let mut lines: Vec<String> = Vec::new();
        for (leg, frame) in seen {
            lines.push(match (self.six.answers(), &frame.payload) {
                (true, Payload::Ip6(packet)) => {
                    self.left.push((leg, (**packet).clone()));
                    self.seen.packet(leg, frame.dst, packet)
                }
                _ => self.seen.frame(leg, &frame),
            });
        }
        got.sort_by_key(|(owner, _)| *owner);
        for (owner, from) in got {
            let sport = self.seen.ports.name(from.port());
            lines.push(got_line(SOCKETS[owner as usize], *from.ip(), &sport));
        }
        lines.extend(self.neighbours());
        if let Six::Filtered(_) = self.six {
            lines.extend(connections::<V6>(&self.kernel, self.now, &mut self.seen.ports));
        }
        lines
    }

    fn neighbours(&self) -> Vec<String> {
        if self.six.answers() {
            return Vec::new();
        }
        let name = |index: u32| {
            let leg = self.legs.iter().position(|leg| *leg == index);
            leg.map_or("lo", |leg| LEGS[leg])
        };
        let lines = self.kernel.neighbours6(HOST).map(|(entry, router)| {
            let state = state_name(entry.state);
            neighbour_line(entry.ip, name(entry.dev), entry.mac, state, router)
        });
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        lines
    }

    fn act_on(&mut self, act: &Act) -> Result<Vec<String>, String> {
        let (now, mut out) = (self.now, Vec::new());
        let (kernel, legs) = (&mut self.kernel, &self.legs);
        let done = match act {
            Act::AddAddress(leg, net) => kernel.add_address6(now, HOST, legs[*leg], *net, &mut out),
            Act::DelAddress(leg, net) => kernel.del_address6(now, HOST, legs[*leg], *net, &mut out),
            Act::AddRoute(placing, route, proto) => {
                kernel.add_route6(now, HOST, (route, *proto), *placing, &mut out)
            }
            Act::DelRoute(route, proto) => kernel.del_route6(now, HOST, route, *proto, &mut out),
            Act::Get(dst) => {
                let found = kernel.ip_route_get6(HOST, *dst);
                return Ok(vec![found.unwrap_or_else(|errno| errno.to_string())]);
            }
            Act::Send(from, to, port) => {
                let at = SOCKETS.iter().position(|socket| socket == from);
                let socket = self.sockets[at.ok_or("no such socket")?];
                let sent = kernel.udp6_send(now, socket, (*to, *port), Body::Empty, 0, &mut out);
                let mut seen = vec![words::outcome(sent)];
                seen.extend(self.settle(out));
                return Ok(seen);
            }
            Act::Packet(leg, packet) => return Ok(self.inject(*leg, inbound(*leg, packet))),
            Act::Frame(leg, frame) => return Ok(self.inject(*leg, (**frame).clone())),
            Act::Tell(which, mac) => {
                return Ok(match self.seen.answer(*which, *mac) {
                    Some((leg, frame)) => self.inject(leg, frame),
                    None => Vec::new(),
                });
            }
            Act::Pause => {
                let end = now + PAUSE;
                while let Some(at) = kernel.next_deadline().filter(|at| *at <= end) {
                    self.now = at;
                    kernel.timeout(at, &mut out);
                }
                self.now = end;
                return Ok(self.settle(out));
            }
            Act::Append(..) | Act::Try(..) | Act::Answer(..) => {
                return Err(format!("not without rules: {act}"));
            }
        };
        Ok(self.after(done, out))
    }

    /// What came of a change, and the tables in their order.
    fn after(&mut self, done: Result<(), Errno>, out: Vec<Output>) -> Vec<String> {
        let mut seen = vec![words::outcome(done)];
        seen.extend(self.settle(out));
        seen.extend(self.kernel.ip_route6(HOST));
        seen
    }
}

fn dice(number: u64) -> Rng {
    Rng::new(Stream { seed: 1, label: "kernel", index: number, incarnation: 0 })
}

impl Router for Model {
    fn reset(&mut self) -> Result<(), String> {
        self.kernel = Kernel::new(dice(0));
        self.now = Time::from_secs(1000);
        (self.legs, self.sockets, self.seen) = Default::default();
        (self.left, self.rules) = Default::default();
        self.begin().map_err(|errno| format!("making the model: {errno}"))
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        if let Six::Filtered(_) = self.six
            && let Some(seen) = self.filter(step)?
        {
            return Ok(seen);
        }
        let (now, mut out) = (self.now, Vec::new());
        let done = match step {
            Step::Six(act) => return self.act_on(act),
            Step::SetUp(leg, up) => self.kernel.set_up(now, HOST, self.legs[*leg], *up, &mut out),
            Step::Mtu(leg, mtu) => self.kernel.set_mtu(now, HOST, self.legs[*leg], *mtu, &mut out),
            Step::Sysctl(key, value) => {
                self.kernel.set_sysctl(now, HOST, key, &value.to_string(), &mut out)
            }
            other => return Err(format!("not here: {other}")),
        };
        Ok(self.after(done, out))
    }
}
