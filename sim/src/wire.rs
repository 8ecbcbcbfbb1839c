//! The wire: what lies between machines. A petgraph topology of switches and network cards joined
//! by cables; everything that routes is a machine with a kernel of its own.
//!
//! A frame's latency is that of its path, which is cached; faults are properties of single cables
//! and a sparse list of cuts. Bandwidth and the switches' own FDB ageing are not modelled: a
//! switch always knows where a MAC address is plugged in.

mod cuts;

pub use cuts::{Cut, Side};

use crate::kernel::family::Family;
use crate::kernel::packet::{Frame, Packet, Payload};
use kubesim_actors::ports::network::Mac;
use kubesim_runtime::{Rng, Stream, Time};
use petgraph::graph::{EdgeIndex, NodeIndex, UnGraph};
use petgraph::visit::EdgeRef;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

/// A network card's place on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

/// A switch: a broadcast domain together with the switches it is cabled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwitchId(NodeIndex);

#[derive(Clone, Debug)]
enum Device {
    Switch,
    Card,
}

/// How a cable treats frames. Probabilities are per frame and direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    pub latency: Duration,
    pub loss: f64,
    pub duplicate: f64,
    /// Frames that are held back by up to `reorder_by`.
    pub reorder: f64,
    pub reorder_by: Duration,
}

impl Quality {
    pub fn perfect(latency: Duration) -> Self {
        Quality { latency, loss: 0.0, duplicate: 0.0, reorder: 0.0, reorder_by: Duration::ZERO }
    }
    fn draws(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder > 0.0
    }
}

#[derive(Clone, Debug)]
struct Cable {
    quality: Quality,
    up: bool,
    rng: Rng,
}

#[derive(Clone, Debug)]
struct Port {
    machine: u32,
    link: u32,
    card: NodeIndex,
    cable: Option<(NodeIndex, EdgeIndex)>,
}

/// Where a frame arrives and when.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub at: Time,
    pub to: SmallVec<[PortId; 2]>,
    pub frame: Frame,
}

#[derive(Clone, Debug)]
pub struct Wire {
    graph: UnGraph<Device, Cable>,
    ports: Vec<Port>,
    by_mac: FxHashMap<Mac, PortId>,
    /// Cards plugged into each switch, in port order.
    plugged: BTreeMap<NodeIndex, BTreeSet<PortId>>,
    cuts: Vec<Cut>,
    /// Shortest cable paths from one switch to all it reaches, until the topology changes.
    paths: FxHashMap<NodeIndex, BTreeMap<NodeIndex, Path>>,
    /// Counts everything that was lost on the way.
    pub lost: u64,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Path {
    latency: Duration,
    cables: Vec<EdgeIndex>,
    /// Some cable on it draws dice.
    draws: bool,
}

impl Wire {
    pub fn new(seed: u64) -> Self {
        Wire {
            graph: UnGraph::default(),
            ports: Vec::new(),
            by_mac: FxHashMap::default(),
            plugged: BTreeMap::new(),
            cuts: Vec::new(),
            paths: FxHashMap::default(),
            lost: 0,
            seed,
        }
    }

    pub fn add_switch(&mut self) -> SwitchId {
        let node = self.graph.add_node(Device::Switch);
        self.plugged.insert(node, BTreeSet::new());
        SwitchId(node)
    }

    /// Cables two switches together.
    pub fn join(&mut self, a: SwitchId, b: SwitchId, quality: Quality) {
        self.cable(a.0, b.0, quality);
        self.paths.clear();
    }

    pub fn add_port(&mut self, machine: u32, link: u32, mac: Mac) -> PortId {
        let id = PortId(self.ports.len() as u32);
        let card = self.graph.add_node(Device::Card);
        self.ports.push(Port { machine, link, card, cable: None });
        self.by_mac.insert(mac, id);
        id
    }

    /// Plugs a card into a switch, out of the one it was in before.
    pub fn plug(&mut self, port: PortId, switch: SwitchId, quality: Quality) {
        self.unplug(port);
        let card = self.ports[port.0 as usize].card;
        let cable = self.cable(card, switch.0, quality);
        self.ports[port.0 as usize].cable = Some((switch.0, cable));
        self.plugged.entry(switch.0).or_default().insert(port);
    }

    pub fn unplug(&mut self, port: PortId) {
        if let Some((switch, cable)) = self.ports[port.0 as usize].cable.take() {
            // Edges keep their numbers: the old cable stays in the graph, dead.
            self.graph[cable].up = false;
            if let Some(plugged) = self.plugged.get_mut(&switch) {
                plugged.remove(&port);
            }
        }
    }

    pub fn switch_of(&self, port: PortId) -> Option<SwitchId> {
        self.ports[port.0 as usize].cable.map(|(switch, _)| SwitchId(switch))
    }
    /// The machine and its link behind a port.
    pub fn machine_of(&self, port: PortId) -> (u32, u32) {
        let port = &self.ports[port.0 as usize];
        (port.machine, port.link)
    }

    /// The kernel behind a card was made anew and gave its link another index.
    pub fn rename_link(&mut self, port: PortId, link: u32) {
        self.ports[port.0 as usize].link = link;
    }

    /// The quality of a card's cable; `None` while unplugged.
    pub fn quality(&self, port: PortId) -> Option<Quality> {
        let (_, cable) = self.ports[port.0 as usize].cable?;
        Some(self.graph[cable].quality)
    }
    pub fn set_quality(&mut self, port: PortId, quality: Quality) {
        if let Some((_, cable)) = self.ports[port.0 as usize].cable {
            self.graph[cable].quality = quality;
        }
    }

    /// Cuts or mends a card's cable.
    pub fn set_up(&mut self, port: PortId, up: bool) {
        if let Some((_, cable)) = self.ports[port.0 as usize].cable {
            self.graph[cable].up = up;
        }
    }

    /// Cuts or mends every cable between a switch and other switches.
    pub fn set_uplinks(&mut self, switch: SwitchId, up: bool) {
        let edges: Vec<_> = self.graph.edges(switch.0).map(|e| (e.id(), e.target())).collect();
        for (edge, far) in edges {
            if matches!(self.graph[far], Device::Switch) {
                self.graph[edge].up = up;
            }
        }
        self.paths.clear();
    }

    /// Sends a frame out of a port; adds where and when it arrives.
    pub fn transmit(&mut self, now: Time, from: PortId, frame: Frame, out: &mut Vec<Delivery>) {
        let Some((switch, first)) = self.ports[from.0 as usize].cable else {
            self.lost += 1;
            return;
        };
        if frame.dst == Mac::BROADCAST {
            self.flood(now, from, switch, first, frame, out);
            return;
        }
        let Some(&to) = self.by_mac.get(&frame.dst) else {
            self.lost += 1;
            return;
        };
        let arrivals = self.arrivals(now, from, (switch, first), to);
        if arrivals.is_empty() {
            self.lost += 1;
        }
        let Some((&last, others)) = arrivals.split_last() else { return };
        for &at in others {
            out.push(Delivery { at, to: smallvec![to], frame: frame.clone() });
        }
        out.push(Delivery { at: last, to: smallvec![to], frame });
    }

    fn flood(
        &mut self,
        now: Time,
        from: PortId,
        switch: NodeIndex,
        first: EdgeIndex,
        frame: Frame,
        out: &mut Vec<Delivery>,
    ) {
        let reached: Vec<NodeIndex> = self.paths_from(switch).keys().copied().collect();
        let mut groups: BTreeMap<Time, SmallVec<[PortId; 2]>> = BTreeMap::new();
        for far in reached {
            let ports: Vec<PortId> =
                self.plugged.get(&far).into_iter().flatten().copied().collect();
            let Some(latency) = self.paths_from(switch).get(&far).map(|path| path.latency) else {
                continue;
            };
            // Most ports of a switch have cables alike.
            let mut group = (Time::NEVER, SmallVec::<[PortId; 2]>::new());
            for to in ports.into_iter().filter(|to| *to != from) {
                let Some(at) = self.copies(now + latency, from, first, to) else { continue };
                if at != group.0 {
                    let (at, ports) = std::mem::replace(&mut group, (at, SmallVec::new()));
                    groups.entry(at).or_default().extend(ports);
                }
                group.1.push(to);
            }
            groups.entry(group.0).or_default().extend(group.1);
        }
        groups.remove(&Time::NEVER);
        for (at, to) in groups {
            out.push(Delivery { at, to, frame: frame.clone() });
        }
    }

    /// When a broadcast that is at the port's switch at `now`, but for the first cable's latency,
    /// arrives at the port. Its copies keep step: loss is drawn for each port, and
    /// nothing is held back, so that the copies of one switch are one event.
    fn copies(&mut self, now: Time, from: PortId, first: EdgeIndex, to: PortId) -> Option<Time> {
        let (_, last) = self.ports[to.0 as usize].cable?;
        if !self.cuts.is_empty() && self.is_cut(from, to) {
            return None;
        }
        let near = &self.graph[first];
        let (up, near_latency) = (near.up, near.quality.latency);
        let cable = &mut self.graph[last];
        let lost = cable.rng.chance(cable.quality.loss);
        (up && cable.up && !lost).then(|| now + near_latency + cable.quality.latency)
    }

    /// When a frame arrives at a port: never (lost), once, or twice.
    fn arrivals(
        &mut self,
        now: Time,
        from: PortId,
        (switch, first): (NodeIndex, EdgeIndex),
        to: PortId,
    ) -> SmallVec<[Time; 2]> {
        let mut arrivals = SmallVec::new();
        let Some((far, last)) = self.ports[to.0 as usize].cable else {
            return arrivals;
        };
        if !self.cuts.is_empty() && self.is_cut(from, to) {
            return arrivals;
        }
        let Some((latency, draws)) =
            self.paths_from(switch).get(&far).map(|path| (path.latency, path.draws))
        else {
            return arrivals;
        };
        let (a, b) = (&self.graph[first], &self.graph[last]);
        if !(a.up && b.up) {
            return arrivals;
        }
        let at = now + latency + a.quality.latency + b.quality.latency;
        if !(draws || a.quality.draws() || b.quality.draws()) {
            arrivals.push(at);
            return arrivals;
        }
        let mut cables = vec![first];
        if let Some(path) = self.paths_from(switch).get(&far) {
            cables.extend_from_slice(&path.cables);
        }
        cables.push(last);
        self.draw(at, &cables, &mut arrivals);
        arrivals
    }

    /// Throws each cable's dice.
    fn draw(&mut self, at: Time, cables: &[EdgeIndex], arrivals: &mut SmallVec<[Time; 2]>) {
        let (mut held_back, mut copies) = (Duration::ZERO, 1);
        for &cable in cables {
            let cable = &mut self.graph[cable];
            let quality = cable.quality;
            if cable.rng.chance(quality.loss) {
                return;
            }
            if cable.rng.chance(quality.duplicate) {
                copies = 2;
            }
            if cable.rng.chance(quality.reorder) {
                held_back += cable.rng.between(Duration::ZERO, quality.reorder_by);
            }
        }
        for _ in 0..copies {
            arrivals.push(at + held_back);
        }
    }

    fn cable(&mut self, a: NodeIndex, b: NodeIndex, quality: Quality) -> EdgeIndex {
        let index = self.graph.edge_count() as u64;
        let rng = Rng::new(Stream { seed: self.seed, label: "cable", index, incarnation: 0 });
        self.graph.add_edge(a, b, Cable { quality, up: true, rng })
    }

    /// Dijkstra over the switches that live cables join.
    fn paths_from(&mut self, start: NodeIndex) -> &BTreeMap<NodeIndex, Path> {
        let graph = &self.graph;
        self.paths.entry(start).or_insert_with(|| {
            let mut found = BTreeMap::new();
            let mut heap = BinaryHeap::from([Reverse((Duration::ZERO, start, Vec::new()))]);
            while let Some(Reverse((latency, node, cables))) = heap.pop() {
                if found.contains_key(&node) {
                    continue;
                }
                for edge in graph.edges(node) {
                    let far = edge.target();
                    if edge.weight().up && matches!(graph[far], Device::Switch) {
                        let mut cables: Vec<EdgeIndex> = cables.clone();
                        cables.push(edge.id());
                        heap.push(Reverse((latency + edge.weight().quality.latency, far, cables)));
                    }
                }
                let draws = cables.iter().any(|&cable| graph[cable].quality.draws());
                found.insert(node, Path { latency, cables, draws });
            }
            found
        })
    }
}

/// What a frame is, in a word or two, for traces.
pub fn describe(frame: &Frame) -> String {
    match &frame.payload {
        Payload::Arp(arp) if arp.request => format!("ARP who has {}", arp.target_ip),
        Payload::Arp(arp) => format!("ARP {} is at {}", arp.sender_ip, arp.sender_mac),
        Payload::Ip(packet) => {
            let (sport, dport) = packet.ports();
            let (src, dst) = ((packet.src, sport), (packet.dst, dport));
            describe_packet(packet, src.into(), dst.into())
        }
        Payload::Ip6(packet) => {
            let (sport, dport) = packet.ports();
            let (src, dst) = ((packet.src, sport), (packet.dst, dport));
            describe_packet(packet, src.into(), dst.into())
        }
    }
}

fn describe_packet<F: Family>(packet: &Packet<F>, src: SocketAddr, dst: SocketAddr) -> String {
    let protocol = format!("{:?}", packet.protocol()).to_lowercase();
    format!("{protocol} {src} > {dst} {} bytes", packet.len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::packet::Arp;
    use std::net::Ipv4Addr;

    fn frame(to: Mac) -> Frame {
        let arp = Arp {
            request: true,
            sender_mac: Mac([2, 0, 0, 0, 0, 1]),
            sender_ip: Ipv4Addr::LOCALHOST,
            target_mac: Mac::default(),
            target_ip: Ipv4Addr::LOCALHOST,
        };
        Frame { src: arp.sender_mac, dst: to, payload: Payload::Arp(arp) }
    }

    fn three_cards() -> (Wire, [PortId; 3], [SwitchId; 2]) {
        let mut wire = Wire::new(1);
        let (a, b) = (wire.add_switch(), wire.add_switch());
        wire.join(a, b, Quality::perfect(Duration::from_micros(10)));
        let ports = [0u8, 1, 2].map(|i| wire.add_port(u32::from(i), 2, Mac([2, 0, 0, 0, 0, i])));
        for (port, switch) in ports.into_iter().zip([a, a, b]) {
            wire.plug(port, switch, Quality::perfect(Duration::from_micros(1)));
        }
        (wire, ports, [a, b])
    }

    #[test]
    fn latency_is_the_sum_of_the_cables() {
        let (mut wire, ports, _) = three_cards();
        let mut out = Vec::new();
        wire.transmit(Time::ZERO, ports[0], frame(Mac([2, 0, 0, 0, 0, 2])), &mut out);
        assert_eq!(out[0].at, Time::from_micros(12));
        assert_eq!(out[0].to[..], [ports[2]]);
    }

    #[test]
    fn a_broadcast_reaches_every_other_card_of_the_segment() {
        let (mut wire, ports, _) = three_cards();
        let mut out = Vec::new();
        wire.transmit(Time::ZERO, ports[0], frame(Mac::BROADCAST), &mut out);
        let reached: Vec<(Time, SmallVec<[PortId; 2]>)> =
            out.iter().map(|d| (d.at, d.to.clone())).collect();
        let expected = [
            (Time::from_micros(2), smallvec![ports[1]]),
            (Time::from_micros(12), smallvec![ports[2]]),
        ];
        assert_eq!(reached, expected);
    }

    #[test]
    fn a_cut_may_be_one_way_and_a_lost_rack_hears_nothing() {
        let (mut wire, ports, [_, b]) = three_cards();
        let side = |card: PortId| Side { cards: [card].into(), ..Side::default() };
        let (from, to) = (side(ports[0]), side(ports[1]));
        let cut = Cut { fault: 0, from, to, both_ways: false };
        wire.cut(cut);
        let mut out = Vec::new();
        wire.transmit(Time::ZERO, ports[0], frame(Mac([2, 0, 0, 0, 0, 1])), &mut out);
        assert!(out.is_empty());
        wire.transmit(Time::ZERO, ports[1], frame(Mac([2, 0, 0, 0, 0, 0])), &mut out);
        assert_eq!(out.len(), 1);
        wire.set_uplinks(b, false);
        wire.transmit(Time::ZERO, ports[1], frame(Mac([2, 0, 0, 0, 0, 2])), &mut out);
        assert_eq!((out.len(), wire.lost), (1, 2));
    }

    #[test]
    fn loss_is_drawn_per_cable_and_its_share_is_right() {
        let (mut wire, ports, _) = three_cards();
        let lossy = Quality { loss: 0.25, ..Quality::perfect(Duration::from_micros(1)) };
        wire.set_quality(ports[1], lossy);
        let mut out = Vec::new();
        for _ in 0..4_000 {
            wire.transmit(Time::ZERO, ports[0], frame(Mac([2, 0, 0, 0, 0, 1])), &mut out);
        }
        assert!((2_850..3_150).contains(&out.len()), "{}", out.len());
    }
}
