//! The router as this machine's kernel has it: a network namespace of one thread's own, with a
//! tap for each leg. A frame written to a tap is received, and what it causes is sent, before the
//! write returns (tun_get_user, drivers/net/tun.c, ends a section that runs soft interrupts).

use super::netlink::Netlink;
use super::step::{LEGS, Router, Step};
use super::wire;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, Proto, Route};
use nix::sched::{CloneFlags, unshare};
use std::io;
use std::net::Ipv4Addr;
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
    pub fn new() -> Result<Linux, String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
            format!("needs CAP_SYS_ADMIN, for a network namespace (run as root): {errno}")
        })?;
        for (key, value) in SYSCTLS {
            write_sysctl(key, value)?;
        }
        let netlink = Netlink::open().map_err(|error| format!("a netlink socket: {error}"))?;
        let taps: io::Result<Vec<SyncDevice>> = (0..LEGS.len()).map(tap).collect();
        let taps = taps.map_err(|error| format!("needs /dev/net/tun, for taps: {error}"))?;
        let legs: io::Result<Vec<u32>> = taps.iter().map(|tap| tap.if_index()).collect();
        let legs = legs.map_err(|error| format!("the index of a tap: {error}"))?;
        let mut linux = Linux { netlink, taps, legs, addresses: Vec::new(), sysctls: Vec::new() };
        let lo = linux.netlink.set_up(1, true);
        lo.map_err(|errno| format!("setting the loopback up: {errno}"))?;
        linux.reset()?;
        Ok(linux)
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

    /// What leaves by which leg, once everybody who is asked for has answered.
    fn inject(&mut self, leg: usize, frame: &[u8]) -> Result<Vec<String>, String> {
        let lost = |error: io::Error| format!("a frame into {}: {error}", LEGS[leg]);
        self.taps[leg].send(frame).map_err(lost)?;
        let mut seen = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let mut quiet = true;
            for leg in 0..LEGS.len() {
                while let Ok(length) = self.taps[leg].recv(&mut buffer) {
                    quiet = false;
                    match wire::read(leg, &buffer[..length]) {
                        wire::Read::Packet(line) => seen.push(line),
                        wire::Read::Answer(frame) => {
                            self.taps[leg].send(&frame).map_err(lost)?;
                        }
                        wire::Read::Nothing => {}
                    }
                }
            }
            if quiet {
                return Ok(seen);
            }
        }
    }
}

fn name_of(legs: &[u32], index: u32) -> String {
    let leg = legs.iter().position(|leg| *leg == index);
    leg.map_or("lo", |leg| LEGS[leg]).to_owned()
}

fn tap(leg: usize) -> io::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(LEGS[leg])
        .layer(Layer::L2)
        .mac_addr(wire::router_mac(leg).0)
        .mtu(1500)
        .enable(false)
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn write_sysctl(key: &str, value: &str) -> Result<(), String> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    std::fs::write(&path, value).map_err(|error| format!("writing {value} to {path}: {error}"))
}

impl Router for Linux {
    fn reset(&mut self) -> Result<(), String> {
        for (index, name) in self.legs.iter().zip(LEGS) {
            let down = self.netlink.set_up(*index, false);
            down.map_err(|errno| format!("setting {name} down: {errno}"))?;
        }
        for (leg, net) in std::mem::take(&mut self.addresses) {
            // It may be gone already, alone or with its primary.
            let _ = self.netlink.del_address(self.legs[leg], net);
        }
        for key in std::mem::take(&mut self.sysctls) {
            write_sysctl(&key, "0")?;
        }
        for (index, name) in self.legs.iter().zip(LEGS) {
            let up = self.netlink.set_up(*index, true);
            up.map_err(|errno| format!("setting {name} up: {errno}"))?;
        }
        let left = self.table()?;
        if left.is_empty() { Ok(()) } else { Err(format!("routes are left: {left:?}")) }
    }

    fn act(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let done = match step {
            Step::AddAddress(leg, net) => {
                self.addresses.push((*leg, *net));
                self.netlink.add_address(self.legs[*leg], *net)
            }
            Step::DelAddress(leg, net) => self.netlink.del_address(self.legs[*leg], *net),
            Step::SetUp(leg, up) => self.netlink.set_up(self.legs[*leg], *up),
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
            Step::Packet(leg, packet) => {
                let frame = wire::frame(*leg, packet)?;
                return self.inject(*leg, &frame);
            }
        };
        Ok(wire::after(done, self.table()?))
    }
}
