//! The kubelet: the pods bound to its node run, and the API knows how they are.
//!
//! Level-triggered: an event changes what is known of one pod (or of the node), and
//! [`Pod::drive`] then asks for the next missing step. What runs is the runtime's to say, what
//! should run the API's and the manifests'; the kubelet itself remembers nothing that those two
//! cannot tell it again after a crash.

mod account;
mod admit;
mod confine;
mod container_state;
mod containers;
mod discard;
mod drive;
mod env;
mod hooks;
mod host_ports;
mod hosts;
mod ipam;
mod keyring;
mod local;
mod machine;
mod node;
mod pod;
mod probes;
mod pulls;
mod resolv;
mod sources;
mod status;
mod supplies;
mod tell;
#[cfg(test)]
mod tests;

pub use self::host_ports::{footing, of as host_ports};
pub use self::node::taint;

use self::local::{Call, Local};
use self::node::NodeAgent;
use self::pod::{Pod, Sandbox};
use self::sources::Sources;
use crate::objects::{Kind, Name, Uid, View};
use crate::ports::{api, container, files, network, probe, rules, volumes};
use crate::recorder::Tidings;
use kubesim_runtime::{Account, Actor, Answers, Context, Digest, Hasher, Time};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub node: Name,
    pub labels: BTreeMap<String, String>,
    /// Taints the node registers with, `key=value:Effect`.
    pub taints: Vec<String>,
    /// The link whose first address is the node's InternalIP.
    pub interface: network::IfName,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub max_pods: u32,
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    /// Written by netd; the pod network's bridge, subnet and MTU.
    pub subnet_env: Name,
    /// The node's own resolver, for pods with `dnsPolicy: Default`.
    pub resolv_conf: Name,
    /// Static pods; empty for none.
    pub manifests: Name,
    /// Below which directory of the machine the volumes are that are made for claims; empty: none
    /// are made here.
    pub volumes: Name,
    /// Tell people what happens, by Events.
    pub events: bool,
    /// Rules that a former life may have left for host ports are taken away at the start, whether
    /// or not a pod has one now.
    pub sweeps: bool,
    pub lease_duration: Duration,
    /// An unchanged node status is written this often (5 min upstream).
    pub status_period: Duration,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
    Container(container::Reply),
    Probe(probe::Reply),
    Files(files::Reply),
    Network(network::Reply),
    Volumes(volumes::Reply),
    Rules(rules::Reply),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
    Container(container::Request),
    Probe(probe::Request),
    Files(files::Request),
    Network(network::Request),
    Volumes(volumes::Request),
    Rules(rules::Request),
}

/// The probe and restart alarms name a slot of the kubelet's own pod table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Lease,
    NodeStatus,
    Retry,
    Events,
    Pod(crate::objects::Uid),
    HostPorts,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        match self {
            Effect::Api(effect) => effect.answers(),
            Effect::Container(effect) => effect.answers(),
            Effect::Probe(effect) => effect.answers(),
            Effect::Files(effect) => effect.answers(),
            Effect::Network(effect) => effect.answers(),
            Effect::Volumes(effect) => effect.answers(),
            Effect::Rules(effect) => effect.answers(),
        }
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        match self {
            Event::Api(event) => event.digest(hasher),
            Event::Container(reply) => reply.digest(hasher),
            Event::Probe(reply) => reply.digest(hasher),
            Event::Files(reply) => reply.digest(hasher),
            Event::Network(reply) => reply.digest(hasher),
            Event::Volumes(reply) => reply.digest(hasher),
            Event::Rules(reply) => reply.digest(hasher),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Kubelet {
    local: Local,
    node: NodeAgent,
    sources: Sources,
    pods: BTreeMap<Uid, Pod>,
    retry_armed: Time,
    /// How often the runtime is still asked for its list: what a dead incarnation asked for may
    /// come to be after the first one.
    recounts: u32,
}

/// The runtime is asked again this often after a start, at the lease's pace.
const RECOUNTS: u32 = 3;

impl Actor for Kubelet {
    const NAME: &'static str = "kubelet";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        ctx.perform(Effect::Container(container::Request::Observe));
        if config.events {
            ctx.perform(Effect::Container(container::Request::ObservePulls));
        }
        ctx.perform(Effect::Network(network::Request::Observe));
        ctx.perform(Effect::Volumes(volumes::Request::List));
        for path in [&config.subnet_env, &config.resolv_conf, &config.manifests] {
            if !path.is_empty() {
                let path = path.clone();
                ctx.perform(Effect::Files(files::Request::Watch { path }));
            }
        }
        let own = || api::Scope::Node(config.node.clone());
        let informers = [(Kind::Pod, own()), (Kind::Node, own()), (Kind::Service, api::Scope::All)];
        for (kind, scope) in informers {
            ctx.perform(Effect::Api(api::Effect::Watch { kind, scope }));
        }
        // The first renewal makes the lease; machines that boot together are spread a little.
        let latest = Duration::from_secs(1).min(config.lease_duration / 4);
        let first = ctx.rng().between(Duration::ZERO, latest);
        ctx.set_timer(Timer::Lease, first);
        ctx.set_timer(Timer::NodeStatus, config.status_period);
        let mut local = Local::new(config);
        local.recorder.begin(ctx.wall());
        let starting = Tidings::normal("Starting");
        tell::of_node(&mut local, starting, || "Starting kubelet.".to_owned());
        local.recorder.go_on(ctx, Effect::Api, Timer::Events);
        Kubelet {
            local,
            node: NodeAgent::default(),
            sources: Sources::default(),
            pods: BTreeMap::new(),
            retry_armed: Time::NEVER,
            recounts: RECOUNTS,
        }
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        self.local.recorder.begin(ctx.wall());
        match event {
            Event::Api(api::Event::News(api::News::View { kind, view, .. })) => {
                self.on_view(kind, view, ctx);
            }
            // The last view stays true enough until the next one.
            Event::Api(api::Event::News(api::News::Closed { .. })) => {}
            Event::Api(api::Event::Answer(answer)) => self.on_answer(answer, ctx),
            Event::Api(api::Event::Connected(up)) => self.on_connected(up, ctx),
            Event::Container(reply) => self.on_container(reply, ctx),
            Event::Probe(reply) => {
                let news = self.pods.get_mut(&reply.pod).is_some_and(|pod| {
                    let hook = reply.purpose.is_hook();
                    let tell = if hook { Pod::on_hook } else { Pod::on_probe };
                    tell(pod, &reply, &mut self.local, ctx)
                });
                if news {
                    self.sync(reply.pod, ctx);
                }
            }
            Event::Files(files::Reply::Content { path, content }) => {
                self.on_file(&path, content, ctx);
            }
            Event::Files(files::Reply::Written { .. }) => {}
            Event::Network(network::Reply::State(state)) => self.on_network(&state, ctx),
            Event::Network(network::Reply::Done { subject, result: Err(errno) }) => {
                ctx.note(|| format!("setting {subject}: {errno}"));
            }
            Event::Network(_) => {}
            Event::Volumes(reply) => self.on_volumes(reply, ctx),
            Event::Rules(reply) => self.on_rules(reply, ctx),
        }
        self.local.recorder.go_on(ctx, Effect::Api, Timer::Events);
    }

    fn approach(&self, timer: Timer, pass: usize) {
        if let Timer::Pod(uid) = timer
            && let Some(pod) = self.pods.get(&uid)
        {
            pod.approach(pass);
        }
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        self.local.recorder.begin(ctx.wall());
        match timer {
            Timer::Events => {}
            Timer::HostPorts => self.look_after_ports(ctx),
            Timer::Lease => {
                self.node.renew(&mut self.local, ctx);
                if self.recounts > 0 {
                    self.recounts -= 1;
                    ctx.perform(Effect::Container(container::Request::Observe));
                }
            }
            Timer::NodeStatus => {
                ctx.set_timer(Timer::NodeStatus, self.local.config.status_period);
                self.node.on_period();
                self.sync_node(ctx);
            }
            Timer::Retry => {
                self.retry_armed = Time::NEVER;
                self.keep_house(ctx);
                self.sync_host_ports(ctx);
                self.sync_node(ctx);
            }
            Timer::Pod(uid) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.armed = Time::NEVER;
                    self.step(uid, ctx);
                }
            }
        }
        self.local.recorder.go_on(ctx, Effect::Api, Timer::Events);
    }

    fn account(&self) -> Account {
        account::of(self)
    }
}

impl Kubelet {
    fn on_view(&mut self, kind: Kind, view: View, ctx: &mut Context<'_, Self>) {
        match kind {
            Kind::Pod => self.on_pod_view(view, ctx),
            Kind::Node => {
                self.node.on_view(&view);
                self.sync_node(ctx);
            }
            // Read when a container starts, never before.
            Kind::Service => self.local.services = Some(view),
            _ => {}
        }
    }

    fn on_answer(&mut self, answer: api::Answer, ctx: &mut Context<'_, Self>) {
        if self.local.recorder.answered(&answer, ctx) {
            return;
        }
        match self.local.answered(answer.tag) {
            Some(Call::Lease) => {
                self.node.on_lease_answer(answer.result, &mut self.local, ctx);
            }
            Some(Call::Node) => {
                self.node.on_answer(answer.result, ctx);
                self.sync_node(ctx);
            }
            Some(Call::Status(uid)) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.on_status_written(answer.result, ctx);
                    self.sync(uid, ctx);
                }
            }
            Some(Call::Delete(uid)) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.on_deleted(answer.result, ctx);
                    self.sync(uid, ctx);
                }
            }
            Some(Call::Mirror(uid)) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.on_mirror_made(answer.result, ctx);
                    self.sync(uid, ctx);
                }
            }
            Some(Call::Unmirror(uid)) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.on_mirror_deleted(answer.result, ctx);
                    self.sync(uid, ctx);
                }
            }
            Some(Call::Object(kind, key)) => self.on_need((kind, key), answer.result, ctx),
            Some(Call::Token(uid, index)) => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.on_token(index, answer.result, ctx);
                    self.sync(uid, ctx);
                }
            }
            Some(Call::Stray) | None => {}
        }
    }

    fn on_container(&mut self, reply: container::Reply, ctx: &mut Context<'_, Self>) {
        use container::Reply;
        let uid = match &reply {
            Reply::Listed { sandboxes } => {
                self.local.down = None;
                self.on_listed(sandboxes, ctx);
                self.sync_host_ports(ctx);
                return self.sync_node(ctx);
            }
            Reply::Down { why } => {
                ctx.note(|| why.to_string());
                self.local.down = Some(why.clone());
                return self.sync_node(ctx);
            }
            Reply::SandboxReady { pod, .. }
            | Reply::SandboxRemoved { pod }
            | Reply::Pulling { pod, .. }
            | Reply::Pulled { pod, .. }
            | Reply::Started { pod, .. }
            | Reply::Exited { pod, .. }
            | Reply::Refused { pod, .. }
            | Reply::NotRunning { pod, .. } => *pod,
        };
        let Some(pod) = self.pods.get_mut(&uid) else {
            return match reply {
                Reply::Exited { name, attempt, exit, .. } => {
                    self.on_unclaimed_exit(uid, &name, attempt, exit);
                }
                Reply::SandboxRemoved { .. } => self.on_unclaimed_removed(uid, ctx),
                _ => {}
            };
        };
        match reply {
            Reply::Listed { .. } | Reply::Down { .. } => {}
            Reply::SandboxReady { ip, .. } => pod.on_sandbox_ready(ip, &mut self.local, ctx),
            Reply::SandboxRemoved { .. } => pod.on_sandbox_removed(&mut self.local, ctx),
            Reply::Pulling { name, .. } => return pod.tell_pulling(&name, &mut self.local),
            Reply::Pulled { name, took, size, .. } => {
                return pod.tell_pulled(&name, took, size, &mut self.local);
            }
            Reply::Started { name, attempt, id, .. } => {
                pod.on_started(&name, attempt, id, &mut self.local, ctx);
            }
            Reply::Exited { name, attempt, exit, .. } => {
                pod.on_exited(&name, attempt, &exit, &mut self.local, ctx);
            }
            Reply::NotRunning { name, .. } => pod.on_not_running(&name, ctx),
            Reply::Refused { what, why, fault, .. } => {
                pod.on_refused(&what, &why, fault, &mut self.local, ctx);
            }
        }
        self.sync(uid, ctx);
    }

    fn sync_node(&mut self, ctx: &mut Context<'_, Self>) {
        self.discard(ctx);
        self.node.sync(&mut self.local, ctx);
        self.arm_retry(ctx);
        let uid = self.node.uid();
        if uid != self.local.node_uid {
            self.local.node_uid = uid;
            // Mirrors wait for whom they belong to.
            let all = self.pods.values();
            let statics: Vec<_> = all.filter(|pod| pod.is_static).map(|pod| pod.uid).collect();
            statics.into_iter().for_each(|uid| self.sync(uid, ctx));
        }
    }

    fn sync_all(&mut self, ctx: &mut Context<'_, Self>) {
        let all: Vec<_> = self.pods.keys().copied().collect();
        for uid in all {
            self.sync(uid, ctx);
        }
    }

    /// Something happened to this pod.
    fn sync(&mut self, uid: Uid, ctx: &mut Context<'_, Self>) {
        if let Some(pod) = self.pods.get_mut(&uid) {
            pod.report.dirty = true;
            self.step(uid, ctx);
        }
    }

    /// The next step of one pod, and its alarm.
    fn step(&mut self, uid: Uid, ctx: &mut Context<'_, Self>) {
        if self.has_predecessor(uid) {
            return;
        }
        let seen = self.pods_seen();
        let Some(pod) = self.pods.get_mut(&uid) else {
            return;
        };
        pod.drive(&mut self.local, ctx);
        let has_ports = !pod.ports.is_empty();
        if seen {
            pod.sync_mirror(&mut self.local, ctx);
        }
        if self.local.listed && pod.is_finished() {
            self.part_with(uid, ctx);
        } else {
            self.arm(uid, ctx);
        }
        if has_ports {
            self.sync_host_ports(ctx);
        }
    }

    fn arm(&mut self, uid: Uid, ctx: &mut Context<'_, Self>) {
        let Some(pod) = self.pods.get_mut(&uid) else { return };
        let due = pod.due(ctx);
        if due != pod.armed {
            pod.armed = due;
            match due {
                Time::NEVER => ctx.clear_timer(Timer::Pod(uid)),
                due => ctx.set_timer(Timer::Pod(uid), due.since(ctx.now())),
            }
        }
    }

    fn part_with(&mut self, uid: Uid, ctx: &mut Context<'_, Self>) {
        let Some(pod) = self.pods.get(&uid) else {
            return;
        };
        let key = pod.object.key.clone();
        debug_assert!(pod.sandbox == Sandbox::None, "a finished pod has no sandbox");
        if pod.armed != Time::NEVER {
            ctx.clear_timer(Timer::Pod(uid));
        }
        let was_static = pod.is_static;
        let needy = pod.supplies.as_ref().is_some_and(|supplies| !supplies.needs.is_empty());
        self.forget(uid);
        if needy {
            self.keep_needs();
            self.discard(ctx);
        }
        ctx.note(|| format!("pod {key} is gone"));
        if was_static {
            let same = |pod: &&Pod| pod.is_static && pod.object.key == key;
            let successors: Vec<_> = self.pods.values().filter(same).map(|pod| pod.uid).collect();
            for uid in successors {
                self.sync(uid, ctx);
            }
        }
    }
}
