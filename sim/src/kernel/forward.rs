//! IPv4: input, forwarding and output, with netfilter's hooks between (net/ipv4/ip_input.c,
//! ip_forward.c, ip_output.c, route.c).

use super::address::{masquerade_address, select_address};
use super::icmp::PathMtu;
use super::link::Link;
use super::mutants::{Mutant, mutated};
use super::netfilter::{Hook, HookContext, Verdict};
use super::packet::{Ct, Frame, Icmp, IcmpError, L4, Packet, Payload};
use super::route::{Hop, Kind, Scope, Want};
use super::{Cx, Errno, Kernel, Mac, Namespace};
use kubesim_actors::ports::rules::{AddrType, RejectWith};
use std::net::Ipv4Addr;

/// How a packet came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// By a port of a bridge, which br_netfilter has noted (nf_bridge_info).
    pub bridged: bool,
    /// In a frame for this very machine (PACKET_HOST), not for everybody.
    pub to_us: bool,
    /// And IPVS has sent it on.
    sent_on: bool,
}

impl Arrival {
    /// Not at all: it is this machine's own.
    const OWN: Arrival = Arrival::new(false, true);
    /// It was said to everybody by this machine itself.
    const HEARD: Arrival = Arrival::new(false, false);
    /// It passes a bridge.
    pub const BRIDGED: Arrival = Arrival::new(true, true);
    const SENT_ON: Arrival = Arrival { sent_on: true, ..Arrival::OWN };

    pub const fn new(bridged: bool, to_us: bool) -> Self {
        Arrival { bridged, to_us, sent_on: false }
    }
}

impl Namespace {
    /// Walks one hook.
    pub(super) fn hook(
        &mut self,
        cx: &mut Cx<'_>,
        hook: Hook,
        packet: &mut Packet,
        input: Option<u32>,
        output: Option<u32>,
        arrival: Arrival,
    ) -> Verdict {
        if self.netfilter.is_idle() {
            return Verdict::Accept;
        }
        let Namespace { netfilter, links, fib, .. } = self;
        let masquerade_to = |dst: Ipv4Addr| {
            let dev = output.filter(|_| hook == Hook::Postrouting)?;
            let hop = fib.lookup(dst, Want { dev: Some(dev), scope: Scope::Universe });
            let next = hop.and_then(|hop| hop.via).unwrap_or(dst);
            masquerade_address(links, dev, next)
        };
        let context = HookContext {
            now: cx.now,
            input: input.and_then(|dev| links.name(dev)),
            output: output.and_then(|dev| links.name(dev)),
            physdev_in: arrival.bridged,
            sent_on: arrival.sent_on,
            has_type: &|ip, is| fib.addr_type(ip) == is,
            masquerade_to: &masquerade_to,
        };
        netfilter.hook(hook, packet, &context, &mut cx.core.rng)
    }

    /// As [`Namespace::hook`], and answers what was rejected. True: go on.
    fn passes(
        &mut self,
        cx: &mut Cx<'_>,
        hook: Hook,
        packet: &mut Packet,
        input: Option<u32>,
        output: Option<u32>,
        arrival: Arrival,
    ) -> bool {
        let verdict = self.hook(cx, hook, packet, input, output, arrival);
        self.obeys(cx, hook, packet, verdict, arrival)
    }

    fn obeys(
        &mut self,
        cx: &mut Cx<'_>,
        hook: Hook,
        packet: &Packet,
        verdict: Verdict,
        arrival: Arrival,
    ) -> bool {
        match verdict {
            Verdict::Accept => true,
            Verdict::Drop | Verdict::SentOn => false,
            // ICMP cannot send an error while it sends a reply (icmp_xmit_lock, net/ipv4/icmp.c).
            Verdict::Reject(_) if hook == Hook::Output && is_echo_reply(packet) => false,
            Verdict::Reject(with) => {
                self.reject(cx, packet, with, arrival);
                false
            }
        }
    }

    fn reject(&mut self, cx: &mut Cx<'_>, packet: &Packet, with: RejectWith, arrival: Arrival) {
        match with {
            // nf_send_reset asks what the addresses are; TCP itself does not.
            RejectWith::TcpReset => {
                let broadcast = |ip| self.fib.addr_type(ip) == AddrType::Broadcast;
                if !broadcast(packet.src) && !broadcast(packet.dst) {
                    self.netfilter.closing(packet.ct, cx.now);
                    self.reject_reset(cx, packet);
                }
            }
            // Nobody is told what became of what was said to everybody (icmp_send).
            _ if !arrival.to_us => {}
            RejectWith::PortUnreachable => self.icmp_error(cx, IcmpError::PortUnreachable, packet),
            RejectWith::HostUnreachable => self.icmp_error(cx, IcmpError::HostUnreachable, packet),
            RejectWith::AdminProhibited => self.icmp_error(cx, IcmpError::AdminProhibited, packet),
        }
    }

    /// A packet came in (ip_rcv). On a bridge with br_netfilter, PREROUTING was walked there.
    pub(super) fn ip_input(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        mut packet: Box<Packet>,
        arrival: Arrival,
    ) {
        if !arrival.bridged
            && !self.passes(cx, Hook::Prerouting, &mut packet, Some(dev), None, arrival)
        {
            return;
        }
        if self.is_martian(dev, packet.src, packet.dst) {
            return;
        }
        let everybody = packet.dst.is_broadcast();
        let hop = self.fib.route(packet.dst).filter(|_| !everybody);
        // Whether there is a way is asked before where it comes from.
        if (everybody || hop.is_some()) && !self.source_is_valid(dev, packet.src) {
            return;
        }
        if everybody {
            return self.local_input(cx, dev, packet, arrival);
        }
        match hop {
            Some(Hop { kind: Kind::Local | Kind::Broadcast, .. }) => {
                self.local_input(cx, dev, packet, arrival);
            }
            _ if !self.links.get(dev).is_some_and(|link| link.forwarding) => {}
            // What was said to everybody on a link stays there (ip_forward).
            _ if !arrival.to_us => {}
            Some(hop) => self.forward(cx, dev, hop, packet, arrival),
            None => self.icmp_error(cx, IcmpError::NetUnreachable, &packet),
        }
    }

    /// Whether a packet for another machine may come in by a link (ip_route_input).
    pub(super) fn may_come_by(&self, dev: u32, packet: &Packet) -> bool {
        let leads_somewhere = self.fib.route(packet.dst).is_some();
        let believed = !leads_somewhere || self.source_is_valid(dev, packet.src);
        believed && !self.is_martian(dev, packet.src, packet.dst)
    }

    /// Who is next on the way of a packet that came in by a link, if it leaves by that link.
    pub(super) fn next_hop_by(&self, dev: u32, dst: Ipv4Addr) -> Option<Ipv4Addr> {
        let forwards = self.links.get(dev).is_some_and(|link| link.forwarding);
        let hop = self.fib.route(dst).filter(|_| forwards && !dst.is_broadcast())?;
        (hop.kind == Kind::Unicast && hop.dev == dev).then(|| hop.via.unwrap_or(dst))
    }

    /// Addresses that no packet may come with (ip_route_input_slow). Groups are not modelled: what
    /// is sent to one is nothing.
    pub(super) fn is_martian(&self, dev: u32, src: Ipv4Addr, dst: Ipv4Addr) -> bool {
        let Some(link) = self.links.get(dev) else { return true };
        if link.is_loopback() {
            return false;
        }
        if src.is_unspecified() {
            return !dst.is_broadcast();
        }
        (!self.routes_localnet(link) && (src.is_loopback() || dst.is_loopback()))
            || src.is_multicast()
            || src.is_broadcast()
            || dst.is_multicast()
            || dst.is_unspecified()
    }

    /// `IN_DEV_ROUTE_LOCALNET`
    pub(super) fn routes_localnet(&self, link: &Link) -> bool {
        link.route_localnet || self.sysctls.localnet_all || mutated(Mutant::LocalnetRouted)
    }

    /// One's own address, and reverse-path filtering (fib_validate_source).
    pub(super) fn source_is_valid(&self, dev: u32, src: Ipv4Addr) -> bool {
        let Some(link) = self.links.get(dev) else { return false };
        if link.is_loopback() || src.is_unspecified() {
            return true;
        }
        if self.fib.is_local(src) && (!src.is_loopback() || self.has_address(src)) {
            return false;
        }
        let all = self.sysctls.rp_filter_all;
        let all = if mutated(Mutant::RpFilterOfLinkOnly) { 0 } else { all };
        // Only where nobody is (__fib_validate_source, net/ipv4/fib_frontend.c).
        let back = || self.fib.route(src).filter(|hop| hop.kind == Kind::Unicast);
        match link.rp_filter.max(all) {
            0 => true,
            // Loose: any route back will do, but by this link if it has no address (`no_addr`).
            2 => back().is_some_and(|hop| hop.dev == dev || !link.addresses.is_empty()),
            _ => back().is_some_and(|hop| hop.dev == dev),
        }
    }

    /// Of all of 127.0.0.0/8, which is local, mostly one (inet_lookup_ifaddr_rcu).
    fn has_address(&self, ip: Ipv4Addr) -> bool {
        self.links.iter().any(|link| link.addresses.iter().any(|address| address.ip() == ip))
    }

    fn local_input(
        &mut self,
        cx: &mut Cx<'_>,
        dev: u32,
        mut packet: Box<Packet>,
        arrival: Arrival,
    ) {
        let verdict = self.hook(cx, Hook::Input, &mut packet, Some(dev), None, arrival);
        if verdict == Verdict::SentOn {
            return self.send_on(cx, packet);
        }
        if !self.obeys(cx, Hook::Input, &packet, verdict, arrival) {
            return;
        }
        // Transports know nothing of it (nf_reset_ct in ip_protocol_deliver_rcu).
        packet.ct = Ct::None;
        match &packet.l4 {
            // tcp_v4_rcv
            L4::Tcp(_) if !arrival.to_us => {}
            L4::Tcp(tcp) => {
                let tcp = *tcp;
                self.tcp_input(cx, tcp, packet);
            }
            L4::Udp { sport, dport } => {
                let (sport, dport) = (*sport, *dport);
                self.udp_input(cx, sport, dport, packet, arrival);
            }
            L4::Icmp(_) => self.icmp_input(cx, packet),
        }
    }

    /// ip_forward: the TTL, the MTU, then the hook. What is too long and may be cut up goes on
    /// whole: here one packet stands for a datagram and for all its fragments, of which Linux
    /// would make some now (ip_do_fragment, net/ipv4/ip_output.c), and which arrive or get lost
    /// together.
    fn forward(
        &mut self,
        cx: &mut Cx<'_>,
        input: u32,
        hop: Hop,
        mut packet: Box<Packet>,
        arrival: Arrival,
    ) {
        if packet.ttl <= 1 && !mutated(Mutant::TtlOnePasses) {
            return self.icmp_error(cx, IcmpError::TtlExceeded, &packet);
        }
        let Some(mtu) = self.links.get(hop.dev).map(|link| link.mtu) else { return };
        let whole = packet.dont_fragment && !mutated(Mutant::DfOverlooked);
        if packet.segment > mtu && whole {
            return self.icmp_error(cx, IcmpError::FragmentationNeeded { mtu }, &packet);
        }
        packet.ttl = packet.ttl.saturating_sub(1);
        let (from, to) = (Some(input), Some(hop.dev));
        if self.passes(cx, Hook::Forward, &mut packet, from, to, arrival) {
            // Nobody is told what POSTROUTING drops.
            let _ = self.finish_output(cx, hop, packet, from, arrival);
        }
    }

    /// IPVS gave a packet another destination (ip_vs_nat_xmit, net/netfilter/ipvs/ip_vs_xmit.c): it
    /// leaves as if it were forwarded, but through OUTPUT.
    fn send_on(&mut self, cx: &mut Cx<'_>, mut packet: Box<Packet>) {
        let Ok(hop) = self.route_output(packet.dst, None) else { return };
        if packet.ttl <= 1 {
            return self.icmp_error(cx, IcmpError::TtlExceeded, &packet);
        }
        let Some(mtu) = self.links.get(hop.dev).map(|link| link.mtu) else { return };
        if packet.segment > mtu && packet.dont_fragment {
            return self.icmp_error(cx, IcmpError::FragmentationNeeded { mtu }, &packet);
        }
        packet.ttl -= 1;
        let arrival = Arrival::SENT_ON;
        if self.passes(cx, Hook::Output, &mut packet, None, Some(hop.dev), arrival) {
            let _ = self.finish_output(cx, hop, packet, None, arrival);
        }
    }

    /// The route for a local packet, `dev` where the sender chose the link.
    pub(super) fn route_output(&self, dst: Ipv4Addr, dev: Option<u32>) -> Result<Hop, Errno> {
        if dst.is_broadcast() {
            let (dev, kind) = (dev.ok_or(Errno::Enetunreach)?, Kind::Broadcast);
            return Ok(Hop { kind, dev, via: None, prefsrc: None, toward: None });
        }
        let hop = match dev {
            None => self.fib.route(dst),
            dev => self.fib.lookup(dst, Want { dev, scope: Scope::Universe }),
        };
        hop.ok_or(Errno::Enetunreach)
    }

    /// The address a local packet is sent from: what the route prefers, else one of the link's
    /// own (fib_result_prefsrc and fib_info_update_nhc_saddr, net/ipv4/fib_semantics.c: it is
    /// chosen for the gateway, and without one whatever the destination is). To a secondary address
    /// of our own that is its primary (ip_route_output_key_hash_rcu).
    pub(super) fn source_for(&self, dst: Ipv4Addr, hop: &Hop) -> Option<Ipv4Addr> {
        match hop.kind {
            Kind::Local => hop.prefsrc.or(Some(dst)),
            _ => hop.prefsrc.or_else(|| select_address(&self.links, hop.dev, hop.toward)),
        }
    }

    /// The largest packet to a destination: a learned path MTU, else the output link's.
    pub(super) fn path_mtu(&self, dst: Ipv4Addr, hop: &Hop, now: kubesim_runtime::Time) -> u32 {
        let dev = if hop.kind == Kind::Local { Kernel::LO } else { hop.dev };
        let mtu = self.links.get(dev).map_or(1500, |link| link.mtu);
        self.learned_path(dst, now).map_or(mtu, |path| path.mtu.min(mtu))
    }

    /// Whether what is sent to a destination may ask not to be cut up (ip_dont_fragment,
    /// include/net/ip.h).
    pub(super) fn may_say_df(&self, dst: Ipv4Addr, now: kubesim_runtime::Time) -> bool {
        self.learned_path(dst, now).is_none_or(|path| !path.locked)
    }

    fn learned_path(&self, dst: Ipv4Addr, now: kubesim_runtime::Time) -> Option<&PathMtu> {
        let at = self.path_mtus.binary_search_by_key(&dst, |path| path.dst).ok()?;
        self.path_mtus.get(at).filter(|path| now < path.until)
    }

    /// Sends a packet of this machine (ip_local_out). An unspecified source is filled in from
    /// the route, but for broadcasts by a link without an address. A rewrite of the destination
    /// in OUTPUT routes anew (ip_route_me_harder).
    ///
    /// `EINVAL` for a source that is not ours (any more) or may not leave, `ENETUNREACH` without a
    /// route, `EPERM` where OUTPUT dropped it, `EMSGSIZE`.
    pub(super) fn output(
        &mut self,
        cx: &mut Cx<'_>,
        mut packet: Box<Packet>,
        dev: Option<u32>,
    ) -> Result<(), Errno> {
        let hop = self.route_output(packet.dst, dev)?;
        if packet.src.is_unspecified() {
            let chosen = self.source_for(packet.dst, &hop);
            packet.src = chosen.unwrap_or(Ipv4Addr::UNSPECIFIED);
        } else if !self.fib.is_local(packet.src) {
            return Err(Errno::Einval);
        }
        self.output_by(cx, hop, packet, dev)
    }

    /// Whether a local packet may have its source where it leaves (__mkroute_output,
    /// net/ipv4/route.c).
    fn may_leave_by(&self, hop: &Hop, src: Ipv4Addr) -> Result<(), Errno> {
        let stays = !src.is_loopback() || hop.kind == Kind::Local;
        let link = self.links.get(hop.dev);
        let leaves = link.is_some_and(|link| link.is_loopback() || self.routes_localnet(link));
        if stays || leaves { Ok(()) } else { Err(Errno::Einval) }
    }

    /// As [`Namespace::output`] from whatever source the packet has (FLOWI_FLAG_ANYSRC).
    pub(super) fn output_by(
        &mut self,
        cx: &mut Cx<'_>,
        mut hop: Hop,
        mut packet: Box<Packet>,
        dev: Option<u32>,
    ) -> Result<(), Errno> {
        self.may_leave_by(&hop, packet.src)?;
        if !self.netfilter.is_idle() {
            let before = packet.dst;
            let out = if hop.kind == Kind::Local { Kernel::LO } else { hop.dev };
            if !self.passes(cx, Hook::Output, &mut packet, None, Some(out), Arrival::OWN) {
                return Err(Errno::Eperm);
            }
            if before != packet.dst {
                hop = self.route_output(packet.dst, dev)?;
                self.may_leave_by(&hop, packet.src)?;
            }
        }
        let mtu = self.links.get(hop.dev).map_or(0, |link| link.mtu);
        // Its own datagrams a machine may cut up whatever they say (`ignore_df`, __ip_make_skb).
        let whole = packet.dont_fragment && !matches!(packet.l4, L4::Udp { .. });
        if hop.kind == Kind::Unicast && whole && packet.segment > mtu {
            self.learn_path_mtu(cx, packet.dst, mtu);
            return Err(Errno::Emsgsize);
        }
        self.finish_output(cx, hop, packet, None, Arrival::OWN)
    }

    /// POSTROUTING, then the neighbour (ip_output, ip_finish_output2). `input`: the link that it
    /// came in by. `EPERM` where it was dropped.
    fn finish_output(
        &mut self,
        cx: &mut Cx<'_>,
        hop: Hop,
        mut packet: Box<Packet>,
        input: Option<u32>,
        arrival: Arrival,
    ) -> Result<(), Errno> {
        let dev = if hop.kind == Kind::Local { Kernel::LO } else { hop.dev };
        if hop.kind == Kind::Broadcast {
            self.hear_oneself(cx, dev, packet.clone());
        }
        if !self.passes(cx, Hook::Postrouting, &mut packet, input, Some(dev), arrival) {
            return Err(Errno::Eperm);
        }
        match hop.kind {
            Kind::Unicast if !self.links.get(dev).is_some_and(|link| link.asks_nobody()) => {
                let via = hop.via.filter(|_| !mutated(Mutant::GatewayOverlooked));
                let next = via.unwrap_or(packet.dst);
                self.send_to_neighbour(cx, dev, next, packet);
            }
            Kind::Unicast | Kind::Local => self.transmit_raw(cx, dev, Mac::default(), packet),
            Kind::Broadcast => self.transmit_raw(cx, dev, Mac::BROADCAST, packet),
        }
        Ok(())
    }

    /// What one says to everybody one hears as well, and before it leaves, without a question of
    /// where it came from (ip_mc_output, dev_loopback_xmit; netif_rx of a process ends with the
    /// softirq that receives it).
    fn hear_oneself(&mut self, cx: &mut Cx<'_>, dev: u32, mut packet: Box<Packet>) {
        if !self.passes(cx, Hook::Postrouting, &mut packet, None, Some(dev), Arrival::OWN) {
            return;
        }
        let arrival = Arrival::HEARD;
        if self.passes(cx, Hook::Prerouting, &mut packet, Some(dev), None, arrival) {
            self.local_input(cx, dev, packet, arrival);
        }
    }

    fn transmit_raw(&mut self, cx: &mut Cx<'_>, dev: u32, dst: Mac, packet: Box<Packet>) {
        let Some(src) = self.links.get(dev).map(|link| link.mac) else { return };
        self.transmit(cx, dev, Frame { src, dst, payload: Payload::Ip(packet) });
    }
}

fn is_echo_reply(packet: &Packet) -> bool {
    matches!(packet.l4, L4::Icmp(Icmp::EchoReply { .. }))
}
