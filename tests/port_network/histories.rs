//! Random histories: whatever happens, the model and Linux end up with the same, and say so.

use crate::linux::Linux;
use crate::model::Model;
use crate::namespace::in_namespace;
use crate::world::{Asking, World, has, ip, is, mac, net, text};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, LinkKind, Mac, Proto, Route, RouteSet, State, Vxlan};
use kubesim_runtime::{Rng, Stream};
use std::sync::Arc;

const STEPS: usize = 40;

#[derive(Clone, Debug)]
enum Step {
    AddAddress(&'static str, Ipv4Net),
    DelAddress(&'static str, Ipv4Net),
    SetUp(&'static str, bool),
    SetMaster(&'static str, Option<&'static str>),
    AddRoute(Route, Proto),
    DelRoute(Route, Proto),
    SetRoutes(RouteSet),
    Bridge(Ipv4Net, u32),
    Vxlan(Vxlan),
    DeleteLink(&'static str),
    Neighbours(&'static str, Vec<(&'static str, u8)>),
    Fdb(&'static str, Vec<(u8, &'static str)>),
    Sysctl(String, &'static str),
    Restart,
}

const LINKS: [&str; 4] = ["eth0", "wire0", "cni0", "kubesim.1"];
const ADDRESSES: [&str; 5] =
    ["192.168.0.5/24", "192.168.0.6/24", "192.168.1.5/24", "10.20.0.7/16", "10.20.3.7/24"];
const GATEWAYS: [&str; 6] =
    ["192.168.0.11", "192.168.1.12", "10.20.0.1", "10.20.3.9", "172.16.0.1", "192.168.0.5"];
const TARGETS: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.244.0.0/16",
    "10.244.1.0/24",
    "10.244.2.0/24",
    "10.244.2.0/25",
    "172.16.0.0/24",
    "192.168.7.7/32",
];
const MACS: [(&str, u8); 4] =
    [("10.244.2.0", 2), ("10.244.3.0", 3), ("10.244.4.0", 4), ("10.244.2.0", 5)];

struct Dice(Rng);

impl Dice {
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        self.0.pick(of).expect("a choice").clone()
    }
    fn yes(&mut self, one_in: u64) -> bool {
        self.0.below(one_in) == 0
    }

    fn route(&mut self, to: Ipv4Net) -> Route {
        let via = (!self.yes(4)).then(|| ip(self.one(&GATEWAYS)));
        let dev = if self.yes(2) { "eth0" } else { self.one(&LINKS) };
        let (onlink, metric) = (via.is_some() && self.yes(4), self.0.below(2) as u32);
        Route { to, via, dev: dev.into(), onlink, metric }
    }

    fn set(&mut self) -> RouteSet {
        let mut targets: Vec<Ipv4Net> =
            TARGETS.iter().filter(|_| self.yes(2)).map(|text| net(text)).collect();
        targets.sort_unstable();
        let shared: Arc<[Route]> = targets.into_iter().map(|to| self.route(to)).collect();
        let except = self.yes(3).then(|| net(self.one(&TARGETS)));
        RouteSet { shared, except }
    }

    fn step(&mut self) -> Step {
        let link = self.one(&LINKS);
        let proto = self.one(&[Proto::STATIC, Proto::DHCP, Proto::NETD]);
        match self.0.below(24) {
            0..=2 => Step::AddAddress(link, net(self.one(&ADDRESSES))),
            3..=5 => Step::DelAddress(link, net(self.one(&ADDRESSES))),
            6 | 7 => Step::SetUp(link, self.yes(2)),
            8 => Step::SetMaster(self.one(&["eth0", "wire0"]), self.one(&[Some("cni0"), None])),
            9 | 10 => {
                let to = net(self.one(&TARGETS));
                Step::AddRoute(self.route(to), proto)
            }
            11 => {
                let to = net(self.one(&TARGETS));
                Step::DelRoute(self.route(to), proto)
            }
            12..=15 => Step::SetRoutes(self.set()),
            16 | 17 => Step::Bridge(net(self.one(&ADDRESSES)), self.one(&[1400, 1500])),
            18 => Step::Vxlan(Vxlan {
                vni: self.one(&[1, 2]),
                port: 8472,
                mac: mac(self.one(&[1, 1, 9])),
                mtu: 1450,
                local: ip(self.one(&["192.168.0.5", "10.20.0.7"])),
                address: net("10.244.1.0/32"),
            }),
            19 => Step::DeleteLink(self.one(&["cni0", "kubesim.1", "nope"])),
            20 => {
                Step::Neighbours(link, MACS[..3].iter().filter(|_| self.yes(2)).copied().collect())
            }
            21 => {
                let entries = MACS[..3].iter().filter(|_| self.yes(2)).map(|(_, mac)| *mac);
                Step::Fdb(link, entries.map(|mac| (mac, "192.168.0.6")).collect())
            }
            22 => {
                let conf = self.one(&["all", "default", "eth0", "wire0", "cni0"]);
                Step::Sysctl(format!("net.ipv4.conf.{conf}.forwarding"), self.one(&["0", "1"]))
            }
            _ => Step::Restart,
        }
    }
}

/// Done, where it makes sense; what came of it.
fn act(world: &mut impl World, step: &Step, there: &State) -> Vec<(Ipv4Net, Errno)> {
    let one = |result: Result<(), Errno>| match result {
        Ok(()) => Vec::new(),
        Err(errno) => vec![(Ipv4Net::default(), errno)],
    };
    match step {
        Step::AddAddress(link, address) if has(there, link) => {
            one(world.add_address(link, *address))
        }
        Step::DelAddress(link, address) if has(there, link) => {
            one(world.del_address(link, *address))
        }
        Step::SetUp(link, up) if has(there, link) => {
            world.set_up(link, *up);
            Vec::new()
        }
        Step::SetMaster(port, bridge) if bridge.is_none_or(|bridge| has(there, bridge)) => {
            world.set_master(port, *bridge);
            Vec::new()
        }
        Step::AddRoute(route, proto) if has(there, &route.dev) => {
            // `ip` has the same words for EINVAL and ENETUNREACH.
            one(world.add_route(route, *proto).map_err(|_| Errno::Einval))
        }
        Step::DelRoute(route, proto) if has(there, &route.dev) => {
            one(world.del_route(route, *proto))
        }
        Step::SetRoutes(set) => world.set(set.clone()),
        Step::Bridge(address, mtu) => one(world.bridge("cni0", &address.to_string(), *mtu)),
        Step::Vxlan(spec) => one(world.vxlan("kubesim.1", spec)),
        Step::DeleteLink(name) => {
            let name = (*name).into();
            one(world.done(kubesim_actors::ports::network::Request::DeleteLink { name }))
        }
        Step::Neighbours(link, entries) => one(world.set_neighbours(link, entries)),
        Step::Fdb(link, entries) => one(world.set_fdb(link, entries)),
        Step::Sysctl(key, value) => one(world.set_sysctl(key, value)),
        Step::Restart => {
            world.restart();
            Vec::new()
        }
        _ => Vec::new(),
    }
}

/// Bridges have random MACs.
fn comparable(state: &State) -> State {
    let mut state = state.clone();
    let bridges = state.links.iter_mut().filter(|link| link.kind == LinkKind::Bridge);
    bridges.for_each(|bridge| bridge.mac = Mac::default());
    state
}

fn difference(linux: &State, model: &State) -> String {
    let lines = |state: &State| {
        let mut lines: Vec<String> = state.links.iter().map(|link| format!("{link:?}")).collect();
        lines.push(format!("{:?}", State { links: Vec::new(), ..state.clone() }));
        lines
    };
    let (linux, model) = (lines(linux), lines(model));
    let only = |ours: &[String], theirs: &[String]| {
        let lines = ours.iter().filter(|line| !theirs.contains(line)).cloned();
        lines.collect::<Vec<_>>().join("\n  ")
    };
    format!("Linux:\n  {}\nmodel:\n  {}", only(&linux, &model), only(&model, &linux))
}

fn table(world: &mut impl World) -> Vec<String> {
    let line = |(route, proto): (Route, Proto)| format!("{} proto {}", text(&route), proto.0);
    let mut lines: Vec<String> = world.routes().into_iter().map(line).collect();
    lines.sort_unstable();
    lines
}

fn play(seed: u64) {
    let (mut linux, mut model) = (Linux::new(), Model::new());
    linux.add_veth("eth0", "wire0");
    model.add_veth("eth0", "wire0");
    let stream = Stream { seed, label: "history", index: 0, incarnation: 0 };
    let mut dice = Dice(Rng::new(stream));
    linux.until("both ends", |state| is(state, "wire0", |link| link.carrier));
    linux.settled();
    let mut told = Vec::new();
    for _ in 0..STEPS {
        let step = dice.step();
        told.push(match &step {
            Step::SetRoutes(set) => {
                let routes: Vec<String> = set.shared.iter().map(text).collect();
                format!("SetRoutes({} except {:?})", routes.join(", "), set.except)
            }
            other => format!("{other:?}"),
        });
        let history = || format!("seed {seed}:\n{}", told.join("\n"));
        let there = model.settled();
        let there = if has(&there, "eth0") { there } else { Arc::default() };
        let expected = act(&mut model, &step, &there);
        assert_eq!(act(&mut linux, &step, &there), expected, "{}", history());
        let state = comparable(&model.settled());
        let same = linux.comes(|found| comparable(found) == state);
        assert!(same, "{}\n{}", history(), difference(&comparable(&linux.settled()), &state));
        assert_eq!(table(&mut linux), table(&mut model), "{}", history());
        for name in LINKS {
            if is(&state, name, |_| true) {
                let both = (linux.neighbours(name), model.neighbours(name));
                assert_eq!(both.0, both.1, "{name}: {}", history());
            }
            if is(&state, name, |link| link.kind == LinkKind::Vxlan) {
                assert_eq!(linux.fdb(name), model.fdb(name), "{name}: {}", history());
            }
        }
    }
}

macro_rules! histories {
    ($($name:ident: $seed:expr,)*) => {
        $(#[test] fn $name() { in_namespace(|| play($seed)); })*
    };
}

histories! {
    history_1: 1,
    history_2: 2,
    history_3: 3,
    history_4: 4,
    history_108: 108,
    history_147: 147,
}
