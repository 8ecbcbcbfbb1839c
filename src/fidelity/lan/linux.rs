//! As this machine's kernel has it, in a network namespace of one thread's own.

use super::{Act, BEHIND, BRIDGE, CALLED, Lan, OWN_MAC, PAUSE, Seen, VNI, VXLAN, fdb_line, local};
use super::{hairpin_words, neighbour_line};
use crate::fidelity::frame::{self, VXLAN_PORT};
use crate::fidelity::linux::{
    Connections, Netlink, Tables, begin_namespace, socket, tap, write_sysctl,
};
use crate::fidelity::step::{LEGS, Router, Rules, SOCKETS, Step};
use crate::fidelity::{wire, words};
use kubesim_actors::ports::network::{Errno, FdbEntry, Mac, Neighbour};
use kubesim_backends::network::errno;
use kubesim_sim::kernel::packet::{Frame, Payload};
use nix::net::if_::if_nametoindex;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use tun_rs::SyncDevice;

pub struct Linux {
    lan: Lan,
    netlink: Netlink,
    taps: Vec<SyncDevice>,
    /// Indexes of the legs, and of the bridge or the tunnel.
    legs: Vec<u32>,
    extra: Option<(&'static str, u32)>,
    sockets: Vec<UdpSocket>,
    /// Whether each leg is up, and a port.
    up: [bool; 3],
    port: [bool; 3],
    hairpin: [bool; 3],
    /// Sysctls that were written.
    sysctls: Vec<String>,
    fdb: Vec<FdbEntry>,
    permanent: Vec<Neighbour>,
    seen: Seen,
    /// Rules, and the connections that they track.
    filter: Option<(Tables, Connections)>,
}

/// An entry of a neighbour table, as netlink has it.
pub struct Found {
    pub dev: u32,
    pub ip: Option<Ipv4Addr>,
    pub mac: Option<Mac>,
    pub state: &'static str,
}

impl Linux {
    pub fn new(lan: Lan) -> Result<Linux, String> {
        begin_namespace()?;
        let netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
        let taps: io::Result<Vec<SyncDevice>> = (0..LEGS.len()).map(tap).collect();
        let taps = taps.map_err(|error| format!("needs /dev/net/tun, for taps: {error}"))?;
        let legs: io::Result<Vec<u32>> = taps.iter().map(|tap| tap.if_index()).collect();
        let legs = legs.map_err(|error| format!("the index of a tap: {error}"))?;
        let mut linux = Linux {
            lan,
            netlink,
            taps,
            legs,
            extra: None,
            sockets: Vec::new(),
            up: [true; 3],
            port: [lan.has_bridge(); 3],
            hairpin: [false; 3],
            sysctls: Vec::new(),
            filter: None,
            fdb: Vec::new(),
            permanent: Vec::new(),
            seen: Seen::default(),
        };
        linux.begin()?;
        linux.reset()?;
        Ok(linux)
    }

    fn begin(&mut self) -> Result<(), String> {
        write_sysctl("net.ipv4.conf.all.forwarding", "1")?;
        // A bridge that comes up joins all snoopers (br_multicast_join_snoopers,
        // net/bridge/br_multicast.c) and says so within a second, which rules would count.
        write_sysctl("net.ipv4.igmp_link_local_mcast_reports", "0")?;
        // As the model announces its addresses.
        for conf in ["default", "leg0", "leg1", "leg2"] {
            write_sysctl(&format!("net.ipv4.conf.{conf}.arp_notify"), "1")?;
        }
        ip("link set lo up")?;
        for leg in LEGS {
            ip(&format!("link set {leg} up"))?;
        }
        if self.lan.has_bridge() {
            ip(&format!("link add {BRIDGE} address {OWN_MAC} type bridge"))?;
            // Where there is no br_netfilter, nobody is called.
            let called = write_sysctl(CALLED, "0");
            let _ = write_sysctl("net.bridge.bridge-nf-call-ip6tables", "0");
            if self.lan == Lan::Filtered {
                called.map_err(|error| format!("needs br_netfilter: {error}"))?;
                write_sysctl(CALLED, "1")?;
                self.filter = Some((Tables::new(Rules::Legacy)?, Connections::new()?));
            }
            for leg in LEGS {
                ip(&format!("link set {leg} master {BRIDGE}"))?;
            }
            self.extra = Some((BRIDGE, self.begin_link(BRIDGE)?));
        }
        if self.lan == Lan::Vxlan {
            let kind = format!("vxlan id {VNI} dstport {VXLAN_PORT} local {} nolearning", local());
            ip(&format!("link add {VXLAN} mtu 1450 address {OWN_MAC} type {kind}"))?;
            self.extra = Some((VXLAN, self.begin_link(VXLAN)?));
        }
        for (name, net) in self.lan.addresses() {
            ip(&format!("addr add {net} brd + dev {name}"))?;
        }
        if self.lan == Lan::Vxlan {
            for (to, via) in BEHIND {
                ip(&format!("route add {to} via {via} dev {VXLAN} onlink"))?;
            }
        }
        let sockets: io::Result<Vec<UdpSocket>> = SOCKETS.into_iter().map(socket).collect();
        self.sockets = sockets.map_err(|error| format!("binding a UDP port: {error}"))?;
        // Carriers are told of in the background.
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok(())
    }

    fn begin_link(&self, name: &str) -> Result<u32, String> {
        ip(&format!("link set {name} up"))?;
        if_nametoindex(name).map_err(|errno| format!("the index of {name}: {errno}"))
    }

    fn name(&self, index: u32) -> Option<&'static str> {
        let leg = self.legs.iter().position(|leg| *leg == index).map(|leg| LEGS[leg]);
        leg.or_else(|| self.extra.filter(|(_, extra)| *extra == index).map(|(name, _)| name))
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
        let (mut seen, mut buffer) = (Vec::new(), [0; 2048]);
        let mut waiting = VecDeque::new();
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for leg in 0..LEGS.len() {
                while let Ok(length) = self.taps[leg].recv(&mut buffer) {
                    quiet = false;
                    match frame::decode(&buffer[..length]) {
                        Some(Ok(frame)) => waiting.push_back((leg, frame)),
                        Some(Err(words)) => seen.push((leg, Err(words))),
                        None => {}
                    }
                }
            }
            while let Some((leg, frame)) = waiting.pop_front() {
                if self.lan.answers()
                    && let Payload::Arp(arp) = &frame.payload
                {
                    if let Some(answer) = wire::arp_answer(leg, arp) {
                        self.send(leg, &answer)?;
                    }
                    continue;
                }
                seen.push((leg, Ok(frame)));
            }
        }
        seen.sort_by_key(|(leg, frame)| super::place(*leg, frame.as_ref().ok()));
        let words = |(leg, frame): (usize, Result<Frame, String>)| match frame {
            Ok(frame) => self.seen.frame(leg, &frame),
            Err(words) => words,
        };
        let mut lines: Vec<String> = seen.into_iter().map(words).collect();
        for (socket, port) in self.sockets.iter().zip(SOCKETS) {
            while let Ok((_, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) {
                lines.push(format!("socket {port} got something from {from}"));
            }
        }
        lines.extend(self.tables()?);
        if let Some((_, connections)) = &mut self.filter {
            lines.extend(connections.list(&mut self.seen.ports)?);
        }
        Ok(lines)
    }

    fn tables(&mut self) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for found in self.neighbours()? {
            if let (Some(ip), Some(name)) = (found.ip, self.name(found.dev)) {
                lines.push(neighbour_line(ip, name, found.mac, found.state));
            }
        }
        for found in self.learned()? {
            if let (Some(mac), Some(name)) = (found.mac, self.name(found.dev)) {
                lines.push(fdb_line(mac, name));
            }
        }
        lines.sort_unstable();
        Ok(lines)
    }

    fn neighbours(&mut self) -> Result<Vec<Found>, String> {
        let found = self.netlink.neighbours();
        found.map_err(|errno| format!("dumping the neighbours: {errno}"))
    }

    /// What the bridge has learned.
    fn learned(&mut self) -> Result<Vec<Found>, String> {
        if !self.lan.has_bridge() {
            return Ok(Vec::new());
        }
        let found = self.netlink.bridge_entries();
        let found = found.map_err(|errno| format!("dumping the bridge's entries: {errno}"))?;
        Ok(found.into_iter().filter(|found| found.state != "PERMANENT").collect())
    }

    fn set_fdb(&mut self, entries: &[FdbEntry]) -> Result<(), Errno> {
        let Some((_, index)) = self.extra else { return Err(Errno::Enodev) };
        for entry in std::mem::take(&mut self.fdb) {
            self.netlink.tunnel_entry(index, entry, false)?;
        }
        for entry in entries {
            self.netlink.tunnel_entry(index, *entry, true)?;
        }
        self.fdb = entries.to_vec();
        Ok(())
    }

    fn set_permanent(&mut self, neighbours: &[Neighbour]) -> Result<(), Errno> {
        let Some((_, index)) = self.extra else { return Err(Errno::Enodev) };
        for Neighbour { ip, .. } in std::mem::take(&mut self.permanent) {
            self.netlink.del_neighbour(index, ip)?;
        }
        for neighbour in neighbours {
            self.netlink.add_permanent(index, *neighbour)?;
        }
        self.permanent = neighbours.to_vec();
        Ok(())
    }

    fn set_up(&mut self, leg: usize, up: bool) -> Result<(), Errno> {
        self.up[leg] = up;
        self.netlink.set_up(self.legs[leg], up)
    }

    fn set_port(&mut self, leg: usize, joins: bool) -> Result<(), Errno> {
        let Some((_, bridge)) = self.extra else { return Err(Errno::Enodev) };
        self.port[leg] = joins;
        self.netlink.set_master(self.legs[leg], if joins { bridge } else { 0 })
    }

    fn act_on(&mut self, act: &Act) -> Result<Vec<String>, String> {
        let done = match act {
            Act::Frame(leg, frame) => return self.inject(*leg, frame),
            Act::Tell(which, mac) => {
                return match self.seen.answer(*which, *mac) {
                    Some((leg, frame)) => self.inject(leg, &frame),
                    None => Ok(Vec::new()),
                };
            }
            Act::Port(leg, joins) => self.set_port(*leg, *joins),
            Act::Hairpin(leg, on) => {
                self.hairpin[*leg] = *on;
                ip(&hairpin_words(*leg, *on))?;
                Ok(())
            }
            Act::Fdb(entries) => self.set_fdb(entries),
            Act::Permanent(neighbours) => self.set_permanent(neighbours),
            Act::Pause => {
                std::thread::sleep(PAUSE);
                Ok(())
            }
        };
        self.after(done)
    }

    fn after(&mut self, done: Result<(), Errno>) -> Result<Vec<String>, String> {
        let mut seen = vec![words::outcome(done)];
        seen.extend(self.settle()?);
        Ok(seen)
    }

    fn clear(&mut self) -> Result<(), Errno> {
        for leg in 0..LEGS.len() {
            if !self.up[leg] {
                self.set_up(leg, true)?;
            }
            if self.lan.has_bridge() && !self.port[leg] {
                self.set_port(leg, true)?;
            }
        }
        if self.lan == Lan::Vxlan {
            self.set_fdb(&[])?;
            self.set_permanent(&[])?;
        }
        Ok(())
    }
}

/// `ip …`, in the namespace of this thread.
fn ip(words: &str) -> Result<(), String> {
    let done = Command::new("ip").args(words.split(' ')).output();
    let done = done.map_err(|error| format!("needs ip (Debian: iproute2): {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

impl Router for Linux {
    fn reset(&mut self) -> Result<(), String> {
        self.clear().map_err(|errno| format!("putting links back: {errno}"))?;
        for leg in 0..LEGS.len() {
            if std::mem::take(&mut self.hairpin[leg]) {
                ip(&hairpin_words(leg, false))?;
            }
        }
        for key in std::mem::take(&mut self.sysctls) {
            write_sysctl(&key, if key == CALLED { "1" } else { "0" })?;
        }
        if let Some((tables, _)) = &mut self.filter {
            tables.reset();
            // No rule stands in the way of what is left.
            tables.settle()?;
        }
        // Who waits for one that is gone is told so, and may have to be asked for.
        for _ in 0..4 {
            for found in self.neighbours()? {
                if let Some(ip) = found.ip {
                    // It may be gone with another.
                    let _ = self.netlink.del_neighbour(found.dev, ip);
                }
            }
            self.settle()?;
        }
        for found in self.learned()? {
            if let Some(mac) = found.mac {
                let _ = self.netlink.del_bridge_entry(found.dev, mac);
            }
        }
        // What that has set off is nobody's business.
        self.settle()?;
        if let Some((_, connections)) = &mut self.filter {
            connections.clear()?;
        }
        self.seen = Seen::default();
        let left = self.tables()?;
        if left.is_empty() { Ok(()) } else { Err(format!("entries are left: {left:?}")) }
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        if let Some((tables, _)) = &mut self.filter {
            if let Step::Append(table, chain, rule) = step {
                tables.append(*table, chain, rule);
                return Ok(Vec::new());
            }
            tables.settle()?;
            if let Step::Counters = step {
                return tables.counters();
            }
        }
        let done = match step {
            Step::Lan(act) => return self.act_on(act),
            Step::Packet(leg, packet) => return self.inject(*leg, &wire::inbound(*leg, packet)),
            Step::SetUp(leg, up) => self.set_up(*leg, *up),
            Step::Sysctl(key, value) => {
                self.sysctls.push(key.clone());
                write_sysctl(key, &value.to_string())?;
                Ok(())
            }
            Step::Send(from, to, port, len) => {
                let at = SOCKETS.iter().position(|socket| socket == from);
                let socket = &self.sockets[at.ok_or("no such socket")?];
                let sent = socket.send_to(&vec![0; *len as usize], SocketAddrV4::new(*to, *port));
                sent.map(|_| ()).map_err(|error| errno::from_io(&error))
            }
            other => return Err(format!("not here: {other}")),
        };
        self.after(done)
    }
}
