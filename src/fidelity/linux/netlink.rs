//! rtnetlink, as `ip` speaks it. When a send returns, the kernel has done what the message asks
//! and its answers lie in the receive queue (netlink_rcv_skb, net/netlink/af_netlink.c).

use crate::fidelity::step::route_line;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, Proto, Route};
use kubesim_backends::network::errno;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

pub struct Netlink {
    socket: Socket,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Netlink {
    /// In the calling thread's network namespace.
    pub fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Netlink { socket, out: Vec::new(), input: Vec::new() })
    }

    /// Everything that one request is answered with.
    pub(super) fn ask(&mut self, message: Message, flags: u16) -> Result<Vec<Message>, Errno> {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), message.into());
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        self.out.resize(request.buffer_len(), 0);
        request.serialize(&mut self.out);
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(&self.out, &kernel, 0).map_err(|error| errno::from_io(&error))?;
        let (mut found, dump) = (Vec::new(), flags & NLM_F_DUMP == NLM_F_DUMP);
        loop {
            self.input.clear();
            self.input.reserve(64 << 10);
            let got = self.socket.recv(&mut self.input, 0);
            got.map_err(|error| errno::from_io(&error))?;
            let mut rest = &self.input[..];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Message>::deserialize(rest);
                let answer = answer.map_err(|_| Errno::Einval)?;
                let length = (answer.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => {
                        let refused = error.code.map(|code| errno::from_raw(-code.get()));
                        return refused.map_or(Ok(found), Err);
                    }
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    _ => {}
                }
            }
            if flags == 0 && !dump {
                return Ok(found);
            }
        }
    }

    pub fn add_address(&mut self, link: u32, net: Ipv4Net) -> Result<(), Errno> {
        let message = Message::NewAddress(address(link, net));
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    pub fn del_address(&mut self, link: u32, net: Ipv4Net) -> Result<(), Errno> {
        self.ask(Message::DelAddress(address(link, net)), NLM_F_ACK).map(|_| ())
    }

    pub fn set_up(&mut self, link: u32, up: bool) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.ask(Message::SetLink(message), NLM_F_ACK).map(|_| ())
    }

    pub fn add_route(&mut self, route: &Route, proto: Proto, link: u32) -> Result<(), Errno> {
        let message = Message::NewRoute(message_of(route, proto, link));
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(|_| ())
    }

    /// As `ip route del`, which names no type (iproute2, ip/iproute.c: iproute_modify).
    pub fn del_route(&mut self, route: &Route, proto: Proto, link: u32) -> Result<(), Errno> {
        let mut message = message_of(route, proto, link);
        message.header.kind = RouteType::Unspec;
        self.ask(Message::DelRoute(message), NLM_F_ACK).map(|_| ())
    }

    /// The main table, a line a route.
    pub fn routes(&mut self, name: impl Fn(u32) -> String) -> Result<Vec<String>, Errno> {
        let header = RouteHeader {
            address_family: AddressFamily::Inet,
            table: RouteHeader::RT_TABLE_MAIN,
            ..RouteHeader::default()
        };
        let mut request = RouteMessage::default();
        request.header = header;
        let found = self.ask(Message::GetRoute(request), NLM_F_DUMP)?;
        let line = |message: &Message| {
            let Message::NewRoute(message) = message else { return None };
            let main = message.header.table == RouteHeader::RT_TABLE_MAIN;
            main.then(|| table_line(message, &name))
        };
        Ok(found.iter().filter_map(line).collect())
    }

    /// `ip route get`
    pub fn get(&mut self, dst: Ipv4Addr, name: impl Fn(u32) -> String) -> Result<String, Errno> {
        let header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: 32,
            ..RouteHeader::default()
        };
        let mut request = RouteMessage::default();
        request.header = header;
        request.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(dst)));
        let found = self.ask(Message::GetRoute(request), 0)?;
        let Some(Message::NewRoute(message)) = found.first() else { return Err(Errno::Einval) };
        let kind = match message.header.kind {
            RouteType::Unicast => String::new(),
            kind => format!("{kind:?} ").to_lowercase(),
        };
        let facts = Facts::of(message);
        let via = facts.via.map_or(String::new(), |via| format!(" via {via}"));
        let src = facts.src.map_or(String::new(), |src| format!(" src {src}"));
        Ok(format!("{kind}{dst}{via} dev {}{src}", name(facts.dev)))
    }
}

fn address(link: u32, net: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = net.prefix_len();
    message.header.index = link;
    let ip = IpAddr::V4(net.addr());
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    if net.prefix_len() < 31 {
        message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
    }
    message
}

fn message_of(route: &Route, proto: Proto, link: u32) -> RouteMessage {
    let header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: route.to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(proto.0),
        scope: if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link },
        kind: RouteType::Unicast,
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let mut message = RouteMessage::default();
    message.header = header;
    if route.to.prefix_len() > 0 {
        let to = RouteAddress::Inet(route.to.addr());
        message.attributes.push(RouteAttribute::Destination(to));
    }
    message.attributes.push(RouteAttribute::Oif(link));
    if let Some(via) = route.via {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(via)));
    }
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

struct Facts {
    to: Ipv4Addr,
    via: Option<Ipv4Addr>,
    src: Option<Ipv4Addr>,
    dev: u32,
    metric: u32,
}

impl Facts {
    fn of(message: &RouteMessage) -> Facts {
        let unspecified = Ipv4Addr::UNSPECIFIED;
        let mut facts = Facts { to: unspecified, via: None, src: None, dev: 0, metric: 0 };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(to)) => facts.to = *to,
                RouteAttribute::Gateway(RouteAddress::Inet(via)) => facts.via = Some(*via),
                RouteAttribute::PrefSource(RouteAddress::Inet(src)) => facts.src = Some(*src),
                RouteAttribute::Oif(dev) => facts.dev = *dev,
                RouteAttribute::Priority(metric) => facts.metric = *metric,
                _ => {}
            }
        }
        facts
    }
}

fn table_line(message: &RouteMessage, name: impl Fn(u32) -> String) -> String {
    let facts = Facts::of(message);
    let route = Route {
        to: Ipv4Net::new_assert(facts.to, message.header.destination_prefix_length.min(32)),
        via: facts.via,
        dev: name(facts.dev).as_str().into(),
        onlink: message.header.flags.contains(RouteFlags::Onlink),
        metric: facts.metric,
    };
    route_line(&route, Proto(message.header.protocol.into()), facts.src)
}
