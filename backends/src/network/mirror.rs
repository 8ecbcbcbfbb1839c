//! What the kernel has, as far as netlink has told: links, addresses, forwarding, default routes.

use super::message::{Address, Conf, Link, Message, Prefix, Route};
use super::routes::Table;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{self, Errno, IfName, LinkKind, Proto, RouteSet, State};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Mirror {
    links: BTreeMap<u32, Link>,
    /// By link, in the kernel's order.
    addresses: BTreeMap<u32, Vec<Ipv4Net>>,
    forwarding: BTreeMap<u32, bool>,
    ip_forward: bool,
    defaults: Vec<Route>,
}

/// What a piece of news leaves in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    None,
    /// The kernel's order of addresses is in no news.
    Addresses,
    /// Routes by this link may be gone, which the kernel says to nobody.
    RoutesBy(u32),
}

impl Mirror {
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    pub fn links_of(&self, kind: LinkKind) -> impl Iterator<Item = u32> + '_ {
        self.links.values().filter(move |link| link.kind == kind).map(|link| link.index)
    }

    /// A set's routes with their links by number; those by links that are not there are refused.
    pub fn numbered<'a>(
        &'a self,
        proto: Proto,
        set: &'a RouteSet,
        refused: &'a mut Vec<(Ipv4Net, Errno)>,
    ) -> impl Iterator<Item = Route> + 'a {
        let mut last: Option<(&IfName, u32)> = None;
        set.iter().filter_map(move |route| {
            let dev = match last {
                Some((name, dev)) if *name == route.dev => dev,
                _ => {
                    let Some(link) = self.link(&route.dev) else {
                        refused.push((route.to, Errno::Enodev));
                        return None;
                    };
                    last = Some((&link.name, link.index));
                    link.index
                }
            };
            Some(Route::new(proto, route, dev))
        })
    }

    pub fn addresses(&self, link: u32) -> &[Ipv4Net] {
        self.addresses.get(&link).map_or(&[], Vec::as_slice)
    }

    pub fn has_default_by(&self, link: u32) -> bool {
        self.defaults.iter().any(|route| route.dev == link)
    }

    pub fn has_default_like(&self, route: &Route) -> bool {
        route.to == Prefix::DEFAULT
            && self.defaults.iter().any(|other| other.metric == route.metric)
    }

    /// Takes news in. IPv4 routes that go with a link or an address go silently: fib_table_flush
    /// (net/ipv4/fib_trie.c) tells netlink of none but those that had a source of their own.
    pub fn apply(&mut self, news: &Message) -> Doubt {
        match news {
            Message::Link(link) => {
                let before = self.links.insert(link.index, link.clone());
                if before.is_some_and(|before| before.up && !link.up) {
                    return Doubt::RoutesBy(link.index);
                }
            }
            Message::LinkGone(index) => {
                self.links.remove(index);
                self.addresses.remove(index);
                self.forwarding.remove(index);
                return Doubt::RoutesBy(*index);
            }
            Message::Address(_) => return Doubt::Addresses,
            Message::AddressGone(address) => return Doubt::RoutesBy(address.link),
            Message::Route(route)
                if route.to == Prefix::DEFAULT && !self.defaults.contains(route) =>
            {
                self.defaults.push(*route);
            }
            Message::RouteGone(route) if route.to == Prefix::DEFAULT => {
                self.defaults.retain(|known| known != route);
            }
            Message::Forwarding { of: Conf::All, on } => self.ip_forward = *on,
            Message::Forwarding { of: Conf::Link(index), on } => {
                self.forwarding.insert(*index, *on);
            }
            Message::ConfGone(index) => {
                self.forwarding.remove(index);
            }
            _ => {}
        }
        Doubt::None
    }

    /// Takes whole lists in.
    pub fn reset(&mut self, links: Vec<Message>, confs: Vec<Message>) {
        self.links.clear();
        self.forwarding.clear();
        for message in links.iter().chain(&confs) {
            self.apply(message);
        }
    }

    pub fn reset_addresses(&mut self, list: Vec<Message>) {
        self.addresses.clear();
        for message in list {
            if let Message::Address(Address { link, net }) = message {
                self.addresses.entry(link).or_default().push(net);
            }
        }
    }

    pub fn reset_defaults(&mut self, routes: &[Route]) {
        self.defaults =
            routes.iter().filter(|route| route.to == Prefix::DEFAULT).copied().collect();
    }

    /// Those of an owner whose changes are no news here, since we made them.
    pub fn set_own_defaults(&mut self, proto: Proto, table: &Table) {
        self.defaults.retain(|route| route.proto != proto);
        self.defaults.extend(table.iter().take_while(|route| route.to == Prefix::DEFAULT));
    }

    pub fn state(&self, netd_routes: usize, bridge_nf: bool) -> State {
        // Of equal ones the first counts.
        let default = self.defaults.iter().min_by_key(|route| route.metric).map(|route| route.dev);
        let name_of = |index: u32| self.links.get(&index).map(|link| link.name.clone());
        let links = self.links.values().map(|link| network::Link {
            name: link.name.clone(),
            index: link.index,
            kind: link.kind,
            mac: link.mac,
            mtu: link.mtu,
            up: link.up,
            carrier: link.carrier,
            master: link.master.and_then(name_of),
            addresses: self.addresses(link.index).to_vec(),
            forwarding: self.forwarding.get(&link.index).copied().unwrap_or_default(),
            default_route: default == Some(link.index),
        });
        State { links: links.collect(), netd_routes, ip_forward: self.ip_forward, bridge_nf }
    }
}
