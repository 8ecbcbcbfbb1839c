//! Next hops as objects of the kernel's own (`ip nexthop`), where an overlay has many.
//!
//! Linux finds what routes have in common by a hash that leaves the gateway out
//! (`fib_info_hashfn`, net/ipv4/fib_semantics.c), so that with n gateways on a link each route
//! costs a walk over n: 5,000 take 140 ms and 20,000 take 4.4 s, whoever adds them. A route that
//! names a nexthop object is found by its number (`fib_find_info_nh`) and costs the same however
//! many there are.
//!
//! Objects go silently with their link, as routes do, and routes go silently with their object.
//! They also go when the link's carrier does (`nexthop_flush_dev`, net/ipv4/nexthop.c), and stay
//! when its last address goes (`fib_sync_down_dev` knows only gateways written in routes). Both
//! would be wrong of a cable; an overlay's device never loses its carrier, and has one address that
//! is nobody's but ours. So only gateways behind such devices become objects.

use super::message::{
    Nexthop, RTM_DELNEXTHOP, RTM_DELROUTE, RTM_GETNEXTHOP, RTM_NEWNEXTHOP, RTM_NEWROUTE, Route,
};
use netlink_packet_core::NetlinkSerializable;
use rustc_hash::{FxHashMap, FxHashSet};

/// Up to so many routes have their gateways written in them: everybody can read these, and the
/// walks take less than a millisecond together.
pub const MANY: usize = 256;
/// Numbers of ours begin here ("ks"): people and routing daemons begin with 1.
const FIRST: u32 = 0x6b73_0000;

#[derive(Debug, Default)]
pub struct Nexthops {
    known: FxHashMap<Key, u32>,
    last: u32,
}

/// What an object says beside its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    via: u32,
    dev: u32,
    onlink: bool,
    proto: u8,
}

fn key_of(route: &Route) -> Option<Key> {
    let via = route.via()?.to_bits();
    let (dev, onlink, proto) = (route.dev, route.onlink, route.proto.0);
    Some(Key { via, dev, onlink, proto })
}

impl Nexthops {
    /// All that there are, anyone's.
    pub fn reset(&mut self, all: impl IntoIterator<Item = Nexthop>) {
        self.known.clear();
        self.last = FIRST;
        for object in all {
            self.last = self.last.max(object.id);
            if object.id > FIRST {
                let Nexthop { via, dev, onlink, proto, .. } = object;
                self.known.insert(Key { via, dev, onlink, proto: proto.0 }, object.id);
            }
        }
    }

    /// Gives every route its object's number; returns the objects that are to be made first.
    pub fn assign<'a>(&mut self, routes: impl IntoIterator<Item = &'a mut Route>) -> Vec<Nexthop> {
        let mut new = Vec::new();
        for route in routes {
            let Some(key) = key_of(route) else { continue };
            if let Some(id) = self.known.get(&key) {
                route.nexthop = *id;
                continue;
            }
            // Somebody took the last number: the gateway is written in the route.
            let Some(id) = self.last.checked_add(1) else { continue };
            let Route { dev, onlink, proto, .. } = *route;
            new.push(Nexthop { id, proto, via: key.via, dev, onlink });
            self.known.insert(key, id);
            (self.last, route.nexthop) = (id, id);
        }
        new
    }

    /// True: one of them was known.
    pub fn forget(&mut self, ids: &[u32]) -> bool {
        let gone: FxHashSet<u32> = ids.iter().copied().collect();
        let before = self.known.len();
        self.known.retain(|_, known| !gone.contains(known));
        self.known.len() < before
    }

    /// The ones of an owner that no route goes by.
    pub fn unused<'a>(&self, owner: u8, routes: impl Iterator<Item = &'a Route>) -> Vec<u32> {
        let used: FxHashSet<u32> = routes.map(|route| route.nexthop).collect();
        let own = self.known.iter().filter(|(key, _)| key.proto == owner);
        let mut unused: Vec<u32> = own.map(|(_, id)| *id).filter(|id| !used.contains(id)).collect();
        unused.sort_unstable();
        unused
    }

    /// The gateway and link of a route that came without (`net.ipv4.nexthop_compat_mode` is 0).
    pub fn complete(&self, route: &mut Route) {
        if route.nexthop == 0 || route.dev != 0 {
            return;
        }
        let found = self.known.iter().find(|(_, id)| **id == route.nexthop);
        if let Some((key, _)) = found {
            route.go_by(key.via, key.dev, key.onlink);
        }
    }
}

/// A request about an object.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    /// Of every object there is.
    List,
    New(Nexthop),
    Delete(u32),
}

/// `struct nhmsg` (include/uapi/linux/nexthop.h).
const HEADER: usize = 8;
const ATTRIBUTE: usize = 8;
const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const AF_INET: u8 = 2;
const RTNH_F_ONLINK: u32 = 4;

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        match self {
            Request::List => RTM_GETNEXTHOP,
            Request::New(_) => RTM_NEWNEXTHOP,
            Request::Delete(_) => RTM_DELNEXTHOP,
        }
    }
    fn buffer_len(&self) -> usize {
        HEADER
            + ATTRIBUTE
                * match self {
                    Request::List => 0,
                    Request::New(_) => 3,
                    Request::Delete(_) => 1,
                }
    }
    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER);
        header.fill(0);
        match self {
            Request::List => {}
            Request::New(object) => {
                (header[0], header[2]) = (AF_INET, object.proto.0);
                let flags = if object.onlink { RTNH_F_ONLINK } else { 0 };
                header[4..].copy_from_slice(&flags.to_ne_bytes());
                let gateway = object.via.to_be_bytes();
                let all = [
                    (NHA_ID, object.id.to_ne_bytes()),
                    (NHA_OIF, object.dev.to_ne_bytes()),
                    (NHA_GATEWAY, gateway),
                ];
                write(attributes, &all);
            }
            Request::Delete(id) => write(attributes, &[(NHA_ID, id.to_ne_bytes())]),
        }
    }
}

/// A route that names an object.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    pub route: Route,
    pub deletes: bool,
}

/// `struct rtmsg` (include/uapi/linux/rtnetlink.h).
const ROUTE_HEADER: usize = 12;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_PRIORITY: u16 = 6;
const RTA_NH_ID: u16 = 30;

impl NetlinkSerializable for Named {
    fn message_type(&self) -> u16 {
        if self.deletes { RTM_DELROUTE } else { RTM_NEWROUTE }
    }
    fn buffer_len(&self) -> usize {
        ROUTE_HEADER + ATTRIBUTE * if self.route.metric == 0 { 2 } else { 3 }
    }
    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(ROUTE_HEADER);
        let (to, proto) = (self.route.to.net(), self.route.proto.0);
        let scope_universe = 0;
        header[..8].copy_from_slice(&[
            AF_INET,
            to.prefix_len(),
            0,
            0,
            RT_TABLE_MAIN,
            proto,
            scope_universe,
            RTN_UNICAST,
        ]);
        header[8..].fill(0);
        let all = [
            (RTA_DST, to.addr().octets()),
            (RTA_NH_ID, self.route.nexthop.to_ne_bytes()),
            (RTA_PRIORITY, self.route.metric.to_ne_bytes()),
        ];
        write(attributes, &all);
    }
}

fn write(buffer: &mut [u8], attributes: &[(u16, [u8; 4])]) {
    for (place, (kind, value)) in buffer.chunks_exact_mut(ATTRIBUTE).zip(attributes) {
        place[..2].copy_from_slice(&(ATTRIBUTE as u16).to_ne_bytes());
        place[2..4].copy_from_slice(&kind.to_ne_bytes());
        place[4..].copy_from_slice(value);
    }
}
