//! Routes under our tag.

use crate::world::{Asking, World, has, is, link, net, route};
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{Errno, Proto, RouteSet};
use std::sync::Arc;

/// An uplink with an address.
fn online(world: &mut impl World) {
    world.add_veth("eth0", "wire0");
    world.add_address("eth0", net("192.168.0.5/24")).expect("new");
    world.until("an address", |state| is(state, "eth0", |link| !link.addresses.is_empty()));
}

const PEERS: [&str; 3] = [
    "10.244.1.0/24 via 192.168.0.11 dev eth0",
    "10.244.2.0/24 via 192.168.0.12 dev eth0",
    "10.244.3.0/24 via 192.168.0.13 dev eth0",
];

pub fn routes_become_exactly_these(world: &mut impl World) {
    online(world);
    assert_eq!(world.set_routes(&PEERS), []);
    assert_eq!(world.ours(), PEERS);
    // One moved, one is gone, one is new, one has another metric, another device.
    let then = [
        "10.244.1.0/24 via 192.168.0.21 dev eth0",
        "10.244.3.0/24 via 192.168.0.13 dev eth0 metric 7",
        "10.244.4.0/24 via 192.168.0.14 dev eth0",
        "10.244.5.0/24 dev wire0",
    ];
    assert_eq!(world.set_routes(&then), []);
    assert_eq!(world.ours(), then);
    assert_eq!(world.set_routes(&then), []);
    assert_eq!(world.ours(), then);
    let moved = ["10.244.5.0/24 via 192.168.0.15 dev eth0"];
    assert_eq!(world.set_routes(&moved), []);
    assert_eq!(world.ours(), moved);
    // One's own subnet is no route.
    assert_eq!(world.set_routes_except(&PEERS, Some("10.244.2.0/24")), []);
    assert_eq!(world.ours(), [PEERS[0], PEERS[2]]);
    assert_eq!(world.set_routes_except(&PEERS, Some("10.244.1.0/24")), []);
    assert_eq!(world.ours(), PEERS[1..]);
    assert_eq!(world.set_routes(&[]), []);
    assert!(world.ours().is_empty());
}

pub fn foreign_routes_are_left_alone(world: &mut impl World) {
    online(world);
    let foreign = [
        ("10.244.1.0/24 via 192.168.0.99 dev eth0", Proto::STATIC),
        ("10.244.2.0/24 via 192.168.0.99 dev eth0 metric 5", Proto::BOOT),
        ("10.7.0.0/16 via 192.168.0.98 dev eth0", Proto(99)),
    ];
    for (text, proto) in foreign {
        world.add_route(&route(text), proto).expect("new");
    }
    // The first is taken: the destination with this metric. The second is not, by its metric.
    let refused = vec![(net("10.244.1.0/24"), Errno::Eexist)];
    assert_eq!(world.set_routes(&PEERS), refused);
    assert_eq!(world.ours(), PEERS[1..]);
    assert_eq!(world.set_routes(&[]), []);
    let left = world.routes();
    for (text, proto) in foreign {
        assert!(left.contains(&(route(text), proto)), "{text} is gone");
    }
    // Once it is free it is ours.
    world.del_route(&route(foreign[0].0), foreign[0].1).expect("it is there");
    assert_eq!(world.set_routes(&PEERS), []);
    assert_eq!(world.ours(), PEERS);
}

pub fn what_is_refused_is_said_and_the_rest_done(world: &mut impl World) {
    online(world);
    world.add_veth("down0", "down1");
    world.set_up("down0", false);
    let wanted = [
        ("10.1.0.0/24 via 192.168.0.11 dev eth0", Ok(())),
        ("10.2.0.0/24 via 192.168.9.11 dev eth0", Err(Errno::Enetunreach)),
        ("10.3.0.0/24 via 192.168.9.11 dev eth0 onlink", Ok(())),
        ("10.4.0.0/24 via 192.168.0.5 dev eth0 onlink", Err(Errno::Einval)),
        ("10.5.0.0/24 via 192.168.0.255 dev eth0", Err(Errno::Einval)),
        ("10.6.0.0/24 via 192.168.0.11 dev nope", Err(Errno::Enodev)),
        ("10.7.0.1/24 via 192.168.0.11 dev eth0", Err(Errno::Einval)),
        ("10.8.0.0/24 dev down0", Err(Errno::Enetdown)),
        ("10.9.0.0/24 via 192.168.0.11 dev down0", Err(Errno::Enetunreach)),
        ("10.10.0.0/24 via 192.168.0.11 dev down0 onlink", Err(Errno::Enetdown)),
        ("10.11.0.0/24 dev eth0 onlink", Err(Errno::Einval)),
        ("10.12.0.0/24 via 192.168.0.5 dev eth0", Ok(())),
        ("10.13.0.0/24 via 192.168.0.11 dev wire0", Err(Errno::Enetunreach)),
        ("10.14.0.0/24 via 127.0.0.9 dev eth0 onlink", Err(Errno::Einval)),
        ("10.15.0.0/24 via 224.0.0.1 dev eth0 onlink", Err(Errno::Einval)),
        ("10.16.0.0/32 via 192.168.0.0 dev eth0", Ok(())),
        ("10.17.0.0/24 dev lo", Ok(())),
    ];
    let all: Vec<&str> = wanted.iter().map(|(text, _)| *text).collect();
    let fine: Vec<&str> =
        wanted.iter().filter(|(_, result)| result.is_ok()).map(|(text, _)| *text).collect();
    let refused: Vec<(Ipv4Net, Errno)> = wanted
        .iter()
        .filter_map(|(text, result)| result.err().map(|errno| (route(text).to, errno)))
        .collect();
    for _ in 0..2 {
        assert_eq!(world.set_routes(&all), refused);
        assert_eq!(world.ours(), fine);
    }
    // What stood and is now wanted in a way that is refused is gone.
    let bad = "10.1.0.0/24 via 192.168.9.11 dev eth0";
    assert_eq!(world.set_routes(&[bad]), [(net("10.1.0.0/24"), Errno::Enetunreach)]);
    assert!(world.ours().is_empty());
}

pub fn a_gateway_may_lie_within_a_route_of_the_same_set(world: &mut impl World) {
    online(world);
    let both = ["10.0.0.0/24 via 172.16.0.1 dev eth0", "172.16.0.0/24 dev eth0"];
    assert_eq!(world.set_routes(&both), []);
    assert_eq!(world.ours(), both);
    // A route that goes is no way to a gateway that comes.
    let next = ["10.1.0.0/24 via 172.16.0.1 dev eth0"];
    assert_eq!(world.set_routes(&next), [(net("10.1.0.0/24"), Errno::Enetunreach)]);
}

pub fn a_set_need_not_be_in_order(world: &mut impl World) {
    online(world);
    let back = [PEERS[2], PEERS[0], PEERS[1]];
    assert_eq!(world.set_routes(&back), []);
    assert_eq!(world.ours(), PEERS);
    assert_eq!(world.set_routes(&[PEERS[1], PEERS[0]]), []);
    assert_eq!(world.ours(), PEERS[..2]);
}

/// The laptop moved.
pub fn the_routes_of_an_address_go_with_it_and_that_is_told(world: &mut impl World) {
    online(world);
    assert_eq!(world.set_routes(&PEERS), []);
    world.add_address("wire0", net("172.31.0.1/24")).expect("new");
    world.until("three routes", |state| state.netd_routes == 3);
    world.del_address("eth0", net("192.168.0.5/24")).expect("it is there");
    world.until("no routes", |state| {
        state.netd_routes == 0 && is(state, "eth0", |link| link.addresses.is_empty())
    });
    assert!(world.ours().is_empty());
    world.add_address("eth0", net("10.20.0.7/24")).expect("new");
    let refused: Vec<_> = PEERS.iter().map(|text| (route(text).to, Errno::Enetunreach)).collect();
    assert_eq!(world.set_routes(&PEERS), refused, "the gateways are off the link");
    world.until("a new address and no routes", |state| {
        state.netd_routes == 0 && is(state, "eth0", |link| link.addresses == [net("10.20.0.7/24")])
    });
}

pub fn while_an_address_is_left_the_routes_stay(world: &mut impl World) {
    online(world);
    world.add_address("eth0", net("10.20.0.7/24")).expect("new");
    world.add_address("eth0", net("192.168.0.6/24")).expect("new");
    assert_eq!(world.set_routes(&PEERS), []);
    let state =
        world.until("three addresses", |state| is(state, "eth0", |link| link.addresses.len() == 3));
    let order = [net("192.168.0.5/24"), net("10.20.0.7/24"), net("192.168.0.6/24")];
    assert_eq!(link(&state, "eth0").addresses, order, "secondary ones are last");
    world.del_address("eth0", net("192.168.0.5/24")).expect("it is there");
    let state = world.until("its secondary goes with it", |state| {
        is(state, "eth0", |link| link.addresses == [net("10.20.0.7/24")])
    });
    assert_eq!(state.netd_routes, 3);
    assert_eq!(world.ours(), PEERS, "Linux does not check gateways again");
    assert_eq!(world.set_routes(&PEERS), [], "nor does it have to");
    let more = [PEERS[0], "10.244.9.0/24 via 192.168.0.19 dev eth0"];
    assert_eq!(world.set_routes(&more), [(net("10.244.9.0/24"), Errno::Enetunreach)]);
    assert_eq!(world.ours(), PEERS[..1]);
}

pub fn routes_go_with_their_link(world: &mut impl World) {
    online(world);
    world.bridge("cni0", "10.244.9.1/24", 1500).expect("a new bridge");
    let mixed = [PEERS[0], "10.244.2.0/24 via 10.244.9.2 dev cni0", "10.244.3.0/24 dev cni0"];
    assert_eq!(world.set_routes(&mixed), []);
    world.set_up("cni0", false);
    world.until("one route", |state| state.netd_routes == 1);
    assert_eq!(world.ours(), mixed[..1]);
    world.set_up("cni0", true);
    world.until("an empty bridge", |state| is(state, "cni0", |link| link.up));
    assert_eq!(world.ours(), mixed[..1], "they do not come back by themselves");
    assert_eq!(world.set_routes(&mixed), []);
    assert_eq!(world.ours(), mixed);
    world.del_link("cni0");
    world.until("one route and no bridge", |state| state.netd_routes == 1 && !has(state, "cni0"));
    assert_eq!(world.ours(), mixed[..1]);
    // A cable that is pulled takes none.
    world.set_up("wire0", false);
    let state = world.until("no carrier", |state| is(state, "eth0", |link| !link.carrier));
    assert_eq!((state.netd_routes, link(&state, "eth0").up), (1, true));
    assert_eq!(world.set_routes(&mixed[..1]), []);
    assert_eq!(world.ours(), mixed[..1]);
}

pub fn what_others_do_under_our_tag_is_told_and_put_right(world: &mut impl World) {
    online(world);
    assert_eq!(world.set_routes(&PEERS), []);
    world.del_route(&route(PEERS[1]), Proto::NETD).expect("it is there");
    world.until("two routes", |state| state.netd_routes == 2);
    assert_eq!(world.set_routes(&PEERS), []);
    assert_eq!(world.ours(), PEERS);
    for other in ["10.99.0.0/16 via 192.168.0.99 dev eth0", "10.244.2.0/24 dev eth0 metric 3"] {
        world.add_route(&route(other), Proto::NETD).expect("new");
    }
    world.until("five routes", |state| state.netd_routes == 5);
    assert_eq!(world.set_routes(&PEERS), []);
    assert_eq!(world.ours(), PEERS);
    // Nobody waits for the news of it.
    world.del_route(&route(PEERS[0]), Proto::NETD).expect("it is there");
    world.add_route(&route("10.244.1.0/24 dev wire0"), Proto::NETD).expect("new");
    assert_eq!(world.set_routes(&PEERS), []);
    assert_eq!(world.ours(), PEERS);
}

pub fn our_own_routes_are_no_news(world: &mut impl World) {
    online(world);
    let before = world.settled();
    assert_eq!(world.set_routes(&PEERS), []);
    assert!(Arc::ptr_eq(&world.settled(), &before), "nothing is told");
    world.add_route(&route("10.50.0.0/16 via 192.168.0.50 dev eth0"), Proto::STATIC).expect("new");
    world.add_address("wire0", net("172.31.0.1/24")).expect("new");
    let state =
        world.until("an address", |state| is(state, "wire0", |link| !link.addresses.is_empty()));
    assert_eq!(state.netd_routes, 3, "and there they are counted");
}

pub fn who_starts_anew_adopts_what_is_there(world: &mut impl World) {
    online(world);
    world.bridge("cni0", "10.244.9.1/24", 1450).expect("a new bridge");
    assert_eq!(world.set_routes(&PEERS), []);
    world.add_address("wire0", net("172.31.0.1/24")).expect("new");
    let before = world.until("all of it", |state| {
        state.netd_routes == 3 && is(state, "wire0", |link| !link.addresses.is_empty())
    });
    world.restart();
    assert_eq!(*world.settled(), *before, "the first state says it all");
    world.bridge("cni0", "10.244.9.1/24", 1450).expect("it is there");
    assert_eq!(world.set_routes(&PEERS), []);
    assert_eq!(world.ours(), PEERS);
    assert_eq!(*world.settled(), *before);
    // The one that died knew less.
    world.restart();
    let set = RouteSet { shared: Arc::new([route(PEERS[1])]), except: None };
    assert_eq!(world.set(set), []);
    assert_eq!(world.ours(), PEERS[1..2]);
}

pub fn the_default_route_has_the_lowest_metric(world: &mut impl World) {
    online(world);
    world.add_address("wire0", net("172.31.0.1/24")).expect("new");
    let by = |state: &kubesim_actors::ports::network::State| {
        let with = state.links.iter().filter(|link| link.default_route);
        with.map(|link| link.name.to_string()).collect::<Vec<_>>()
    };
    world.until("no default route", |state| by(state).is_empty());
    let [wifi, cable] = [
        route("0.0.0.0/0 via 192.168.0.1 dev eth0 metric 600"),
        route("0.0.0.0/0 via 172.31.0.9 dev wire0 metric 100"),
    ];
    world.add_route(&wifi, Proto::DHCP).expect("new");
    world.until("by the one", |state| by(state) == ["eth0"]);
    world.add_route(&cable, Proto::DHCP).expect("new");
    world.until("by the other", |state| by(state) == ["wire0"]);
    world.del_route(&cable, Proto::DHCP).expect("it is there");
    world.until("by the one again", |state| by(state) == ["eth0"]);
    world.add_route(&cable, Proto::DHCP).expect("new");
    world.until("by the other again", |state| by(state) == ["wire0"]);
    // Silently.
    world.del_address("wire0", net("172.31.0.1/24")).expect("it is there");
    world.until("with its address", |state| by(state) == ["eth0"]);
    world.set_up("eth0", false);
    world.until("with its link", |state| by(state).is_empty());
}
