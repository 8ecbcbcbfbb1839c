//! One machine's network: its sockets, and what is known of it.

use super::links::LO;
use super::message::{GetNetconf, Message, Route};
use super::mirror::{Doubt, Mirror};
use super::monitor::{Group, Monitor};
use super::neighbours::Tables;
use super::nexthops::{self, Nexthops};
use super::routes::{Plan, Table};
use super::socket::Socket;
use super::sysctl;
use super::wireguard::Devices;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{
    Errno, FdbEntry, LinkKind, Neighbour, Proto, RouteSet, State,
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::LinkUnspec;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// How often a set of routes is compared again because somebody else wrote meanwhile.
const ROUNDS: usize = 3;
const ENOENT: Errno = Errno::Other(nix::errno::Errno::ENOENT as u16);

type Refused = Vec<(Ipv4Net, Errno)>;

#[derive(Debug)]
pub struct Node {
    pub(super) requests: Socket,
    monitor: Monitor,
    pub(super) mirror: Mirror,
    /// By owner; there once they were listed.
    routes: BTreeMap<Proto, Table>,
    nexthops: Nexthops,
    neighbours: Tables,
    pub(super) wireguard: Devices,
    stale: Stale,
    /// Default routes are followed as well.
    observed: bool,
    state: Option<Arc<State>>,
    /// Rung when news came in.
    pub(super) stirred: Rc<Notify>,
}

/// What has to be listed again.
#[derive(Clone, Copy, Debug)]
struct Stale {
    links: bool,
    addresses: bool,
    routes: bool,
}

impl Node {
    /// `room`: bytes for news that wait.
    pub fn open(room: usize) -> io::Result<Node> {
        let requests = Socket::open()?;
        let groups =
            [Group::Link, Group::Ipv4Address, Group::Ipv4Route, Group::Ipv4Netconf, Group::Nexthop];
        let monitor = Monitor::open(&groups, room)?;
        monitor.without_routes_by(requests.port)?;
        Ok(Node {
            requests,
            monitor,
            mirror: Mirror::default(),
            routes: BTreeMap::new(),
            nexthops: Nexthops::default(),
            neighbours: Tables::default(),
            wireguard: Devices::default(),
            stale: Stale { links: true, addresses: true, routes: true },
            observed: false,
            state: None,
            stirred: Rc::default(),
        })
    }

    /// Becomes readable when there is news.
    pub(super) fn news(&self) -> &Monitor {
        &self.monitor
    }

    /// Takes in all that happened so far.
    pub(super) fn refresh(&mut self) -> Result<(), Errno> {
        self.take_news();
        let Stale { links, addresses, routes } = self.stale;
        if links || addresses || routes {
            self.barrier()?;
        }
        if links {
            let all = self.requests.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
            let confs = self.requests.dump(&GetNetconf)?;
            self.mirror.reset(all, confs);
            self.stale.links = false;
        }
        if addresses {
            let mut request = AddressMessage::default();
            request.header.family = AddressFamily::Inet;
            let all = self.requests.dump(&RouteNetlinkMessage::GetAddress(request))?;
            self.mirror.reset_addresses(all);
            self.stale.addresses = false;
        }
        if routes {
            self.list_routes()?;
            self.stale.routes = false;
        }
        Ok(())
    }

    fn take_news(&mut self) {
        let Node { monitor, mirror, routes, nexthops, neighbours, wireguard, stale, state, .. } =
            self;
        let mut any = false;
        let complete = monitor.drain(|mut news, replaces| {
            any = true;
            if let Message::Route(route) | Message::RouteGone(route) = &mut news {
                nexthops.complete(route);
            }
            match mirror.apply(&news) {
                Doubt::None => {}
                Doubt::Addresses => stale.addresses = true,
                Doubt::RoutesBy(link) => {
                    stale.addresses = true;
                    let doubtful = |table: &Table| table.goes_by(link);
                    stale.routes |= mirror.has_default_by(link) || routes.values().any(doubtful);
                }
            }
            match &news {
                // Whose place it took is not said.
                Message::Route(route) if replaces => {
                    stale.routes |= routes.values().any(|table| table.has_key_of(route))
                        || mirror.has_default_like(route);
                }
                Message::Route(route) => {
                    let table = routes.get_mut(&route.proto);
                    if let Some(table) = table.filter(|table| !table.contains(route)) {
                        table.insert(*route);
                    }
                }
                Message::RouteGone(route) => {
                    if let Some(table) = routes.get_mut(&route.proto) {
                        table.remove(route);
                    }
                }
                // Its routes went with it.
                Message::NexthopGone(id) => stale.routes |= nexthops.forget(&[*id]),
                Message::LinkGone(link) => {
                    neighbours.forget(*link);
                    wireguard.forget(*link);
                }
                _ => {}
            }
        });
        if !complete {
            *stale = Stale { links: true, addresses: true, routes: true };
        }
        if any || !complete {
            *state = None;
            self.stirred.notify_waiters();
        }
    }

    /// Waits until changes that are under way have come to their end, by asking for one that
    /// changes nothing: news of a link or an address comes before its routes are flushed
    /// (__dev_notify_flags, net/core/dev.c; __inet_del_ifa, net/ipv4/devinet.c), but under one
    /// and the same lock.
    fn barrier(&mut self) -> Result<(), Errno> {
        let nothing = LinkUnspec::new_with_index(LO).build();
        match self.requests.call(RouteNetlinkMessage::SetLink(nothing), 0) {
            // Without CAP_NET_ADMIN there is still something to see.
            Err(Errno::Eperm) => Ok(()),
            done => done,
        }
    }

    /// Lists the routes of every owner that is followed, and the default routes if they are.
    fn list_routes(&mut self) -> Result<(), Errno> {
        self.list_nexthops()?;
        if self.observed {
            let all = self.main_table(None)?;
            self.mirror.reset_defaults(&all);
            for (proto, table) in &mut self.routes {
                *table = all.iter().filter(|route| route.proto == *proto).copied().collect();
            }
            return Ok(());
        }
        for proto in self.routes.keys().copied().collect::<Vec<_>>() {
            let table = self.main_table(Some(proto))?.into_iter().collect();
            self.routes.insert(proto, table);
        }
        Ok(())
    }

    fn main_table(&mut self, proto: Option<Proto>) -> Result<Vec<Route>, Errno> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        request.header.table = RouteHeader::RT_TABLE_MAIN;
        request.header.protocol =
            proto.map_or(RouteProtocol::Unspec, |p| RouteProtocol::Other(p.0));
        let found = match self.requests.dump(&RouteNetlinkMessage::GetRoute(request)) {
            // A namespace's main table comes with its first route.
            Err(ENOENT) => Vec::new(),
            found => found?,
        };
        let routes = found.into_iter().filter_map(|message| match message {
            Message::Route(mut route) => {
                self.nexthops.complete(&mut route);
                Some(route)
            }
            _ => None,
        });
        Ok(routes.filter(|route| proto.is_none_or(|proto| route.proto == proto)).collect())
    }

    fn list_nexthops(&mut self) -> Result<(), Errno> {
        let found = match self.requests.dump(&nexthops::Request::List) {
            // A kernel older than 5.3 has none.
            Err(Errno::Eopnotsupp) => Vec::new(),
            found => found?,
        };
        self.nexthops.reset(found.into_iter().filter_map(|message| match message {
            Message::Nexthop(object) => Some(object),
            _ => None,
        }));
        Ok(())
    }

    fn follow_routes(&mut self, proto: Proto) -> Result<(), Errno> {
        if !self.routes.contains_key(&proto) {
            self.list_nexthops()?;
            let table = self.main_table(Some(proto))?.into_iter().collect();
            self.routes.insert(proto, table);
        }
        Ok(())
    }

    /// The same value as long as nothing changed.
    pub(super) fn state(&mut self) -> Result<Arc<State>, Errno> {
        if !self.observed {
            self.observed = true;
            self.stale.routes = true;
            self.routes.entry(Proto::NETD).or_default();
        }
        self.refresh()?;
        let bridge_nf = sysctl::bridge_nf();
        let known = self.state.take().filter(|state| state.bridge_nf == bridge_nf);
        let state = known.unwrap_or_else(|| {
            let netd_routes = self.routes.get(&Proto::NETD).map_or(0, Table::len);
            Arc::new(self.mirror.state(netd_routes, bridge_nf))
        });
        self.state = Some(Arc::clone(&state));
        Ok(state)
    }

    /// What was refused, by destination.
    pub(super) fn set_routes(&mut self, proto: Proto, set: &RouteSet) -> Refused {
        let found = self.refresh().and_then(|()| self.follow_routes(proto));
        if let Err(errno) = found {
            return set.iter().map(|route| (route.to, errno)).collect();
        }
        let mut refused = Vec::new();
        for round in 1..=ROUNDS {
            let (denied, again) = self.reconcile(proto, set);
            if !again || round == ROUNDS {
                refused.extend(denied);
                break;
            }
        }
        refused.sort_unstable();
        refused.dedup_by_key(|(to, _)| *to);
        refused
    }

    /// Writes the differences. True: somebody else wrote under this tag meanwhile, and they have
    /// to be found anew.
    fn reconcile(&mut self, proto: Proto, set: &RouteSet) -> (Refused, bool) {
        let (mut plan, mut denied) = self.plan(proto, set);
        if plan.is_empty() {
            return (denied, false);
        }
        self.make_nexthops(proto, &mut plan);
        plan.scatter();
        let refused = match self.requests.batch(plan.steps().map(|step| step.message())) {
            Ok(refused) => refused,
            Err(errno) => {
                // Unknown what was done of it.
                self.routes.remove(&proto);
                denied.extend(plan.steps().map(|step| (step.route().to.net(), errno)));
                return (denied, false);
            }
        };
        self.state = None;
        let table = self.routes.entry(proto).or_default();
        table.apply(&plan, &refused);
        self.mirror.set_own_defaults(proto, table);
        self.drop_nexthops(proto, &plan);
        self.take_news();
        if refused.is_empty() {
            return (denied, false);
        }
        let table = self.routes.entry(proto).or_default();
        let steps: Vec<_> = plan.steps().collect();
        let minded = refused.iter().filter(|(at, errno)| steps[*at].minds(*errno));
        let minded = minded.map(|(at, errno)| (steps[*at].route(), *errno));
        let contested = |route: &Route, errno| errno == Errno::Eexist && table.has_key_of(route);
        let again = minded.clone().any(|(route, errno)| contested(route, errno));
        denied.extend(minded.map(|(route, errno)| (route.to.net(), errno)));
        (denied, again)
    }

    /// Makes objects of the overlay's gateways that a plan adds, if there are many; a route whose
    /// object is refused is written with its gateway, and the kernel says what it thinks of that.
    fn make_nexthops(&mut self, proto: Proto, plan: &mut Plan) {
        let known = self.routes.get(&proto).map_or(0, Table::len);
        if known + plan.adds() <= nexthops::MANY {
            return;
        }
        let overlays: Vec<u32> = self.mirror.links_of(LinkKind::Vxlan).collect();
        let by_overlay = |route: &&mut Route| overlays.contains(&route.dev);
        let new = self.nexthops.assign(plan.gatewayed_mut().filter(by_overlay));
        let messages =
            new.iter().map(|object| (nexthops::Request::New(*object), NLM_F_CREATE | NLM_F_EXCL));
        let refused: Vec<u32> = match self.requests.batch(messages) {
            Ok(refused) => refused.iter().map(|(at, _)| new[*at].id).collect(),
            Err(_) => new.iter().map(|object| object.id).collect(),
        };
        for id in &refused {
            self.nexthops.forget(&[*id]);
        }
        if !refused.is_empty() {
            let without = |route: &&mut Route| refused.contains(&route.nexthop);
            plan.gatewayed_mut().filter(without).for_each(|route| route.nexthop = 0);
        }
    }

    /// Deletes the objects that no route names any more.
    fn drop_nexthops(&mut self, proto: Proto, plan: &Plan) {
        if !plan.leaves_nexthops() {
            return;
        }
        let table = self.routes.get(&proto);
        let unused = self.nexthops.unused(proto.0, table.into_iter().flat_map(Table::iter));
        // One that is gone already is as good.
        let messages = unused.iter().map(|id| (nexthops::Request::Delete(*id), 0));
        let _ = self.requests.batch(messages);
        self.nexthops.forget(&unused);
    }

    /// What is to be done, and the routes by links that are not there.
    fn plan(&mut self, proto: Proto, set: &RouteSet) -> (Plan, Refused) {
        let Node { mirror, routes, .. } = self;
        let table = routes.entry(proto).or_default();
        let mut refused = Vec::new();
        if let Some(plan) = table.difference(mirror.numbered(proto, set, &mut refused)) {
            return (plan, refused);
        }
        refused.clear();
        let mut wanted: Vec<Route> = mirror.numbered(proto, set, &mut refused).collect();
        wanted.sort_by_key(|route| (route.to, route.metric));
        let plan = table.difference(wanted.into_iter());
        (plan.unwrap_or_default(), refused)
    }

    pub(super) fn set_neighbours(&mut self, dev: &str, entries: &[Neighbour]) -> Result<(), Errno> {
        self.refresh()?;
        let link = self.mirror.link(dev).ok_or(Errno::Enodev)?.index;
        self.neighbours.set_neighbours(&mut self.requests, link, entries)
    }

    /// Other devices than vxlan have a database as well, but none with remotes.
    pub(super) fn set_fdb(&mut self, dev: &str, entries: &[FdbEntry]) -> Result<(), Errno> {
        self.refresh()?;
        let link = self.mirror.link(dev).ok_or(Errno::Enodev)?;
        if link.kind != LinkKind::Vxlan {
            return Err(Errno::Eopnotsupp);
        }
        self.neighbours.set_fdb(&mut self.requests, link.index, entries)
    }
}
