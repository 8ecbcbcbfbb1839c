//! Permanent neighbours and forwarding databases.

use crate::world::{Asking, World, ip, is, mac, net};
use kubesim_actors::ports::network::{Errno, Vxlan};

fn tunnel(world: &mut impl World) {
    let spec = Vxlan {
        vni: 1,
        port: 8472,
        mac: mac(1),
        mtu: 1450,
        local: ip("192.168.0.5"),
        address: net("10.244.1.0/32"),
    };
    world.vxlan("kubesim.1", &spec).expect("a new device");
}

fn neighbours(world: &mut impl World, dev: &str) -> Vec<(String, u8)> {
    let line = |n: &kubesim_actors::ports::network::Neighbour| (n.ip.to_string(), n.mac.0[5]);
    world.neighbours(dev).iter().map(line).collect()
}

fn fdb(world: &mut impl World, dev: &str) -> Vec<(u8, String)> {
    let line = |e: &kubesim_actors::ports::network::FdbEntry| (e.mac.0[5], e.remote.to_string());
    world.fdb(dev).iter().map(line).collect()
}

fn owned<A: Copy, B: ToString>(entries: &[(A, B)]) -> Vec<(A, String)> {
    entries.iter().map(|(a, b)| (*a, b.to_string())).collect()
}

fn swapped(entries: &[(&str, u8)]) -> Vec<(String, u8)> {
    entries.iter().map(|(ip, mac)| ((*ip).to_owned(), *mac)).collect()
}

pub fn neighbours_become_exactly_these(world: &mut impl World) {
    tunnel(world);
    let first = [("10.244.2.0", 2), ("10.244.3.0", 3), ("10.244.4.0", 4)];
    world.set_neighbours("kubesim.1", &first).expect("a device");
    assert_eq!(neighbours(world, "kubesim.1"), swapped(&first));
    // One moved, one is gone, one is new; nothing but the order tells what came first.
    let then = [("10.244.5.0", 5), ("10.244.3.0", 33), ("10.244.2.0", 2)];
    world.set_neighbours("kubesim.1", &then).expect("a device");
    let sorted = [("10.244.2.0", 2), ("10.244.3.0", 33), ("10.244.5.0", 5)];
    assert_eq!(neighbours(world, "kubesim.1"), swapped(&sorted));
    assert_eq!(world.set_neighbours("nope", &then), Err(Errno::Enodev));
    // Each device has its own.
    world.bridge("cni0", "10.244.1.1/24", 1450).expect("a new bridge");
    world.set_neighbours("cni0", &first[..1]).expect("a device");
    assert_eq!(neighbours(world, "cni0"), swapped(&first[..1]));
    world.set_neighbours("kubesim.1", &[]).expect("a device");
    assert_eq!(neighbours(world, "kubesim.1"), []);
    assert_eq!(neighbours(world, "cni0"), swapped(&first[..1]));
}

pub fn neighbours_go_with_their_link(world: &mut impl World) {
    tunnel(world);
    let entries = [("10.244.2.0", 2), ("10.244.3.0", 3)];
    world.set_neighbours("kubesim.1", &entries).expect("a device");
    world.set_fdb("kubesim.1", &[(2, "192.168.0.6")]).expect("a device");
    world.set_up("kubesim.1", false);
    world.until("a device that is down", |state| is(state, "kubesim.1", |link| !link.up));
    assert_eq!(neighbours(world, "kubesim.1"), []);
    assert_eq!(fdb(world, "kubesim.1"), owned(&[(2, "192.168.0.6")]), "those stay");
    world.set_up("kubesim.1", true);
    world.set_neighbours("kubesim.1", &entries).expect("a device");
    assert_eq!(neighbours(world, "kubesim.1"), swapped(&entries));
    // With its last address as well (fib_disable_ip).
    world.del_address("kubesim.1", net("10.244.1.0/32")).expect("it is there");
    assert_eq!(neighbours(world, "kubesim.1"), []);
    world.add_address("kubesim.1", net("10.244.1.0/32")).expect("new");
    world.set_neighbours("kubesim.1", &entries).expect("a device");
    assert_eq!(neighbours(world, "kubesim.1"), swapped(&entries));
}

pub fn fdb_entries_become_exactly_these(world: &mut impl World) {
    tunnel(world);
    world.set_fdb("kubesim.1", &[(2, "192.168.0.6"), (3, "192.168.0.7")]).expect("a device");
    let then = [(4, "192.168.0.8"), (2, "192.168.0.16")];
    world.set_fdb("kubesim.1", &then).expect("a device");
    let sorted = [(2, "192.168.0.16"), (4, "192.168.0.8")];
    assert_eq!(fdb(world, "kubesim.1"), owned(&sorted));
    world.set_fdb("kubesim.1", &then).expect("the same again");
    assert_eq!(fdb(world, "kubesim.1"), owned(&sorted));
    assert_eq!(world.set_fdb("nope", &then), Err(Errno::Enodev));
    world.bridge("cni0", "10.244.1.1/24", 1450).expect("a new bridge");
    assert_eq!(world.set_fdb("cni0", &then), Err(Errno::Eopnotsupp));
    world.set_fdb("kubesim.1", &[]).expect("a device");
    assert_eq!(fdb(world, "kubesim.1"), []);
}

pub fn tables_are_adopted(world: &mut impl World) {
    tunnel(world);
    world.set_neighbours("kubesim.1", &[("10.244.2.0", 2), ("10.244.3.0", 3)]).expect("a device");
    world.set_fdb("kubesim.1", &[(2, "192.168.0.6"), (3, "192.168.0.7")]).expect("a device");
    world.restart();
    world.set_neighbours("kubesim.1", &[("10.244.3.0", 3)]).expect("a device");
    world.set_fdb("kubesim.1", &[(2, "192.168.0.6"), (4, "192.168.0.8")]).expect("a device");
    assert_eq!(neighbours(world, "kubesim.1"), swapped(&[("10.244.3.0", 3)]));
    assert_eq!(fdb(world, "kubesim.1"), owned(&[(2, "192.168.0.6"), (4, "192.168.0.8")]));
}
