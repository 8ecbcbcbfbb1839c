//! A DNS server that is not ours: a zone of A records and a way of behaving.

use super::Seat;
use crate::body::Body;
use crate::kernel::{SocketEvent, SocketId};
use crate::scenario::{self, UpstreamBehaviour};
use crate::world::World;
use kubesim_actors::dns::message::{Data, Message, Rcode, Record, Type};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

pub struct Upstream {
    server: scenario::Upstream,
    pub behaviour: UpstreamBehaviour,
    socket: Option<SocketId>,
    waiting: VecDeque<(SocketAddrV4, SocketAddrV4, Message)>,
}

impl Upstream {
    pub fn new(server: scenario::Upstream) -> Self {
        let behaviour = server.behaviour;
        Upstream { server, behaviour, socket: None, waiting: VecDeque::new() }
    }

    pub(super) fn start(&mut self, world: &mut World, seat: &mut Seat) {
        let (ns, owner) = (seat.ns, seat.owner());
        let any = Ipv4Addr::UNSPECIFIED;
        self.socket = world.kernel(seat.machine, |k, _, _| k.udp_bind(ns, any, 53, owner)).ok();
    }

    pub(super) fn socket(&mut self, world: &mut World, seat: &mut Seat, event: SocketEvent) {
        let SocketEvent::Datagram { from, local, body: Body::Dns(message), .. } = event else {
            return;
        };
        if message.response || self.behaviour == UpstreamBehaviour::Hang {
            return;
        }
        let answer = self.answer(&message);
        self.waiting.push_back((from, local, answer));
        world.program_alarm_in(seat, self.server.latency, 0);
    }

    /// The oldest answer is due: all take the same time.
    pub(super) fn alarm(&mut self, world: &mut World, seat: &mut Seat, _token: u32) {
        let (Some(socket), Some((to, local, message))) = (self.socket, self.waiting.pop_front())
        else {
            return;
        };
        let len = message.wire_len() as u32;
        let body = Body::Dns(Arc::new(message));
        let _ = world.kernel(seat.machine, |k, now, out| {
            k.udp_send(now, socket, Some(*local.ip()), to, body, len, out)
        });
    }

    fn answer(&self, query: &Message) -> Message {
        let name = query.name.to_lowercase();
        let found = self.server.records.get(&name);
        let (rcode, addresses) = match (self.behaviour, found) {
            (UpstreamBehaviour::Refuse, _) => (Rcode::Refused, None),
            (UpstreamBehaviour::ServFail, _) => (Rcode::ServFail, None),
            (UpstreamBehaviour::NxDomain, _) | (_, None) => (Rcode::NxDomain, None),
            (_, Some(addresses)) => (Rcode::NoError, Some(addresses)),
        };
        let ttl = self.server.ttl.as_secs() as u32;
        let record = |ip: &Ipv4Addr| Record { name: query.name.clone(), ttl, data: Data::A(*ip) };
        let answers = match query.qtype {
            Type::A | Type::Any => addresses.into_iter().flatten().map(record).collect(),
            _ => Vec::new(),
        };
        Message { response: true, rcode, answers, ..query.clone() }
    }
}
