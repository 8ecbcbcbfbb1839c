//! Sockets of all namespaces of a machine: one slab, and one hash from what a packet says to the
//! socket it is for.

use super::index::{Index, hash_of};
use super::tcp::Connection;
use super::timers::{Alarm, TimerKey};
use super::{Core, Errno, NsId, Owner};
use kubesim_runtime::{Time, near};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// A socket; stale ids of sockets that are gone find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    index: u32,
    generation: u32,
}

/// What a packet says about its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Demux {
    Listener { ns: NsId, addr: Ipv4Addr, port: u16 },
    Connection { ns: NsId, local: SocketAddrV4, peer: SocketAddrV4 },
    Udp { ns: NsId, addr: Ipv4Addr, port: u16 },
    Ping { ns: NsId, id: u16 },
    Udp6 { ns: NsId, addr: Ipv6Addr, port: u16 },
}

impl Demux {
    pub fn namespace(&self) -> NsId {
        match *self {
            Demux::Listener { ns, .. }
            | Demux::Connection { ns, .. }
            | Demux::Udp { ns, .. }
            | Demux::Ping { ns, .. }
            | Demux::Udp6 { ns, .. } => ns,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub owner: Owner,
    pub demux: Demux,
    pub alarm: Alarm,
    /// Of a TCP connection only.
    pub connection: Option<Box<Connection>>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// By [`Demux`].
    index: Index,
}

impl Sockets {
    /// `EADDRINUSE` if another socket is for the same packets.
    pub fn open(
        &mut self,
        owner: Owner,
        demux: Demux,
        connection: Option<Box<Connection>>,
    ) -> Result<SocketId, Errno> {
        let hash = hash_of(&demux);
        if self.find(hash, &demux).is_some() {
            return Err(Errno::Eaddrinuse);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation += 1;
        slot.socket = Some(Socket { owner, demux, alarm: Alarm::default(), connection });
        self.index.insert(hash, index);
        Ok(SocketId { index, generation: slot.generation })
    }

    pub fn approach(&self, pass: usize) {
        if pass == 0 {
            if let Some(free) = self.free.last() {
                near::value(free);
            }
        } else {
            for index in self.free.iter().rev().take(2) {
                near::value(&self.slots[*index as usize]);
            }
        }
    }

    /// Its alarm comes up soon.
    pub fn approach_socket(&self, id: SocketId, pass: usize) {
        let Some(slot) = self.slots.get(id.index as usize) else { return };
        match (pass, &slot.socket) {
            (0, _) => {
                near::value(slot);
                near::value(&slot.socket);
            }
            (1, Some(socket)) => {
                self.index.approach(hash_of(&socket.demux));
                socket.connection.iter().for_each(|connection| connection.approach());
            }
            _ => {}
        }
    }

    pub fn close(&mut self, id: SocketId) -> Option<Socket> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let socket = slot.socket.take()?;
        self.index.remove(hash_of(&socket.demux), id.index);
        self.free.push(id.index);
        Some(socket)
    }

    pub fn is_free(&self, demux: &Demux) -> bool {
        self.find(hash_of(demux), demux).is_none()
    }
    fn find(&self, hash: u32, demux: &Demux) -> Option<u32> {
        self.index.find(hash, |at| {
            self.slots[at as usize].socket.as_ref().is_some_and(|held| held.demux == *demux)
        })
    }
    pub fn lookup(&self, demux: &Demux) -> Option<SocketId> {
        let index = self.find(hash_of(demux), demux)?;
        Some(SocketId { index, generation: self.slots[index as usize].generation })
    }
    pub fn get(&self, id: SocketId) -> Option<&Socket> {
        let slot = self.slots.get(id.index as usize)?;
        slot.socket.as_ref().filter(|_| slot.generation == id.generation)
    }
    pub fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.socket.as_mut().filter(|_| slot.generation == id.generation)
    }
    pub fn owner(&self, id: SocketId) -> Option<Owner> {
        self.get(id).map(|socket| socket.owner)
    }
    pub fn namespace(&self, id: SocketId) -> Option<NsId> {
        self.get(id).map(|socket| socket.demux.namespace())
    }
    pub fn alarm(&mut self, id: SocketId) -> Option<&mut Alarm> {
        self.get_mut(id).map(|socket| &mut socket.alarm)
    }
    pub fn connection(&mut self, id: SocketId) -> Option<&mut Connection> {
        self.get_mut(id)?.connection.as_deref_mut()
    }

    /// Every socket, in order of its place.
    pub fn iter(&self) -> impl Iterator<Item = (SocketId, &Socket)> {
        self.slots.iter().zip(0..).filter_map(|(slot, index)| {
            let id = SocketId { index, generation: slot.generation };
            slot.socket.as_ref().map(|socket| (id, socket))
        })
    }

    pub fn remove_namespace(&mut self, ns: NsId) {
        let gone: Vec<SocketId> = self
            .iter()
            .filter(|(_, socket)| socket.demux.namespace() == ns)
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            self.close(id);
        }
    }
}

impl Core {
    pub(super) fn set_alarm(&mut self, id: SocketId, at: Time) {
        if let Some(socket) = self.sockets.get_mut(id) {
            self.timers.set(&mut socket.alarm, at, TimerKey::Socket(id));
        }
    }

    /// The socket of an echo id, kept until `until`.
    pub(super) fn open_ping(&mut self, ns: NsId, id: u16, owner: Owner, until: Time) {
        let demux = Demux::Ping { ns, id };
        let socket = match self.sockets.lookup(&demux) {
            Some(socket) => {
                if let Some(socket) = self.sockets.get_mut(socket) {
                    socket.owner = owner;
                }
                socket
            }
            None => match self.sockets.open(owner, demux, None) {
                Ok(socket) => socket,
                Err(_) => return,
            },
        };
        self.set_alarm(socket, until);
    }

    /// A free local port: 32768-60999 (`ip_local_port_range`), from a random start.
    pub(super) fn ephemeral(&mut self, demux: impl Fn(u16) -> Demux) -> Result<u16, Errno> {
        const FIRST: u64 = 32_768;
        const PORTS: u64 = 60_999 - FIRST + 1;
        let start = self.rng.below(PORTS);
        (0..PORTS)
            .map(|step| (FIRST + (start + step) % PORTS) as u16)
            .find(|port| self.sockets.is_free(&demux(*port)))
            .ok_or(Errno::Eaddrinuse)
    }
}
