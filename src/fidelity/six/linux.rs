//! As this machine's kernel has it, in a network namespace of one thread's own.

use super::filter::default_route;
use super::{Act, Seen, Six, answer, asked, got_line, inbound, neighbour_line, net, place};
use crate::fidelity::frame;
use crate::fidelity::lan::PAUSE;
use crate::fidelity::linux::{
    Connections, Netlink, Tables, Tables6, begin_namespace, tap, write_sysctl,
};
use crate::fidelity::step::{LEGS, LIST, MTU, Router, Rules, SOCKETS, Step};
use crate::fidelity::{step, wire, words};
use ipnet::Ipv6Net;
use kubesim_actors::ports::network::{Errno, Proto};
use kubesim_backends::network::errno;
use kubesim_sim::kernel::Placing;
use kubesim_sim::kernel::family::V6;
use kubesim_sim::kernel::packet::{Frame, Packet, Payload};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;
use tun_rs::SyncDevice;

const LO: u32 = 1;

/// Written before there are legs, which begin with what `default` has.
const SYSCTLS: [(&str, &str); 22] = [
    // Which groups it listens to is said at once.
    ("net.ipv6.conf.default.mldv1_unsolicited_report_interval", "1"),
    ("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "1"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_redirects", "0"),
    ("net.ipv6.conf.default.addr_gen_mode", "0"),
    ("net.ipv6.conf.default.autoconf", "0"),
    ("net.ipv6.conf.default.keep_addr_on_down", "0"),
    ("net.ipv6.conf.default.ndisc_notify", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.default.use_tempaddr", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    // Routers that may be dead are not asked while a case lasts.
    ("net.ipv6.conf.default.router_probe_interval", "3600"),
    // What is limited depends on the clock.
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv6.icmp.ratemask", "2"),
    ("net.ipv6.conf.all.force_forwarding", "0"),
    ("net.ipv6.conf.default.force_forwarding", "0"),
    ("net.ipv6.conf.all.proxy_ndp", "0"),
    ("net.ipv6.conf.default.proxy_ndp", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
];

const DAY: &str = "86400";
const DAY_MS: &str = "86400000";

/// How long it takes to say that twice.
const REPORTED: Duration = Duration::from_millis(100);
/// How long addresses may take until they can be used.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Linux {
    six: Six,
    netlink: Netlink,
    taps: Vec<SyncDevice>,
    /// Indexes of the legs.
    legs: Vec<u32>,
    sockets: Vec<UdpSocket>,
    /// Sysctls that were written.
    sysctls: Vec<String>,
    /// Legs whose MTU may be another one.
    resized: Vec<usize>,
    seen: Seen,
    /// What the tables begin with.
    first: Option<Vec<String>>,
    /// Legs that are up.
    up: [bool; 3],
    /// Packets that left, and by which leg.
    left: Vec<(usize, Packet<V6>)>,
    filter: Option<Filter>,
}

/// What a router with rules has.
struct Filter {
    tables: Tables<Ipv6Addr>,
    connections: Connections<V6>,
}

impl Linux {
    /// Moves the calling thread into a new network namespace for good.
    pub fn new(six: Six) -> Result<Linux, String> {
        begin_namespace()?;
        SYSCTLS.iter().try_for_each(|(key, value)| write_sysctl(key, value))?;
        let netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
        let taps: io::Result<Vec<SyncDevice>> = (0..LEGS.len()).map(tap).collect();
        let taps = taps.map_err(|error| format!("needs /dev/net/tun, for taps: {error}"))?;
        let legs: io::Result<Vec<u32>> = taps.iter().map(|tap| tap.if_index()).collect();
        let legs = legs.map_err(|error| format!("the index of a tap: {error}"))?;
        for leg in LEGS {
            // An answer in an anycast address' name is not put off.
            write_sysctl(&format!("net.ipv6.neigh.{leg}.proxy_delay"), "0")?;
            if let Six::Filtered(_) = six {
                // Rules count packets, and so those that ask whether who is known is still there.
                write_sysctl(&format!("net.ipv6.neigh.{leg}.base_reachable_time_ms"), DAY_MS)?;
                write_sysctl(&format!("net.ipv6.neigh.{leg}.delay_first_probe_time"), DAY)?;
            }
        }
        let sockets: io::Result<Vec<UdpSocket>> = SOCKETS.into_iter().map(socket).collect();
        let sockets = sockets.map_err(|error| format!("binding a UDP port: {error}"))?;
        let (sysctls, resized, seen, first, up) = Default::default();
        let (left, filter) = (Vec::new(), None);
        let mut linux = Linux {
            six,
            netlink,
            taps,
            legs,
            sockets,
            sysctls,
            resized,
            seen,
            first,
            up,
            left,
            filter,
        };
        let lo = linux.netlink.set_up(LO, true);
        lo.map_err(|errno| format!("setting the loopback up: {errno}"))?;
        if let Six::Filtered(rules) = six {
            linux.begin_filtering(rules)?;
        }
        linux.reset()?;
        Ok(linux)
    }

    fn begin_filtering(&mut self, rules: Rules) -> Result<(), String> {
        // As the model believes sequence numbers.
        write_sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1")?;
        write_sysctl("net.ipv6.conf.all.forwarding", "1")?;
        self.begin().map_err(|errno| format!("setting legs up: {errno}"))?;
        let route = default_route();
        let added = self.netlink.add_route6(&route, Proto::STATIC, Placing::Alone, self.legs[0]);
        added.map_err(|errno| format!("adding a default route: {errno}"))?;
        self.wait()?;
        // Which groups it listens to is said twice, and rules would count it.
        std::thread::sleep(REPORTED);
        without_redirects()?;
        let tables = Tables::new(rules)?;
        self.filter = Some(Filter { tables, connections: Connections::new()? });
        self.settle().map(|_| ())
    }

    /// What only a router with rules has.
    fn filter(&mut self, step: &Step) -> Result<Option<Vec<String>>, String> {
        let Some(Filter { tables, connections }) = &mut self.filter else { return Ok(None) };
        match step {
            Step::Six(Act::Append(table, chain, rule)) => {
                tables.append(*table, chain, rule);
                return Ok(Some(Vec::new()));
            }
            Step::PolicyDrop(chain) => {
                tables.drop_by_policy(chain);
                return Ok(Some(Vec::new()));
            }
            _ => tables.settle()?,
        }
        Ok(Some(match step {
            Step::Six(Act::Try(table, chain, rule)) => {
                vec![tables.attempt(*table, chain, rule)?]
            }
            Step::Six(Act::Answer(which, answer)) => {
                match wire::answer_to(&self.left, *which, *answer) {
                    Some((leg, packet)) => self.inject(leg, &inbound(leg, &packet))?,
                    None => Vec::new(),
                }
            }
            Step::Counters => tables.counters()?,
            Step::Counted(step) => {
                let mut seen = self.act(step)?;
                seen.extend(self.filter(&Step::Counters)?.unwrap_or_default());
                seen
            }
            Step::Pause => {
                std::thread::sleep(step::PAUSE);
                self.settle()?
            }
            Step::Wait(seconds) => {
                connections.age(*seconds)?;
                self.settle()?
            }
            _ => return Ok(None),
        }))
    }

    /// Who waits for one that is gone is told so, and may have to be asked for. Says whether
    /// anybody did.
    fn forget_neighbours(&mut self) -> Result<bool, String> {
        let mut waited = false;
        for _ in 0..4 {
            let found = self.netlink.neighbours6();
            let found = found.map_err(|errno| format!("dumping the neighbours: {errno}"))?;
            if found.is_empty() {
                break;
            }
            waited |= found.iter().any(|neighbour| neighbour.state == "INCOMPLETE");
            let flushed = Command::new("ip").args(["-6", "neigh", "flush", "all"]).output();
            flushed.map_err(|error| format!("needs ip (Debian: iproute2): {error}"))?;
            self.settle()?;
        }
        Ok(waited)
    }

    /// Neither rules nor legs change, so that nothing is said that rules would count.
    fn reset_filtered(&mut self) -> Result<bool, String> {
        if self.filter.is_none() {
            return Ok(false);
        }
        let waited = self.forget_neighbours()?;
        let Some(Filter { tables, connections }) = &mut self.filter else { return Ok(false) };
        if waited {
            // What that has set off was counted.
            tables.counters()?;
        }
        tables.reset();
        connections.clear()?;
        // A list lives as long as rules name it, also from one case to the next. Without rules
        // there is none.
        let _ = std::fs::write(format!("/proc/thread-self/net/xt_recent/{LIST}"), "/");
        (self.seen, self.left) = Default::default();
        Ok(true)
    }

    fn name(&self) -> impl Fn(u32) -> String + use<> {
        let legs = self.legs.clone();
        move |index| {
            let leg = legs.iter().position(|leg| *leg == index);
            leg.map_or("lo", |leg| LEGS[leg]).to_owned()
        }
    }

    fn tables(&mut self) -> Result<Tables6, String> {
        let name = self.name();
        let found = self.netlink.routes6(name);
        found.map_err(|errno| format!("dumping the route tables: {errno}"))
    }

    /// Until each address has its route in the local table: it gets that from a work queue
    /// (addrconf_dad_work). What else that does is done while it has the lock of rtnetlink.
    fn wait(&mut self) -> Result<Vec<String>, String> {
        let begun = std::time::Instant::now();
        loop {
            let addresses = self.netlink.addresses6();
            let addresses = addresses.map_err(|errno| format!("dumping addresses: {errno}"))?;
            let own = self.tables()?.own;
            if addresses.iter().all(|found| found.is_some_and(|found| own.contains(&found))) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("addresses {addresses:?} but routes {own:?}"));
            }
            std::thread::yield_now();
        }
        let lock = self.netlink.set_up(LO, true);
        lock.map_err(|errno| format!("setting the loopback up: {errno}"))?;
        let Tables6 { main, local, .. } = self.tables()?;
        Ok([main, local].concat())
    }

    fn set_up(&mut self, leg: usize, up: bool) -> Result<(), Errno> {
        self.up[leg] = up;
        self.netlink.set_up(self.legs[leg], up)
    }

    fn inject(&mut self, leg: usize, frame: &Frame) -> Result<Vec<String>, String> {
        self.send(leg, frame)?;
        self.settle()
    }

    fn send(&self, leg: usize, frame: &Frame) -> Result<(), String> {
        match self.taps[leg].send(&frame::encode(frame)?) {
            Ok(_) => Ok(()),
            // A tap that is down takes nothing (tun_get_user).
            Err(_) if !self.up[leg] => Ok(()),
            Err(error) => Err(format!("a frame into {}: {error}", LEGS[leg])),
        }
    }

    fn settle(&mut self) -> Result<Vec<String>, String> {
        let (mut seen, mut buffer, mut quiet) = (Vec::new(), [0; 2048], false);
        while !quiet {
            quiet = true;
            for leg in 0..LEGS.len() {
                while let Ok(length) = self.taps[leg].recv(&mut buffer) {
                    quiet = false;
                    let frame = match frame::decode(&buffer[..length]) {
                        Some(Ok(frame)) => frame,
                        Some(Err(words)) => {
                            seen.push((leg, Err(words)));
                            continue;
                        }
                        None => continue,
                    };
                    match asked(&frame).filter(|_| self.six.answers()) {
                        Some(question) => self.send(leg, &answer(leg, question, None))?,
                        None => seen.push((leg, Ok(frame))),
                    }
                }
            }
        }
        seen.sort_by_key(|(leg, frame)| place(*leg, frame.as_ref().ok()));
        let mut lines: Vec<String> = Vec::new();
        for (leg, frame) in seen {
            lines.push(match frame {
                Err(words) => words,
                Ok(frame) => match (self.six.answers(), &frame.payload) {
                    (true, Payload::Ip6(packet)) => {
                        self.left.push((leg, (**packet).clone()));
                        self.seen.packet(leg, frame.dst, packet)
                    }
                    _ => self.seen.frame(leg, &frame),
                },
            });
        }
        for (socket, port) in self.sockets.iter().zip(SOCKETS) {
            while let Ok((_, SocketAddr::V6(from))) = socket.recv_from(&mut buffer) {
                let sport = self.seen.ports.name(from.port());
                lines.push(got_line(port, *from.ip(), &sport));
            }
        }
        lines.extend(self.neighbours()?);
        if let Some(filter) = &mut self.filter {
            lines.extend(filter.connections.list(&mut self.seen.ports)?);
        }
        Ok(lines)
    }

    fn neighbours(&mut self) -> Result<Vec<String>, String> {
        if self.six.answers() {
            return Ok(Vec::new());
        }
        let found = self.netlink.neighbours6();
        let found = found.map_err(|errno| format!("dumping the neighbours: {errno}"))?;
        let name = self.name();
        let line = |n: &crate::fidelity::linux::Found6| {
            neighbour_line(n.ip, &name(n.dev), n.mac, n.state, n.router)
        };
        let mut lines: Vec<String> = found.iter().map(line).collect();
        lines.sort_unstable();
        Ok(lines)
    }

    fn act_on(&mut self, act: &Act) -> Result<Vec<String>, String> {
        let link = |dev: &str| LEGS.iter().position(|leg| *leg == dev).map(|at| self.legs[at]);
        let done = match act {
            Act::AddAddress(leg, net) => self.netlink.add_address6(self.legs[*leg], *net),
            Act::DelAddress(leg, net) => self.netlink.del_address6(self.legs[*leg], *net),
            Act::AddRoute(placing, route, proto) => match link(&route.dev) {
                Some(link) => self.netlink.add_route6(route, *proto, *placing, link),
                None => Err(Errno::Enodev),
            },
            Act::DelRoute(route, proto) => match link(&route.dev) {
                Some(link) => self.netlink.del_route6(route, *proto, link),
                None => Err(Errno::Enodev),
            },
            Act::Get(dst) => {
                let name = self.name();
                let found = self.netlink.get6(*dst, name);
                return Ok(vec![found.unwrap_or_else(|errno| errno.to_string())]);
            }
            Act::Send(from, to, port) => {
                let at = SOCKETS.iter().position(|socket| socket == from);
                let socket = &self.sockets[at.ok_or("no such socket")?];
                let sent = socket.send_to(&[], (*to, *port)).map(|_| ());
                let mut seen = vec![words::outcome(sent.map_err(|error| errno::from_io(&error)))];
                seen.extend(self.settle()?);
                return Ok(seen);
            }
            Act::Packet(leg, packet) => return self.inject(*leg, &inbound(*leg, packet)),
            Act::Frame(leg, frame) => return self.inject(*leg, frame),
            Act::Tell(which, mac) => {
                return match self.seen.answer(*which, *mac) {
                    Some((leg, frame)) => self.inject(leg, &frame),
                    None => Ok(Vec::new()),
                };
            }
            Act::Pause => {
                std::thread::sleep(PAUSE);
                return self.settle();
            }
            Act::Append(..) | Act::Try(..) | Act::Answer(..) => {
                return Err(format!("not without rules: {act}"));
            }
        };
        self.after(done)
    }

    /// What came of a change, and the tables in their order.
    fn after(&mut self, done: Result<(), Errno>) -> Result<Vec<String>, String> {
        let tables = self.wait()?;
        let mut seen = vec![words::outcome(done)];
        seen.extend(self.settle()?);
        seen.extend(tables);
        Ok(seen)
    }

    /// With a leg that goes down its addresses, routes and neighbours go.
    fn clear(&mut self) -> Result<(), Errno> {
        for leg in 0..LEGS.len() {
            // It may have got some while it was down.
            self.set_up(leg, true)?;
            self.set_up(leg, false)?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Errno> {
        for leg in 0..LEGS.len() {
            self.set_up(leg, true)?;
        }
        for (leg, address) in self.legs.iter().zip(self.six.addresses()) {
            let address: Ipv6Net = net(address);
            self.netlink.add_address6(*leg, address)?;
        }
        Ok(())
    }
}

/// There is no IPv4 here that it could be asked in.
fn socket(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How often a host is told of a better way depends on the clock (ip6_forward), and rules would
/// count that as well: it is dropped before they see it.
fn without_redirects() -> Result<(), String> {
    let rules = "table ip6 redirects { chain out { type filter hook output priority -450; \
                 icmpv6 type nd-redirect drop; }; }";
    let done = Command::new("nft").arg(rules).output();
    let done = done.map_err(|error| format!("needs nft (Debian: nftables): {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("nft: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

impl Router for Linux {
    fn reset(&mut self) -> Result<(), String> {
        for leg in std::mem::take(&mut self.resized) {
            let done = self.netlink.set_mtu(self.legs[leg], MTU);
            done.map_err(|errno| format!("putting an MTU back: {errno}"))?;
        }
        if self.reset_filtered()? {
            return Ok(());
        }
        self.clear().map_err(|errno| format!("setting legs down: {errno}"))?;
        for key in std::mem::take(&mut self.sysctls) {
            write_sysctl(&key, "0")?;
        }
        self.begin().map_err(|errno| format!("setting legs up: {errno}"))?;
        let tables = self.wait()?;
        // What that has set off is nobody's business.
        self.settle()?;
        (self.seen, self.left) = Default::default();
        let first = self.first.get_or_insert_with(|| tables.clone());
        if *first == tables { Ok(()) } else { Err(format!("routes are left: {tables:?}")) }
    }

    fn forget(&mut self) {
        if let Some(Filter { tables, .. }) = &mut self.filter {
            tables.forget();
        }
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        if let Some(seen) = self.filter(step)? {
            return Ok(seen);
        }
        let done = match step {
            Step::Six(act) => return self.act_on(act),
            Step::SetUp(leg, up) => self.set_up(*leg, *up),
            Step::Mtu(leg, mtu) => {
                self.resized.push(*leg);
                self.netlink.set_mtu(self.legs[*leg], *mtu)
            }
            Step::Sysctl(key, value) => {
                self.sysctls.push(key.clone());
                write_sysctl(key, &value.to_string())?;
                Ok(())
            }
            other => return Err(format!("not here: {other}")),
        };
        self.after(done)
    }
}
