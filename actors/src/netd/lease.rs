//! The lease: this node's own subnet, and where it is, in the API.
//!
//! The subnet is the Node's `spec.podCIDR` (given by IPAM) and belongs to the node's uid and key.
//! The locator is the first global address of the uplink; each change counts one generation up,
//! and a generation is told to nobody before the file holds it (see `memory`), so that no two
//! addresses ever go by one generation.

use super::{Effect, Netd, Timer};
use crate::objects::{Body, Key, Kind, Object, SubnetSpec, SubnetStatus, View};
use crate::ports::api::{self, Reason, Request};
use crate::ports::network::Mac;
use ed25519_dalek::SigningKey;
use ipnet::Ipv4Net;
use kubesim_runtime::{Backoff, Context};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

const RETRY: Backoff = Backoff {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(10),
    jitter: 0.5,
    reset_after: Duration::ZERO,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    pub cidr: Option<Ipv4Net>,
    /// Address and prefix length of the uplink as of `generation`.
    pub locator: Option<Ipv4Net>,
    /// 0: never had a locator.
    pub generation: u64,
    /// The file holds this generation, or would not.
    pub durable: bool,
    /// The last generation that all peers were told directly. The first one never is.
    pub told: u64,
    /// Another machine holds the lease of this name.
    pub contested: bool,
    /// What an answer showed later than the view: the version, and the object if it exists.
    known: Option<(u64, Option<Arc<Object>>)>,
    /// The tag of the one call that is under way.
    call: Option<u64>,
    calls: u64,
    /// The view may be behind what a write met: read before writing again.
    read_first: bool,
    failures: u32,
    backing_off: bool,
}

impl Lease {
    /// There was a move that peers may not have heard of.
    pub fn is_untold(&self) -> bool {
        self.generation > self.told.max(1) && self.locator.is_some()
    }
    pub fn retry_at_will(&mut self) {
        self.backing_off = false;
        self.failures = 0;
    }
}

/// A locally administered unicast address out of the node's public key: the same after every
/// restart, so peers' FDB entries stay true.
pub(super) fn vtep_mac(key: &SigningKey) -> Mac {
    let hash = Sha256::digest(key.verifying_key().as_bytes());
    Mac([hash[0] & 0xfc | 0x02, hash[1], hash[2], hash[3], hash[4], hash[5]])
}

impl Netd {
    fn own_key(&self) -> Key {
        Key::cluster(self.config.node.clone())
    }

    /// The Subnet of this node's name as far as we know.
    fn stored(&self) -> Option<&Arc<Object>> {
        let view = self.subnets.as_ref();
        match &self.lease.known {
            Some((version, object)) if view.is_none_or(|view| *version > view.version()) => {
                object.as_ref()
            }
            _ => view?.get(&self.own_key()),
        }
    }

    /// Of another history (a restarted server's, and perhaps a lost store's): no version that was
    /// heard before is later or earlier than its own.
    pub(super) fn forget_answers(&mut self, newer: &View) {
        if self.subnets.as_ref().is_some_and(|view| view.history() != newer.history()) {
            self.lease.known = None;
        }
    }

    /// The Node says which subnet is ours; without the API the file does.
    pub(super) fn adopt_subnet(&mut self, ctx: &mut Context<'_, Self>) {
        let (Some(node), Some(conf)) = (&self.node, &self.conf) else {
            return;
        };
        let Some(text) = node.node().and_then(|(spec, _)| spec.pod_cidr.as_ref()) else {
            return;
        };
        let Ok(cidr) = text.parse::<Ipv4Net>().map(|net| net.trunc()) else {
            return ctx.note(|| format!("the Node's podCIDR {text:?} is no IPv4 network"));
        };
        if self.lease.cidr == Some(cidr) {
            return;
        }
        let network = conf.network;
        if !network.contains(&cidr) {
            let path = &self.config.net_conf;
            return ctx.note(|| {
                format!("the Node's podCIDR {cidr} is not within Network {network} of {path}")
            });
        }
        let old = self.lease.cidr.replace(cidr);
        ctx.note(|| match old {
            None => format!("subnet {cidr}"),
            Some(old) => format!("subnet {cidr} instead of {old}: the Node's podCIDR changed"),
        });
        self.memory.changed = true;
    }

    /// Takes up the uplink's address as the locator, one generation up if it is another one.
    pub(super) fn adopt_locator(&mut self, ctx: &mut Context<'_, Self>) {
        if !self.memory.loaded {
            return;
        }
        self.adopt_generation();
        let Some(address) = self.kernel.address() else {
            return;
        };
        // Without the file and without the API nobody knows which generation is next.
        let unknown = self.lease.generation == 0 && self.subnets.is_none();
        if unknown || self.lease.locator == Some(address) {
            return;
        }
        self.lease.generation = self.lease.generation.saturating_add(1);
        self.lease.durable = false;
        let (old, generation) = (self.lease.locator.replace(address), self.lease.generation);
        self.memory.changed = true;
        match old {
            None => {
                ctx.note(|| format!("locator {address}"));
                self.tell_though_not_written(ctx);
            }
            Some(old) => {
                ctx.note(|| format!("locator {address} instead of {old}, generation {generation}"));
                self.announce_move(ctx);
            }
        }
    }

    /// The API may hold a later generation than the file (a lost disk).
    fn adopt_generation(&mut self) {
        let Some((spec, status)) = self.stored().and_then(|object| object.subnet()) else {
            return;
        };
        if spec.public_key != self.public_key || status.generation <= self.lease.generation {
            return;
        }
        let (generation, locator) = (status.generation, status.locator);
        let net = locator.and_then(|ip| Ipv4Net::new(ip, status.prefix_length).ok());
        self.lease.generation = generation;
        self.lease.locator = net;
        self.lease.durable = true;
        self.memory.changed = true;
    }

    /// A peer has heard a later generation of us than we have counted: count on from there.
    pub(super) fn outcount(&mut self, heard: u64, ctx: &mut Context<'_, Self>) {
        self.lease.generation = heard.saturating_add(1);
        self.lease.durable = false;
        self.memory.changed = true;
        let generation = self.lease.generation;
        ctx.note(|| format!("generation {generation}: a peer has heard of {heard}"));
        self.announce_move(ctx);
        self.sync(ctx);
    }

    /// One step towards the Subnet object we want, if none is under way.
    pub(super) fn sync_lease(&mut self, ctx: &mut Context<'_, Self>) {
        if self.lease.call.is_some() || self.lease.backing_off || self.subnets.is_none() {
            return;
        }
        if self.lease.read_first {
            let (kind, key) = (Kind::Subnet, self.own_key());
            return self.call(Request::Get { kind, key }, ctx);
        }
        let Some(request) = self.lease_step(ctx) else {
            return;
        };
        self.call(request, ctx);
    }

    fn lease_step(&mut self, ctx: &mut Context<'_, Self>) -> Option<Request> {
        let node = self.node.as_ref().filter(|node| !node.deleting())?;
        let spec = SubnetSpec {
            node: self.config.node.clone(),
            node_uid: node.uid,
            cidr: self.lease.cidr?.to_string(),
            public_key: self.public_key.to_string(),
        };
        let owner = node.as_controller();
        let status = self.status();
        let Some(stored) = self.stored().filter(|stored| !stored.deleting()) else {
            if self.stored().is_some() {
                return None; // it is being deleted: made anew when it is gone
            }
            let (spec, status) = (Arc::new(spec), Arc::new(status?));
            let mut object = Object::new(self.own_key(), Body::Subnet { spec, status });
            Arc::make_mut(&mut object.meta).owner_references = Some(vec![owner]);
            return Some(Request::Create { object: Arc::new(object) });
        };
        let (stored_spec, stored_status) = stored.subnet()?;
        if **stored_spec != spec {
            let held = (**stored_spec).clone();
            let mut object = (**stored).clone();
            object.body = Body::Subnet { spec: Arc::new(spec), status: stored_status.clone() };
            Arc::make_mut(&mut object.meta).owner_references = Some(vec![owner]);
            let allowed = self.may_take_over(&held, ctx);
            return allowed.then(|| Request::Update { object: Arc::new(object) });
        }
        let status = status.filter(|status| *status != **stored_status)?;
        let mut object = (**stored).clone();
        object.body = Body::Subnet { spec: stored_spec.clone(), status: Arc::new(status) };
        Some(Request::UpdateStatus { object: Arc::new(object) })
    }

    /// `None` while there is no locator that may be told.
    fn status(&self) -> Option<SubnetStatus> {
        let locator = self.lease.locator.filter(|_| self.lease.durable)?;
        Some(SubnetStatus {
            locator: Some(locator.addr()),
            prefix_length: locator.prefix_len(),
            generation: self.lease.generation,
            vtep_mac: self.vtep_mac.to_string(),
        })
    }

    /// Whether a lease of our name that says something else may be overwritten. If it belongs to
    /// an earlier Node of this name, or to a machine that this Node's address says we replaced,
    /// yes; if another machine lives under our name, no.
    fn may_take_over(&mut self, held: &SubnetSpec, ctx: &mut Context<'_, Self>) -> bool {
        let Some(node) = &self.node else { return false };
        let own_key = held.public_key == *self.public_key;
        let at = self.kernel.address().map(|net| net.addr().to_string());
        let addresses = node.node().and_then(|(_, status)| status.addresses.as_ref());
        let mut internal = addresses.into_iter().flatten().filter(|a| a.type_ == "InternalIP");
        let here = internal.any(|a| Some(&a.address) == at.as_ref());
        let allowed = own_key || here || held.node_uid != node.uid;
        if !allowed && !self.lease.contested {
            let (name, key) = (&self.config.node, &held.public_key);
            ctx.note(|| {
                format!(
                    "another machine (key {key:.8}…) holds subnet {} under the name {name}, and \
                     the Node's addresses are not ours: two machines have one name",
                    held.cidr
                )
            });
        } else if allowed && !own_key {
            ctx.note(|| format!("taking over subnet {}: its machine is gone", held.cidr));
        }
        self.lease.contested = !allowed;
        allowed
    }

    fn call(&mut self, request: Request, ctx: &mut Context<'_, Self>) {
        self.lease.calls += 1;
        let tag = self.lease.calls;
        self.lease.call = Some(tag);
        let request = Arc::new(request);
        ctx.perform(Effect::Api(api::Effect::Call { tag, request }));
    }

    pub(super) fn on_answer(&mut self, answer: api::Answer, ctx: &mut Context<'_, Self>) {
        if self.lease.call != Some(answer.tag) {
            return;
        }
        self.lease.call = None;
        match answer.result {
            Ok(api::Reply::Object(object)) => {
                self.lease.failures = 0;
                self.lease.read_first = false;
                self.lease.known = Some((object.version, Some(object)));
                self.sync(ctx);
            }
            Err(error) if error.reason == Reason::NotFound && self.lease.read_first => {
                self.lease.read_first = false;
                let seen = self.subnets.as_ref().map_or(0, |view| view.version());
                self.lease.known = Some((seen + 1, None));
                self.sync(ctx);
            }
            Ok(api::Reply::List(_) | api::Reply::Token { .. }) => {}
            Err(error) => self.back_off(error, ctx),
        }
    }

    fn back_off(&mut self, error: api::Error, ctx: &mut Context<'_, Self>) {
        self.lease.read_first = !matches!(error.reason, Reason::Unreachable);
        self.lease.failures += 1;
        self.lease.backing_off = true;
        let raced =
            matches!(error.reason, Reason::Conflict | Reason::AlreadyExists | Reason::NotFound);
        let silent = matches!(error.reason, Reason::Unreachable | Reason::Unknown);
        if !raced && !silent && self.lease.failures == 1 {
            ctx.note(|| format!("the subnet could not be published: {error}"));
        }
        let delay = match raced && self.lease.failures == 1 {
            true => Duration::ZERO,
            false => RETRY.delay(self.lease.failures, ctx.rng()),
        };
        ctx.set_timer(Timer::Retry, delay);
    }

    /// The Subnet object of a node, if the API ever showed it.
    pub(super) fn subnet_of(&self, node: &crate::objects::Name) -> Option<&Arc<Object>> {
        self.subnets.as_ref()?.get(&Key::cluster(node.clone()))
    }
}
