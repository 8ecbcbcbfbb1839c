//! What netlink tells us, as much of it as a driver looks at. What we tell netlink is made with
//! rtnetlink's builders and netlink-packet-route's types; answers are read here, since they come
//! by the thousand, since one that has something new in it must not hide what is known, and since
//! netlink-packet-route 0.34 knows no `RTM_NEWNETCONF`.
//!
//! Numbers are those of include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,netconf}.h.

use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{self, IfName, LinkKind, Mac, Proto};
use netlink_packet_core::{NetlinkBuffer, NetlinkSerializable, NlasIterator};
use std::net::Ipv4Addr;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;
const RTM_GETNETCONF: u16 = 82;
pub const RTM_NEWNEXTHOP: u16 = 104;
pub const RTM_DELNEXTHOP: u16 = 105;
pub const RTM_GETNEXTHOP: u16 = 106;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const NUD_PERMANENT: u16 = 0x80;

#[derive(Debug)]
pub enum Message {
    Link(Link),
    LinkGone(u32),
    Address(Address),
    AddressGone(Address),
    Route(Route),
    RouteGone(Route),
    Neighbour(Neighbour),
    Fdb { entry: Fdb, gone: bool },
    Nexthop(Nexthop),
    NexthopGone(u32),
    Forwarding { of: Conf, on: bool },
    ConfGone(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: IfName,
    pub kind: LinkKind,
    pub mac: Mac,
    pub mtu: u32,
    pub up: bool,
    pub carrier: bool,
    pub master: Option<u32>,
    pub vxlan: Option<VxlanConf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanConf {
    pub vni: u32,
    pub port: u16,
    pub local: Option<Ipv4Addr>,
    pub learning: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub net: Ipv4Net,
}

/// A route of the main table, in numbers: thousands are compared at a time.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub to: Prefix,
    pub metric: u32,
    /// 0.0.0.0: none.
    via: u32,
    /// 0 if it has several next hops.
    pub dev: u32,
    pub proto: Proto,
    pub onlink: bool,
    /// It says nothing that an actor's route cannot say.
    pub plain: bool,
    /// The object that names its gateway and link (see `nexthops.rs`), or 0: how it is written,
    /// not where it leads.
    pub nexthop: u32,
}

impl PartialEq for Route {
    fn eq(&self, other: &Route) -> bool {
        let said = |r: &Route| (r.to, r.metric, r.via, r.dev, r.proto, r.onlink, r.plain);
        said(self) == said(other)
    }
}

/// A next hop with a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nexthop {
    pub id: u32,
    pub proto: Proto,
    pub via: u32,
    pub dev: u32,
    pub onlink: bool,
}

/// A network: its address and, in the lowest byte, the prefix length. In the order of [`Ipv4Net`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(u64);

impl Prefix {
    pub const DEFAULT: Prefix = Prefix(0);

    pub fn net(self) -> Ipv4Net {
        let address = Ipv4Addr::from((self.0 >> 8) as u32);
        Ipv4Net::new_assert(address, self.0 as u8)
    }
}

impl From<Ipv4Net> for Prefix {
    fn from(net: Ipv4Net) -> Prefix {
        Prefix(u64::from(net.addr().to_bits()) << 8 | u64::from(net.prefix_len()))
    }
}

impl Route {
    pub fn new(proto: Proto, route: &network::Route, dev: u32) -> Route {
        let via = route.via.map_or(0, Ipv4Addr::to_bits);
        let (to, metric, onlink) = (route.to.into(), route.metric, route.onlink);
        Route { to, metric, via, dev, proto, onlink, plain: true, nexthop: 0 }
    }

    pub fn go_by(&mut self, via: u32, dev: u32, onlink: bool) {
        (self.via, self.dev, self.onlink) = (via, dev, onlink);
    }

    pub fn via(&self) -> Option<Ipv4Addr> {
        (self.via != 0).then(|| Ipv4Addr::from_bits(self.via))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub link: u32,
    pub ip: Ipv4Addr,
    /// Only if it is permanent, and not gone.
    pub mac: Option<Mac>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fdb {
    pub link: u32,
    pub mac: Mac,
    pub remote: Ipv4Addr,
}

/// Whose configuration (`/proc/sys/net/ipv4/conf/*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conf {
    All,
    Default,
    Link(u32),
}

/// The messages of a datagram.
pub fn split(bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let found = NetlinkBuffer::new_checked(rest).ok()?;
        let length = (found.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        Some(found)
    })
}

impl Message {
    /// `None`: nothing that is looked at here.
    pub fn parse(kind: u16, payload: &[u8]) -> Option<Message> {
        match kind {
            RTM_NEWLINK => Link::parse(payload).map(Message::Link),
            RTM_DELLINK => link_header(payload).map(|(index, _)| Message::LinkGone(index)),
            RTM_NEWADDR => Address::parse(payload).map(Message::Address),
            RTM_DELADDR => Address::parse(payload).map(Message::AddressGone),
            RTM_NEWROUTE => Route::parse(payload).map(Message::Route),
            RTM_DELROUTE => Route::parse(payload).map(Message::RouteGone),
            RTM_NEWNEIGH => neighbour(payload, false),
            RTM_DELNEIGH => neighbour(payload, true),
            RTM_NEWNEXTHOP => Nexthop::parse(payload).map(Message::Nexthop),
            RTM_DELNEXTHOP => Nexthop::parse(payload).map(|gone| Message::NexthopGone(gone.id)),
            RTM_NEWNETCONF => netconf(payload),
            RTM_DELNETCONF => match netconf_of(payload)? {
                Conf::Link(index) => Some(Message::ConfGone(index)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Each attribute's type and value.
fn attributes(bytes: &[u8], mut each: impl FnMut(u16, &[u8])) {
    for found in NlasIterator::new(&bytes).map_while(Result::ok) {
        each(found.kind(), found.value());
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
fn ip(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}
fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
}

/// Index and flags. `AF_BRIDGE` messages are about a port's role in its bridge, not about the link
/// (br_ifinfo_notify): one says "gone" of a link that only left its bridge.
fn link_header(payload: &[u8]) -> Option<(u32, u32)> {
    let family = *payload.first()?;
    (family == AF_UNSPEC).then_some((word(payload.get(4..)?)?, word(payload.get(8..)?)?))
}

impl Link {
    fn parse(payload: &[u8]) -> Option<Link> {
        let (index, flags) = link_header(payload)?;
        let (mut name, mut mtu, mut carrier, mut master) = (None, None, false, None);
        let (mut address, mut kind, mut data) = (None, None, None);
        attributes(payload.get(16..)?, |of, value| match of {
            1 => address = mac(value),
            3 => name = text(value).map(IfName::new),
            4 => mtu = word(value),
            10 => master = word(value).filter(|index| *index != 0),
            18 => attributes(value, |of, value| match of {
                1 => kind = text(value).map(str::to_owned),
                2 => data = Some(VxlanConf::parse(value)),
                _ => {}
            }),
            33 => carrier = value == [1],
            _ => {}
        });
        let kind = match kind.as_deref() {
            _ if flags & IFF_LOOPBACK != 0 => LinkKind::Loopback,
            Some("bridge") => LinkKind::Bridge,
            Some("veth") => LinkKind::Veth,
            Some("vxlan") => LinkKind::Vxlan,
            Some("dummy") => LinkKind::Dummy,
            Some("wireguard") => LinkKind::Wireguard,
            _ => LinkKind::Uplink,
        };
        Some(Link {
            index,
            name: name?,
            kind,
            mac: address.unwrap_or_default(),
            // Messages of wireless drivers have a name and no more (wext-core.c).
            mtu: mtu?,
            up: flags & IFF_UP != 0,
            carrier,
            master,
            vxlan: data.filter(|_| kind == LinkKind::Vxlan),
        })
    }
}

impl VxlanConf {
    fn parse(data: &[u8]) -> VxlanConf {
        let mut found = VxlanConf { vni: 0, port: 0, local: None, learning: false };
        attributes(data, |of, value| match of {
            1 => found.vni = word(value).unwrap_or_default(),
            4 => found.local = ip(value),
            7 => found.learning = value != [0],
            15 => found.port = value.try_into().map(u16::from_be_bytes).unwrap_or_default(),
            _ => {}
        });
        found
    }
}

impl Address {
    fn parse(payload: &[u8]) -> Option<Address> {
        let [AF_INET, prefix_length, ..] = *payload else { return None };
        let (mut local, mut peer) = (None, None);
        attributes(payload.get(8..)?, |of, value| match of {
            1 => peer = ip(value),
            2 => local = ip(value),
            _ => {}
        });
        let net = Ipv4Net::new(local.or(peer)?, prefix_length).ok()?;
        Some(Address { link: word(payload.get(4..)?)?, net })
    }
}

impl Route {
    fn parse(payload: &[u8]) -> Option<Route> {
        let [AF_INET, length, source, tos, RT_TABLE_MAIN, proto, _, kind, ..] = *payload else {
            return None;
        };
        let flags = word(payload.get(8..)?)?;
        let (mut to, mut metric, mut via, mut dev) = (Ipv4Addr::UNSPECIFIED, 0, 0, 0);
        let mut plain = (source, tos, kind) == (0, 0, RTN_UNICAST);
        let mut nexthop = 0;
        attributes(payload.get(12..)?, |of, value| match of {
            1 => to = ip(value).unwrap_or(to),
            4 => dev = word(value).unwrap_or_default(),
            5 => via = ip(value).map_or(0, Ipv4Addr::to_bits),
            6 => metric = word(value).unwrap_or_default(),
            // The table and RTA_CACHEINFO.
            12 | 15 => {}
            30 => nexthop = word(value).unwrap_or_default(),
            _ => plain = false,
        });
        let to = Ipv4Net::new(to, length).ok()?.into();
        let onlink = flags & RTNH_F_ONLINK != 0;
        Some(Route { proto: Proto(proto), to, metric, via, dev, onlink, plain, nexthop })
    }
}

impl Nexthop {
    fn parse(payload: &[u8]) -> Option<Nexthop> {
        let [_, _, proto, ..] = *payload else { return None };
        let flags = word(payload.get(4..)?)?;
        let (mut id, mut via, mut dev) = (None, 0, 0);
        attributes(payload.get(8..)?, |of, value| match of {
            1 => id = word(value),
            5 => dev = word(value).unwrap_or_default(),
            6 => via = ip(value).map_or(0, Ipv4Addr::to_bits),
            _ => {}
        });
        let onlink = flags & RTNH_F_ONLINK != 0;
        Some(Nexthop { id: id?, proto: Proto(proto), via, dev, onlink })
    }
}

fn neighbour(payload: &[u8], gone: bool) -> Option<Message> {
    let (family, link) = (*payload.first()?, word(payload.get(4..)?)?);
    let state = payload.get(8..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))?;
    let (mut dst, mut lladdr) = (None, None);
    attributes(payload.get(12..)?, |of, value| match of {
        1 => dst = ip(value),
        2 => lladdr = mac(value),
        _ => {}
    });
    match family {
        AF_INET => {
            let mac = lladdr.filter(|_| !gone && state & NUD_PERMANENT != 0);
            Some(Message::Neighbour(Neighbour { link, ip: dst?, mac }))
        }
        AF_BRIDGE => {
            let entry = Fdb { link, mac: lladdr?, remote: dst? };
            Some(Message::Fdb { entry, gone })
        }
        _ => None,
    }
}

fn netconf_of(payload: &[u8]) -> Option<Conf> {
    let mut index = None;
    attributes(payload.get(4..)?, |of, value| {
        if of == 1 {
            index = word(value);
        }
    });
    match index? as i32 {
        -1 => Some(Conf::All),
        -2 => Some(Conf::Default),
        _ => index.map(Conf::Link),
    }
}

fn netconf(payload: &[u8]) -> Option<Message> {
    if payload.first() != Some(&AF_INET) {
        return None;
    }
    let mut on = None;
    attributes(payload.get(4..)?, |of, value| {
        if of == 2 {
            on = word(value).map(|value| value != 0);
        }
    });
    Some(Message::Forwarding { of: netconf_of(payload)?, on: on? })
}

/// Asks for every IPv4 `conf`.
pub struct GetNetconf;

impl NetlinkSerializable for GetNetconf {
    fn message_type(&self) -> u16 {
        RTM_GETNETCONF
    }
    fn buffer_len(&self) -> usize {
        4
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        buffer[0] = AF_INET;
    }
}
