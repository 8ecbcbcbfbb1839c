//! A small world around one kubelet: an API that stores, a runtime that runs, and virtual time.
//! Effects land in order and one at a time, also those of a kubelet that has crashed since.

use crate::controllers::tests::fake::merge;
use crate::kubelet::{Config, Effect, Event, Kubelet, Timer};
use crate::objects::{Key, Kind, Name, Object, PodStatus, Uid, View};
use crate::ports::container::{Exit, Fault};
use crate::ports::rules::text::to_iptables_save;
use crate::ports::{api, container, files, network, probe, rules, volumes};
use kubesim_runtime::{
    Actor, Clocks, Context, Loss, Outbox, Rng, Snapshot, Stream, Time, TimerOp, Wall,
};
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

pub const NODE: &str = "n1";
pub const SUBNET_ENV: &str = "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n";

pub struct World {
    pub kubelet: Kubelet,
    config: Config,
    rng: Rng,
    incarnation: u32,
    ticket: u64,
    pub now: Time,
    timers: BTreeMap<Timer, Time>,
    effects: VecDeque<(u32, Effect)>,
    events: VecDeque<Event>,
    /// Events handled so far.
    pub handled: usize,
    /// Crashes, losing this, after so many events.
    pub crash: Option<(usize, Loss)>,

    pub objects: BTreeMap<(Kind, Key), Arc<Object>>,
    version: u64,
    pub writes: Vec<String>,
    pub reads: Vec<String>,
    /// Neither calls nor watches reach the API.
    pub cut: bool,
    watching: bool,

    pub sandboxes: BTreeMap<Uid, Sandbox>,
    /// Every program ever started.
    pub starts: Vec<(Uid, SmolStr, u32)>,
    pub specs: Vec<Arc<container::Container>>,
    /// Images that no container is started of, and why.
    pub refused_images: BTreeMap<SmolStr, Fault>,
    /// No image is on the machine, at any start.
    pub pulls: bool,
    pub address: Ipv4Addr,
    pub subnet_env: Option<Arc<str>>,
    pub manifests: BTreeMap<Name, Arc<str>>,
    /// What a probe of this purpose finds.
    pub healthy: BTreeMap<probe::Purpose, bool>,
    pub probes: Vec<(Time, probe::Purpose)>,
    /// What was asked of containers for their hooks. An answer comes by [`World::hook_ends`].
    pub hooks: Vec<(Time, probe::Request)>,
    /// What was stopped, when, and how much time it was given.
    pub stops: Vec<(Time, SmolStr, Duration)>,
    /// By pod and name: the files of those that have some.
    pub volumes: BTreeMap<(Uid, SmolStr), Option<Arc<volumes::Files>>>,
    /// Volumes that cannot be made, and why.
    pub refused_volumes: BTreeMap<SmolStr, SmolStr>,
    /// Directories that outlive pods: those that were asked for, and whether they may be made.
    pub local: Vec<(SmolStr, bool)>,
    pub discarded: Vec<SmolStr>,
    /// How often files were written.
    pub rewritten: usize,
    /// How many tokens were made.
    pub tokens: u64,
    /// The rules of host ports, and why they are refused, if they are.
    pub rules: String,
    pub refused_rules: Option<String>,
    /// What was asked of the rules port.
    pub ruled: Vec<rules::Request>,
}

#[derive(Clone)]
pub struct Sandbox {
    pub spec: Arc<container::Sandbox>,
    pub containers: BTreeMap<SmolStr, (u32, Option<i32>)>,
}

impl Sandbox {
    pub fn ip(&self) -> Option<Ipv4Addr> {
        match &self.spec.network {
            container::PodNetwork::Bridge { address, .. } => Some(address.addr()),
            container::PodNetwork::Host => None,
        }
    }
}

pub fn config() -> Config {
    Config {
        node: NODE.into(),
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        taints: vec!["dedicated=db:NoSchedule".to_owned()],
        interface: "eth0".into(),
        cpu_millis: 4000,
        memory_bytes: 8 << 30,
        max_pods: 110,
        cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
        cluster_domain: "cluster.local".to_owned(),
        subnet_env: "/run/flannel/subnet.env".into(),
        resolv_conf: "/etc/resolv.conf".into(),
        manifests: "/etc/kubernetes/manifests".into(),
        lease_duration: Duration::from_secs(40),
        volumes: "/var/lib/kubesim/volumes".into(),
        events: false,
        sweeps: false,
        status_period: Duration::from_secs(300),
    }
}

impl World {
    pub fn new() -> World {
        World::of(config())
    }

    pub fn of(config: Config) -> World {
        let mut rng = Rng::new(Stream { seed: 1, label: "kubelet", index: 0, incarnation: 0 });
        let mut ticket = 0;
        let mut out = Outbox::new(true);
        let mut ctx = Context::new(Clocks::default(), &mut rng, &mut ticket, &mut out);
        let kubelet = Kubelet::start(&config, &mut ctx);
        let mut world = World {
            kubelet,
            config,
            rng,
            incarnation: 0,
            ticket,
            now: Time::ZERO,
            timers: BTreeMap::new(),
            effects: VecDeque::new(),
            events: VecDeque::new(),
            handled: 0,
            crash: None,
            objects: BTreeMap::new(),
            version: 0,
            writes: Vec::new(),
            reads: Vec::new(),
            cut: false,
            watching: false,
            sandboxes: BTreeMap::new(),
            starts: Vec::new(),
            specs: Vec::new(),
            refused_images: BTreeMap::new(),
            pulls: false,
            address: Ipv4Addr::new(192, 168, 1, 11),
            subnet_env: Some(SUBNET_ENV.into()),
            manifests: BTreeMap::new(),
            healthy: BTreeMap::new(),
            probes: Vec::new(),
            hooks: Vec::new(),
            stops: Vec::new(),
            volumes: BTreeMap::new(),
            refused_volumes: BTreeMap::new(),
            rewritten: 0,
            local: Vec::new(),
            discarded: Vec::new(),
            tokens: 0,
            rules: String::new(),
            refused_rules: None,
            ruled: Vec::new(),
        };
        world.take(out);
        world
    }

    fn step(&mut self, step: impl FnOnce(&mut Kubelet, &mut Context<'_, Kubelet>)) {
        let mut out = Outbox::new(true);
        let clocks = Clocks { now: self.now, boot: self.now, wall: self.wall() };
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.ticket, &mut out);
        step(&mut self.kubelet, &mut ctx);
        self.take(out);
    }

    fn wall(&self) -> Wall {
        Wall::from_unix_secs(1_700_000_000) + self.now.since(Time::ZERO)
    }

    fn take(&mut self, out: Outbox<Kubelet>) {
        assert_eq!(out.failed, None);
        self.effects.extend(out.effects.into_iter().map(|(_, effect)| (self.incarnation, effect)));
        for op in out.timers {
            match op {
                TimerOp::Set(timer, at) => {
                    self.timers.insert(timer, at);
                }
                TimerOp::Clear(timer) => {
                    self.timers.remove(&timer);
                }
            }
        }
    }

    /// The kubelet dies and starts again with empty memory.
    pub fn restart(&mut self, loss: Loss) {
        self.incarnation += 1;
        self.events.clear();
        self.timers.clear();
        self.watching = false;
        if loss >= Loss::Power {
            self.sandboxes.clear();
            self.effects.clear();
        }
        let config = self.config.clone();
        self.step(|kubelet, ctx| *kubelet = Kubelet::start(&config, ctx));
    }

    /// Everything that happens in this span of time.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            if let Some((incarnation, effect)) = self.effects.pop_front() {
                let answers = self.carry_out(effect);
                if incarnation == self.incarnation {
                    self.events.extend(answers);
                }
            } else if let Some(event) = self.events.pop_front() {
                self.step(|kubelet, ctx| kubelet.handle(event, ctx));
                self.count();
            } else if let Some((&timer, &at)) = self.timers.iter().min_by_key(|(_, at)| **at)
                && at <= end
            {
                self.now = self.now.max(at);
                self.timers.remove(&timer);
                self.step(|kubelet, ctx| kubelet.timeout(timer, ctx));
                self.count();
            } else {
                self.now = end;
                return;
            }
        }
    }

    fn count(&mut self) {
        self.handled += 1;
        assert!(self.handled < 20_000, "it goes round in circles");
        if let Some((at, loss)) = self.crash
            && at == self.handled
        {
            self.restart(loss);
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::Api(api::Effect::Watch { kind, .. }) => {
                self.watching = true;
                if self.cut { Vec::new() } else { vec![self.view(kind)] }
            }
            Effect::Api(api::Effect::Call { tag, request }) => {
                let unreachable = api::Error::new(api::Reason::Unreachable, "no route to host");
                let result = if self.cut { Err(unreachable) } else { self.call(&request) };
                let answer = Event::Api(api::Event::Answer(api::Answer { tag, result }));
                let kind = request.subject().0;
                let mut events = vec![answer];
                if !self.cut && self.watching && matches!(kind, Kind::Pod | Kind::Node) {
                    events.push(self.view(kind));
                }
                events
            }
            Effect::Api(api::Effect::Dial { .. }) => Vec::new(),
            Effect::Container(request) => {
                self.runtime(&request).into_iter().map(Event::Container).collect()
            }
            Effect::Probe(request) if request.purpose.is_hook() => {
                self.hooks.push((self.now, request));
                Vec::new()
            }
            Effect::Probe(request) => {
                self.probes.push((self.now, request.purpose));
                let healthy = self.healthy.get(&request.purpose).copied().unwrap_or(true);
                let result = if healthy { Ok(()) } else { Err("connection refused".into()) };
                let probe::Request { pod, container, purpose, .. } = request;
                vec![Event::Probe(probe::Reply { pod, container, purpose, result })]
            }
            Effect::Files(files::Request::Watch { path }) if path == self.config.manifests => {
                let content = |(path, text): (&Name, &Arc<str>)| {
                    let (path, content) = (path.clone(), Some(text.clone()));
                    Event::Files(files::Reply::Content { path, content })
                };
                self.manifests.iter().map(content).collect()
            }
            Effect::Files(files::Request::Watch { path }) => {
                let resolver: Arc<str> = "nameserver 192.168.1.1\n".into();
                let subnet = path == self.config.subnet_env;
                let content = if subnet { self.subnet_env.clone() } else { Some(resolver) };
                vec![Event::Files(files::Reply::Content { path, content })]
            }
            Effect::Files(_) => Vec::new(),
            Effect::Network(network::Request::Observe) => vec![self.network()],
            Effect::Network(_) => Vec::new(),
            Effect::Rules(request) => vec![Event::Rules(self.rule(request))],
            Effect::Volumes(request) => {
                self.volumes(&request).into_iter().map(Event::Volumes).collect()
            }
        }
    }

    fn rule(&mut self, request: rules::Request) -> rules::Reply {
        self.ruled.push(request.clone());
        match request {
            rules::Request::Apply { owner, base, shared, local } => {
                let result = self.refused_rules.clone().map_or(Ok(()), Err);
                if result.is_ok() {
                    self.rules = to_iptables_save(&base, &shared, &local);
                }
                rules::Reply::Applied {
                    owner,
                    version: shared.version(),
                    missing: Vec::new(),
                    result,
                }
            }
            rules::Request::Verify { owner } => {
                let intact = !self.rules.is_empty();
                let missing = if intact { Vec::new() } else { vec!["all of it".to_owned()] };
                rules::Reply::Verified { owner, intact, missing }
            }
            rules::Request::DeleteConntrack { .. } => rules::Reply::ConntrackDeleted { entries: 0 },
            other => unreachable!("a kubelet does not ask for {other:?}"),
        }
    }

    fn network(&self) -> Event {
        let link = network::Link {
            name: "eth0".into(),
            index: 2,
            kind: network::LinkKind::Uplink,
            mac: network::Mac::default(),
            mtu: 1500,
            up: true,
            carrier: true,
            master: None,
            addresses: vec![ipnet::Ipv4Net::new(self.address, 24).unwrap()],
            forwarding: true,
            default_route: true,
        };
        let state = network::State { links: vec![link], ip_forward: true, ..Default::default() };
        Event::Network(network::Reply::State(Arc::new(state)))
    }

    pub fn roam(&mut self, address: Ipv4Addr) {
        self.address = address;
        let news = self.network();
        self.events.push_back(news);
    }

    pub fn tell_file(&mut self, path: &str, content: Option<&str>) {
        if path == self.config.subnet_env {
            self.subnet_env = content.map(Arc::from);
        }
        let (path, content) = (Name::from(path), content.map(Arc::from));
        self.events.push_back(Event::Files(files::Reply::Content { path, content }));
    }

    // The API.

    fn view(&mut self, kind: Kind) -> Event {
        let view = self.snapshot(kind);
        let scope = match kind {
            Kind::Service => api::Scope::All,
            _ => api::Scope::Node(NODE.into()),
        };
        Event::Api(api::Event::News(api::News::View { kind, scope, view }))
    }

    pub fn snapshot(&self, kind: Kind) -> View {
        let mut view = Snapshot::empty(kind.number());
        for ((_, key), object) in self.objects.iter().filter(|((k, _), _)| *k == kind) {
            view.insert(key.clone(), Arc::clone(object), self.version);
        }
        view
    }

    /// Stores the object and shows it.
    pub fn apply(&mut self, manifest: Value) -> Uid {
        let mut object = Object::from_json(manifest).unwrap();
        self.version += 1;
        if object.uid == Uid::NONE {
            object.uid = Uid::from_random(7, self.version);
        }
        let uid = object.uid;
        self.store(object);
        uid
    }

    fn store(&mut self, mut object: Object) -> Arc<Object> {
        self.version += 1;
        object.version = self.version;
        let object = Arc::new(object);
        let kind = object.kind();
        self.objects.insert((kind, object.key.clone()), Arc::clone(&object));
        if self.watching && !self.cut {
            let view = self.view(kind);
            self.events.push_back(view);
        }
        object
    }

    pub fn remove(&mut self, kind: Kind, key: &Key) {
        self.version += 1;
        self.objects.remove(&(kind, key.clone()));
        if self.watching && !self.cut {
            let view = self.view(kind);
            self.events.push_back(view);
        }
    }

    /// As `kubectl delete` does: with the pod's grace.
    pub fn delete(&mut self, name: &str) {
        let key = Key::new("default", name);
        let mut object = (*self.objects[&(Kind::Pod, key)]).clone();
        let meta = Arc::make_mut(&mut object.meta);
        meta.deletion_timestamp = Some(crate::objects::time(Wall::from_unix_secs(1_700_000_000)));
        meta.deletion_grace_period_seconds = Some(30);
        self.store(object);
    }

    pub fn pod(&self, name: &str) -> Option<Arc<Object>> {
        self.objects.get(&(Kind::Pod, Key::new("default", name))).cloned()
    }

    pub fn status(&self, name: &str) -> PodStatus {
        (**self.pod(name).expect("the pod is there").pod().unwrap().1).clone()
    }

    fn call(&mut self, request: &api::Request) -> Result<api::Reply, api::Error> {
        use api::{Error, Reason, Reply, Request};
        let (kind, key) = request.subject();
        if let Request::Token(asked) = request {
            self.tokens += 1;
            let life = Duration::from_secs(asked.seconds.unsigned_abs());
            let text = format!("{}-{}-{}", asked.account.name, asked.audience, self.tokens);
            return Ok(Reply::Token { text: text.into(), ends: self.wall() + life });
        }
        if !request.is_read() {
            self.writes.push(format!("{} {kind} {}", request.verb(), key.name));
        }
        let stored = self.objects.get(&(kind, key.clone())).cloned();
        let none = || Error::new(Reason::NotFound, format!("{kind} {key} not found"));
        if request.is_read() {
            self.reads.push(format!("{kind} {}", key.name));
        }
        let stored = match (request, stored) {
            (Request::Create { object }, None) => {
                let mut object = (**object).clone();
                self.version += 1;
                object.uid = Uid::from_random(9, self.version);
                return Ok(Reply::Object(self.store(object)));
            }
            (Request::Create { .. }, Some(_)) => {
                return Err(Error::new(Reason::AlreadyExists, "it exists"));
            }
            (_, stored) => stored.ok_or_else(none)?,
        };
        match request {
            Request::Update { object } | Request::UpdateStatus { object } => {
                if object.version != stored.version || object.uid != stored.uid {
                    return Err(Error::new(Reason::Conflict, "modified"));
                }
                Ok(Reply::Object(self.store((**object).clone())))
            }
            Request::Delete { options, .. } => {
                if options.uid.is_some_and(|uid| uid != stored.uid) {
                    return Err(Error::new(Reason::Conflict, "another uid"));
                }
                self.remove(kind, &key);
                Ok(Reply::Object(stored))
            }
            Request::Patch { patch, .. } => {
                let mut value = stored.to_json();
                merge(&mut value, patch);
                Ok(Reply::Object(self.store(Object::from_json(value).expect("it parses"))))
            }
            _ => Ok(Reply::Object(stored)),
        }
    }

    // The volumes.

    fn volumes(&mut self, request: &volumes::Request) -> Option<volumes::Reply> {
        use volumes::{Reply, Request};
        let (volume, files) = match request {
            Request::List => {
                let pods: std::collections::BTreeSet<Uid> =
                    self.volumes.keys().map(|(pod, _)| *pod).collect();
                let listed = Reply::Listed { pods: pods.iter().copied().collect() };
                return (!pods.is_empty()).then_some(listed);
            }
            Request::Part { part, path } => {
                let (pod, container, index) = (part.pod, part.container.clone(), part.index);
                let result = Ok(SmolStr::from(format!("{}/{path}", part.within)));
                return Some(Reply::Part { pod, container, index, result });
            }
            Request::Remove { pod } => {
                self.volumes.retain(|(of, _), _| of != pod);
                return Some(Reply::Removed { pod: *pod, result: Ok(()) });
            }
            Request::Discard { path } => {
                self.discarded.push(path.clone());
                let result = self.refused_volumes.get(path).cloned().map_or(Ok(()), Err);
                return Some(Reply::Discarded { path: path.clone(), result });
            }
            Request::Local { volume, path, make, .. } => {
                self.local.push((path.clone(), *make));
                (volume, None)
            }
            Request::Empty { volume, .. } | Request::HostPath { volume, .. } => (volume, None),
            Request::Files { volume, files, .. } => {
                self.rewritten += 1;
                (volume, Some(Arc::clone(files)))
            }
        };
        let (pod, name) = (volume.pod, volume.name.clone());
        let result = match self.refused_volumes.get(&name) {
            Some(why) => Err(why.clone()),
            None => {
                self.volumes.insert((pod, name.clone()), files);
                Ok(SmolStr::from(format!("/pods/{name}")))
            }
        };
        Some(Reply::Ready { pod, volume: name, result })
    }

    /// The files of a pod's volume, each as text.
    pub fn files(&self, pod: Uid, volume: &str) -> BTreeMap<String, String> {
        let files = self.volumes.get(&(pod, volume.into())).cloned().flatten().unwrap_or_default();
        let text = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
        files.iter().map(|(path, file)| (path.to_string(), text(&file.content))).collect()
    }

    // The runtime.

    fn runtime(&mut self, request: &container::Request) -> Option<container::Reply> {
        use container::{Reply, Request};
        match request {
            Request::Observe => {
                let state = |(uid, sandbox): (&Uid, &Sandbox)| container::SandboxState {
                    pod: *uid,
                    key: sandbox.spec.pod.clone(),
                    ip: sandbox.ip(),
                    host_network: sandbox.spec.network == container::PodNetwork::Host,
                    containers: sandbox.containers.iter().map(container_state).collect(),
                };
                Some(Reply::Listed { sandboxes: self.sandboxes.iter().map(state).collect() })
            }
            Request::ObservePulls => None,
            Request::RunSandbox { pod, spec } => {
                let (pod, spec) = (*pod, spec.clone());
                let new = Sandbox { spec, containers: BTreeMap::new() };
                let others = self.sandboxes.iter().filter(|(uid, _)| **uid != pod);
                let taken = new.ip().is_some() && others.clone().any(|(_, o)| o.ip() == new.ip());
                if taken {
                    let (what, why) = ("sandbox".into(), "the address is not available".into());
                    return Some(Reply::Refused { pod, what, why, fault: Fault::Sandbox });
                }
                let ip = self.sandboxes.entry(pod).or_insert(new).ip();
                Some(Reply::SandboxReady { pod, ip })
            }
            Request::RemoveSandbox { pod } => {
                self.sandboxes.remove(pod);
                Some(Reply::SandboxRemoved { pod: *pod })
            }
            Request::StartContainer { pod, spec } => Some(self.start(*pod, spec)),
            Request::StopContainer { pod, name, grace } => {
                self.stops.push((self.now, name.clone(), *grace));
                let (pod, name) = (*pod, name.clone());
                let found = self.sandboxes.get_mut(&pod).and_then(|s| s.containers.get_mut(&name));
                match found {
                    Some((attempt, exited @ None)) => {
                        *exited = Some(143);
                        Some(Reply::Exited { pod, name, attempt: *attempt, exit: Exit::of(143) })
                    }
                    _ => Some(Reply::NotRunning { pod, name }),
                }
            }
        }
    }

    fn start(&mut self, pod: Uid, spec: &Arc<container::Container>) -> container::Reply {
        use container::Reply;
        let (name, attempt) = (spec.name.clone(), spec.attempt);
        let refused = |why: &str, fault| {
            let (what, why) = (spec.name.clone(), why.into());
            Reply::Refused { pod, what, why, fault }
        };
        let Some(sandbox) = self.sandboxes.get_mut(&pod) else {
            return refused("no sandbox", Fault::Create);
        };
        if self.pulls {
            let pulling = Reply::Pulling { pod, name: name.clone() };
            let (took, size) = (Duration::from_millis(1200), 77);
            let pulled = Reply::Pulled { pod, name: name.clone(), took, size };
            self.events.extend([pulling, pulled].map(Event::Container));
        }
        if let Some(fault) = self.refused_images.get(&spec.image) {
            return refused("not found", *fault);
        }
        let id = |attempt| SmolStr::from(format!("{name}-{attempt}"));
        match sandbox.containers.get(&name) {
            Some((old, None)) => {
                return Reply::Started { pod, id: id(*old), name, attempt: *old };
            }
            Some((old, Some(code))) if *old >= attempt => {
                return Reply::Exited { pod, name, attempt: *old, exit: Exit::of(*code) };
            }
            _ => {}
        }
        sandbox.containers.insert(name.clone(), (attempt, None));
        self.starts.push((pod, name.clone(), attempt));
        self.specs.push(spec.clone());
        Reply::Started { pod, id: id(attempt), name, attempt }
    }

    /// The runtime tells of something unasked.
    pub fn hear(&mut self, reply: container::Reply) {
        if let container::Reply::SandboxRemoved { pod } = &reply {
            self.sandboxes.remove(pod);
        }
        self.events.push_back(Event::Container(reply));
    }

    /// A container ends by itself.
    pub fn exit(&mut self, pod: Uid, name: &str, code: i32) {
        let sandbox = self.sandboxes.get_mut(&pod).expect("the pod runs");
        let (attempt, exited) = sandbox.containers.get_mut(name).expect("the container runs");
        *exited = Some(code);
        let (name, attempt) = (SmolStr::from(name), *attempt);
        let reply = container::Reply::Exited { pod, name, attempt, exit: Exit::of(code) };
        self.events.push_back(Event::Container(reply));
    }

    /// The hook that was asked for last comes to this.
    pub fn hook_ends(&mut self, result: Result<(), &str>) {
        self.hook_answers(self.hooks.len() - 1, result);
    }

    /// The hook of this number.
    pub fn hook_answers(&mut self, number: usize, result: Result<(), &str>) {
        let (_, request) = self.hooks[number].clone();
        let probe::Request { pod, container, purpose, .. } = request;
        let result = result.map_err(SmolStr::from);
        self.events.push_back(Event::Probe(probe::Reply { pod, container, purpose, result }));
    }

    pub fn connected(&mut self) {
        self.events.push_back(Event::Api(api::Event::Connected(true)));
        for kind in [Kind::Pod, Kind::Node] {
            let view = self.view(kind);
            self.events.push_back(view);
        }
    }
}

fn container_state(
    (name, (attempt, exited)): (&SmolStr, &(u32, Option<i32>)),
) -> container::ContainerState {
    let id = SmolStr::from(format!("{name}-{attempt}"));
    let exited = exited.map(Exit::of);
    container::ContainerState { name: name.clone(), attempt: *attempt, id, exited }
}

/// A pod of one container, bound to the node; `spec` adds to its container's spec.
pub fn pod(name: &str, container: Value) -> Value {
    let mut spec = json!({ "name": "c", "image": "nginx" });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), container.as_object()) {
        spec.extend(more.clone());
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "nodeName": NODE, "containers": [spec] },
    })
}
