//! Whose a socket is, and who hears what happens to it.

use super::api::Client;
use super::{Cell, Kind, World};
use crate::kernel::{SocketEvent, SocketId};

/// Who a socket belongs to, packed into the kernel's opaque owner tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    ApiClient,
    ApiFront,
    KubeletProbe(u32),
    /// A socket of an actor.
    Actor(Cell),
    Program(u32),
    Probe(u32),
}

impl Owner {
    pub(crate) fn pack(self) -> u64 {
        match self {
            Owner::ApiClient => 1 << 56,
            Owner::ApiFront => 2 << 56,
            Owner::KubeletProbe(slot) => 3 << 56 | u64::from(slot),
            Owner::Actor(cell) => 4 << 56 | (cell.kind as u64) << 32 | u64::from(cell.index),
            Owner::Program(slot) => 5 << 56 | u64::from(slot),
            Owner::Probe(slot) => 6 << 56 | u64::from(slot),
        }
    }
    fn unpack(packed: u64) -> Option<Owner> {
        let low = packed as u32;
        Some(match packed >> 56 {
            1 => Owner::ApiClient,
            2 => Owner::ApiFront,
            3 => Owner::KubeletProbe(low),
            4 => {
                let kind = match (packed >> 32) as u8 {
                    k if k == Kind::Netd as u8 => Kind::Netd,
                    k if k == Kind::Flannel as u8 => Kind::Flannel,
                    k if k == Kind::Dns as u8 => Kind::Dns,
                    k if k == Kind::KubeDns as u8 => Kind::KubeDns,
                    _ => return None,
                };
                Owner::Actor(Cell { kind, index: low })
            }
            5 => Owner::Program(low),
            6 => Owner::Probe(low),
            _ => return None,
        })
    }
}

impl World {
    pub(super) fn socket_event(
        &mut self,
        machine: u32,
        owner: u64,
        socket: SocketId,
        event: SocketEvent,
    ) {
        match Owner::unpack(owner) {
            Some(Owner::ApiClient) => self.client_socket(machine, socket, event),
            Some(Owner::ApiFront) => self.front_socket(machine, socket, event),
            Some(Owner::KubeletProbe(slot)) => self.kubelet_probe_socket(slot, socket, event),
            Some(Owner::Actor(cell)) => self.actor_socket(machine, cell, socket, event),
            Some(Owner::Program(slot)) => self.program_socket(slot, socket, event),
            Some(Owner::Probe(slot)) => self.probe_socket(slot, socket, event),
            None => {}
        }
    }

    /// The API client of a machine, if it is a node.
    pub(super) fn client(&mut self, machine: u32) -> Option<&mut Client> {
        self.machines[machine as usize].client.as_mut()
    }
}
