//! flannel in etcd mode with host-gw or vxlan, next to a docker that has its bridge from flannel's
//! subnet.env when it starts: what field note G's author ran.
//!
//! From its documentation and public issues:
//! - Interface and public IP are chosen once, at start. A lease is looked up *by public IP*; else
//!   the subnet of subnet.env is tried, unless a lease holds it (after a roam the ghost of the old
//!   IP does, for 24 h); else a free one is drawn at random (docs: "if the public IP changes, then
//!   the flannel subnet will change too"; flannel#408, #760, #1978).
//! - A route is added for each lease seen, replacing one to the same subnet by another gateway.
//!   It is deleted only if the lease's deletion is seen while running; unknown routes are never
//!   removed (flannel#2554). Every 10 s missing ones are added again, which cannot succeed while
//!   the gateway is off-link.
//! - A change of address is not noticed. When the network is back the service manager (or the
//!   user) restarts flanneld, here [`RESTART`] after the new address. The bridge keeps the address
//!   docker gave it at *its* start.
//! - Forwarding is nobody's business: the docker beside it, which starts once subnet.env is there,
//!   turns `ip_forward` on where it is off and no more, and FORWARD has no rule of flannel's (it
//!   has since 0.9.1; kubernetes#40182 is from before).
//!
//! etcd's keys are Subnet objects here, named after their subnet, owned by the Node so that an
//! operator who deletes a node deletes its lease. The network port has no "add this one route",
//! so what this program believes the kernel's table to be (which outlives it) is kept in a file
//! under /run and set as a whole.

use ipnet::Ipv4Net;
use kubesim_actors::netd::conf::{Backend, NetConf};
use kubesim_actors::netd::guard::{Networks, apply};
use kubesim_actors::netd::{Config, Effect, Event, Netd, Timer, gateway, subnet_env};
use kubesim_actors::objects::{Body, Key, Kind, Name, Object, SubnetSpec, SubnetStatus, Uid, View};
use kubesim_actors::ports::network::{
    FdbEntry, IfName, Mac, Neighbour, Proto, Reply, Request, Route, RouteSet, State, Vxlan,
};
use kubesim_actors::ports::{api, files, rules};
use kubesim_runtime::{Actor, Change, Context, Wall};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// `--subnet-lease-ttl` and the margin in which it is renewed (flannel's defaults).
const TTL: Duration = Duration::from_secs(24 * 3600);
const RENEW_AFTER: Duration = Duration::from_secs(23 * 3600);
/// `routeCheckRetries`.
const ROUTE_CHECK: Duration = Duration::from_secs(10);
/// From a new address to the restarted daemon.
const RESTART: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(1);

const TABLE: Name = Name::new_static("/run/flannel/kernel-table");
const PUBLIC_IP: &str = "flannel.alpha.coreos.com/public-ip";
/// The annotation of a lease that says when it ends, in seconds since 1970.
pub const EXPIRES: &str = "flannel.kubesim.dev/expires";
const VXLAN: IfName = IfName::new_static("flannel.1");
const OWNER: SmolStr = SmolStr::new_static("flannel");

/// Destination and gateway of each route.
type Table = BTreeMap<Ipv4Net, Ipv4Addr>;

#[derive(Clone, Debug)]
pub struct Flannel {
    config: Config,
    conf: Option<NetConf>,
    /// FLANNEL_SUBNET of subnet.env, once read.
    previous: Option<Option<Ipv4Net>>,
    /// What the kernel's table holds as far as we know, once read.
    table: Option<Table>,
    saved: Option<Arc<str>>,
    state: Option<Arc<State>>,
    node: Option<Arc<Object>>,
    leases: Option<View>,
    /// Of this life of the daemon: the address it chose, the lease it got, the routes it wants.
    address: Option<Ipv4Net>,
    lease: Option<Arc<Object>>,
    wanted: Table,
    call: Option<(u64, Asked)>,
    calls: u64,
    restarting: bool,
    /// The docker beside it has been started.
    docker: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Lease,
    Renewal,
    Expiry,
}

impl Actor for Flannel {
    const NAME: &'static str = Netd::NAME;
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        for path in [&config.net_conf, &config.subnet_env, &TABLE] {
            ctx.perform(Effect::Files(files::Request::Read { path: path.clone() }));
        }
        ctx.perform(Effect::Network(Request::Observe));
        // A kubeconfig pinned to an address; on the server itself it says localhost.
        let addresses =
            config.servers.iter().map(|(server, address)| match *server == config.node {
                true => Ipv4Addr::LOCALHOST,
                false => *address,
            });
        let addresses = addresses.collect();
        ctx.perform(Effect::Api(api::Effect::Dial { addresses }));
        let (kind, scope) = (Kind::Node, api::Scope::Node(config.node.clone()));
        ctx.perform(Effect::Api(api::Effect::Watch { kind, scope }));
        let (kind, scope) = (Kind::Subnet, api::Scope::All);
        ctx.perform(Effect::Api(api::Effect::Watch { kind, scope }));
        ctx.set_timer(Timer::Resync, ROUTE_CHECK);
        Flannel {
            config: config.clone(),
            conf: None,
            previous: None,
            table: None,
            saved: None,
            state: None,
            node: None,
            leases: None,
            address: None,
            lease: None,
            wanted: Table::new(),
            call: None,
            calls: 0,
            restarting: false,
            docker: false,
        }
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        match event {
            Event::Files(files::Reply::Content { path, content }) => {
                self.on_file(&path, content.as_deref(), ctx);
            }
            Event::Network(Reply::State(state)) => self.on_state(state, ctx),
            Event::Network(Reply::RoutesSet { refused, .. }) => {
                let Some(table) = &mut self.table else { return };
                for (net, _) in &refused {
                    table.remove(net);
                }
                self.save_table(ctx);
            }
            Event::Api(api::Event::News(api::News::View { kind, view, .. })) => {
                self.on_view(kind, view, ctx);
            }
            Event::Api(api::Event::Answer(answer)) => self.on_answer(answer, ctx),
            Event::Rules(rules::Reply::Verified { intact: false, .. }) => self.set_rules(ctx),
            _ => {}
        }
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        match timer {
            Timer::Resync => {
                ctx.set_timer(Timer::Resync, ROUTE_CHECK);
                self.check(ctx);
            }
            Timer::Announce => self.restart(ctx),
            Timer::Sync => self.renew(ctx),
            Timer::Retry => self.acquire(ctx),
        }
    }
}

impl Flannel {
    fn on_file(&mut self, path: &Name, content: Option<&str>, ctx: &mut Context<'_, Self>) {
        if *path == self.config.net_conf {
            match NetConf::parse(content.unwrap_or_default()) {
                Ok(conf) => self.conf = Some(conf),
                Err(why) => ctx.note(|| format!("failed to retrieve network config: {why}")),
            }
        } else if *path == self.config.subnet_env {
            let line = |line: &str| line.strip_prefix("FLANNEL_SUBNET=")?.trim().parse().ok();
            let subnet: Option<Ipv4Net> = content.and_then(|text| text.lines().find_map(line));
            self.previous.get_or_insert(subnet.map(|net| net.trunc()));
        } else if *path == TABLE {
            let entry = |line: &str| {
                let (net, via) = line.split_once(' ')?;
                Some((net.parse().ok()?, via.parse().ok()?))
            };
            let lines = content.into_iter().flat_map(str::lines);
            self.table.get_or_insert(lines.filter_map(entry).collect());
        }
        self.flush();
        self.acquire(ctx);
    }

    fn on_state(&mut self, state: Arc<State>, ctx: &mut Context<'_, Self>) {
        let first = self.state.is_none();
        if first && !state.bridge_nf {
            // dockerd loads br_netfilter, whose default is 1.
            let (key, value) = ("net.bridge.bridge-nf-call-iptables".into(), "1".into());
            ctx.perform(Effect::Network(Request::SetSysctl { key, value }));
        }
        self.state = Some(state);
        self.flush();
        let now = self.uplink_address();
        match (self.address, now) {
            (Some(chosen), Some(now)) if chosen != now && !self.restarting => {
                self.restarting = true;
                ctx.set_timer(Timer::Announce, RESTART);
            }
            (None, Some(_)) => self.acquire(ctx),
            _ => {}
        }
    }

    fn uplink_address(&self) -> Option<Ipv4Net> {
        let links = &self.state.as_ref()?.links;
        let uplink = links.iter().find(|link| link.name == self.config.interface)?;
        let global = |net: &&Ipv4Net| !net.addr().is_loopback() && !net.addr().is_link_local();
        uplink.addresses.iter().find(global).copied()
    }

    fn bridge_address(&self) -> Option<Ipv4Net> {
        let links = &self.state.as_ref()?.links;
        links.iter().find(|link| link.name == self.config.bridge)?.addresses.first().copied()
    }

    /// The kernel's own doing: routes go with the address that made their gateway reachable, and
    /// everything goes with the machine (no bridge yet: it has just booted).
    fn flush(&mut self) {
        let (Some(conf), Some(state)) = (&self.conf, &self.state) else { return };
        let bridge = state.links.iter().any(|link| link.name == self.config.bridge);
        let booted = !bridge && self.lease.is_none();
        let uplink = self.uplink_address();
        let Some(table) = &mut self.table else { return };
        if booted {
            table.clear();
        } else if conf.backend == Backend::HostGw {
            table.retain(|_, via| uplink.is_some_and(|net| net.contains(&*via)));
        }
    }

    fn restart(&mut self, ctx: &mut Context<'_, Self>) {
        self.restarting = false;
        self.address = None;
        self.lease = None;
        self.wanted.clear();
        self.call = None;
        ctx.note(|| "the network is back: flanneld is restarted".to_owned());
        self.acquire(ctx);
    }

    /// `tryAcquireLease`: by public IP, else the previous subnet, else any.
    fn acquire(&mut self, ctx: &mut Context<'_, Self>) {
        let (Some(conf), Some(previous), Some(_)) = (self.conf, self.previous, &self.table) else {
            return;
        };
        let (Some(leases), Some(node)) = (self.leases.clone(), self.node.clone()) else { return };
        if self.lease.is_some() || self.call.is_some() {
            return;
        }
        let Some(address) = self.uplink_address() else { return };
        self.address = Some(address);
        if let Some(mine) = leases.values().find(|lease| public_ip(lease) == Some(address.addr())) {
            let name = &mine.key.name;
            ctx.note(|| format!("found lease {name} for current IP {}, reusing", address.addr()));
            let request = api::Request::Update { object: self.stamped(mine, ctx.wall()) };
            return self.call(Asked::Lease, request, ctx);
        }
        let held = |net: Ipv4Net| {
            leases.values().find(|lease| cidr_of(lease).is_some_and(|held| overlap(held, net)))
        };
        let usable = |net: &Ipv4Net| conf.network.contains(net);
        let subnet = match previous.filter(usable) {
            Some(previous) => match held(previous) {
                None => Some(previous),
                Some(ghost) => {
                    let ip =
                        public_ip(ghost).map_or_else(|| "none".to_owned(), |ip| ip.to_string());
                    ctx.note(|| {
                        format!(
                            "previous subnet {previous} is leased to public IP {ip} (not ours any \
                             more, for up to 24 h): drawing another"
                        )
                    });
                    draw(&conf, &leases, ctx)
                }
            },
            None => draw(&conf, &leases, ctx),
        };
        let Some(subnet) = subnet else {
            return ctx.note(|| "out of subnets".to_owned());
        };
        let lease = self.lease_object(subnet, address, &node);
        let request = api::Request::Create { object: self.stamped(&lease, ctx.wall()) };
        self.call(Asked::Lease, request, ctx);
    }

    fn lease_object(&self, subnet: Ipv4Net, address: Ipv4Net, node: &Object) -> Object {
        let name = lease_name(subnet);
        let spec = SubnetSpec {
            node: self.config.node.clone(),
            node_uid: node.uid,
            cidr: subnet.to_string(),
            public_key: String::new(),
        };
        let status = SubnetStatus {
            locator: Some(address.addr()),
            prefix_length: address.prefix_len(),
            generation: 0,
            vtep_mac: self.vtep_mac(subnet).to_string(),
        };
        let body = Body::Subnet { spec: Arc::new(spec), status: Arc::new(status) };
        let mut object = Object::new(Key::cluster(name), body);
        let meta = Arc::make_mut(&mut object.meta);
        meta.owner_references = Some(vec![node.as_controller()]);
        let annotations = meta.annotations.get_or_insert_default();
        annotations.insert(PUBLIC_IP.to_owned(), address.addr().to_string());
        object
    }

    fn vtep_mac(&self, subnet: Ipv4Net) -> Mac {
        let [a, b, c, d] = subnet.network().octets();
        Mac([0x02, 0x0f, a, b, c, d])
    }

    /// The lease with a whole TTL ahead.
    fn stamped(&self, lease: &Object, wall: Wall) -> Arc<Object> {
        let mut lease = lease.clone();
        let expires = (wall + TTL).unix_secs().to_string();
        let meta = Arc::make_mut(&mut lease.meta);
        meta.annotations.get_or_insert_default().insert(EXPIRES.to_owned(), expires);
        Arc::new(lease)
    }

    fn call(&mut self, asked: Asked, request: api::Request, ctx: &mut Context<'_, Self>) {
        self.calls += 1;
        self.call = Some((self.calls, asked));
        let (tag, request) = (self.calls, Arc::new(request));
        ctx.perform(Effect::Api(api::Effect::Call { tag, request }));
    }

    fn on_answer(&mut self, answer: api::Answer, ctx: &mut Context<'_, Self>) {
        let Some((tag, asked)) = self.call.filter(|(tag, _)| *tag == answer.tag) else { return };
        debug_assert_eq!(tag, answer.tag);
        self.call = None;
        match (asked, answer.result) {
            (Asked::Lease, Ok(api::Reply::Object(lease))) => self.run(lease, ctx),
            (Asked::Renewal, Ok(api::Reply::Object(lease))) => {
                self.lease = Some(lease);
                ctx.set_timer(Timer::Sync, RENEW_AFTER);
            }
            (Asked::Lease, _) => ctx.set_timer(Timer::Retry, RETRY),
            (Asked::Renewal, _) => ctx.set_timer(Timer::Sync, RETRY * 60),
            (Asked::Expiry, _) => {}
        }
    }

    /// The lease is ours: the backend is set up and subnet.env written.
    fn run(&mut self, lease: Arc<Object>, ctx: &mut Context<'_, Self>) {
        let (Some(conf), Some(subnet)) = (self.conf, cidr_of(&lease)) else { return };
        self.lease = Some(lease);
        ctx.set_timer(Timer::Sync, RENEW_AFTER);
        let Some(first) = gateway(subnet) else { return };
        let mtu = self.pod_mtu(&conf);
        self.previous = Some(Some(subnet));
        let (path, content) =
            (self.config.subnet_env.clone(), subnet_env(conf.network, first, mtu));
        ctx.perform(Effect::Files(files::Request::Write { path, content: content.into() }));
        match self.bridge_address() {
            None => {
                let name = self.config.bridge.clone();
                let request = Request::EnsureBridge { name, address: first, mtu };
                ctx.perform(Effect::Network(request));
            }
            Some(address) if address == first => {}
            Some(old) => {
                let bridge = self.config.bridge.clone();
                ctx.note(|| {
                    format!(
                        "new subnet {subnet}, but {bridge} keeps {old}: docker picks the address \
                         of its bridge when it starts"
                    )
                });
            }
        }
        self.set_rules(ctx);
        self.ensure_vxlan(&conf, subnet, ctx);
        let leases: Vec<Arc<Object>> = self.leases.iter().flat_map(View::values).cloned().collect();
        for lease in &leases {
            self.add_route(lease, ctx);
        }
        self.set_routes(ctx);
    }

    fn pod_mtu(&self, conf: &NetConf) -> u32 {
        let links = self.state.iter().flat_map(|state| &state.links);
        let mut uplink = links.filter(|link| link.name == self.config.interface);
        let mtu = uplink.next().map_or(1500, |link| link.mtu);
        let overhead = if conf.backend == Backend::HostGw { 0 } else { 50 };
        conf.mtu.unwrap_or(mtu.saturating_sub(overhead))
    }

    fn set_rules(&mut self, ctx: &mut Context<'_, Self>) {
        let own = self.lease.as_deref().and_then(cidr_of);
        let (Some(conf), Some(own)) = (&self.conf, own) else { return };
        let networks = Networks { pods: conf.network, own, services: self.config.service_network };
        ctx.perform(Effect::Rules(only_nat(apply(OWNER, &networks, rules::Place::Last))));
    }

    fn ensure_vxlan(&mut self, conf: &NetConf, subnet: Ipv4Net, ctx: &mut Context<'_, Self>) {
        let (Backend::Vxlan { vni, port, .. }, Some(local)) = (conf.backend, self.address) else {
            return;
        };
        let Ok(address) = Ipv4Net::new(subnet.network(), 32) else { return };
        let (mac, mtu) = (self.vtep_mac(subnet), self.pod_mtu(conf));
        let spec = Vxlan { vni, port, mac, mtu, local: local.addr(), address };
        ctx.perform(Effect::Network(Request::EnsureVxlan { name: VXLAN, spec }));
    }

    fn on_view(&mut self, kind: Kind, view: View, ctx: &mut Context<'_, Self>) {
        if kind == Kind::Node {
            self.node = view.get(&Key::cluster(self.config.node.clone())).cloned();
            return self.acquire(ctx);
        }
        let old = self.leases.replace(view.clone());
        if self.lease.is_none() {
            return self.acquire(ctx);
        }
        let mut changed = false;
        for change in old.iter().flat_map(|old| old.diff(&view)) {
            changed |= match change {
                Change::Added(_, new) | Change::Changed { new, .. } => self.add_route(new, ctx),
                Change::Removed(_, old) => self.remove_route(old, ctx),
            };
        }
        if changed {
            self.set_routes(ctx);
        }
    }

    /// The route for a lease; none for our own subnet. A route there is to the same subnet by
    /// another gateway is replaced.
    fn add_route(&mut self, lease: &Object, ctx: &mut Context<'_, Self>) -> bool {
        let (Some(subnet), Some(via)) = (cidr_of(lease), public_ip(lease)) else { return false };
        let own = self.lease.as_deref().and_then(cidr_of);
        if own == Some(subnet) || self.wanted.insert(subnet, via) == Some(via) {
            return false;
        }
        let Some(table) = &mut self.table else { return false };
        if let Some(other) = table.insert(subnet, via).filter(|other| *other != via) {
            ctx.note(|| format!("replacing existing route to {subnet} via {other} by {via}"));
        }
        true
    }

    fn remove_route(&mut self, lease: &Object, ctx: &mut Context<'_, Self>) -> bool {
        let (Some(subnet), Some(via)) = (cidr_of(lease), public_ip(lease)) else { return false };
        if self.wanted.get(&subnet) == Some(&via) {
            self.wanted.remove(&subnet);
        }
        let Some(table) = self.table.as_mut().filter(|table| table.get(&subnet) == Some(&via))
        else {
            return false;
        };
        table.remove(&subnet);
        ctx.note(|| format!("subnet removed: {subnet}"));
        true
    }

    fn set_routes(&mut self, ctx: &mut Context<'_, Self>) {
        let (Some(table), Some(conf)) = (&self.table, &self.conf) else { return };
        let tunnel = conf.backend != Backend::HostGw;
        let route = |(to, via): (&Ipv4Net, &Ipv4Addr)| match tunnel {
            true => Route { to: *to, via: Some(to.network()), dev: VXLAN, onlink: true, metric: 0 },
            false => Route {
                to: *to,
                via: Some(*via),
                dev: self.config.interface.clone(),
                onlink: false,
                metric: 0,
            },
        };
        let shared: Arc<[Route]> = table.iter().map(route).collect();
        if tunnel {
            let mac = |net: &Ipv4Net| self.vtep_mac(*net);
            let entries = table.keys().map(|net| Neighbour { ip: net.network(), mac: mac(net) });
            let (dev, entries) = (VXLAN, entries.collect());
            ctx.perform(Effect::Network(Request::SetNeighbours { dev, entries }));
            let entries = table.iter().map(|(net, via)| FdbEntry { mac: mac(net), remote: *via });
            let (dev, entries) = (VXLAN, entries.collect());
            ctx.perform(Effect::Network(Request::SetFdb { dev, entries }));
        }
        let routes = RouteSet { shared, except: None };
        ctx.perform(Effect::Network(Request::SetRoutes { proto: Proto::NETD, routes }));
        self.save_table(ctx);
    }

    fn save_table(&mut self, ctx: &mut Context<'_, Self>) {
        let lines = self.table.iter().flatten().map(|(net, via)| format!("{net} {via}\n"));
        let content: Arc<str> = lines.collect::<String>().into();
        if self.saved.as_ref() == Some(&content) {
            return;
        }
        self.saved = Some(content.clone());
        let path = TABLE;
        ctx.perform(Effect::Files(files::Request::Write { path, content }));
    }

    /// Every 10 s: `routeCheck`, the rules, and etcd's own removal of what is past its TTL.
    fn check(&mut self, ctx: &mut Context<'_, Self>) {
        self.start_docker(ctx);
        if self.lease.is_none() {
            // A config that could not be read is asked for again, as the daemon's retries do.
            if self.conf.is_none() {
                let path = self.config.net_conf.clone();
                ctx.perform(Effect::Files(files::Request::Read { path }));
            }
            return self.acquire(ctx);
        }
        ctx.perform(Effect::Rules(rules::Request::Verify { owner: OWNER }));
        let Some(table) = &mut self.table else { return };
        let missing = self.wanted.iter().any(|(net, via)| table.get(net) != Some(via));
        if missing {
            table.extend(self.wanted.iter().map(|(net, via)| (*net, *via)));
            self.set_routes(ctx);
        }
        let now = ctx.wall().unix_secs();
        let expired = |lease: &&Arc<Object>| {
            let expires = lease.annotation(EXPIRES).and_then(|text| text.parse::<i64>().ok());
            expires.is_some_and(|expires| expires < now)
        };
        let dead = self.leases.iter().flat_map(View::values).find(expired).cloned();
        if let (Some(lease), None) = (dead, &self.call) {
            let (kind, key) = (Kind::Subnet, lease.key.clone());
            let uid = Some(lease.uid).filter(|uid| *uid != Uid::NONE);
            let options = api::DeleteOptions { uid, ..api::DeleteOptions::default() };
            self.call(Asked::Expiry, api::Request::Delete { kind, key, options }, ctx);
        }
    }

    /// `docker.service` is ordered after flannel's; it turns forwarding on once and for all.
    fn start_docker(&mut self, ctx: &mut Context<'_, Self>) {
        let Some(state) = self.state.as_ref().filter(|_| !self.docker) else { return };
        self.docker = true;
        if !state.ip_forward {
            ctx.note(|| "dockerd sets net.ipv4.ip_forward to 1".to_owned());
            let (key, value) = ("net.ipv4.ip_forward".into(), "1".into());
            ctx.perform(Effect::Network(Request::SetSysctl { key, value }));
        }
    }

    fn renew(&mut self, ctx: &mut Context<'_, Self>) {
        let Some(lease) = &self.lease else { return };
        if self.call.is_some() {
            return ctx.set_timer(Timer::Sync, RETRY);
        }
        let newest = self.leases.as_ref().and_then(|view| view.get(&lease.key)).unwrap_or(lease);
        let object = self.stamped(newest, ctx.wall());
        self.call(Asked::Renewal, api::Request::Update { object }, ctx);
    }
}

/// Without what goes into the filter table.
fn only_nat(request: rules::Request) -> rules::Request {
    match request {
        rules::Request::Apply { owner, base, shared, local } => {
            let base = base.iter().filter(|base| base.table == rules::Table::Nat).cloned();
            let local = local.iter().filter(|(key, _)| key.table == rules::Table::Nat).cloned();
            let (base, local) = (base.collect(), local.collect());
            rules::Request::Apply { owner, base, shared, local }
        }
        other => other,
    }
}

fn public_ip(lease: &Object) -> Option<Ipv4Addr> {
    lease.annotation(PUBLIC_IP)?.parse().ok()
}

fn cidr_of(lease: &Object) -> Option<Ipv4Net> {
    lease.subnet()?.0.cidr.parse().ok()
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// A free subnet, at random, between SubnetMin and SubnetMax (by default the second one of the
/// network and the last).
fn draw(conf: &NetConf, leases: &View, ctx: &mut Context<'_, Flannel>) -> Option<Ipv4Net> {
    let len = conf.subnet_len;
    let size = 1u64 << (32 - len);
    let start = u64::from(u32::from(conf.network.network()));
    let end = start + (1u64 << (32 - conf.network.prefix_len())) - size;
    let min = conf.subnet_min.map_or(start + size, |ip| u64::from(u32::from(ip)) / size * size);
    let max = conf.subnet_max.map_or(end, |ip| u64::from(u32::from(ip)) / size * size);
    let count = max.checked_sub(min)? / size + 1;
    let held: Vec<Ipv4Net> = leases.values().filter_map(|lease| cidr_of(lease)).collect();
    let offset = ctx.rng().below(count);
    let nth = |n: u64| {
        let ip = min + (offset + n) % count * size;
        Ipv4Net::new(Ipv4Addr::from(ip as u32), len).ok()
    };
    (0..count).filter_map(nth).find(|net| !held.iter().any(|held| overlap(*held, *net)))
}

/// `10-244-1-0-24`
pub fn lease_name(subnet: Ipv4Net) -> Name {
    format_smolstr!("{}", subnet.to_string().replace(['.', '/'], "-"))
}

#[cfg(test)]
mod tests;
