//! Services as flat elements (see [`crate::ports::rules::flat`]): what nftables mode compiles to.
//!
//! It says what the chains of iptables mode say, but for two things that nftables cannot or need
//! not do, as KEP-3866 has it: node ports are not served on 127.0.0.0/8, and nothing is accepted,
//! since to accept in one table is no word in another.

mod overlay;

pub use overlay::{FlatOverlay, flat_overlay};

use super::piece::Piece;
use super::service::{Endpoint, ServicePort, usable};
use crate::objects::{Key, Name};
use crate::ports::rules::flat::{FlatKey, FlatSet, FlatValue, Front, List, Policy, Treatment};
use imbl::OrdMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// All elements of a cluster, as on a node without endpoints of its own.
#[derive(Clone, Debug)]
pub struct Flat {
    pub set: FlatSet,
    /// Who wants a front: the first of them by name gets it.
    claims: OrdMap<Front, Arc<BTreeSet<Key>>>,
    /// How often an address is an endpoint on a node.
    on_nodes: OrdMap<(Name, Ipv4Addr), u32>,
}

impl Flat {
    pub(super) fn new(mut set: FlatSet, version: u64) -> Self {
        set.advance(version);
        Flat { set, claims: OrdMap::new(), on_nodes: OrdMap::new() }
    }

    pub(super) fn advance(&mut self, version: u64) {
        self.set.advance(version);
    }

    /// What the Service `key` was becomes what it is. `pieces` are those of all Services by now.
    pub(super) fn update(
        &mut self,
        key: &Key,
        old: &Piece,
        new: &Piece,
        pieces: &OrdMap<Key, Arc<Piece>>,
    ) {
        let contested = self.claim(key, old, new);
        let version = self.set.version();
        let mine = |element: &&(FlatKey, FlatValue)| {
            front_of(&element.0).is_none_or(|front| !contested.contains(&front))
        };
        for (gone, _) in old.flat.iter().filter(mine) {
            if find(new, gone).is_none() {
                self.set.remove(gone, version);
            }
        }
        for (element, value) in new.flat.iter().filter(mine) {
            if self.set.get(element) != Some(value) {
                self.set.insert(*element, *value, version);
            }
        }
        for front in contested {
            self.settle(front, [old, new], pieces);
        }
        self.count_nodes(old, new);
    }

    /// Notes who wants which front now. The fronts that somebody else wants as well.
    fn claim(&mut self, key: &Key, old: &Piece, new: &Piece) -> BTreeSet<Front> {
        let (was, is) = (fronts(old), fronts(new));
        let mut contested = BTreeSet::new();
        for front in was.union(&is) {
            let known = self.claims.get(front).map(Arc::as_ref);
            if known.is_some_and(|known| known.iter().any(|other| other != key)) {
                contested.insert(*front);
            }
            if is.contains(front) == known.is_some_and(|known| known.contains(key)) {
                continue;
            }
            let mut claimants = known.cloned().unwrap_or_default();
            if !claimants.remove(key) {
                claimants.insert(key.clone());
            }
            match claimants.is_empty() {
                true => drop(self.claims.remove(front)),
                false => drop(self.claims.insert(*front, Arc::new(claimants))),
            }
        }
        contested
    }

    /// A front of which several Services had or have elements: those of the first stay.
    fn settle(&mut self, front: Front, mine: [&Piece; 2], pieces: &OrdMap<Key, Arc<Piece>>) {
        let version = self.set.version();
        let claimants = self.claims.get(&front).cloned().unwrap_or_default();
        let others: Vec<_> = claimants.iter().filter_map(|key| pieces.get(key)).collect();
        let all = others.iter().map(|piece| &***piece).chain(mine);
        let of_front = |piece: &Piece| {
            let elements = piece.flat.iter().copied();
            elements.filter(move |(key, _)| front_of(key) == Some(front)).collect::<Vec<_>>()
        };
        for (key, _) in all.flat_map(of_front) {
            self.set.remove(&key, version);
        }
        for (key, value) in others.first().into_iter().flat_map(|piece| of_front(piece)) {
            self.set.insert(key, value, version);
        }
    }

    fn count_nodes(&mut self, old: &Piece, new: &Piece) {
        if old.on_nodes == new.on_nodes {
            return;
        }
        for at in &new.on_nodes {
            *self.on_nodes.entry(at.clone()).or_default() += 1;
        }
        for at in &old.on_nodes {
            match self.on_nodes.get(at).copied() {
                Some(count) if count > 1 => drop(self.on_nodes.insert(at.clone(), count - 1)),
                _ => drop(self.on_nodes.remove(at)),
            }
        }
    }

    /// Whether a front is this Service's.
    fn is_of(&self, front: &Front, key: &Key) -> bool {
        self.claims.get(front).and_then(|claimants| claimants.first()) == Some(key)
    }

    /// The endpoints of a node.
    pub(super) fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
        let node = Name::from(node);
        let from = (node.clone(), Ipv4Addr::UNSPECIFIED);
        self.on_nodes
            .range(from..)
            .take_while(move |((at, _), _)| *at == node)
            .map(|((_, ip), _)| *ip)
    }
}

/// The front that a key is about, if Services may contend for it.
fn front_of(key: &FlatKey) -> Option<Front> {
    match *key {
        FlatKey::Service(front) | FlatKey::Sticky(front) | FlatKey::Refused(front) => Some(front),
        FlatKey::Endpoint { front, .. }
        | FlatKey::Member { front, .. }
        | FlatKey::Source { front, .. } => Some(front),
        FlatKey::Hairpin(_) => None,
    }
}

fn fronts(piece: &Piece) -> BTreeSet<Front> {
    piece.flat.iter().filter_map(|(key, _)| front_of(key)).collect()
}

fn find(piece: &Piece, key: &FlatKey) -> Option<FlatValue> {
    let at = piece.flat.binary_search_by_key(key, |(key, _)| *key).ok()?;
    Some(piece.flat[at].1)
}

/// The elements of one Service port, as on a node that has none of its endpoints.
pub(super) fn elements(
    port: &ServicePort,
    endpoints: &[Endpoint],
    elements: &mut Vec<(FlatKey, FlatValue)>,
) {
    let used = usable(endpoints.iter());
    if used.is_empty() {
        let refused = treated_fronts(port).map(|(front, ..)| FlatKey::Refused(front));
        return elements.extend(refused.map(|key| (key, FlatValue::Present)));
    }
    for (front, policy, guarded) in treated_fronts(port) {
        let lists = Lists { everywhere: &used, here: &[] };
        self::front(port, front, policy, guarded, lists, elements);
        if let Some(seconds) = port.affinity {
            elements.push((FlatKey::Sticky(front), FlatValue::Seconds(seconds)));
        }
        if guarded {
            let source = |net: &ipnet::Ipv4Net| FlatKey::Source { front, net: net.trunc() };
            let sources = port.source_ranges.iter().map(source);
            elements.extend(sources.map(|key| (key, FlatValue::Present)));
        }
    }
}

/// The endpoints of a Service port: all that are used, and those used on the node.
#[derive(Clone, Copy)]
struct Lists<'a> {
    everywhere: &'a [&'a Endpoint],
    here: &'a [&'a Endpoint],
}

/// How one front is treated, and its endpoints.
fn front(
    port: &ServicePort,
    front: Front,
    policy: Policy,
    guarded: bool,
    lists: Lists<'_>,
    elements: &mut Vec<(FlatKey, FlatValue)>,
) {
    let sticky = port.affinity.is_some();
    let of = |list: List| match (list, policy) {
        (List::Everywhere, Policy::InsideLocal) => &[][..],
        (List::Here, Policy::Inside | Policy::Outside) => &[][..],
        (List::Everywhere, _) => lists.everywhere,
        (List::Here, _) => lists.here,
    };
    let count = |list, most: u16| u16::try_from(of(list).len()).unwrap_or(most).min(most);
    let everywhere = count(List::Everywhere, Treatment::MOST);
    let here = count(List::Here, Treatment::MOST_HERE);
    let treatment = Treatment { policy, everywhere, here, sticky, guarded };
    elements.push((FlatKey::Service(front), FlatValue::Treatment(treatment)));
    for (list, count) in [(List::Everywhere, everywhere), (List::Here, here)] {
        for (number, endpoint) in (0..count).zip(of(list)) {
            let to = FlatValue::To(endpoint.ip, endpoint.port);
            elements.push((FlatKey::Endpoint { front, list, number }, to));
            if sticky {
                elements.push((FlatKey::Member { front, list, ip: endpoint.ip }, to));
            }
        }
    }
}

/// The fronts of a Service port, their policies, and whether they are guarded.
pub(super) fn treated_fronts(
    port: &ServicePort,
) -> impl Iterator<Item = (Front, Policy, bool)> + use<'_> {
    let inside = if port.internal_local { Policy::InsideLocal } else { Policy::Inside };
    let outside = if port.external_local { Policy::OutsideLocal } else { Policy::Outside };
    let at =
        |ip: Ipv4Addr, port_number: u16| Front { ip, protocol: port.protocol, port: port_number };
    let own = (at(port.cluster_ip, port.port), inside, false);
    let external = port.external_ips.iter().map(move |ip| (at(*ip, port.port), outside, false));
    let guarded = port.uses_firewall();
    let balancer =
        port.load_balancer_ips.iter().map(move |ip| (at(*ip, port.port), outside, guarded));
    let node_port =
        port.node_port.map(|number| (at(Ipv4Addr::UNSPECIFIED, number), outside, false));
    [own].into_iter().chain(external).chain(balancer).chain(node_port)
}
