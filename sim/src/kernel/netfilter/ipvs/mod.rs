//! IPVS: virtual services, whose connections are handed to endpoints in turn and rewritten on
//! their way (net/netfilter/ipvs: ip_vs_core.c, ip_vs_rr.c, ip_vs_xmit.c, ip_vs_nfct.c), with the
//! sysctls that `kubesim_actors::ports::rules::virtuals` names.
//!
//! Only what reaches INPUT, or is made here, is looked at for a service: behind the filter table at
//! INPUT, before it at OUTPUT (`ip_vs_ops4`). What was rewritten at INPUT goes out through OUTPUT
//! and POSTROUTING (`ip_vs_nat_xmit`). Answers are rewritten at FORWARD, INPUT and OUTPUT.
//! Conntrack learns who will answer (`ip_vs_update_conntrack`), so that the same packet can be
//! masqueraded; it does not count as DNAT.

mod connection;
mod ipvsadm;
mod services;

use super::conntrack::Conntrack;
use super::{Hook, HookContext};
use crate::kernel::packet::{Ct, Icmp, L4, Packet, Quoted, TcpFlags};
use connection::{Answered, Asked, Connections};
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::virtuals::{Virtual, VirtualSet};
use kubesim_actors::ports::rules::{AddrType, Protocol};
use kubesim_runtime::Time;
use services::Service;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// The virtual services of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Ipvs {
    services: BTreeMap<Front, Service>,
    connections: Connections,
    applied: Option<Applied>,
}

/// What an owner has applied.
#[derive(Clone, Debug)]
struct Applied {
    owner: SmolStr,
    shared: VirtualSet,
    local: Arc<[(Front, Arc<Virtual>)]>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It goes on at this hook, rewritten or not.
    On,
    /// It has another destination, which is not here.
    SentOn,
    /// No endpoint takes it.
    Refused,
    Dropped,
}

impl Ipvs {
    /// Until there is a service, packets pass untouched.
    pub fn is_idle(&self) -> bool {
        self.services.is_empty() && self.connections.is_empty()
    }

    /// All that is hooked at one hook.
    pub fn pass(
        &mut self,
        hook: Hook,
        packet: &mut Packet,
        conntrack: &mut Conntrack,
        context: &HookContext<'_>,
    ) -> Course {
        if !matches!(hook, Hook::Input | Hook::Forward | Hook::Output)
            || self.answer(packet, context.now)
        {
            return Course::On;
        }
        // What is forwarded is not for a front.
        if hook == Hook::Forward {
            return Course::On;
        }
        if let L4::Icmp(Icmp::Error { about, .. }) = &packet.l4 {
            let about = *about;
            return self.error_to_endpoint(hook, packet, about, context);
        }
        match self.request(packet, conntrack, context.now) {
            Course::SentOn if self.stays(packet, hook, context) => Course::On,
            course => course,
        }
    }

    /// The new destination is here, or its way is only chosen now.
    fn stays(&self, packet: &Packet, hook: Hook, context: &HookContext<'_>) -> bool {
        hook == Hook::Output || (context.has_type)(packet.dst, AddrType::Local)
    }

    /// Gives an answer, or an error about a request, the source that the client wrote to
    /// (`ip_vs_out`). True: it was one.
    fn answer(&mut self, packet: &mut Packet, now: Time) -> bool {
        if let L4::Icmp(Icmp::Error { about, .. }) = &mut packet.l4 {
            let Quoted { src, sport, dst, dport, protocol, .. } = *about;
            let client = SocketAddrV4::new(src, sport);
            let answered = Answered { protocol, endpoint: (dst, dport), client };
            let Some(asked) = self.connections.answered(&answered, now) else { return false };
            (about.dst, about.dport) = (*asked.front.ip(), asked.front.port());
            // Whoever wrote it (`ip_vs_nat_icmp`).
            packet.src = *asked.front.ip();
            return true;
        }
        let Some((protocol, from, to)) = ends(packet) else { return false };
        let answered = Answered { protocol, endpoint: (*from.ip(), from.port()), client: to };
        let Some(asked) = self.connections.answered(&answered, now) else { return false };
        self.connections.touch(&asked, false, flags(packet), now);
        packet.src = *asked.front.ip();
        match &mut packet.l4 {
            L4::Tcp(tcp) => tcp.sport = asked.front.port(),
            L4::Udp { sport, .. } => *sport = asked.front.port(),
            L4::Icmp(_) => {}
        }
        true
    }

    /// `ip_vs_in`
    fn request(&mut self, packet: &mut Packet, conntrack: &mut Conntrack, now: Time) -> Course {
        let Some((protocol, client, front)) = ends(packet) else { return Course::On };
        let asked = Asked { protocol, client, front };
        let opens = flags(packet).is_none_or(|flags| flags.syn && !flags.ack);
        let mut known = self.connections.asked(&asked, now);
        if let Some(connection) = known.filter(|_| flags(packet).is_some() && opens)
            && (connection.state.is_over() || !self.takes_more(&asked, connection.endpoint))
        {
            let old = is_confirmed(packet, conntrack);
            self.forget(&[asked], conntrack, now);
            if old {
                return Course::Dropped;
            }
            known = None;
        }
        let endpoint = match known {
            Some(connection) => connection.endpoint,
            None => {
                let at = Front { ip: *front.ip(), protocol, port: front.port() };
                let Some(service) = self.services.get_mut(&at).filter(|_| opens) else {
                    return Course::On;
                };
                let Some(endpoint) = service.schedule(*client.ip(), now) else {
                    return Course::Refused;
                };
                self.connections.open(asked, endpoint, now);
                endpoint
            }
        };
        self.connections.touch(&asked, true, flags(packet), now);
        expect_answer_from(endpoint, packet, conntrack);
        packet.dst = endpoint.0;
        match &mut packet.l4 {
            L4::Tcp(tcp) => tcp.dport = endpoint.1,
            L4::Udp { dport, .. } => *dport = endpoint.1,
            L4::Icmp(_) => {}
        }
        Course::SentOn
    }

    /// An error about an answer is for the endpoint that wrote it (`ip_vs_in_icmp`).
    fn error_to_endpoint(
        &mut self,
        hook: Hook,
        packet: &mut Packet,
        quoted: Quoted,
        context: &HookContext<'_>,
    ) -> Course {
        let Quoted { src, sport, dst, dport, protocol, .. } = quoted;
        let (front, client) = (SocketAddrV4::new(src, sport), SocketAddrV4::new(dst, dport));
        let asked = Asked { protocol, client, front };
        let Some(connection) = self.connections.asked(&asked, context.now) else {
            return Course::On;
        };
        packet.dst = connection.endpoint.0;
        if let L4::Icmp(Icmp::Error { about, .. }) = &mut packet.l4 {
            (about.src, about.sport) = connection.endpoint;
        }
        if self.stays(packet, hook, context) { Course::On } else { Course::SentOn }
    }

    /// The endpoint is one that gets new connections.
    fn takes_more(&self, asked: &Asked, endpoint: (Ipv4Addr, u16)) -> bool {
        let (ip, port) = (*asked.front.ip(), asked.front.port());
        let service = self.services.get(&Front { ip, protocol: asked.protocol, port });
        service.is_some_and(|service| service.weight(endpoint).is_some_and(|weight| weight > 0))
    }

    /// Connections end, and conntrack's entries of them (`ip_vs_conn_drop_conntrack`).
    fn forget(&mut self, gone: &[Asked], conntrack: &mut Conntrack, now: Time) {
        if gone.is_empty() {
            return;
        }
        gone.iter().for_each(|asked| self.connections.end_one(asked));
        conntrack.delete(now, |entry| {
            let original = &entry.original;
            let client = SocketAddrV4::new(original.src, original.sport);
            let front = SocketAddrV4::new(original.dst, original.dport);
            gone.contains(&Asked { protocol: original.protocol, client, front })
        });
    }

    /// Where each front leads new connections.
    pub fn leads(&self) -> impl Iterator<Item = (Front, (Ipv4Addr, u16))> + '_ {
        self.services.iter().flat_map(|(front, service)| service.active().map(|to| (*front, to)))
    }
}

/// Who wrote it and to whom; ICMP is nobody's.
fn ends(packet: &Packet) -> Option<(Protocol, SocketAddrV4, SocketAddrV4)> {
    let (protocol, sport, dport) = match &packet.l4 {
        L4::Tcp(tcp) => (Protocol::Tcp, tcp.sport, tcp.dport),
        L4::Udp { sport, dport } => (Protocol::Udp, *sport, *dport),
        L4::Icmp(_) => return None,
    };
    Some((protocol, SocketAddrV4::new(packet.src, sport), SocketAddrV4::new(packet.dst, dport)))
}

fn flags(packet: &Packet) -> Option<TcpFlags> {
    match &packet.l4 {
        L4::Tcp(tcp) => Some(tcp.flags),
        _ => None,
    }
}

fn is_confirmed(packet: &Packet, conntrack: &Conntrack) -> bool {
    let Ct::Entry { id, .. } = packet.ct else { return false };
    conntrack.get(id).is_some_and(|entry| entry.confirmed)
}

/// `ip_vs_update_conntrack`: only of a connection that is new to conntrack as well.
fn expect_answer_from((ip, port): (Ipv4Addr, u16), packet: &Packet, conntrack: &mut Conntrack) {
    let Ct::Entry { id, reply: false, .. } = packet.ct else { return };
    if let Some(entry) = conntrack.get_mut(id).filter(|entry| !entry.confirmed && !entry.dying) {
        (entry.reply.src, entry.reply.sport) = (ip, port);
    }
}
