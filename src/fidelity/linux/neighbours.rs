//! Neighbour tables and forwarding databases over rtnetlink, as `ip neigh` and `bridge fdb`.

use super::netlink::Netlink;
use crate::fidelity::lan::linux::Found;
use kubesim_actors::ports::network::{Errno, FdbEntry, Mac, Neighbour};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use std::net::Ipv4Addr;

impl Netlink {
    pub fn neighbours(&mut self) -> Result<Vec<Found>, Errno> {
        self.dump_neighbours(AddressFamily::Inet)
    }

    /// Those of all bridges; `PERMANENT` are the MAC addresses of their own.
    pub fn bridge_entries(&mut self) -> Result<Vec<Found>, Errno> {
        self.dump_neighbours(AddressFamily::Bridge)
    }

    fn dump_neighbours(&mut self, family: AddressFamily) -> Result<Vec<Found>, Errno> {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        let found = self.ask(Message::GetNeighbour(request), NLM_F_DUMP)?;
        Ok(found.iter().filter_map(entry).collect())
    }

    pub fn del_neighbour(&mut self, link: u32, ip: Ipv4Addr) -> Result<(), Errno> {
        let message = of_link(link, AddressFamily::Inet, ip);
        self.ask(Message::DelNeighbour(message), NLM_F_ACK).map(|_| ())
    }

    pub fn add_permanent(&mut self, link: u32, neighbour: Neighbour) -> Result<(), Errno> {
        let mut message = of_link(link, AddressFamily::Inet, neighbour.ip);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.to_vec()));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(Message::NewNeighbour(message), flags).map(|_| ())
    }

    /// `bridge fdb del … dev PORT master`
    pub fn del_bridge_entry(&mut self, port: u32, mac: Mac) -> Result<(), Errno> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port;
        message.header.flags = NeighbourFlags::Controller;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.ask(Message::DelNeighbour(message), NLM_F_ACK).map(|_| ())
    }

    /// `bridge fdb replace|del … dev TUNNEL dst … self permanent`
    pub fn tunnel_entry(&mut self, link: u32, entry: FdbEntry, add: bool) -> Result<(), Errno> {
        let mut message = of_link(link, AddressFamily::Bridge, entry.remote);
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
        let (message, flags) = match add {
            true => (Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE),
            false => (Message::DelNeighbour(message), 0),
        };
        self.ask(message, NLM_F_ACK | flags).map(|_| ())
    }

    /// 0: of none.
    pub fn set_master(&mut self, link: u32, master: u32) -> Result<(), Errno> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes.push(LinkAttribute::Controller(master));
        self.ask(Message::SetLink(message), NLM_F_ACK).map(|_| ())
    }
}

fn of_link(link: u32, family: AddressFamily, ip: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)));
    message
}

/// `None` of the loopback and of groups: nobody is asked there.
pub(super) fn state_word(state: NeighbourState) -> Option<&'static str> {
    Some(match state {
        NeighbourState::Incomplete => "INCOMPLETE",
        NeighbourState::Reachable => "REACHABLE",
        NeighbourState::Stale => "STALE",
        NeighbourState::Delay => "DELAY",
        NeighbourState::Probe => "PROBE",
        NeighbourState::Failed => "FAILED",
        NeighbourState::Permanent => "PERMANENT",
        _ => return None,
    })
}

fn entry(message: &Message) -> Option<Found> {
    let Message::NewNeighbour(message) = message else { return None };
    let state = state_word(message.header.state)?;
    let mut found = Found { dev: message.header.ifindex, ip: None, mac: None, state };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => found.ip = Some(*ip),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                found.mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac);
            }
            _ => {}
        }
    }
    Some(found)
}
