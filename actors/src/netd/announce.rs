//! Told directly: a node whose address changed says so to every peer itself, since the API may be
//! what it can no longer reach, or what moved.
//!
//! A statement is signed with the node's key and sent to every locator we ever knew the peer by,
//! again and again (200 ms, 400 ms … 5 s) until the peer answers that it has heard this
//! generation, or until the API has the new locator and a minute has passed. A server goes on once
//! a minute: who was off meanwhile has no API to hear it from. Nothing is said directly at boot: a
//! locator that never was another one goes through the API alone, so that 2,000 machines do not
//! tell each other 4,000,000 times. Only what was still to be told when netd ended, as the file
//! has it, is told on.

use super::memory::Known;
use super::peer::{self, Ask, Signed, Statement};
use super::plan::{Peer, Place};
use super::{Effect, Netd, SMALL, Timer, plan};
use crate::objects::{Name, View};
use crate::ports::packets::{Body, Reply, Request};
use kubesim_runtime::{Change, Context, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(5);
/// How long after the API has the new locator silent peers are told on.
const ENOUGH: Duration = Duration::from_secs(60);
/// How often a server tells peers after that.
const SERVER: Duration = Duration::from_secs(60);
/// The file gets this long to take a generation before it is told regardless.
const FILE: Duration = Duration::from_millis(100);
/// Former addresses remembered of a peer.
const FORMER: usize = 4;

/// What peers told us.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Newer than what the API shows.
    pub places: plan::Told,
    /// The key each of those was verified with.
    pub keys: BTreeMap<Name, Name>,
    /// Other addresses a peer once had, newest first.
    pub former: BTreeMap<Name, Vec<Ipv4Addr>>,
}

impl Told {
    pub fn add_former(&mut self, node: &Name, ip: Ipv4Addr) {
        let list = self.former.entry(node.clone()).or_default();
        list.retain(|known| *known != ip);
        list.insert(0, ip);
        list.truncate(FORMER);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Announce {
    /// Peers that have not heard our generation.
    pub(super) untold: BTreeSet<Name>,
    /// The generation they are told, and whether they are all that the API knows.
    begun: (u64, bool),
    pub(super) since: Time,
    pub(super) round: u32,
    pub api_lost: bool,
    /// The time it was lost, if it is.
    pub lost_at: Option<Time>,
    /// That this takes long was remarked on.
    pub remarked: bool,
    /// The API was there once in this life.
    pub api_found: bool,
    /// A peer whose forged statement was already remarked on.
    forged: BTreeSet<Name>,
    pub bind_failed: bool,
    /// Where somebody who could not prove it said a server is, newest first.
    pub hints: BTreeMap<Name, Vec<Ipv4Addr>>,
}

impl Netd {
    /// Our locator changed: all peers are to hear of it.
    pub(super) fn announce_move(&mut self, ctx: &mut Context<'_, Self>) {
        let me = &self.config.node;
        let names = |peers: &[Peer]| -> BTreeSet<Name> {
            peers.iter().map(|peer| peer.node.clone()).filter(|node| node != me).collect()
        };
        self.announce.untold = match &self.subnets {
            Some(view) => names(&plan::peers_of(view)),
            None => self.memory.peers.keys().filter(|node| *node != me).cloned().collect(),
        };
        self.announce.begun = (self.lease.generation, self.subnets.is_some());
        self.announce.since = ctx.now();
        self.announce.round = 0;
        self.tell_though_not_written(ctx);
    }

    /// An earlier life moved and may not have got round to telling everybody, or this one did not
    /// know yet whom to tell.
    pub(super) fn announce_untold(&mut self, ctx: &mut Context<'_, Self>) {
        let begun = (self.lease.generation, self.subnets.is_some());
        if self.lease.is_untold() && self.announce.begun < begun {
            self.announce_move(ctx);
        }
    }

    /// Remembers that everybody was told, once that is so.
    fn note_told(&mut self) {
        let all = self.announce.begun == (self.lease.generation, true);
        if all && self.announce.untold.is_empty() && self.lease.is_untold() {
            self.lease.told = self.lease.generation;
            self.memory.changed = true;
        }
    }

    /// A full disk must not keep a node from being found.
    pub(super) fn tell_though_not_written(&mut self, ctx: &mut Context<'_, Self>) {
        ctx.set_timer(Timer::Announce, FILE);
    }

    /// The file holds the generation: it may be told.
    pub(super) fn announce_now(&mut self, ctx: &mut Context<'_, Self>) {
        if !self.announce.untold.is_empty() && self.announce.round == 0 {
            self.announce_again(ctx);
        }
    }

    /// One round of telling and asking.
    pub(super) fn announce_again(&mut self, ctx: &mut Context<'_, Self>) {
        if !self.lease.durable && self.lease.generation > 0 {
            self.lease.durable = true;
            self.sync(ctx);
        }
        self.stop_telling_in_vain(ctx.now());
        self.note_told();
        let mut targets = self.announce.untold.clone();
        if self.announce.api_lost {
            let me = &self.config.node;
            let servers = self.config.servers.iter().map(|(name, _)| name);
            targets.extend(servers.filter(|name| *name != me).cloned());
        }
        if targets.is_empty() {
            return;
        }
        if let Some(signed) = self.say(Ask::Back, 0) {
            for node in &targets {
                for locator in self.locators_of(node) {
                    self.send(locator, &signed, ctx);
                }
            }
        }
        self.ask_to_pass_on(ctx);
        let ceiling = LAST.max(Duration::from_millis(10) * self.subnet_count() as u32);
        let delay = match self.tells_seldom(ctx.now()) {
            true => SERVER,
            false => (FIRST * (1 << self.announce.round.min(10))).min(ceiling),
        };
        self.announce.round += 1;
        ctx.set_timer(Timer::Announce, delay);
    }

    fn stop_telling_in_vain(&mut self, now: Time) {
        let gone = |node: &Name| self.subnets.is_some() && self.subnet_of(node).is_none();
        let gone: Vec<Name> = self.announce.untold.iter().filter(|n| gone(n)).cloned().collect();
        for node in &gone {
            self.announce.untold.remove(node);
        }
        let published = || {
            let stored = self.subnet_of(&self.config.node).and_then(|object| object.subnet());
            stored.is_some_and(|(_, status)| status.generation == self.lease.generation)
        };
        let enough = now.since(self.announce.since) >= ENOUGH && !self.announce.api_lost;
        if enough && !self.is_server() && published() {
            self.announce.untold.clear();
        }
    }

    /// A server of whose peers some have been silent for long.
    pub(super) fn tells_seldom(&self, now: Time) -> bool {
        self.is_server() && !self.announce.api_lost && now.since(self.announce.since) >= ENOUGH
    }

    pub(super) fn say(&self, ask: Ask, heard: u64) -> Option<Arc<Signed>> {
        let locator = self.lease.locator.filter(|_| self.lease.durable)?;
        let statement = Statement {
            node: self.config.node.clone(),
            locator: locator.addr(),
            prefix_length: locator.prefix_len(),
            generation: self.lease.generation,
            vtep_mac: self.vtep_mac,
            ask,
            heard,
        };
        Some(Arc::new(statement.sign(&self.key)))
    }

    pub(super) fn send(&self, to: Ipv4Addr, signed: &Arc<Signed>, ctx: &mut Context<'_, Self>) {
        let (to, body) = (SocketAddrV4::new(to, peer::PORT), Body::Peer(signed.clone()));
        let from_port = peer::PORT;
        ctx.perform(Effect::Packets(Request::Send { from: None, from_port, to, body }));
    }

    /// Where a node is, as of the highest generation we know.
    pub(super) fn place_of(&self, node: &Name) -> Option<Place> {
        let shown = self.subnet_of(node).and_then(|object| Peer::of(object)).map(|p| p.place);
        let known = shown.or_else(|| self.memory.peers.get(node).map(|peer| peer.place.clone()));
        let told = self.told.places.get(node).cloned();
        match (known, told) {
            (Some(known), Some(told)) if known.generation >= told.generation => Some(known),
            (known, told) => told.or(known),
        }
    }

    /// Every address a peer was ever known by, newest first.
    pub(super) fn locators_of(&self, node: &Name) -> Vec<Ipv4Addr> {
        let mut all: Vec<Ipv4Addr> =
            self.place_of(node).and_then(|p| p.locator).into_iter().collect();
        let former = self.told.former.get(node).into_iter().flatten().copied();
        let shown = self.subnet_of(node).and_then(|object| object.subnet()?.1.locator);
        let servers = self.config.servers.iter();
        let configured = servers.filter(|(name, _)| name == node).map(|(_, ip)| *ip);
        for ip in shown.into_iter().chain(former).chain(configured) {
            if !all.contains(&ip) {
                all.push(ip);
            }
        }
        all
    }

    pub(super) fn public_key_of(&self, node: &Name) -> Option<Name> {
        let shown = self.subnet_of(node).and_then(|object| object.subnet());
        let shown = shown.map(|(spec, _)| Name::from(&spec.public_key));
        shown.or_else(|| self.memory.peers.get(node).map(|peer| peer.public_key.clone()))
    }

    pub(super) fn on_packet(&mut self, reply: Reply, ctx: &mut Context<'_, Self>) {
        match reply {
            Reply::Datagram { from, body: Body::Peer(signed), .. } => {
                self.on_statement(*from.ip(), &signed, ctx);
            }
            Reply::BindFailed { port, why } => {
                self.announce.bind_failed = true;
                ctx.note(|| format!("UDP port {port} could not be bound: {why}"));
            }
            Reply::Datagram { .. } | Reply::Unreachable { .. } => {}
            // Netds say everything by datagram.
            Reply::Query { .. }
            | Reply::ListenFailed { .. }
            | Reply::Answer { .. }
            | Reply::Unanswered { .. } => {}
        }
    }

    pub(super) fn rebind(&mut self, ctx: &mut Context<'_, Self>) {
        if std::mem::take(&mut self.announce.bind_failed) {
            let (address, port) = (Ipv4Addr::UNSPECIFIED, peer::PORT);
            ctx.perform(Effect::Packets(Request::Bind { address, port }));
        }
    }

    fn on_statement(&mut self, from: Ipv4Addr, signed: &Arc<Signed>, ctx: &mut Context<'_, Self>) {
        let statement = &signed.statement;
        let node = &statement.node;
        if *node == self.config.node {
            return;
        }
        // Somebody we have not heard of through the API: nothing to verify it with, and no
        // subnet to send there. It asks again.
        let Some(key) = self.public_key_of(node) else {
            return self.take_hint(statement, ctx);
        };
        if !signed.is_by(&key) {
            if self.announce.forged.insert(node.clone()) {
                ctx.note(|| format!("a statement from {from} is not signed by {node}: dropped"));
            }
            return;
        }
        let known = self.place_of(node);
        let known_generation = known.as_ref().map_or(0, |place| place.generation);
        let newer = statement.generation > known_generation;
        if newer {
            self.believe(statement, key, known, ctx);
        }
        if statement.ask != Ask::Nothing {
            let heard = known_generation.max(statement.generation);
            if let Some(answer) = self.say(Ask::Nothing, heard) {
                self.send(statement.locator, &answer, ctx);
                // What was passed on is no question of who did that.
                if from != statement.locator && statement.ask == Ask::Back {
                    self.send(from, &answer, ctx);
                }
            }
            self.pass_on(from, signed, ctx);
        } else if statement.heard > self.lease.generation && self.memory.loaded {
            self.outcount(statement.heard, ctx);
        } else if statement.heard == self.lease.generation {
            self.announce.untold.remove(node);
            self.note_told();
        }
        if newer && self.announce.untold.contains(node) {
            // It was told at addresses it may have left.
            if let Some(again) = self.say(Ask::Back, 0) {
                self.send(statement.locator, &again, ctx);
            }
        }
        if newer {
            self.sync(ctx);
        }
    }

    fn believe(
        &mut self,
        statement: &Statement,
        key: Name,
        known: Option<Place>,
        ctx: &mut Context<'_, Self>,
    ) {
        let Statement { node, locator, prefix_length, generation, vtep_mac, .. } =
            statement.clone();
        let old = known.and_then(|place| place.locator).filter(|old| *old != locator);
        if let Some(old) = old {
            self.told.add_former(&node, old);
        }
        ctx.note(|| match old {
            Some(old) => format!("{node} says it is at {locator} now, no more at {old}"),
            None => format!("{node} says it is at {locator}"),
        });
        let (locator, vtep_mac) = (Some(locator), Some(vtep_mac));
        let place = Place { locator, prefix_length, generation, vtep_mac };
        self.told.places.insert(node.clone(), place);
        self.told.keys.insert(node, key);
        self.dial.outdated = true;
        self.memory.changed = true;
        self.memory.at_once = true;
    }

    /// What the API shows as well needs no second place.
    pub(super) fn forget_told(&mut self) {
        if self.told.places.is_empty() {
            return;
        }
        let Some(view) = &self.subnets else { return };
        let keys = &self.told.keys;
        self.told.places.retain(|node, place| {
            let shown = view.get(&crate::objects::Key::cluster(node.clone()));
            shown.and_then(|object| object.subnet()).is_some_and(|(spec, status)| {
                let verified = keys.get(node).is_some_and(|key| **key == *spec.public_key);
                verified && status.generation < place.generation
            })
        });
        let places = &self.told.places;
        self.told.keys.retain(|node, _| places.contains_key(node));
    }

    /// A server whose lease is gone is still where it was, and believed by its key: its lease is
    /// made anew through the connection that there is, or not at all.
    pub(super) fn remember_servers(&mut self, newer: &View) {
        for (server, _) in &self.config.servers {
            if newer.get(&crate::objects::Key::cluster(server.clone())).is_some() {
                continue;
            }
            let Some(peer) = self.subnet_of(server).and_then(|object| Peer::of(object)) else {
                continue;
            };
            let place = self.place_of(server).unwrap_or(peer.place);
            let known = Known { subnet: peer.subnet, place, public_key: peer.public_key };
            self.memory.peers.insert(server.clone(), known);
        }
    }

    /// In a small cluster the addresses that peers leave are kept to look for them there.
    pub(super) fn remember_moves(&mut self, newer: &View) {
        let Some(old) = self.subnets.as_ref().filter(|_| newer.len() <= SMALL) else {
            return;
        };
        let locator =
            |object: &crate::objects::Object| object.subnet().and_then(|(_, s)| s.locator);
        for change in old.diff(newer) {
            match change {
                Change::Changed { key, old, new } => {
                    if let Some(left) = locator(old).filter(|left| Some(*left) != locator(new)) {
                        self.told.add_former(&key.name, left);
                    }
                }
                Change::Removed(key, _) => {
                    if !self.config.servers.iter().any(|(server, _)| *server == key.name) {
                        self.told.former.remove(&key.name);
                    }
                }
                Change::Added(..) => {}
            }
        }
        self.memory.changed = true;
    }
}
