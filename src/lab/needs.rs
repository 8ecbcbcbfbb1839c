//! What the lab needs: of the machine, and of the scenario.

use kubesim_actors::proxy::Mode;
use kubesim_backends::http::is_others_label;
use kubesim_sim::scenario::{FaultKind, Loss, Scenario};
use std::fs;
use std::process::{Command, Stdio};
use std::thread;

/// What this machine lacks, in a sentence.
pub fn lacking() -> Option<String> {
    let unshared = thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET));
    if !unshared.join().is_ok_and(|done| done.is_ok()) {
        return Some(
            "the lab needs CAP_SYS_ADMIN, for network namespaces: run it as root".to_owned(),
        );
    }
    if fs::metadata("/dev/net/tun").is_err() {
        return Some("the lab needs /dev/net/tun, for the nodes' network cards".to_owned());
    }
    let missing = ["iptables-save", "iptables-restore"].into_iter().find(|p| !runs(p));
    missing.map(|program| format!("the lab needs the program `{program}` (Debian: iptables)"))
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What in the scenario the lab cannot play, in a sentence.
pub fn beyond(scenario: &Scenario) -> Option<String> {
    if scenario.cluster.proxy && scenario.cluster.proxy_mode == Mode::Ipvs {
        let lacking = thread::spawn(kubesim_backends::rules::ipvs::services).join();
        if let Ok(Err(why)) = lacking {
            let ways =
                "the simulator plays it without, and tests/vm.rs plays it on a kernel that has it";
            return Some(format!(
                "the lab cannot play cluster.proxy-mode = \"ipvs\" here: {why}; {ways}"
            ));
        }
    }
    for node in &scenario.nodes {
        if let Some(label) = node.labels.keys().find(|label| is_others_label(label)) {
            let (name, node) = (&scenario.name, &node.name);
            return Some(format!(
                "the lab cannot play {name}: node `{node}` has the label {label}, which a kubelet \
                 may not give its node"
            ));
        }
    }
    let disk = |kind: &FaultKind| matches!(kind, FaultKind::Kill { loss: Loss::Disk, .. });
    let fault = scenario.faults.iter().find(|fault| disk(&fault.kind))?;
    let (name, fault) = (&scenario.name, &fault.name);
    Some(format!("the lab cannot play {name}: in fault `{fault}` a disk is lost, and it has none"))
}
