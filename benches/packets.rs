//! The way of a packet through modelled kernels, without the wire between them.

#[path = "common/allocator.rs"]
mod allocator;
#[path = "common/cluster.rs"]
mod cluster;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Mac, Proto, Route};
use kubesim_actors::ports::rules::{Reply, Request};
use kubesim_actors::proxy::compile;
use kubesim_runtime::{Rng, Stream, Time};
use kubesim_sim::body::Body;
use kubesim_sim::kernel::packet::Frame;
use kubesim_sim::kernel::{Kernel, NsId, Output, SocketEvent, SocketId};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first uplink; the loopback is 1.
const ETH0: u32 = 2;
const ETH1: u32 = 3;
const PORT: u16 = 80;
const POD_NETWORK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 10);

fn ip(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

/// Kernels and the cables between their uplinks, which take no time.
struct Wire {
    now: Time,
    kernels: Vec<Kernel>,
    cables: Vec<[(usize, u32); 2]>,
    flying: VecDeque<(usize, u32, Frame)>,
    events: Vec<(usize, SocketId, SocketEvent)>,
}

impl Wire {
    fn new(uplinks: &[&[&str]], cables: &[[(usize, u32); 2]]) -> Wire {
        let mut wire = Wire {
            now: Time::from_secs(1),
            kernels: Vec::new(),
            cables: cables.to_vec(),
            flying: VecDeque::new(),
            events: Vec::new(),
        };
        for (machine, addresses) in uplinks.iter().enumerate() {
            let stream = Stream { seed: 1, label: "bench", index: machine as u64, incarnation: 0 };
            wire.kernels.push(Kernel::new(Rng::new(stream)));
            for (link, address) in addresses.iter().enumerate() {
                wire.uplink(machine, link, address);
            }
        }
        wire.settle();
        wire
    }

    fn uplink(&mut self, machine: usize, link: usize, address: &str) {
        let mac = Mac([2, 0, 0, 0, machine as u8, link as u8]);
        let address: Ipv4Net = address.parse().expect("an address and its length");
        self.with(machine, |kernel, now, out| {
            let link = kernel.add_uplink(&format!("eth{link}"), mac, 1500).expect("a free name");
            kernel.set_up(now, NsId::HOST, link, true, out).expect("a link");
            kernel.add_address(now, NsId::HOST, link, address, out).expect("a new address");
        });
    }

    fn default_route(&mut self, machine: usize, via: &str) {
        let to = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
        let via = Some(ip(via));
        let route = Route { to, via, dev: "eth0".into(), onlink: false, metric: 0 };
        self.with(machine, |kernel, now, out| {
            kernel.add_route(now, NsId::HOST, &route, Proto::STATIC, out).expect("a gateway");
        });
    }

    /// Calls into a machine and takes what comes out.
    fn with<R>(
        &mut self,
        machine: usize,
        act: impl FnOnce(&mut Kernel, Time, &mut Vec<Output>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = act(&mut self.kernels[machine], self.now, &mut out);
        for output in out {
            match output {
                Output::Transmit { link, frame } => {
                    let ends = self.cables.iter().flat_map(|[a, b]| [(a, b), (b, a)]);
                    for (_, to) in ends.filter(|(from, _)| **from == (machine, link)) {
                        self.flying.push_back((to.0, to.1, frame.clone()));
                    }
                }
                Output::Socket { socket, event, .. } => self.events.push((machine, socket, event)),
                Output::Changed { .. } => {}
            }
        }
        result
    }

    /// Until nothing flies.
    fn settle(&mut self) {
        while let Some((machine, link, frame)) = self.flying.pop_front() {
            self.with(machine, |kernel, now, out| kernel.receive(now, link, frame, out));
        }
    }

    /// Lets time pass, at whose end alarms ring.
    fn wait(&mut self, span: Duration) {
        self.now += span;
        for machine in 0..self.kernels.len() {
            if self.kernels[machine].next_deadline().is_some_and(|at| at <= self.now) {
                self.with(machine, |kernel, now, out| kernel.timeout(now, out));
            }
        }
        self.settle();
    }

    fn connect(&mut self, to: SocketAddrV4) -> SocketId {
        self.with(0, |kernel, now, out| kernel.tcp_connect(now, NsId::HOST, to, 1, out))
            .expect("a route and a port")
    }

    /// The rules of so many Services.
    fn load_services(&mut self, machine: usize, services: u32) {
        let (services, slices) = cluster::views(services);
        let compiled = compile(&services, &slices, POD_NETWORK, None);
        let (owner, base) = ("proxy".into(), compiled.base.clone());
        let shared = compiled.chains.clone();
        let request = Request::Apply { owner, base, shared, local: Arc::new([]) };
        let netfilter = self.kernels[machine].netfilter_mut(NsId::HOST).expect("the host's");
        let reply = netfilter.request(&request, Time::ZERO);
        assert!(matches!(reply, Reply::Applied { result: Ok(()), .. }), "{reply:?}");
    }

    fn listen(&mut self, machine: usize) {
        let any = Ipv4Addr::UNSPECIFIED;
        self.with(machine, |kernel, _, _| kernel.tcp_listen(NsId::HOST, any, PORT, 2))
            .expect("a free port");
    }
}

/// A client and a server on one cable.
fn pair() -> Wire {
    let uplinks: [&[&str]; 2] = [&["10.0.0.1/24"], &["10.0.0.2/24"]];
    let mut wire = Wire::new(&uplinks, &[[(0, ETH0), (1, ETH0)]]);
    wire.default_route(0, "10.0.0.2");
    wire.listen(1);
    wire
}

fn message(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("TCP message and its delayed ACK, two kernels");
    for services in [0, 1_000] {
        let mut wire = pair();
        if services > 0 {
            wire.load_services(0, services);
            wire.load_services(1, services);
        }
        let to = if services > 0 { cluster::cluster_ip(services / 2) } else { cluster::BACKEND };
        let client = wire.connect(SocketAddrV4::new(to, PORT));
        wire.settle();
        wire.events.clear();
        let name = if services == 0 { "no rules" } else { "through a ClusterIP of 1,000" };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // The last message is acknowledged after 40 ms.
                wire.wait(Duration::from_millis(50));
                let body = Body::Stream { seq: 1 };
                wire.with(0, |kernel, now, out| kernel.tcp_send(now, client, body, 100, out))
                    .expect("an open connection");
                wire.settle();
                let [(1, _, SocketEvent::Received { .. })] = wire.events[..] else {
                    panic!("the message arrives: {:?}", wire.events);
                };
                wire.events.clear();
            });
        });
    }
    group.finish();
}

/// The call that sends the SYN: route, every hook, conntrack, NAT, the new route, the neighbour.
fn new_connection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("NEW connection through a ClusterIP: the SYN");
    for services in [100, 1_000, 10_000] {
        let mut wire = pair();
        wire.load_services(0, services);
        let to = SocketAddrV4::new(cluster::cluster_ip(services / 2), PORT);
        group.bench_function(BenchmarkId::from_parameter(services), |bencher| {
            bencher.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let begun = Instant::now();
                    let client = wire.connect(to);
                    spent += begun.elapsed();
                    wire.settle();
                    let connected =
                        |event: &(usize, _, _)| matches!(event, (0, _, SocketEvent::Connected));
                    assert!(wire.events.iter().any(connected), "{:?}", wire.events);
                    wire.with(0, |kernel, now, out| kernel.tcp_abort(now, client, out));
                    wire.settle();
                    wire.events.clear();
                    // A closed connection is remembered for 10 s: about a thousand of them.
                    wire.wait(Duration::from_millis(10));
                }
                spent
            });
        });
    }
    group.finish();
}

/// A client, a router and a server.
fn routed() -> Wire {
    let uplinks: [&[&str]; 3] =
        [&["10.1.0.1/24"], &["10.1.0.254/24", "10.0.0.254/24"], &["10.0.0.2/24"]];
    let cables = [[(0, ETH0), (1, ETH0)], [(1, ETH1), (2, ETH0)]];
    let mut wire = Wire::new(&uplinks, &cables);
    wire.default_route(0, "10.1.0.254");
    wire.default_route(2, "10.0.0.254");
    wire.with(1, |kernel, now, out| {
        kernel.set_sysctl(now, NsId::HOST, "net.ipv4.ip_forward", "1", out).expect("a known key");
    });
    wire.listen(2);
    wire
}

impl Wire {
    /// The frame with which a message of an established connection reaches the router.
    fn frame_to_forward(&mut self) -> Frame {
        let client = self.connect(SocketAddrV4::new(cluster::BACKEND, PORT));
        self.settle();
        let body = Body::Stream { seq: 1 };
        self.with(0, |kernel, now, out| kernel.tcp_send(now, client, body, 100, out))
            .expect("an open connection");
        let frame = self.flying.front().map(|(_, _, frame)| frame.clone());
        self.settle();
        frame.expect("the message flies")
    }
}

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward hop of an established flow");
    for services in [0, 1_000, 10_000] {
        let mut wire = routed();
        if services > 0 {
            wire.load_services(1, services);
        }
        let frame = wire.frame_to_forward();
        let (router, now) = (&mut wire.kernels[1], wire.now);
        let mut out = Vec::new();
        let parameter = format!("{services} Services");
        group.bench_function(BenchmarkId::from_parameter(parameter), |bencher| {
            let hop = |frame: Frame| {
                out.clear();
                router.receive(now, ETH0, frame, &mut out);
                assert!(matches!(out[..], [Output::Transmit { link: ETH1, .. }]), "{out:?}");
            };
            bencher.iter_batched(|| frame.clone(), hop, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, message, new_connection, forward);
criterion_main!(benches);
