//! The network port's WireGuard devices on a kernel that has them, in a small virtual machine: two
//! machines (a network namespace each) with a driver of their own and a cable between them.

#![cfg(target_os = "linux")]

#[path = "port_wireguard/pair.rs"]
mod pair;
#[path = "port_wireguard/stories.rs"]
mod stories;
#[path = "vm/mod.rs"]
mod vm;

use std::time::Duration;

/// Each story in a machine of its own; one that ended well says so.
macro_rules! tell {
    ($($story:ident)*) => {
        $(#[test]
        fn $story() {
            if vm::inside() {
                stories::$story();
                println!("told");
                return;
            }
            let Some(vm) = vm::Vm::new(&["ip"]) else { return };
            let vm = vm.modules(&["wireguard", "veth", "bridge"]);
            let done = vm.run_this_test(stringify!($story), Duration::from_secs(120));
            assert!(done.succeeded() && done.output.contains("told"), "{done}");
            println!("{}booted, told and ended in {:?}", done.output, done.took);
        })*
    };
}

tell! {
    a_peer_moves_and_no_connection_breaks
    a_peer_that_speaks_is_followed_and_not_sent_back
    peers_become_exactly_these
    a_device_is_made_and_corrected
    many_peers_are_set_and_read_in_parts
}
