//! The connections of a namespace over ctnetlink. A dump walks the table of the whole machine, so
//! what there is is known from events, which come before the packet that causes them has left
//! (nf_ct_deliver_cached_events, net/netfilter/nf_conntrack_ecache.c).

use crate::fidelity::connection::{Entry, Tuple, lines, whole};
use crate::fidelity::words::Ports;
use kubesim_backends::netlink::{
    Attributes, CTNETLINK, Messages, NFPROTO_IPV4, Netlink, be16, be32, flag,
};
use std::net::Ipv4Addr;

/// `IPCTNL_MSG_CT_NEW`, `_GET` and `_DELETE`
const NEW: u16 = CTNETLINK;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
/// `NFNLGRP_CONNTRACK_NEW` and `_DESTROY`
const GROUPS: [u32; 2] = [1, 3];
/// `CTA_*` (include/uapi/linux/netfilter/nfnetlink_conntrack.h)
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;

pub struct Connections {
    requests: Netlink,
    events: Netlink,
    /// The original tuples of those that there are, as they came.
    live: Vec<Vec<u8>>,
    messages: Messages,
}

impl Connections {
    /// In the calling thread's network namespace.
    pub fn new() -> Result<Connections, String> {
        let lacks = |error| format!("needs ctnetlink (nf_conntrack_netlink): {error}");
        let (requests, events) =
            (Netlink::open().map_err(lacks)?, Netlink::listen(&GROUPS).map_err(lacks)?);
        Ok(Connections { requests, events, live: Vec::new(), messages: Messages::default() })
    }

    /// A line for each, in the order of what was written.
    pub fn list(&mut self, ports: &mut Ports) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        self.each(|_, all| found.extend(entry(all)))?;
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
            self.messages.push(NEW, flag::REQUEST | flag::ACK, NFPROTO_IPV4, 0, |message| {
                message.nested_bytes(TUPLE_ORIGINAL, &tuple);
                message.be32(TIMEOUT, seconds);
            });
            let changed = self.requests.request(&self.messages, |_| {});
            changed.map_err(|refused| format!("changing a connection's timeout: {refused}"))?;
        }
        Ok(())
    }

    /// Ends them all.
    pub fn clear(&mut self) -> Result<(), String> {
        self.heed()?;
        for tuple in std::mem::take(&mut self.live) {
            self.messages.clear();
            self.messages.push(DELETE, flag::REQUEST | flag::ACK, NFPROTO_IPV4, 0, |message| {
                message.nested_bytes(TUPLE_ORIGINAL, &tuple);
            });
            match self.requests.request(&self.messages, |_| {}) {
                Err(refused) if !refused.is_absent() => {
                    return Err(format!("deleting a connection: {refused}"));
                }
                _ => {}
            }
        }
        self.heed()
    }

    fn heed(&mut self) -> Result<(), String> {
        let live = &mut self.live;
        let heard = self.events.drain(|event| {
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
            self.messages.push(GET, flag::REQUEST, NFPROTO_IPV4, 0, |message| {
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

fn entry(all: Attributes<'_>) -> Option<Entry> {
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

fn tuple(all: Attributes<'_>) -> Option<Tuple> {
    let (ip, l4) = (all.inside(1), all.inside(2));
    let address = |kind| ip.get(kind).and_then(be32).map(Ipv4Addr::from_bits);
    let short = |kind| l4.get(kind).and_then(be16);
    let byte = |kind| Some(u16::from(*l4.get(kind)?.first()?));
    let protocol = *l4.get(1)?.first()?;
    let (sport, dport) = match protocol {
        1 => (short(4)?, byte(5)? << 8 | byte(6)?),
        _ => (short(2)?, short(3)?),
    };
    Some(Tuple { protocol, src: address(1)?, dst: address(2)?, sport, dport })
}
