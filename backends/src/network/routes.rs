//! The routes of one owner: what is known of them, and how to make them what they should be.

use super::message::{Prefix, Route};
use super::nexthops::Named;
use kubesim_actors::ports::network::Errno;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteProtocol, RouteScope, RouteType};
use rtnetlink::RouteMessageBuilder;
use std::net::Ipv4Addr;

/// Sorted by destination and metric, as the kernel keeps them apart.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Route>);

type Key = (Prefix, u32);

fn key(route: &Route) -> Key {
    (route.to, route.metric)
}

impl Table {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// By destination, the default route first.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    pub fn goes_by(&self, link: u32) -> bool {
        self.0.iter().any(|route| route.dev == link)
    }

    /// Behind its equals.
    pub fn insert(&mut self, route: Route) {
        if self.0.last().is_none_or(|last| key(last) <= key(&route)) {
            return self.0.push(route);
        }
        let at = self.0.partition_point(|other| key(other) <= key(&route));
        self.0.insert(at, route);
    }

    pub fn remove(&mut self, route: &Route) {
        if let Some(at) = self.position(route) {
            self.0.remove(at);
        }
    }

    pub fn contains(&self, route: &Route) -> bool {
        self.position(route).is_some()
    }

    pub fn has_key_of(&self, route: &Route) -> bool {
        let at = self.0.partition_point(|other| key(other) < key(route));
        self.0.get(at).is_some_and(|other| key(other) == key(route))
    }

    fn position(&self, route: &Route) -> Option<usize> {
        let from = self.0.partition_point(|other| key(other) < key(route));
        let same = self.0[from..].iter().take_while(|other| key(other) == key(route));
        same.enumerate().find(|(_, other)| *other == route).map(|(at, _)| from + at)
    }

    /// What makes this table be `wanted`. `None`: that is not sorted by destination and metric.
    pub fn difference(&self, mut wanted: impl Iterator<Item = Route>) -> Option<Plan> {
        let mut plan = Plan::default();
        let (mut at, mut last) = (0, Key::default());
        let sorted = wanted.all(|want| {
            let wanted_key = key(&want);
            if wanted_key < last {
                return false;
            }
            last = wanted_key;
            // Nearly always.
            if self.0.get(at) == Some(&want) && !self.has_key_at(at + 1, wanted_key) {
                at += 1;
            } else {
                at = self.differ(at, want, &mut plan);
            }
            true
        });
        plan.deletes.extend_from_slice(&self.0[at..]);
        sorted.then_some(plan)
    }

    /// Compares what is here from a place on with the next one wanted; the place behind that.
    #[cold]
    fn differ(&self, from: usize, want: Route, plan: &mut Plan) -> usize {
        let mut at = from;
        while let Some(gone) = self.0.get(at).filter(|route| key(route) < key(&want)) {
            plan.deletes.push(*gone);
            at += 1;
        }
        let (mut stays, mut replaced) = (false, None);
        while self.has_key_at(at, key(&want)) {
            match self.0[at] == want && !stays {
                true => stays = true,
                false => plan.put_replaced(&mut replaced, self.0[at]),
            }
            at += 1;
        }
        match (stays, replaced) {
            (true, replaced) => plan.deletes.extend(replaced),
            (false, old) => plan.add(want, old),
        }
        at
    }

    fn has_key_at(&self, at: usize, wanted: Key) -> bool {
        self.0.get(at).is_some_and(|route| key(route) == wanted)
    }

    /// Takes in what a plan did: all of it but what was refused, by position, ascending.
    pub fn apply(&mut self, plan: &Plan, refused: &[(usize, Errno)]) {
        let failed = |at: usize| {
            let place = refused.binary_search_by_key(&at, |(place, _)| *place);
            place.ok().map(|place| refused[place].1)
        };
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for (at, step) in plan.steps().enumerate() {
            match (step, failed(at)) {
                (Step::Delete(route), None | Some(Errno::Esrch)) => gone.push(route),
                (Step::Add(route) | Step::Append(route), None) => new.push(route),
                _ => {}
            }
        }
        gone.sort_by_key(|route| key(route));
        new.sort_by_key(|route| key(route));
        // From the back, so that little moves.
        gone.iter().rev().for_each(|route| self.remove(route));
        new.iter().for_each(|route| self.insert(**route));
    }
}

impl FromIterator<Route> for Table {
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Self {
        let mut routes: Vec<Route> = routes.into_iter().collect();
        routes.sort_by_key(key);
        Table(routes)
    }
}

/// Steps in an order that works: what goes first, and then routes without a gateway before those
/// whose gateways may lie within them.
#[derive(Debug, Default)]
pub struct Plan {
    deletes: Vec<Route>,
    direct: Vec<(Route, Option<Route>)>,
    gatewayed: Vec<(Route, Option<Route>)>,
}

/// From so many routes on their order shows.
const SCATTERED: usize = 256;

#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Delete(&'a Route),
    Add(&'a Route),
    /// Beside the one that it takes the place of, which is deleted next: no packet finds none.
    Append(&'a Route),
}

impl Plan {
    /// Of several with one key only the last is replaced without a gap. One without a gateway is
    /// not: what comes in its place must not count it as the way to its own.
    fn put_replaced(&mut self, replaced: &mut Option<Route>, route: Route) {
        match route.via() {
            Some(_) => self.deletes.extend(replaced.replace(route)),
            None => self.deletes.push(route),
        }
    }

    fn add(&mut self, route: Route, replaced: Option<Route>) {
        match route.via() {
            None => self.direct.push((route, replaced)),
            Some(_) => self.gatewayed.push((route, replaced)),
        }
    }

    pub fn adds(&self) -> usize {
        self.direct.len() + self.gatewayed.len()
    }

    /// Neighbours far from each other, where there are many. A node of the kernel's trie doubles
    /// its children when half of them are full, and halves them when they are empty (`resize`,
    /// net/ipv4/fib_trie.c): by address this is done again for every run of addresses, each time
    /// for all that is below, but only once for each size where every part of it fills at the same
    /// time. Of 5,000 routes the messages alone take a fifth less so, and to delete them less than
    /// half (docs/benches.md).
    pub fn scatter(&mut self) {
        let scattered = |route: &Route| route.to.net().addr().to_bits().reverse_bits();
        if self.deletes.len() >= SCATTERED {
            self.deletes.sort_by_key(scattered);
        }
        for added in [&mut self.direct, &mut self.gatewayed] {
            if added.len() >= SCATTERED {
                added.sort_by_key(|(route, _)| scattered(route));
            }
        }
    }

    /// Routes to be added whose gateways may be objects.
    pub fn gatewayed_mut(&mut self) -> impl Iterator<Item = &mut Route> {
        self.gatewayed.iter_mut().map(|(new, _)| new)
    }

    /// Whether a route goes that names an object.
    pub fn leaves_nexthops(&self) -> bool {
        let named = |step: Step<'_>| matches!(step, Step::Delete(gone) if gone.nexthop != 0);
        self.steps().any(named)
    }

    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.direct.is_empty() && self.gatewayed.is_empty()
    }

    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let added = self.direct.iter().chain(&self.gatewayed).flat_map(|(new, old)| {
            let first = if old.is_some() { Step::Append(new) } else { Step::Add(new) };
            [Some(first), old.as_ref().map(Step::Delete)].into_iter().flatten()
        });
        self.deletes.iter().map(Step::Delete).chain(added)
    }
}

impl Step<'_> {
    pub fn route(&self) -> &Route {
        let (Step::Delete(route) | Step::Add(route) | Step::Append(route)) = self;
        route
    }

    /// A refusal to delete what is not there is none.
    pub fn minds(&self, errno: Errno) -> bool {
        !(matches!(self, Step::Delete(_)) && errno == Errno::Esrch)
    }

    /// With the flags that go with it.
    pub fn message(&self) -> (Written, u16) {
        let flags = match self {
            Step::Delete(_) => 0,
            Step::Add(_) => NLM_F_CREATE | NLM_F_EXCL,
            Step::Append(_) => NLM_F_CREATE | NLM_F_APPEND,
        };
        let (route, deletes) = (self.route(), matches!(self, Step::Delete(_)));
        let written = match deletes {
            _ if route.plain && route.nexthop != 0 => {
                Written::Named(Named { route: *route, deletes })
            }
            true => Written::Whole(RouteNetlinkMessage::DelRoute(build(route))),
            false => Written::Whole(RouteNetlinkMessage::NewRoute(build(route))),
        };
        (written, flags)
    }
}

/// A route as netlink is told of it.
#[derive(Debug)]
pub enum Written {
    Whole(RouteNetlinkMessage),
    /// By its next hop's number: these come by the thousand.
    Named(Named),
}

impl NetlinkSerializable for Written {
    fn message_type(&self) -> u16 {
        match self {
            Written::Whole(message) => message.message_type(),
            Written::Named(named) => named.message_type(),
        }
    }
    fn buffer_len(&self) -> usize {
        match self {
            Written::Whole(message) => NetlinkSerializable::buffer_len(message),
            Written::Named(named) => named.buffer_len(),
        }
    }
    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Written::Whole(message) => message.serialize(buffer),
            Written::Named(named) => named.serialize(buffer),
        }
    }
}

fn build(route: &Route) -> netlink_packet_route::route::RouteMessage {
    let to = route.to.net();
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.addr(), to.prefix_len())
        .protocol(RouteProtocol::Other(route.proto.0));
    if route.metric != 0 {
        builder = builder.priority(route.metric);
    }
    if !route.plain {
        // To be deleted, whatever else it has: destination, metric and owner name it.
        return builder.kind(RouteType::Unspec).scope(RouteScope::NoWhere).build();
    }
    builder = builder.output_interface(route.dev);
    builder = match route.via() {
        Some(via) => builder.gateway(via).scope(RouteScope::Universe),
        None => builder.scope(RouteScope::Link),
    };
    if route.onlink { builder.onlink().build() } else { builder.build() }
}
