//! Routes through the driver of the network port, beside what netlink itself costs: the same
//! messages, made beforehand and sent by a bare socket. In a network namespace of its own.

#[cfg(target_os = "linux")]
#[path = "../tests/common/namespace.rs"]
mod namespace;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: needs Linux");
}

#[cfg(target_os = "linux")]
fn main() {
    namespace::in_namespace(linux::run);
}

#[cfg(target_os = "linux")]
mod linux {
    use crate::namespace::ip;
    use criterion::{BenchmarkId, Criterion, Throughput};
    use ipnet::Ipv4Net;
    use kubesim_actors::ports::network::{Proto, Reply, Request, Route, RouteSet};
    use kubesim_backends::network::Network;
    use kubesim_backends::port::{Answer, Closed, Port};
    use netlink_packet_core::{
        Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
        NetlinkSerializable,
    };
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::route::RouteProtocol;
    use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
    use rtnetlink::RouteMessageBuilder;
    use std::cell::RefCell;
    use std::net::Ipv4Addr;
    use std::rc::Rc;
    use std::time::{Duration, Instant};
    use tokio::runtime::Runtime;

    const SIZES: [u32; 3] = [1_000, 5_000, 20_000];
    /// Who leads to the peers. Linux finds what routes share by a hash that leaves the gateway out
    /// (fib_info_hashfn, net/ipv4/fib_semantics.c), so that with many gateways on a link each route
    /// that has its own written in it costs a walk over all of them, whoever adds it; the driver
    /// makes objects of an overlay's.
    #[derive(Clone, Copy)]
    struct Gateways {
        name: &'static str,
        dev: &'static str,
        /// Each peer is one; else all are behind one router.
        own: bool,
    }

    const GATEWAYS: [Gateways; 3] = [
        Gateways { name: "an overlay", dev: "kubesim.1", own: true },
        Gateways { name: "own gateways on a cable", dev: "eth0", own: true },
        Gateways { name: "one gateway", dev: "eth0", own: false },
    ];
    /// Messages in a send.
    const BATCH: usize = 1024;
    const HEADER: usize = 16;

    pub fn run() {
        ip("link add eth0 type veth peer name wire0");
        ip("link set eth0 up");
        ip("link set wire0 up");
        ip("addr add 172.16.0.1/12 dev eth0");
        ip("link add kubesim.1 type vxlan id 1 dstport 8472 local 172.16.0.1 dev eth0");
        ip("link set kubesim.1 up");
        let mut criterion = Criterion::default().sample_size(20).configure_from_args();
        from_nothing(&mut criterion);
        one_joins(&mut criterion);
        adopted(&mut criterion);
        criterion.final_summary();
    }

    impl Gateways {
        /// The way to the peer with this number: a /24 in 10.0.0.0/8 for each.
        fn route(&self, number: u32) -> Route {
            let to = Ipv4Addr::from(0x0a00_0000 + (number << 8));
            let via = match (self.dev, self.own) {
                ("eth0", true) => Ipv4Addr::from(0xac10_0002 + number),
                ("eth0", false) => Ipv4Addr::from(0xac10_0002),
                _ => to,
            };
            let to = Ipv4Net::new(to, 24).expect("a length");
            let onlink = self.dev != "eth0";
            Route { to, via: Some(via), dev: self.dev.into(), onlink, metric: 0 }
        }

        fn routes(&self, count: u32) -> RouteSet {
            RouteSet { shared: (0..count).map(|number| self.route(number)).collect(), except: None }
        }

        fn message(&self, number: u32, dev: u32, add: bool) -> RouteNetlinkMessage {
            let Route { to, via, onlink, .. } = self.route(number);
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.addr(), to.prefix_len())
                .protocol(RouteProtocol::Other(98))
                .output_interface(dev)
                .gateway(via.expect("a gateway"));
            let route = if onlink { builder.onlink().build() } else { builder.build() };
            match add {
                true => RouteNetlinkMessage::NewRoute(route),
                false => RouteNetlinkMessage::DelRoute(route),
            }
        }
    }

    struct Driver {
        runtime: Runtime,
        network: Network,
    }

    impl Driver {
        fn new() -> Driver {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let network = Network::open().expect("a netlink socket");
            Driver { runtime: runtime.expect("a runtime"), network }
        }

        fn set(&self, routes: &RouteSet) {
            let said = Rc::new(RefCell::new(None));
            let kept = Rc::clone(&said);
            let answer = Answer::new(move |reply| {
                kept.replace(Some(reply));
                async { Ok::<(), Closed>(()) }
            });
            let request = Request::SetRoutes { proto: Proto::NETD, routes: routes.clone() };
            self.runtime.block_on(self.network.perform(request, answer));
            let Some(Reply::RoutesSet { refused, .. }) = said.take() else { panic!("no answer") };
            assert!(refused.is_empty(), "{refused:?}");
        }
    }

    /// A socket, and requests in bytes.
    struct Floor {
        socket: Socket,
        input: Vec<u8>,
    }

    impl Floor {
        fn new() -> Floor {
            let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
            socket.bind_auto().expect("a port");
            Floor { socket, input: Vec::with_capacity(64 << 10) }
        }

        /// `numbers` added or deleted, so many a send, the last of each acknowledged.
        fn batches(numbers: std::ops::Range<u32>, by: Gateways, add: bool) -> Vec<Vec<u8>> {
            let line = ip(&format!("-o link show {}", by.dev));
            let dev: u32 = line.split(':').next().and_then(|n| n.parse().ok()).expect("a number");
            let all: Vec<u32> = numbers.collect();
            let batch = |numbers: &[u32]| {
                let (mut bytes, mut last) = (Vec::new(), 0);
                for number in numbers {
                    last = bytes.len();
                    put(&mut bytes, by.message(*number, dev, add), add);
                }
                let flags = u16::from_ne_bytes([bytes[last + 6], bytes[last + 7]]) | NLM_F_ACK;
                bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
                bytes
            };
            all.chunks(BATCH).map(batch).collect()
        }

        fn send(&mut self, batches: &[Vec<u8>]) {
            for batch in batches {
                self.socket.send_to(batch, &SocketAddr::new(0, 0), 0).expect("sent");
                self.input.clear();
                self.socket.recv(&mut self.input, 0).expect("an acknowledgement");
                assert_eq!(self.input[HEADER..HEADER + 4], [0; 4], "refused");
            }
        }
    }

    fn put(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, add: bool) {
        let (start, length) = (bytes.len(), HEADER + NetlinkSerializable::buffer_len(&message));
        bytes.resize(start + length.next_multiple_of(4), 0);
        let mut header = NetlinkHeader::default();
        header.length = length as u32;
        header.message_type = message.message_type();
        header.flags = NLM_F_REQUEST | if add { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
        header.emit(&mut bytes[start..]);
        message.serialize(&mut bytes[start + HEADER..start + length]);
    }

    /// Times `act`, each time followed by `undo`, which is not timed; nor is what the kernel frees
    /// of it a grace period later, when nobody reads it any more (RCU).
    fn timed_apart(rounds: u64, act: impl FnMut(), mut undo: impl FnMut()) -> Duration {
        let undo = || {
            undo();
            std::thread::sleep(Duration::from_millis(50));
        };
        timed(rounds, act, undo)
    }

    /// Times `act`, each time followed by `undo`, which is not timed.
    fn timed(rounds: u64, mut act: impl FnMut(), mut undo: impl FnMut()) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..rounds {
            let begun = Instant::now();
            act();
            total += begun.elapsed();
            undo();
        }
        total
    }

    fn from_nothing(criterion: &mut Criterion) {
        for by in GATEWAYS {
            let mut group = criterion.benchmark_group(format!("routes from nothing, {}", by.name));
            for size in SIZES {
                group.throughput(Throughput::Elements(u64::from(size)));
                group.bench_function(BenchmarkId::new("driver", size), |bencher| {
                    let (driver, all, none) = (Driver::new(), by.routes(size), by.routes(0));
                    driver.set(&none);
                    bencher
                        .iter_custom(|n| timed_apart(n, || driver.set(&all), || driver.set(&none)));
                });
                group.bench_function(BenchmarkId::new("bare netlink", size), |bencher| {
                    let floor = RefCell::new(Floor::new());
                    let [add, delete] = [true, false].map(|add| Floor::batches(0..size, by, add));
                    let send = |batches: &[Vec<u8>]| floor.borrow_mut().send(batches);
                    bencher.iter_custom(|n| timed_apart(n, || send(&add), || send(&delete)));
                });
            }
            group.finish();
        }
    }

    fn one_joins(criterion: &mut Criterion) {
        for by in GATEWAYS {
            let mut group = criterion.benchmark_group(format!("one node joins, {}", by.name));
            for size in SIZES {
                let (before, after) = (by.routes(size), by.routes(size + 1));
                group.bench_function(BenchmarkId::new("driver", size), |bencher| {
                    let driver = Driver::new();
                    driver.set(&before);
                    bencher
                        .iter_custom(|n| timed(n, || driver.set(&after), || driver.set(&before)));
                    driver.set(&by.routes(0));
                });
                group.bench_function(BenchmarkId::new("bare netlink", size), |bencher| {
                    let driver = Driver::new();
                    driver.set(&before);
                    let floor = RefCell::new(Floor::new());
                    let [add, delete] =
                        [true, false].map(|add| Floor::batches(size..size + 1, by, add));
                    let send = |batches: &[Vec<u8>]| floor.borrow_mut().send(batches);
                    bencher.iter_custom(|n| timed(n, || send(&add), || send(&delete)));
                    driver.set(&by.routes(0));
                });
            }
            group.finish();
        }
    }

    /// A driver that starts anew finds everything as it should be.
    fn adopted(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("restart");
        for size in SIZES {
            group.throughput(Throughput::Elements(u64::from(size)));
            group.bench_function(BenchmarkId::new("driver", size), |bencher| {
                let (first, all) = (Driver::new(), GATEWAYS[0].routes(size));
                first.set(&all);
                bencher.iter(|| Driver::new().set(&all));
                first.set(&GATEWAYS[0].routes(0));
            });
        }
        group.finish();
    }
}
