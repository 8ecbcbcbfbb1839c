//! Who moved while nobody heard it, told machine by machine.

use super::world::*;

fn cafe() -> ipnet::Ipv4Net {
    net("10.20.0.7/24")
}

/// n0 is the server. Everybody has remembered everybody.
fn settled(count: usize) -> World {
    let mut world = World::new(count, HOST_GW);
    world.start_all();
    world.run(40_000);
    world
}

fn cut_off(world: &mut World, indexes: impl IntoIterator<Item = usize>) {
    indexes.into_iter().for_each(|index| world.cut(index, true));
}

/// Its locator was in the file when it started again, so it had nothing to say, once, and nobody
/// found the server any more.
#[test]
fn what_was_still_to_be_told_at_the_end_of_a_life_is_told_in_the_next() {
    let mut world = settled(3);
    cut_off(&mut world, [1, 2]);
    world.loss = 100;
    world.move_to(0, Some(cafe()));
    world.run(5_000);
    world.crash(0);
    world.start(0);
    world.run(1_000);
    world.loss = 0;
    world.run(6_000);
    for index in [1, 2] {
        assert_eq!(world.machines[index].dialled[0], cafe().addr());
        assert_eq!(world.machines[index].fdb[0].remote, cafe().addr());
    }
    // Once they have heard it, a new life has nothing to say.
    world.cut(1, false);
    world.cut(2, false);
    world.run(40_000);
    let sent = world.datagrams;
    world.crash(0);
    world.start(0);
    world.run(20_000);
    assert_eq!(world.datagrams, sent);
}

#[test]
fn a_life_that_began_with_nobody_to_tell_tells_whom_the_api_shows_it() {
    let mut world = settled(3);
    cut_off(&mut world, [0, 1, 2]);
    world.loss = 100;
    world.move_to(0, Some(cafe()));
    world.run(1_000);
    world.crash(0);
    let file = world.machines[0].files[MEMORY].to_string();
    let peers = file.find("\"complete\"").expect("what comes after what is its own");
    let alone = format!("{}\"complete\":false,\"peers\":[]}}", &file[..peers]);
    world.write(0, MEMORY, &alone);
    world.start(0);
    world.loss = 0;
    world.run(3_000);
    assert_ne!(world.machines[1].dialled[0], cafe().addr());
    world.cut(0, false);
    world.run(1_000);
    assert_eq!(world.machines[1].dialled[0], cafe().addr());
}

/// Each told the other where it had left, and both told a third one, which said nothing.
#[test]
fn two_that_moved_at_once_meet_again_by_way_of_a_third() {
    let mut world = settled(3);
    let elsewhere = net("10.30.0.3/24");
    cut_off(&mut world, [1]);
    world.move_to(0, Some(cafe()));
    world.move_to(1, Some(elsewhere));
    world.run(9_000);
    assert_ne!(world.machines[1].dialled[0], cafe().addr());
    world.run(10_000);
    assert_eq!(world.machines[1].dialled[0], cafe().addr());
    let leads_to = |index: usize, ip| world.machines[index].fdb.iter().any(|e| e.remote == ip);
    assert!(leads_to(0, elsewhere.addr()) && leads_to(1, cafe().addr()));
    let generations = |world: &World| {
        let status = |index| {
            let key = crate::objects::Key::cluster(format!("n{index}"));
            world.view.get(&key).unwrap().subnet().unwrap().1.generation
        };
        [status(0), status(1), status(2)]
    };
    world.cut(1, false);
    world.run(3_000);
    assert_eq!(generations(&world), [2, 2, 1], "who passes a question on gets no answer to it");
    let sent = world.datagrams;
    world.run(30_000);
    assert_eq!(world.datagrams, sent);
}

/// Started while the server was elsewhere, it did not know it by its key and heard nothing.
#[test]
fn who_knows_nobody_dials_where_a_server_says_it_is() {
    let mut world = settled(2);
    cut_off(&mut world, [1]);
    world.crash(1);
    world.machines[1].files.remove(MEMORY);
    world.move_to(0, Some(cafe()));
    world.run(20_000);
    let routes = world.machines[1].routes.clone();
    world.start(1);
    world.run(15_000);
    let dialled = &world.machines[1].dialled;
    assert_eq!(*dialled, [home(0).addr(), cafe().addr()]);
    assert_eq!(world.machines[1].routes, routes, "nothing else is done for who proves nothing");
}

#[test]
fn who_was_off_for_long_hears_where_the_server_went() {
    let mut world = settled(2);
    cut_off(&mut world, [1]);
    world.crash(1);
    world.move_to(0, Some(cafe()));
    world.run(100_000);
    let sent = world.datagrams;
    world.run(600_000);
    let told = world.datagrams - sent;
    assert!((9..=22).contains(&told), "{told} in ten minutes");
    world.start(1);
    world.run(65_000);
    assert_eq!(world.machines[1].dialled[0], cafe().addr());
    world.cut(1, false);
    world.run(5_000);
    let sent = world.datagrams;
    world.run(180_000);
    assert_eq!(world.datagrams, sent, "it has heard it");
}
