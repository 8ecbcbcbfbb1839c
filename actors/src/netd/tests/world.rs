//! A small world for netds: kernels, files and an API that are just good enough, with virtual time.

use crate::netd::{Config, Effect, Event, Netd, Timer, peer};
use crate::objects::*;
use crate::ports::network::{self, Link, LinkKind, Mac, Proto, Route, State};
use crate::ports::{api, files, packets, rules};
use ipnet::Ipv4Net;
use kubesim_runtime::{Actor, Answers, Clocks, Context, Effect as _, Outbox, Rng, Stream, Time};
use kubesim_runtime::{TimerOp, Wall};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

pub const CONF: &str = "/etc/kube-flannel/net-conf.json";
pub const ENV: &str = "/run/flannel/subnet.env";
pub const MEMORY: &str = "/var/lib/kubesim/netd.json";
pub const HOST_GW: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}"#;

/// One machine: what outlives netd, and netd if it runs.
pub struct Machine {
    pub config: Config,
    pub files: BTreeMap<Name, Arc<str>>,
    pub state: State,
    pub routes: BTreeMap<Ipv4Net, Route>,
    pub neighbours: Vec<network::Neighbour>,
    pub fdb: Vec<network::FdbEntry>,
    pub wireguard: Vec<network::WireguardPeer>,
    pub forward: Vec<rules::Rule>,
    pub policy_drop: bool,
    pub dialled: Vec<Ipv4Addr>,
    pub notes: Vec<String>,
    pub netd: Option<Netd>,
    pub effects: BTreeMap<&'static str, u32>,
    /// Sets of routes of earlier commands, for those that land late.
    commands: Vec<network::RouteSet>,
    pub steps: u64,
    incarnation: u32,
    ticket: u64,
    rng: Rng,
}

pub struct World {
    pub now: Time,
    pub machines: Vec<Machine>,
    pub view: View,
    pub nodes: View,
    pub revision: u64,
    /// Machines that cannot reach the API.
    pub cut: Vec<bool>,
    /// Draws which datagrams are lost, out of 100.
    pub loss: u64,
    pub datagrams: u32,
    /// This machine's netd dies after this many steps and starts again soon after.
    pub crash_at: Option<(usize, u64)>,
    dice: Rng,
    queue: BTreeMap<(Time, u64), (usize, u32, What)>,
    sequence: u64,
}

#[derive(Clone)]
enum What {
    Start,
    Event(Event),
    Timer(Timer),
}

pub fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn config(index: usize, server: Ipv4Addr) -> Config {
    Config {
        node: format!("n{index}").into(),
        interface: "eth0".into(),
        net_conf: CONF.into(),
        subnet_env: ENV.into(),
        memory: MEMORY.into(),
        bridge: "cni0".into(),
        key_seed: [index as u8 + 1; 32],
        servers: vec![("n0".into(), server)],
        service_network: net("10.96.0.0/12"),
        resync: Duration::from_secs(5),
    }
}

pub fn home(index: usize) -> Ipv4Net {
    Ipv4Net::new([192, 168, 1, 10 + index as u8].into(), 24).unwrap()
}

impl World {
    /// `count` machines at home, not started; n0 is the server; n<i> has 10.244.<i>.0/24.
    pub fn new(count: usize, conf: &str) -> World {
        let rng = |index| Rng::new(Stream { seed: 1, label: "test", index, incarnation: 0 });
        let mut world = World {
            now: Time::ZERO,
            machines: Vec::new(),
            view: View::empty(1),
            nodes: View::empty(2),
            revision: 10,
            cut: vec![false; count],
            loss: 0,
            datagrams: 0,
            crash_at: None,
            dice: rng(1 << 20),
            queue: BTreeMap::new(),
            sequence: 0,
        };
        for index in 0..count {
            let link = |name: &str, kind, addresses| Link {
                name: name.into(),
                index: 1,
                kind,
                mac: Mac([2, 0, 0, 0, 1, index as u8]),
                mtu: 1500,
                up: true,
                carrier: true,
                master: None,
                addresses,
                forwarding: false,
                default_route: true,
            };
            let links = vec![link("eth0", LinkKind::Uplink, vec![home(index)])];
            world.machines.push(Machine {
                config: config(index, home(0).addr()),
                files: BTreeMap::from([(CONF.into(), conf.into())]),
                state: State { links, netd_routes: 0, ip_forward: false, bridge_nf: true },
                routes: BTreeMap::new(),
                neighbours: Vec::new(),
                fdb: Vec::new(),
                wireguard: Vec::new(),
                forward: Vec::new(),
                policy_drop: false,
                dialled: Vec::new(),
                notes: Vec::new(),
                netd: None,
                effects: BTreeMap::new(),
                commands: Vec::new(),
                steps: 0,
                incarnation: 0,
                ticket: 0,
                rng: rng(index as u64),
            });
            world.put_node(index, &format!("10.244.{index}.0/24"));
        }
        world
    }

    pub fn put_node(&mut self, index: usize, cidr: &str) {
        let name: Name = format!("n{index}").into();
        let spec = NodeSpec { pod_cidr: Some(cidr.to_owned()), ..NodeSpec::default() };
        let (type_, address) = ("InternalIP".to_owned(), home(index).addr().to_string());
        let addresses = Some(vec![k8s_openapi::api::core::v1::NodeAddress { address, type_ }]);
        let status = NodeStatus { addresses, ..NodeStatus::default() };
        let body = Body::Node { spec: Arc::new(spec), status: Arc::new(status) };
        let mut node = Object::new(Key::cluster(name.clone()), body);
        self.revision += 1;
        node.uid = Uid(1000 + index as u128);
        node.version = self.revision;
        self.nodes.insert(node.key.clone(), Arc::new(node), self.revision);
        for machine in 0..self.machines.len() {
            self.tell_node(machine);
        }
    }

    /// The node is gone, and its Subnet with it.
    pub fn delete_node(&mut self, index: usize) {
        self.revision += 1;
        let key = Key::cluster(format!("n{index}"));
        self.nodes.remove(&key, self.revision);
        self.view.remove(&key, self.revision);
        self.news();
    }

    pub fn start(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        machine.incarnation += 1;
        machine.netd = None;
        self.step(index, None);
    }

    pub fn start_all(&mut self) {
        (0..self.machines.len()).for_each(|index| self.start(index));
    }

    pub fn crash(&mut self, index: usize) {
        self.machines[index].incarnation += 1;
        self.machines[index].netd = None;
    }

    /// As Linux does: what led via the old address goes with it, silently.
    pub fn move_to(&mut self, index: usize, address: Option<Ipv4Net>) {
        let machine = &mut self.machines[index];
        let old = std::mem::take(&mut machine.state.links[0].addresses);
        machine.state.links[0].addresses.extend(address);
        let before = machine.routes.len();
        machine.routes.retain(|_, route| {
            let goes = |via| old.iter().any(|net| net.contains(via));
            route.onlink || !route.via.as_ref().is_some_and(goes)
        });
        if machine.routes.len() != before {
            machine.state.netd_routes = machine.routes.len();
        }
        self.tell_state(index);
    }

    pub fn cut(&mut self, index: usize, cut: bool) {
        self.cut[index] = cut;
        self.post(index, 1, Event::Api(api::Event::Connected(!cut)));
        if !cut {
            self.tell_node(index);
            self.tell_subnets(index);
        }
    }

    pub fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let (index, incarnation, what) = entry.remove();
            if self.machines[index].incarnation == incarnation {
                match what {
                    What::Start => self.start(index),
                    what => self.step(index, Some(what)),
                }
            }
        }
        self.now = end;
    }

    fn post(&mut self, index: usize, millis: u64, event: Event) {
        let at = self.now + Duration::from_millis(millis);
        self.sequence += 1;
        let incarnation = self.machines[index].incarnation;
        self.queue.insert((at, self.sequence), (index, incarnation, What::Event(event)));
    }

    pub fn tell_state(&mut self, index: usize) {
        let state = Arc::new(self.machines[index].state.clone());
        self.post(index, 0, Event::Network(network::Reply::State(state)));
    }

    fn tell_node(&mut self, index: usize) {
        if self.cut[index] {
            return;
        }
        let (kind, scope) = (Kind::Node, api::Scope::Node(format!("n{index}").into()));
        let view = self.nodes.clone();
        self.post(index, 1, Event::Api(api::Event::News(api::News::View { kind, scope, view })));
    }

    fn tell_subnets(&mut self, index: usize) {
        if self.cut[index] {
            return;
        }
        let (kind, scope, view) = (Kind::Subnet, api::Scope::All, self.view.clone());
        self.post(index, 1, Event::Api(api::Event::News(api::News::View { kind, scope, view })));
    }

    fn news(&mut self) {
        (0..self.machines.len()).for_each(|index| self.tell_subnets(index));
    }

    pub fn step_event(&mut self, index: usize, event: Event) {
        self.step(index, Some(What::Event(event)));
    }

    fn step(&mut self, index: usize, what: Option<What>) {
        let machine = &mut self.machines[index];
        let clocks = Clocks { now: self.now, boot: self.now, wall: Wall::from_unix_secs(0) };
        let mut out = Outbox::new(true);
        let mut ctx = Context::new(clocks, &mut machine.rng, &mut machine.ticket, &mut out);
        match (&mut machine.netd, what) {
            (None, None) => machine.netd = Some(Netd::start(&machine.config, &mut ctx)),
            (Some(netd), Some(What::Event(event))) => netd.handle(event, &mut ctx),
            (Some(netd), Some(What::Timer(timer))) => netd.timeout(timer, &mut ctx),
            _ => return,
        }
        assert_eq!(out.failed, None);
        machine.notes.append(&mut out.notes);
        for op in out.timers {
            let (timer, at) = match op {
                TimerOp::Set(timer, at) => (timer, Some(at)),
                TimerOp::Clear(timer) => (timer, None),
            };
            self.queue.retain(|_, (of, _, what)| {
                *of != index || !matches!(what, What::Timer(t) if *t == timer)
            });
            if let Some(at) = at {
                self.sequence += 1;
                let incarnation = self.machines[index].incarnation;
                let entry = (index, incarnation, What::Timer(timer));
                self.queue.insert((at, self.sequence), entry);
            }
        }
        for (_, effect) in out.effects {
            self.perform(index, effect);
        }
        self.machines[index].steps += 1;
        if self.crash_at == Some((index, self.machines[index].steps)) {
            self.crash(index);
            self.sequence += 1;
            let at = self.now + Duration::from_millis(100);
            let incarnation = self.machines[index].incarnation;
            self.queue.insert((at, self.sequence), (index, incarnation, What::Start));
        }
    }

    /// A command of an earlier life reaches the kernel only now.
    pub fn land_late(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if let Some(routes) = machine.commands.first().cloned() {
            machine.set_routes(&routes);
        }
    }

    fn perform(&mut self, index: usize, effect: Effect) {
        let answers = effect.answers();
        match effect {
            Effect::Api(effect) => self.api(index, effect),
            Effect::Network(request) => self.network(index, request),
            Effect::Rules(request) => self.rules(index, request),
            Effect::Files(request) => self.file(index, request),
            Effect::Packets(request) => {
                assert_ne!(answers, Answers::One);
                self.packet(index, request);
            }
        }
    }

    fn count(&mut self, index: usize, what: &'static str) {
        *self.machines[index].effects.entry(what).or_default() += 1;
    }

    fn packet(&mut self, index: usize, request: packets::Request) {
        let packets::Request::Send { to, body, .. } = request else {
            return;
        };
        self.datagrams += 1;
        let from = self.machines[index].state.links[0].addresses.first().map(|net| net.addr());
        let owns = |m: &Machine| m.state.links[0].addresses.iter().any(|n| n.addr() == *to.ip());
        let Some(from) = from else { return };
        let Some(target) = self.machines.iter().position(owns) else {
            return;
        };
        for _ in 0..2 {
            if self.dice.below(100) < self.loss {
                continue;
            }
            let delay = if self.loss == 0 { 1 } else { self.dice.below(300) };
            let from = std::net::SocketAddrV4::new(from, peer::PORT);
            let reply = packets::Reply::Datagram { local: to, from, body: body.clone() };
            self.post(target, delay, Event::Packets(reply));
        }
    }

    fn file(&mut self, index: usize, request: files::Request) {
        let machine = &mut self.machines[index];
        match request {
            files::Request::Watch { path } | files::Request::Read { path } => {
                let content = machine.files.get(&path).cloned();
                self.post(index, 0, Event::Files(files::Reply::Content { path, content }));
            }
            files::Request::Write { path, content } => {
                self.count(index, "write");
                self.write(index, &path, &content);
                self.post(index, 1, Event::Files(files::Reply::Written { path, result: Ok(()) }));
            }
            files::Request::Remove { .. } => unreachable!("netd removes no file"),
        }
    }

    pub fn write(&mut self, index: usize, path: &str, text: &str) {
        let (path, content): (Name, Arc<str>) = (path.into(), text.into());
        self.machines[index].files.insert(path.clone(), content.clone());
        let content = Some(content);
        self.post(index, 0, Event::Files(files::Reply::Content { path, content }));
    }

    fn rules(&mut self, index: usize, request: rules::Request) {
        let machine = &mut self.machines[index];
        let ours =
            |rule: &rules::Rule| rule.target == rules::Target::Jump("KUBESIM-FORWARD".into());
        let reply = match request {
            rules::Request::Apply { owner, base, .. } => {
                self.count(index, "apply");
                let machine = &mut self.machines[index];
                machine.forward.retain(|rule| !ours(rule));
                let forward = base.iter().filter(|b| b.chain == "FORWARD").map(|b| b.rule.clone());
                machine.forward.splice(0..0, forward);
                rules::Reply::Applied { owner, version: 0, missing: Vec::new(), result: Ok(()) }
            }
            rules::Request::Verify { owner } => {
                let intact = machine.forward.iter().any(ours);
                let missing = if intact { vec![] } else { vec!["KUBESIM-FORWARD".to_owned()] };
                rules::Reply::Verified { owner, intact, missing }
            }
            rules::Request::ReadBase { table, chain } => {
                let (policy_drop, rules) = (machine.policy_drop, machine.forward.clone().into());
                rules::Reply::Base { table, chain, policy_drop, rules }
            }
            _ => unreachable!("netd does not touch conntrack"),
        };
        self.post(index, 1, Event::Rules(reply));
    }

    fn network(&mut self, index: usize, request: network::Request) {
        use network::{Reply, Request};
        let machine = &mut self.machines[index];
        let before = machine.state.clone();
        let mut ok = Ok(());
        let subject = match request {
            Request::Observe => return self.tell_state(index),
            Request::EnsureBridge { name, address, mtu } => {
                machine.put_link(&name, LinkKind::Bridge, address, mtu, Mac::default());
                name
            }
            Request::EnsureVxlan { name, spec } => {
                machine.put_link(&name, LinkKind::Vxlan, spec.address, spec.mtu, spec.mac);
                name
            }
            Request::EnsureWireguard { name, spec } => {
                machine.put_link(
                    &name,
                    LinkKind::Wireguard,
                    spec.address,
                    spec.mtu,
                    Mac::default(),
                );
                name
            }
            Request::SetWireguardPeers { dev, peers } => {
                machine.wireguard = peers.to_vec();
                ok = machine.has(&dev);
                dev
            }
            Request::DeleteLink { name } => {
                machine.state.links.retain(|link| link.name != name);
                machine.routes.retain(|_, route| route.dev != name);
                name
            }
            Request::SetRoutes { proto, routes } => {
                assert_eq!(proto, Proto::NETD);
                let refused = machine.set_routes(&routes);
                machine.commands.push(routes);
                let surplus = machine.commands.len().saturating_sub(4);
                machine.commands.drain(..surplus);
                self.count(index, "routes");
                let reply = Reply::RoutesSet { proto, refused };
                return self.post(index, 1, Event::Network(reply));
            }
            Request::SetNeighbours { dev, entries } => {
                machine.neighbours = entries.to_vec();
                ok = machine.has(&dev);
                dev
            }
            Request::SetFdb { dev, entries } => {
                machine.fdb = entries.to_vec();
                ok = machine.has(&dev);
                dev
            }
            Request::SetSysctl { key, value } => {
                assert_eq!(value, "1");
                machine.set_forwarding(&key);
                key
            }
            Request::GetSysctl { .. } => unreachable!("netd observes"),
        };
        let changed = machine.state != before;
        self.post(index, 1, Event::Network(Reply::Done { subject, result: ok }));
        if changed {
            self.tell_state(index);
        }
    }

    fn api(&mut self, index: usize, effect: api::Effect) {
        match effect {
            api::Effect::Dial { addresses } => self.machines[index].dialled = addresses,
            api::Effect::Watch { kind: Kind::Node, .. } => self.tell_node(index),
            api::Effect::Watch { .. } => self.tell_subnets(index),
            api::Effect::Call { tag, request } => {
                let result = match self.cut[index] {
                    true => Err(api::Error::new(api::Reason::Unreachable, "no route to host")),
                    false => self.call(index, &request),
                };
                let lost = self.dice.below(100) < self.loss;
                let result = match lost {
                    true => Err(api::Error::new(api::Reason::Unknown, "no answer in time")),
                    false => result,
                };
                let answer = api::Answer { tag, result };
                self.post(index, 2, Event::Api(api::Event::Answer(answer)));
            }
        }
    }

    fn call(&mut self, index: usize, request: &api::Request) -> Result<api::Reply, api::Error> {
        use api::{Reason, Request};
        let fail = |reason| Err(api::Error::new(reason, "no"));
        let stored = self.view.get(&request.subject().1).cloned();
        let (object, stored) = match (request, stored) {
            (Request::Get { .. }, Some(stored)) => return Ok(api::Reply::Object(stored)),
            (Request::Create { .. }, Some(_)) => return fail(Reason::AlreadyExists),
            (Request::Create { object }, None) => (object, None),
            (Request::Update { object } | Request::UpdateStatus { object }, Some(stored)) => {
                if object.version != stored.version {
                    return fail(Reason::Conflict);
                }
                (object, Some(stored))
            }
            _ => return fail(Reason::NotFound),
        };
        self.count(index, "api write");
        self.revision += 1;
        let mut object = (**object).clone();
        object.version = self.revision;
        object.uid = stored.map_or(Uid(u128::from(self.revision)), |stored| stored.uid);
        let object = Arc::new(object);
        self.view.insert(object.key.clone(), object.clone(), self.revision);
        self.news();
        Ok(api::Reply::Object(object))
    }
}

impl Machine {
    fn has(&self, name: &str) -> Result<(), network::Errno> {
        let found = self.state.links.iter().any(|link| link.name == name);
        found.then_some(()).ok_or(network::Errno::Enodev)
    }

    pub fn link(&self, name: &str) -> Option<&Link> {
        self.state.links.iter().find(|link| link.name == name)
    }

    fn put_link(&mut self, name: &str, kind: LinkKind, address: Ipv4Net, mtu: u32, mac: Mac) {
        let forwarding = self.state.links.iter().any(|l| l.name == name && l.forwarding);
        let index = self.state.links.iter().map(|l| l.index).max().unwrap_or(0) + 1;
        let old = self.state.links.iter().find(|l| l.name == name).map(|l| l.index);
        self.state.links.retain(|link| link.name != name);
        self.state.links.push(Link {
            name: name.into(),
            index: old.unwrap_or(index),
            kind,
            mac,
            mtu,
            up: true,
            carrier: true,
            master: None,
            addresses: vec![address],
            forwarding,
            default_route: false,
        });
    }

    fn set_routes(&mut self, routes: &network::RouteSet) -> Vec<(Ipv4Net, network::Errno)> {
        let sorted = routes.shared.windows(2).all(|pair| pair[0].to < pair[1].to);
        assert!(sorted, "sorted, and each destination once");
        self.routes.clear();
        let mut refused = Vec::new();
        for route in routes.iter() {
            let Some(link) = self.state.links.iter().find(|link| link.name == route.dev) else {
                refused.push((route.to, network::Errno::Enodev));
                continue;
            };
            // By WireGuard there is none.
            assert_eq!(route.via.is_none(), link.kind == LinkKind::Wireguard);
            let near = |via| link.addresses.iter().any(|net| net.contains(via));
            if !route.onlink && !route.via.as_ref().is_none_or(near) {
                refused.push((route.to, network::Errno::Enetunreach));
                continue;
            }
            self.routes.insert(route.to, route.clone());
        }
        refused
    }

    fn set_forwarding(&mut self, key: &str) {
        if key == "net.ipv4.ip_forward" {
            self.state.ip_forward = true;
            return;
        }
        let name = key.strip_prefix("net.ipv4.conf.").and_then(|k| k.strip_suffix(".forwarding"));
        for link in &mut self.state.links {
            link.forwarding |= Some(link.name.as_str()) == name;
        }
    }
}
