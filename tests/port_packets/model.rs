//! The machine as the simulator models it; a thin copy of what `sim/src/world/ports.rs` and
//! `sim/src/world/connections.rs` do between an actor and its machine's kernel.

use crate::world::{ADDRESSES, Client, Server, Who, World};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::Mac;
use kubesim_actors::ports::packets::{self, Reply, Request};
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::{Kernel, NsId, Output, SocketEvent, SocketId};
use kubesim_sim::models::connections::{Connections, Means};
use std::net::Ipv4Addr;
use std::time::Duration;

pub struct Model {
    kernel: Kernel,
    now: Time,
    sockets: Vec<(Who, u16, SocketId)>,
    connections: Connections<Who>,
    told: Vec<(Who, Reply)>,
}

fn owner(who: Who) -> u64 {
    u64::from(who == Server)
}

impl Model {
    pub fn new() -> Model {
        let stream = Stream { seed: 1, label: "kernel", index: 0, incarnation: 0 };
        let kernel = Kernel::new(Rng::new(stream));
        let mut model = Model {
            kernel,
            now: Time::ZERO,
            sockets: Vec::new(),
            connections: Connections::default(),
            told: Vec::new(),
        };
        model.act(|kernel, now, out| {
            let index = kernel.add_uplink("eth0", Mac([2; 6]), 1500).expect("new");
            kernel.set_up(now, NsId::HOST, index, true, out).expect("a link");
            for address in ADDRESSES {
                let net = address.parse().expect("an address");
                kernel.add_address(now, NsId::HOST, index, net, out).expect("new");
            }
        });
        model
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut Kernel, Time, &mut Vec<Output>) -> R) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.kernel, self.now, &mut out);
        for output in out {
            let Output::Socket { owner, socket, event } = output else { continue };
            let who = if owner == self::owner(Server) { Server } else { Client };
            self.hear(who, socket, event);
        }
        result
    }

    fn connected<R>(&mut self, act: impl FnOnce(&mut Connections<Who>, &mut Means<'_>) -> R) -> R {
        let mut connections = std::mem::take(&mut self.connections);
        // What the kernel puts out is for these connections: it is heard when they are back.
        let (mut out, now) = (Vec::new(), self.now);
        let mut means = Means { kernel: &mut self.kernel, now, out: &mut out };
        let result = act(&mut connections, &mut means);
        self.connections = connections;
        self.act(|_, _, put| put.append(&mut out));
        result
    }

    fn have_address(&mut self, address: Ipv4Addr) {
        if !address.is_unspecified() {
            let (lo, net) = (Kernel::LO, Ipv4Net::from(address));
            let _ = self.act(|kernel, now, out| kernel.add_address(now, NsId::HOST, lo, net, out));
        }
    }

    fn hear(&mut self, who: Who, socket: SocketId, event: SocketEvent) {
        let reply = match event {
            SocketEvent::Datagram { from, local, body, .. } => {
                let body = match body {
                    Body::Dns(message) => packets::Body::Dns(message),
                    Body::Peer(signed) => packets::Body::Peer(signed),
                    other => panic!("{other:?}"),
                };
                Reply::Datagram { local, from, body }
            }
            SocketEvent::Icmp { to, .. } => Reply::Unreachable { to },
            event => {
                let act = |connections: &mut Connections<Who>, means: &mut Means<'_>| {
                    connections.event(means, socket, event)
                };
                let told = self.connected(act);
                return self.told.extend(told);
            }
        };
        self.told.push((who, reply));
    }
}

impl World for Model {
    fn ask(&mut self, who: Who, request: Request) {
        match request {
            Request::Bind { address, port } => {
                self.have_address(address);
                match self.kernel.udp_bind(NsId::HOST, address, port, owner(who)) {
                    Ok(socket) => self.sockets.push((who, port, socket)),
                    Err(why) => self.told.push((who, Reply::BindFailed { port, why })),
                }
            }
            Request::Send { from, from_port, to, body } => {
                let is_it = |(w, port, _): &&(Who, u16, SocketId)| (*w, *port) == (who, from_port);
                let Some(&(_, _, socket)) = self.sockets.iter().find(is_it) else { return };
                let (body, len) = match body {
                    packets::Body::Dns(message) => {
                        let len = message.wire_len() as u32;
                        (Body::Dns(message), len)
                    }
                    packets::Body::Peer(signed) => (Body::Peer(signed), 180),
                };
                let sent = self
                    .act(|kernel, now, out| kernel.udp_send(now, socket, from, to, body, len, out));
                if sent.is_err() {
                    self.told.push((who, Reply::Unreachable { to }));
                }
            }
            Request::Listen { address, port } => {
                self.have_address(address);
                match self.kernel.tcp_listen(NsId::HOST, address, port, owner(who)) {
                    Ok(socket) => self.connections.listen(who, socket),
                    Err(why) => self.told.push((who, Reply::ListenFailed { port, why })),
                }
            }
            Request::Respond { connection, message } => {
                self.connected(|connections, means| {
                    connections.respond(means, connection, message)
                });
            }
            Request::Ask { to, message } => {
                let told = self.connected(|connections, means| {
                    connections.ask(means, owner(who), who, to, message)
                });
                self.told.extend(told.map(|reply| (who, reply)));
            }
        }
    }

    fn news(&mut self, who: Who) -> Vec<Reply> {
        let (his, others) = self.told.drain(..).partition(|(w, _)| *w == who);
        self.told = others;
        let his: Vec<(Who, Reply)> = his;
        his.into_iter().map(|(_, reply)| reply).collect()
    }

    fn crash(&mut self, who: Who) {
        self.sockets.retain(|(w, _, _)| *w != who);
        self.told.retain(|(w, _)| *w != who);
        self.connected(|connections, means| connections.forget(means, |whose| whose == who));
        self.act(|kernel, now, out| kernel.close_all(now, owner(who), out));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let deadlines = [self.kernel.next_deadline(), self.connections.next_deadline()];
            let due = deadlines.into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = due;
            self.act(|kernel, now, out| kernel.timeout(now, out));
            let told = self.connected(|connections, means| connections.timeout(means));
            self.told.extend(told);
        }
        self.now = end;
    }
}
