//! IPVS' messages (include/uapi/linux/ip_vs.h; what they must hold: ip_vs_genl_parse_service and
//! ip_vs_genl_parse_dest, net/netfilter/ipvs/ip_vs_ctl.c). Ports and masks are in the network's
//! byte order, other numbers in the machine's.

use crate::netlink::{
    Attributes, Messages, Netlink, Refusal, Writer, be16, flag, ne16, ne32, ne64,
};
use kubesim_actors::ports::rules::Protocol;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// `IPVS_CMD_*`
const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DEST: u8 = 5;
const SET_DEST: u8 = 6;
const DEL_DEST: u8 = 7;
const GET_DEST: u8 = 8;
/// `IPVS_CMD_ATTR_*`
const SERVICE: u16 = 1;
const DEST: u16 = 2;
/// `IPVS_SVC_ATTR_*`
const AF: u16 = 1;
const PROTOCOL: u16 = 2;
const ADDRESS: u16 = 3;
const PORT: u16 = 4;
const FIREWALL_MARK: u16 = 5;
const SCHEDULER: u16 = 6;
const FLAGS: u16 = 7;
const TIMEOUT: u16 = 8;
const NETMASK: u16 = 9;
const SERVICE_STATS: u16 = 10;
const SERVICE_STATS64: u16 = 12;
/// `IPVS_DEST_ATTR_*`
const DEST_ADDRESS: u16 = 1;
const DEST_PORT: u16 = 2;
const FORWARDING: u16 = 3;
const WEIGHT: u16 = 4;
const UPPER: u16 = 5;
const LOWER: u16 = 6;
const ACTIVE: u16 = 7;
const INACTIVE: u16 = 8;
const DEST_FAMILY: u16 = 11;
/// `IPVS_STATS_ATTR_CONNS`
const STATS_CONNECTIONS: u16 = 1;

const AF_INET: u16 = 2;
/// `IP_VS_SVC_F_PERSISTENT`
const PERSISTENT: u32 = 1;
/// `IP_VS_SVC_F_SCHED3`, a flag that is left to schedulers and that `rr` has no use for: it says,
/// in the kernel and for as long as the service lives, that a service is ours.
const OURS: u32 = 0x20;
/// `IP_VS_CONN_F_FWD_MASK`, `IP_VS_CONN_F_MASQ`
const FORWARDING_MASK: u32 = 7;
const MASQ: u32 = 0;

const ROUND_ROBIN: &str = "rr";

/// What identifies a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub protocol: Protocol,
    pub ip: Ipv4Addr,
    pub port: u16,
}

/// A service as it stands in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub ours: bool,
    /// Its scheduler is the one we ask for.
    pub round_robin: bool,
    pub sticky: Option<u32>,
    /// Connections since it was made.
    pub connections: u64,
    pub endpoints: BTreeMap<(Ipv4Addr, u16), Endpoint>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    pub weight: u32,
    /// It is reached by NAT.
    pub masq: bool,
    /// Connections that are remembered, whatever their state.
    pub connections: u32,
}

impl Endpoint {
    /// One that takes its turn.
    pub const FULL: Endpoint = Endpoint { weight: 1, masq: true, connections: 0 };
    /// One that gets no new connections.
    pub const DRAINED: Endpoint = Endpoint { weight: 0, masq: true, connections: 0 };
}

/// What is written of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    New(Endpoint),
    Set(Endpoint),
    Del,
}

/// A service that is new, or stands and differs.
pub fn put_service(to: &mut Messages, family: u16, at: At, sticky: Option<u32>, new: bool) {
    let command = if new { NEW_SERVICE } else { SET_SERVICE };
    to.push_generic(family, flag::REQUEST | flag::ACK, command, |message| {
        message.nest(SERVICE, |service| {
            identify(service, at);
            service.str(SCHEDULER, ROUND_ROBIN);
            let flags = OURS | if sticky.is_some() { PERSISTENT } else { 0 };
            let mut both = flags.to_ne_bytes().to_vec();
            both.extend_from_slice(&u32::MAX.to_ne_bytes());
            service.bytes(FLAGS, &both);
            service.ne32(TIMEOUT, sticky.unwrap_or_default());
            service.be32(NETMASK, u32::MAX);
        });
    });
}

pub fn delete_service(to: &mut Messages, family: u16, at: At) {
    to.push_generic(family, flag::REQUEST | flag::ACK, DEL_SERVICE, |message| {
        message.nest(SERVICE, |service| identify(service, at));
    });
}

pub fn put_endpoint(
    to: &mut Messages,
    family: u16,
    at: At,
    (ip, port): (Ipv4Addr, u16),
    write: Write,
) {
    let (command, endpoint) = match write {
        Write::New(endpoint) => (NEW_DEST, Some(endpoint)),
        Write::Set(endpoint) => (SET_DEST, Some(endpoint)),
        Write::Del => (DEL_DEST, None),
    };
    to.push_generic(family, flag::REQUEST | flag::ACK, command, |message| {
        message.nest(SERVICE, |service| identify(service, at));
        message.nest(DEST, |dest| {
            dest.bytes(DEST_ADDRESS, &padded(ip));
            dest.be16(DEST_PORT, port);
            dest.ne16(DEST_FAMILY, AF_INET);
            if let Some(endpoint) = endpoint {
                dest.ne32(FORWARDING, MASQ);
                dest.ne32(WEIGHT, endpoint.weight);
                dest.ne32(UPPER, 0);
                dest.ne32(LOWER, 0);
            }
        });
    });
}

fn identify(service: &mut Writer<'_>, at: At) {
    service.ne16(AF, AF_INET);
    service.ne16(PROTOCOL, number_of(at.protocol));
    service.bytes(ADDRESS, &padded(at.ip));
    service.be16(PORT, at.port);
}

/// `union nf_inet_addr`
fn padded(ip: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&ip.octets());
    bytes
}

fn number_of(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Every service of IPv4 with its endpoints; those that go by a firewall mark are somebody else's
/// and are left out.
pub fn list(netlink: &mut Netlink, family: u16) -> Result<BTreeMap<At, Standing>, Refusal> {
    let mut messages = Messages::default();
    messages.push_generic(family, flag::REQUEST | flag::DUMP, GET_SERVICE, |_| {});
    let mut found: BTreeMap<At, Standing> =
        netlink.dump(&messages, |found: &mut BTreeMap<At, Standing>, message| {
            found.extend(service(Attributes::of(message.body).inside(SERVICE)));
        })?;
    for (at, standing) in &mut found {
        standing.endpoints = endpoints(netlink, family, *at)?;
    }
    Ok(found)
}

/// The endpoints of one service; none if it is not there.
pub fn endpoints(
    netlink: &mut Netlink,
    family: u16,
    at: At,
) -> Result<BTreeMap<(Ipv4Addr, u16), Endpoint>, Refusal> {
    let mut messages = Messages::default();
    messages.push_generic(family, flag::REQUEST | flag::DUMP, GET_DEST, |message| {
        message.nest(SERVICE, |service| identify(service, at));
    });
    netlink.dump(&messages, |found: &mut BTreeMap<_, _>, message| {
        found.extend(endpoint(Attributes::of(message.body).inside(DEST)));
    })
}

fn service(all: Attributes<'_>) -> Option<(At, Standing)> {
    let word = |kind| all.get(kind).and_then(ne16);
    let protocol = match word(PROTOCOL)? {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return None,
    };
    if word(AF)? != AF_INET || all.get(FIREWALL_MARK).is_some() {
        return None;
    }
    let at = At { protocol, ip: address(all.get(ADDRESS)?)?, port: be16(all.get(PORT)?)? };
    let flags = all.get(FLAGS).and_then(|both| ne32(both.get(..4)?)).unwrap_or_default();
    let timeout = all.get(TIMEOUT).and_then(ne32).unwrap_or_default();
    let wide = all.inside(SERVICE_STATS64).get(STATS_CONNECTIONS).and_then(ne64);
    let narrow = || all.inside(SERVICE_STATS).get(STATS_CONNECTIONS).and_then(ne32).map(u64::from);
    let standing = Standing {
        ours: flags & OURS != 0,
        round_robin: all.str(SCHEDULER) == Some(ROUND_ROBIN),
        sticky: (flags & PERSISTENT != 0).then_some(timeout),
        connections: wide.or_else(narrow).unwrap_or_default(),
        endpoints: BTreeMap::new(),
    };
    Some((at, standing))
}

fn endpoint(all: Attributes<'_>) -> Option<((Ipv4Addr, u16), Endpoint)> {
    let number = |kind| all.get(kind).and_then(ne32);
    let at = (address(all.get(DEST_ADDRESS)?)?, be16(all.get(DEST_PORT)?)?);
    let connections = number(ACTIVE)?.saturating_add(number(INACTIVE)?);
    let masq = number(FORWARDING)? & FORWARDING_MASK == MASQ;
    Some((at, Endpoint { weight: number(WEIGHT)?, masq, connections }))
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))
}
