//! What the lab needs: of the machine, and of the scenario.

use crate::capabilities;
use kubesim_actors::objects::Kind;
use kubesim_actors::proxy::Mode;
use kubesim_backends::http::is_others_label;
use kubesim_backends::network::admin::Admin;
use kubesim_sim::scenario::{Backend, FaultKind, Loss, Scenario};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// What this machine lacks, in a sentence.
pub fn lacking() -> Option<String> {
    if let Some(names) = capabilities::lacking() {
        let why = "for network namespaces and what is in them";
        return Some(format!("the lab needs {names}, {why}: run it as root"));
    }
    if let Err(why) = in_a_namespace(|| Ok(())) {
        return Some(format!("the lab needs network namespaces, which this kernel refuses: {why}"));
    }
    if fs::metadata("/dev/net/tun").is_err() {
        return Some("the lab needs /dev/net/tun, for the nodes' network cards".to_owned());
    }
    let missing = ["iptables-save", "iptables-restore"].into_iter().find(|p| !runs(p));
    missing.map(|program| format!("the lab needs the program `{program}` (Debian: iptables)"))
}

/// What comes of it in a network namespace that is gone afterwards.
pub fn in_a_namespace<T: Send + 'static>(
    body: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| errno.to_string())?;
        body()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether the kernel makes devices of WireGuard's kind, which loads its module where there is one.
fn wireguard() -> Result<(), String> {
    let mut admin = Admin::open().map_err(|error| format!("a netlink socket: {error}"))?;
    let made = admin.add_wireguard("wg0");
    made.map_err(|errno| format!("this kernel has no devices of WireGuard's kind ({errno})"))
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Each is a thread with a namespace, and its components are processes of one machine.
const MOST_MACHINES: usize = 64;
/// Of a TAP: 65,535 bytes with a head of Ethernet's (`tun_net_initialize`, drivers/net/tun.c).
const LARGEST_MTU: u32 = 65_535 - 14;
/// Time is real here.
const LONGEST: Duration = Duration::from_secs(60);

/// What in the scenario the lab cannot play, in a sentence. With `until` somebody has said how much
/// of it there is to be.
pub fn beyond(scenario: &Scenario, until: Option<Duration>) -> Option<String> {
    let name = &scenario.name;
    let machines = scenario.nodes.len() + scenario.clients.len();
    if machines > MOST_MACHINES {
        return Some(format!(
            "the lab cannot play {name}: it has {machines} machines, and more than {MOST_MACHINES} \
             are too many for one kernel in real time; the simulator plays them, or fewer here \
             (--set node.NAME.count=N)"
        ));
    }
    if let Some(network) = scenario.networks.iter().find(|network| network.mtu > LARGEST_MTU) {
        let (network, mtu) = (&network.name, network.mtu);
        return Some(format!(
            "the lab cannot play {name}: network `{network}` has mtu = {mtu}, and a node's network \
             card here, a TAP, takes at most {LARGEST_MTU}; the simulator plays it, or give less"
        ));
    }
    let mut objects = scenario.workloads.iter().flat_map(|workload| &workload.objects);
    if objects.any(|given| given.object.kind() == Kind::HorizontalPodAutoscaler) {
        return Some(format!(
            "the lab cannot play {name}: its autoscaler asks what pods use, which nobody measures \
             there; the simulator does"
        ));
    }
    if scenario.duration > LONGEST && until.is_none() {
        let (lasts, most) = (scenario.duration.as_secs_f64(), LONGEST.as_secs());
        return Some(format!(
            "the lab takes as long as the scenario, and {name} lasts {lasts} s: say what shrinks \
             to {most} s in its [lab.set], or how much of it to play (--until)"
        ));
    }
    if scenario.cluster.proxy && scenario.cluster.proxy_mode == Mode::Ipvs {
        let lacking = thread::spawn(kubesim_backends::rules::ipvs::services).join();
        if let Ok(Err(why)) = lacking {
            return Some(elsewhere("cluster.proxy-mode = \"ipvs\"", &why));
        }
    }
    if scenario.cluster.backend == Backend::Wireguard
        && let Err(why) = in_a_namespace(wireguard)
    {
        return Some(elsewhere("cluster.backend = \"wireguard\"", &why));
    }
    for node in &scenario.nodes {
        if let Some(label) = node.labels.keys().find(|label| is_others_label(label)) {
            let node = &node.name;
            return Some(format!(
                "the lab cannot play {name}: node `{node}` has the label {label}, which a kubelet \
                 may not give its node"
            ));
        }
    }
    let disk = |kind: &FaultKind| matches!(kind, FaultKind::Kill { loss: Loss::Disk, .. });
    let fault = scenario.faults.iter().find(|fault| disk(&fault.kind))?;
    let fault = &fault.name;
    Some(format!("the lab cannot play {name}: in fault `{fault}` a disk is lost, and it has none"))
}

/// What only this kernel lacks.
fn elsewhere(what: &str, why: &str) -> String {
    let ways = "the simulator plays it without, and tests/vm.rs plays it on a kernel that has it";
    format!("the lab cannot play {what} here: {why}; {ways}")
}
