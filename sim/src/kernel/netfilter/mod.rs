//! netfilter: the hooks, iptables' tables and chains, conntrack and NAT of one namespace.

use super::packet::Packet;
use kubesim_actors::ports::rules::{AddrType, RejectWith};
use kubesim_runtime::{Rng, Time};
use std::net::Ipv4Addr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Reject(RejectWith),
}

/// What a hook may know beside the packet.
pub struct HookContext<'a> {
    pub now: Time,
    /// The link it came in by; `None` for locally made packets.
    pub input: Option<&'a str>,
    /// The link it is to leave by, where that is known.
    pub output: Option<&'a str>,
    /// It entered through a port of a bridge (`-m physdev`, with bridge-nf-call-iptables).
    pub physdev_in: bool,
    /// `-m addrtype`, and whether an address is this namespace's own.
    pub addr_type: &'a dyn Fn(Ipv4Addr) -> AddrType,
    /// The address MASQUERADE takes: the preferred one of the output link towards the packet's
    /// destination (`inet_select_addr`).
    pub masquerade_to: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, Default)]
pub struct Netfilter {}

impl Netfilter {
    /// Runs everything registered at a hook, by priority, and rewrites the packet where NAT says
    /// so (`include/uapi/linux/netfilter_ipv4.h`: raw -300, conntrack -200, mangle -150,
    /// nat destination -100, filter 0, nat source 100, confirm last).
    pub fn hook(&mut self, hook: Hook, packet: &mut Packet, context: &HookContext<'_>, rng: &mut Rng) -> Verdict {
        let _ = (hook, packet, context, rng);
        Verdict::Accept
    }
    /// Nothing is loaded and nothing is tracked: hooks may be skipped.
    pub fn is_idle(&self) -> bool {
        true
    }
}
