//! What netd does, told machine by machine.

use super::world::*;
use crate::netd::{Event, peer};
use crate::objects::{Key, Name};
use crate::ports::{packets, rules};
use std::sync::Arc;

fn cafe() -> Option<ipnet::Ipv4Net> {
    Some(net("10.20.0.7/24"))
}

fn settled(count: usize, conf: &str) -> World {
    let mut world = World::new(count, conf);
    world.start_all();
    world.run(3_000);
    world
}

fn noted(world: &World, index: usize, words: &str) -> bool {
    world.machines[index].notes.iter().any(|note| note.contains(words))
}

#[test]
fn three_nodes_at_home_get_routes_bridges_and_files() {
    let world = settled(3, HOST_GW);
    for (index, machine) in world.machines.iter().enumerate() {
        let others: Vec<_> = (0..3).filter(|other| *other != index).collect();
        let routes: Vec<_> = machine.routes.values().collect();
        assert_eq!(routes.len(), 2);
        for (route, other) in routes.iter().zip(others) {
            assert_eq!(route.to, net(&format!("10.244.{other}.0/24")));
            assert_eq!(route.via, Some(home(other).addr()));
        }
        let bridge = machine.link("cni0").unwrap();
        assert_eq!(bridge.addresses, [net(&format!("10.244.{index}.1/24"))]);
        assert!(machine.state.links.iter().all(|link| link.forwarding) && machine.state.ip_forward);
        assert_eq!(
            &*machine.files[&Name::from(ENV)],
            format!(
                "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.{index}.1/24\n\
                 FLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n"
            )
        );
        assert!(machine.link("kubesim.1").is_none());
        assert_eq!(machine.effects["api write"], 1);
    }
    assert_eq!(world.datagrams, 0, "a boot tells nothing directly");
    assert!(noted(&world, 0, "net.ipv4.conf.cni0.forwarding was 0, set to 1"));
}

#[test]
fn the_server_roams_to_a_cafe_and_its_peers_follow_without_the_api() {
    let mut world = settled(3, HOST_GW);
    // Who is not the laptop cannot reach the API until it dials the new address.
    world.move_to(0, None);
    world.cut(1, true);
    world.cut(2, true);
    world.run(2_000);
    world.move_to(0, cafe());
    world.run(600);
    for index in [1, 2] {
        let machine = &world.machines[index];
        assert_eq!(machine.dialled[0], cafe().unwrap().addr());
        let route = &machine.routes[&net("10.244.0.0/24")];
        assert_eq!((&*route.dev, route.onlink), ("kubesim.1", true));
        assert_eq!(machine.fdb.len(), 1);
        assert_eq!(machine.fdb[0].remote, cafe().unwrap().addr());
        assert!(noted(&world, index, "n0 says it is at 10.20.0.7 now, no more at 192.168.1.10"));
    }
    let laptop = &world.machines[0];
    assert_eq!(laptop.dialled, [std::net::Ipv4Addr::LOCALHOST]);
    assert!(laptop.routes.values().all(|route| &*route.dev == "kubesim.1"));
    assert_eq!(laptop.routes.len(), 2);
    assert_eq!(laptop.link("kubesim.1").unwrap().mtu, 1450);
    assert_eq!(laptop.link("cni0").unwrap().addresses, [net("10.244.0.1/24")]);
    world.cut(1, false);
    world.cut(2, false);
    world.run(1_000);
    let sent = world.datagrams;
    world.run(20_000);
    assert_eq!(world.datagrams, sent, "everybody has answered");

    // And home again.
    world.move_to(0, Some(home(0)));
    world.run(12_000);
    for machine in &world.machines {
        assert!(machine.routes.values().all(|route| &*route.dev == "eth0"));
        assert_eq!(machine.routes.len(), 2);
        assert!(machine.link("kubesim.1").is_none(), "gone when it is needed no more");
    }
    let (_, status) = world.view.get(&Key::cluster("n0")).unwrap().subnet().unwrap();
    assert_eq!((status.generation, status.locator), (3, Some(home(0).addr())));
}

#[test]
fn a_restarted_netd_knows_its_peers_without_the_api() {
    let mut world = settled(3, HOST_GW);
    world.run(40_000);
    let before = world.machines[1].routes.clone();
    world.crash(1);
    world.cut(1, true);
    world.machines[1].routes.clear();
    world.start(1);
    world.run(1_000);
    assert_eq!(world.machines[1].routes, before);
    world.move_to(1, cafe());
    world.run(1_000);
    assert_eq!(world.machines[0].routes[&net("10.244.1.0/24")].dev, "kubesim.1");
}

#[test]
fn a_stale_route_of_an_earlier_life_goes_with_the_first_plan() {
    let mut world = settled(4, HOST_GW);
    world.crash(0);
    world.delete_node(3);
    world.crash(3);
    world.run(1_000);
    assert!(world.machines[0].routes.contains_key(&net("10.244.3.0/24")));
    world.put_node(2, "10.244.3.0/24");
    world.run(1_000);
    world.start(0);
    world.run(200);
    let route = &world.machines[0].routes[&net("10.244.3.0/24")];
    assert_eq!(route.via, Some(home(2).addr()));
    assert!(!world.machines[0].routes.contains_key(&net("10.244.2.0/24")));
}

#[test]
fn flushed_routes_and_foreign_sysctls_come_back() {
    let mut world = settled(2, HOST_GW);
    let machine = &mut world.machines[0];
    machine.routes.clear();
    machine.state.netd_routes = 0;
    machine.state.links[0].forwarding = false;
    // The count is as it was at the first look; a thorough resync sees to that.
    world.tell_state(0);
    world.run(11_000);
    assert_eq!(world.machines[0].routes.len(), 1);
    assert!(world.machines[0].state.links[0].forwarding);
}

#[test]
fn a_bad_net_conf_is_reported_and_watched() {
    let mut world = World::new(1, r#"{"Network": "10.244.0.0/16"}"#);
    world.start_all();
    world.run(1_000);
    assert!(noted(
        &world,
        0,
        "/etc/kube-flannel/net-conf.json: Backend.Type: expected \"host-gw\", \"vxlan\" \
         or \"wireguard\", found nothing"
    ));
    assert!(world.machines[0].link("cni0").is_none());
    world.write(0, CONF, HOST_GW);
    world.run(1_000);
    assert!(world.machines[0].link("cni0").is_some());
}

#[test]
fn vxlan_takes_fifty_bytes_and_directrouting_the_short_way() {
    let vxlan = |direct: bool| {
        format!(
            r#"{{"Network": "10.244.0.0/16",
                "Backend": {{"Type": "vxlan", "DirectRouting": {direct}}}}}"#
        )
    };
    let world = settled(2, &vxlan(false));
    let machine = &world.machines[0];
    assert_eq!(machine.link("cni0").unwrap().mtu, 1450);
    let route = &machine.routes[&net("10.244.1.0/24")];
    assert_eq!((&*route.dev, route.via), ("kubesim.1", Some([10, 244, 1, 0].into())));
    assert!(machine.neighbours.iter().any(|n| n.ip == std::net::Ipv4Addr::from([10, 244, 1, 0])));
    let world = settled(2, &vxlan(true));
    assert_eq!(world.machines[0].routes[&net("10.244.1.0/24")].dev, "eth0");
}

#[test]
fn a_forged_statement_is_dropped() {
    let mut world = settled(2, HOST_GW);
    let key = ed25519_dalek::SigningKey::from_bytes(&[99; 32]);
    let statement = peer::Statement {
        node: "n1".into(),
        locator: [10, 66, 6, 6].into(),
        prefix_length: 24,
        generation: 99,
        vtep_mac: Default::default(),
        ask: peer::Ask::Back,
        heard: 0,
    };
    let local = std::net::SocketAddrV4::new(home(0).addr(), 7946);
    let from = std::net::SocketAddrV4::new([10, 66, 6, 6].into(), 7946);
    let body = packets::Body::Peer(Arc::new(statement.sign(&key)));
    let before = world.machines[0].routes.clone();
    let datagrams = world.datagrams;
    world.step_event(0, Event::Packets(packets::Reply::Datagram { local, from, body }));
    world.run(1_000);
    assert_eq!(world.machines[0].routes, before);
    assert_eq!(world.datagrams, datagrams, "and not answered");
    assert!(noted(&world, 0, "not signed by n1"));
}

#[test]
fn a_foreign_drop_before_ours_is_named_and_passed() {
    let mut world = settled(1, HOST_GW);
    let source = rules::Match::InInterface { name: "cni0".into(), not: false };
    let drop = rules::Rule { matches: vec![source], target: rules::Target::Drop };
    world.machines[0].forward.insert(0, drop.clone());
    world.machines[0].policy_drop = true;
    world.run(11_000);
    assert!(noted(&world, 0, "-A FORWARD -i cni0 -j DROP"));
    assert_eq!(world.machines[0].forward[1], drop);
    assert!(noted(&world, 0, "the policy of filter FORWARD is DROP"));
    world.machines[0].forward.clear();
    world.run(6_000);
    assert!(noted(&world, 0, "rules were missing and are set again: KUBESIM-FORWARD"));
    assert_eq!(world.machines[0].forward.len(), 1);
}

#[test]
fn a_quiet_cluster_writes_nothing() {
    let mut world = settled(3, HOST_GW);
    world.run(60_000);
    let counts = |world: &World| -> Vec<_> {
        world.machines.iter().map(|m| (m.effects["api write"], m.effects["write"])).collect()
    };
    let before = (counts(&world), world.datagrams);
    world.run(600_000);
    assert_eq!(before, (counts(&world), world.datagrams));
}

#[test]
fn of_two_machines_with_one_name_the_second_is_told_so() {
    let mut world = settled(1, HOST_GW);
    world.crash(0);
    world.machines[0].config.key_seed = [77; 32];
    world.machines[0].files.remove(MEMORY);
    world.move_to(0, Some(net("192.168.1.99/24")));
    world.start(0);
    world.run(5_000);
    assert!(noted(&world, 0, "two machines have one name"));
    assert_eq!(world.machines[0].effects["api write"], 1);
}

#[test]
fn a_machine_that_lost_its_disk_takes_its_own_subnet_over() {
    let mut world = settled(2, HOST_GW);
    world.crash(1);
    world.machines[1].config.key_seed = [77; 32];
    world.machines[1].files.remove(MEMORY);
    world.start(1);
    world.run(3_000);
    let (spec, _) = world.view.get(&Key::cluster("n1")).unwrap().subnet().unwrap();
    assert_eq!(spec.public_key, peer::key_text(&ed25519_dalek::SigningKey::from_bytes(&[77; 32])));
    assert!(noted(&world, 1, "taking over subnet 10.244.1.0/24: its machine is gone"));
    world.move_to(1, cafe());
    world.run(1_000);
    assert_eq!(world.machines[0].routes[&net("10.244.1.0/24")].dev, "kubesim.1");
}

#[test]
fn a_peer_is_looked_for_where_it_once_was() {
    let mut world = settled(2, HOST_GW);
    world.cut(0, true);
    world.cut(1, true);
    world.move_to(1, cafe());
    world.run(2_000);
    world.move_to(1, Some(net("10.40.0.4/24")));
    world.run(2_000);
    // n1 goes back while n0 is between two networks: neither hears the other move, and the API
    // showed n1 at home only.
    world.move_to(0, None);
    world.move_to(1, cafe());
    world.run(10_000);
    world.move_to(0, Some(net("10.30.0.3/24")));
    world.run(7_000);
    let leads_to = |index: usize, ip| world.machines[index].fdb.iter().any(|e| e.remote == ip);
    assert!(leads_to(0, cafe().unwrap().addr()));
    assert!(leads_to(1, [10, 30, 0, 3].into()));
}

#[test]
fn without_a_word_from_the_api_its_server_is_asked_where_it_is() {
    let mut world = settled(3, HOST_GW);
    world.run(40_000);
    world.crash(1);
    world.cut(1, true);
    world.move_to(0, cafe());
    world.run(70_000);
    // The server tells nobody any more; its old address reaches it still.
    world.crash(0);
    world.start(0);
    world.machines[0].state.links[0].addresses.push(home(0));
    world.run(3_000);
    world.start(1);
    world.run(15_000);
    assert_eq!(world.machines[1].dialled[0], cafe().unwrap().addr());
}

#[test]
fn a_late_answer_about_an_earlier_move_is_no_answer_to_this_one() {
    let mut world = settled(2, HOST_GW);
    world.cut(0, true);
    world.crash(1);
    world.move_to(0, cafe());
    let answer = |heard| {
        let statement = peer::Statement {
            node: "n1".into(),
            locator: home(1).addr(),
            prefix_length: 24,
            generation: 1,
            vtep_mac: Default::default(),
            ask: peer::Ask::Nothing,
            heard,
        };
        let key = ed25519_dalek::SigningKey::from_bytes(&[2; 32]);
        let (local, from) = (cafe().unwrap().addr(), home(1).addr());
        let [local, from] = [local, from].map(|ip| std::net::SocketAddrV4::new(ip, peer::PORT));
        let body = packets::Body::Peer(Arc::new(statement.sign(&key)));
        Event::Packets(packets::Reply::Datagram { local, from, body })
    };
    world.run(1_000);
    world.step_event(0, answer(1));
    let sent = world.datagrams;
    world.run(12_000);
    assert!(world.datagrams > sent);
    world.step_event(0, answer(2));
    let sent = world.datagrams;
    world.run(12_000);
    assert_eq!(world.datagrams, sent);
    world.step_event(0, answer(9));
    world.run(1_000);
    assert!(noted(&world, 0, "generation 10: a peer has heard of 9"));
}

#[test]
fn with_wireguard_a_move_is_another_endpoint_and_nothing_else() {
    let conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "wireguard"}}"#;
    let mut world = settled(3, conf);
    let endpoint_of = |world: &World, index: usize, subnet: &str| {
        let peers = &world.machines[index].wireguard;
        peers.iter().find(|peer| peer.allowed == net(subnet)).map(|peer| peer.endpoint)
    };
    let at = |net: ipnet::Ipv4Net| Some(std::net::SocketAddrV4::new(net.addr(), 51_820));
    for (index, machine) in world.machines.iter().enumerate() {
        let device = machine.link("flannel-wg").unwrap();
        assert_eq!((device.mtu, machine.link("cni0").unwrap().mtu), (1420, 1420));
        assert_eq!(device.addresses, [net(&format!("10.244.{index}.0/32"))]);
        let direct = |route: &crate::ports::network::Route| route.via.is_none();
        assert!(machine.routes.values().all(|route| route.dev == "flannel-wg" && direct(route)));
        assert_eq!((machine.routes.len(), machine.wireguard.len()), (2, 3));
        assert!(machine.link("kubesim.1").is_none());
    }
    assert_eq!(endpoint_of(&world, 1, "10.244.0.0/24"), at(home(0)));
    // The API goes with the machine that moves.
    world.cut(1, true);
    world.cut(2, true);
    world.move_to(0, None);
    world.run(2_000);
    let routes = [1, 2].map(|index| world.machines[index].routes.clone());
    world.move_to(0, cafe());
    world.run(600);
    for index in [1, 2] {
        assert_eq!(endpoint_of(&world, index, "10.244.0.0/24"), at(cafe().unwrap()));
        assert_eq!(endpoint_of(&world, index, "10.244.2.0/24"), at(home(2)));
        assert_eq!(world.machines[index].routes, routes[index - 1], "no route has changed");
    }
}

#[test]
fn another_backend_takes_the_former_ones_device_away() {
    let conf =
        |kind: &str| format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "{kind}"}}}}"#);
    let mut world = settled(2, &conf("vxlan"));
    for (kind, there, gone) in
        [("wireguard", "flannel-wg", "kubesim.1"), ("vxlan", "kubesim.1", "flannel-wg")]
    {
        for index in [0, 1] {
            world.write(index, CONF, &conf(kind));
        }
        world.run(3_000);
        for machine in &world.machines {
            assert!(machine.link(there).is_some() && machine.link(gone).is_none());
            assert!(machine.routes.values().all(|route| route.dev == there));
            assert_eq!(machine.routes.len(), 1);
        }
    }
}
