//! The forwarding table against a naive one, under random histories.

use super::*;
use kubesim_actors::ports::network::{Reply, Request, RouteSet};
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Add(u8, u8, u8),
    Delete(u8, u8, u8),
    Set(Vec<(u8, u8)>, Option<u8>),
    SetAgain,
    AddAddress(u8),
    DelAddress(u8),
    Bounce,
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0u8..8;
    prop_oneof![
        3 => (0u8..8, 0u8..4, 0u8..3).prop_map(|(to, via, metric)| Step::Add(to, via, metric)),
        2 => (0u8..8, 0u8..4, 0u8..3).prop_map(|(to, via, metric)| Step::Delete(to, via, metric)),
        3 => (prop::collection::btree_map(small.clone(), 0u8..4, 0..8), prop::option::of(0u8..8))
            .prop_map(|(routes, except)| Step::Set(routes.into_iter().collect(), except)),
        1 => Just(Step::SetAgain),
        2 => (0u8..3).prop_map(Step::AddAddress),
        2 => (0u8..3).prop_map(Step::DelAddress),
        1 => Just(Step::Bounce),
    ]
}

/// Nested networks; ascending.
fn network(n: u8) -> Ipv4Net {
    let nets = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.244.0.0/16",
        "10.244.1.0/24",
        "10.244.1.7/32",
        "10.244.2.0/24",
        "10.244.2.0/25",
        "10.245.0.0/16",
    ];
    net(nets[usize::from(n) % nets.len()])
}
fn address(n: u8) -> Ipv4Net {
    net(["192.168.0.1/24", "192.168.1.1/24", "192.168.0.9/24"][usize::from(n) % 3])
}
fn numbered(to: u8, via: u8, metric: u8) -> Route {
    let via = match via {
        0 => None,
        1 => Some(ip("192.168.0.2")),
        2 => Some(ip("192.168.1.2")),
        _ => Some(ip("172.16.0.1")),
    };
    let metric = u32::from(metric);
    Route { to: network(to), via, dev: "eth0".into(), onlink: false, metric }
}

/// The rules, written down as plainly as possible for one link.
#[derive(Default)]
struct Naive {
    addresses: Vec<(Ipv4Net, bool)>,
    routes: Vec<(Route, Proto)>,
}

impl Naive {
    fn check(&self, route: &Route) -> Result<(), Errno> {
        let Some(via) = route.via else { return Ok(()) };
        let direct = |r: &(Route, Proto)| r.0.via.is_none() && r.0.to.contains(&via);
        if self.routes.iter().any(direct) { Ok(()) } else { Err(Errno::Enetunreach) }
    }
    fn add(&mut self, route: Route, proto: Proto) -> Result<(), Errno> {
        self.check(&route)?;
        if self.routes.iter().any(|(r, _)| r.to == route.to && r.metric == route.metric) {
            return Err(Errno::Eexist);
        }
        self.routes.push((route, proto));
        Ok(())
    }
    /// Without a metric, the one with the lowest.
    fn delete(&mut self, route: &Route, proto: Proto) {
        let with = |r: &Route| Route { metric: r.metric, ..route.clone() } == *r;
        let is_it = |r: &(Route, Proto)| {
            r.1 == proto && with(&r.0) && [0, r.0.metric].contains(&route.metric)
        };
        let found = (0..self.routes.len()).filter(|at| is_it(&self.routes[*at]));
        if let Some(at) = found.min_by_key(|at| self.routes[*at].0.metric) {
            self.routes.remove(at);
        }
    }
    fn set(&mut self, wanted: &[Route]) {
        self.routes.retain(|(r, proto)| *proto != Proto::NETD || wanted.contains(r));
        let (direct, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|r| r.via.is_none());
        for route in direct.into_iter().chain(others) {
            if !self.routes.iter().any(|(r, proto)| r == route && *proto == Proto::NETD) {
                // A refusal leaves it out.
                let _ = self.add(route.clone(), Proto::NETD);
            }
        }
    }
    fn connected(net: Ipv4Net) -> Route {
        Route { to: net.trunc(), via: None, dev: "eth0".into(), onlink: false, metric: 0 }
    }
    fn add_address(&mut self, net: Ipv4Net) {
        if self.addresses.iter().any(|(a, _)| *a == net) {
            return;
        }
        let secondary = self.addresses.iter().any(|(a, _)| a.trunc() == net.trunc());
        self.addresses.push((net, secondary));
        if !secondary {
            self.routes.push((Self::connected(net), Proto::KERNEL));
        }
    }
    fn del_address(&mut self, net: Ipv4Net) {
        let Some(&(_, secondary)) = self.addresses.iter().find(|(a, _)| *a == net) else { return };
        self.addresses
            .retain(|(a, s)| *a != net && (secondary || !(*s && a.trunc() == net.trunc())));
        if !secondary {
            self.routes.retain(|r| *r != (Self::connected(net), Proto::KERNEL));
        }
        if self.addresses.is_empty() {
            self.routes.clear();
        }
    }
    fn bounce(&mut self) {
        self.routes.clear();
        let primaries = self.addresses.iter().filter(|(_, secondary)| !secondary);
        self.routes = primaries.map(|(a, _)| (Self::connected(*a), Proto::KERNEL)).collect();
    }
    /// Gateway (or none) of the best route.
    fn lookup(&self, dst: Ipv4Addr) -> Option<Option<Ipv4Addr>> {
        let fits = self.routes.iter().filter(|(r, _)| r.to.contains(&dst));
        let best = fits.min_by_key(|(r, _)| (32 - r.to.prefix_len(), r.metric));
        best.map(|(r, _)| r.via)
    }
}

fn lines(mut routes: Vec<(Route, Proto)>) -> Vec<String> {
    routes.sort_by_key(|(r, proto)| (r.to, r.metric, proto.0, r.via));
    routes.iter().map(|(r, p)| format!("{} {:?} {} {}", r.to, r.via, r.metric, p.0)).collect()
}

fn apply(kernel: &mut Kernel, naive: &mut Naive, last: &mut Option<RouteSet>, step: &Step) {
    let (now, out, host) = (Time::ZERO, &mut Vec::new(), NsId::HOST);
    let set = |kernel: &mut Kernel, naive: &mut Naive, routes: RouteSet| {
        naive.set(&routes.iter().cloned().collect::<Vec<_>>());
        let request = Request::SetRoutes { proto: Proto::NETD, routes };
        let reply = kernel.network(now, &request, &mut Vec::new());
        assert!(matches!(reply, Reply::RoutesSet { .. }));
    };
    match step {
        Step::Add(to, via, metric) => {
            let route = numbered(*to, *via, *metric);
            let expected = naive.add(route.clone(), Proto::STATIC);
            assert_eq!(kernel.add_route(now, host, &route, Proto::STATIC, out), expected);
        }
        Step::Delete(to, via, metric) => {
            let route = numbered(*to, *via, *metric);
            let before = naive.routes.len();
            naive.delete(&route, Proto::STATIC);
            let gone = kernel.del_route(now, host, &route, Proto::STATIC, out).is_ok();
            assert_eq!(gone, naive.routes.len() < before);
        }
        Step::Set(routes, except) => {
            let shared: Arc<[Route]> =
                routes.iter().map(|(to, via)| numbered(*to, *via, 1)).collect();
            let routes = RouteSet { shared, except: except.map(network) };
            *last = Some(routes.clone());
            set(kernel, naive, routes);
        }
        Step::SetAgain => {
            if let Some(routes) = last.clone() {
                set(kernel, naive, routes);
            }
        }
        Step::AddAddress(n) => {
            // A second one of the same kind is refused by both.
            let _ = kernel.add_address(now, host, ETH0, address(*n), out);
            naive.add_address(address(*n));
        }
        Step::DelAddress(n) => {
            let _ = kernel.del_address(now, host, ETH0, address(*n), out);
            naive.del_address(address(*n));
        }
        Step::Bounce => {
            for up in [false, true] {
                kernel.set_up(now, host, ETH0, up, out).expect("a link");
            }
            naive.bounce();
        }
    }
}

proptest! {
    #[test]
    fn look_ups_agree_with_a_naive_table(steps in prop::collection::vec(step(), 0..40)) {
        let mut kernel = kernel(1);
        let mut out = Vec::new();
        kernel.add_uplink("eth0", Mac([2; 6]), 1500).expect("new");
        kernel.set_up(Time::ZERO, NsId::HOST, ETH0, true, &mut out).expect("a link");
        let (mut naive, mut last) = (Naive::default(), None);
        for step in &steps {
            apply(&mut kernel, &mut naive, &mut last, step);
            let table: Vec<_> = kernel.routes(NsId::HOST).collect();
            let netd = table.iter().filter(|(_, proto)| *proto == Proto::NETD).count();
            prop_assert_eq!(kernel.state().netd_routes, netd);
            prop_assert_eq!(lines(table), lines(naive.routes.clone()), "after {:?}", step);
            for dst in ["10.244.1.7", "10.244.1.8", "10.244.2.1", "10.244.2.200", "10.245.0.1",
                        "10.1.1.1", "8.8.8.8", "192.168.0.77", "192.168.1.77"] {
                let found = kernel.spaces.get(NsId::HOST).expect("the host")
                    .route_output(ip(dst), None).ok().map(|hop| hop.via);
                prop_assert_eq!(found, naive.lookup(ip(dst)), "{} after {:?}", dst, step);
            }
        }
    }
}
