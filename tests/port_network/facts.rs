//! Sysctls, and what about them surprised people.

use crate::world::{Asking, World, has, is};
use kubesim_actors::ports::network::Errno;

fn forwarding(name: &str) -> String {
    format!("net.ipv4.conf.{name}.forwarding")
}

/// devinet_sysctl_forward acts on a change only. So "it's not enough to set `all`".
pub fn forwarding_is_carried_to_links_only_when_all_changes(world: &mut impl World) {
    world.add_veth("eth0", "wire0");
    world.until("no forwarding", |state| {
        !state.ip_forward && is(state, "eth0", |link| !link.forwarding)
    });
    world.set_sysctl("net.ipv4.ip_forward", "1").expect("known");
    world.until("forwarding everywhere", |state| {
        let all = state.links.iter().all(|link| link.forwarding);
        state.ip_forward && all && state.links.len() == 3
    });
    assert_eq!(world.sysctl(&forwarding("all")).as_deref(), Some("1"));
    assert_eq!(world.sysctl(&forwarding("default")).as_deref(), Some("1"));
    // Somebody resets one interface.
    world.write_sysctl(&forwarding("eth0"), "0");
    world.until("not by eth0", |state| is(state, "eth0", |link| !link.forwarding));
    world.set_sysctl("net.ipv4.ip_forward", "1").expect("known");
    world.set_sysctl(&forwarding("all"), "1").expect("known");
    let state = world.settled();
    assert!(is(&state, "eth0", |link| !link.forwarding), "1 over 1 carries nothing");
    assert_eq!(world.sysctl(&forwarding("eth0")).as_deref(), Some("0"));
    // Its own key does, and so does all of it from 0 to 1.
    world.set_sysctl(&forwarding("eth0"), "1").expect("known");
    world.until("by eth0", |state| is(state, "eth0", |link| link.forwarding));
    world.write_sysctl(&forwarding("eth0"), "0");
    world.set_sysctl(&forwarding("all"), "0").expect("known");
    world.until("nowhere", |state| !state.ip_forward);
    world.set_sysctl(&forwarding("all"), "1").expect("known");
    world.until("by eth0 again", |state| is(state, "eth0", |link| link.forwarding));
    // New links have the default's.
    world.set_sysctl(&forwarding("default"), "0").expect("known");
    world.bridge("cni0", "10.244.1.1/24", 1500).expect("a new bridge");
    let state = world.until("a bridge", |state| has(state, "cni0"));
    assert!(is(&state, "cni0", |link| !link.forwarding) && state.ip_forward);
}

pub fn sysctls_are_read_and_written(world: &mut impl World) {
    world.bridge("br.7", "10.244.1.1/24", 1500).expect("a name with a dot");
    let key = "net.ipv4.conf.br.7.rp_filter";
    world.set_sysctl(key, "2").expect("known");
    assert_eq!(world.sysctl(key).as_deref(), Some("2"));
    world.set_sysctl(&forwarding("br.7"), "1").expect("known");
    world.until("forwarding", |state| is(state, "br.7", |link| link.forwarding));
    assert_eq!(world.set_sysctl(&forwarding("nope"), "1"), Err(Errno::Enodev));
    assert_eq!(world.set_sysctl("net.ipv4.ipforward", "1"), Err(Errno::Enodev));
    assert_eq!(world.sysctl("net.ipv4.ipforward"), None);
    assert_eq!(world.sysctl(&forwarding("nope")), None);
    assert_eq!(world.set_sysctl("net.ipv4.ip_forward", "yes"), Err(Errno::Einval));
    assert_eq!(world.sysctl("net.ipv4.ip_forward").as_deref(), Some("0"));
}

pub fn bridged_packets_walk_iptables_when_told(world: &mut impl World) {
    let key = "net.bridge.bridge-nf-call-iptables";
    world.until("not at first", |state| !state.bridge_nf);
    world.set_sysctl(key, "1").expect("known");
    world.until("it is told, though no netlink speaks of it", |state| state.bridge_nf);
    world.write_sysctl(key, "0");
    world.until("of others as well", |state| !state.bridge_nf);
    assert_eq!(world.sysctl(key).as_deref(), Some("0"));
}
