//! netfilter on the way of IPv6, and what is answered where a rule rejects (net/ipv6/netfilter.c,
//! net/ipv6/netfilter/nf_reject_ipv6.c).

use super::Ip6;
use super::route::{Hop6, Kind6};
use super::scope::is_of_one_link;
use crate::kernel::family::V6;
use crate::kernel::icmp::answer_to;
use crate::kernel::netfilter::{Hook, HookContext, Verdict};
use crate::kernel::packet::{Icmp, Icmp6Error, L4, Packet};
use crate::kernel::{Cx, Errno, Kernel, Namespace};
use kubesim_actors::ports::rules::{AddrType, RejectWith6};
use std::net::Ipv6Addr;

/// By which link a packet came in and by which it leaves, where that is known; and whether it came
/// in a frame for this very machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub input: Option<u32>,
    pub output: Option<u32>,
    pub to_us: bool,
}

impl Way {
    pub fn out(output: u32) -> Way {
        Way { input: None, output: Some(output), to_us: true }
    }
}

impl Namespace {
    /// Walks one hook, and answers what was rejected. True: go on.
    pub(super) fn passes6(
        &mut self,
        cx: &mut Cx<'_>,
        hook: Hook,
        packet: &mut Packet<V6>,
        way: Way,
    ) -> bool {
        if self.netfilter6.is_idle() {
            return true;
        }
        let Namespace { netfilter6, links, ip6, .. } = self;
        let Some(ip6) = ip6.as_deref() else { return true };
        let masquerade_to = |dst| {
            let dev = way.output.filter(|_| hook == Hook::Postrouting)?;
            ip6.source(dst, Some(dev))
        };
        let context = HookContext {
            now: cx.now,
            input: way.input.and_then(|dev| links.name(dev)),
            output: way.output.and_then(|dev| links.name(dev)),
            physdev_in: false,
            sent_on: false,
            has_type: &|ip, is| ip6.has_type(ip, is),
            masquerade_to: &masquerade_to,
        };
        match netfilter6.hook(hook, packet, &context, &mut cx.core.rng) {
            Verdict::Accept => true,
            Verdict::Drop | Verdict::SentOn => false,
            // ICMP cannot send an error while it sends a reply (icmpv6_xmit_lock).
            Verdict::Reject(_) if hook == Hook::Output && is_echo_reply(packet) => false,
            Verdict::Reject(with) => {
                self.reject6(cx, packet, with, way);
                false
            }
        }
    }

    fn reject6(&mut self, cx: &mut Cx<'_>, packet: &Packet<V6>, with: RejectWith6, way: Way) {
        let kind = match with {
            RejectWith6::TcpReset => {
                // nf_send_reset6 asks what the addresses are; TCP itself does not.
                if is_unicast(packet.src) && is_unicast(packet.dst) {
                    self.netfilter6.closing(packet.ct, cx.now);
                    self.reset6_as(cx, None, packet, answer_to(packet.ct));
                }
                return;
            }
            RejectWith6::PortUnreachable => Icmp6Error::PortUnreachable,
            RejectWith6::NoRoute => Icmp6Error::NoRoute,
            RejectWith6::AdminProhibited => Icmp6Error::AdminProhibited,
            RejectWith6::AddressUnreachable => Icmp6Error::AddressUnreachable,
        };
        // What is sent here came by the loopback, if anybody asks (nf_send_unreach6).
        let from = (way.input.unwrap_or(Kernel::LO), way.to_us);
        self.icmp6_error(cx, kind, packet, Some(from));
    }

    /// A packet of this machine's own (ip6_local_out). Where OUTPUT rewrote its destination,
    /// another way is looked for (ip6_route_me_harder). `EPERM` where a rule dropped it.
    pub(super) fn local_out6(
        &mut self,
        cx: &mut Cx<'_>,
        mut hop: Hop6,
        mut packet: Box<Packet<V6>>,
    ) -> Result<(), Errno> {
        let (before, out) = (packet.dst, if hop.is_here() { Kernel::LO } else { hop.dev });
        if !self.passes6(cx, Hook::Output, &mut packet, Way::out(out)) {
            return Err(Errno::Eperm);
        }
        if packet.dst != before {
            // Of the loopback, where it was for this machine.
            let dev = Some(out).filter(|_| is_of_one_link(packet.dst));
            let other = self.ip6.as_deref().and_then(|ip6| ip6.route(packet.dst, dev, false));
            hop = other.ok_or(Errno::Enetunreach)?;
        }
        self.finish_output6(cx, hop, packet, None)
    }

    /// Neighbour discovery leaves without a route, through the same hooks (ndisc_send_skb).
    pub(super) fn discovery_passes(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        packet: &mut Packet<V6>,
    ) -> bool {
        let out = Way::out(dev);
        self.passes6(cx, Hook::Output, packet, out)
            && self.passes6(cx, Hook::Postrouting, packet, Way { input: Some(dev), ..out })
    }
}

impl Ip6 {
    /// `-m addrtype` (match_type6, net/netfilter/xt_addrtype.c): an address of this machine is one
    /// of a host as well.
    fn has_type(&self, ip: Ipv6Addr, is: AddrType) -> bool {
        match is {
            AddrType::Local => {
                self.route(ip, None, false).is_some_and(|hop| hop.kind == Kind6::Local)
            }
            AddrType::Unicast => is_unicast(ip),
            AddrType::Multicast => ip.is_multicast(),
            AddrType::Broadcast => false,
        }
    }
}

fn is_unicast(ip: Ipv6Addr) -> bool {
    !ip.is_multicast() && !ip.is_unspecified()
}

fn is_echo_reply(packet: &Packet<V6>) -> bool {
    matches!(packet.l4, L4::Icmp(Icmp::EchoReply { .. }))
}
