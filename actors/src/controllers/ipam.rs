//! Node IPAM: each Node's share of the pod network, the lowest free one first (upstream
//! `pkg/controller/nodeipam`, the RangeAllocator).
//!
//! Two live Nodes never get one share. Within an incarnation a share stays reserved for the Node
//! it was asked for until that Node has one or is gone. A patch of a former incarnation may land
//! late: therefore Nodes that are found without a share at the start are first written once (an
//! annotation, which moves their resource version on); a late patch names the old version and is
//! refused. Only then is anything handed out, and the annotation goes with it.

use super::client::{Client, Loop, Outcome, Subject};
use super::world::{Desk, ObjectChange, sides};
use crate::objects::{Key, Kind, Name, Object, Uid};
use crate::ports::api::{Request, Subresource};
use ipnet::Ipv4Net;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const FENCE: &str = "kubesim.dev/ipam-incarnation";

#[derive(Clone, Debug)]
pub struct Ipam {
    network: Ipv4Net,
    mask: u8,
    /// Who holds a share, by its number: more than one only if others wrote them.
    held: BTreeMap<u32, BTreeSet<Name>>,
    /// Shares asked for and not seen yet.
    reserved: BTreeMap<Name, (Uid, u32)>,
    /// No share below this one is free.
    first_free: u32,
    /// Nodes still to be fenced; `None` before the first view.
    unfenced: Option<BTreeMap<Name, Uid>>,
    /// Nodes that wait for the fences, or for a share to become free.
    waiting: BTreeSet<Name>,
    incarnation: u64,
}

fn subject(name: &Name) -> Subject {
    Subject::new(Loop::Ipam, Kind::Node, &Key::cluster(name.clone()))
}

fn share_of(node: &Object) -> Option<Ipv4Net> {
    node.node()?.0.pod_cidr.as_deref()?.parse().ok()
}

impl Ipam {
    pub fn new(network: Ipv4Net, mask: u8, incarnation: u64) -> Self {
        Ipam {
            network,
            mask: mask.clamp(network.prefix_len(), 32),
            held: BTreeMap::new(),
            reserved: BTreeMap::new(),
            first_free: 0,
            unfenced: None,
            waiting: BTreeSet::new(),
            incarnation,
        }
    }

    fn shares(&self) -> u32 {
        1u32.checked_shl(u32::from(self.mask - self.network.prefix_len())).unwrap_or(u32::MAX)
    }

    fn size(&self) -> u64 {
        1 << (32 - self.mask)
    }

    fn share(&self, number: u32) -> Option<Ipv4Net> {
        let base = u64::from(u32::from(self.network.network())) + u64::from(number) * self.size();
        Ipv4Net::new(u32::try_from(base).ok()?.into(), self.mask).ok()
    }

    /// The numbers of the shares that a network touches.
    fn numbers(&self, taken: Ipv4Net) -> impl Iterator<Item = u32> + use<> {
        let base = u64::from(u32::from(self.network.network()));
        let (from, to) = (u64::from(u32::from(taken.network())), u32::from(taken.broadcast()));
        let inside = self.network.contains(&taken.network()) || taken.contains(&self.network);
        let first = from.saturating_sub(base) / self.size();
        let last =
            (u64::from(to).saturating_sub(base) / self.size()).min(u64::from(self.shares()) - 1);
        (first..=last).filter(move |_| inside).map(|number| number as u32)
    }

    /// To be called after the changes of the first view of Nodes were observed.
    pub fn first_view_seen(&mut self, nodes: impl Iterator<Item = (Name, Uid)>) {
        if self.unfenced.is_none() {
            self.unfenced = Some(nodes.collect());
        }
    }

    pub fn observe(&mut self, change: &ObjectChange<'_>, client: &mut Client) {
        let (key, old, new) = sides(change);
        let (was, is) = (old.and_then(|n| share_of(n)), new.and_then(|n| share_of(n)));
        if let Some(was) = was
            && Some(was) != is
        {
            for number in self.numbers(was) {
                self.release(number, &key.name, client);
            }
        }
        if let Some(is) = is {
            for number in self.numbers(is) {
                self.held.entry(number).or_default().insert(key.name.clone());
            }
        }
        let settled = |uid: Uid| is.is_some() || new.is_none_or(|node| node.uid != uid);
        if let Some((_, number)) = self.reserved.get(&key.name).filter(|r| settled(r.0)).copied() {
            self.reserved.remove(&key.name);
            self.offer(number, client);
        }
        let fenced = self.unfenced.as_mut().is_some_and(|unfenced| {
            unfenced.get(&key.name).is_some_and(|uid| settled(*uid))
                && unfenced.remove(&key.name).is_some()
                && unfenced.is_empty()
        });
        if fenced {
            self.wake(client);
        }
        match new {
            Some(_) if is.is_none() => client.mark(subject(&key.name)),
            _ => _ = self.waiting.remove(&key.name),
        }
    }

    fn release(&mut self, number: u32, name: &Name, client: &mut Client) {
        if let Some(holders) = self.held.get_mut(&number) {
            holders.remove(name);
            if holders.is_empty() {
                self.held.remove(&number);
                self.offer(number, client);
            }
        }
    }

    fn offer(&mut self, number: u32, client: &mut Client) {
        self.first_free = self.first_free.min(number);
        self.wake(client);
    }

    fn wake(&mut self, client: &mut Client) {
        for name in std::mem::take(&mut self.waiting) {
            client.mark(subject(&name));
        }
    }

    /// The lowest share that nobody holds and none is reserved for.
    fn lowest_free(&mut self) -> Option<u32> {
        let reserved: BTreeSet<u32> = self.reserved.values().map(|(_, number)| *number).collect();
        let taken = |number: &u32| self.held.contains_key(number) || reserved.contains(number);
        let free = (self.first_free..self.shares()).find(|number| !taken(number));
        self.first_free = free.unwrap_or(self.shares());
        free
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let Some(node) = desk.world.get(Kind::Node, key).cloned() else { return };
        if share_of(&node).is_some() || node.deleting() {
            return;
        }
        let Some(unfenced) = &self.unfenced else { return };
        let mut metadata = json!({
            "uid": node.uid.to_string(),
            "resourceVersion": node.version.to_string(),
        });
        let mut patch = json!({});
        if unfenced.contains_key(&key.name) {
            metadata["annotations"] = json!({ FENCE: format!("{:016x}", self.incarnation) });
        } else if !unfenced.is_empty() {
            self.waiting.insert(key.name.clone());
            return;
        } else {
            let before = self.reserved.get(&key.name).filter(|(uid, _)| *uid == node.uid);
            let number = before.map(|(_, number)| *number).or_else(|| self.lowest_free());
            let Some((number, share)) = number.and_then(|n| Some((n, self.share(n)?))) else {
                desk.ctx.note(|| format!("no pod network is left for node {key}"));
                self.waiting.insert(key.name.clone());
                return;
            };
            self.reserved.insert(key.name.clone(), (node.uid, number));
            let text = share.to_string();
            if node.annotation(FENCE).is_some() {
                metadata["annotations"] = json!({ FENCE: null });
            }
            patch["spec"] = json!({"podCIDR": text, "podCIDRs": [text]});
        }
        patch["metadata"] = metadata;
        let (kind, key) = (Kind::Node, key.clone());
        let subresource = Subresource::Main;
        let request = Request::Patch { kind, key: key.clone(), subresource, patch };
        desk.ask(Loop::Ipam, Kind::Node, &key, request);
    }

    /// A fence that was written stands.
    pub fn answered(&mut self, outcome: &Outcome, client: &mut Client) {
        let Some(unfenced) = &mut self.unfenced else { return };
        if unfenced.is_empty() || outcome.result.is_err() {
            return;
        }
        unfenced.remove(&outcome.subject.key.name);
        if unfenced.is_empty() {
            self.wake(client);
        }
    }
}
