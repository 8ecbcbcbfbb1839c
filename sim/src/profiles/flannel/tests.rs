//! The ghost lease and the stale route, as users met them.

use super::*;
use kubesim_actors::objects::NodeSpec;
use kubesim_actors::ports::network::{Errno, Link, LinkKind};
use kubesim_runtime::{Clocks, Outbox, Rng, Stream};

const HOST_GW: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}"#;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// One flanneld, its machine and an API that does what it is asked.
struct Host {
    flannel: Option<Flannel>,
    config: Config,
    rng: Rng,
    ticket: u64,
    revision: u64,
    leases: View,
    links: Vec<Link>,
    env: Option<Arc<str>>,
    table_file: Option<Arc<str>>,
    routes: Table,
    notes: Vec<String>,
}

fn link(name: &str, kind: LinkKind, address: Ipv4Net) -> Link {
    Link {
        name: name.into(),
        index: 2,
        kind,
        mac: Mac::default(),
        mtu: 1500,
        up: true,
        carrier: true,
        master: None,
        addresses: vec![address],
        forwarding: true,
        default_route: false,
    }
}

impl Host {
    fn new(address: &str) -> Host {
        let config = Config {
            node: "n0".into(),
            interface: "eth0".into(),
            net_conf: "/net-conf.json".into(),
            subnet_env: "/subnet.env".into(),
            memory: "/memory.json".into(),
            bridge: "cni0".into(),
            key_seed: [0; 32],
            servers: vec![("n0".into(), net(address).addr())],
            service_network: net("10.96.0.0/12"),
            resync: Duration::from_secs(5),
        };
        Host {
            flannel: None,
            config,
            rng: Rng::new(Stream { seed: 3, label: "t", index: 0, incarnation: 0 }),
            ticket: 0,
            revision: 1,
            leases: View::empty(1),
            links: vec![link("eth0", LinkKind::Uplink, net(address))],
            env: None,
            table_file: None,
            routes: Table::new(),
            notes: Vec::new(),
        }
    }

    fn step(&mut self, act: impl FnOnce(&mut Option<Flannel>, &mut Context<'_, Flannel>)) {
        let mut out = Outbox::new(true);
        let clocks = Clocks::default();
        let mut ctx = Context::new(clocks, &mut self.rng, &mut self.ticket, &mut out);
        act(&mut self.flannel, &mut ctx);
        self.notes.append(&mut out.notes);
        for (_, effect) in out.effects {
            self.perform(effect);
        }
    }

    fn tell(&mut self, event: Event) {
        self.step(|flannel, ctx| flannel.as_mut().unwrap().handle(event, ctx));
    }

    fn alarm(&mut self, timer: Timer) {
        self.step(|flannel, ctx| flannel.as_mut().unwrap().timeout(timer, ctx));
    }

    fn start(&mut self) {
        let config = self.config.clone();
        self.step(|flannel, ctx| *flannel = Some(Flannel::start(&config, ctx)));
        for (path, content) in [
            ("/net-conf.json", Some(HOST_GW.into())),
            ("/subnet.env", self.env.clone()),
            (TABLE.as_str(), self.table_file.clone()),
        ] {
            let path = path.into();
            self.tell(Event::Files(files::Reply::Content { path, content }));
        }
        self.tell_state();
        self.tell_leases();
        let spec = NodeSpec::default();
        let body = Body::Node { spec: Arc::new(spec), status: Arc::default() };
        let mut node = Object::new(Key::cluster("n0"), body);
        node.uid = Uid(7);
        let mut view = View::empty(2);
        view.insert(node.key.clone(), Arc::new(node), 1);
        let (kind, scope) = (Kind::Node, api::Scope::Node("n0".into()));
        self.tell(Event::Api(api::Event::News(api::News::View { kind, scope, view })));
    }

    fn tell_state(&mut self) {
        let (links, netd_routes, ip_forward) = (self.links.clone(), 0, true);
        let state = Arc::new(State { links, netd_routes, ip_forward, bridge_nf: true });
        self.tell(Event::Network(Reply::State(state)));
    }

    fn tell_leases(&mut self) {
        let (kind, scope, view) = (Kind::Subnet, api::Scope::All, self.leases.clone());
        self.tell(Event::Api(api::Event::News(api::News::View { kind, scope, view })));
    }

    fn put(&mut self, object: &Object) -> Arc<Object> {
        self.revision += 1;
        let mut object = object.clone();
        object.version = self.revision;
        object.uid = Uid(u128::from(self.revision));
        let object = Arc::new(object);
        self.leases.insert(object.key.clone(), object.clone(), self.revision);
        object
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Api(api::Effect::Call { tag, request }) => {
                let (api::Request::Create { object } | api::Request::Update { object }) = &*request
                else {
                    return;
                };
                let result = Ok(api::Reply::Object(self.put(object)));
                self.tell(Event::Api(api::Event::Answer(api::Answer { tag, result })));
                self.tell_leases();
            }
            Effect::Files(files::Request::Write { path, content }) if path == TABLE => {
                self.table_file = Some(content);
            }
            Effect::Files(files::Request::Write { content, .. }) => self.env = Some(content),
            Effect::Network(Request::EnsureBridge { name, address, .. }) => {
                self.links.push(link(&name, LinkKind::Bridge, address));
                self.tell_state();
            }
            Effect::Network(Request::SetRoutes { proto, routes }) => {
                let on_link = |ip| self.links[0].addresses.iter().any(|net| net.contains(&ip));
                let (good, bad): (Vec<&Route>, Vec<&Route>) =
                    routes.iter().partition(|route| on_link(route.via.unwrap()));
                let routes = good.iter().map(|route| (route.to, route.via.unwrap())).collect();
                let refused = bad.iter().map(|route| (route.to, Errno::Enetunreach)).collect();
                self.routes = routes;
                self.tell(Event::Network(Reply::RoutesSet { proto, refused }));
            }
            _ => {}
        }
    }

    fn subnet(&self) -> Ipv4Net {
        cidr_of(self.flannel.as_ref().unwrap().lease.as_ref().unwrap()).unwrap()
    }

    fn peer(&mut self, subnet: &str, ip: &str) -> Object {
        let flannel = self.flannel.clone().unwrap();
        let node = flannel.node.clone().unwrap();
        flannel.lease_object(net(subnet), net(ip), &node)
    }
}

#[test]
fn after_a_roam_a_ghost_lease_holds_the_subnet_and_the_bridge_keeps_its_address() {
    let mut host = Host::new("192.168.1.10/24");
    host.start();
    let old = host.subnet();
    assert_eq!(host.links[1].addresses, [gateway(old).unwrap()]);
    let peer = host.peer("10.244.200.0/24", "192.168.1.11/24");
    host.put(&peer);
    host.tell_leases();
    assert_eq!(host.routes[&net("10.244.200.0/24")], Ipv4Addr::from([192, 168, 1, 11]));

    host.links[0].addresses = vec![net("10.20.0.7/24")];
    host.routes.clear();
    host.tell_state();
    assert_eq!(host.subnet(), old, "nothing is noticed until the restart");
    host.alarm(Timer::Announce);
    let new = host.subnet();
    assert_ne!(new, old);
    let env = host.env.clone().unwrap();
    assert!(env.contains(&format!("FLANNEL_SUBNET={}", gateway(new).unwrap())), "{env}");
    assert_eq!(host.links[1].addresses, [gateway(old).unwrap()]);
    let ghost = host.leases.get(&Key::cluster(lease_name(old))).unwrap();
    assert_eq!(public_ip(ghost), Some([192, 168, 1, 10].into()));
    assert!(host.notes.iter().any(|note| note.contains("cni0 keeps")));
    host.alarm(Timer::Resync);
    assert!(host.routes.is_empty(), "routeCheck cannot succeed while gateways are off-link");
}

#[test]
fn a_lease_deleted_while_the_daemon_is_down_leaves_its_route() {
    let mut host = Host::new("192.168.1.10/24");
    host.start();
    let peers = [("10.244.204.0/24", "192.168.1.14/24"), ("10.244.205.0/24", "192.168.1.15/24")];
    for (subnet, ip) in peers {
        let peer = host.peer(subnet, ip);
        host.put(&peer);
    }
    host.tell_leases();
    assert_eq!(host.routes.len(), 2);
    host.revision += 1;
    let gone = Key::cluster(lease_name(net("10.244.204.0/24")));
    let revision = host.revision;
    host.leases.remove(&gone, revision);
    host.start();
    host.alarm(Timer::Resync);
    let kept = host.subnet();
    assert!(host.routes.contains_key(&net("10.244.204.0/24")), "flannel#2554");
    // One that is seen to be deleted goes.
    host.revision += 1;
    let (gone, revision) = (Key::cluster(lease_name(net("10.244.205.0/24"))), host.revision);
    host.leases.remove(&gone, revision);
    host.tell_leases();
    assert_eq!(host.routes.keys().collect::<Vec<_>>(), [&net("10.244.204.0/24")]);
    assert_eq!(host.subnet(), kept, "the lease of its public IP is found again");
}
