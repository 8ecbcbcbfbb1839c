//! DNS over TCP of actors: the machine's [`Connections`] between the packets port and its kernel.

use super::{Cell, Due, Life, Owner, World};
use crate::kernel::{NsId, SocketEvent, SocketId};
use crate::models::connections::{Connections, Means};
use kubesim_actors::dns::message::Message;
use kubesim_actors::ports::packets::{Connection, Reply};
use kubesim_runtime::{Ticket, Time};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// Who is told, and under which ticket if he has one answer to get. A life is spoken to by its
/// cell: one that is over hears nothing.
pub(super) type Whose = (Life, Option<Ticket>);

impl World {
    pub(super) fn listen(&mut self, machine: u32, life: Life, address: Ipv4Addr, port: u16) {
        self.have_address(machine, address);
        let owner = Owner::Actor(life.cell).pack();
        match self.kernel(machine, |k, _, _| k.tcp_listen(NsId::HOST, address, port, owner)) {
            Ok(socket) => {
                self.machines[machine as usize].connections.listen((life, None), socket);
            }
            Err(why) => self.tell_packets(life, None, Reply::ListenFailed { port, why }),
        }
    }

    pub(super) fn respond(&mut self, machine: u32, connection: Connection, message: Arc<Message>) {
        self.with_connections(machine, |connections, means| {
            connections.respond(means, connection, message);
        });
    }

    pub(super) fn ask_over_tcp(
        &mut self,
        machine: u32,
        whose: (Life, Ticket),
        to: SocketAddrV4,
        message: Arc<Message>,
    ) {
        let (life, ticket) = whose;
        self.query_forwarded(life.cell, *to.ip());
        let owner = Owner::Actor(life.cell).pack();
        let told = self.with_connections(machine, |connections, means| {
            connections.ask(means, owner, (life, Some(ticket)), to, message)
        });
        if let Some(reply) = told {
            self.tell_packets(life, Some(ticket), reply);
        }
    }

    pub(super) fn connection_event(&mut self, machine: u32, socket: SocketId, event: SocketEvent) {
        let told = self.with_connections(machine, |connections, means| {
            connections.event(means, socket, event)
        });
        if let Some(((life, ticket), reply)) = told {
            self.tell_packets(life, ticket, reply);
        }
    }

    /// Closes what an actor's process had open.
    pub(super) fn connections_forget(&mut self, machine: u32, cell: Cell) {
        if self.machines[machine as usize].connections.is_empty() {
            return;
        }
        self.with_connections(machine, |connections, means| {
            connections.forget(means, |(life, _)| life.cell == cell);
        });
    }

    /// The alarm of a machine's connections, unless an earlier one was set meanwhile.
    pub(super) fn connections_due(&mut self, machine: u32) {
        let host = &mut self.machines[machine as usize];
        if !host.on || host.connections_due != self.now {
            self.counts.events -= 1;
            return;
        }
        host.connections_due = Time::NEVER;
        let told = self.with_connections(machine, |connections, means| connections.timeout(means));
        for ((life, ticket), reply) in told {
            self.tell_packets(life, ticket, reply);
        }
    }

    fn with_connections<R>(
        &mut self,
        machine: u32,
        act: impl FnOnce(&mut Connections<Whose>, &mut Means<'_>) -> R,
    ) -> R {
        let mut connections = std::mem::take(&mut self.machines[machine as usize].connections);
        let result = self.kernel(machine, |kernel, now, out| {
            act(&mut connections, &mut Means { kernel, now, out })
        });
        let due = connections.next_deadline();
        let host = &mut self.machines[machine as usize];
        host.connections = connections;
        if let Some(at) = due.filter(|at| *at < host.connections_due) {
            host.connections_due = at;
            self.queue.push(at, Due::Connections { machine });
        }
        result
    }
}
