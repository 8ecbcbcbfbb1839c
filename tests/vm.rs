//! What needs another kernel than this machine's, in a small virtual machine: see `vm/mod.rs`.

#![cfg(target_os = "linux")]

#[path = "vm/mod.rs"]
mod vm;

use std::time::Duration;
use vm::Vm;

/// The harness itself: a command's words and status come back, and modules are there.
#[test]
fn a_machine_boots_and_says_how_its_command_ended() {
    let Some(vm) = Vm::new() else { return };
    let modules = ["ip_vs_rr", "sch_netem", "wireguard", "dummy", "ipip"];
    let command = "grep -c . /proc/modules; grep -E '^(wireguard|sch_netem|ip_vs_rr) ' /proc/modules | \
                   cut -d' ' -f1 | sort; echo to stderr >&2; exit 7";
    let done = vm.modules(&modules).run(command, Duration::from_secs(60));
    assert_eq!(done.status, Some(7), "{done}");
    let words: Vec<_> = done.output.lines().skip(1).map(str::trim).collect();
    assert_eq!(words, ["ip_vs_rr", "sch_netem", "wireguard", "to stderr"], "{done}");
    println!("booted, ran and ended in {:?}", done.took);
}

/// What a test finds that runs inside.
#[test]
fn a_test_can_run_inside() {
    if vm::inside() {
        let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
        assert!(version.contains("cloud-amd64"), "{version}");
        println!("inside");
        return;
    }
    let Some(vm) = Vm::new() else { return };
    let done = vm.run_this_test("a_test_can_run_inside", Duration::from_secs(60));
    assert!(done.succeeded() && done.output.contains("inside"), "{done}");
}

#[test]
fn a_machine_that_takes_too_long_is_ended() {
    let Some(vm) = Vm::new() else { return };
    let done = vm.run("echo begun; sleep 600", Duration::from_secs(12));
    assert_eq!(done.status, None, "{done}");
    assert!(done.output.contains("begun"), "{done}");
}

/// The whole lab on a kernel that has IPVS: the proxy's own actor, the driver, pods.
#[test]
fn a_scenario_plays_in_ipvs_mode() {
    let Some(vm) = Vm::new() else { return };
    let modules = ["ip_vs_rr", "dummy", "veth", "tun", "bridge", "br_netfilter", "vxlan"];
    let scenarios = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let command = format!(
        "/kubesim run {scenarios}/guestbook.toml --world lab --set cluster.proxy-mode=ipvs"
    );
    let done = vm
        .modules(&modules)
        .iptables()
        .program("/usr/sbin/ip")
        .program_as(env!("CARGO_BIN_EXE_kubesim"), "/kubesim")
        .tree(scenarios)
        .run(&command, Duration::from_secs(120));
    assert!(done.succeeded(), "{done}");
    println!("{}", done.took.as_secs());
}
