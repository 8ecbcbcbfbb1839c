//! The claims of a pod and the node that it gets (upstream
//! `pkg/scheduler/framework/plugins/volumebinding`): a volume is where it is; a claim that waits
//! for its first pod gets a volume where that pod will be. The pod is held on its node until the
//! controllers have bound what it claims, and bound then.

use super::{Call, Scheduler, What};
use crate::objects::{Key, Kind, Name, Object, PodSpec, Uid, View};
use crate::ports::api::{Reply, Request, Subresource};
use crate::storage::{self, Wish};
use kubesim_runtime::{Context, Time};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The kinds that are watched for this besides.
pub const WATCHED: [Kind; 3] =
    [Kind::PersistentVolumeClaim, Kind::PersistentVolume, Kind::StorageClass];

/// `bindTimeoutSeconds` of VolumeBindingArgs.
const TIMEOUT: Duration = Duration::from_secs(600);

const AFFINITY: &str = "node(s) had volume node affinity conflict";
const NONE_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// Pods that are held on a node, by their keys.
#[derive(Clone, Debug, Default)]
pub struct Held(BTreeMap<Key, Hold>);

#[derive(Clone, Debug)]
struct Hold {
    uid: Uid,
    node: u32,
    since: Time,
    claims: Vec<Chosen>,
}

/// What was chosen for a claim that was not bound.
#[derive(Clone, Debug)]
struct Chosen {
    claim: Key,
    uid: Uid,
    choice: Choice,
    /// Which version of the claim or the volume says so, once that is answered.
    written: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// This volume, which there is.
    Volume(Name),
    /// One that is made on the node.
    Made,
    /// Another pod, or a former life, has chosen.
    Another,
}

/// What a pod's claims demand of a node.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    volumes: Vec<Arc<Object>>,
    /// A volume is bound that is not there.
    lost: bool,
    /// Claims that wait for their first pod, each with its class.
    unbound: Vec<(Arc<Object>, Arc<Object>)>,
}

impl Scheduler {
    fn view(&self, kind: Kind) -> Option<&View> {
        self.views.get(&kind)
    }

    /// `None` for a pod without claims. The error says why it can go nowhere (`PreFilter`).
    pub(super) fn needs(&self, pod: &Object, spec: &PodSpec) -> Result<Option<Needs>, String> {
        let names = match self.watches_claims {
            true => storage::claims_of(spec),
            false => Vec::new(),
        };
        if names.is_empty() {
            return Ok(None);
        }
        let (claims, volumes) =
            (self.view(Kind::PersistentVolumeClaim), self.view(Kind::PersistentVolume));
        let classes = self.view(Kind::StorageClass);
        let (mut needs, mut immediate) = (Needs::default(), false);
        for name in names {
            let key = Key::new(pod.key.namespace.clone(), name);
            let Some(claim) = claims.and_then(|all| all.get(&key)) else {
                return Err(format!("persistentvolumeclaim \"{name}\" not found"));
            };
            let volume = storage::text(claim, "spec.volumeName");
            if storage::phase(claim) == "Lost" {
                return Err(format!(
                    "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \
                     \"{volume}\""
                ));
            }
            if claim.deleting() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let class = Key::cluster(storage::class(claim));
            let class = classes.and_then(|all| all.get(&class)).filter(|one| storage::waits(one));
            if storage::is_bound(claim) {
                match volumes.and_then(|all| all.get(&Key::cluster(volume))) {
                    Some(volume) => needs.volumes.push(Arc::clone(volume)),
                    None => needs.lost = true,
                }
            } else if let Some(class) = class.filter(|_| volume.is_empty()) {
                needs.unbound.push((Arc::clone(claim), Arc::clone(class)));
            } else {
                immediate = true;
            }
        }
        match immediate {
            true => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
            false => Ok(Some(needs)),
        }
    }

    /// Why the pod may not go to this node; `None` if it may.
    pub(super) fn unreachable(&self, needs: &Needs, node: &Object) -> Option<&'static str> {
        if needs.lost {
            return Some(NO_VOLUME);
        }
        if needs.volumes.iter().any(|volume| !storage::reaches(volume, node)) {
            return Some(AFFINITY);
        }
        self.choose(needs, node).is_none().then_some(NONE_TO_BIND)
    }

    /// For each claim that is not bound, what it gets on this node.
    fn choose(&self, needs: &Needs, node: &Object) -> Option<Vec<Chosen>> {
        let mut chosen: Vec<Chosen> = Vec::new();
        for (claim, class) in &needs.unbound {
            let before = claim.annotation(storage::SELECTED_NODE).map(Name::from);
            let before = before.or_else(|| self.held.node_of(claim, &self.nodes.all));
            let choice = match before {
                Some(before) if before == node.key.name => Choice::Another,
                Some(_) => return None,
                None => self.choice(claim, class, node, &chosen)?,
            };
            let (claim, uid) = (claim.key.clone(), claim.uid);
            chosen.push(Chosen { claim, uid, choice, written: None });
        }
        Some(chosen)
    }

    fn choice(
        &self,
        claim: &Object,
        class: &Object,
        node: &Object,
        others: &[Chosen],
    ) -> Option<Choice> {
        let taken = |volume: &Object| {
            let is = |chosen: &Chosen| chosen.choice == Choice::Volume(volume.key.name.clone());
            others.iter().any(is) || self.held.chosen().any(is)
        };
        let volumes = self.view(Kind::PersistentVolume);
        let found = volumes.and_then(|all| Wish::of(claim).best(all, Some(node), true, taken));
        if let Some(volume) = found {
            return Some(Choice::Volume(volume.key.name.clone()));
        }
        let possible = match storage::text(class, "provisioner") {
            storage::NOBODY => false,
            storage::PROVISIONER => node.annotation(storage::DIRECTORY).is_some(),
            _ => true,
        };
        (possible && storage::allows(class, node)).then_some(Choice::Made)
    }

    /// Holds the pod on the node, and writes what was chosen. False if all is bound already.
    pub(super) fn hold(&mut self, pod: &Object, needs: &Needs, number: u32, now: Time) -> bool {
        if needs.unbound.is_empty() {
            return false;
        }
        let node = &self.nodes.all[number as usize];
        let Some(object) = &node.object else { return false };
        let claims = self.choose(needs, object).unwrap_or_default();
        let name = node.name.clone();
        for (chosen, (claim, _)) in claims.iter().zip(&needs.unbound) {
            if let Some(request) = self.request(&chosen.choice, claim, &name) {
                let (pod, what) = (pod.key.clone(), What::Claim);
                self.waiting_calls.push_back(Call { pod, what, attempts: 0, request });
            }
        }
        let hold = Hold { uid: pod.uid, node: number, since: now, claims };
        self.held.0.insert(pod.key.clone(), hold);
        true
    }

    fn request(&self, choice: &Choice, claim: &Object, node: &Name) -> Option<Request> {
        let identity = |object: &Object, more: serde_json::Value| {
            let mut meta = json!({
                "uid": object.uid.to_string(),
                "resourceVersion": object.version.to_string(),
            });
            meta["annotations"] = more;
            meta
        };
        let subresource = Subresource::Main;
        match choice {
            Choice::Another => None,
            Choice::Made => {
                let meta = identity(claim, json!({storage::SELECTED_NODE: node}));
                let (kind, key) = (Kind::PersistentVolumeClaim, claim.key.clone());
                let patch = json!({"metadata": meta});
                Some(Request::Patch { kind, key, subresource, patch })
            }
            Choice::Volume(name) => {
                let key = Key::cluster(name.clone());
                let volume = self.view(Kind::PersistentVolume)?.get(&key)?;
                // What people kept for the claim is theirs.
                let more = match storage::claimed_by(volume) {
                    Some(_) => json!({}),
                    None => json!({storage::BOUND_BY_CONTROLLER: "yes"}),
                };
                let patch = json!({
                    "metadata": identity(volume, more),
                    "spec": {"claimRef": storage::reference(claim)},
                });
                Some(Request::Patch { kind: Kind::PersistentVolume, key, subresource, patch })
            }
        }
    }

    /// A write for a claim was answered.
    pub(super) fn claim_written(
        &mut self,
        call: &Call,
        reply: Option<&Reply>,
        ctx: &mut Context<'_, Self>,
    ) {
        let (Some(Reply::Object(object)), Some(hold)) = (reply, self.held.0.get_mut(&call.pod))
        else {
            return self.let_go(&call.pod, "what was chosen for its claims was not written", ctx);
        };
        for chosen in &mut hold.claims {
            let of = match &chosen.choice {
                Choice::Volume(name) => {
                    object.kind() == Kind::PersistentVolume && object.key.name == *name
                }
                _ => object.kind() == Kind::PersistentVolumeClaim && object.key == chosen.claim,
            };
            if of {
                chosen.written = Some(object.version);
            }
        }
    }

    /// Binds the pods whose claims are bound, and gives up those whose claims will not be.
    pub(super) fn release_held(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        let keys: Vec<Key> = self.held.0.keys().cloned().collect();
        for key in keys {
            let hold = &self.held.0[&key];
            match self.standing(&key, hold, now) {
                Standing::Waits => {}
                Standing::Bound => {
                    let (node, uid) = (hold.node, hold.uid);
                    self.held.0.remove(&key);
                    self.ask_to_bind(key, uid, node);
                }
                Standing::Lost(why) => self.let_go(&key, why, ctx),
            }
        }
    }

    fn standing(&self, pod: &Key, hold: &Hold, now: Time) -> Standing {
        if now >= hold.since + TIMEOUT {
            return Standing::Lost("its claims were not bound in time");
        }
        let node = &self.nodes.all[hold.node as usize];
        let Some(object) = &node.object else { return Standing::Lost("its node is gone") };
        let mut bound = true;
        for chosen in &hold.claims {
            let claims = self.view(Kind::PersistentVolumeClaim);
            let claim = claims.and_then(|all| all.get(&chosen.claim));
            let Some(claim) = claim.filter(|claim| claim.uid == chosen.uid && !claim.deleting())
            else {
                return Standing::Lost("a claim of it is gone");
            };
            let volumes = self.view(Kind::PersistentVolume);
            let volume = |name: &str| volumes.and_then(|all| all.get(&Key::cluster(name)));
            if storage::is_bound(claim) {
                match volume(storage::text(claim, "spec.volumeName")) {
                    Some(volume) if storage::reaches(volume, object) => continue,
                    Some(_) => return Standing::Lost("a claim of it was bound elsewhere"),
                    None => {}
                }
            }
            bound = false;
            let selected = claim.annotation(storage::SELECTED_NODE);
            let stands = match &chosen.choice {
                Choice::Made => {
                    let seen = chosen.written.is_some_and(|version| version <= claim.version);
                    !seen || selected == Some(node.name.as_str())
                }
                Choice::Volume(name) => volume(name).is_some_and(|volume| {
                    let seen = chosen.written.is_some_and(|version| version <= volume.version);
                    !seen || storage::is_for(volume, claim)
                }),
                Choice::Another => match selected {
                    Some(selected) => selected == node.name,
                    None => self.held.others(pod).any(|other| other.claim == chosen.claim),
                },
            };
            if !stands {
                return Standing::Lost("what was chosen for its claims holds no more");
            }
        }
        if bound { Standing::Bound } else { Standing::Waits }
    }

    /// The pod is held no more, and tried again.
    fn let_go(&mut self, pod: &Key, why: &str, ctx: &mut Context<'_, Self>) {
        if self.held.0.remove(pod).is_none() {
            return;
        }
        ctx.note(|| format!("pod {pod} is not bound: {why}"));
        self.displace(pod);
        self.queue.back_off(pod, ctx.now());
    }
}

enum Standing {
    Waits,
    Bound,
    Lost(&'static str),
}

impl Held {
    pub fn forget(&mut self, pod: &Key) {
        self.0.remove(pod);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the next one is given up.
    pub fn due(&self) -> Option<Time> {
        self.0.values().map(|hold| hold.since + TIMEOUT).min()
    }

    fn chosen(&self) -> impl Iterator<Item = &Chosen> {
        self.0.values().flat_map(|hold| &hold.claims)
    }

    /// What was chosen for other pods, by themselves.
    fn others(&self, pod: &Key) -> impl Iterator<Item = &Chosen> {
        let others = self.0.iter().filter(move |(key, _)| *key != pod);
        let chosen = others.flat_map(|(_, hold)| &hold.claims);
        chosen.filter(|chosen| chosen.choice != Choice::Another)
    }

    /// The node on which a pod is held that has this claim.
    fn node_of(&self, claim: &Object, nodes: &[super::nodes::Node]) -> Option<Name> {
        let has = |hold: &&Hold| {
            hold.claims.iter().any(|one| one.claim == claim.key && one.uid == claim.uid)
        };
        let hold = self.0.values().find(has)?;
        nodes.get(hold.node as usize).map(|node| node.name.clone())
    }
}
