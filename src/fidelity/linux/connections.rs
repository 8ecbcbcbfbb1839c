//! The connections of a namespace over ctnetlink. A dump walks the table of the whole machine, so
//! what there is is known from events, which come before the packet that causes them has left
//! (nf_ct_deliver_cached_events, net/netfilter/nf_conntrack_ecache.c).

use crate::fidelity::connection::{Entry, Tuple, lines, whole};
use crate::fidelity::words::Ports;
use kubesim_backends::netlink::{
    Attributes, CTNETLINK, Messages, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC, Netlink, be16,
    be32, flag,
};
use kubesim_sim::kernel::family::{Family, V4, V6};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

/// `IPCTNL_MSG_CT_NEW`, `_GET` and `_DELETE`
const NEW: u16 = CTNETLINK;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
/// `IPCTNL_MSG_CT_GET_STATS`, and `CTA_STATS_GLOBAL_ENTRIES` of its answer
const GET_STATS: u16 = CTNETLINK | 5;
const ENTRIES: u16 = 1;
/// `NFNLGRP_CONNTRACK_NEW` and `_DESTROY`
const GROUPS: [u32; 2] = [1, 3];
/// `CTA_*` (include/uapi/linux/netfilter/nfnetlink_conntrack.h)
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;

/// How ctnetlink tells of a family's connections.
pub trait Told: Family {
    /// `NFPROTO_*`
    const NUMBER: u8;
    /// `CTA_IP_*`: source and destination.
    const ENDS: [u16; 2];
    /// `CTA_PROTO_*` of its ICMP: id, type and code.
    const ECHO: [u16; 3];
    fn address(bytes: &[u8]) -> Option<Self::Addr>;
}

impl Told for V4 {
    const NUMBER: u8 = NFPROTO_IPV4;
    const ENDS: [u16; 2] = [1, 2];
    const ECHO: [u16; 3] = [4, 5, 6];
    fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
        be32(bytes).map(Ipv4Addr::from_bits)
    }
}

impl Told for V6 {
    const NUMBER: u8 = NFPROTO_IPV6;
    const ENDS: [u16; 2] = [3, 4];
    const ECHO: [u16; 3] = [7, 8, 9];
    fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
        <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
    }
}

/// Those of one family; others' go unheard.
pub struct Connections<F: Told = V4> {
    requests: Netlink,
    events: Netlink,
    /// The original tuples of those that there are, as they came.
    live: Vec<Vec<u8>>,
    messages: Messages,
    family: PhantomData<F>,
}

impl<F: Told> Connections<F> {
    /// In the calling thread's network namespace.
    pub fn new() -> Result<Self, String> {
        let lacks = |error| format!("needs ctnetlink (nf_conntrack_netlink): {error}");
        let (requests, events) =
            (Netlink::open().map_err(lacks)?, Netlink::listen(&GROUPS).map_err(lacks)?);
        let (live, messages, family) = Default::default();
        Ok(Connections { requests, events, live, messages, family })
    }

    /// A line for each, in the order of what was written.
    pub fn list(&mut self, ports: &mut Ports) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        self.each(|_, all| found.extend(entry::<F>(all)))?;
        Ok(lines(found, ports))
    }

    /// All are that much older.
    pub fn age(&mut self, seconds: u32) -> Result<(), String> {
        let mut left: Vec<(Vec<u8>, u32)> = Vec::new();
        self.each(|tuple, all| {
            let timeout = all.get(TIMEOUT).and_then(be32).unwrap_or_default();
            left.push((tuple.to_vec(), whole(timeout).saturating_sub(seconds)));
        })?;
        for (tuple, seconds) in left {
            self.messages.clear();
            self.messages.push(NEW, flag::REQUEST | flag::ACK, F::NUMBER, 0, |message| {
                message.nested_bytes(TUPLE_ORIGINAL, &tuple);
                message.be32(TIMEOUT, seconds);
            });
            let changed = self.requests.request(&self.messages, |_| {});
            changed.map_err(|refused| format!("changing a connection's timeout: {refused}"))?;
        }
        Ok(())
    }

    /// Ends them all, also those that no event tells of and no list shows: one whose original
    /// tuple another has is found by answers only, for a second (`nf_ct_resolve_clash_harder`,
    /// net/netfilter/nf_conntrack_core.c). A flush takes them too, as it goes by reply tuples
    /// (`get_next_corpse`), but walks the table of the whole machine: that is for where some are
    /// left.
    pub fn clear(&mut self) -> Result<(), String> {
        self.heed()?;
        for tuple in std::mem::take(&mut self.live) {
            self.messages.clear();
            self.messages.push(DELETE, flag::REQUEST | flag::ACK, F::NUMBER, 0, |message| {
                message.nested_bytes(TUPLE_ORIGINAL, &tuple);
            });
            match self.requests.request(&self.messages, |_| {}) {
                Err(refused) if !refused.is_absent() => {
                    return Err(format!("deleting a connection: {refused}"));
                }
                _ => {}
            }
        }
        if self.count()? > 0 {
            self.messages.clear();
            self.messages.push(DELETE, flag::REQUEST | flag::ACK, NFPROTO_UNSPEC, 0, |_| {});
            let flushed = self.requests.request(&self.messages, |_| {});
            flushed.map_err(|refused| format!("flushing connections: {refused}"))?;
        }
        self.heed()
    }

    /// How many there are in the namespace, listed or not.
    fn count(&mut self) -> Result<u32, String> {
        let mut count = None;
        self.messages.clear();
        self.messages.push(GET_STATS, flag::REQUEST, NFPROTO_UNSPEC, 0, |_| {});
        let asked = self.requests.request(&self.messages, |answer| {
            count = Attributes::of(answer.body).get(ENTRIES).and_then(be32);
        });
        asked.map_err(|refused| format!("counting connections: {refused}"))?;
        count.ok_or_else(|| "counting connections: an answer without a count".to_owned())
    }

    fn heed(&mut self) -> Result<(), String> {
        let live = &mut self.live;
        let heard = self.events.drain(|event| {
            if event.body.first() != Some(&F::NUMBER) {
                return;
            }
            let tuple = Attributes::of(event.body).get(TUPLE_ORIGINAL).unwrap_or_default();
            live.retain(|known| known != tuple);
            if event.kind == NEW {
                live.push(tuple.to_vec());
            }
        });
        heard.map_err(|error| format!("listening for connections: {error}"))
    }

    fn each(&mut self, mut act: impl FnMut(&[u8], Attributes<'_>)) -> Result<(), String> {
        self.heed()?;
        for tuple in &self.live {
            self.messages.clear();
            self.messages.push(GET, flag::REQUEST, F::NUMBER, 0, |message| {
                message.nested_bytes(TUPLE_ORIGINAL, tuple);
            });
            let asked = self.requests.request(&self.messages, |answer| {
                act(tuple, Attributes::of(answer.body));
            });
            match asked {
                Err(refused) if !refused.is_absent() => {
                    return Err(format!("reading a connection: {refused}"));
                }
                // It has expired, and nobody has noticed yet.
                _ => {}
            }
        }
        Ok(())
    }
}

fn entry<F: Told>(all: Attributes<'_>) -> Option<Entry<F>> {
    let status = all.get(STATUS).and_then(be32)?;
    Some(Entry {
        original: tuple(all.inside(TUPLE_ORIGINAL))?,
        reply: tuple(all.inside(TUPLE_REPLY))?,
        seen_reply: status & 0x2 != 0,
        assured: status & 0x4 != 0,
        src_nat: status & 0x10 != 0,
        dst_nat: status & 0x20 != 0,
        state: tcp_state(all).unwrap_or_default(),
        timeout: whole(all.get(TIMEOUT).and_then(be32).unwrap_or_default()),
    })
}

/// `CTA_PROTOINFO_TCP_STATE`
fn tcp_state(all: Attributes<'_>) -> Option<&'static str> {
    let state = *all.inside(PROTOINFO).inside(1).get(1)?.first()?;
    let names = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
    ];
    names.get(usize::from(state)).copied()
}

fn tuple<F: Told>(all: Attributes<'_>) -> Option<Tuple<F>> {
    let (ip, l4) = (all.inside(1), all.inside(2));
    let address = |kind| ip.get(kind).and_then(F::address);
    let ([src, dst], [id, kind, code]) = (F::ENDS, F::ECHO);
    let short = |kind| l4.get(kind).and_then(be16);
    let byte = |kind| Some(u16::from(*l4.get(kind)?.first()?));
    let protocol = *l4.get(1)?.first()?;
    let (sport, dport) = match protocol == F::ICMP {
        true => (short(id)?, byte(kind)? << 8 | byte(code)?),
        false => (short(2)?, short(3)?),
    };
    Some(Tuple { protocol, src: address(src)?, dst: address(dst)?, sport, dport })
}
