//! What runs on machines and in pods: processes with sockets and alarms, as the image or the
//! machine's role says. They touch the world only as a process could: through their kernel.

mod approach;
mod by_hand;
mod container;
mod dhcp;
mod dhcp_server;
pub mod resolver;
pub mod software;
mod upstream;

pub use container::{Container, draw};
pub use dhcp::{DhcpClient, Dropped};
pub use dhcp_server::DhcpServer;
pub use upstream::Upstream;

use super::{Due, Owner, World};
use crate::kernel::{NsId, SocketEvent, SocketId};
use kubesim_runtime::{Rng, Stream};
use std::time::Duration;

/// A process's entry: small, so that a table of thousands stays near.
pub struct Entry {
    generation: u32,
    machine: u32,
    /// Out of its place while it runs.
    program: Option<Box<Program>>,
}

/// A process.
struct Program {
    seat: Seat,
    task: Task,
}

/// Where a process runs, and what it draws its dice from.
#[derive(Clone, Debug)]
pub struct Seat {
    pub slot: u32,
    pub generation: u32,
    pub machine: u32,
    pub ns: NsId,
    pub rng: Rng,
}

pub enum Task {
    Container(Container),
    DhcpServer(DhcpServer),
    DhcpClient(DhcpClient),
    Upstream(Upstream),
}

impl Seat {
    pub fn owner(&self) -> u64 {
        Owner::Program(self.slot).pack()
    }
}

impl World {
    /// Starts a process; its `start` opens its sockets.
    pub(super) fn spawn(&mut self, machine: u32, ns: NsId, task: Task) -> u32 {
        let generation = self.program_generation;
        self.program_generation += 1;
        let rng = Rng::new(Stream {
            seed: self.knobs.seed,
            label: "program",
            index: u64::from(machine) << 32 | u64::from(generation),
            incarnation: 0,
        });
        let entry = self.programs.vacant_entry();
        let slot = entry.key() as u32;
        let seat = Seat { slot, generation, machine, ns, rng };
        let program = Some(Box::new(Program { seat, task }));
        entry.insert(Entry { generation, machine, program });
        self.run_program(slot, |world, seat, task| match task {
            Task::Container(container) => container.start(world, seat),
            Task::DhcpServer(server) => server.start(world, seat),
            Task::DhcpClient(client) => client.start(world, seat),
            Task::Upstream(upstream) => upstream.start(world, seat),
        });
        slot
    }

    /// Lets a process act; nothing happens if it is gone.
    pub(super) fn run_program<R>(
        &mut self,
        slot: u32,
        act: impl FnOnce(&mut World, &mut Seat, &mut Task) -> R,
    ) -> Option<R> {
        let mut program = self.programs.get_mut(slot as usize)?.program.take()?;
        let Program { seat, task } = &mut *program;
        let result = act(self, seat, task);
        if let Some(entry) = self.programs.get_mut(slot as usize)
            && entry.generation == program.seat.generation
        {
            entry.program = Some(program);
        }
        Some(result)
    }

    /// Lets each of a machine's own processes act.
    pub(super) fn with_task(
        &mut self,
        machine: Option<u32>,
        mut act: impl FnMut(&mut World, &mut Seat, &mut Task),
    ) {
        let Some(machine) = machine else { return };
        for slot in self.machines[machine as usize].programs.clone() {
            self.run_program(slot, &mut act);
        }
    }

    /// Ends a process; its sockets close.
    pub(super) fn end_program(&mut self, slot: u32) {
        let Some(Entry { machine, .. }) = self.programs.try_remove(slot as usize) else { return };
        let owner = Owner::Program(slot).pack();
        if self.machines[machine as usize].on {
            self.kernel(machine, |k, now, out| k.close_all(now, owner, out));
        }
    }

    pub(super) fn program_socket(&mut self, slot: u32, socket: SocketId, event: SocketEvent) {
        self.run_program(slot, |world, seat, task| match task {
            Task::Container(container) => container.socket(world, seat, socket, event),
            Task::DhcpServer(server) => server.socket(world, seat, event),
            Task::DhcpClient(client) => client.socket(world, seat, event),
            Task::Upstream(upstream) => upstream.socket(world, seat, event),
        });
    }

    pub(super) fn program_alarm(&mut self, slot: u32, generation: u32, token: u32) {
        let entry = self.programs.get(slot as usize);
        let alive = entry.is_some_and(|entry| entry.generation == generation);
        if !alive {
            self.counts.events -= 1;
            return;
        }
        self.run_program(slot, |world, seat, task| match task {
            Task::Container(container) => container.alarm(world, seat, token),
            Task::DhcpServer(_) => {}
            Task::DhcpClient(client) => client.alarm(world, seat, token),
            Task::Upstream(upstream) => upstream.alarm(world, seat, token),
        });
    }

    /// Rings for a process with its own token.
    pub(super) fn program_alarm_in(&mut self, seat: &Seat, delay: Duration, token: u32) {
        let due = Due::Program { slot: seat.slot, generation: seat.generation, token };
        self.queue.push(self.now + delay, due);
    }

    pub(super) fn container_mut(&mut self, slot: u32) -> Option<&mut Container> {
        match &mut self.programs.get_mut(slot as usize)?.program.as_deref_mut()?.task {
            Task::Container(container) => Some(container),
            _ => None,
        }
    }
}
