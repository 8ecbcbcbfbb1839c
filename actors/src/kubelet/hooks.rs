//! Hooks of a container's life (pkg/kubelet/lifecycle/handlers.go), and how a container is stopped
//! around one (`killContainer` in pkg/kubelet/kuberuntime/kuberuntime_container.go).
//!
//! postStart runs once the container has started. Until it ends the container counts as being
//! started: the API hears nothing of it, it is not probed and no other one of its pod is started.
//! If it fails, the container is killed, and the restart policy has its say.
//!
//! preStop runs before each stop that the kubelet asks for, in the time that the container has to
//! end, which goes on running. One that is not over by then is left to itself.
//!
//! Nothing is remembered of a hook across a restart of the kubelet, as upstream does it: a
//! container that runs is taken to have started, and one that is to stop has its preStop hook run
//! from the beginning.

use super::containers::container_specs;
use super::local::Local;
use super::pod::Pod;
use super::probes;
use super::{Effect, Kubelet};
use crate::objects::PodSpec;
use crate::ports::container;
use crate::ports::probe::{self, Check, Get, NOT_TLS, Purpose, Request};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubesim_runtime::{Context, Time};
use smol_str::SmolStr;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// From SIGTERM to SIGKILL at least (`minimumGracePeriodInSeconds`).
const LEAST: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    PostStart,
    PreStop,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::PostStart => "postStart",
            Moment::PreStop => "preStop",
        })
    }
}

/// One that runs.
#[derive(Clone, Debug)]
pub struct Hook {
    pub moment: Moment,
    /// When it is over, if it sleeps.
    over: Time,
    /// When it is waited for no longer.
    deadline: Time,
    /// The server it asked by TLS does not speak it: it is asked again without.
    plain: bool,
}

impl Hook {
    pub fn due(&self) -> Time {
        self.over.min(self.deadline)
    }
}

/// Why a container was killed that had just started: its hook failed.
#[derive(Clone, Debug)]
pub struct Blame {
    pub message: String,
    /// From then on its back-off is told of instead.
    pub until: Time,
}

/// What there is to do for a hook.
enum Deed {
    Sleep(Duration),
    Ask(Check),
    /// It cannot be done.
    Fail(String),
}

fn handler(spec: &PodSpec, index: usize, at: Moment) -> Option<(&Container, &LifecycleHandler)> {
    let container = container_specs(spec).nth(index)?;
    let lifecycle = container.lifecycle.as_ref()?;
    let handler = match at {
        Moment::PostStart => lifecycle.post_start.as_ref(),
        Moment::PreStop => lifecycle.pre_stop.as_ref(),
    };
    Some((container, handler?))
}

/// `handlerRunner.Run`, in its order.
fn deed(handler: &LifecycleHandler, of: &Container, ip: Option<Ipv4Addr>) -> Deed {
    if let Some(exec) = &handler.exec {
        return Deed::Ask(Check::Exec { command: exec.command.clone().unwrap_or_default() });
    }
    if let Some(action) = &handler.http_get {
        return match (probes::get(action, of), ip) {
            (Some(get), Some(ip)) => Deed::Ask(Check::Http { ip, get: Arc::new(get) }),
            (None, _) => Deed::Fail("no such port of the container".to_owned()),
            (_, None) => Deed::Fail("failed to find networking container".to_owned()),
        };
    }
    match &handler.sleep {
        Some(sleep) => {
            let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
            Deed::Sleep(Duration::from_secs(seconds))
        }
        None => Deed::Fail(String::new()),
    }
}

impl Pod {
    /// The container has started. False if it has no postStart hook.
    pub(super) fn run_post_start(
        &mut self,
        index: usize,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> bool {
        // What has to end at once is not introduced to the world before.
        !self.ending() && self.begin(index, Moment::PostStart, Time::NEVER, k, ctx)
    }

    /// Stops a container that runs, after its preStop hook.
    pub(super) fn stop(
        &mut self,
        index: usize,
        grace: Duration,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        self.containers[index].stopping = true;
        let deadline = ctx.now() + grace;
        if grace.is_zero() || !self.begin(index, Moment::PreStop, deadline, k, ctx) {
            self.terminate(index, deadline, ctx);
        }
    }

    /// The whole pod is to end: a container that was to be stopped before that has no more time
    /// than the others, and nobody waits for a postStart hook. (Upstream waits for one that is a
    /// GET; the context that it cancels is not that request's.)
    pub(super) fn hurry(
        &mut self,
        index: usize,
        grace: Duration,
        k: &mut Local,
        ctx: &Context<'_, Kubelet>,
    ) {
        let ctr = &mut self.containers[index];
        match &mut ctr.hook {
            Some(hook) if hook.moment == Moment::PreStop => {
                hook.deadline = hook.deadline.min(ctx.now() + grace);
            }
            Some(_) => {
                ctr.hook = None;
                let name = ctr.name.clone();
                self.tell_failed_hook(&name, Moment::PostStart, k);
                self.tell_post_start_kills(&name, k);
            }
            None => {}
        }
    }

    /// What time brings: sleeps end, and patience.
    pub(super) fn tend_hooks(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let now = ctx.now();
        for index in 0..self.containers.len() {
            let ctr = &mut self.containers[index];
            if ctr.blame.as_ref().is_some_and(|blame| blame.until <= now) {
                ctr.blame = None;
                self.report.dirty = true;
            }
            let Some(hook) = &ctr.hook else { continue };
            if hook.over <= now {
                self.ended(index, Ok(()), k, ctx);
            } else if hook.deadline <= now {
                let (name, key) = (&ctr.name, &self.object.key);
                ctx.note(|| format!("leaves the preStop hook of {name} in {key}: no time is left"));
                ctr.hook = None;
                self.terminate(index, now, ctx);
            }
        }
    }

    /// False if the result changes nothing.
    pub(super) fn on_hook(
        &mut self,
        reply: &probe::Reply,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> bool {
        let (moment, attempt) = match reply.purpose {
            Purpose::PostStart { attempt } => (Moment::PostStart, attempt),
            Purpose::PreStop { attempt } => (Moment::PreStop, attempt),
            _ => return false,
        };
        let is_it = |ctr: &super::container_state::Ctr| ctr.name == reply.container;
        let Some(index) = self.containers.iter().position(is_it) else { return false };
        let ctr = &mut self.containers[index];
        let current = attempt == ctr.restart_count();
        let hook = ctr.hook.as_mut().filter(|hook| current && hook.moment == moment);
        match (hook, &reply.result) {
            (Some(hook), Err(why)) if why == NOT_TLS && !hook.plain => {
                hook.plain = true;
                self.ask(index, moment, k, ctx);
                false
            }
            (Some(_), result) => {
                self.ended(index, result.as_ref().copied().map_err(SmolStr::as_str), k, ctx);
                true
            }
            // It was left to itself, and the end of its container was its own.
            (None, Err(_)) if moment == Moment::PreStop => {
                self.tell_failed_hook(&reply.container, moment, k);
                false
            }
            (None, _) => false,
        }
    }

    /// False if there is none.
    fn begin(
        &mut self,
        index: usize,
        moment: Moment,
        deadline: Time,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> bool {
        if handler(&self.spec(), index, moment).is_none() {
            return false;
        }
        let ctr = &mut self.containers[index];
        ctr.hook = Some(Box::new(Hook { moment, over: Time::NEVER, deadline, plain: false }));
        let (name, key) = (&ctr.name, &self.object.key);
        ctx.note(|| format!("runs the {moment} hook of {name} in {key}"));
        self.ask(index, moment, k, ctx);
        true
    }

    fn ask(&mut self, index: usize, moment: Moment, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let (spec, ip) = (self.spec(), self.address(k.address));
        let Some((wanted, handler)) = handler(&spec, index, moment) else { return };
        let ctr = &mut self.containers[index];
        let Some(hook) = &mut ctr.hook else { return };
        match deed(handler, wanted, ip) {
            Deed::Sleep(span) => {
                hook.over = ctx.now() + span;
                self.report.dirty = true;
            }
            Deed::Ask(mut check) => {
                if let Check::Http { get, .. } = &mut check
                    && hook.plain
                {
                    *get = Arc::new(plainly(get));
                }
                let attempt = ctr.restart_count();
                let purpose = match moment {
                    Moment::PostStart => Purpose::PostStart { attempt },
                    Moment::PreStop => Purpose::PreStop { attempt },
                };
                let (pod, container) = (self.uid, ctr.name.clone());
                let request = Request { pod, container, purpose, check, timeout: None };
                ctx.perform(Effect::Probe(request));
            }
            Deed::Fail(why) => self.ended(index, Err(&why), k, ctx),
        }
    }

    fn ended(
        &mut self,
        index: usize,
        result: Result<(), &str>,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let Some(hook) = self.containers[index].hook.take() else { return };
        let (spec, moment) = (self.spec(), hook.moment);
        let name = self.containers[index].name.clone();
        let Some((wanted, handler)) = handler(&spec, index, moment) else { return };
        if hook.plain && result.is_ok() {
            let of = probes::get(handler.http_get.as_ref().unwrap_or(&Default::default()), wanted);
            if let (Some(get), Some(ip)) = (of, self.address(k.address)) {
                self.tell_fallback(&get.authority(ip), k);
            }
        }
        let failure = result.err().map(|why| self.words(&name, handler, why, k));
        if let Some(message) = &failure {
            ctx.note(|| format!("the {moment} hook fails: {message}"));
            self.tell_failed_hook(&name, moment, k);
        }
        match (moment, failure) {
            (Moment::PreStop, _) => self.terminate(index, hook.deadline, ctx),
            (Moment::PostStart, None) => {
                self.report.dirty = true;
                let (now, ctr) = (ctx.now(), &mut self.containers[index]);
                ctr.probes.begin(now, (false, false), ctx.rng());
            }
            (Moment::PostStart, Some(message)) => {
                let blame = Blame { message, until: Time::NEVER };
                self.containers[index].blame = Some(Box::new(blame));
                self.tell_post_start_kills(&name, k);
                let seconds = spec.termination_grace_period_seconds.unwrap_or(30);
                let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                self.stop(index, grace, k, ctx);
            }
        }
    }

    /// SIGTERM, and SIGKILL when the time is over. Seconds that have begun count.
    fn terminate(&mut self, index: usize, deadline: Time, ctx: &mut Context<'_, Kubelet>) {
        let left = deadline.since(ctx.now());
        let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let (pod, name) = (self.uid, self.containers[index].name.clone());
        let grace = Duration::from_secs(whole).max(LEAST);
        ctx.perform(Effect::Container(container::Request::StopContainer { pod, name, grace }));
    }

    /// As `handlerRunner.Run` words what went wrong.
    fn words(&self, name: &str, handler: &LifecycleHandler, why: &str, k: &Local) -> String {
        let key = &self.object.key;
        let pod = format!("{}_{}({})", key.name, key.namespace, self.uid);
        let of = format!("for Container {name:?} in Pod {pod:?} failed - error:");
        if let Some(exec) = &handler.exec {
            let command = exec.command.as_deref().unwrap_or_default().join(" ");
            return format!("Exec lifecycle hook ([{command}]) {of} {why}");
        }
        if let Some(action) = &handler.http_get {
            let path = action.path.as_deref().unwrap_or_default();
            let spec = self.spec();
            let wanted = container_specs(&spec).find(|wanted| wanted.name == name);
            let get = wanted.and_then(|wanted| probes::get(action, wanted));
            let at = get.zip(self.address(k.address)).map(|(get, ip)| {
                let scheme = if get.tls { "https" } else { "http" };
                format!("Get \"{scheme}://{}{}\": ", get.authority(ip), get.path)
            });
            return format!("HTTP lifecycle hook ({path}) {of} {}{why}", at.unwrap_or_default());
        }
        let tcp = handler.tcp_socket.as_ref().map(|tcp| {
            let port = match &tcp.port {
                IntOrString::Int(number) => format!("{{0 {number} }}"),
                IntOrString::String(name) => format!("{{1 0 {name}}}"),
            };
            let host = tcp.host.as_deref().unwrap_or_default();
            format!("&TCPSocketAction{{Port:{port},Host:{host},}}")
        });
        let tcp = tcp.as_deref().unwrap_or("nil");
        format!(
            "Cannot run handler: invalid handler: \
             &LifecycleHandler{{Exec:nil,HTTPGet:nil,TCPSocket:{tcp},Sleep:nil,}}"
        )
    }
}

/// The request without TLS, and without what only TLS keeps secret.
fn plainly(get: &Get) -> Get {
    let secret = |name: &str| name.eq_ignore_ascii_case("authorization");
    let headers = get.headers.iter().filter(|(name, _)| !secret(name));
    Get { tls: false, headers: headers.cloned().collect(), ..get.clone() }
}
