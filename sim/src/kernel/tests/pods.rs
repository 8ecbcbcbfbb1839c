//! Pods: namespaces, veths, a bridge, vxlan between machines.

use super::*;
use crate::body::Body;
use kubesim_actors::ports::network::{FdbEntry, Neighbour, Reply, Request, RouteSet, Vxlan};

/// A pod's namespace on the bridge `cni0`, with a default route to the bridge's address.
fn pod(wire: &mut Wire, machine: usize, address: &str, gateway: &str, mtu: u32) -> NsId {
    wire.with(machine, |k, now, out| {
        let ns = k.add_namespace();
        let address = net(address);
        let mac = Mac::from_ip(address.addr());
        let name = format!("veth{}", ns.0);
        let outside = Mac([6, 0, 0, 0, machine as u8, ns.0 as u8]);
        let (a, b) =
            k.add_veth((NsId::HOST, &name, outside), (ns, "eth0", mac), mtu).expect("free names");
        let bridge = k.link(NsId::HOST, "cni0").expect("the bridge").index;
        k.set_master(now, NsId::HOST, a, Some(bridge), out).expect("a bridge");
        k.set_up(now, NsId::HOST, a, true, out).expect("a link");
        k.set_up(now, ns, b, true, out).expect("a link");
        k.add_address(now, ns, b, address, out).expect("new");
        let default = route("0.0.0.0/0", Some(gateway), "eth0");
        k.add_route(now, ns, &default, Proto::BOOT, out).expect("on-link");
        ns
    })
}

fn done(reply: Reply) {
    assert!(matches!(reply, Reply::Done { result: Ok(()), .. }), "{reply:?}");
}

fn bridge(wire: &mut Wire, machine: usize, address: &str, mtu: u32) {
    let request = Request::EnsureBridge { name: "cni0".into(), address: net(address), mtu };
    done(wire.with(machine, |k, now, out| k.network(now, &request, out)));
    set_forwarding(wire, machine);
}

fn vtep(machine: usize) -> Mac {
    Mac([0x0e, 0, 0, 0, 0, machine as u8])
}

/// Two machines with pod networks 10.244.<i>.0/24 and a vxlan between them.
fn overlay() -> Wire {
    let mut wire = pair();
    for machine in 0..2 {
        bridge(&mut wire, machine, &format!("10.244.{machine}.1/24"), 1450);
        let other = 1 - machine;
        let remote = ip(&format!("10.0.0.{}", other + 1));
        let gateway = ip(&format!("10.244.{other}.0"));
        let spec = Vxlan {
            vni: 1,
            port: 8472,
            mac: vtep(machine),
            mtu: 1450,
            local: ip(&format!("10.0.0.{}", machine + 1)),
            address: net(&format!("10.244.{machine}.0/32")),
        };
        let dev: smol_str::SmolStr = "vxlan1".into();
        let to = net(&format!("10.244.{other}.0/24"));
        let shared =
            vec![Route { to, via: Some(gateway), dev: dev.clone(), onlink: true, metric: 0 }];
        let neighbours = vec![Neighbour { ip: gateway, mac: vtep(other) }];
        let fdb = vec![FdbEntry { mac: vtep(other), remote }];
        wire.with(machine, |k, now, out| {
            done(k.network(now, &Request::EnsureVxlan { name: dev.clone(), spec }, out));
            let request = Request::SetNeighbours { dev: dev.clone(), entries: neighbours.into() };
            done(k.network(now, &request, out));
            done(k.network(now, &Request::SetFdb { dev: dev.clone(), entries: fdb.into() }, out));
            let routes = RouteSet { shared: shared.into(), except: None };
            let request = Request::SetRoutes { proto: Proto::NETD, routes };
            let reply = k.network(now, &request, out);
            assert!(matches!(&reply, Reply::RoutesSet { refused, .. } if refused.is_empty()));
        });
    }
    wire
}

fn answered(wire: &mut Wire) -> bool {
    wire.take_events().iter().any(|event| matches!(event, SocketEvent::EchoReply { .. }))
}

#[test]
fn pods_of_one_machine_talk_over_the_bridge_at_once() {
    let mut wire = Wire::new(1, &[]);
    bridge(&mut wire, 0, "10.244.0.1/24", 1500);
    let a = pod(&mut wire, 0, "10.244.0.2/24", "10.244.0.1", 1500);
    let b = pod(&mut wire, 0, "10.244.0.3/24", "10.244.0.1", 1500);
    wire.ping(0, a, "10.244.0.3", 56).expect("a route");
    assert!(answered(&mut wire), "within one call");
    wire.ping(0, a, "10.244.0.1", 56).expect("a route");
    assert!(answered(&mut wire));
    wire.ping(0, NsId::HOST, "10.244.0.3", 56).expect("a route");
    assert!(answered(&mut wire));
    let learned = wire.kernels[0].bridge_fdb(NsId::HOST);
    assert!(learned.contains("0a:58:0a:f4:00:02 dev veth1 master cni0"), "{learned}");
    let mut out = Vec::new();
    wire.kernels[0].remove_namespace(wire.now, b, &mut out);
    assert!(wire.kernels[0].link(NsId::HOST, "veth2").is_none());
    wire.ping(0, a, "10.244.0.3", 56).expect("a route");
    wire.run(Duration::from_secs(4));
    assert!(!answered(&mut wire));
}

#[test]
fn bridges_forget_after_five_minutes_and_flood_again() {
    let mut wire = Wire::new(1, &[]);
    bridge(&mut wire, 0, "10.244.0.1/24", 1500);
    let a = pod(&mut wire, 0, "10.244.0.2/24", "10.244.0.1", 1500);
    pod(&mut wire, 0, "10.244.0.3/24", "10.244.0.1", 1500);
    wire.ping(0, a, "10.244.0.3", 56).expect("a route");
    wire.take_events();
    wire.run(Duration::from_secs(400));
    wire.ping(0, a, "10.244.0.3", 56).expect("a route");
    assert!(answered(&mut wire));
}

#[test]
fn pods_of_two_machines_talk_through_vxlan() {
    let mut wire = overlay();
    let a = pod(&mut wire, 0, "10.244.0.2/24", "10.244.0.1", 1450);
    pod(&mut wire, 1, "10.244.1.2/24", "10.244.1.1", 1450);
    wire.seen.clear();
    wire.ping(0, a, "10.244.1.2", 56).expect("a route");
    wire.run(Duration::from_millis(10));
    assert!(answered(&mut wire));
    let (_, _, outer) = &wire.seen[0];
    assert_eq!((outer.src, outer.dst), (ip("10.0.0.1"), ip("10.0.0.2")));
    assert_eq!(outer.len, 56 + 28 + 50);
    assert!(matches!(outer.l4, L4::Udp { dport: 8472, .. }));
    let fdb = wire.kernels[0].bridge_fdb(NsId::HOST);
    assert!(fdb.contains("0e:00:00:00:00:01 dev vxlan1 dst 10.0.0.2 self permanent"), "{fdb}");
}

#[test]
fn a_pod_with_a_larger_mtu_learns_what_fits_the_tunnel() {
    let mut wire = overlay();
    let a = pod(&mut wire, 0, "10.244.0.2/24", "10.244.0.1", 1500);
    let b = pod(&mut wire, 1, "10.244.1.2/24", "10.244.1.1", 1500);
    wire.with(1, |k, _, _| k.tcp_listen(b, ip("0.0.0.0"), 80, 1)).expect("free");
    let to = at("10.244.1.2:80");
    wire.with(0, |k, now, out| {
        let socket = k.tcp_connect(now, a, to, 2, out).expect("a route");
        k.tcp_send(now, socket, Body::Text("large".into()), 5_000, out).expect("open");
    });
    wire.seen.clear();
    wire.run(Duration::from_millis(100));
    let got = wire
        .take_events()
        .into_iter()
        .any(|event| matches!(event, SocketEvent::Received { len: 5_000, .. }));
    assert!(got, "without waiting for a timer");
    assert!(wire.seen.iter().all(|(_, _, packet)| packet.segment <= 1500));
}

#[test]
fn an_address_on_the_loopback_is_served_to_everyone() {
    let mut wire = pair();
    wire.with(1, |k, now, out| {
        k.add_address(now, NsId::HOST, Kernel::LO, net("10.50.0.1/32"), out).expect("new")
    });
    wire.add_route(0, NsId::HOST, &route("10.50.0.1/32", Some("10.0.0.2"), "eth0")).expect("ok");
    wire.ping(0, NsId::HOST, "10.50.0.1", 56).expect("a route");
    wire.run(Duration::from_millis(10));
    assert!(answered(&mut wire));
    wire.ping(1, NsId::HOST, "10.50.0.1", 56).expect("local");
    assert!(answered(&mut wire));
}

#[test]
fn an_empty_namespace_is_small() {
    assert!(size_of::<crate::kernel::Namespace>() + size_of::<crate::kernel::Link>() < 1024);
}
