//! What a pod needs beside its sandbox: volumes, and the ConfigMaps, Secrets and tokens that these
//! and its containers' environments are made of. Nothing of a pod is started before its volumes
//! are there (`WaitForAttachAndMount`, pkg/kubelet/volumemanager); files that are made of objects
//! follow them while it runs.

mod claim;
mod downward;
mod mounts;
mod needs;
mod objects;
mod project;
mod tokens;
mod volume;

pub use self::downward::{resource, unsupported};
pub use self::objects::{Data, Lack, Objects};
pub use self::volume::Backoff;

use self::project::Makings;
use self::tokens::Token;
use self::volume::{State, Wrong};
use super::env::Facts;
use super::local::Local;
use super::pod::{Pod, Retry};
use super::{Effect, Kubelet};
use crate::objects::{Key, Kind, PodSpec, Uid};
use crate::ports::api;
use crate::ports::volumes::{Reply, Request};
use crate::recorder::Tidings;
use kubesim_runtime::{Context, Time};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often what files are made of is asked for again.
const REFRESH: Duration = Duration::from_secs(30);
/// What is not older is not asked for again: pods share it.
pub const AGE: Duration = Duration::from_secs(25);

#[derive(Clone, Debug)]
pub struct Supplies {
    /// The objects that it uses.
    pub needs: Vec<(Kind, Key)>,
    /// Which of them are claims of volumes.
    claims: Vec<(Kind, Key)>,
    tokens: Vec<Token>,
    /// In the order of the spec.
    volumes: Vec<State>,
    /// Parts of volumes that containers have, each by the container and the number of its mount.
    parts: BTreeMap<(SmolStr, u32), Part>,
    /// When files are to be looked at anew; never, of a pod that has none.
    refresh: Time,
    begun: bool,
    removal: Removal,
}

#[derive(Clone, Debug)]
enum Part {
    Coming,
    Here(SmolStr),
    Wrong,
}

#[derive(Clone, Copy, Debug)]
enum Removal {
    Due(Retry),
    Asked,
    Done,
}

impl Supplies {
    /// `None` for a pod that needs nothing.
    pub fn of(spec: &PodSpec, namespace: &str) -> Option<Box<Supplies>> {
        let volumes = spec.volumes.as_deref().unwrap_or_default();
        let needs = needs::of(spec, namespace);
        if volumes.is_empty() && needs.is_empty() {
            return None;
        }
        let of_files = volumes.iter().any(|volume| project::plugin(volume).is_some());
        let claims = needs.iter().filter(|(kind, _)| *kind == Kind::PersistentVolumeClaim);
        Some(Box::new(Supplies {
            claims: claims.cloned().collect(),
            needs,
            tokens: tokens::of_pod(spec),
            volumes: volumes.iter().map(|_| State::default()).collect(),
            parts: BTreeMap::new(),
            refresh: if of_files { Time::ZERO } else { Time::NEVER },
            begun: false,
            removal: Removal::Due(Retry::default()),
        }))
    }

    /// The pod was given another container, which may need more.
    pub fn add(supplies: &mut Option<Box<Supplies>>, spec: &PodSpec, namespace: &str) {
        match supplies {
            Some(supplies) => {
                let missing = needs::of(spec, namespace).into_iter();
                let missing = missing.filter(|need| !supplies.needs.contains(need));
                let missing: Vec<_> = missing.collect();
                supplies.needs.extend(missing);
                supplies.begun = false;
            }
            None => *supplies = Supplies::of(spec, namespace),
        }
    }

    fn is_complete(&self) -> bool {
        self.volumes.iter().all(|state| state.place.is_some())
    }

    /// Nothing is to be done before this, unless something happens.
    pub fn due(&self) -> Time {
        let missing = self.volumes.iter().filter(|state| state.place.is_none() && !state.asked);
        let retry = missing.map(|state| state.retry.at()).min();
        self.refresh.min(retry.unwrap_or(Time::NEVER))
    }

    /// When its removal is tried again.
    pub fn removal_due(&self) -> Time {
        match self.removal {
            Removal::Due(retry) => retry.at,
            Removal::Asked | Removal::Done => Time::NEVER,
        }
    }

    pub fn is_removed(&self) -> bool {
        matches!(self.removal, Removal::Done)
    }

    /// A claim that names its volume: that has to be known as well.
    fn follow_claims(&mut self, k: &Local) {
        for (kind, key) in self.claims.clone() {
            let claim = k.objects.get(kind, &key, true).ok().flatten();
            let volume = claim.and_then(|data| claim::volume(data.object.as_ref()?));
            let Some(volume) = volume else { continue };
            let need = (Kind::PersistentVolume, volume);
            if !self.needs.contains(&need) {
                self.needs.push(need);
            }
        }
    }

    fn refetch(&mut self, pod: &Pod, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if !std::mem::replace(&mut self.begun, true) {
            k.objects.expect(&self.needs);
        }
        let now = ctx.now();
        let missing = self.volumes.iter().any(|state| state.is_due(now));
        let again = self.refresh <= now;
        if !missing && !again {
            return;
        }
        self.follow_claims(k);
        k.fetch(&self.needs, AGE, ctx);
        tokens::fetch(&mut self.tokens, &pod.object, k, ctx);
        if again {
            let spread = ctx.rng().jitter(REFRESH, 0.2);
            self.refresh = now + spread;
        }
    }

    /// A step towards what the spec says. True if all volumes are there.
    fn advance(&mut self, pod: &Pod, k: &mut Local, ctx: &mut Context<'_, Kubelet>) -> bool {
        self.refetch(pod, k, ctx);
        let spec = pod.spec();
        let config = Arc::clone(&k.config);
        let facts = Facts { host_ip: k.address, ..Facts::of(&pod.object, &spec, &config) };
        let mut wrong = Vec::new();
        {
            let (objects, tokens, now) = (&k.objects, &*self.tokens, ctx.wall());
            let makings = Makings { objects, tokens, facts, now };
            let volumes = spec.volumes.as_deref().unwrap_or_default();
            for (state, volume) in self.volumes.iter_mut().zip(volumes) {
                match state.next(pod.uid, volume, &makings, ctx.now()) {
                    Ok(None) => {}
                    Ok(Some(request)) => {
                        ctx.perform(Effect::Volumes(request));
                    }
                    Err(why) => {
                        state.failed(ctx.now());
                        wrong.push((&volume.name, why));
                    }
                }
            }
        }
        for (name, why) in wrong {
            match why {
                Wrong::Volume(why) => pod.tell_not_mounted(name, &why, k),
                Wrong::Unclaimed(why) => {
                    // What was said of it may be true no more.
                    k.objects.expect(&self.claims);
                    pod.tell_unclaimed(name, &why, k);
                }
            }
        }
        self.is_complete()
    }
}

impl Kubelet {
    /// A ConfigMap, a Secret, a claim or its volume, for the pods that use it.
    pub(super) fn on_need(
        &mut self,
        need: (Kind, Key),
        result: Result<api::Reply, api::Error>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        if !self.local.objects.answered(&need, result, ctx.now()) {
            return;
        }
        let users = self.pods.values().filter(|pod| pod.uses(&need)).map(|pod| pod.uid);
        let users: Vec<Uid> = users.collect();
        users.into_iter().for_each(|uid| self.sync(uid, ctx));
    }

    pub(super) fn on_volumes(&mut self, reply: Reply, ctx: &mut Context<'_, Kubelet>) {
        let uid = match &reply {
            Reply::Listed { pods } => return self.on_volumes_listed(pods, ctx),
            Reply::Discarded { path, result } => {
                return self.on_discarded(path, result.clone(), ctx);
            }
            Reply::Ready { pod, .. } | Reply::Part { pod, .. } | Reply::Removed { pod, .. } => *pod,
        };
        if let Some(pod) = self.pods.get_mut(&uid) {
            pod.on_volumes(reply, &mut self.local, ctx);
            self.sync(uid, ctx);
        }
    }
}

impl Pod {
    /// Whether all that it needs to be made is there.
    pub fn supply(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) -> bool {
        let Some(mut supplies) = self.supplies.take() else { return true };
        let complete = supplies.advance(self, k, ctx);
        self.supplies = Some(supplies);
        complete
    }

    /// Whether nothing of its volumes is left; else they are removed.
    pub fn unsupply(&mut self, ctx: &mut Context<'_, Kubelet>) -> bool {
        let Some(supplies) = &mut self.supplies else { return true };
        if let Removal::Due(retry) = supplies.removal
            && retry.at <= ctx.now()
        {
            supplies.removal = Removal::Asked;
            ctx.perform(Effect::Volumes(Request::Remove { pod: self.uid }));
        }
        supplies.is_removed()
    }

    pub fn on_volumes(&mut self, reply: Reply, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let spec = self.spec();
        let Some(supplies) = &mut self.supplies else { return };
        match reply {
            Reply::Listed { .. } | Reply::Discarded { .. } => {}
            Reply::Ready { volume, result, .. } => {
                let mut all = spec.volumes.iter().flatten().zip(&mut supplies.volumes);
                let Some((_, state)) = all.find(|(of, _)| of.name == volume) else { return };
                state.asked = false;
                match result {
                    Ok(place) => state.came(place),
                    Err(why) => {
                        state.failed(ctx.now());
                        self.tell_not_mounted(&volume, &why, k);
                    }
                }
            }
            Reply::Part { container, index, result, .. } => {
                let part = match result {
                    Ok(place) => Part::Here(place),
                    Err(why) => {
                        let key = &self.object.key;
                        ctx.note(|| format!("a volume of {container} in {key}: {why}"));
                        Part::Wrong
                    }
                };
                supplies.parts.insert((container, index), part);
            }
            Reply::Removed { result, .. } => match result {
                Ok(()) => supplies.removal = Removal::Done,
                Err(why) => {
                    let key = &self.object.key;
                    ctx.note(|| format!("removing the volumes of {key}: {why}"));
                    let mut retry = Retry::default();
                    retry.failed(ctx);
                    supplies.removal = Removal::Due(retry);
                }
            },
        }
    }

    pub fn on_token(
        &mut self,
        index: usize,
        result: Result<api::Reply, api::Error>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let Some(supplies) = &mut self.supplies else { return };
        let Some(token) = supplies.tokens.get_mut(index) else { return };
        token.answered(result, ctx);
        // Its files are looked at when the next one is due, and not later.
        let lasts = token.lasts(ctx.wall()).max(Duration::from_secs(1));
        supplies.refresh = supplies.refresh.min(ctx.now() + lasts);
    }

    pub fn uses(&self, need: &(Kind, Key)) -> bool {
        self.supplies.as_ref().is_some_and(|supplies| supplies.needs.contains(need))
    }

    /// Whether it has, or may have, the volume of this name.
    pub fn has_volume(&self, name: &str) -> bool {
        let supplies = self.supplies.as_ref().filter(|supplies| !supplies.is_removed());
        let mut volumes = supplies.into_iter().flat_map(|supplies| &supplies.volumes);
        volumes.any(|state| state.claimed.as_deref() == Some(name))
    }

    /// As `WaitForAttachAndMount` of pkg/kubelet/volumemanager/volume_manager.go words it.
    fn tell_unclaimed(&self, volume: &str, why: &str, k: &mut Local) {
        self.tell(k, Tidings::warning("FailedMount"), || {
            format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached \
                 volumes=[], failed to process volumes=[{volume}]: {why}"
            )
        });
    }

    /// As pkg/volume/util/operationexecutor/operation_generator.go words it.
    fn tell_not_mounted(&self, volume: &str, why: &str, k: &mut Local) {
        self.tell(k, Tidings::warning("FailedMount"), || {
            format!("MountVolume.SetUp failed for volume {volume:?} : {why}")
        });
    }
}

/// `fsGroup`.
fn group(spec: &PodSpec) -> Option<u32> {
    let group = spec.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}
