//! The tables as `ip -6` prints them.

use super::route::{Entry6, Kind6};
use crate::kernel::link::Links;
use crate::kernel::{Kernel, NsId};
use kubesim_actors::ports::network::{Errno, Proto};
use std::fmt::Write;
use std::net::Ipv6Addr;

/// A line of `ip -6 -N route show table all`, but for `pref medium`.
fn line(entry: &Entry6, links: &Links, local: bool) -> String {
    let kind = match entry.kind {
        Kind6::Unicast => "",
        Kind6::Local => "local ",
        Kind6::Anycast => "anycast ",
        Kind6::Multicast => "multicast ",
    };
    let mut text = String::from(kind);
    let written = match (entry.to, entry.plen) {
        (_, 0) => write!(text, "default"),
        (to, 128) => write!(text, "{to}"),
        (to, plen) => write!(text, "{to}/{plen}"),
    };
    written.expect("writing to a String never fails");
    let via = entry.via.map_or(String::new(), |via| format!(" via {via}"));
    let dev = links.name(entry.dev).unwrap_or("?");
    let table = if local { " table local" } else { "" };
    let Proto(proto) = entry.proto;
    let onlink = if entry.onlink { " onlink" } else { "" };
    format!("{text}{via} dev {dev}{table} proto {proto} metric {}{onlink}", entry.metric)
}

impl Kernel {
    /// `ip -6 -N route show table all`: the main table, then the local one, a line a route. What is
    /// the same in each (`pref medium`) and what links say (`linkdown`) is left out.
    pub fn ip_route6(&self, ns: NsId) -> Vec<String> {
        let Some(space) = self.namespace(ns) else { return Vec::new() };
        let Some(ip6) = &space.ip6 else { return Vec::new() };
        let tables = [(&ip6.fib.main, false), (&ip6.fib.local, true)];
        let lines = tables.into_iter().flat_map(|(table, local)| {
            table.entries().iter().map(move |entry| line(entry, &space.links, local))
        });
        lines.collect()
    }

    /// `ip -6 route get`: the way that a packet of this machine's own takes, and its source.
    pub fn ip_route_get6(&self, ns: NsId, dst: Ipv6Addr) -> Result<String, Errno> {
        let space = self.namespace(ns).ok_or(Errno::Einval)?;
        let ip6 = space.ip6.as_ref().ok_or(Errno::Enetunreach)?;
        let hop = ip6.route(dst, None, false).ok_or(Errno::Enetunreach)?;
        let kind = match hop.kind {
            Kind6::Unicast => "",
            Kind6::Local => "local ",
            Kind6::Anycast => "anycast ",
            Kind6::Multicast => "multicast ",
        };
        let dev = if hop.is_here() { Self::LO } else { hop.dev };
        let dev = space.links.name(dev).unwrap_or("?");
        let via = hop.via.map_or(String::new(), |via| format!(" via {via}"));
        let src = ip6.source(dst, Some(hop.dev));
        let src = src.map_or(String::new(), |src| format!(" src {src}"));
        Ok(format!("{kind}{dst}{via} dev {dev}{src}"))
    }
}
