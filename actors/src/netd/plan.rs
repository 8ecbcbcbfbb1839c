//! The plan: from everybody's subnets to routes, neighbours and FDB entries. Pure.
//!
//! A plan does not depend on who asks but only on the network they are on, so all machines on one
//! network share one plan a version. A machine's own entry is in it: its route is taken out by
//! `RouteSet::except`, and a neighbour or FDB entry that leads to oneself is never looked up,
//! since nothing is routed there.

use super::conf::Backend;
use super::wireguard;
use crate::objects::{Name, Object, View};
use crate::ports::network::{FdbEntry, IfName, Mac, Neighbour, PublicKey, Route, WireguardPeer};
use ipnet::Ipv4Net;
use kubesim_runtime::Hasher;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// A node as the pod network sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    pub node: Name,
    pub subnet: Ipv4Net,
    /// Seconds since the epoch at which its lease was made: of two leases of one network the
    /// later one counts, since IPAM gives nothing away that it still counts as given.
    pub created: i64,
    /// As its lease has it.
    pub public_key: Name,
    pub place: Place,
}

/// Where a node is, as of its `generation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    pub locator: Option<Ipv4Addr>,
    pub prefix_length: u8,
    pub generation: u64,
    pub vtep_mac: Option<Mac>,
}

impl Place {
    /// The network the locator is in.
    pub fn network(&self) -> Option<Ipv4Net> {
        Ipv4Net::new(self.locator?, self.prefix_length).ok().map(|net| net.trunc())
    }
}

impl Peer {
    /// `None` if the object is no usable Subnet.
    pub fn of(object: &Object) -> Option<Peer> {
        let (spec, status) = object.subnet()?;
        let created = object.meta.creation_timestamp.as_ref();
        Some(Peer {
            node: object.key.name.clone(),
            subnet: spec.cidr.parse::<Ipv4Net>().ok()?.trunc(),
            created: created.map_or(0, |time| time.0.as_second()),
            public_key: Name::from(&spec.public_key),
            place: Place {
                locator: status.locator,
                prefix_length: status.prefix_length,
                generation: status.generation,
                vtep_mac: Mac::parse(&status.vtep_mac),
            },
        })
    }
}

/// Key of the parsed peers in a view's memo; plans have hashes for keys.
const PEERS: u64 = 1;

/// Everybody's subnets, parsed once per version however many machines look.
pub fn peers_of(view: &View) -> Arc<Vec<Peer>> {
    view.memo(PEERS, || view.values().filter_map(|object| Peer::of(object)).collect())
}

/// What a plan depends on beside the peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Params {
    pub backend: Backend,
    /// The network my uplink is connected to.
    pub onlink: Ipv4Net,
    pub uplink: IfName,
    /// The vxlan or WireGuard device.
    pub overlay: IfName,
}

/// What peers said of themselves that the API does not show yet, by node.
pub type Told = BTreeMap<Name, Place>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Sorted by destination, each once.
    pub routes: Arc<[Route]>,
    pub neighbours: Arc<[Neighbour]>,
    pub fdb: Arc<[FdbEntry]>,
    /// By subnet; each key once, my own included.
    pub wireguard: Arc<[WireguardPeer]>,
    pub left_out: Vec<LeftOut>,
    /// Of all of the above tables: two plans with one hash set the same things.
    pub hash: u64,
}

impl Plan {
    /// Whether some peer can only be reached through the vxlan or WireGuard.
    pub fn needs_overlay(&self) -> bool {
        !self.fdb.is_empty() || !self.wireguard.is_empty()
    }
    pub fn has_route_to(&self, net: Ipv4Net) -> bool {
        self.routes.binary_search_by(|route| route.to.cmp(&net)).is_ok()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeftOut {
    pub node: Name,
    pub subnet: Ipv4Net,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    NoLocator,
    /// Not on this link, and it has no vxlan device to send to.
    NoVtep {
        locator: Ipv4Addr,
    },
    Overlaps {
        node: Name,
        subnet: Ipv4Net,
    },
    /// Its lease has no key that WireGuard could know it by.
    NoKey,
    /// Whose packets are whose could not be told.
    SharesKey {
        node: Name,
    },
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LeftOut { node, subnet, why } = self;
        match why {
            Why::NoLocator => write!(f, "no route to {subnet} of {node}: it has no locator"),
            Why::NoVtep { locator } => write!(
                f,
                "no route to {subnet} of {node}: its locator {locator} is not on this link and it \
                 has no vxlan device"
            ),
            Why::Overlaps { node: other, subnet: net } => write!(
                f,
                "no route to {subnet} of {node}: it overlaps {net} of {other}, leased later"
            ),
            Why::NoKey => write!(f, "no route to {subnet} of {node}: its lease has no valid key"),
            Why::SharesKey { node: other } => write!(
                f,
                "no route to {subnet} of {node}: it has the key of {other} (a copied disk?)"
            ),
        }
    }
}

/// The plan as of `view` for all machines with these parameters that were told the same.
pub fn shared(view: &View, told: &Told, params: &Params) -> Arc<Plan> {
    let mut hasher = Hasher::default();
    params.hash(&mut hasher);
    told.hash(&mut hasher);
    view.memo(hasher.finish(), || compile(&peers_of(view), told, params, None))
}

/// Rule for overlaps: a peer is left out if a peer that overlaps it leased later (by name where
/// that is equal), and always if it overlaps `own`, the asker's name and subnet.
pub fn compile(
    peers: &[Peer],
    told: &Told,
    params: &Params,
    own: Option<(&Name, Ipv4Net)>,
) -> Plan {
    let mut order: Vec<&Peer> = peers.iter().collect();
    order.sort_unstable_by(|a, b| (a.subnet, &a.node).cmp(&(b.subnet, &b.node)));
    let losers = overlaps(&order, own);
    let mut tables = Tables::default();
    for (peer, loses_to) in order.into_iter().zip(losers) {
        let place = match told.get(&peer.node) {
            Some(told) if told.generation > peer.place.generation => told,
            _ => &peer.place,
        };
        let result = match loses_to {
            Some((node, subnet)) => Err(Why::Overlaps { node, subnet }),
            None => tables.add(peer, place, params),
        };
        if let Err(why) = result {
            let (node, subnet) = (peer.node.clone(), peer.subnet);
            tables.left_out.push(LeftOut { node, subnet, why });
        }
    }
    tables.finish()
}

/// For each peer (sorted by subnet) the one it loses its network to. Networks nest or are
/// disjoint, and one that covers another sorts before it, so a stack of covering ones suffices.
fn overlaps(order: &[&Peer], own: Option<(&Name, Ipv4Net)>) -> Vec<Option<(Name, Ipv4Net)>> {
    let mut losers = vec![None; order.len()];
    let mut covering: Vec<usize> = Vec::new();
    for (i, peer) in order.iter().enumerate() {
        while covering.last().is_some_and(|&top| !order[top].subnet.contains(&peer.subnet)) {
            covering.pop();
        }
        for &other in &covering {
            let (a, b) = (order[other], *peer);
            let (loser, winner) = match (a.created, &a.node) < (b.created, &b.node) {
                true => (other, b),
                false => (i, a),
            };
            losers[loser] = Some((winner.node.clone(), winner.subnet));
        }
        covering.push(i);
    }
    if let Some((me, net)) = own {
        for (i, peer) in order.iter().enumerate() {
            let overlap = peer.subnet.contains(&net) || net.contains(&peer.subnet);
            if peer.node == *me {
                losers[i] = None;
            } else if overlap {
                losers[i] = Some((me.clone(), net));
            }
        }
    }
    losers
}

#[derive(Default)]
struct Tables {
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
    fdb: Vec<FdbEntry>,
    wireguard: Vec<WireguardPeer>,
    keys: BTreeMap<PublicKey, Name>,
    left_out: Vec<LeftOut>,
}

impl Tables {
    fn add(&mut self, peer: &Peer, place: &Place, params: &Params) -> Result<(), Why> {
        let (subnet, locator) = (peer.subnet, place.locator.ok_or(Why::NoLocator)?);
        if let Backend::Wireguard { port } = params.backend {
            return self.add_wireguard(peer, SocketAddrV4::new(locator, port), params);
        }
        if directly(place, params) {
            let (via, dev) = (Some(locator), params.uplink.clone());
            self.routes.push(Route { to: subnet, via, dev, onlink: false, metric: 0 });
            return Ok(());
        }
        let mac = place.vtep_mac.ok_or(Why::NoVtep { locator })?;
        let (via, dev) = (Some(subnet.network()), params.overlay.clone());
        self.routes.push(Route { to: subnet, via, dev, onlink: true, metric: 0 });
        self.neighbours.push(Neighbour { ip: subnet.network(), mac });
        self.fdb.push(FdbEntry { mac, remote: locator });
        Ok(())
    }

    fn add_wireguard(
        &mut self,
        peer: &Peer,
        endpoint: SocketAddrV4,
        params: &Params,
    ) -> Result<(), Why> {
        let public_key = wireguard::public_key(&peer.public_key).ok_or(Why::NoKey)?;
        if let Some(node) = self.keys.get(&public_key).cloned() {
            return Err(Why::SharesKey { node });
        }
        self.keys.insert(public_key, peer.node.clone());
        let (to, dev) = (peer.subnet, params.overlay.clone());
        self.routes.push(Route { to, via: None, dev, onlink: false, metric: 0 });
        self.wireguard.push(WireguardPeer { public_key, endpoint, allowed: to });
        Ok(())
    }

    fn finish(self) -> Plan {
        let mut hasher = Hasher::default();
        self.routes.hash(&mut hasher);
        self.neighbours.hash(&mut hasher);
        self.fdb.hash(&mut hasher);
        self.wireguard.hash(&mut hasher);
        Plan {
            routes: self.routes.into(),
            neighbours: self.neighbours.into(),
            fdb: self.fdb.into(),
            wireguard: self.wireguard.into(),
            left_out: self.left_out,
            hash: hasher.finish(),
        }
    }
}

/// Whether a route via the peer's own address will do. Both ends must judge alike, or one would
/// send through a vxlan that the other has not: so the *networks* are compared, and a peer that
/// sees the link with another prefix length is not on-link for either.
fn directly(place: &Place, params: &Params) -> bool {
    let direct = match params.backend {
        Backend::HostGw => true,
        Backend::Vxlan { direct, .. } => direct,
        Backend::Wireguard { .. } => false,
    };
    direct && place.network() == Some(params.onlink)
}
