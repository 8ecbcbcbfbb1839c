//! What to do next for one pod, from its sandbox to its removal. [`Pod::drive`] compares what
//! should be with what is and asks for the next step; it may be called at any time and any number
//! of times.

use super::admit::{self, Demand};
use super::confine;
use super::container_state::{Ctr, Next, Role, State};
use super::containers::Wanted;
use super::env::{self, Facts, Made, Variables};
use super::local::{Call, Local};
use super::pod::{Pod, Sandbox};
use super::probes::Question;
use super::resolv::{self, ClusterDns};
use super::supplies::{self, Lack};
use super::{Effect, Kubelet};
use crate::objects::PodSpec;
use crate::ports::container::{self, Fault};
use crate::ports::probe::Request;
use crate::recorder::Tidings;
use ipnet::Ipv4Net;
use kubesim_runtime::{Context, Time};
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;

impl Pod {
    pub fn drive(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if !k.listed {
            return;
        }
        if self.is_settled(ctx.now()) {
            return self.ask_probes(k, ctx);
        }
        self.tend_hooks(k, ctx);
        if self.outcome.is_none() && self.rejected.is_none() {
            self.outcome = self.find_outcome();
        }
        if !self.ending() {
            self.admit(k, ctx);
        }
        if self.ending() {
            self.end(k, ctx);
        } else {
            self.run(k, ctx);
        }
        self.write_status(k, ctx);
    }

    /// All of it runs and the API knows: nothing but probes is due.
    fn is_settled(&self, now: Time) -> bool {
        let runs = |ctr: &Ctr| ctr.is_running() && !ctr.stopping && !ctr.is_starting();
        self.sandbox == Sandbox::Up
            && self.demand.is_some()
            && !self.report.dirty
            && !self.ending()
            && !self.containers.is_empty()
            && self.supplies.as_ref().is_none_or(|supplies| supplies.due() > now)
            && self.containers.iter().all(runs)
    }

    fn admit(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if self.demand.is_some() {
            return;
        }
        let demand = Demand::of(&self.spec());
        // What runs already is not thrown out by a kubelet that starts anew.
        let privileged = self.is_static || self.sandbox != Sandbox::None;
        match admit::admit(&k.config, k.used, demand) {
            Err(rejection) if !privileged => {
                ctx.note(|| format!("rejects {}: {}", self.object.key, rejection.reason));
                let what = Tidings::warning(&rejection.reason);
                self.tell(k, what, || rejection.message.clone());
                self.rejected = Some(rejection);
            }
            _ => {
                k.used.add(demand);
                self.demand = Some(demand);
            }
        }
    }

    /// Succeeded or Failed, if no container is left that will run (`getPhase`).
    fn find_outcome(&self) -> Option<&'static str> {
        let policy = self.policy();
        let failed_init =
            |c: &Ctr| c.role == Role::Init && c.is_final(&policy) && c.exit_code() != Some(0);
        if self.containers.iter().any(failed_init) {
            return Some("Failed");
        }
        let mut mains = self.containers.iter().filter(|ctr| ctr.role == Role::Main);
        if self.containers.is_empty() || !mains.clone().all(|ctr| ctr.is_final(&policy)) {
            return None;
        }
        Some(if mains.all(|ctr| ctr.exit_code() == Some(0)) { "Succeeded" } else { "Failed" })
    }

    fn run(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let supplied = self.supply(k, ctx);
        match self.sandbox {
            Sandbox::None if supplied => self.make_sandbox(k, ctx),
            Sandbox::None => {}
            Sandbox::Creating | Sandbox::Removing => {}
            Sandbox::Up => {
                if !self.waits_for_ports(k) {
                    self.start_next_container(k, ctx);
                }
                self.ask_probes(k, ctx);
            }
        }
    }

    fn make_sandbox(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if ctx.now() < self.sandbox_retry.at {
            return;
        }
        let spec = self.spec();
        let hostname = match self.hostname(&spec, k) {
            Ok(hostname) => hostname,
            Err(why) => {
                self.tell_no_sandbox(&why, k);
                return self.sandbox_retry.failed(ctx);
            }
        };
        let network = if self.host_network() {
            container::PodNetwork::Host
        } else {
            let Some(subnet) = k.subnet else { return };
            let Some(ip) = k.ipam.allocate(subnet.gateway, self.uid) else {
                ctx.note(|| {
                    format!("no address left in {} for {}", subnet.gateway.trunc(), self.object.key)
                });
                self.sandbox_retry.failed(ctx);
                return;
            };
            self.ip = Some(ip);
            container::PodNetwork::Bridge {
                bridge: SmolStr::new_static("cni0"),
                address: Ipv4Net::new(ip, subnet.gateway.prefix_len()).unwrap_or(subnet.gateway),
                gateway: subnet.gateway.addr(),
                mtu: subnet.mtu,
            }
        };
        self.sandbox = Sandbox::Creating;
        // In a new sandbox the init containers run again.
        for ctr in self.containers.iter_mut().filter(|ctr| ctr.role == Role::Init) {
            if let State::Exited { how, .. } = &ctr.state {
                ctr.last = Some(how.clone());
                ctr.state =
                    State::Waiting { reason: "", message: String::new(), until: Time::ZERO };
            }
        }
        let dns = ClusterDns { server: k.config.cluster_dns, domain: &k.config.cluster_domain };
        let sandbox = container::Sandbox {
            pod: self.object.key.clone(),
            hostname,
            network,
            resolv_conf: resolv::resolv_conf(
                &spec,
                &self.object.key.namespace,
                &k.resolv_conf,
                dns,
            ),
            qos: confine::qos(&spec),
            privileged: confine::is_privileged(&spec),
            host_pid: spec.host_pid == Some(true),
            host_ipc: spec.host_ipc == Some(true),
        };
        let (pod, spec) = (self.uid, Arc::new(sandbox));
        ctx.perform(Effect::Container(container::Request::RunSandbox { pod, spec }));
    }

    /// One at a time and in order, as upstream's `syncPod` does.
    fn start_next_container(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if self.containers.iter().any(Ctr::is_starting) {
            return;
        }
        let policy = self.policy();
        // Who looks at a pod may do so before all of it runs.
        let count = self.containers.len();
        let is_ephemeral = |ctr: &Ctr| ctr.role == Role::Ephemeral;
        let ephemerals = self.containers.iter().position(is_ephemeral).unwrap_or(count);
        for index in (ephemerals..count).chain(0..ephemerals) {
            let ctr = &self.containers[index];
            if ctr.next_step(&policy, ctx.now()) == Next::Start {
                if self.start_container(index, k, ctx) {
                    return;
                }
                continue;
            }
            let passed = match ctr.role {
                Role::Init => ctr.exit_code() == Some(0),
                Role::Sidecar => ctr.started(),
                Role::Main | Role::Ephemeral => true,
            };
            if !passed {
                return;
            }
        }
    }

    /// False if its configuration is wrong and nothing was asked.
    fn start_container(
        &mut self,
        index: usize,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> bool {
        let spec = self.spec();
        let Some(Wanted { container, target }) = self.wanted(index, &spec) else { return false };
        let wanted = &*container;
        let service_env = self.service_env(&spec, k);
        if let Some(supplies) = &self.supplies {
            k.fetch(&supplies.needs, supplies::AGE, ctx);
        }
        let (object, config) = (Arc::clone(&self.object), Arc::clone(&k.config));
        let (pod_ip, host_ip) = (self.address(k.address), k.address);
        let facts = Facts { pod_ip, host_ip, ..Facts::of(&object, &spec, &config) };
        let made = env::own_variables(wanted, &service_env, &facts, &k.objects);
        let env = match made {
            Ok(Made { variables, skipped }) => {
                self.tell_skipped(&skipped, k);
                variables
            }
            Err(lack) => return self.lacks(index, lack, k, ctx),
        };
        let look_up = |name: &str| {
            let own = env.iter().chain(service_env.iter()).find(|(known, _)| known == name);
            own.map(|(_, value)| value.as_str())
        };
        let mounts = match self.mounts(wanted, &spec, &look_up, ctx) {
            Ok(mounts) => mounts,
            Err(lack) => return self.lacks(index, lack, k, ctx),
        };
        let hosts = self.hosts(wanted, &spec, k);
        let expand = |words: &Option<Vec<String>>| {
            words.iter().flatten().map(|word| env::expand(word, look_up)).collect()
        };
        let image = wanted.image.as_deref().unwrap_or_default();
        let credentials = match self.credentials(image, &spec, k) {
            Ok(credentials) => credentials,
            Err(lack) => return self.lacks_credentials(index, lack, k, ctx),
        };
        let now = ctx.now();
        let ctr = &mut self.containers[index];
        let container = container::Container {
            name: ctr.name.clone(),
            image: SmolStr::from(image),
            pull: confine::pull(wanted),
            credentials,
            command: expand(&wanted.command),
            args: expand(&wanted.args),
            working_dir: SmolStr::from(wanted.working_dir.as_deref().unwrap_or_default()),
            service_env: service_env.clone(),
            env: env.clone(),
            mounts,
            hosts,
            message: confine::message(wanted),
            stdin: wanted.stdin == Some(true),
            stdin_once: wanted.stdin_once == Some(true),
            tty: wanted.tty == Some(true),
            resources: confine::resources(wanted, &spec, k.config.memory_bytes),
            security: Box::new(confine::security(wanted, &spec)),
            target: SmolStr::from(target),
            attempt: ctr.next,
        };
        ctr.starting(now);
        let (pod, spec) = (self.uid, Arc::new(container));
        ctx.perform(Effect::Container(container::Request::StartContainer { pod, spec }));
        true
    }

    fn service_env(&self, spec: &PodSpec, k: &Local) -> Variables {
        let links = spec.enable_service_links != Some(false);
        let of = |services| env::service_variables(services, &self.object.key.namespace, links);
        k.services.as_ref().map_or_else(Arc::default, of)
    }

    /// It is not started now. False if its configuration is wrong.
    fn lacks(
        &mut self,
        index: usize,
        lack: Lack,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> bool {
        let Lack::Wrong(message) = lack else { return true };
        let ctr = &mut self.containers[index];
        let until = ctx.now() + Duration::from_secs(10);
        let reason = "CreateContainerConfigError";
        let (name, why) = (ctr.name.clone(), message.clone());
        ctr.state = State::Waiting { reason, message, until };
        self.report.dirty = true;
        self.tell_refused(&name, &why, Fault::Config, k);
        false
    }

    fn ask_probes(&mut self, k: &Local, ctx: &mut Context<'_, Kubelet>) {
        let now = ctx.now();
        if !self.containers.iter().any(|ctr| ctr.probes.due() <= now) {
            return;
        }
        let Some(ip) = self.address(k.address) else {
            return;
        };
        for ctr in &mut self.containers {
            let attempt = ctr.restart_count();
            for Question { purpose, timeout, check } in ctr.probes.ask(now, attempt, ip) {
                let (pod, container) = (self.uid, ctr.name.clone());
                let timeout = Some(timeout);
                let request = Request { pod, container, purpose, check, timeout };
                ctx.perform(Effect::Probe(request));
            }
        }
    }

    fn end(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        let grace = self.grace();
        for index in 0..self.containers.len() {
            let ctr = &mut self.containers[index];
            ctr.probes.leave_alive();
            self.hurry(index, grace, k, ctx);
            let ctr = &self.containers[index];
            if ctr.is_running() && !ctr.stopping {
                let name = ctr.name.clone();
                self.tell_stopping(&name, k);
                self.stop(index, grace, k, ctx);
            }
        }
        if self.containers.iter().any(Ctr::is_active) {
            return self.ask_probes(k, ctx);
        }
        match self.sandbox {
            Sandbox::Up => self.remove_sandbox(ctx),
            Sandbox::Creating | Sandbox::Removing => {}
            Sandbox::None => {
                if self.unsupply(ctx) {
                    self.part(k, ctx);
                }
            }
        }
    }

    /// Nothing of it is left here: its requests are free again, and the API may forget it.
    fn part(&mut self, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
        if let Some(demand) = self.demand.take() {
            k.used.take(demand);
        }
        let report = &mut self.report;
        let waits = report.deleted || report.delete_in_flight || ctx.now() < report.retry.at;
        if waits {
            return;
        }
        let Some(record) = self.record.clone() else {
            return;
        };
        if self.wanted && self.deleting() {
            self.report.delete_in_flight = true;
            k.delete_pod(Call::Delete(self.uid), &record, ctx);
        } else if !self.wanted && self.is_static {
            self.report.delete_in_flight = true;
            k.delete_pod(Call::Unmirror(self.uid), &record, ctx);
        }
    }

    /// How long its containers have to end: what the deletion says, or the spec.
    fn grace(&self) -> Duration {
        let told = self.record.as_ref().and_then(|r| r.meta.deletion_grace_period_seconds);
        let spec = self.object.pod().and_then(|(spec, _)| spec.termination_grace_period_seconds);
        let seconds = told.filter(|_| self.deleting()).or(spec).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// When it has to be looked at again, if nothing happens before.
    pub fn due(&self, ctx: &Context<'_, Kubelet>) -> Time {
        let now = ctx.now();
        let later = |at: Time| if at > now { at } else { Time::NEVER };
        let mut due = later(self.report.retry.at);
        if self.sandbox == Sandbox::None {
            due = due.min(later(self.sandbox_retry.at));
        }
        if let Some(supplies) = &self.supplies {
            let at = if self.ending() { supplies.removal_due() } else { supplies.due() };
            due = due.min(later(at));
        }
        if self.sandbox != Sandbox::Up {
            return due;
        }
        let settled = self.is_settled(now);
        let policy = if settled { SmolStr::default() } else { self.policy() };
        for ctr in &self.containers {
            due = due.min(later(ctr.probes.due()));
            if let Some(hook) = &ctr.hook {
                due = due.min(later(hook.due()));
            }
            if let Some(blame) = &ctr.blame {
                due = due.min(later(blame.until));
            }
            if !settled
                && !self.ending()
                && let Next::StartAt(at) = ctr.next_step(&policy, now)
            {
                due = due.min(at);
            }
        }
        due
    }
}
