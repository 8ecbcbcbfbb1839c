//! A set of routes that thousands of kernels hold: each is indexed once, whoever holds it, and a
//! kernel keeps only which links it leads to and which of its routes are not in the table.

use super::Errno;
use super::link::Links;
use super::route::{Fib, Hop, Kind, Scope, Want};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{IfName, Proto, Route, RouteSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The index of one `Arc<[Route]>`. A pure function of it.
#[derive(Debug)]
pub(super) struct Block {
    routes: Arc<[Route]>,
    /// Network and prefix length of each route, ascending.
    keys: Vec<u64>,
    /// The group of each route.
    group_of: Vec<u16>,
    groups: Vec<Group>,
    lengths: u64,
}

/// The routes by one link with one kind of gateway check.
#[derive(Debug)]
struct Group {
    dev: IfName,
    onlink: bool,
    /// Routes without a gateway.
    direct: bool,
    /// Sorted.
    gateways: Vec<u32>,
}

fn key(to: u32, plen: u8) -> u64 {
    u64::from(to) << 8 | u64::from(plen)
}

impl Block {
    /// `None` if the routes are not sorted networks, each named once.
    fn index(routes: Arc<[Route]>) -> Option<Block> {
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of = Vec::with_capacity(routes.len());
        let mut keys = Vec::with_capacity(routes.len());
        let mut lengths = 0;
        for route in routes.iter() {
            let key = key(u32::from(route.to.addr()), route.to.prefix_len());
            if route.to != route.to.trunc() || keys.last().is_some_and(|last| *last >= key) {
                return None;
            }
            keys.push(key);
            lengths |= 1 << route.to.prefix_len();
            let (onlink, direct) = (route.onlink, route.via.is_none());
            let same = |g: &Group| g.dev == route.dev && g.onlink == onlink && g.direct == direct;
            let at = groups.iter().position(same).unwrap_or_else(|| {
                groups.push(Group { dev: route.dev.clone(), onlink, direct, gateways: Vec::new() });
                groups.len() - 1
            });
            groups[at].gateways.extend(route.via.map(u32::from));
            group_of.push(u16::try_from(at).ok()?);
        }
        groups.iter_mut().for_each(|group| {
            group.gateways.sort_unstable();
            group.gateways.dedup();
        });
        Some(Block { routes, keys, group_of, groups, lengths })
    }
}

/// Indexes of route sets that are in use somewhere, for kernels to share.
#[derive(Clone, Debug, Default)]
pub struct RouteBlocks(Arc<Mutex<Vec<Weak<Block>>>>);

impl RouteBlocks {
    /// The index of `routes`, made at most once while somebody holds it. The result depends on
    /// `routes` alone, so sharing changes nothing but the cost.
    fn of(&self, routes: &Arc<[Route]>) -> Option<Arc<Block>> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = blocks.iter().rev().filter_map(Weak::upgrade);
        for block in known {
            if Arc::ptr_eq(&block.routes, routes) {
                return Some(block);
            }
        }
        blocks.retain(|block| block.strong_count() > 0);
        let block = Arc::new(Block::index(Arc::clone(routes))?);
        blocks.push(Arc::downgrade(&block));
        Some(block)
    }
}

/// A block as it stands in one kernel's table.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub proto: Proto,
    block: Arc<Block>,
    /// The destination left out, and its place if the block has it.
    except: Option<Ipv4Net>,
    except_at: Option<u32>,
    /// Link of each group; 0 for one that does not exist.
    devs: Vec<u32>,
    /// Places of routes that are not in the table: refused, flushed or deleted. Sorted.
    dead: Vec<u32>,
    /// Gateways that are this machine's own addresses: what goes by them is on-link
    /// (fib_check_nh_v4_gw). Hardly ever any.
    own_gateways: Vec<u32>,
}

impl Installed {
    fn new(proto: Proto, block: Arc<Block>, except: Option<Ipv4Net>, links: &Links) -> Self {
        let devs = block
            .groups
            .iter()
            .map(|group| links.named(&group.dev).map_or(0, |link| link.index))
            .collect();
        let at = except.and_then(|net| {
            block.keys.binary_search(&key(u32::from(net.addr()), net.prefix_len())).ok()
        });
        let except_at = at.map(|at| at as u32);
        let (dead, own_gateways) = (Vec::new(), Vec::new());
        Installed { proto, block, except, except_at, devs, dead, own_gateways }
    }

    pub fn lengths(&self) -> u64 {
        self.block.lengths
    }
    pub fn route(&self, at: usize) -> &Route {
        &self.block.routes[at]
    }
    fn is_alive(&self, at: usize) -> bool {
        self.except_at != Some(at as u32)
            && (self.dead.is_empty() || self.dead.binary_search(&(at as u32)).is_err())
    }
    fn dev(&self, at: usize) -> u32 {
        self.devs[usize::from(self.block.group_of[at])]
    }

    /// The place of the route to exactly this network, if it is in the table.
    pub fn position(&self, to: u32, plen: u8) -> Option<usize> {
        let at = self.block.keys.binary_search(&key(to, plen)).ok()?;
        self.is_alive(at).then_some(at)
    }

    /// The route to exactly this network: its metric and where it leads.
    pub fn find(&self, to: u32, plen: u8, want: Want) -> Option<(u32, Hop)> {
        if self.block.lengths & 1 << plen == 0 {
            return None;
        }
        let at = self.position(to, plen)?;
        let (route, dev) = (self.route(at), self.dev(at));
        let scope = if route.via.is_some() { Scope::Universe } else { Scope::Link };
        let own = |via: &Ipv4Addr| self.own_gateways.contains(&u32::from(*via));
        let via = route.via.filter(|via| !own(via));
        let hop = Hop { kind: Kind::Unicast, dev, via, prefsrc: None, toward: route.via };
        want.admits(dev, scope).then_some((route.metric, hop))
    }

    /// Whether `ip route del` of this route means the one at this place: a metric that is not
    /// given is any (fib_nh_match, net/ipv4/fib_semantics.c).
    pub fn is_meant(&self, at: usize, route: &Route) -> bool {
        let Route { to, via, dev, metric, .. } = self.route(at);
        (to, via, dev) == (&route.to, &route.via, &route.dev)
            && [0, *metric].contains(&route.metric)
    }

    pub fn kill(&mut self, at: usize) {
        if let Err(place) = self.dead.binary_search(&(at as u32)) {
            self.dead.insert(place, at as u32);
        }
    }

    /// True if nothing is left.
    pub fn flush_device(&mut self, dev: u32) -> bool {
        if !self.devs.contains(&dev) {
            return false;
        }
        let alive = (0..self.block.keys.len()).filter(|&at| self.is_alive(at));
        let hit: Vec<u32> = alive.filter(|&at| self.dev(at) == dev).map(|at| at as u32).collect();
        self.dead.extend(hit);
        self.dead.sort_unstable();
        self.live() == 0
    }

    pub fn live(&self) -> usize {
        self.block.keys.len() - self.dead.len() - usize::from(self.except_at.is_some())
    }
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        let alive = (0..self.block.keys.len()).filter(|&at| self.is_alive(at));
        alive.map(|at| self.route(at))
    }
}

impl Fib {
    /// Makes the routes of `proto` be exactly `set`; returns what was refused. A route that is
    /// there already is not checked again, as the kernel would not.
    ///
    /// Costs O(1) for the set in place, O(links + local routes) where the gateways of a link
    /// pass together, and O(routes of the link) otherwise.
    pub(super) fn set_routes(
        &mut self,
        proto: Proto,
        set: &RouteSet,
        links: &Links,
        blocks: &RouteBlocks,
    ) -> Vec<(Ipv4Net, Errno)> {
        if let Some(old) = self.block().filter(|old| old.proto == proto) {
            let same = Arc::ptr_eq(&old.block.routes, &set.shared) && old.except == set.except;
            if same && old.dead.is_empty() && old.devs.iter().all(|dev| *dev != 0) {
                return Vec::new();
            }
        }
        let foreign = self.block().is_some_and(|old| old.proto != proto);
        let block = if foreign { None } else { blocks.of(&set.shared) };
        match block {
            Some(block) => self.install(Installed::new(proto, block, set.except, links), links),
            None => self.set_one_by_one(proto, set, links),
        }
    }

    fn install(&mut self, mut new: Installed, links: &Links) -> Vec<(Ipv4Net, Errno)> {
        let proto = new.proto;
        let old = self.take_block();
        let is_gateway = |ip: u32| {
            let mut groups = new.block.groups.iter().filter(|group| !group.onlink);
            groups.any(|group| group.gateways.binary_search(&ip).is_ok())
        };
        let addresses = self
            .local_entries()
            .iter()
            .filter(|entry| entry.plen == 32 && entry.kind == Kind::Local && is_gateway(entry.to));
        new.own_gateways = addresses.map(|entry| entry.to).collect();
        let own: Vec<_> =
            self.main_entries().iter().filter(|entry| entry.proto == proto).copied().collect();
        if !own.is_empty() {
            self.retain_main(|entry| entry.proto != proto);
        }
        let taken = self.main_entries().iter().filter_map(|entry| {
            new.position(entry.to, entry.plen).filter(|&at| new.route(at).metric == entry.metric)
        });
        let mut refused: Vec<(usize, Errno)> = taken.map(|at| (at, Errno::Eexist)).collect();
        // Routes without a gateway come first: the gateways of others may lie within them.
        for direct in [true, false] {
            for group in 0..new.block.groups.len() {
                let wanted = new.block.groups[group].direct == direct;
                if wanted && !self.group_passes(&new, group, links) {
                    self.check_group(&new, group, old.as_deref(), links, &mut refused);
                }
            }
            // The gateway is looked at before the place in the table (fib_table_insert).
            refused.sort_by_key(|(at, error)| (*at, *error == Errno::Eexist));
            refused.dedup_by_key(|(at, _)| *at);
            new.dead = refused.iter().map(|(at, _)| *at as u32).collect();
            self.put_block(Some(Box::new(new.clone())));
        }
        refused.iter().map(|(at, error)| (new.route(*at).to, *error)).collect()
    }

    /// Whether all routes of a group are certainly good, without looking at each.
    fn group_passes(&self, new: &Installed, group: usize, links: &Links) -> bool {
        let Some(link) = links.get(new.devs[group]).filter(|link| link.up) else { return false };
        let group = &new.block.groups[group];
        let (Some(&low), Some(&high)) = (group.gateways.first(), group.gateways.last()) else {
            return !group.onlink;
        };
        let named = |ip: u32| group.gateways.binary_search(&ip).is_ok();
        let special = |kind: Kind| kind == Kind::Broadcast || (group.onlink && kind == Kind::Local);
        let none_special = self.local_entries().iter().all(|entry| match entry.plen {
            32 => !special(entry.kind) || !named(entry.to),
            plen => entry.to > high || entry.to | !super::route::mask(plen) < low,
        });
        let to_all = [low, high].into_iter().any(|ip| ip == 0 || ip >= 0xe000_0000);
        let covered = group.onlink
            || self.main_entries().iter().any(|entry| {
                entry.dev == link.index
                    && entry.scope == Scope::Link
                    && entry.to <= low
                    && high <= entry.to | !super::route::mask(entry.plen)
            });
        none_special && covered && !to_all
    }

    fn check_group(
        &self,
        new: &Installed,
        group: usize,
        old: Option<&Installed>,
        links: &Links,
        refused: &mut Vec<(usize, Errno)>,
    ) {
        for at in 0..new.block.keys.len() {
            let in_group = usize::from(new.block.group_of[at]) == group;
            if !in_group || new.except_at == Some(at as u32) {
                continue;
            }
            let route = new.route(at);
            let (to, plen) = (u32::from(route.to.addr()), route.to.prefix_len());
            let stays = old.is_some_and(|old| {
                old.position(to, plen).is_some_and(|was| old.route(was) == route)
            });
            if !stays && let Err(error) = self.check(route, new.proto, links) {
                refused.push((at, error));
            }
        }
    }

    /// For sets that cannot be a block: every route by itself.
    fn set_one_by_one(
        &mut self,
        proto: Proto,
        set: &RouteSet,
        links: &Links,
    ) -> Vec<(Ipv4Net, Errno)> {
        if self.block().is_some_and(|block| block.proto == proto) {
            self.take_block();
        }
        let wanted: Vec<&Route> = set.iter().collect();
        let is_wanted = |entry: &super::route::Entry| {
            wanted.iter().any(|route| {
                u32::from(route.to.addr()) == entry.to
                    && route.to.prefix_len() == entry.plen
                    && (route.metric, route.via) == (entry.metric, entry.via)
                    && links.name(entry.dev) == Some(route.dev.as_str())
            })
        };
        self.retain_main(|entry| entry.proto != proto || is_wanted(entry));
        let mut refused = Vec::new();
        for route in wanted {
            let added = self.check(route, proto, links).and_then(|entry| {
                let is_it = |e: &super::route::Entry| *e == entry;
                if self.main_entries().iter().any(is_it) { Ok(()) } else { self.add(entry) }
            });
            if let Err(error) = added {
                refused.push((route.to, error));
            }
        }
        refused
    }
}
