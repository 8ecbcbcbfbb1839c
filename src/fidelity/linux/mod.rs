//! The router as this machine's kernel has it: a network namespace of one thread's own, with a
//! tap for each leg. A frame written to a tap is received, and what it causes is sent, before the
//! write returns (tun_get_user, drivers/net/tun.c, ends a section that runs soft interrupts).

mod connections;
mod flat;
mod neighbours;
mod netlink;
mod netlink6;
mod tables;

pub use self::connections::{Connections, Told};
use self::flat::Flat;
pub use self::netlink::Netlink;
pub use self::netlink6::{Found6, Tables6};
pub use self::tables::Tables;
use super::fragments::Fragments;
use super::step::{
    ADDRESSES, DEFAULT_GATEWAY, LEGS, LIST, MTU, PAUSE, Router, Rules, SOCKETS, Setup, Step, ip,
    net,
};
use super::words::{self, Ports};
use super::{frame, wire};
use crate::capabilities;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, Proto, Route};
use kubesim_backends::network::errno;
use kubesim_sim::kernel::packet::{Frame, Packet, Payload};
use nix::sched::{CloneFlags, unshare};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

pub struct Linux {
    netlink: Netlink,
    taps: Vec<SyncDevice>,
    /// Indexes of the legs.
    legs: Vec<u32>,
    /// Addresses that may be there.
    addresses: Vec<(usize, Ipv4Net)>,
    /// Sysctls that were written.
    sysctls: Vec<String>,
    /// Legs whose MTU may be another one.
    resized: Vec<usize>,
    sockets: Vec<UdpSocket>,
    router: Option<Filtering>,
    fragments: Fragments,
    /// Packets that left, and by which leg.
    left: Vec<(usize, Packet)>,
    ports: Ports,
}

/// What a router with rules has beside its legs.
struct Filtering {
    writer: Writer,
    connections: Connections,
}

enum Writer {
    Iptables(Box<Tables>),
    Flat(Box<Flat>),
}

impl Writer {
    fn new(rules: Rules) -> Result<Writer, String> {
        Ok(match rules {
            Rules::Flat => Writer::Flat(Box::new(Flat::new()?)),
            _ => Writer::Iptables(Box::new(Tables::new(rules)?)),
        })
    }

    /// Notes what is to be written before anything else happens.
    fn take(&mut self, step: &Step) -> bool {
        match (self, step) {
            (Writer::Iptables(tables), Step::Append(table, chain, rule)) => {
                tables.append(*table, chain, rule);
            }
            (Writer::Iptables(tables), Step::PolicyDrop(chain)) => tables.drop_by_policy(chain),
            (Writer::Flat(flat), Step::Elements(elements)) => flat.insert(elements),
            (Writer::Flat(flat), Step::NoElements(keys)) => flat.remove(keys),
            _ => return false,
        }
        true
    }

    fn settle(&mut self) -> Result<(), String> {
        match self {
            Writer::Iptables(tables) => tables.settle(),
            Writer::Flat(flat) => flat.settle(),
        }
    }

    fn reset(&mut self) {
        match self {
            Writer::Iptables(tables) => tables.reset(),
            Writer::Flat(flat) => flat.reset(),
        }
    }

    fn counters(&mut self) -> Result<Vec<String>, String> {
        match self {
            Writer::Iptables(tables) => tables.counters(),
            Writer::Flat(_) => Ok(Vec::new()),
        }
    }
}

/// A namespace starts with what its creator's has (inetdev_init), so all of it is said.
const SYSCTLS: [(&str, &str); 15] = [
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.forwarding", "0"),
    ("net.ipv4.conf.default.promote_secondaries", "0"),
    ("net.ipv4.conf.all.promote_secondaries", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_local", "0"),
    ("net.ipv4.conf.default.accept_local", "0"),
    ("net.ipv4.conf.default.accept_source_route", "0"),
    // What is limited depends on the clock.
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
];

impl Linux {
    /// Moves the calling thread into a new network namespace for good.
    pub fn new(setup: Setup) -> Result<Linux, String> {
        begin_namespace()?;
        let netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
        let taps: io::Result<Vec<SyncDevice>> = (0..LEGS.len()).map(tap).collect();
        let taps = taps.map_err(|error| format!("needs /dev/net/tun, for taps: {error}"))?;
        let legs: io::Result<Vec<u32>> = taps.iter().map(|tap| tap.if_index()).collect();
        let legs = legs.map_err(|error| format!("the index of a tap: {error}"))?;
        let sockets: io::Result<Vec<UdpSocket>> = SOCKETS.into_iter().map(socket).collect();
        let sockets = sockets.map_err(|error| format!("binding a UDP port: {error}"))?;
        let mut linux = Linux {
            netlink,
            taps,
            legs,
            addresses: Vec::new(),
            sysctls: Vec::new(),
            resized: Vec::new(),
            sockets,
            router: None,
            fragments: Fragments::default(),
            left: Vec::new(),
            ports: Ports::default(),
        };
        let lo = linux.netlink.set_up(1, true);
        lo.map_err(|errno| format!("setting the loopback up: {errno}"))?;
        if let Setup::Router(rules) = setup {
            let writer = Writer::new(rules)?;
            linux.begin_routing(writer)?;
        }
        linux.reset()?;
        Ok(linux)
    }

    fn begin_routing(&mut self, writer: Writer) -> Result<(), String> {
        write_sysctl("net.ipv4.conf.all.forwarding", "1")?;
        // As the model believes sequence numbers.
        write_sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1")?;
        self.legs_up(true)?;
        for (leg, address) in ADDRESSES.iter().enumerate() {
            let added = self.netlink.add_address(self.legs[leg], net(address));
            added.map_err(|errno| format!("adding {address}: {errno}"))?;
        }
        let (to, via, dev) = (net("0.0.0.0/0"), Some(ip(DEFAULT_GATEWAY)), LEGS[0].into());
        let route = Route { to, via, dev, onlink: false, metric: 0 };
        let added = self.netlink.add_route(&route, Proto::STATIC, self.legs[0]);
        added.map_err(|errno| format!("adding a default route: {errno}"))?;
        let connections = Connections::new()?;
        self.router = Some(Filtering { writer, connections });
        // What the addresses have set off.
        self.settle().map(|_| ())
    }

    fn legs_up(&mut self, up: bool) -> Result<(), String> {
        for (index, name) in self.legs.iter().zip(LEGS) {
            let done = self.netlink.set_up(*index, up);
            done.map_err(|errno| format!("setting {name} up or down: {errno}"))?;
        }
        Ok(())
    }

    fn link(&self, name: &str) -> Result<u32, Errno> {
        LEGS.iter().position(|leg| *leg == name).map(|at| self.legs[at]).ok_or(Errno::Enodev)
    }

    fn add_route(&mut self, route: &Route, proto: Proto) -> Result<(), Errno> {
        let link = self.link(&route.dev)?;
        self.netlink.add_route(route, proto, link)
    }

    fn table(&mut self) -> Result<Vec<String>, String> {
        let legs = self.legs.clone();
        let lines = self.netlink.routes(|index| name_of(&legs, index));
        lines.map_err(|errno| format!("dumping the route table: {errno}"))
    }

    fn get(&mut self, dst: Ipv4Addr) -> String {
        let legs = self.legs.clone();
        let found = self.netlink.get(dst, |index| name_of(&legs, index));
        found.unwrap_or_else(|errno| errno.to_string())
    }

    /// What leaves by which leg after a frame came in by one.
    fn inject(&mut self, leg: usize, frame: &Frame) -> Result<Vec<String>, String> {
        self.send(leg, frame)?;
        self.settle()
    }

    fn send(&self, leg: usize, frame: &Frame) -> Result<(), String> {
        let lost = |error: io::Error| format!("a frame into {}: {error}", LEGS[leg]);
        self.taps[leg].send(&frame::encode(frame)?).map_err(lost).map(|_| ())
    }

    /// What leaves by which leg, once everybody who is asked for has answered; what processes
    /// got; what connections there are.
    fn settle(&mut self) -> Result<Vec<String>, String> {
        let mut seen = Vec::new();
        let mut buffer = [0; 2048];
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for (leg, name) in LEGS.iter().enumerate() {
                while let Ok(length) = self.taps[leg].recv(&mut buffer) {
                    quiet = false;
                    let Some(bytes) = self.fragments.whole(leg, &buffer[..length])? else {
                        continue;
                    };
                    match frame::decode(&bytes) {
                        Some(Ok(frame)) => seen.extend(self.outbound(leg, frame)?),
                        Some(Err(words)) => seen.push(format!("out by {name}: {words}")),
                        None => {}
                    }
                }
            }
        }
        for (socket, port) in self.sockets.iter().zip(SOCKETS) {
            while let Ok((_, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) {
                let sport = self.ports.name(from.port());
                seen.push(format!("socket {port} got something from {}:{sport}", from.ip()));
            }
        }
        if let Some(router) = &mut self.router {
            seen.extend(router.connections.list(&mut self.ports)?);
        }
        Ok(seen)
    }

    fn outbound(&mut self, leg: usize, frame: Frame) -> Result<Option<String>, String> {
        match frame.payload {
            Payload::Arp(arp) => {
                if let Some(answer) = wire::arp_answer(leg, &arp) {
                    self.send(leg, &answer)?;
                }
                Ok(None)
            }
            Payload::Ip(packet) => {
                let words = wire::departed(leg, frame.dst, &self.ports.packet(&packet));
                self.left.push((leg, *packet));
                Ok(Some(words))
            }
            Payload::Ip6(_) => Ok(None),
        }
    }

    fn send_from(&mut self, port: u16, to: SocketAddrV4, len: u32) -> Result<Vec<String>, String> {
        let at = SOCKETS.iter().position(|socket| *socket == port);
        let socket = &self.sockets[at.ok_or("no such socket")?];
        let sent = socket.send_to(&vec![0; len as usize], to).map(|_| ());
        let sent = sent.map_err(|error| errno::from_io(&error));
        let mut seen = vec![words::outcome(sent)];
        seen.extend(self.settle()?);
        Ok(seen)
    }

    fn filtering(&mut self) -> Result<&mut Filtering, String> {
        self.router.as_mut().ok_or_else(|| "no rules here".to_owned())
    }

    fn reset_bare(&mut self) -> Result<(), String> {
        self.legs_up(false)?;
        for (leg, net) in std::mem::take(&mut self.addresses) {
            // It may be gone already, alone or with its primary.
            let _ = self.netlink.del_address(self.legs[leg], net);
        }
        for key in std::mem::take(&mut self.sysctls) {
            write_sysctl(&key, "0")?;
        }
        self.legs_up(true)?;
        let left = self.table()?;
        if left.is_empty() { Ok(()) } else { Err(format!("routes are left: {left:?}")) }
    }
}

/// Moves the calling thread into a new network namespace for good.
pub fn begin_namespace() -> Result<(), String> {
    if let Some(names) = capabilities::lacking() {
        let why = "for a network namespace and what is in it";
        return Err(format!("needs {names}, {why} (run as root)"));
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("a network namespace: {errno}"))?;
    SYSCTLS.iter().try_for_each(|(key, value)| write_sysctl(key, value))
}

pub fn socket(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    socket.set_nonblocking(true)?;
    socket.set_broadcast(true)?;
    Ok(socket)
}

fn name_of(legs: &[u32], index: u32) -> String {
    let leg = legs.iter().position(|leg| *leg == index);
    leg.map_or("lo", |leg| LEGS[leg]).to_owned()
}

pub fn tap(leg: usize) -> io::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(LEGS[leg])
        .layer(Layer::L2)
        .mac_addr(wire::router_mac(leg).0)
        .mtu(MTU as u16)
        .enable(false)
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

pub fn write_sysctl(key: &str, value: &str) -> Result<(), String> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    std::fs::write(&path, value).map_err(|error| format!("writing {value} to {path}: {error}"))
}

impl Router for Linux {
    fn reset(&mut self) -> Result<(), String> {
        self.left.clear();
        self.fragments = Fragments::default();
        for leg in std::mem::take(&mut self.resized) {
            let done = self.netlink.set_mtu(self.legs[leg], MTU);
            done.map_err(|errno| format!("putting an MTU back: {errno}"))?;
        }
        match &mut self.router {
            None => self.reset_bare()?,
            Some(router) => {
                router.writer.reset();
                router.connections.clear()?;
                // A list lives as long as rules name it, also from one case to the next.
                // Without rules there is none.
                let _ = std::fs::write(format!("/proc/thread-self/net/xt_recent/{LIST}"), "/");
            }
        }
        self.ports = Ports::default();
        Ok(())
    }

    fn forget(&mut self) {
        match &mut self.router {
            Some(Filtering { writer: Writer::Flat(flat), .. }) => flat.forget(),
            Some(Filtering { writer: Writer::Iptables(tables), .. }) => tables.forget(),
            None => {}
        }
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        if let Some(router) = &mut self.router {
            if router.writer.take(step) {
                return Ok(Vec::new());
            }
            router.writer.settle()?;
        }
        let done = match step {
            Step::AddAddress(leg, net) => {
                self.addresses.push((*leg, *net));
                self.netlink.add_address(self.legs[*leg], *net)
            }
            Step::DelAddress(leg, net) => self.netlink.del_address(self.legs[*leg], *net),
            Step::SetUp(leg, up) => self.netlink.set_up(self.legs[*leg], *up),
            Step::Mtu(leg, mtu) => {
                self.resized.push(*leg);
                self.netlink.set_mtu(self.legs[*leg], *mtu)
            }
            Step::AddRoute(route, proto) => self.add_route(route, *proto),
            Step::DelRoute(route, proto) => {
                self.link(&route.dev).and_then(|link| self.netlink.del_route(route, *proto, link))
            }
            Step::Sysctl(key, value) => {
                self.sysctls.push(key.clone());
                write_sysctl(key, &value.to_string())?;
                Ok(())
            }
            Step::Get(dst) => return Ok(vec![self.get(*dst)]),
            Step::Packet(leg, packet) => return self.inject(*leg, &wire::inbound(*leg, packet)),
            Step::Answer(which, answer) => {
                return match wire::answer_to(&self.left, *which, *answer) {
                    Some((leg, packet)) => self.inject(leg, &wire::inbound(leg, &packet)),
                    None => Ok(Vec::new()),
                };
            }
            Step::Send(from, to, port, len) => {
                return self.send_from(*from, SocketAddrV4::new(*to, *port), *len);
            }
            Step::Try(table, chain, rule) => {
                return match &mut self.filtering()?.writer {
                    Writer::Iptables(tables) => Ok(vec![tables.attempt(*table, chain, rule)?]),
                    Writer::Flat(_) => Err(format!("not with these rules: {step}")),
                };
            }
            Step::Counters => return self.filtering()?.writer.counters(),
            Step::Counted(step) => {
                let mut seen = self.act(step)?;
                seen.extend(self.filtering()?.writer.counters()?);
                return Ok(seen);
            }
            Step::Pause => {
                std::thread::sleep(PAUSE);
                return self.settle();
            }
            Step::Wait(seconds) => {
                self.filtering()?.connections.age(*seconds)?;
                return self.settle();
            }
            Step::Append(..) | Step::PolicyDrop(_) | Step::Elements(_) | Step::NoElements(_) => {
                return Err(format!("not with these rules: {step}"));
            }
            Step::Lan(_) | Step::Six(_) => return Err(format!("not here: {step}")),
        };
        Ok(words::after(done, self.table()?))
    }
}
