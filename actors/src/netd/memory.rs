//! What netd remembers across restarts: its own subnet, locator and generation, and in small
//! clusters its peers, so that it finds them without the API.

use super::plan::{Peer, Place};
use super::{Effect, Netd, SMALL, plan};
use crate::objects::Name;
use crate::ports::files::Request;
use crate::ports::network::Mac;
use ipnet::Ipv4Net;
use kubesim_runtime::{Context, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// What changes through the API is in the API: written this seldom.
const SELDOM: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The file was read (or is not there).
    pub loaded: bool,
    /// Peers as of the file, until the API shows better, and servers that it shows no more.
    pub peers: BTreeMap<Name, Known>,
    /// Something that belongs into the file may have changed.
    pub changed: bool,
    /// And a restart without it would lose what only we know.
    pub at_once: bool,
    written: Option<Arc<str>>,
    /// How many of the API's servers it knows by their keys: without any, a machine believes
    /// nobody who says where the servers are.
    servers: usize,
    written_at: Time,
    /// The generation in the write under way.
    writing: Option<u64>,
    /// Somebody (a write of an earlier life, perhaps) put something else there.
    lost: bool,
}

impl Memory {
    pub fn rewrite_if_lost(&mut self) {
        if std::mem::take(&mut self.lost) {
            self.written = None;
            self.changed = true;
            self.at_once = true;
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub subnet: Ipv4Net,
    pub place: Place,
    pub public_key: Name,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    own: Own,
    /// Whether `peers` are all.
    complete: bool,
    peers: Vec<Record>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Own {
    subnet: Option<Ipv4Net>,
    locator: Option<Ipv4Net>,
    generation: u64,
    /// As [`Lease::told`](super::lease::Lease::told).
    #[serde(skip_serializing_if = "is_zero")]
    told: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    node: Name,
    subnet: Ipv4Net,
    /// The newest first.
    locators: Vec<Ipv4Addr>,
    prefix_length: u8,
    generation: u64,
    vtep_mac: Option<String>,
    public_key: Name,
}

impl Netd {
    pub(super) fn on_memory(&mut self, content: Option<Arc<str>>, ctx: &mut Context<'_, Self>) {
        if self.memory.loaded {
            self.memory.lost = self.memory.writing.is_none() && content != self.memory.written;
            return;
        }
        self.memory.loaded = true;
        let file: File = match &content {
            None => File::default(),
            Some(text) => serde_json::from_str(text).unwrap_or_else(|error| {
                let path = &self.config.memory;
                ctx.note(|| format!("{path} is not what netd wrote ({error}): ignored"));
                File::default()
            }),
        };
        self.memory.written = content;
        if file.own.generation > self.lease.generation {
            self.lease.generation = file.own.generation;
            self.lease.locator = file.own.locator;
            self.lease.told = file.own.told;
            self.lease.durable = true;
        }
        self.lease.cidr = self.lease.cidr.or(file.own.subnet);
        for record in file.peers {
            self.recall(record);
        }
        self.kernel.peers_known = file.complete && !self.memory.peers.is_empty();
        self.forget_told();
        self.dial.outdated = true;
        self.sync(ctx);
    }

    fn recall(&mut self, record: Record) {
        let mut locators = record.locators.into_iter();
        let place = Place {
            locator: locators.next(),
            prefix_length: record.prefix_length,
            generation: record.generation,
            vtep_mac: record.vtep_mac.as_deref().and_then(Mac::parse),
        };
        let former: Vec<_> = locators.collect();
        for ip in former.into_iter().rev() {
            self.told.add_former(&record.node, ip);
        }
        // What was told before a restart may still be newer than what the API shows.
        self.told.places.insert(record.node.clone(), place.clone());
        self.told.keys.insert(record.node.clone(), record.public_key.clone());
        let (subnet, public_key) = (record.subnet, record.public_key);
        self.memory.peers.insert(record.node, Known { subnet, place, public_key });
    }

    /// Peers to plan with while the API has shown none.
    pub(super) fn remembered_peers(&self) -> Vec<Peer> {
        let peers = self.memory.peers.iter();
        let peer = |(node, known): (&Name, &Known)| Peer {
            node: node.clone(),
            subnet: known.subnet,
            created: 0,
            public_key: known.public_key.clone(),
            place: known.place.clone(),
        };
        peers.map(peer).collect()
    }

    /// Writes the file if what belongs there differs: a generation of our own or what a peer told
    /// us at once, the rest seldom.
    pub(super) fn sync_memory(&mut self, ctx: &mut Context<'_, Self>) {
        let servers = self.servers_known();
        let memory = &self.memory;
        let more_servers = servers > memory.servers;
        let changed = memory.changed || more_servers;
        if !memory.loaded || !changed || memory.writing.is_some() {
            return;
        }
        let first = memory.written.is_none();
        let urgent = memory.at_once || !self.lease.durable || first || more_servers;
        if !urgent && ctx.now().since(memory.written_at) < SELDOM {
            return; // a resync comes by again
        }
        if self.lease.generation == 0 {
            return;
        }
        self.memory.changed = false;
        self.memory.at_once = false;
        self.memory.servers = servers;
        let content: Arc<str> = self.to_file().into();
        if self.memory.written.as_ref() == Some(&content) {
            return self.on_remembered(true, ctx);
        }
        self.memory.written = Some(content.clone());
        self.memory.written_at = ctx.now();
        self.memory.writing = Some(self.lease.generation);
        let path = self.config.memory.clone();
        ctx.perform(Effect::Files(Request::Write { path, content }));
    }

    fn servers_known(&self) -> usize {
        let others = self.config.servers.iter().map(|(name, _)| name);
        let others = others.filter(|name| **name != self.config.node);
        others.filter(|name| self.public_key_of(name).is_some()).count()
    }

    pub(super) fn on_remembered(&mut self, done: bool, ctx: &mut Context<'_, Self>) {
        let generation = self.memory.writing.take().unwrap_or(self.lease.generation);
        if !done {
            // Tried again by a resync.
            self.memory.written = None;
            self.memory.changed = true;
            return;
        }
        if generation == self.lease.generation && !self.lease.durable {
            self.lease.durable = true;
            self.announce_now(ctx);
            self.sync_lease(ctx);
        }
        self.sync_memory(ctx);
    }

    fn to_file(&self) -> String {
        let (subnet, locator) = (self.lease.cidr, self.lease.locator);
        let (generation, told) = (self.lease.generation, self.lease.told);
        let own = Own { subnet, locator, generation, told };
        let complete = self.subnet_count() <= SMALL;
        let record = |peer: &Peer, public_key: Name| {
            let place = self.place_of(&peer.node).unwrap_or_default();
            let former = self.told.former.get(&peer.node).into_iter().flatten();
            Record {
                node: peer.node.clone(),
                subnet: peer.subnet,
                locators: place.locator.iter().chain(former).copied().collect(),
                prefix_length: place.prefix_length,
                generation: place.generation,
                vtep_mac: place.vtep_mac.map(|mac| mac.to_string()),
                public_key,
            }
        };
        let key_of = |node: &Name| Some(Name::from(&self.subnet_of(node)?.subnet()?.0.public_key));
        let is_server = |node: &Name| self.config.servers.iter().any(|(name, _)| name == node);
        let worth =
            |peer: &&Peer| peer.node != self.config.node && (complete || is_server(&peer.node));
        let mut peers: Vec<Record> = match &self.subnets {
            Some(view) => {
                let peers = plan::peers_of(view);
                let worthy = peers.iter().filter(worth);
                worthy.filter_map(|peer| Some(record(peer, key_of(&peer.node)?))).collect()
            }
            None => Vec::new(),
        };
        let remembered = self.remembered_peers();
        let kept = remembered.iter().filter(|peer| match &self.subnets {
            Some(_) => is_server(&peer.node) && self.subnet_of(&peer.node).is_none(),
            None => true,
        });
        peers.extend(kept.map(|peer| record(peer, peer.public_key.clone())));
        let file = File { own, complete, peers };
        serde_json::to_string(&file).expect("string keys and plain values only")
    }
}
