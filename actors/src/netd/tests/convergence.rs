//! Whatever happens, in the end every machine has the routes of a model that is plain set-builder
//! notation, and the API says where everybody is.

use super::world::*;
use crate::objects::Key;
use ipnet::Ipv4Net;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const NODES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Move(usize, Option<u8>),
    Crash(usize),
    Start(usize),
    /// Started, and a command of the life before lands after the new one's.
    StartLate(usize),
    Cut(usize, bool),
    Delete(usize),
    Return(usize),
    Loss(u64),
    Run(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let node = 0..NODES;
    prop_oneof![
        4 => (node.clone(), prop::option::weighted(0.8, 0u8..3)).prop_map(|(n, a)| Op::Move(n, a)),
        2 => node.clone().prop_map(Op::Crash),
        2 => node.clone().prop_map(Op::Start),
        1 => node.clone().prop_map(Op::StartLate),
        3 => (node.clone(), any::<bool>()).prop_map(|(n, cut)| Op::Cut(n, cut)),
        1 => node.clone().prop_map(Op::Delete),
        1 => node.prop_map(Op::Return),
        1 => prop_oneof![Just(0), Just(30), Just(80)].prop_map(Op::Loss),
        6 => (0u64..4_000).prop_map(Op::Run),
    ]
}

/// Address number `place` of a machine: at home, in the cafe, elsewhere at home.
fn address(index: usize, place: u8) -> Ipv4Net {
    let last = 10 + index as u8;
    match place {
        0 => home(index),
        1 => Ipv4Net::new([10, 20, 0, last].into(), 24).unwrap(),
        _ => Ipv4Net::new([192, 168, 1, 100 + last].into(), 24).unwrap(),
    }
}

fn act(world: &mut World, op: Op) {
    match op {
        Op::Move(index, place) => world.move_to(index, place.map(|place| address(index, place))),
        Op::Crash(index) => world.crash(index),
        Op::Start(index) => world.start(index),
        Op::StartLate(index) => {
            world.start(index);
            world.run(300);
            world.land_late(index);
        }
        Op::Cut(index, cut) => world.cut(index, cut),
        Op::Delete(index) => world.delete_node(index),
        Op::Return(index) => world.put_node(index, &format!("10.244.{index}.0/24")),
        Op::Loss(percent) => world.loss = percent,
        Op::Run(millis) => world.run(millis),
    }
}

/// Faults end: all nodes are there, up, with an address and the API.
fn heal(world: &mut World) {
    world.loss = 0;
    for index in 0..NODES {
        let machine = &world.machines[index];
        let homeless = machine.state.links[0].addresses.is_empty();
        let down = machine.netd.is_none();
        if world.nodes.get(&Key::cluster(format!("n{index}"))).is_none() {
            world.put_node(index, &format!("10.244.{index}.0/24"));
        }
        if homeless {
            world.move_to(index, Some(home(index)));
        }
        if down {
            world.start(index);
        }
        world.cut(index, false);
    }
    world.run(40_000);
}

/// What the model says a machine's table is: destination, gateway and device of each peer.
fn model(world: &World, me: usize) -> BTreeMap<Ipv4Net, (Ipv4Addr, &'static str)> {
    let at = |index: usize| world.machines[index].state.links[0].addresses[0];
    let peers = (0..NODES).filter(|peer| *peer != me);
    peers
        .map(|peer| {
            let subnet = net(&format!("10.244.{peer}.0/24"));
            match at(peer).trunc() == at(me).trunc() {
                true => (subnet, (at(peer).addr(), "eth0")),
                false => (subnet, (subnet.network(), "kubesim.1")),
            }
        })
        .collect()
}

fn check(world: &World) -> Result<(), TestCaseError> {
    for (me, machine) in world.machines.iter().enumerate() {
        let routes = machine.routes.values();
        let table: BTreeMap<_, _> =
            routes.map(|route| (route.to, (route.via.unwrap(), route.dev.as_str()))).collect();
        let wanted = model(world, me);
        prop_assert_eq!(&table, &wanted, "n{}", me);
        let mut tunnels = 0;
        for (peer, (via, dev)) in (0..NODES).filter(|peer| *peer != me).zip(wanted.values()) {
            if *dev != "kubesim.1" {
                continue;
            }
            tunnels += 1;
            let theirs = world.machines[peer].link("kubesim.1").map(|link| link.mac);
            let mac = machine.neighbours.iter().find(|n| n.ip == *via).map(|n| n.mac);
            prop_assert!(
                mac.is_some() && mac == theirs,
                "n{} to n{}: {:?} {:?}",
                me,
                peer,
                mac,
                theirs
            );
            let remote = machine.fdb.iter().find(|entry| Some(entry.mac) == mac);
            let at = world.machines[peer].state.links[0].addresses[0].addr();
            prop_assert_eq!(remote.map(|entry| entry.remote), Some(at));
        }
        prop_assert_eq!(machine.link("kubesim.1").is_some(), tunnels > 0, "n{}", me);
        prop_assert_eq!(
            &machine.link("cni0").unwrap().addresses,
            &[net(&format!("10.244.{me}.1/24"))]
        );
        let stored = world.view.get(&Key::cluster(format!("n{me}"))).unwrap();
        let locator = stored.subnet().unwrap().1.locator;
        prop_assert_eq!(locator, Some(machine.state.links[0].addresses[0].addr()));
        let server = world.machines[0].state.links[0].addresses[0].addr();
        let first = if me == 0 { Ipv4Addr::LOCALHOST } else { server };
        prop_assert_eq!(machine.dialled[0], first);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_history_converges_to_the_model(ops in prop::collection::vec(op(), 0..40)) {
        let mut world = World::new(NODES, HOST_GW);
        world.start_all();
        for op in ops {
            act(&mut world, op);
        }
        heal(&mut world);
        check(&world)?;
    }

}

proptest! {
    // Each case signs and verifies hundreds of statements.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// With the API gone for good, machines that move one after the other are found all the same.
    #[test]
    fn without_the_api_moves_are_told_directly(
        moves in prop::collection::vec((0..NODES, 0u8..3), 1..12),
        loss in prop_oneof![Just(0u64), Just(50)],
    ) {
        let mut world = World::new(NODES, HOST_GW);
        world.start_all();
        world.run(3_000);
        (0..NODES).for_each(|index| world.cut(index, true));
        world.loss = loss;
        for (index, place) in moves {
            world.move_to(index, Some(address(index, place)));
            world.run(6_000);
        }
        world.loss = 0;
        world.run(20_000);
        for me in 0..NODES {
            let routes = world.machines[me].routes.values();
            let table: BTreeMap<_, _> =
                routes.map(|route| (route.to, (route.via.unwrap(), route.dev.as_str()))).collect();
            prop_assert_eq!(table, model(&world, me), "n{}", me);
        }
    }
}

/// n0 boots, roams and comes home; whichever of its steps is its last before a restart, the end is
/// the same.
#[test]
fn a_crash_after_any_step_changes_nothing_in_the_end() {
    let story = |crash_at| {
        let mut world = World::new(NODES, HOST_GW);
        world.crash_at = crash_at;
        world.start_all();
        world.run(3_000);
        world.move_to(0, Some(address(0, 1)));
        world.run(3_000);
        world.cut(0, true);
        world.move_to(0, Some(address(0, 2)));
        world.run(3_000);
        world.cut(0, false);
        world.run(20_000);
        world
    };
    let steps = story(None).machines[0].steps;
    assert!(steps > 40, "{steps}");
    for step in 1..=steps {
        let mut world = story(Some((0, step)));
        heal(&mut world);
        check(&world).unwrap_or_else(|error| panic!("after step {step}: {error}"));
    }
}
