//! Kernels joined back to back by a wire, and what they do to each other.

mod fidelity;
mod fidelity6;
mod fidelity_lan;
mod fidelity_rules;
mod heed;
mod hosts;
mod ipvs;
mod pods;
mod route_table;
mod tcp;
mod wireguard;

use super::packet::{Frame, L4, Packet, Payload};
use super::{Kernel, NsId, Output, SocketEvent, SocketId};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, Mac, Proto, Route};
use kubesim_runtime::{Rng, Stream, Time};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

pub fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}
pub fn net(text: &str) -> Ipv4Net {
    text.parse().expect("a network")
}
pub fn at(text: &str) -> SocketAddrV4 {
    text.parse().expect("an address and a port")
}
pub fn route(to: &str, via: Option<&str>, dev: &str) -> Route {
    let (to, via) = (net(to), via.map(ip));
    Route { to, via, dev: dev.into(), onlink: false, metric: 0 }
}
pub fn kernel(index: u64) -> Kernel {
    Kernel::new(Rng::new(Stream { seed: 1, label: "kernel", index, incarnation: 0 }))
}
pub const ETH0: u32 = 2;

/// Whether the frame that leaves this kernel is lost.
type Lose = dyn FnMut(usize, &Frame) -> bool;

/// Machines and the cables between their uplinks.
pub struct Wire {
    pub now: Time,
    pub kernels: Vec<Kernel>,
    /// (machine, link) on both ends.
    pub cables: Vec<[(usize, u32); 2]>,
    pub delay: Duration,
    /// Frames this says yes to are lost.
    pub lose: Box<Lose>,
    flying: Vec<(Time, usize, u32, Frame)>,
    pub events: Vec<(Time, usize, SocketId, SocketEvent)>,
    /// Every packet that left a machine by an uplink.
    pub seen: Vec<(Time, usize, Packet)>,
    pub arps: Vec<(Time, usize)>,
    pub changes: usize,
}

impl Wire {
    pub fn new(machines: usize, cables: &[[(usize, u32); 2]]) -> Wire {
        Wire {
            now: Time::ZERO,
            kernels: (0..machines).map(|i| kernel(i as u64)).collect(),
            cables: cables.to_vec(),
            delay: Duration::from_micros(100),
            lose: Box::new(|_, _| false),
            flying: Vec::new(),
            events: Vec::new(),
            seen: Vec::new(),
            arps: Vec::new(),
            changes: 0,
        }
    }

    /// Calls into a machine and takes what comes out.
    pub fn with<R>(
        &mut self,
        machine: usize,
        act: impl FnOnce(&mut Kernel, Time, &mut Vec<Output>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.kernels[machine], self.now, &mut out);
        for output in out {
            match output {
                Output::Transmit { link, frame } => self.fly(machine, link, frame),
                Output::Socket { socket, event, .. } => {
                    self.events.push((self.now, machine, socket, event));
                }
                Output::Changed { .. } => self.changes += 1,
            }
        }
        result
    }

    fn fly(&mut self, machine: usize, link: u32, frame: Frame) {
        match &frame.payload {
            Payload::Ip(packet) => self.seen.push((self.now, machine, (**packet).clone())),
            Payload::Arp(_) => self.arps.push((self.now, machine)),
            Payload::Ip6(_) => {}
        }
        if (self.lose)(machine, &frame) {
            return;
        }
        for [a, b] in self.cables.clone() {
            for (from, to) in [(a, b), (b, a)] {
                if from == (machine, link) {
                    self.flying.push((self.now + self.delay, to.0, to.1, frame.clone()));
                }
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let flight = self.flying.iter().map(|f| f.0).min();
            let alarm = self.kernels.iter().filter_map(Kernel::next_deadline).min();
            let Some(next) = flight.into_iter().chain(alarm).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if let Some(place) = self.flying.iter().position(|f| f.0 <= self.now) {
                let (_, machine, link, frame) = self.flying.remove(place);
                self.with(machine, |kernel, now, out| kernel.receive(now, link, frame, out));
                continue;
            }
            for machine in 0..self.kernels.len() {
                if self.kernels[machine].next_deadline().is_some_and(|at| at <= self.now) {
                    self.with(machine, |kernel, now, out| kernel.timeout(now, out));
                }
            }
        }
        self.now = end;
    }

    /// An uplink that is up with an address.
    pub fn uplink(&mut self, machine: usize, name: &str, address: &str) -> u32 {
        let mac = Mac([2, 0, 0, 0, machine as u8, name.len() as u8 + name.as_bytes()[3]]);
        self.with(machine, |kernel, now, out| {
            let link = kernel.add_uplink(name, mac, 1500).expect("a free name");
            kernel.set_up(now, NsId::HOST, link, true, out).expect("a link");
            kernel.add_address(now, NsId::HOST, link, net(address), out).expect("a new address");
            link
        })
    }

    pub fn add_route(&mut self, machine: usize, ns: NsId, route: &Route) -> Result<(), Errno> {
        let route = route.clone();
        self.with(machine, |k, now, out| k.add_route(now, ns, &route, Proto::STATIC, out))
    }

    pub fn ping(&mut self, machine: usize, ns: NsId, dst: &str, len: u32) -> Result<(), Errno> {
        self.with(machine, |k, now, out| k.ping(now, ns, ip(dst), 7, 1, len, 99, out))
    }

    pub fn take_events(&mut self) -> Vec<SocketEvent> {
        std::mem::take(&mut self.events).into_iter().map(|(_, _, _, event)| event).collect()
    }

    /// When segments with payload left a machine, in ms since `from`.
    pub fn data_times(&self, machine: usize, from: Time) -> Vec<u64> {
        let is_data = |p: &Packet| matches!(&p.l4, L4::Tcp(tcp) if tcp.payload() > 0);
        let sent = self.seen.iter().filter(|(at, m, p)| *m == machine && *at >= from && is_data(p));
        sent.map(|(at, _, _)| at.since(from).as_millis() as u64).collect()
    }
}

/// Two machines on one cable, 10.0.0.1/24 and 10.0.0.2/24.
pub fn pair() -> Wire {
    let mut wire = Wire::new(2, &[[(0, ETH0), (1, ETH0)]]);
    wire.uplink(0, "eth0", "10.0.0.1/24");
    wire.uplink(1, "eth0", "10.0.0.2/24");
    wire.run(Duration::from_millis(1));
    wire
}

/// A client, a router and a server: 10.0.0.1 - 10.0.0.254 | 10.1.0.254 - 10.1.0.1.
pub fn routed() -> Wire {
    let mut wire = Wire::new(3, &[[(0, ETH0), (1, ETH0)], [(1, 3), (2, ETH0)]]);
    wire.uplink(0, "eth0", "10.0.0.1/24");
    wire.uplink(1, "eth0", "10.0.0.254/24");
    wire.uplink(1, "eth1", "10.1.0.254/24");
    wire.uplink(2, "eth0", "10.1.0.1/24");
    wire.add_route(0, NsId::HOST, &route("0.0.0.0/0", Some("10.0.0.254"), "eth0")).expect("ok");
    wire.add_route(2, NsId::HOST, &route("0.0.0.0/0", Some("10.1.0.254"), "eth0")).expect("ok");
    set_forwarding(&mut wire, 1);
    wire.run(Duration::from_millis(1));
    wire
}

pub fn set_forwarding(wire: &mut Wire, machine: usize) {
    wire.with(machine, |k, now, out| {
        k.set_sysctl(now, NsId::HOST, "net.ipv4.ip_forward", "1", out).expect("a known key")
    });
}
