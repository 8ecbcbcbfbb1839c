//! Bridges, vxlan devices, and links that go.

use crate::world::{Asking, World, has, ip, is, link, mac, net};
use kubesim_actors::ports::network::{Errno, LinkKind, Request, State, Vxlan};

pub fn a_bridge_is_made_and_corrected(world: &mut impl World) {
    world.bridge("cni0", "10.244.1.1/24", 1450).expect("a new bridge");
    let state = world.until("a bridge", |state| has(state, "cni0"));
    let made = link(&state, "cni0").clone();
    assert_eq!((made.kind, made.mtu, made.up), (LinkKind::Bridge, 1450, true));
    assert_eq!((made.carrier, made.master.as_deref()), (true, None));
    assert_eq!(made.addresses, [net("10.244.1.1/24")]);

    world.bridge("cni0", "10.244.1.1/24", 1450).expect("the same again");
    assert_eq!(*world.settled(), *state, "nothing changed");

    world.add_address("cni0", net("10.9.0.1/16")).expect("new");
    world.add_address("cni0", net("10.244.1.7/24")).expect("new");
    world.set_up("cni0", false);
    world.bridge("cni0", "10.244.7.1/24", 1500).expect("corrected");
    let state = world.until("one address", |state| {
        is(state, "cni0", |link| link.addresses == [net("10.244.7.1/24")] && link.up)
    });
    assert_eq!((link(&state, "cni0").index, link(&state, "cni0").mtu), (made.index, 1500));

    // The wanted address is the secondary one of its subnet.
    world.add_address("cni0", net("10.244.7.2/24")).expect("new");
    world.bridge("cni0", "10.244.7.2/24", 1500).expect("corrected");
    world.until("the other address", |state| {
        is(state, "cni0", |link| link.addresses == [net("10.244.7.2/24")])
    });

    world.add_veth("eth0", "wire0");
    assert_eq!(world.bridge("eth0", "10.0.0.1/24", 1500), Err(Errno::Eexist));
    assert_eq!(world.bridge("cni0", "10.244.7.2/24", 60), Err(Errno::Einval), "RFC 791: 68");
    assert_eq!(world.bridge("a-name-of-16-byt", "10.0.0.1/24", 1500), Err(Errno::Erange));
}

pub fn a_bridge_keeps_its_mtu_and_its_mac_whatever_its_ports_have(world: &mut impl World) {
    for (bridge, mtu) in [("br0", 1500), ("br1", 1450)] {
        world.bridge(bridge, "10.244.1.1/24", mtu).expect("a new bridge");
        let state = world.until("a bridge", |state| has(state, bridge));
        let mac = link(&state, bridge).mac;
        for (port, peer, port_mtu) in [("p0", "q0", 1400), ("p1", "q1", 9000)] {
            world.add_veth(port, peer);
            world.set_mtu(port, port_mtu);
            world.set_master(port, Some(bridge));
            let state = world.until("a port", |state| {
                is(state, port, |link| link.master.as_deref() == Some(bridge) && link.carrier)
            });
            let found = link(&state, bridge);
            assert_eq!((found.mtu, found.mac), (mtu, mac), "with a port of {port_mtu}");
        }
        // One is down, the other's cable has no other end.
        for port in ["p0", "q1"] {
            world.set_up(port, false);
        }
        world.until("no carrier without a port that runs", |state| {
            is(state, bridge, |link| !link.carrier)
        });
        world.set_master("p0", None);
        world.until("one port less", |state| is(state, "p0", |link| link.master.is_none()));
        world.del_link("p0");
        world.del_link("p1");
        world.until("none left", |state| !has(state, "q0") && !has(state, "q1"));
        world.del_link(bridge);
    }
}

fn vxlan(local: &str) -> Vxlan {
    Vxlan {
        vni: 1,
        port: 8472,
        mac: mac(1),
        mtu: 1450,
        local: ip(local),
        address: net("10.244.1.0/32"),
    }
}

pub fn a_vxlan_device_is_made_and_corrected(world: &mut impl World) {
    let spec = vxlan("192.168.0.5");
    world.vxlan("kubesim.1", &spec).expect("a new device");
    let state = world.until("a device", |state| has(state, "kubesim.1"));
    let made = link(&state, "kubesim.1").clone();
    assert_eq!((made.kind, made.mtu, made.mac, made.up), (LinkKind::Vxlan, 1450, mac(1), true));
    assert_eq!((made.carrier, &made.addresses[..]), (true, &[net("10.244.1.0/32")][..]));
    world.set_neighbours("kubesim.1", &[("10.244.2.0", 2)]).expect("a device");
    world.set_fdb("kubesim.1", &[(2, "192.168.0.6")]).expect("a device");
    let tables = |world: &mut _| {
        (World::neighbours(world, "kubesim.1").len(), World::fdb(world, "kubesim.1").len())
    };

    world.vxlan("kubesim.1", &spec).expect("the same again");
    assert_eq!(*world.settled(), *state, "nothing changed");
    assert_eq!(tables(world), (1, 1));

    // The laptop moved: its outer source can change in place.
    world.vxlan("kubesim.1", &vxlan("10.20.0.7")).expect("corrected");
    assert_eq!(link(&world.settled(), "kubesim.1").index, made.index);
    assert_eq!(tables(world), (1, 1), "nothing is lost");

    // neigh_changeaddr: with its MAC a link loses its neighbours, permanent ones too.
    let other = Vxlan { mac: mac(9), mtu: 1400, ..vxlan("10.20.0.7") };
    world.vxlan("kubesim.1", &other).expect("corrected");
    let state =
        world.until("another MAC", |state| is(state, "kubesim.1", |link| link.mac == mac(9)));
    assert_eq!(
        (link(&state, "kubesim.1").index, link(&state, "kubesim.1").mtu),
        (made.index, 1400)
    );
    assert_eq!(tables(world), (0, 1));
    world.set_neighbours("kubesim.1", &[("10.244.2.0", 2)]).expect("the same as before");
    assert_eq!(tables(world), (1, 1));

    // Neither port nor VNI can: it is made anew.
    for other in [Vxlan { port: 4789, ..other.clone() }, Vxlan { vni: 7, ..other }] {
        let before = link(&world.settled(), "kubesim.1").index;
        world.vxlan("kubesim.1", &other).expect("made anew");
        let anew = |state: &State| is(state, "kubesim.1", |link| link.index != before);
        world.until("another device", anew);
        assert_eq!(tables(world), (0, 0));
        assert_eq!(world.vxlan("vx1", &other), Err(Errno::Eexist), "its port and VNI are taken");
    }
    world.bridge("cni0", "10.244.1.1/24", 1450).expect("a new bridge");
    assert_eq!(world.vxlan("cni0", &vxlan("10.20.0.7")), Err(Errno::Eexist));
}

pub fn links_are_deleted_by_name(world: &mut impl World) {
    let delete = |name: &str| Request::DeleteLink { name: name.into() };
    assert_eq!(world.done(delete("cni0")), Err(Errno::Enodev));
    assert_eq!(world.done(delete("lo")), Err(Errno::Eopnotsupp));
    world.bridge("cni0", "10.244.1.1/24", 1450).expect("a new bridge");
    world.add_veth("eth0", "cni0-port");
    world.set_master("cni0-port", Some("cni0"));
    world.until("a port", |state| is(state, "cni0-port", |link| link.master.is_some()));
    assert_eq!(world.done(delete("cni0")), Ok(()));
    world.until("no bridge", |state| {
        !has(state, "cni0") && is(state, "cni0-port", |link| link.master.is_none())
    });
    assert_eq!(world.done(delete("eth0")), Ok(()));
    world.until("neither end", |state| !has(state, "eth0") && !has(state, "cni0-port"));
}
