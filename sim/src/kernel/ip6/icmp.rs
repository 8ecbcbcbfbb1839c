//! ICMPv6 (RFC 4443; net/ipv6/icmp.c): echo, and errors that are sent. Of errors that come in
//! nobody is told yet, and no path MTU is learned of them.

use super::route::{Hop6, Kind6};
use super::scope::is_of_one_link;
use crate::body::Body;
use crate::kernel::family::V6;
use crate::kernel::icmp::{answer_to, quote};
use crate::kernel::packet::{Ct, Icmp, Icmp6Error, L4, Packet, Tcp, TcpFlags};
use crate::kernel::{Cx, Namespace};
use kubesim_runtime::Time;
use std::net::Ipv6Addr;
use std::time::Duration;

/// Bytes of a header, and of an error's own.
const HEADER: u32 = 40;
const ERROR: u32 = 8;
/// As much as an error quotes, its own header and IPv6's with it (`IPV6_MIN_MTU`).
const QUOTED: u32 = 1280;

/// Token buckets, one a destination: an error a second, six in a burst (`net.ipv6.icmp.ratelimit`
/// 1000, icmpv6_xrlim_allow). Linux lets whole networks speak more often than single hosts, which
/// is not modelled. Packet-too-big is exempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Limiter6(Vec<(Ipv6Addr, Time, Duration)>);

impl Limiter6 {
    const PERIOD: Duration = Duration::from_secs(1);
    const BURST: Duration = Duration::from_secs(6);
    const KEPT: usize = 256;

    fn allow(&mut self, to: Ipv6Addr, now: Time) -> bool {
        if self.0.len() >= Self::KEPT {
            // Full buckets are as good as none.
            self.0.retain(|(_, last, _)| now.since(*last) < Self::BURST);
        }
        let at = self.0.binary_search_by_key(&to, |(to, ..)| *to).unwrap_or_else(|at| {
            self.0.insert(at, (to, now, Self::BURST));
            at
        });
        let (_, last, tokens) = &mut self.0[at];
        *tokens = (*tokens + now.since(*last)).min(Self::BURST);
        *last = now;
        let allowed = *tokens >= Self::PERIOD;
        if allowed {
            *tokens -= Self::PERIOD;
        }
        allowed
    }
}

impl Namespace {
    /// icmp6_send: tells the source of `about` what became of it. Never about an ICMP error, nor
    /// what was said to a group (but that it was too big), nor to a source that is no one's.
    /// `from`: by which link it came in, and whether in a frame for this very machine.
    pub(super) fn icmp6_error(
        &mut self,
        cx: &mut Cx<'_>,
        kind: Icmp6Error,
        about: &Packet<V6>,
        from: Option<(u32, bool)>,
    ) {
        let too_big = matches!(kind, Icmp6Error::PacketTooBig { .. });
        let about_error = matches!(about.l4, L4::Icmp(Icmp::Error { .. }));
        let to_group = about.dst.is_multicast() || from.is_some_and(|(_, to_us)| !to_us);
        let nobody = about.src.is_unspecified() || about.src.is_multicast();
        if about_error || nobody || (to_group && !too_big) {
            return;
        }
        let Some(ip6) = self.ip6.as_deref_mut() else { return };
        if !too_big && !ip6.icmp_unlimited && !ip6.limiter.allow(about.src, cx.now) {
            return;
        }
        let dev = from.map(|(dev, _)| dev);
        // From whom it was sent to, if that is this machine; else from the link that it came by.
        let here = |dev| ip6.is_own(about.dst, dev) || ip6.is_own_anycast(about.dst, dev);
        let own = dev.filter(|dev| here(*dev) && !to_group).map(|_| about.dst);
        let src = own.or_else(|| ip6.source(about.src, Some(dev?)));
        let dev = dev.filter(|_| is_of_one_link(about.src));
        // Nobody is told that an error could not be sent, nor whom many have in common.
        let Ok((hop, src)) = self.route_output6(about.src, src, dev) else { return };
        if hop.is_anycast(about.src) {
            return;
        }
        let len = (HEADER + ERROR + about.len).min(QUOTED);
        let error = L4::Icmp(Icmp::Error { kind, about: quote(about) });
        let mut packet = packet(src, about.src, len, error, Body::Empty);
        packet.ct = answer_to(about.ct);
        let _ = self.local_out6(cx, hop, packet);
    }

    /// RST for a segment that nobody wants (tcp_v6_send_reset).
    pub(super) fn reset6(&mut self, cx: &mut Cx<'_>, dev: u32, about: &Packet<V6>) {
        self.reset6_as(cx, Some(dev), about, Ct::None);
    }

    /// The same for one that a rule rejected: conntrack sees that as something about the
    /// connection, not of it.
    pub(super) fn reset6_as(
        &mut self,
        cx: &mut Cx<'_>,
        dev: Option<u32>,
        about: &Packet<V6>,
        ct: Ct,
    ) {
        let L4::Tcp(tcp) = &about.l4 else { return };
        if tcp.flags.rst {
            return;
        }
        let l4 = L4::Tcp(reset_of(tcp));
        let dev = dev.filter(|_| is_of_one_link(about.src));
        // Nobody is told that a reset could not be sent.
        if let Ok((hop, src)) = self.route_output6(about.src, Some(about.dst), dev) {
            let mut reset = packet(src, about.src, HEADER + 20, l4, Body::Empty);
            reset.ct = ct;
            let _ = self.local_out6(cx, hop, reset);
        }
    }

    pub(super) fn icmp6_input(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        request: Box<Packet<V6>>,
        hop: Hop6,
    ) {
        match request.l4 {
            L4::Icmp(Icmp::EchoRequest { id, seq }) => {
                // In the name of a group or of an anycast address nobody speaks.
                let own = (hop.kind == Kind6::Local).then_some(request.dst);
                let l4 = L4::Icmp(Icmp::EchoReply { id, seq });
                // A reply that cannot be routed is lost.
                let Ok((hop, src)) = self.route_output6(request.src, own, Some(dev)) else {
                    return;
                };
                let reply = packet(src, request.src, request.len, l4, request.body);
                let _ = self.local_out6(cx, hop, reply);
            }
            L4::Icmp(Icmp::Discovery(_)) => self.discovery_input(cx, dev, &request),
            _ => {}
        }
    }
}

/// As tcp_v6_send_reset answers.
fn reset_of(tcp: &Tcp) -> Tcp {
    let (seq, ack) = match tcp.flags.ack {
        true => (tcp.ack, None),
        false => (0, Some(tcp.seq.wrapping_add(tcp.span()))),
    };
    let flags = TcpFlags { rst: true, ack: ack.is_some(), ..TcpFlags::default() };
    let (sport, dport, ack) = (tcp.dport, tcp.sport, ack.unwrap_or(0));
    Tcp { sport, dport, seq, ack, flags, len: 0 }
}

/// A packet of this machine's own.
pub(super) fn packet(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    len: u32,
    l4: L4<V6>,
    body: Body,
) -> Box<Packet<V6>> {
    Box::new(Packet {
        src,
        dst,
        ttl: 64,
        dont_fragment: true,
        len,
        segment: len,
        l4,
        body,
        mark: 0,
        ct: Ct::None,
    })
}
