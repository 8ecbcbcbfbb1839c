//! HorizontalPodAutoscaler: as many pods as what they use asks for (upstream
//! `pkg/controller/podautoscaler`).
//!
//! Every 15 s an autoscaler's target is looked at, what its pods use is asked for by the port for
//! metrics, and of what that comes to ([`metric`], [`calculate`]) so much is done as its history
//! and its behavior allow ([`history`]). The target is given its size before the status tells of
//! it. What was recommended is kept in memory only, as upstream's.
//!
//! Metrics of Pods, Objects and External ones are refused, as by a cluster without an adapter for
//! them; so are targets that only have a `scale` subresource.

mod calculate;
mod history;
mod metric;
mod status;
mod target;

use super::client::{Client, Loop, Outcome, Subject};
use super::plain;
use super::tell;
use super::world::{Desk, ObjectChange, World, sides};
use crate::controllers::Effect;
use crate::objects::{Key, Kind, Object, time};
use crate::ports::api::Request;
use crate::ports::metrics;
use crate::recorder::Tidings;
use history::{History, Limits};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricStatus,
};
use kubesim_runtime::Time;
use metric::{Invalid, Measured, Metrics, Valid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use target::Target;

/// `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, Default)]
pub struct Autoscalers {
    states: BTreeMap<Key, State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// When it is looked at next.
    due: Time,
    asked: bool,
    /// What was told for this look.
    measured: Option<Measured>,
    history: History,
    /// The target is being given another size.
    rescale: Option<Rescale>,
}

#[derive(Clone, Debug)]
struct Rescale {
    from: i32,
    to: i32,
    reason: String,
    /// The status but for what becomes of this.
    status: HorizontalPodAutoscalerStatus,
}

fn subject(key: &Key) -> Subject {
    Subject::new(Loop::Autoscaler, Kind::HorizontalPodAutoscaler, key)
}

/// What is to be done about an autoscaler's target.
struct Decision {
    /// `None`: nothing.
    replicas: Option<i32>,
    reason: String,
    metrics: Option<Vec<MetricStatus>>,
    desired: i32,
}

impl Autoscalers {
    pub fn observe(&mut self, kind: Kind, change: &ObjectChange<'_>, client: &mut Client) {
        if kind == Kind::HorizontalPodAutoscaler {
            let (key, _, new) = sides(change);
            if new.is_none() {
                self.states.remove(key);
            }
            client.mark(subject(key));
        }
    }

    /// What its pods use, or why that is not known.
    pub fn measured(&mut self, reply: metrics::Reply, client: &mut Client) {
        if let Some(state) = self.states.get_mut(&reply.subject) {
            state.asked = false;
            state.measured = Some(reply.result);
            client.mark(subject(&reply.subject));
        }
    }

    pub fn sync(&mut self, key: &Key, desk: &mut Desk<'_, '_>) {
        let kind = Kind::HorizontalPodAutoscaler;
        let Some(object) = desk.world.get(kind, key).cloned() else { return };
        let state = self.states.entry(key.clone()).or_default();
        let now = desk.ctx.now();
        if object.deleting() || state.asked || state.rescale.is_some() {
            return;
        }
        if now < state.due {
            return desk.client.mark_at(state.due, subject(key));
        }
        let spec: HorizontalPodAutoscalerSpec = plain::spec(&object);
        let status: HorizontalPodAutoscalerStatus = plain::status(&object);
        Sync { object: &object, spec: &spec, stored: status.clone(), status, state }.run(desk);
    }

    /// The target has its size, or was refused it: now the status tells.
    pub fn answered(&mut self, outcome: &Outcome, world: &World, client: &mut Client, now: Now) {
        let key = &outcome.subject.key;
        let Request::Patch { .. } = &*outcome.request else { return };
        let Some(state) = self.states.get_mut(key) else { return };
        let Some(Rescale { from, to, reason, mut status }) = state.rescale.take() else { return };
        let Some(object) = world.get(Kind::HorizontalPodAutoscaler, key) else { return };
        let of = tell::name(Loop::Autoscaler);
        let (able, wall) = ("AbleToScale", now.wall);
        match &outcome.result {
            Ok(_) => {
                let spec: HorizontalPodAutoscalerSpec = plain::spec(object);
                state.history.scaled(from, to, spec.behavior.as_ref(), now.time);
                let message =
                    format!("the HPA controller was able to update the target scale to {to}");
                status::set(&mut status, able, true, ("SucceededRescale", &message), wall);
                status.desired_replicas = to;
                status.last_scale_time = Some(time(wall));
                client.recorder.tell(of, object, Tidings::normal("SuccessfulRescale"), || {
                    format!("New size: {to}; reason: {reason}")
                });
            }
            Err(error) => {
                let why = &error.message;
                let message =
                    format!("the HPA controller was unable to update the target scale: {why}");
                status::set(&mut status, able, false, ("FailedUpdateScale", &message), wall);
                client.recorder.tell(of, object, Tidings::warning("FailedRescale"), || {
                    format!("New size: {to}; reason: {reason}; error: {why}")
                });
            }
        }
        if let Some(request) = plain::write_status(object, &status) {
            client.ask(outcome.subject.clone(), request);
        }
    }
}

/// The moment of an answer, on both clocks.
#[derive(Clone, Copy)]
pub struct Now {
    pub time: Time,
    pub wall: kubesim_runtime::Wall,
}

/// One look at one autoscaler.
struct Sync<'a> {
    object: &'a Arc<Object>,
    spec: &'a HorizontalPodAutoscalerSpec,
    stored: HorizontalPodAutoscalerStatus,
    /// As it is to be.
    status: HorizontalPodAutoscalerStatus,
    state: &'a mut State,
}

impl Sync<'_> {
    fn run(mut self, desk: &mut Desk<'_, '_>) {
        let (world, namespace) = (desk.world, &self.object.key.namespace);
        let target = match target::find(&self.spec.scale_target_ref, namespace, world) {
            Ok(target) => target,
            Err(why) => {
                self.tell(Tidings::warning("FailedGetScale"), why.clone(), desk);
                let message = format!(
                    "the HPA controller was unable to get the target's current scale: {why}"
                );
                self.set("AbleToScale", false, ("FailedGetScale", &message), desk);
                return self.end(desk);
            }
        };
        self.state.history.begin(target.replicas, desk.ctx.now());
        let least = self.spec.min_replicas.unwrap_or(1);
        let most = self.spec.max_replicas;
        let needs_metrics = target.replicas <= most
            && target.replicas >= least
            && (target.replicas != 0 || least == 0);
        if needs_metrics && self.state.measured.is_none() {
            return self.ask(&target, desk);
        }
        let message = "the HPA controller was able to get the target's current scale";
        self.set("AbleToScale", true, ("SucceededGetScale", message), desk);
        let current = target.replicas;
        let forced = |to, reason: &str| Decision {
            replicas: Some(to),
            reason: reason.to_owned(),
            metrics: None,
            desired: to,
        };
        let decision = if current == 0 && least != 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.set("ScalingActive", false, ("ScalingDisabled", message), desk);
            Some(Decision { replicas: None, reason: String::new(), metrics: None, desired: 0 })
        } else if current > most {
            Some(forced(most, "Current number of replicas above Spec.MaxReplicas"))
        } else if current < least {
            Some(forced(least, "Current number of replicas below Spec.MinReplicas"))
        } else {
            self.decide(&target, desk)
        };
        self.status.current_replicas = Some(current);
        let Some(decision) = decision else { return self.end(desk) };
        self.status.current_metrics = decision.metrics;
        match decision.replicas.filter(|to| *to != current) {
            Some(to) => self.rescale(&target, to, decision.reason, desk),
            None => {
                self.status.desired_replicas = decision.desired;
                self.end(desk);
            }
        }
    }

    fn ask(self, target: &Target<'_>, desk: &mut Desk<'_, '_>) {
        self.state.asked = true;
        let (subject, selector) = (self.object.key.clone(), target.selector.clone());
        let namespace = subject.namespace.clone();
        let request = metrics::Request { subject, namespace, selector };
        desk.ctx.perform(Effect::Metrics(request));
    }

    /// What the metrics come to; `None` if nothing is known.
    fn decide(&mut self, target: &Target<'_>, desk: &mut Desk<'_, '_>) -> Option<Decision> {
        let current = target.replicas;
        let measured = self.state.measured.take()?;
        let pods = target.pods(desk.world);
        let metrics = Metrics { measured: &measured, pods: &pods, current, now: desk.ctx.wall() };
        let specs = self.spec.metrics.as_deref().unwrap_or_default();
        let judged = specs.iter().map(|spec| metrics.judge(spec));
        let (valid, invalid): (Vec<_>, Vec<_>) = judged.partition(Result::is_ok);
        let valid: Vec<Valid> = valid.into_iter().filter_map(Result::ok).collect();
        let invalid: Vec<Invalid> = invalid.into_iter().filter_map(Result::err).collect();
        for one in &invalid {
            self.tell(Tidings::warning(one.reason), one.why.clone(), desk);
        }
        // Of the largest, the first.
        let best = valid.iter().rev().max_by_key(|one| one.replicas);
        let statuses: Vec<MetricStatus> = valid.iter().map(|one| one.status.clone()).collect();
        // What is not known might be why it must not shrink.
        let unsure = best.is_none_or(|best| !invalid.is_empty() && best.replicas < current);
        let (Some(best), false) = (best, unsure) else {
            if let Some(first) = invalid.first() {
                let message =
                    format!("the HPA was unable to compute the replica count: {}", first.why);
                self.set("ScalingActive", false, (first.reason, &message), desk);
                let message = format!(
                    "invalid metrics ({} invalid out of {}), first error is: {}",
                    invalid.len(),
                    specs.len(),
                    first.among
                );
                self.tell(Tidings::warning("FailedComputeMetricsReplicas"), message, desk);
            }
            self.status.current_metrics = Some(statuses).filter(|all| !all.is_empty());
            return None;
        };
        let message = format!(
            "the HPA was able to successfully calculate a replica count from {}",
            best.name
        );
        self.set("ScalingActive", true, ("ValidMetricFound", &message), desk);
        let reason = match best.replicas > current {
            true => format!("{} above target", best.name),
            false => "All metrics below target".to_owned(),
        };
        let limits = Limits {
            least: self.spec.min_replicas.unwrap_or(1),
            most: self.spec.max_replicas,
            current,
            behavior: self.spec.behavior.as_ref(),
        };
        let to = self.state.history.normalize(best.replicas, limits, desk.ctx.now());
        self.set("AbleToScale", true, to.able, desk);
        let (limited, why) = to.limited;
        self.set("ScalingLimited", limited, why, desk);
        let metrics = Some(statuses).filter(|all| !all.is_empty());
        Some(Decision { replicas: Some(to.replicas), reason, metrics, desired: to.replicas })
    }

    fn rescale(self, target: &Target<'_>, to: i32, reason: String, desk: &mut Desk<'_, '_>) {
        let (key, from) = (&self.object.key, target.replicas);
        desk.ctx.note(|| format!("autoscaler {key} scales from {from} to {to}: {reason}"));
        self.state.measured = None;
        self.state.due = desk.ctx.now() + PERIOD;
        self.state.rescale = Some(Rescale { from, to, reason, status: self.status });
        desk.client.ask(subject(key), target.scale(to));
    }

    /// Tells what there is to tell; the next look comes in its time.
    fn end(self, desk: &mut Desk<'_, '_>) {
        let key = &self.object.key;
        self.state.measured = None;
        self.state.due = desk.ctx.now() + PERIOD;
        desk.client.mark_at(self.state.due, subject(key));
        if self.status != self.stored
            && let Some(request) = plain::write_status(self.object, &self.status)
        {
            desk.client.ask(subject(key), request);
        }
    }

    fn set(&mut self, kind: &str, holds: bool, why: (&str, &str), desk: &Desk<'_, '_>) {
        status::set(&mut self.status, kind, holds, why, desk.ctx.wall());
    }

    fn tell(&self, what: Tidings, message: String, desk: &mut Desk<'_, '_>) {
        desk.client.recorder.tell(tell::name(Loop::Autoscaler), self.object, what, || message);
    }
}
