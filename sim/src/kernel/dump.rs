//! The tables as the tools print them.

use super::neigh::NeighbourState;
use super::route::{Kind, Scope};
use super::{Kernel, NsId};
use kubesim_actors::ports::network::{Errno, LinkKind, Proto};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Names of /etc/iproute2/rt_protos; `boot` is not printed.
fn proto_name(proto: Proto) -> String {
    match proto {
        Proto::KERNEL => "kernel".into(),
        Proto::BOOT => "boot".into(),
        Proto::STATIC => "static".into(),
        Proto::DHCP => "dhcp".into(),
        Proto(number) => number.to_string(),
    }
}

fn state_name(state: NeighbourState) -> &'static str {
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

impl Kernel {
    /// `ip route`
    pub fn ip_route(&self, ns: NsId) -> String {
        let mut text = String::new();
        let Some(space) = self.namespace(ns) else { return text };
        for (route, proto) in space.routes() {
            let link = space.links.named(&route.dev);
            let all = (Ipv4Addr::UNSPECIFIED, 0);
            match (route.to.addr(), route.to.prefix_len()) {
                net if net == all => text.push_str("default"),
                (addr, 32) => append(&mut text, format_args!("{addr}")),
                _ => append(&mut text, format_args!("{}", route.to)),
            }
            if let Some(via) = route.via {
                append(&mut text, format_args!(" via {via}"));
            }
            append(&mut text, format_args!(" dev {}", route.dev));
            if proto != Proto::BOOT {
                append(&mut text, format_args!(" proto {}", proto_name(proto)));
            }
            if route.via.is_none() {
                text.push_str(" scope link");
            }
            let source = space.fib.main_entries().iter().find(|entry| {
                entry.proto == proto
                    && entry.plen == route.to.prefix_len()
                    && entry.to == u32::from(route.to.addr())
                    && link.is_some_and(|link| link.index == entry.dev)
            });
            if let Some(src) = source.and_then(|entry| entry.prefsrc) {
                append(&mut text, format_args!(" src {src}"));
            }
            if route.metric != 0 {
                append(&mut text, format_args!(" metric {}", route.metric));
            }
            if route.onlink {
                text.push_str(" onlink");
            }
            if link.is_some_and(|link| !link.carrier) {
                text.push_str(" linkdown");
            }
            text.push('\n');
        }
        text
    }

    /// The local table's part of `ip route show table all`, of which [`Kernel::ip_route`] is the
    /// main table's.
    pub fn ip_route_local(&self, ns: NsId) -> String {
        let mut text = String::new();
        let Some(space) = self.namespace(ns) else { return text };
        for entry in space.fib.local_entries() {
            let kind = if entry.kind == Kind::Local { "local" } else { "broadcast" };
            let (to, dev) = (Ipv4Addr::from(entry.to), space.links.name(entry.dev).unwrap_or("?"));
            append(&mut text, format_args!("{kind} {to}"));
            if entry.plen < 32 {
                append(&mut text, format_args!("/{}", entry.plen));
            }
            let scope = if entry.scope == Scope::Host { "host" } else { "link" };
            let proto = proto_name(entry.proto);
            let line = format_args!(" dev {dev} table local proto {proto} scope {scope}");
            append(&mut text, line);
            if let Some(src) = entry.prefsrc {
                append(&mut text, format_args!(" src {src}"));
            }
            text.push('\n');
        }
        text
    }

    /// `ip rule`: what every namespace has (fib_default_rules_init, net/ipv4/fib_rules.c), and
    /// nobody can add to.
    pub fn ip_rule(&self) -> &'static str {
        "0: from all lookup local\n32766: from all lookup main\n32767: from all lookup default\n"
    }

    /// `ip -4 route get`: the way that a packet of this machine's own takes, and its source.
    pub fn ip_route_get(&self, ns: NsId, dst: Ipv4Addr) -> Result<String, Errno> {
        let space = self.namespace(ns).ok_or(Errno::Einval)?;
        let hop = space.route_output(dst, None)?;
        let dev = if hop.kind == Kind::Local { Kernel::LO } else { hop.dev };
        let kind = match hop.kind {
            Kind::Unicast => "",
            Kind::Local => "local ",
            Kind::Broadcast => "broadcast ",
        };
        let mut text = format!("{kind}{dst}");
        if let Some(via) = hop.via {
            append(&mut text, format_args!(" via {via}"));
        }
        append(&mut text, format_args!(" dev {}", space.links.name(dev).unwrap_or("?")));
        if let Some(src) = space.source_for(dst, &hop) {
            append(&mut text, format_args!(" src {src}"));
        }
        Ok(text)
    }

    /// `ip -4 addr`, without lifetimes and queueing.
    pub fn ip_addr(&self, ns: NsId) -> String {
        let mut text = String::new();
        for link in self.links(ns) {
            let loopback = link.link_kind() == LinkKind::Loopback;
            let mut flags = vec![];
            if link.up && !link.carrier {
                flags.push("NO-CARRIER");
            }
            if loopback {
                flags.push("LOOPBACK");
            } else {
                flags.extend(["BROADCAST", "MULTICAST"]);
            }
            if link.up {
                flags.push("UP");
            }
            if link.running() {
                flags.push("LOWER_UP");
            }
            let (index, name, flags, mtu) = (link.index, &link.name, flags.join(","), link.mtu);
            append(&mut text, format_args!("{index}: {name}: <{flags}> mtu {mtu}"));
            let master = link.master.and_then(|m| self.links(ns).find(|l| l.index == m));
            if let Some(master) = master {
                append(&mut text, format_args!(" master {}", master.name));
            }
            let kind = if loopback { "loopback" } else { "ether" };
            append(&mut text, format_args!("\n    link/{kind} {}\n", link.mac));
            for address in &link.addresses {
                let scope = address.scope_word();
                let second = if address.secondary { " secondary" } else { "" };
                let line = format_args!("    inet {} scope {scope}{second} {name}\n", address.net);
                append(&mut text, line);
            }
        }
        text
    }

    /// `ip neigh`
    pub fn ip_neigh(&self, ns: NsId) -> String {
        let mut text = String::new();
        for entry in self.neighbours(ns) {
            let dev = self.links(ns).find(|link| link.index == entry.dev);
            let dev = dev.map_or("?", |link| link.name.as_str());
            append(&mut text, format_args!("{} dev {dev}", entry.ip));
            if let Some(mac) = entry.mac {
                append(&mut text, format_args!(" lladdr {mac}"));
            }
            append(&mut text, format_args!(" {}\n", state_name(entry.state)));
        }
        text
    }

    /// `bridge fdb`: what bridges learned and vxlan devices were given.
    pub fn bridge_fdb(&self, ns: NsId) -> String {
        let mut text = String::new();
        for link in self.links(ns) {
            if let super::link::Kind::Vxlan(device) = &link.kind {
                for entry in device.fdb.slice() {
                    let (mac, remote) = (entry.mac, entry.remote);
                    let line =
                        format_args!("{mac} dev {} dst {remote} self permanent\n", link.name);
                    append(&mut text, line);
                }
            }
            for (mac, port, _) in self.fdb(ns, link.index) {
                let port = self.links(ns).find(|l| l.index == port);
                let port = port.map_or("?", |link| link.name.as_str());
                append(&mut text, format_args!("{mac} dev {port} master {}\n", link.name));
            }
        }
        text
    }
}

fn append(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String never fails");
}
