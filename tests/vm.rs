//! What needs another kernel than this machine's, in a small virtual machine: see `vm/mod.rs`.

#![cfg(target_os = "linux")]

#[path = "vm/mod.rs"]
mod vm;

use std::time::Duration;
use vm::{Outcome, Vm};

/// The harness itself: a command's words and status come back, and modules are there.
#[test]
fn a_machine_boots_and_says_how_its_command_ended() {
    let Some(vm) = Vm::new(&["ip"]) else { return };
    let modules = ["ip_vs_rr", "sch_netem", "wireguard", "dummy", "ipip"];
    let command = "grep -c . /proc/modules; grep -E '^(wireguard|sch_netem|ip_vs_rr) ' /proc/modules | \
                   cut -d' ' -f1 | sort; ip link add wg0 type wireguard && ip -o link show wg0 | \
                   cut -d: -f2; echo to stderr >&2; exit 7";
    let done = vm.modules(&modules).run(command, Duration::from_secs(60));
    assert_eq!(done.status, Some(7), "{done}");
    let words: Vec<_> = done.output.lines().skip(1).map(str::trim).collect();
    assert_eq!(words, ["ip_vs_rr", "sch_netem", "wireguard", "wg0", "to stderr"], "{done}");
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
    let Some(vm) = Vm::new(&[]) else { return };
    let done = vm.run_this_test("a_test_can_run_inside", Duration::from_secs(60));
    assert!(done.succeeded() && done.output.contains("inside"), "{done}");
}

#[test]
fn a_machine_that_takes_too_long_is_ended() {
    let Some(vm) = Vm::new(&[]) else { return };
    let done = vm.run("echo begun; sleep 600", Duration::from_secs(20));
    assert_eq!(done.status, None, "{done}");
    assert!(done.output.contains("begun"), "{done}");
}

/// The whole lab on a kernel that has IPVS: the proxy's own actor, the driver, pods, an outside
/// client; what an operator could see is the same in the simulator. Once more if the machine was
/// too busy for real time: it says so, or had not even its pods in half a minute.
#[test]
fn a_scenario_agrees_in_ipvs_mode() {
    agrees("");
}

/// And with netd's WireGuard backend on a kernel that has WireGuard.
#[test]
fn a_scenario_agrees_with_wireguard() {
    agrees("--set cluster.backend=wireguard");
}

fn agrees(options: &str) {
    for _ in 0..3 {
        let Some(vm) = Vm::new(&["iptables", "ip", "bridge"]) else { return };
        let done = parity(vm, options);
        let stood_still = done.status == Some(3) && done.output.contains("stood still");
        let no_pods =
            |line: &str| line.starts_with("! all pods are ready") && line.contains("sim 3 ready");
        let too_slow = stood_still || done.output.lines().any(no_pods);
        assert!(done.succeeded() || too_slow, "{done}");
        if done.succeeded() {
            println!("{}booted, compared and ended in {:?}", done.output, done.took);
            return;
        }
        println!("{done}");
    }
    panic!("the machine is too busy for a run in real time");
}

fn parity(vm: Vm, options: &str) -> Outcome {
    let modules = ["ip_vs_rr", "dummy", "veth", "tun", "bridge", "br_netfilter", "wireguard"];
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/services.toml");
    vm.modules(&modules).program_as(env!("CARGO_BIN_EXE_kubesim"), "/kubesim").tree(scenario).run(
        &format!("/kubesim parity {scenario} --before 15s {options}"),
        Duration::from_secs(120),
    )
}
