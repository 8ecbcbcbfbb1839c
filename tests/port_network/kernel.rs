//! What only the real kernel can show: lost news, races, and that nothing is written twice.

use crate::linux::Linux;
use crate::namespace::{in_namespace, ip};
use crate::world::{Asking, World, has, is, mac, net, route};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, Proto, Route, RouteSet, State, Vxlan};
use kubesim_backends::network::Network;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

fn online(world: &mut Linux) {
    world.add_veth("eth0", "wire0");
    world.add_address("eth0", net("192.168.0.5/16")).expect("new");
    world.until("a link", |state| {
        is(state, "eth0", |link| link.carrier && !link.addresses.is_empty())
    });
}

/// `10.<100 + n / 256>.<n % 256>.0/24`, each by a neighbour of its own.
fn many(count: u32) -> Vec<Route> {
    let one = |n: u32| {
        let to = Ipv4Addr::from(0x0a64_0000 + (n << 8));
        let via = Some(Ipv4Addr::from(0xc0a8_0100 + n));
        let to = Ipv4Net::new(to, 24).expect("a prefix length");
        Route { to, via, dev: "eth0".into(), onlink: false, metric: 0 }
    };
    (0..count).map(one).collect()
}

fn set_of(routes: Vec<Route>) -> RouteSet {
    RouteSet { shared: routes.into(), except: None }
}

fn overlay_device() -> Vxlan {
    Vxlan {
        vni: 1,
        port: 8472,
        mac: mac(1),
        mtu: 1450,
        local: Ipv4Addr::new(192, 168, 0, 5),
        address: net("10.244.1.0/32"),
    }
}

/// Everything that netlink says while `act` runs.
fn monitored(act: impl FnOnce()) -> String {
    let spawned = Command::new("ip").args(["-4", "monitor", "all"]).stdout(Stdio::piped()).spawn();
    let mut child = spawned.expect("ip monitor");
    let mut out = child.stdout.take().expect("a pipe");
    let words = thread::spawn(move || {
        let mut words = String::new();
        out.read_to_string(&mut words).map(|_| words)
    });
    thread::sleep(Duration::from_millis(200));
    act();
    thread::sleep(Duration::from_millis(200));
    child.kill().expect("it runs");
    child.wait().expect("its end");
    words.join().expect("a reader").expect("text")
}

#[test]
fn who_starts_anew_writes_nothing_that_is_there() {
    in_namespace(|| {
        let mut world = Linux::new();
        online(&mut world);
        let spec = overlay_device();
        let all = |world: &mut Linux| {
            world.bridge("cni0", "10.244.1.1/24", 1450).expect("a bridge");
            world.vxlan("kubesim.1", &spec).expect("a device");
            assert_eq!(world.set(set_of(many(2000))), []);
            world.set_neighbours("kubesim.1", &[("10.244.2.0", 2)]).expect("a device");
            world.set_fdb("kubesim.1", &[(2, "192.168.0.6")]).expect("a device");
        };
        let written = monitored(|| all(&mut world));
        assert!(written.lines().count() > 2000, "{written}");
        world.settled();
        let written = monitored(|| {
            all(&mut world);
            world.restart();
            all(&mut world);
        });
        assert_eq!(written, "", "no netlink message changes what is as it should be");
        // One more among thousands is one message.
        let written = monitored(|| assert_eq!(world.set(set_of(many(2001))), []));
        assert_eq!(written.lines().count(), 1, "{written}");
        let written = monitored(|| assert_eq!(world.set(set_of(many(2000))), []));
        assert_eq!(written.lines().count(), 1, "{written}");
        let stands = ip("-d link show kubesim.1");
        assert!(stands.contains("nolearning") && stands.contains("dstport 8472"), "{stands}");
    });
}

#[test]
fn every_refusal_of_a_large_set_is_said() {
    in_namespace(|| {
        let mut world = Linux::new();
        online(&mut world);
        let mut routes = many(5000);
        let off = routes.iter_mut().step_by(3);
        off.for_each(|route| route.via = Some(Ipv4Addr::new(172, 16, 0, 1)));
        let expected: Vec<(Ipv4Net, Errno)> =
            routes.iter().step_by(3).map(|route| (route.to, Errno::Enetunreach)).collect();
        assert_eq!(world.set(set_of(routes.clone())), expected);
        assert_eq!(world.ours().len(), 5000 - expected.len());
        // All of it, at once.
        let refused = world.set(RouteSet {
            shared: routes.iter().map(|r| Route { dev: "lo".into(), ..r.clone() }).collect(),
            except: None,
        });
        assert_eq!(refused.len(), 5000);
        assert!(world.ours().is_empty());
    });
}

#[test]
fn news_that_were_lost_are_made_up_for() {
    in_namespace(|| {
        let mut world = Linux::with(|| Network::with_room(4096).expect("a netlink socket"));
        online(&mut world);
        assert_eq!(world.set(set_of(many(500))), []);
        // Nobody reads meanwhile: far more than there is room for.
        let lines: Vec<String> = (0..3000)
            .map(|n| format!("route add 10.{}.{}.0/24 dev eth0 proto 98", n / 250, n % 250))
            .chain((0..250).map(|n| format!("route del 10.100.{n}.0/24 proto 98")))
            .chain([
                "link add late type bridge".to_owned(),
                "addr add 10.9.9.9/24 dev late".to_owned(),
                "link set late up".to_owned(),
            ])
            .collect();
        let batch = std::env::temp_dir().join(format!("kubesim-{}.ip", std::process::id()));
        std::fs::write(&batch, lines.join("\n")).expect("a batch");
        ip(&format!("-batch {}", batch.display()));
        let _ = std::fs::remove_file(&batch);
        world.until("all of it", |state| {
            state.netd_routes == 3250
                && has(state, "late")
                && is(state, "late", |link| link.up && link.addresses == [net("10.9.9.9/24")])
        });
        assert_eq!(world.set(set_of(many(500))), []);
        assert_eq!(world.ours().len(), 500);
    });
}

/// Routes that go silently go while whoever is told looks: he must not look too early.
#[test]
fn a_flush_is_seen_however_it_falls() {
    in_namespace(|| {
        let mut world = Linux::new();
        online(&mut world);
        let namespace = File::open("/proc/thread-self/ns/net").expect("a namespace");
        let (ask, asked) = std::sync::mpsc::channel::<&str>();
        let other = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the same namespace");
            for words in asked {
                ip(words);
            }
        });
        let routes = many(4000);
        let gone = |state: &State| {
            let off = is(state, "eth0", |link| !link.up || link.addresses.is_empty());
            state.netd_routes == 0 && off
        };
        for round in 0..20 {
            let (down, up) = match round % 2 {
                0 => ("addr flush dev eth0", "addr add 192.168.0.5/16 dev eth0"),
                _ => ("link set eth0 down", "link set eth0 up"),
            };
            let refused = world.set(set_of(routes.clone()));
            assert_eq!(refused.first(), None, "round {round}");
            ask.send(down).expect("the other one");
            // Looks without a pause, so as to be there when it happens.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(20) {
                world.set_neighbours("lo", &[]).expect("a link");
            }
            world.until("a flush", gone);
            ask.send(up).expect("the other one");
            world.until("an address and a link", |state| {
                is(state, "eth0", |link| link.up && link.carrier && !link.addresses.is_empty())
            });
        }
        drop(ask);
        other.join().expect("the other one");
    });
}

/// Two that set other tags do not meet.
#[test]
fn each_tag_is_its_owners() {
    in_namespace(|| {
        let (mut one, mut other) = (Linux::new(), Linux::new());
        online(&mut one);
        let request = |proto, text: &str| kubesim_actors::ports::network::Request::SetRoutes {
            proto,
            routes: RouteSet { shared: Arc::new([route(text)]), except: None },
        };
        one.ask(request(Proto::NETD, "10.1.0.0/16 dev eth0"));
        other.ask(request(Proto(77), "10.2.0.0/16 dev eth0"));
        one.ask(request(Proto::NETD, "10.3.0.0/16 dev eth0"));
        other.ask(request(Proto(77), "10.4.0.0/16 dev eth0"));
        let mut found: Vec<_> = one.routes();
        found.retain(|(_, proto)| *proto != Proto::KERNEL);
        let expected = [
            (route("10.3.0.0/16 dev eth0"), Proto::NETD),
            (route("10.4.0.0/16 dev eth0"), Proto(77)),
        ];
        assert_eq!(found, expected);
        other.until("what the one set is news to the other", |state| state.netd_routes == 1);
    });
}

/// The nodes of a large overlay, each a gateway of its own.
fn overlay(count: u32) -> Vec<Route> {
    let one = |n: u32| {
        let to = Ipv4Net::new(Ipv4Addr::from(0x0a80_0000 + (n << 8)), 24).expect("a length");
        Route { to, via: Some(to.addr()), dev: "kubesim.1".into(), onlink: true, metric: 0 }
    };
    (0..count).map(one).collect()
}

fn objects() -> usize {
    ip("nexthop").lines().count()
}

/// Linux walks over all gateways of a link for each route that has its own written in it: see
/// `backends/src/network/nexthops.rs`.
#[test]
fn many_gateways_of_an_overlay_are_objects() {
    in_namespace(|| {
        let mut world = Linux::new();
        online(&mut world);
        let spec = overlay_device();
        let texts =
            |routes: &[Route]| -> Vec<String> { routes.iter().map(crate::world::text).collect() };
        world.vxlan("kubesim.1", &spec).expect("a device");
        ip("nexthop add id 7 via 192.168.0.9 dev eth0");
        let (all, half) = (overlay(600), overlay(300));
        assert_eq!(world.set(set_of(overlay(100))), []);
        assert_eq!(objects(), 1, "few are written as everybody knows them");
        assert_eq!(world.set(set_of(all.clone())), []);
        assert_eq!((texts(&all), objects()), (world.ours(), 501));
        assert_eq!(world.set(set_of(half.clone())), []);
        assert_eq!((texts(&half), objects()), (world.ours(), 201), "unused ones are gone");
        assert_eq!(world.set(set_of(all.clone())), []);
        // Who starts anew finds them, whichever way the kernel shows them.
        for shown in ["1", "0"] {
            world.write_sysctl("net.ipv4.nexthop_compat_mode", shown);
            world.restart();
            let written = monitored(|| assert_eq!(world.set(set_of(all.clone())), []));
            assert_eq!(written, "", "shown {shown}");
        }
        world.write_sysctl("net.ipv4.nexthop_compat_mode", "1");
        // Somebody flushes them, and their routes with them.
        ip(&format!("nexthop flush proto {}", Proto::NETD.0));
        world.until("a hundred routes", |state| state.netd_routes == 100);
        assert_eq!(objects(), 1);
        assert_eq!(world.set(set_of(all.clone())), []);
        assert_eq!((texts(&all), objects()), (world.ours(), 501));
        // They go with their device, and are made anew with it.
        world.del_link("kubesim.1");
        world.until("no routes", |state| state.netd_routes == 0);
        world.vxlan("kubesim.1", &spec).expect("a device");
        assert_eq!(world.set(set_of(all.clone())), []);
        assert_eq!((texts(&all), objects()), (world.ours(), 601));
        assert_eq!(world.set(set_of(vec![])), []);
        assert_eq!((world.ours().len(), objects()), (0, 1), "a stranger's is left alone");
    });
}

/// A route whose gateway is refused is refused by its own name.
#[test]
fn a_gateway_that_cannot_be_an_object_is_told_as_a_route() {
    in_namespace(|| {
        let mut world = Linux::new();
        online(&mut world);
        let mut routes = overlay(600);
        ip("link add kubesim.1 type vxlan id 1 dstport 8472 local 192.168.0.5 dev eth0");
        ip("link set kubesim.1 up");
        world.until("a device", |state| is(state, "kubesim.1", |link| link.up));
        let bad = [3, 7, 599];
        for at in bad {
            routes[at].via = Some(Ipv4Addr::new(224, 0, 0, 1));
        }
        let expected: Vec<_> = bad.iter().map(|at| (routes[*at].to, Errno::Einval)).collect();
        assert_eq!(world.set(set_of(routes)), expected);
        assert_eq!((world.ours().len(), objects()), (597, 597));
    });
}
