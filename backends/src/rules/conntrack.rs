//! Remembered connections, over ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h,
//! net/netfilter/nf_conntrack_netlink.c).

use crate::netlink::{
    Attributes, CTNETLINK, Messages, NFPROTO_IPV4, Netlink, Refusal, be16, be32, flag,
};
use kubesim_actors::ports::rules::{CtEntry, CtFilter, Protocol};
use std::net::Ipv4Addr;

/// `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
/// `CTA_*`
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_*`
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// `CTA_IP_*`
const V4_SRC: u16 = 1;
const V4_DST: u16 = 2;
/// `CTA_PROTO_*`
const NUMBER: u16 = 1;
const SRC_PORT: u16 = 2;
const DST_PORT: u16 = 3;
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;
/// `IPS_DST_NAT` (include/uapi/linux/netfilter/nf_conntrack_common.h)
const DST_NAT: u32 = 1 << 5;

/// One direction, as the rules port counts ports: of ICMP the id, and type and code.
#[derive(Clone, Copy)]
struct Tuple {
    protocol: Protocol,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    sport: u16,
    dport: u16,
}

/// What the kernel needs to find an entry again: its original tuple, its id (another connection
/// may have the tuple by then) and its zone.
struct Handle {
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// All entries with a rewritten destination.
pub fn list_dnat(netlink: &mut Netlink) -> Result<Vec<CtEntry>, Refusal> {
    dump(netlink, |found: &mut Vec<CtEntry>, all| {
        let status = all.get(STATUS).and_then(be32).unwrap_or_default();
        found.extend(entry(all).filter(|_| status & DST_NAT != 0));
    })
}

/// Deletes the entries that one of the filters matches; how many there were.
pub fn delete(netlink: &mut Netlink, filters: &[CtFilter]) -> Result<u32, Refusal> {
    let found = dump(netlink, |found: &mut Vec<Handle>, all| {
        let wanted = entry(all).is_some_and(|one| filters.iter().any(|f| f.matches(&one)));
        let handle = || {
            let own = |kind| all.get(kind).map(<[u8]>::to_vec);
            Some(Handle { tuple: own(TUPLE_ORIGINAL)?, id: own(ID)?, zone: own(ZONE) })
        };
        found.extend(wanted.then(handle).flatten());
    })?;
    let mut deleted = 0;
    let mut messages = Messages::default();
    for handle in &found {
        messages.clear();
        messages.push(DELETE, flag::REQUEST | flag::ACK, NFPROTO_IPV4, 0, |message| {
            message.nested_bytes(TUPLE_ORIGINAL, &handle.tuple);
            message.bytes(ID, &handle.id);
            if let Some(zone) = &handle.zone {
                message.bytes(ZONE, zone);
            }
        });
        match netlink.request(&messages, |_| {}) {
            Ok(()) => deleted += 1,
            // It ended by itself.
            Err(refused) if refused.is_absent() => {}
            Err(refused) => return Err(refused),
        }
    }
    Ok(deleted)
}

fn dump<T: Default>(
    netlink: &mut Netlink,
    each: impl Fn(&mut T, Attributes<'_>),
) -> Result<T, Refusal> {
    let mut messages = Messages::default();
    messages.push(GET, flag::REQUEST | flag::DUMP, NFPROTO_IPV4, 0, |_| {});
    netlink.dump(&messages, |found, message| each(found, Attributes::of(message.body)))
}

/// `None` for a protocol the port does not know.
fn entry(all: Attributes<'_>) -> Option<CtEntry> {
    let (original, reply) = (tuple(all.inside(TUPLE_ORIGINAL))?, tuple(all.inside(TUPLE_REPLY))?);
    Some(CtEntry {
        protocol: original.protocol,
        src: original.src,
        sport: original.sport,
        original_dst: original.dst,
        original_dport: original.dport,
        dnat_to: reply.src,
        dnat_port: reply.sport,
    })
}

fn tuple(all: Attributes<'_>) -> Option<Tuple> {
    let (ip, l4) = (all.inside(TUPLE_IP), all.inside(TUPLE_PROTOCOL));
    let address = |kind| ip.get(kind).and_then(be32).map(Ipv4Addr::from_bits);
    let short = |kind| l4.get(kind).and_then(be16);
    let byte = |kind| Some(u16::from(*l4.get(kind)?.first()?));
    let protocol = match l4.get(NUMBER)?.first()? {
        1 => Protocol::Icmp,
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return None,
    };
    let (sport, dport) = match protocol {
        Protocol::Icmp => (short(ICMP_ID)?, byte(ICMP_TYPE)? << 8 | byte(ICMP_CODE)?),
        _ => (short(SRC_PORT)?, short(DST_PORT)?),
    };
    Some(Tuple { protocol, src: address(V4_SRC)?, dst: address(V4_DST)?, sport, dport })
}
