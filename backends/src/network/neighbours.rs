//! Permanent neighbours of links and forwarding databases of vxlan devices.
//!
//! Both tables are read once per device and then followed through the kernel's news, so that one
//! node more among thousands costs one message. The queue of news is looked at only when a table
//! is set, and what changes on other links never gets into it.

use super::errno;
use super::message::{Fdb, Message, Neighbour};
use super::monitor::{Group, Monitor};
use super::socket::{Change, RECEIVE_BUFFER, Socket};
use kubesim_actors::ports::network::{Errno, FdbEntry, Mac, Neighbour as Wanted};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

type Macs = BTreeMap<Ipv4Addr, Mac>;
type Remotes = BTreeSet<(Mac, Ipv4Addr)>;

#[derive(Debug, Default)]
pub struct Tables {
    monitor: Option<Monitor>,
    /// By link.
    neighbours: BTreeMap<u32, Macs>,
    fdb: BTreeMap<u32, Remotes>,
}

impl Tables {
    /// A link is gone; its number will never be another's.
    pub fn forget(&mut self, link: u32) {
        self.neighbours.remove(&link);
        self.fdb.remove(&link);
    }

    pub fn set_neighbours(
        &mut self,
        socket: &mut Socket,
        link: u32,
        entries: &[Wanted],
    ) -> Result<(), Errno> {
        self.refresh()?;
        if !self.neighbours.contains_key(&link) {
            self.listen_to(link)?;
            let found = socket.dump(&request(AddressFamily::Inet, link))?;
            let all = found.into_iter().filter_map(|message| match message {
                Message::Neighbour(Neighbour { link: of, ip, mac }) if of == link => {
                    Some((ip, mac?))
                }
                _ => None,
            });
            self.neighbours.insert(link, all.collect());
        }
        let wanted: Macs = entries.iter().map(|entry| (entry.ip, entry.mac)).collect();
        let Some(known) = self.neighbours.get(&link) else { return Ok(()) };
        let gone = known.keys().filter(|ip| !wanted.contains_key(ip));
        let gone =
            gone.map(|ip| (RouteNetlinkMessage::DelNeighbour(neighbour(link, *ip, None)), 0));
        let new = wanted.iter().filter(|(ip, mac)| known.get(ip) != Some(mac)).map(|(ip, mac)| {
            let message = neighbour(link, *ip, Some(*mac));
            (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
        });
        let changes: Vec<Change> = gone.chain(new).collect();
        self.carry_out(socket, changes)
    }

    pub fn set_fdb(
        &mut self,
        socket: &mut Socket,
        link: u32,
        entries: &[FdbEntry],
    ) -> Result<(), Errno> {
        self.refresh()?;
        if !self.fdb.contains_key(&link) {
            self.listen_to(link)?;
            let found = socket.dump(&request(AddressFamily::Bridge, link))?;
            let all = found.into_iter().filter_map(|message| match message {
                Message::Fdb { entry: Fdb { link: of, mac, remote }, .. } if of == link => {
                    Some((mac, remote))
                }
                _ => None,
            });
            self.fdb.insert(link, all.collect());
        }
        let wanted: Remotes = entries.iter().map(|entry| (entry.mac, entry.remote)).collect();
        let Some(known) = self.fdb.get(&link) else { return Ok(()) };
        let changes = fdb_changes(link, known, &wanted);
        self.carry_out(socket, changes)
    }

    /// Does it all, and says what was refused first.
    fn carry_out(&mut self, socket: &mut Socket, changes: Vec<Change>) -> Result<(), Errno> {
        if changes.is_empty() {
            return Ok(());
        }
        let refused = socket.batch(changes);
        self.refresh()?;
        refused?.first().map_or(Ok(()), |(_, errno)| Err(*errno))
    }

    /// Takes in what changed since, our own changes as well: so what is known is what the kernel
    /// did, in its order.
    fn refresh(&mut self) -> Result<(), Errno> {
        let monitor = match &mut self.monitor {
            Some(monitor) => monitor,
            none => {
                let opened = Monitor::open(&[Group::Neighbour], RECEIVE_BUFFER);
                none.insert(opened.map_err(|error| errno::from_io(&error))?)
            }
        };
        let (neighbours, fdb) = (&mut self.neighbours, &mut self.fdb);
        let complete = monitor.drain(|news, _| match news {
            Message::Neighbour(Neighbour { link, ip, mac }) => {
                let Some(table) = neighbours.get_mut(&link) else { return };
                match mac {
                    Some(mac) => table.insert(ip, mac),
                    None => table.remove(&ip),
                };
            }
            Message::Fdb { entry: Fdb { link, mac, remote }, gone } => {
                let Some(table) = fdb.get_mut(&link) else { return };
                if gone {
                    table.remove(&(mac, remote));
                    return;
                }
                // A frame to one station goes to one remote: the new one took the old one's place.
                if !is_group(mac) {
                    table.retain(|(other, _)| *other != mac);
                }
                table.insert((mac, remote));
            }
            _ => {}
        });
        if !complete {
            self.neighbours.clear();
            self.fdb.clear();
        }
        Ok(())
    }

    fn listen_to(&mut self, link: u32) -> Result<(), Errno> {
        let mut links: Vec<u32> = self.neighbours.keys().chain(self.fdb.keys()).copied().collect();
        links.push(link);
        links.sort_unstable();
        links.dedup();
        let attached = self.monitor.as_ref().map_or(Ok(()), |monitor| monitor.only_links(&links));
        attached.map_err(|error| errno::from_io(&error))
    }
}

/// Multicast, or all zeros: the default destination (drivers/net/vxlan/vxlan_core.c).
fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 == 1 || mac == Mac::default()
}

fn fdb_changes(link: u32, known: &Remotes, wanted: &Remotes) -> Vec<Change> {
    let macs: BTreeSet<Mac> = wanted.iter().map(|(mac, _)| *mac).collect();
    let gone = known.difference(wanted).filter(|(mac, _)| is_group(*mac) || !macs.contains(mac));
    let gone = gone.map(|entry| (RouteNetlinkMessage::DelNeighbour(fdb(link, *entry)), 0));
    let new = wanted.difference(known).map(|entry| {
        let how = if is_group(entry.0) { NLM_F_APPEND } else { NLM_F_REPLACE };
        (RouteNetlinkMessage::NewNeighbour(fdb(link, *entry)), NLM_F_CREATE | how)
    });
    gone.chain(new).collect()
}

/// All of a link's. In a request for neighbours the header's index must be 0 and an attribute has
/// it (neigh_valid_dump_req); in one for FDB entries the header has it (valid_fdb_dump_strict).
pub(super) fn request(family: AddressFamily, link: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    if family == AddressFamily::Bridge {
        message.header.ifindex = link;
    } else {
        message.attributes.push(NeighbourAttribute::IfIndex(link));
    }
    RouteNetlinkMessage::GetNeighbour(message)
}

fn neighbour(link: u32, ip: Ipv4Addr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    let ip = NeighbourAttribute::Destination(NeighbourAddress::Inet(ip));
    let mac = mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend([Some(ip), mac].into_iter().flatten());
    message
}

/// `NTF_SELF`: the device's own database, not that of a bridge it is a port of.
fn fdb(link: u32, (mac, remote): (Mac, Ipv4Addr)) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(remote)));
    message
}
