//! rtnetlink for IPv6: addresses, routes and neighbours, as `ip -6` speaks it.

use super::netlink::Netlink;
use ipnet::Ipv6Net;
use kubesim_actors::ports::network::{Errno, Mac, Proto};
use kubesim_sim::kernel::{Placing, Route6};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use std::net::{IpAddr, Ipv6Addr};

/// `RT_TABLE_LOCAL`
const TABLE_LOCAL: u8 = 255;

/// A neighbour as netlink has it.
pub struct Found6 {
    pub dev: u32,
    pub ip: Ipv6Addr,
    pub mac: Option<Mac>,
    pub state: &'static str,
    pub router: bool,
}

impl Netlink {
    pub fn add_address6(&mut self, link: u32, net: Ipv6Net) -> Result<(), Errno> {
        let message = Message::NewAddress(address(link, net));
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    pub fn del_address6(&mut self, link: u32, net: Ipv6Net) -> Result<(), Errno> {
        self.ask(Message::DelAddress(address(link, net)), NLM_F_ACK).map(|_| ())
    }

    /// Each address with its link, if nothing stands in the way of its use.
    pub fn addresses6(&mut self) -> Result<Vec<Option<(u32, Ipv6Addr)>>, Errno> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet6;
        let found = self.ask(Message::GetAddress(request), NLM_F_DUMP)?;
        let addresses = found.iter().filter_map(|message| {
            let Message::NewAddress(message) = message else { return None };
            let ip = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V6(ip)) => Some(*ip),
                _ => None,
            })?;
            let flags = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Flags(flags) => Some(*flags),
                _ => None,
            });
            let tentative = flags.is_some_and(|flags| flags.contains(AddressFlags::Tentative));
            Some((!tentative).then_some((message.header.index, ip)))
        });
        Ok(addresses.collect())
    }

    pub fn add_route6(
        &mut self,
        route: &Route6,
        proto: Proto,
        placing: Placing,
        link: u32,
    ) -> Result<(), Errno> {
        let message = Message::NewRoute(message_of(route, proto, link));
        let how = match placing {
            Placing::Alone => NLM_F_EXCL,
            Placing::Behind => NLM_F_APPEND,
            Placing::Instead => NLM_F_REPLACE,
        };
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | how).map(|_| ())
    }

    pub fn set_mtu(&mut self, link: u32, mtu: u32) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.ask(Message::SetLink(message), NLM_F_ACK).map(|_| ())
    }

    /// As `ip -6 route del`, which names no type.
    pub fn del_route6(&mut self, route: &Route6, proto: Proto, link: u32) -> Result<(), Errno> {
        let mut message = message_of(route, proto, link);
        message.header.kind = RouteType::Unspec;
        self.ask(Message::DelRoute(message), NLM_F_ACK).map(|_| ())
    }

    /// All tables, in their order: lines as the model's [`kubesim_sim::kernel::Kernel::ip_route6`]
    /// has them; and of the local table the link and address of each route to one address.
    pub fn routes6(&mut self, name: impl Fn(u32) -> String) -> Result<Tables6, Errno> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet6;
        let found = self.ask(Message::GetRoute(request), NLM_F_DUMP)?;
        let mut tables = Tables6::default();
        for message in &found {
            let Message::NewRoute(message) = message else { continue };
            let facts = Facts::of(message);
            let local = message.header.table == TABLE_LOCAL;
            if local && message.header.kind == RouteType::Local {
                tables.own.push((facts.dev, facts.to));
            }
            let line = table_line(message, &facts, &name(facts.dev), local);
            if local { tables.local.push(line) } else { tables.main.push(line) }
        }
        Ok(tables)
    }

    /// `ip -6 route get`
    pub fn get6(&mut self, dst: Ipv6Addr, name: impl Fn(u32) -> String) -> Result<String, Errno> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet6;
        request.header.destination_prefix_length = 128;
        request.attributes.push(RouteAttribute::Destination(RouteAddress::Inet6(dst)));
        let found = self.ask(Message::GetRoute(request), 0)?;
        let Some(Message::NewRoute(message)) = found.first() else { return Err(Errno::Einval) };
        let facts = Facts::of(message);
        let via = facts.via.map_or(String::new(), |via| format!(" via {via}"));
        let src = facts.src.map_or(String::new(), |src| format!(" src {src}"));
        Ok(format!("{}{dst}{via} dev {}{src}", kind_word(message), name(facts.dev)))
    }

    pub fn neighbours6(&mut self) -> Result<Vec<Found6>, Errno> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Inet6;
        let found = self.ask(Message::GetNeighbour(request), NLM_F_DUMP)?;
        Ok(found.iter().filter_map(neighbour).collect())
    }
}

#[derive(Debug, Default)]
pub struct Tables6 {
    pub main: Vec<String>,
    pub local: Vec<String>,
    pub own: Vec<(u32, Ipv6Addr)>,
}

fn address(link: u32, net: Ipv6Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = net.prefix_len();
    message.header.index = link;
    message.attributes = vec![AddressAttribute::Address(IpAddr::V6(net.addr()))];
    message
}

fn message_of(route: &Route6, proto: Proto, link: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet6,
        destination_prefix_length: route.to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(proto.0),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    if route.to.prefix_len() > 0 {
        let to = RouteAddress::Inet6(route.to.addr());
        message.attributes.push(RouteAttribute::Destination(to));
    }
    message.attributes.push(RouteAttribute::Oif(link));
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet6(via)));
    }
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

struct Facts {
    to: Ipv6Addr,
    via: Option<Ipv6Addr>,
    src: Option<Ipv6Addr>,
    dev: u32,
    metric: u32,
}

impl Facts {
    fn of(message: &RouteMessage) -> Facts {
        let mut facts =
            Facts { to: Ipv6Addr::UNSPECIFIED, via: None, src: None, dev: 0, metric: 0 };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet6(to)) => facts.to = *to,
                RouteAttribute::Gateway(RouteAddress::Inet6(via)) => facts.via = Some(*via),
                RouteAttribute::PrefSource(RouteAddress::Inet6(src)) => facts.src = Some(*src),
                RouteAttribute::Oif(dev) => facts.dev = *dev,
                RouteAttribute::Priority(metric) => facts.metric = *metric,
                _ => {}
            }
        }
        facts
    }
}

fn kind_word(message: &RouteMessage) -> String {
    match message.header.kind {
        RouteType::Unicast => String::new(),
        kind => format!("{kind:?} ").to_lowercase(),
    }
}

fn table_line(message: &RouteMessage, facts: &Facts, dev: &str, local: bool) -> String {
    let to = match message.header.destination_prefix_length {
        0 => "default".to_owned(),
        128 => facts.to.to_string(),
        plen => format!("{}/{plen}", facts.to),
    };
    let kind = kind_word(message);
    let via = facts.via.map_or(String::new(), |via| format!(" via {via}"));
    let table = if local { " table local" } else { "" };
    let proto = u8::from(message.header.protocol);
    let onlink = message.header.flags.contains(RouteFlags::Onlink);
    let onlink = if onlink { " onlink" } else { "" };
    format!("{kind}{to}{via} dev {dev}{table} proto {proto} metric {}{onlink}", facts.metric)
}

fn neighbour(message: &Message) -> Option<Found6> {
    let Message::NewNeighbour(message) = message else { return None };
    let state = super::neighbours::state_word(message.header.state)?;
    let router = message.header.flags.contains(NeighbourFlags::Router);
    let (dev, mut ip, mut mac) = (message.header.ifindex, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => ip = Some(*found),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac);
            }
            _ => {}
        }
    }
    Some(Found6 { dev, ip: ip?, mac, state, router })
}
