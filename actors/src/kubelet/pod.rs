//! What is known of one pod, and how news of it is taken in. What to do about it stands in
//! `drive.rs`, what to tell the API in `status.rs`.

use super::admit::{Demand, Rejection};
use super::container_state::{Ctr, Next, Role, State};
use super::containers::container_specs;
use super::host_ports;
use super::local::{self, Local};
use super::probes::Verdict;
use super::supplies::Supplies;
use super::{Effect, Kubelet};
use crate::objects::{Object, PodSpec, PodStatus, Uid, wall};
use crate::ports::container::{Exit, Fault};
use crate::ports::{api, container, probe};
use crate::recorder::Tidings;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, ContainerStatus};
use kubesim_runtime::near;
use kubesim_runtime::{Context, Time};
use smol_str::SmolStr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Pod {
    /// By which the runtime knows it. A static pod's is made from its manifest.
    pub uid: Uid,
    /// What it should be: the API's object or the manifest.
    pub object: Arc<Object>,
    /// The object in the API that tells how it is: itself, or its mirror.
    pub record: Option<Arc<Object>>,
    pub is_static: bool,
    /// False once the API or the manifests know it no more.
    pub wanted: bool,
    pub rejected: Option<Rejection>,
    pub sandbox: Sandbox,
    /// Held in the address pool while the sandbox is being made or there.
    pub ip: Option<Ipv4Addr>,
    /// Init containers first, in the order of the spec, then its containers; ephemeral ones in the
    /// order in which they were put there.
    pub containers: Vec<Ctr>,
    /// Succeeded or Failed, once and for all.
    pub outcome: Option<&'static str>,
    pub report: Report,
    /// What it asks for, once admitted.
    pub demand: Option<Demand>,
    pub sandbox_retry: Retry,
    /// Its volumes and what they are made of, if it has any.
    pub supplies: Option<Box<Supplies>>,
    /// Of the node, that lead to it.
    pub ports: Box<[host_ports::Port]>,
    /// The alarm as it is set.
    pub armed: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    None,
    Creating,
    Up,
    Removing,
}

/// What is under way between this pod and its record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Something happened since the status was last compared with what the API knows.
    pub dirty: bool,
    pub status_in_flight: bool,
    pub delete_in_flight: bool,
    /// The final delete was carried out (or found nothing to do).
    pub deleted: bool,
    pub retry: Retry,
}

/// When to try again: 1 s after the first failure, doubling to 10 s.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retry {
    failures: u32,
    pub at: Time,
}

impl Retry {
    pub fn failed(&mut self, ctx: &mut Context<'_, Kubelet>) {
        let delay = Duration::from_secs(1 << self.failures.min(3)).min(Duration::from_secs(10));
        self.failures += 1;
        self.at = ctx.now() + ctx.rng().jitter(delay, 0.2);
    }
    pub fn reset(&mut self) {
        *self = Retry::default();
    }
}

impl Pod {
    pub fn new(uid: Uid, object: Arc<Object>, is_static: bool) -> Self {
        let spec = object.pod().map(|(spec, _)| Arc::clone(spec)).unwrap_or_default();
        let inits = spec.init_containers.iter().flatten().map(Ctr::init);
        let mains = spec.containers.iter().map(|c| Ctr::new(c, Role::Main));
        let containers = inits.chain(mains).collect();
        let supplies = Supplies::of(&spec, &object.key.namespace);
        let mut pod = Pod {
            uid,
            record: (!is_static).then(|| Arc::clone(&object)),
            object,
            is_static,
            wanted: true,
            rejected: None,
            sandbox: Sandbox::None,
            ip: None,
            containers,
            outcome: None,
            report: Report::default(),
            demand: None,
            sandbox_retry: Retry::default(),
            ports: host_ports::of(&spec),
            supplies,
            armed: Time::NEVER,
        };
        pod.take_in_ephemerals();
        pod
    }

    /// Asks for the memory that a probe touches.
    pub fn approach(&self, pass: usize) {
        match pass {
            0 => {
                near::value(&self.uid);
                near::value(&self.containers);
                near::value(&self.outcome);
                near::value(&self.record);
                near::value(&self.object);
                near::value(&self.report);
                near::value(&self.armed);
            }
            1 => {
                near::slice(&self.containers, 8);
                near::value(&*self.object);
                if let Some(record) = &self.record {
                    near::value(&**record);
                }
            }
            _ => {
                self.containers.iter().for_each(|ctr| ctr.probes.approach());
                if let Some((spec, _)) = self.object.pod() {
                    near::value(&spec.host_network);
                }
                near::value(&self.object.meta.deletion_timestamp);
            }
        }
    }

    pub fn spec(&self) -> Arc<PodSpec> {
        self.object.pod().map(|(spec, _)| Arc::clone(spec)).unwrap_or_default()
    }
    pub fn host_network(&self) -> bool {
        self.object.pod().is_some_and(|(spec, _)| spec.host_network == Some(true))
    }
    pub fn policy(&self) -> SmolStr {
        let policy = self.object.pod().and_then(|(spec, _)| spec.restart_policy.as_deref());
        SmolStr::from(policy.unwrap_or("Always"))
    }
    /// Its address as the world sees it: the node's, if it uses the node's network.
    pub fn address(&self, node: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        match self.sandbox {
            Sandbox::Up if self.host_network() => node,
            Sandbox::Up => self.ip,
            _ => None,
        }
    }
    pub fn deleting(&self) -> bool {
        !self.is_static && self.record.as_ref().is_some_and(|record| record.deleting())
    }
    /// It is to end, or has ended.
    pub fn ending(&self) -> bool {
        !self.wanted || self.rejected.is_some() || self.outcome.is_some() || self.deleting()
    }
    /// Nothing of it is left on the node.
    pub fn is_gone(&self) -> bool {
        self.sandbox == Sandbox::None && !self.containers.iter().any(Ctr::is_active)
    }
    /// The kubelet may forget it.
    pub fn is_finished(&self) -> bool {
        let cleared = self.supplies.as_ref().is_none_or(|supplies| supplies.is_removed());
        !self.wanted && self.is_gone() && cleared && !(self.is_static && self.record.is_some())
    }

    // What the runtime and the API knew of it before this kubelet did.

    /// Takes over a sandbox that exists, or (`None`) the traces in the API of one that did.
    pub fn adopt(
        &mut self,
        found: Option<&container::SandboxState>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let told = self.record.as_ref().and_then(|r| r.pod()).map(|(_, status)| Arc::clone(status));
        let told = told.unwrap_or_default();
        self.outcome = match told.phase.as_deref() {
            Some("Succeeded") => Some("Succeeded"),
            Some("Failed") => Some("Failed"),
            _ => None,
        };
        if let Some(found) = found {
            self.sandbox = Sandbox::Up;
            self.ip = found.ip.filter(|_| !found.host_network);
        }
        let (now, wall_now) = (ctx.now(), ctx.wall());
        for ctr in &mut self.containers {
            let told = status_of(&told, &ctr.name);
            let runtime = found.and_then(|f| f.containers.iter().find(|c| c.name == ctr.name));
            match (runtime, told) {
                (Some(runtime), told) => take_over(ctr, runtime, told, ctx),
                (None, Some(told)) => ctr.lost(told, now, wall_now),
                (None, None) => {}
            }
        }
    }

    // News from the runtime and the prober.

    pub fn on_sandbox_ready(
        &mut self,
        ip: Option<Ipv4Addr>,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        if self.sandbox != Sandbox::Creating {
            return;
        }
        self.sandbox = Sandbox::Up;
        self.sandbox_retry.reset();
        if self.host_network() || ip == self.ip {
            return;
        }
        // The runtime kept to a sandbox it had already, with another address.
        if let Some(ours) = self.ip.take() {
            k.ipam.release(ours, self.uid);
        }
        self.ip = ip.filter(|ip| k.ipam.adopt(*ip, self.uid).is_ok());
        if self.ip.is_none() {
            // What a dead incarnation asked for came late, and the address is another pod's now.
            self.remove_sandbox(ctx);
        }
    }

    pub fn remove_sandbox(&mut self, ctx: &mut Context<'_, Kubelet>) {
        self.sandbox = Sandbox::Removing;
        let pod = self.uid;
        ctx.perform(Effect::Container(container::Request::RemoveSandbox { pod }));
    }

    /// As asked, or by itself: then its containers went with it, and it is made again.
    pub fn on_sandbox_removed(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if self.sandbox == Sandbox::Up && !self.ending() {
            self.tell(k, Tidings::normal("SandboxChanged"), || {
                "Pod sandbox changed, it will be killed and re-created.".to_owned()
            });
        }
        self.sandbox = Sandbox::None;
        if let Some(ip) = self.ip.take() {
            k.ipam.release(ip, self.uid);
        }
        let (now, wall) = (ctx.now(), ctx.wall());
        for ctr in self.containers.iter_mut().filter(|ctr| ctr.is_active()) {
            ctr.ended(&Exit::of(137), now, wall);
        }
    }

    /// `what` is `sandbox` or a container's name.
    pub fn on_refused(
        &mut self,
        what: &str,
        why: &str,
        fault: Fault,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let key = &self.object.key;
        ctx.note(|| format!("the runtime refuses {what} of {key}: {why}"));
        let now = ctx.now();
        let stepping = self.sandbox == Sandbox::Creating;
        match self.containers.iter_mut().find(|ctr| ctr.name == what) {
            Some(ctr) if !stepping => {
                if ctr.on_refused(why, fault, now) {
                    self.tell_refused(what, why, fault, k);
                }
            }
            _ => self.on_sandbox_refused(why, k, ctx),
        }
    }

    fn on_sandbox_refused(&mut self, why: &str, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if self.sandbox != Sandbox::Creating {
            return;
        }
        self.tell_no_sandbox(why, k);
        self.sandbox = Sandbox::None;
        if let Some(ip) = self.ip.take() {
            k.ipam.release(ip, self.uid);
        }
        self.sandbox_retry.failed(ctx);
    }

    pub fn on_started(
        &mut self,
        name: &str,
        attempt: u32,
        id: SmolStr,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let (now, wall) = (ctx.now(), ctx.wall());
        let Some(index) = self.containers.iter().position(|ctr| ctr.name == name) else {
            return;
        };
        if self.containers[index].on_started(attempt, id, wall) {
            self.tell_started(name, k);
            if !self.run_post_start(index, k, ctx) {
                self.containers[index].probes.begin(now, (false, false), ctx.rng());
            }
        }
    }

    pub fn on_exited(
        &mut self,
        name: &str,
        attempt: u32,
        exit: &Exit,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let (now, wall) = (ctx.now(), ctx.wall());
        let (ending, policy) = (self.ending(), self.policy());
        let Some(ctr) = self.containers.iter_mut().find(|ctr| ctr.name == name) else {
            return;
        };
        if ctr.on_exited(attempt, exit, now, wall) && !ending {
            let (key, code) = (&self.object.key, exit.code);
            ctx.note(|| {
                format!("container {name} of {key} ended with code {code} (attempt {attempt})")
            });
            if matches!(ctr.next_step(&policy, now), Next::StartAt(_)) {
                self.tell_backoff(name, k);
            }
        }
    }

    /// It was to be stopped and does not run: its end was missed.
    pub fn on_not_running(&mut self, name: &str, ctx: &mut Context<'_, Kubelet>) {
        let (now, wall) = (ctx.now(), ctx.wall());
        let Some(ctr) = self.containers.iter_mut().find(|ctr| ctr.name == name) else {
            return;
        };
        if ctr.stopping && ctr.is_running() {
            ctr.ended(&Exit::because("ContainerStatusUnknown", 137), now, wall);
        }
        ctr.stopping = false;
    }

    /// False if the result changes nothing.
    pub fn on_probe(
        &mut self,
        reply: &probe::Reply,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> bool {
        let now = ctx.now();
        let ending = self.ending();
        let is_it = |ctr: &Ctr| ctr.name == reply.container;
        let Some(index) = self.containers.iter().position(is_it) else { return false };
        let ctr = &mut self.containers[index];
        let attempt = ctr.restart_count();
        let success = reply.result.is_ok();
        let verdict = ctr.probes.answer(reply.purpose, success, attempt, now, ctx.rng());
        let key = &self.object.key;
        let why = || reply.result.as_ref().err().map_or("", |why| why.as_str());
        let mut killed = false;
        match verdict {
            Verdict::Same => {}
            Verdict::Turned => ctx.note(|| {
                let (purpose, name) = (reply.purpose, &ctr.name);
                match &reply.result {
                    Ok(()) => format!("{purpose} probe of {name} in {key} succeeds"),
                    Err(why) => format!("{purpose} probe of {name} in {key} fails: {why}"),
                }
            }),
            Verdict::Kill if ending || !ctr.is_running() || ctr.stopping => {}
            Verdict::Kill => {
                killed = true;
                let name = &ctr.name;
                ctx.note(|| {
                    format!("kills {name} of {key}: {} probe failed: {}", reply.purpose, why())
                });
            }
        }
        if !success {
            self.tell_unhealthy(&reply.container, reply.purpose, why(), k);
        }
        if killed {
            self.tell_killed(&reply.container, reply.purpose, k);
            let grace = kill_grace(&self.object, reply);
            self.stop(index, grace, k, ctx);
        }
        verdict != Verdict::Same
    }

    // News from the API.

    pub fn on_status_written(
        &mut self,
        result: Result<api::Reply, api::Error>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        self.report.status_in_flight = false;
        match result {
            Ok(api::Reply::Object(object)) => {
                self.report.retry.reset();
                let newer = |record: &Arc<Object>| {
                    record.uid == object.uid && record.version < object.version
                };
                if self.record.as_ref().is_some_and(newer) {
                    if !self.is_static {
                        self.set_object(Arc::clone(&object));
                    }
                    self.record = Some(object);
                }
            }
            Ok(api::Reply::List(_) | api::Reply::Token { .. }) => {}
            // After a conflict the view brings the newer object, and that resets the wait.
            Err(_) => self.report.retry.failed(ctx),
        }
    }

    pub fn on_deleted(
        &mut self,
        result: Result<api::Reply, api::Error>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        self.report.delete_in_flight = false;
        match result {
            Err(error) if local::is_transient(&error) => self.report.retry.failed(ctx),
            // Done, not found, or another by now: the view will show it.
            _ => self.report.deleted = true,
        }
    }
}

fn kill_grace(pod: &Object, reply: &probe::Reply) -> Duration {
    let spec = pod.pod().map(|(spec, _)| Arc::clone(spec)).unwrap_or_default();
    let of = |c: &ContainerSpec| {
        let probe = match reply.purpose {
            probe::Purpose::Startup => c.startup_probe.as_ref(),
            _ => c.liveness_probe.as_ref(),
        };
        probe.and_then(|probe| probe.termination_grace_period_seconds)
    };
    let own = container_specs(&spec).find(|c| *c.name == *reply.container).and_then(of);
    let seconds = own.or(spec.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn status_of<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let PodStatus {
        container_statuses, init_container_statuses, ephemeral_container_statuses, ..
    } = status;
    let all = [init_container_statuses, container_statuses, ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// The runtime has this container already.
fn take_over(
    ctr: &mut Ctr,
    found: &container::ContainerState,
    told: Option<&ContainerStatus>,
    ctx: &mut Context<'_, Kubelet>,
) {
    let (now, wall_now) = (ctx.now(), ctx.wall());
    let same = told.filter(|told| u32::try_from(told.restart_count) == Ok(found.attempt));
    let running = same.and_then(|told| told.state.as_ref()?.running.as_ref());
    let since = running.and_then(|running| running.started_at.as_ref()).map(|at| wall(at.0));
    ctr.next = found.attempt + 1;
    ctr.id = found.id.clone();
    ctr.last = told.and_then(|told| told.last_state.as_ref()?.terminated.clone()).map(Box::new);
    ctr.state = State::Running { since: since.unwrap_or(wall_now) };
    match (&found.exited, same) {
        (Some(exit), same) => {
            let known = same.and_then(|told| told.state.as_ref()?.terminated.clone());
            ctr.ended(exit, now, wall_now);
            if let (Some(known), State::Exited { how, .. }) = (known, &mut ctr.state) {
                **how = known;
            }
        }
        (None, Some(told)) if running.is_some() => {
            ctr.probes.begin(now, (told.started == Some(true), told.ready), ctx.rng());
        }
        (None, _) => ctr.probes.begin(now, (false, false), ctx.rng()),
    }
}
