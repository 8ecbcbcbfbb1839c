//! How fast nodes may be emptied, zone by zone (upstream `nodelifecycle`: ComputeZoneState and
//! handleDisruption).
//!
//! A zone in order: 0.1 nodes a second. More than half of a zone lost (55 %, at least 3 nodes):
//! 0.01 a second in a large zone (more than 50 nodes), none in a small one. All of a zone lost:
//! 0.1 a second, for its pods have somewhere else to go. All of every zone lost: nobody is
//! evicted and what was begun is taken back, for it is more likely that we see nothing.
//!
//! Nodes that fall together are noticed within one lease period of each other. Upstream empties
//! the first of them at once; here each waits for [`PRUDENCE`], so that a lost zone or cluster is
//! known as such before anything is done about its first node.

use super::ready;
use super::taints::has_no_execute;
use crate::objects::{Name, Object};
use kubesim_runtime::Time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const RATE: Duration = Duration::from_secs(10);
const SECONDARY_RATE: Duration = Duration::from_secs(100);
const PRUDENCE: Duration = Duration::from_secs(10);
const LARGE_ZONE: usize = 50;
const UNHEALTHY_PERCENT: usize = 55;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Normal,
    Partial,
    Full,
}

#[derive(Clone, Debug, Default)]
struct Zone {
    nodes: BTreeSet<Name>,
    not_ready: BTreeSet<Name>,
    state: State,
    /// Nodes to be emptied, in turn, and from when on.
    queue: VecDeque<(Time, Name)>,
    next: Time,
}

#[derive(Clone, Debug, Default)]
pub struct Zones {
    zones: BTreeMap<String, Zone>,
    zone_of: BTreeMap<Name, String>,
    /// Nodes that may be emptied.
    granted: BTreeSet<Name>,
    queued: BTreeSet<Name>,
    /// Nodes that carry our NoExecute taint.
    tainted: BTreeSet<Name>,
    /// Every node of every zone is lost.
    all_lost: bool,
    unsettled: BTreeSet<String>,
}

impl Zone {
    fn judge(&self) -> State {
        let (all, bad) = (self.nodes.len(), self.not_ready.len());
        if all > 0 && bad == all {
            State::Full
        } else if bad > 2 && bad * 100 >= all * UNHEALTHY_PERCENT {
            State::Partial
        } else {
            State::Normal
        }
    }

    /// Time between two nodes; `None` for never.
    fn pace(&self) -> Option<Duration> {
        match self.state {
            State::Normal | State::Full => Some(RATE),
            State::Partial if self.nodes.len() > LARGE_ZONE => Some(SECONDARY_RATE),
            State::Partial => None,
        }
    }
}

/// `GetZoneKey`: region and zone.
fn zone_key(node: &Object) -> String {
    let label = |name: &str| node.label(name).unwrap_or_default();
    let (region, zone) =
        (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"));
    if region.is_empty() && zone.is_empty() { String::new() } else { format!("{region}/{zone}") }
}

impl Zones {
    /// A Node as it is shown; `silent` if it is judged to be lost whatever is shown.
    pub fn place(&mut self, name: &Name, node: &Object, silent: bool) {
        let key = zone_key(node);
        if self.zone_of.get(name).is_some_and(|before| *before != key) {
            self.forget(name);
        }
        let zone = self.zones.entry(key.clone()).or_default();
        let mut moved = zone.nodes.insert(name.clone());
        moved |= if ready(node) && !silent {
            zone.not_ready.remove(name)
        } else {
            zone.not_ready.insert(name.clone())
        };
        if has_no_execute(node) {
            self.tainted.insert(name.clone());
        } else {
            self.tainted.remove(name);
        }
        if moved {
            self.unsettled.insert(key.clone());
        }
        self.zone_of.insert(name.clone(), key);
    }

    /// A node is judged to be lost, or not any more.
    pub fn judge(&mut self, name: &Name, lost: bool) {
        let Some(key) = self.zone_of.get(name) else { return };
        let Some(zone) = self.zones.get_mut(key) else { return };
        let moved =
            if lost { zone.not_ready.insert(name.clone()) } else { zone.not_ready.remove(name) };
        if moved {
            self.unsettled.insert(key.clone());
        }
    }

    pub fn forget(&mut self, name: &Name) {
        if let Some(key) = self.zone_of.remove(name)
            && let Some(zone) = self.zones.get_mut(&key)
        {
            zone.nodes.remove(name);
            zone.not_ready.remove(name);
            zone.queue.retain(|(_, queued)| queued != name);
            if zone.nodes.is_empty() {
                self.zones.remove(&key);
            }
            self.unsettled.insert(key);
        }
        self.granted.remove(name);
        self.queued.remove(name);
        self.tainted.remove(name);
    }

    /// Judges the zones that changed; the nodes that have to be looked at because of it.
    pub fn settle(&mut self, mut remark: impl FnMut(String)) -> Vec<Name> {
        if self.unsettled.is_empty() {
            return Vec::new();
        }
        for key in std::mem::take(&mut self.unsettled) {
            let Some(zone) = self.zones.get_mut(&key) else { continue };
            let state = zone.judge();
            if state != zone.state {
                let (bad, all) = (zone.not_ready.len(), zone.nodes.len());
                let zone_name =
                    if key.is_empty() { "the cluster".to_owned() } else { format!("zone {key}") };
                let disrupted = match state {
                    State::Normal => "is whole again",
                    State::Partial => "is disrupted in part",
                    State::Full => "is disrupted as a whole",
                };
                remark(format!("{zone_name} {disrupted}: {bad} of {all} nodes not ready"));
                zone.state = state;
            }
        }
        let was = self.all_lost;
        self.all_lost =
            !self.zones.is_empty() && self.zones.values().all(|zone| zone.state == State::Full);
        if was == self.all_lost {
            return Vec::new();
        }
        if self.all_lost {
            // What was granted has to be earned anew.
            self.granted.clear();
            return self.tainted.iter().cloned().collect();
        }
        self.zones.values().flat_map(|zone| zone.not_ready.iter().cloned()).collect()
    }

    /// A node queues for being emptied, or wants it no more.
    pub fn want_eviction(&mut self, name: &Name, wanted: bool, now: Time) {
        if !wanted {
            self.granted.remove(name);
            return;
        }
        let idle = !self.granted.contains(name) && !self.tainted.contains(name);
        if idle
            && self.queued.insert(name.clone())
            && let Some(zone) = self.zone_of.get(name).and_then(|key| self.zones.get_mut(key))
        {
            zone.queue.push_back((now + PRUDENCE, name.clone()));
        }
    }

    pub fn may_evict(&self, name: &Name, already: bool) -> bool {
        !self.all_lost && (already || self.granted.contains(name))
    }

    pub fn next_grant(&self, now: Time) -> Option<Time> {
        if self.all_lost {
            return None;
        }
        let paced = self.zones.values().filter(|zone| zone.pace().is_some());
        paced.filter_map(|zone| Some(zone.next.max(zone.queue.front()?.0).max(now))).min()
    }

    /// The nodes whose turn has come.
    pub fn grant(&mut self, now: Time) -> Vec<Name> {
        let mut granted = Vec::new();
        if self.all_lost {
            return granted;
        }
        for zone in self.zones.values_mut() {
            let Some(pace) = zone.pace() else { continue };
            while zone.next <= now {
                if zone.queue.front().is_none_or(|(from, _)| *from > now) {
                    break;
                }
                let Some((_, name)) = zone.queue.pop_front() else { break };
                self.queued.remove(&name);
                // One that came back meanwhile costs no turn.
                if zone.not_ready.contains(&name) {
                    zone.next = now + pace;
                    self.granted.insert(name.clone());
                    granted.push(name);
                }
            }
        }
        granted
    }
}
