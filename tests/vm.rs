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
        let Some(vm) = Vm::new(&PROGRAMS) else { return };
        let done = parity(vm, &format!("{} {options}", compare()), ROOM);
        assert!(done.succeeded() || too_slow(&done), "{done}");
        if done.succeeded() {
            println!("{}booted, compared and ended in {:?}", done.output, done.took);
            return;
        }
        println!("{done}");
    }
    panic!("the machine is too busy for a run in real time");
}

/// What the model has no word for is seen as well, of kinds that this machine's kernel may lack.
#[test]
fn what_is_done_to_services_and_tunnels_is_seen() {
    for _ in 0..3 {
        let Some(vm) = Vm::new(&PROGRAMS) else { return };
        let done = parity(vm, &tamper(), ROOM);
        if too_slow(&done) {
            println!("{done}");
            continue;
        }
        assert_eq!(done.status, Some(1), "{done}");
        for line in ["-A -t 1.2.3.4:80 -s rr -p 60", "evil: key none, port 0"] {
            let line = format!("lab only: {line}");
            assert!(done.output.lines().any(|said| said.trim() == line), "{line}: {done}");
        }
        return;
    }
    panic!("the machine is too busy for a run in real time");
}

const PROGRAMS: [&str; 5] = ["iptables", "ip", "bridge", "ipvsadm", "nsenter"];
const SCENARIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/services.toml");
const ROOM: Duration = Duration::from_secs(240);

fn compare() -> String {
    format!("/kubesim parity {SCENARIO} --before 15s")
}

/// The same, while somebody adds things to the second node, shortly before it is looked at.
fn tamper() -> String {
    let both = "ipvsadm -A -t 1.2.3.4:80 -s rr -p 60; ip link add evil type wireguard";
    format!(
        "{} --set cluster.backend=wireguard & run=$!; node=; while [ -z \"$node\" ]; do sleep 0.2; \
         node=$(grep -lx lab-two /proc/$run/task/*/comm); done; sleep 40; \
         nsenter --net=${{node%comm}}ns/net sh -c '{both}'; wait $run",
        compare()
    )
}

/// It says so, or had not even its pods in half a minute.
fn too_slow(done: &Outcome) -> bool {
    let stood_still = done.status == Some(3) && done.output.contains("worth nothing");
    let no_pods =
        |line: &str| line.starts_with("! all pods are ready") && line.contains("sim 3 ready");
    stood_still || done.output.lines().any(no_pods)
}

fn parity(vm: Vm, command: &str, room: Duration) -> Outcome {
    let modules = ["ip_vs_rr", "dummy", "veth", "tun", "bridge", "br_netfilter", "wireguard"];
    let kubesim = env!("CARGO_BIN_EXE_kubesim");
    vm.modules(&modules).program_as(kubesim, "/kubesim").tree(SCENARIO).run(command, room)
}
