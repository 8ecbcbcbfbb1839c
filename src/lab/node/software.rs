//! Foreign programs that change a node's network once when they start, as the real ones do: docker
//! and ufw. What they change is what the simulator's do (`sim/src/world/programs/software.rs`).

use crate::lab::machine::write;
use crate::lab::mail::{Mail, News};
use kubesim_backends::network::admin::Admin;
use kubesim_sim::scenario::{Software, SoftwareKind};
use kubesim_sim::world::software::{
    DOCKER_BRIDGE, DOCKER_NETWORK, DOCKER_RULES, DROP, RUNS, UFW_CHAIN, UFW_RULES, docker_drops,
};
use tokio::process::Command;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

pub async fn start(
    software: &Software,
    admin: &mut Admin,
    node: &str,
    mail: &Mail,
) -> Result<(), String> {
    if runs(software.kind, admin).await {
        return Err(RUNS.to_owned());
    }
    match software.kind {
        SoftwareKind::Docker { major, minor } => docker(admin, (major, minor), node, mail).await,
        SoftwareKind::Ufw => {
            commands(&UFW_RULES).await?;
            let text = "started: FORWARD policy set to DROP".to_owned();
            mail.send(News::Remark(format!("ufw@{node}"), text));
            Ok(())
        }
        // It is the DHCP client's way of writing resolv.conf.
        SoftwareKind::NetworkManager => Ok(()),
    }
}

/// Whether what the program makes when it starts is there.
async fn runs(software: SoftwareKind, admin: &mut Admin) -> bool {
    match software {
        SoftwareKind::Docker { .. } => admin.link(DOCKER_BRIDGE).is_ok(),
        SoftwareKind::Ufw => iptables(&format!("-S {UFW_CHAIN}")).await.is_ok(),
        SoftwareKind::NetworkManager => false,
    }
}

async fn docker(
    admin: &mut Admin,
    version: (u32, u32),
    node: &str,
    mail: &Mail,
) -> Result<(), String> {
    let refused = |errno| format!("docker: {DOCKER_BRIDGE}: {errno}");
    admin.add_bridge(DOCKER_BRIDGE).map_err(refused)?;
    let bridge = admin.link(DOCKER_BRIDGE).map_err(refused)?;
    admin.add_address(bridge, DOCKER_NETWORK).map_err(refused)?;
    let was_on = std::fs::read_to_string(FORWARD).is_ok_and(|value| value.trim() == "1");
    if !was_on {
        write(FORWARD, "1")?;
    }
    commands(&DOCKER_RULES).await?;
    let drops = docker_drops(!was_on, version);
    if drops {
        commands(&[DROP]).await?;
    }
    let (major, minor) = version;
    let did = if was_on { "found ip_forward on" } else { "turned ip_forward on" };
    let policy = if drops { "FORWARD policy set to DROP" } else { "FORWARD policy left alone" };
    let text = format!("{major}.{minor} started: docker0 is up, {did}, {policy}");
    mail.send(News::Remark(format!("docker@{node}"), text));
    Ok(())
}

async fn commands(commands: &[&str]) -> Result<(), String> {
    for command in commands {
        iptables(command).await.map_err(|said| format!("iptables {command}: {said}"))?;
    }
    Ok(())
}

/// One command of iptables in its own words; the error is what it says against it.
pub async fn iptables(command: &str) -> Result<(), String> {
    let done = Command::new("iptables").arg("-w").args(command.split_whitespace()).output().await;
    let done = done.map_err(|error| format!("running iptables (Debian: iptables): {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
}
