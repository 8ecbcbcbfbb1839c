use super::super::fields::Fields;
use super::super::keys;
use super::super::model::{Client, Dhcp, Link, Network, Quality, Upstream, UpstreamBehaviour};
use super::super::tree::{Item, Value};
use super::Reader;
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use std::net::Ipv4Addr;
use std::time::Duration;

pub const BEHAVIOURS: &[(&str, UpstreamBehaviour)] = &[
    ("answer", UpstreamBehaviour::Answer),
    ("hang", UpstreamBehaviour::Hang),
    ("refuse", UpstreamBehaviour::Refuse),
    ("servfail", UpstreamBehaviour::ServFail),
    ("nxdomain", UpstreamBehaviour::NxDomain),
];

impl Reader<'_> {
    pub fn networks(&self, top: Fields<'_>) -> Vec<Network> {
        top.required("network");
        let mut networks: Vec<Network> = Vec::new();
        let mut names = Vec::new();
        for item in top.tables("network") {
            let f = Fields::open(self.log, item, &[&keys::NETWORK]);
            let name = f.required_name("name");
            self.unique(&mut names, "network", &name, f.place("name"));
            f.required("cidr");
            let Some(cidr) = f.cidr("cidr") else { continue };
            if let Some(other) = networks.iter().find(|other| overlap(other.cidr, cidr)) {
                let message = format!(
                    "the networks `{name}` ({cidr}) and `{}` ({}) overlap",
                    other.name, other.cidr
                );
                f.error("cidr", message, "every [[network]] needs a range of its own");
            }
            self.usable(f, "cidr", cidr, false);
            if !self.roomy(f, "cidr", cidr, "a router and a machine") {
                continue;
            }
            let gateway = self.inside(f, "gateway", cidr).unwrap_or_else(|| nth(cidr, 1));
            let mtu = f.int("mtu", 576..=65535).map_or(1500, |mtu| mtu as u32);
            let quality = self.quality(f, Duration::from_micros(100));
            let dhcp = f.item("dhcp").and_then(|item| self.dhcp(item, cidr, gateway));
            networks.push(Network { name, cidr, gateway, mtu, quality, dhcp });
        }
        networks
    }

    fn dhcp(&self, item: &Item, cidr: Ipv4Net, gateway: Ipv4Addr) -> Option<Dhcp> {
        let f = Fields::open(self.log, item, &[&keys::DHCP]);
        f.required("first");
        f.required("last");
        let first = self.inside(f, "first", cidr)?;
        let last = self.inside(f, "last", cidr)?;
        if last < first {
            f.error("last", format!("the pool ends ({last}) before it begins ({first})"), "");
        }
        if (first..=last).contains(&gateway) {
            let key = if first == gateway { "first" } else { "last" };
            let message =
                format!("the pool ({first} to {last}) gives away {gateway}, the gateway of {cidr}");
            f.error(key, message, "begin it behind the gateway, or end it before");
        }
        let lease = f.duration("lease").unwrap_or(Duration::from_secs(3600));
        if lease < Duration::from_secs(1) {
            f.error("lease", "`lease` is too short", "at least 1s: it is counted in whole seconds");
        }
        let dns = if f.has("dns") { f.addresses("dns") } else { vec![gateway] };
        Some(Dhcp { first, last, lease, dns })
    }

    pub fn quality(&self, f: Fields<'_>, latency: Duration) -> Quality {
        Quality {
            latency: f.duration("latency").unwrap_or(latency),
            jitter: f.duration("jitter").unwrap_or_default(),
            loss: f.share("loss"),
            duplicate: f.share("duplicate"),
            reorder: f.share("reorder"),
        }
    }

    /// An address that must be one of the network's.
    pub fn inside(&self, f: Fields<'_>, key: &str, cidr: Ipv4Net) -> Option<Ipv4Addr> {
        let address = f.address(key)?;
        let host = address != cidr.network() && address != cidr.broadcast();
        if !(cidr.contains(&address) && (host || cidr.prefix_len() >= 31)) {
            let help = format!("its machines are {} to {}", nth(cidr, 1), last(cidr));
            f.error(key, format!("{address} is not a machine's address in {cidr}"), help);
        }
        Some(address)
    }

    pub fn links(&self, top: Fields<'_>) -> Vec<Link> {
        let mut names = Vec::new();
        let mut links = Vec::new();
        for item in top.tables("link") {
            let f = Fields::open(self.log, item, &[&keys::LINK]);
            f.required("between");
            let mut ends = Vec::new();
            for (text, at) in f.texts("between") {
                match self.names.networks.iter().find(|name| *name == text) {
                    Some(name) => ends.push(name.clone()),
                    None => {
                        let known = self.names.networks.iter().map(Name::as_str);
                        self.unknown(at, "network", text, known);
                    }
                }
            }
            let [a, b] = ends.as_slice() else {
                if f.has("between") && f.texts("between").len() != 2 {
                    f.error("between", "`between` wants the names of two networks", "");
                }
                continue;
            };
            if a == b {
                let message = format!("the link has `{a}` at both ends");
                f.error("between", message, "name two networks");
            }
            let nat = self.reference(f, "nat", "network", &[a.clone(), b.clone()]);
            let name = f.text("name").map_or_else(|| Name::from(format!("{a}-{b}")), Name::from);
            self.unique(&mut names, "link", &name, f.place("name"));
            links.push(Link {
                name,
                between: (a.clone(), b.clone()),
                quality: self.quality(f, Duration::from_millis(1)),
                nat,
                mtu: f.int("mtu", 576..=65535).map_or(1500, |mtu| mtu as u32),
            });
        }
        links
    }

    pub fn upstreams(&self, top: Fields<'_>) -> Vec<Upstream> {
        let mut names = Vec::new();
        let mut upstreams = Vec::new();
        for item in top.tables("upstream") {
            let f = Fields::open(self.log, item, &[&keys::UPSTREAM]);
            let name = f.required_name("name");
            self.unique(&mut names, "upstream", &name, f.place("name"));
            let (network, address) = self.placed(f, &name);
            let mut records = std::collections::BTreeMap::new();
            for entry in f.entries("records") {
                let values = match &entry.item.value {
                    Value::List(items) => items.as_slice(),
                    _ => std::slice::from_ref(&entry.item),
                };
                let name = entry.key.trim_end_matches('.').to_ascii_lowercase();
                let address = |item| f.address_of(item, &entry.key);
                records.insert(name, values.iter().filter_map(address).collect());
            }
            upstreams.push(Upstream {
                name,
                network,
                address,
                latency: f.duration("latency").unwrap_or(Duration::from_millis(1)),
                records,
                ttl: f.duration("ttl").unwrap_or(Duration::from_secs(30)),
                behaviour: f.word("behaviour", BEHAVIOURS).unwrap_or(UpstreamBehaviour::Answer),
            });
        }
        upstreams
    }

    pub fn clients(&self, top: Fields<'_>) -> Vec<Client> {
        let mut names = Vec::new();
        let mut clients = Vec::new();
        for item in top.tables("client") {
            let f = Fields::open(self.log, item, &[&keys::CLIENT]);
            let name = f.required_name("name");
            self.unique(&mut names, "client", &name, f.place("name"));
            let (network, address) = self.placed(f, &name);
            let mut routes = Vec::new();
            for item in f.tables("routes") {
                let route = Fields::open(self.log, item, &[&keys::ROUTE]);
                route.required("to");
                route.required("via");
                if let (Some(to), Some(via)) = (route.cidr("to"), route.address("via")) {
                    routes.push((to, via));
                }
            }
            clients.push(Client { name, network, address, routes });
        }
        clients
    }

    /// A network and an address in it, both required.
    fn placed(&self, f: Fields<'_>, name: &Name) -> (Name, Ipv4Addr) {
        let network = self.required_reference(f, "network", "network", &self.names.networks);
        f.required("address");
        let address = match self.networks.iter().find(|n| n.name == network) {
            Some(network) => {
                let address = self.inside(f, "address", network.cidr);
                if let Some(address) = address {
                    self.take(f.place("address"), network, address, name);
                }
                address
            }
            None => f.address("address"),
        };
        (network, address.unwrap_or(Ipv4Addr::UNSPECIFIED))
    }
}

pub fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The n-th address of a network; wraps rather than fails, callers check that it is inside.
pub fn nth(cidr: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(cidr.network()).wrapping_add(n))
}

fn last(cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(cidr.broadcast()).wrapping_sub(1))
}
