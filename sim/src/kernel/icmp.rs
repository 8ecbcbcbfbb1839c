//! ICMP: echo, errors sent and errors received (net/ipv4/icmp.c).

use super::family::Family;
use super::packet::{Ct, Icmp, IcmpError, L4, Packet, Quoted, Tcp, TcpFlags};
use super::route::Want;
use super::socket::Demux;
use super::{Cx, Errno, Kernel, Namespace, NsId, Output, Owner, SocketEvent};
use crate::body::Body;
use kubesim_actors::ports::rules::{AddrType, Protocol};
use kubesim_runtime::Time;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Header of IPv4 and of an error with what it quotes: 20 + 8 + 28.
const ERROR_LEN: u32 = 56;
/// `ip_rt_mtu_expires`
const PATH_MTU_LIFETIME: Duration = Duration::from_secs(600);
/// `ip_rt_min_pmtu`
const MIN_PATH_MTU: u32 = 552;
/// Whom an error is from where a machine has no address (RFC 7600; `INADDR_DUMMY`, __icmp_send).
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// A ping that nobody answered is forgotten after this long.
pub(super) const PING_LIFETIME: Duration = Duration::from_secs(10);

/// What was learned of the way to a destination (RFC 1191).
#[derive(Clone, Copy, Debug)]
pub(super) struct PathMtu {
    pub dst: Ipv4Addr,
    pub mtu: u32,
    /// Less was said than is believed, so that nothing asks not to be cut up any more.
    pub locked: bool,
    pub until: Time,
}

/// Token buckets, one a destination: an error a second, six in a burst (`icmp_ratelimit` 1000,
/// XRLIM_BURST_FACTOR in net/ipv4/icmp.c, inet_peer_xrlim_allow). Frag-needed and what leaves by
/// the loopback are exempt. The machine-wide `icmp_msgs_per_sec` is not modelled.
#[derive(Clone, Debug, Default)]
pub(super) struct Limiter(Vec<(Ipv4Addr, Time, Duration)>);

impl Limiter {
    const PERIOD: Duration = Duration::from_secs(1);
    const BURST: Duration = Duration::from_secs(6);

    fn allow(&mut self, to: Ipv4Addr, now: Time) -> bool {
        let at = match self.0.binary_search_by_key(&to, |(to, ..)| *to) {
            Ok(at) => at,
            Err(at) => {
                if self.0.len() >= 256 {
                    // Full buckets are as good as none.
                    self.0.retain(|(_, last, _)| now.since(*last) < Self::BURST);
                    return self.allow_new(to, now);
                }
                self.0.insert(at, (to, now, Self::BURST));
                at
            }
        };
        self.take(at, now)
    }

    fn allow_new(&mut self, to: Ipv4Addr, now: Time) -> bool {
        let at = self.0.partition_point(|(other, ..)| *other < to);
        self.0.insert(at, (to, now, Self::BURST));
        self.take(at, now)
    }

    fn take(&mut self, at: usize, now: Time) -> bool {
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

/// What an error about a packet says of it.
pub(super) fn quote<F: Family>(packet: &Packet<F>) -> Quoted<F> {
    let (sport, dport) = match &packet.l4 {
        L4::Icmp(Icmp::EchoRequest { id, .. } | Icmp::EchoReply { id, .. }) => (*id, 0),
        _ => packet.ports(),
    };
    let seq = if let L4::Tcp(tcp) = &packet.l4 { tcp.seq } else { 0 };
    Quoted { src: packet.src, dst: packet.dst, protocol: packet.protocol(), sport, dport, seq }
}

/// `icmp_err_convert`, and whether the error ends a connected socket at once.
pub(super) fn errno_of(kind: IcmpError) -> Errno {
    match kind {
        IcmpError::NetUnreachable => Errno::Enetunreach,
        IcmpError::HostUnreachable | IcmpError::AdminProhibited | IcmpError::TtlExceeded => {
            Errno::Ehostunreach
        }
        IcmpError::PortUnreachable => Errno::Econnrefused,
        IcmpError::FragmentationNeeded { .. } => Errno::Emsgsize,
    }
}

impl Namespace {
    /// `icmp_send`: tells the source of `about` what became of it. Never about an ICMP error, a
    /// broadcast, or to a source that is no one's.
    pub(super) fn icmp_error(&mut self, cx: &mut Cx<'_>, kind: IcmpError, about: &Packet) {
        let about_error = matches!(about.l4, L4::Icmp(Icmp::Error { .. }));
        let group = about.dst.is_broadcast()
            || self.fib.addr_type(about.dst) == AddrType::Broadcast
            || about.src.is_unspecified()
            || self.fib.addr_type(about.src) == AddrType::Multicast;
        if about_error || group {
            return;
        }
        let to_self = self.fib.is_local(about.src);
        let exempt = self.sysctls.icmp_unlimited
            || to_self
            || matches!(kind, IcmpError::FragmentationNeeded { .. });
        if !exempt && !self.limiter.allow(about.src, cx.now) {
            return;
        }
        // Nobody is told that an error could not be sent.
        let Ok(hop) = self.route_output(about.src, None) else { return };
        let src = if self.fib.is_local(about.dst) {
            about.dst
        } else {
            self.source_for(about.src, &hop).unwrap_or(DUMMY)
        };
        let error = L4::Icmp(Icmp::Error { kind, about: quote(about) });
        let mut packet = icmp_packet(src, about.src, ERROR_LEN, error, Body::Empty);
        packet.ct = answer_to(about.ct);
        let _ = self.output_by(cx, hop, packet, None);
    }

    /// RST for a segment that nobody wants (tcp_v4_send_reset).
    pub(super) fn send_reset(&mut self, cx: &mut Cx<'_>, about: &Packet) {
        self.reset_as(cx, about, Ct::None);
    }

    /// RST for a segment that a rule rejected (nf_send_reset): conntrack sees it as something
    /// about the connection, not of it.
    pub(super) fn reject_reset(&mut self, cx: &mut Cx<'_>, about: &Packet) {
        self.reset_as(cx, about, answer_to(about.ct));
    }

    fn reset_as(&mut self, cx: &mut Cx<'_>, about: &Packet, ct: Ct) {
        let L4::Tcp(tcp) = &about.l4 else { return };
        if tcp.flags.rst {
            return;
        }
        let (seq, ack) = if tcp.flags.ack {
            (tcp.ack, None)
        } else {
            (0, Some(tcp.seq.wrapping_add(tcp.span())))
        };
        let flags = TcpFlags { rst: true, ack: ack.is_some(), ..TcpFlags::default() };
        let (sport, dport) = (tcp.dport, tcp.sport);
        let ack = ack.unwrap_or(0);
        let l4 = L4::Tcp(Tcp { sport, dport, seq, ack, flags, len: 0 });
        let mut packet = icmp_packet(about.dst, about.src, 40, l4, Body::Empty);
        // tcp_sk_init (net/ipv4/tcp_ipv4.c), nf_reject_iphdr_put (nf_reject_ipv4.c)
        packet.dont_fragment = true;
        packet.ct = ct;
        // Nobody is told that a reset could not be sent.
        if let Ok(hop) = self.route_output(packet.dst, None) {
            let _ = self.output_by(cx, hop, packet, None);
        }
    }

    pub(super) fn icmp_input(&mut self, cx: &mut Cx<'_>, packet: Box<Packet>) {
        let L4::Icmp(icmp) = &packet.l4 else { return };
        match *icmp {
            Icmp::EchoRequest { id, seq } => {
                // icmp_echo_ignore_broadcasts
                if self.fib.addr_type(packet.dst) != AddrType::Local {
                    return;
                }
                let l4 = L4::Icmp(Icmp::EchoReply { id, seq });
                let reply = icmp_packet(packet.dst, packet.src, packet.len, l4, packet.body);
                // A reply that cannot be routed is lost.
                let _ = self.output(cx, reply, None);
            }
            Icmp::EchoReply { id, seq } => {
                let demux = Demux::Ping { ns: self.id, id };
                let Some(socket) = cx.core.sockets.lookup(&demux) else { return };
                let Some(owner) = cx.core.sockets.owner(socket) else { return };
                let (from, ttl) = (packet.src, packet.ttl);
                cx.tell(owner, socket, SocketEvent::EchoReply { from, id, seq, ttl });
            }
            Icmp::Error { kind, about } => self.error_input(cx, kind, &about),
            Icmp::Discovery(never) => match never {},
        }
    }

    /// An error about something this namespace sent (icmp_unreach): who sent it is told, and only
    /// if there is somebody, the path's MTU is learned (tcp_v4_err, __udp4_lib_err, ping_err).
    fn error_input(&mut self, cx: &mut Cx<'_>, kind: IcmpError, about: &Quoted) {
        let to = SocketAddrV4::new(about.dst, about.dport);
        match about.protocol {
            Protocol::Tcp => self.tcp_error(cx, kind, about),
            Protocol::Udp => self.udp_error(cx, kind, about, to),
            Protocol::Icmp => {
                let demux = Demux::Ping { ns: self.id, id: about.sport };
                let Some(socket) = cx.core.sockets.lookup(&demux) else { return };
                if let Some(owner) = cx.core.sockets.owner(socket) {
                    self.heed_path_mtu(cx, kind, about.dst);
                    cx.tell(owner, socket, SocketEvent::Icmp { kind, to });
                }
            }
            Protocol::Sctp => {}
        }
    }

    /// What an error says of the way to a destination, if it says that.
    pub(super) fn heed_path_mtu(&mut self, cx: &mut Cx<'_>, kind: IcmpError, dst: Ipv4Addr) {
        if let IcmpError::FragmentationNeeded { mtu } = kind {
            self.learn_path_mtu(cx, dst, mtu);
        }
    }

    /// `ip_rt_update_pmtu`: only ever downwards, and for ten minutes. Below `ip_rt_min_pmtu` it is
    /// locked.
    pub(super) fn learn_path_mtu(&mut self, cx: &mut Cx<'_>, dst: Ipv4Addr, mtu: u32) {
        let Some(hop) = self.fib.lookup(dst, Want::ANY) else { return };
        if mtu >= self.path_mtu(dst, &hop, cx.now) {
            return;
        }
        let (locked, mtu) = (mtu < MIN_PATH_MTU, mtu.max(MIN_PATH_MTU));
        let entry = PathMtu { dst, mtu, locked, until: cx.now + PATH_MTU_LIFETIME };
        match self.path_mtus.binary_search_by_key(&dst, |path| path.dst) {
            Ok(at) => self.path_mtus[at] = entry,
            Err(at) => self.path_mtus.insert(at, entry),
        }
        self.fib.touch();
    }
}

/// The answer to a packet belongs to its connection, seen from the other side (`nf_ct_attach`, for
/// errors in icmp_glue_bits), so that its addresses are translated back.
pub(super) fn answer_to(ct: Ct) -> Ct {
    match ct {
        Ct::Entry { id, reply, .. } => Ct::Entry { id, reply: !reply, new: false, related: true },
        Ct::Untracked | Ct::Attached => Ct::Attached,
        Ct::None | Ct::Invalid => Ct::None,
    }
}

fn icmp_packet(src: Ipv4Addr, dst: Ipv4Addr, len: u32, l4: L4, body: Body) -> Box<Packet> {
    Box::new(Packet {
        src,
        dst,
        ttl: 64,
        dont_fragment: false,
        len,
        segment: len,
        l4,
        body,
        mark: 0,
        ct: Ct::None,
    })
}

impl Kernel {
    /// Sends one echo request with `len` bytes of payload. Replies and errors come as events of
    /// one socket for the `id`; ids are the caller's to keep apart in a namespace.
    #[allow(clippy::too_many_arguments, reason = "the fields of an echo request")]
    pub fn ping(
        &mut self,
        now: Time,
        ns: NsId,
        dst: Ipv4Addr,
        id: u16,
        seq: u16,
        len: u32,
        owner: Owner,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        self.within(now, ns, out, |space, cx| {
            space.route_output(dst, None)?;
            cx.core.open_ping(ns, id, owner, now + PING_LIFETIME);
            let l4 = L4::Icmp(Icmp::EchoRequest { id, seq });
            let packet = icmp_packet(Ipv4Addr::UNSPECIFIED, dst, 28 + len, l4, Body::Empty);
            space.output(cx, packet, None)
        })
    }
}
