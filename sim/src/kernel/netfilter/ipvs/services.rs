//! Services and whose turn it is, and what an owner asks of them.

use super::super::conntrack::Conntrack;
use super::connection::{Asked, Place};
use super::{Applied, Ipvs};
use ipnet::Ipv4Net;
use kubesim_actors::ports::rules::Protocol;
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::text::protocol_name;
use kubesim_actors::ports::rules::virtuals::{Virtual, VirtualSet};
use kubesim_runtime::Time;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub struct Service {
    /// It is the owner's, and not somebody else's.
    pub ours: bool,
    pub sticky: Option<u32>,
    /// The newest first (`list_add` in `__ip_vs_update_dest`), with their weights.
    pub endpoints: Vec<(Place, u32)>,
    /// Behind whom the turn begins; before the first at first.
    last: Option<Place>,
    /// Where a client comes back to, and until when (a template of ip_vs_conn.c).
    remembered: BTreeMap<Ipv4Addr, (Place, Time)>,
}

impl Service {
    pub fn weight(&self, at: Place) -> Option<u32> {
        self.endpoints.iter().find(|(place, _)| *place == at).map(|(_, weight)| *weight)
    }

    /// Those that get new connections.
    pub fn active(&self) -> impl Iterator<Item = Place> + '_ {
        self.endpoints.iter().filter(|(_, weight)| *weight > 0).map(|(place, _)| *place)
    }

    /// The endpoint of a new connection: the client's own, if the service is sticky
    /// (`ip_vs_sched_persist`; one of weight 0 counts for nothing, expire_quiescent_template), or
    /// the next one (`ip_vs_rr_schedule`).
    pub fn schedule(&mut self, client: Ipv4Addr, now: Time) -> Option<Place> {
        let Some(seconds) = self.sticky else { return self.next() };
        let had = self.remembered.get(&client).filter(|(_, until)| *until > now);
        let had = had.map(|(place, _)| *place).filter(|at| self.weight(*at).is_some_and(|w| w > 0));
        let place = had.or_else(|| self.next())?;
        let until = now + Duration::from_secs(u64::from(seconds));
        self.remembered.insert(client, (place, until));
        Some(place)
    }

    fn next(&mut self) -> Option<Place> {
        let at = |last| self.endpoints.iter().position(|(place, _)| *place == last);
        let start = self.last.and_then(at).map_or(0, |at| at + 1);
        let (before, from) = self.endpoints.split_at(start.min(self.endpoints.len()));
        let turn = from.iter().chain(before).find(|(_, weight)| *weight > 0)?.0;
        self.last = Some(turn);
        Some(turn)
    }

    pub fn put(&mut self, at: Place, weight: u32) {
        match self.endpoints.iter_mut().find(|(place, _)| *place == at) {
            Some((_, known)) => *known = weight,
            None => self.endpoints.insert(0, (at, weight)),
        }
    }

    /// If it was its turn last, the turn goes to the one before (`ip_vs_rr_del_dest`).
    pub fn remove(&mut self, at: Place) {
        let Some(place) = self.endpoints.iter().position(|(place, _)| *place == at) else { return };
        if self.last == Some(at) {
            self.last = place.checked_sub(1).map(|before| self.endpoints[before].0);
        }
        self.endpoints.remove(place);
    }
}

impl Ipvs {
    /// The owner's services become exactly these, node ports on these addresses.
    pub fn apply(
        &mut self,
        owner: SmolStr,
        shared: VirtualSet,
        local: Arc<[(Front, Arc<Virtual>)]>,
        node: &[Ipv4Net],
        conntrack: &mut Conntrack,
        now: Time,
    ) {
        let applied = Applied { owner, shared, local };
        let wanted = applied.wanted(node);
        self.applied = Some(applied);
        for (front, service) in &wanted {
            let standing = self.services.entry(*front).or_default();
            if standing.sticky != service.sticky {
                standing.remembered.clear();
            }
            (standing.ours, standing.sticky) = (true, service.sticky);
            service.endpoints.iter().for_each(|at| standing.put(*at, 1));
        }
        self.drain(&wanted, conntrack, now);
        self.services.retain(|front, service| !service.ours || wanted.contains_key(front));
        self.end_orphans(conntrack, now);
    }

    /// With a service its endpoints go (`ip_vs_unlink_service`), and with these what was on its
    /// way to them (expire_nodest_conn).
    pub fn end_orphans(&mut self, conntrack: &mut Conntrack, now: Time) {
        let services = &self.services;
        let ended = self.connections.end(|asked, _| !services.contains_key(&front_of(asked)));
        self.forget(&ended, conntrack, now);
    }

    /// What is not wanted gets no new connections, and goes once it has none.
    fn drain(
        &mut self,
        wanted: &BTreeMap<Front, Arc<Virtual>>,
        conntrack: &mut Conntrack,
        now: Time,
    ) {
        let mut gone: Vec<(Front, Place)> = Vec::new();
        for (front, service) in wanted {
            let Some(standing) = self.services.get_mut(front) else { continue };
            let at = SocketAddrV4::new(front.ip, front.port);
            for (place, weight) in &mut standing.endpoints {
                if service.endpoints.contains(place) {
                    continue;
                }
                *weight = 0;
                let busy = self.connections.count(front.protocol, at, *place, now) > 0;
                if front.protocol != Protocol::Tcp || !busy {
                    gone.push((*front, *place));
                }
            }
        }
        for (front, place) in &gone {
            if let Some(standing) = self.services.get_mut(front) {
                standing.remove(*place);
            }
        }
        // expire_nodest_conn
        let ended =
            self.connections.end(|asked, one| gone.contains(&(front_of(asked), one.endpoint)));
        self.forget(&ended, conntrack, now);
    }

    pub fn owner(&self) -> Option<&SmolStr> {
        self.applied.as_ref().map(|applied| &applied.owner)
    }

    /// The addresses the owner's device holds on a node with these.
    pub fn addresses(&self, node: &[Ipv4Net]) -> Vec<Ipv4Addr> {
        let fronts = self.applied.iter().flat_map(|applied| applied.wanted(&[]));
        let held = fronts.filter(|(front, service)| service.is_held(front, node));
        let mut held: Vec<_> = held.map(|(front, _)| front.ip).collect();
        held.dedup();
        held
    }

    /// What is not as applied; what has drained goes.
    pub fn verify(
        &mut self,
        node: &[Ipv4Net],
        conntrack: &mut Conntrack,
        now: Time,
    ) -> Vec<String> {
        let Some(applied) = &self.applied else { return Vec::new() };
        let wanted = applied.wanted(node);
        let mut missing = Vec::new();
        for (front, service) in &wanted {
            let standing = self.services.get(front);
            match standing {
                None => missing.push(said(front, "virtual service is gone")),
                Some(standing) if !standing.ours || standing.sticky != service.sticky => {
                    missing.push(said(front, "virtual service is not as applied"));
                }
                Some(_) => {}
            }
            for place in &service.endpoints {
                let (ip, port) = place;
                match standing.and_then(|standing| standing.weight(*place)) {
                    None => missing.push(said(front, &format!("real server {ip}:{port} is gone"))),
                    Some(1) => {}
                    Some(_) => {
                        let what = format!("real server {ip}:{port} is not as applied");
                        missing.push(said(front, &what));
                    }
                }
            }
        }
        let strange = self.services.iter().filter(|(f, s)| s.ours && !wanted.contains_key(f));
        let strange =
            strange.map(|(front, _)| said(front, "virtual service is none of the owner's"));
        missing.extend(strange);
        self.drain(&wanted, conntrack, now);
        missing
    }
}

impl Applied {
    fn wanted(&self, node: &[Ipv4Net]) -> BTreeMap<Front, Arc<Virtual>> {
        let own = self.local.iter().map(|(front, service)| (front, service));
        let mut wanted = BTreeMap::new();
        for (front, service) in self.shared.iter().chain(own) {
            if front.is_node_port() {
                let at = |net: &Ipv4Net| (Front { ip: net.addr(), ..*front }, Arc::clone(service));
                wanted.extend(node.iter().map(at));
            } else {
                wanted.insert(*front, Arc::clone(service));
            }
        }
        wanted
    }
}

fn front_of(asked: &Asked) -> Front {
    Front { ip: *asked.front.ip(), protocol: asked.protocol, port: asked.front.port() }
}

fn said(front: &Front, what: &str) -> String {
    format!("{} {}:{}: {what}", protocol_name(front.protocol), front.ip, front.port)
}
