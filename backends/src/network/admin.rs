//! What is done to a machine's network by others than netd: by whoever holds its address
//! (NetworkManager), by what wires a pod (a CNI plugin), by a person who looks.

use super::errno::from_io;
pub use super::message::Link;
use super::message::{Address, Message, Route as Numbered};
use super::neighbours::request;
use super::socket::Socket;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, FdbEntry, Mac, Neighbour, Proto, Route};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkMessage,
};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Request};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkDummy, LinkMessageBuilder, LinkUnspec, LinkVeth,
    LinkWireguard, RouteMessageBuilder,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A netlink socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Admin(Socket);

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    pub name: &'a str,
    pub mac: Mac,
}

impl Admin {
    /// Of the calling thread's network namespace.
    pub fn open() -> io::Result<Admin> {
        Socket::open().map(Admin)
    }

    /// The number of a link.
    pub fn link(&mut self, name: &str) -> Result<u32, Errno> {
        let asked = LinkUnspec::new_with_name(name).build();
        self.get(asked).map(|link| link.index)
    }

    pub fn mtu(&mut self, link: u32) -> Result<u32, Errno> {
        self.get(LinkUnspec::new_with_index(link).build()).map(|link| link.mtu)
    }

    fn get(&mut self, asked: LinkMessage) -> Result<Link, Errno> {
        match self.0.get(&Request::GetLink(asked))? {
            Some(Message::Link(link)) => Ok(link),
            _ => Err(Errno::Enodev),
        }
    }

    /// The first link of which this is so: all are looked at.
    pub fn find(&mut self, wanted: impl Fn(&Link) -> bool) -> Result<Option<Link>, Errno> {
        let found = self.0.dump(&Request::GetLink(LinkMessage::default()))?;
        Ok(found.into_iter().find_map(|message| match message {
            Message::Link(link) if wanted(&link) => Some(link),
            _ => None,
        }))
    }

    pub fn set_up(&mut self, link: u32, up: bool) -> Result<(), Errno> {
        let change = LinkUnspec::new_with_index(link);
        let change = if up { change.up() } else { change.down() };
        self.0.call(Request::SetLink(change.build()), 0)
    }

    /// Of a card whose driver lets it be said (tun_net_change_carrier, drivers/net/tun.c).
    pub fn set_carrier(&mut self, link: u32, carrier: bool) -> Result<(), Errno> {
        let change = LinkUnspec::new_with_index(link).carrier(carrier);
        self.0.call(Request::SetLink(change.build()), 0)
    }

    pub fn delete_link(&mut self, link: u32) -> Result<(), Errno> {
        self.0.call(Request::DelLink(LinkUnspec::new_with_index(link).build()), 0)
    }

    /// A bridge that is up.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Errno> {
        self.0.call(Request::NewLink(LinkBridge::new(name).up().build()), NEW)
    }

    /// A device that swallows what it sends, down.
    pub fn add_dummy(&mut self, name: &str) -> Result<(), Errno> {
        self.0.call(Request::NewLink(LinkDummy::new(name).build()), NEW)
    }

    /// A device of WireGuard's, down, without a key.
    pub fn add_wireguard(&mut self, name: &str) -> Result<(), Errno> {
        self.0.call(Request::NewLink(LinkWireguard::new(name).build()), NEW)
    }

    /// Every address, with its link's number.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Net)>, Errno> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let found = self.0.dump(&Request::GetAddress(request))?;
        let held = found.into_iter().filter_map(|message| match message {
            Message::Address(Address { link, net }) => Some((link, net)),
            _ => None,
        });
        Ok(held.collect())
    }

    /// A pair whose outer end is here, up and a port of `bridge`, and whose inner end is in another
    /// namespace, down.
    pub fn add_veth(
        &mut self,
        outer: End<'_>,
        bridge: u32,
        (space, inner): (&OwnedFd, End<'_>),
        mtu: u32,
    ) -> Result<(), Errno> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(inner.name)
            .address(inner.mac.0.to_vec())
            .mtu(mtu)
            .setns_by_fd(space.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(outer.name)
            .address(outer.mac.0.to_vec())
            .mtu(mtu)
            .controller(bridge)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.0.call(Request::NewLink(pair), NEW)
    }

    /// Lets a bridge send a frame out of the port that it came in by.
    pub fn set_hairpin(&mut self, port: u32) -> Result<(), Errno> {
        let change = LinkUnspec::new_with_index(port)
            .set_port_kind(InfoPortKind::Bridge)
            .set_port_data(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]));
        self.0.call(Request::NewLink(change.build()), 0)
    }

    pub fn add_address(&mut self, link: u32, net: Ipv4Net) -> Result<(), Errno> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link)
            .address(net.addr(), net.prefix_len())
            .build();
        self.0.call(Request::NewAddress(message), NEW)
    }

    pub fn del_address(&mut self, link: u32, net: Ipv4Net) -> Result<(), Errno> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link)
            .address(net.addr(), net.prefix_len())
            .build();
        self.0.call(Request::DelAddress(message), 0)
    }

    /// A route of the main table, as `ip route add`.
    pub fn add_route(&mut self, link: u32, route: &Route, proto: Proto) -> Result<(), Errno> {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.to.addr(), route.to.prefix_len())
            .output_interface(link)
            .protocol(RouteProtocol::from(proto.0));
        if let Some(via) = route.via {
            message = message.gateway(via);
        }
        if route.metric != 0 {
            message = message.priority(route.metric);
        }
        self.0.call(Request::NewRoute(message.build()), NEW)
    }

    /// The unicast routes of the main table, in its order. A link without a name is none.
    pub fn routes(&mut self) -> Result<Vec<(Route, Proto)>, Errno> {
        let names = self.names()?;
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        let found = match self.0.dump(&Request::GetRoute(request)) {
            // A namespace's main table comes with its first route.
            Err(errno) if errno == Errno::Other(nix::errno::Errno::ENOENT as u16) => Vec::new(),
            found => found?,
        };
        let named = |route: &Numbered| {
            let (_, name) = names.iter().find(|(index, _)| *index == route.dev)?;
            let (to, via, dev) = (route.to.net(), route.via(), name.clone());
            let (onlink, metric) = (route.onlink, route.metric);
            Some((Route { to, via, dev, onlink, metric }, route.proto))
        };
        Ok(found
            .iter()
            .filter_map(|message| match message {
                Message::Route(route) => named(route),
                _ => None,
            })
            .collect())
    }

    fn names(&mut self) -> Result<Vec<(u32, smol_str::SmolStr)>, Errno> {
        let found = self.0.dump(&Request::GetLink(LinkMessage::default()))?;
        let named = found.into_iter().filter_map(|message| match message {
            Message::Link(link) => Some((link.index, link.name)),
            _ => None,
        });
        Ok(named.collect())
    }

    /// Permanent neighbours of a device.
    pub fn neighbours(&mut self, link: u32) -> Result<Vec<Neighbour>, Errno> {
        let found = self.0.dump(&request(AddressFamily::Inet, link))?;
        let ours = found.into_iter().filter_map(|message| match message {
            Message::Neighbour(known) if known.link == link => {
                Some(Neighbour { ip: known.ip, mac: known.mac? })
            }
            _ => None,
        });
        Ok(ours.collect())
    }

    /// Where a vxlan device sends frames for which address.
    pub fn fdb(&mut self, link: u32) -> Result<Vec<FdbEntry>, Errno> {
        let found = self.0.dump(&request(AddressFamily::Bridge, link))?;
        let ours = found.into_iter().filter_map(|message| match message {
            Message::Fdb { entry, gone: false } if entry.link == link => {
                Some(FdbEntry { mac: entry.mac, remote: entry.remote })
            }
            _ => None,
        });
        Ok(ours.collect())
    }
}

/// What an error of the machine's is called.
pub fn errno(error: &io::Error) -> Errno {
    from_io(error)
}
