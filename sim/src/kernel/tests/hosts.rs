//! Hosts and routers: ARP, ICMP, forwarding, addresses, sysctls, UDP.

use super::*;
use crate::body::Body;
use crate::kernel::packet::IcmpError;
use kubesim_actors::ports::network::{Reply, Request, RouteSet};
use std::sync::Arc;

fn replies(events: &[SocketEvent]) -> usize {
    events.iter().filter(|event| matches!(event, SocketEvent::EchoReply { .. })).count()
}

fn errors(events: &[SocketEvent]) -> Vec<IcmpError> {
    let kinds = events.iter().filter_map(|event| match event {
        SocketEvent::Icmp { kind, .. } => Some(*kind),
        _ => None,
    });
    kinds.collect()
}

#[test]
fn a_ping_resolves_the_neighbour_and_is_answered() {
    let mut wire = pair();
    wire.arps.clear();
    wire.ping(0, NsId::HOST, "10.0.0.2", 56).expect("a route");
    wire.run(Duration::from_secs(1));
    let events = wire.take_events();
    assert_eq!(replies(&events), 1, "{events:?}");
    assert_eq!(wire.arps.len(), 2, "one request, one reply");
    assert!(wire.kernels[0].ip_neigh(NsId::HOST).contains("10.0.0.2 dev eth0 lladdr"));
    // The next one needs no ARP.
    wire.ping(0, NsId::HOST, "10.0.0.2", 56).expect("a route");
    wire.run(Duration::from_secs(1));
    assert_eq!((replies(&wire.take_events()), wire.arps.len()), (1, 2));
}

#[test]
fn a_silent_neighbour_is_asked_three_times_and_then_unreachable() {
    let mut wire = pair();
    wire.arps.clear();
    let start = wire.now;
    wire.ping(0, NsId::HOST, "10.0.0.77", 56).expect("a route");
    wire.run(Duration::from_secs(5));
    let asked: Vec<u64> = wire.arps.iter().map(|(t, _)| t.since(start).as_secs()).collect();
    assert_eq!(asked, [0, 1, 2]);
    let (when, ..) = wire.events[0];
    assert_eq!(when.since(start), Duration::from_secs(3));
    assert_eq!(errors(&wire.take_events()), [IcmpError::HostUnreachable]);
    assert!(wire.kernels[0].ip_neigh(NsId::HOST).contains("10.0.0.77 dev eth0 FAILED"));
}

#[test]
fn an_idle_neighbour_goes_stale_and_is_probed_when_used() {
    let mut wire = pair();
    wire.ping(0, NsId::HOST, "10.0.0.2", 56).expect("a route");
    wire.run(Duration::from_secs(60));
    wire.arps.clear();
    wire.ping(0, NsId::HOST, "10.0.0.2", 56).expect("a route");
    wire.run(Duration::from_secs(1));
    assert!(wire.kernels[0].ip_neigh(NsId::HOST).contains("DELAY"));
    wire.run(Duration::from_secs(6));
    // Each side probed the other by unicast once.
    assert_eq!(wire.arps.len(), 4);
    assert!(wire.kernels[0].ip_neigh(NsId::HOST).contains("REACHABLE"));
    wire.run(Duration::from_secs(10));
    assert_eq!(wire.kernels[0].next_deadline(), None, "idle entries have no timer");
}

#[test]
fn a_gratuitous_arp_moves_an_address() {
    let mut wire = Wire::new(3, &[[(0, ETH0), (1, ETH0)], [(0, ETH0), (2, ETH0)]]);
    wire.uplink(0, "eth0", "10.0.0.1/24");
    wire.uplink(1, "eth0", "10.0.0.2/24");
    wire.uplink(2, "eth0", "10.0.0.3/24");
    wire.ping(0, NsId::HOST, "10.0.0.2", 56).expect("a route");
    wire.run(Duration::from_millis(10));
    wire.with(1, |k, now, out| k.del_address(now, NsId::HOST, ETH0, net("10.0.0.2/24"), out))
        .expect("it is there");
    wire.with(2, |k, now, out| k.add_address(now, NsId::HOST, ETH0, net("10.0.0.2/24"), out))
        .expect("it is new");
    wire.run(Duration::from_millis(10));
    let mac = wire.kernels[2].link(NsId::HOST, "eth0").expect("eth0").mac;
    let line = format!("10.0.0.2 dev eth0 lladdr {mac} STALE");
    assert!(wire.kernels[0].ip_neigh(NsId::HOST).contains(&line));
}

#[test]
fn a_router_forwards_only_when_told_and_says_what_it_cannot_reach() {
    let mut wire = routed();
    wire.ping(0, NsId::HOST, "10.1.0.1", 56).expect("a route");
    wire.run(Duration::from_secs(1));
    let events = wire.take_events();
    assert!(matches!(events[..], [SocketEvent::EchoReply { ttl: 63, .. }]), "{events:?}");
    wire.ping(0, NsId::HOST, "10.9.0.1", 56).expect("a route");
    wire.run(Duration::from_secs(1));
    assert_eq!(errors(&wire.take_events()), [IcmpError::NetUnreachable]);
    wire.ping(0, NsId::HOST, "10.1.0.9", 56).expect("a route");
    wire.run(Duration::from_secs(5));
    assert_eq!(errors(&wire.take_events()), [IcmpError::HostUnreachable]);
    let off = "net.ipv4.conf.eth0.forwarding";
    wire.with(1, |k, now, out| k.set_sysctl(now, NsId::HOST, off, "0", out)).expect("known");
    wire.ping(0, NsId::HOST, "10.1.0.1", 56).expect("a route");
    wire.run(Duration::from_secs(5));
    assert!(wire.take_events().is_empty(), "the input link's flag decides");
}

#[test]
fn unreachables_are_limited_to_six_in_a_burst() {
    let mut wire = routed();
    for _ in 0..20 {
        wire.ping(0, NsId::HOST, "10.9.0.1", 56).expect("a route");
    }
    wire.run(Duration::from_millis(500));
    assert_eq!(errors(&wire.take_events()).len(), 6);
}

#[test]
fn forwarding_is_carried_to_links_only_when_all_changes() {
    let mut wire = pair();
    let get = |wire: &Wire, key: &str| {
        wire.kernels[0].sysctl(NsId::HOST, &format!("net.ipv4.conf.{key}.forwarding"))
    };
    let set = |wire: &mut Wire, key: &str, value: &str| {
        let key = format!("net.ipv4.conf.{key}.forwarding");
        wire.with(0, |k, now, out| k.set_sysctl(now, NsId::HOST, &key, value, out))
    };
    set(&mut wire, "all", "1").expect("known");
    for conf in ["all", "default", "lo", "eth0"] {
        assert_eq!(get(&wire, conf).as_deref(), Some("1"), "{conf}");
    }
    set(&mut wire, "eth0", "0").expect("known");
    set(&mut wire, "all", "1").expect("known");
    assert_eq!(get(&wire, "eth0").as_deref(), Some("0"), "1 over 1 carries nothing");
    set(&mut wire, "all", "0").expect("known");
    set(&mut wire, "all", "1").expect("known");
    assert_eq!(get(&wire, "eth0").as_deref(), Some("1"));
    set(&mut wire, "default", "0").expect("known");
    wire.with(0, |k, _, _| k.add_bridge(NsId::HOST, "br0", Mac([2; 6]), 1500)).expect("new");
    assert_eq!(get(&wire, "br0").as_deref(), Some("0"));
    assert_eq!(set(&mut wire, "nope", "1"), Err(Errno::Enodev));
    assert_eq!(get(&wire, "nope"), None);
    let redirects = "net.ipv4.conf.eth0.send_redirects";
    assert_eq!(wire.kernels[0].sysctl(NsId::HOST, redirects).as_deref(), Some("1"));
    wire.with(0, |k, now, out| k.set_sysctl(now, NsId::HOST, redirects, "0", out)).expect("known");
    assert_eq!(wire.kernels[0].sysctl(NsId::HOST, redirects).as_deref(), Some("0"));
    let typo =
        wire.with(0, |k, now, out| k.set_sysctl(now, NsId::HOST, "net.ipv4.ipforward", "1", out));
    assert_eq!(typo, Err(Errno::Enodev));
}

/// What Linux 6.18 answers to the same commands.
#[test]
fn gateways_must_be_on_link() {
    let mut wire = pair();
    let mut add = |route: Route| wire.add_route(0, NsId::HOST, &route);
    assert_eq!(add(route("10.9.0.0/24", Some("10.0.0.2"), "eth0")), Ok(()));
    assert_eq!(add(route("10.9.0.0/24", Some("10.0.0.3"), "eth0")), Err(Errno::Eexist));
    assert_eq!(add(route("10.5.0.0/24", Some("10.0.0.1"), "eth0")), Ok(()), "one's own address");
    let far = route("10.6.0.0/24", Some("192.168.7.1"), "eth0");
    assert_eq!(add(far.clone()), Err(Errno::Enetunreach));
    assert_eq!(add(Route { onlink: true, ..far }), Ok(()));
    let nested = route("10.7.0.0/24", Some("10.9.0.1"), "eth0");
    assert_eq!(add(nested), Err(Errno::Enetunreach));
    let broadcast = route("10.8.0.0/24", Some("10.0.0.255"), "eth0");
    assert_eq!(add(broadcast), Err(Errno::Einval));
    let own = Route { onlink: true, ..route("10.4.0.0/24", Some("10.0.0.1"), "eth0") };
    assert_eq!(add(own), Err(Errno::Einval));
    assert_eq!(add(route("10.4.0.0/24", None, "eth9")), Err(Errno::Enodev));
}

#[test]
fn the_last_address_takes_every_route_of_its_link_along() {
    let mut wire = pair();
    wire.add_route(0, NsId::HOST, &route("10.9.0.0/24", Some("10.0.0.2"), "eth0")).expect("ok");
    let change = |wire: &mut Wire, add: bool, address: &str| {
        let address = net(address);
        wire.with(0, |k, now, out| match add {
            true => k.add_address(now, NsId::HOST, ETH0, address, out),
            false => k.del_address(now, NsId::HOST, ETH0, address, out),
        })
    };
    change(&mut wire, true, "10.20.0.1/24").expect("new");
    change(&mut wire, false, "10.0.0.1/24").expect("there");
    let table = "10.9.0.0/24 via 10.0.0.2 dev eth0 proto static\n\
                 10.20.0.0/24 dev eth0 proto kernel scope link src 10.20.0.1\n";
    assert_eq!(wire.kernels[0].ip_route(NsId::HOST), table, "not the last: the route stays");
    change(&mut wire, false, "10.20.0.1/24").expect("there");
    assert_eq!(wire.kernels[0].ip_route(NsId::HOST), "");
    // After a roam the old gateway is refused.
    change(&mut wire, true, "10.30.0.1/24").expect("new");
    let back = route("10.9.0.0/24", Some("10.0.0.2"), "eth0");
    assert_eq!(wire.add_route(0, NsId::HOST, &back), Err(Errno::Enetunreach));
}

#[test]
fn a_primary_takes_its_secondaries_along() {
    let mut wire = pair();
    wire.with(0, |k, now, out| {
        for address in ["10.0.0.5/24", "10.0.1.3/32"] {
            k.add_address(now, NsId::HOST, ETH0, net(address), out).expect("new");
        }
        let again = k.add_address(now, NsId::HOST, ETH0, net("10.0.0.5/24"), out);
        assert_eq!(again, Err(Errno::Eexist));
    });
    let addresses = |wire: &Wire| -> Vec<(String, bool)> {
        let link = wire.kernels[0].link(NsId::HOST, "eth0").expect("eth0");
        link.addresses.iter().map(|a| (a.net.to_string(), a.secondary)).collect()
    };
    let all = [("10.0.0.1/24", false), ("10.0.1.3/32", false), ("10.0.0.5/24", true)];
    assert_eq!(addresses(&wire), all.map(|(a, s)| (a.to_string(), s)));
    wire.with(0, |k, now, out| k.del_address(now, NsId::HOST, ETH0, net("10.0.0.1/24"), out))
        .expect("there");
    assert_eq!(addresses(&wire), [("10.0.1.3/32".to_string(), false)]);
}

#[test]
fn a_link_that_goes_down_loses_its_routes_and_keeps_its_addresses() {
    let mut wire = pair();
    wire.add_route(0, NsId::HOST, &route("10.9.0.0/24", Some("10.0.0.2"), "eth0")).expect("ok");
    wire.with(0, |k, now, out| k.set_up(now, NsId::HOST, ETH0, false, out)).expect("there");
    assert_eq!(wire.kernels[0].ip_route(NsId::HOST), "");
    assert_eq!(
        wire.add_route(0, NsId::HOST, &route("10.9.0.0/24", None, "eth0")),
        Err(Errno::Enetdown)
    );
    wire.ping(0, NsId::HOST, "10.0.0.1", 56).expect("its own address is still local");
    assert_eq!(replies(&wire.take_events()), 1);
    wire.with(0, |k, now, out| k.set_up(now, NsId::HOST, ETH0, true, out)).expect("there");
    let connected = "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.1\n";
    assert_eq!(wire.kernels[0].ip_route(NsId::HOST), connected);
    wire.with(0, |k, now, out| k.set_carrier(now, ETH0, false, out));
    let down = "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.1 linkdown\n";
    assert_eq!(wire.kernels[0].ip_route(NsId::HOST), down);
}

#[test]
fn a_shared_set_of_routes_is_flushed_refused_and_set_again() {
    let mut wire = pair();
    let shared: Arc<[Route]> =
        (0..50u8).map(|i| route(&format!("10.244.{i}.0/24"), Some("10.0.0.2"), "eth0")).collect();
    let set = |wire: &mut Wire| {
        let routes = RouteSet { shared: shared.clone(), except: Some(net("10.244.7.0/24")) };
        let request = Request::SetRoutes { proto: Proto::NETD, routes };
        match wire.with(0, |k, now, out| k.network(now, &request, out)) {
            Reply::RoutesSet { refused, .. } => refused,
            other => panic!("{other:?}"),
        }
    };
    wire.changes = 0;
    assert!(set(&mut wire).is_empty());
    assert_eq!((wire.kernels[0].state().netd_routes, wire.changes), (49, 0));
    assert!(set(&mut wire).is_empty());
    assert_eq!(wire.kernels[0].routes(NsId::HOST).count(), 50);
    wire.with(0, |k, now, out| {
        k.del_address(now, NsId::HOST, ETH0, net("10.0.0.1/24"), out).expect("there");
        k.add_address(now, NsId::HOST, ETH0, net("10.20.0.1/24"), out).expect("new");
    });
    assert_eq!(wire.kernels[0].state().netd_routes, 0);
    let refused = set(&mut wire);
    assert_eq!(refused.len(), 49);
    assert!(refused.iter().all(|(_, error)| *error == Errno::Enetunreach));
    wire.with(0, |k, now, out| k.add_address(now, NsId::HOST, ETH0, net("10.0.0.1/24"), out))
        .expect("new");
    assert!(set(&mut wire).is_empty());
    assert_eq!(wire.kernels[0].state().netd_routes, 49);
}

#[test]
fn udp_reaches_a_socket_or_comes_back_as_port_unreachable() {
    let mut wire = pair();
    let server =
        wire.with(1, |k, _, _| k.udp_bind(NsId::HOST, ip("0.0.0.0"), 53, 5)).expect("free");
    let client = wire.with(0, |k, _, _| k.udp_bind(NsId::HOST, ip("0.0.0.0"), 0, 6)).expect("free");
    let send = |wire: &mut Wire, to: &str| {
        let to = at(to);
        wire.with(0, |k, now, out| {
            k.udp_send(now, client, None, to, Body::Text("q".into()), 30, out)
        })
    };
    send(&mut wire, "10.0.0.2:53").expect("a route");
    wire.run(Duration::from_secs(1));
    let (_, machine, socket, event) = wire.events.remove(0);
    assert_eq!((machine, socket), (1, server));
    assert!(
        matches!(event, SocketEvent::Datagram { len: 30, local, .. } if local == at("10.0.0.2:53"))
    );
    send(&mut wire, "10.0.0.2:54").expect("a route");
    wire.run(Duration::from_secs(1));
    assert_eq!(errors(&wire.take_events()), [IcmpError::PortUnreachable]);
    let taken = wire.with(1, |k, _, _| k.udp_bind(NsId::HOST, ip("10.0.0.2"), 53, 5));
    assert_eq!(taken, Err(Errno::Eaddrinuse));
    let foreign = wire.with(1, |k, _, _| k.udp_bind(NsId::HOST, ip("10.0.0.9"), 99, 5));
    assert_eq!(foreign, Err(Errno::Eaddrnotavail));
}

#[test]
fn a_client_without_an_address_broadcasts() {
    let mut wire = Wire::new(2, &[[(0, ETH0), (1, ETH0)]]);
    wire.uplink(1, "eth0", "10.0.0.2/24");
    wire.with(0, |k, now, out| {
        let link = k.add_uplink("eth0", Mac([2; 6]), 1500).expect("new");
        k.set_up(now, NsId::HOST, link, true, out).expect("there");
        let socket = k.udp_bind(NsId::HOST, ip("0.0.0.0"), 68, 1).expect("free");
        k.udp_broadcast(now, NsId::HOST, link, socket, 67, Body::Text("discover".into()), 300, out)
            .expect("a link");
    });
    let server =
        wire.with(1, |k, _, _| k.udp_bind(NsId::HOST, ip("0.0.0.0"), 67, 1)).expect("free");
    wire.run(Duration::from_secs(1));
    let event = wire.take_events().remove(0);
    assert!(
        matches!(event, SocketEvent::Datagram { from, .. } if from == at("0.0.0.0:68")),
        "{event:?}"
    );
    wire.with(1, |k, now, out| {
        k.udp_broadcast(now, NsId::HOST, ETH0, server, 68, Body::Text("offer".into()), 300, out)
    })
    .expect("a link");
    wire.run(Duration::from_secs(1));
    let event = wire.take_events().remove(0);
    assert!(matches!(event, SocketEvent::Datagram { from, .. } if from == at("10.0.0.2:67")));
}

#[test]
fn strict_reverse_path_filtering_drops_what_would_not_go_back_that_way() {
    let mut wire = routed();
    let key = "net.ipv4.conf.eth0.rp_filter";
    wire.with(1, |k, now, out| {
        k.set_sysctl(now, NsId::HOST, key, "1", out).expect("known");
        k.del_route(now, NsId::HOST, &route("10.0.0.0/24", None, "eth0"), Proto::KERNEL, out)
            .expect("there");
    });
    wire.ping(0, NsId::HOST, "10.1.0.1", 56).expect("a route");
    wire.run(Duration::from_secs(1));
    let crossed = wire.seen.iter().filter(|(_, machine, _)| *machine == 1).count();
    assert_eq!(crossed, 0, "no way back to 10.0.0.1");
}
