//! What the node's kernel has, told to whoever judges.

use super::actors::Ports;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::Plan;
use kubesim_actors::ports::network::{Errno, LinkKind, WireguardPeer};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};
use kubesim_actors::proxy;
use kubesim_backends::network::admin::Admin;
use kubesim_backends::network::wireguard::{Device, Devices};
use kubesim_backends::rules::nftables::elements_of;
use kubesim_sim::world::external::Picture;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

/// How often links and routes are looked at.
const PERIOD: Duration = Duration::from_millis(20);
/// The rules, which cost a process, once in so many looks.
const RULES: u32 = 100;

/// Tells of every change.
pub fn keep(plan: &Rc<Plan>, ports: &Ports, mail: &Mail) -> Result<(), String> {
    let admin = Admin::open().map_err(|error| format!("a netlink socket: {error}"))?;
    let mut kernel = Kernel { admin, wireguard: Devices::default() };
    let (ports, mail, name) = (ports.clone(), mail.clone(), plan.name.clone());
    spawn_local(async move {
        let mut clock = interval(PERIOD);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut rules, mut refused) = (None, Rules::default(), None);
        for look in 0u32.. {
            clock.tick().await;
            if look % RULES == 0 {
                rules.saved = saved().await.unwrap_or(rules.saved);
                // Without nf_tables there are none.
                rules.elements = elements_of(proxy::OWNER).map_or(rules.elements, Arc::from);
            }
            match take(&ports, &mut kernel, &rules) {
                Ok(picture) if told.as_ref() != Some(&picture) => {
                    told = Some(picture.clone());
                    mail.send(News::Pictured(Box::new(picture)));
                }
                Err(errno) if refused != Some(errno) => {
                    refused = Some(errno);
                    let why = format!("looking at links and routes: {errno}");
                    mail.send(News::Remark(format!("lab@{name}"), why));
                }
                _ => {}
            }
        }
    });
    Ok(())
}

/// What is looked at more rarely.
#[derive(Clone, Default)]
struct Rules {
    saved: String,
    elements: Arc<[(FlatKey, FlatValue)]>,
}

/// Who is asked what the kernel has.
struct Kernel {
    admin: Admin,
    wireguard: Devices,
}

fn take(ports: &Ports, kernel: &mut Kernel, rules: &Rules) -> Result<Picture, Errno> {
    let Kernel { admin, wireguard } = kernel;
    let state = ports.drivers.network.state()?;
    let mut picture = Picture {
        routes: admin.routes()?,
        sandboxes: ports.drivers.containers.addresses(),
        rules: rules.saved.clone(),
        elements: Arc::clone(&rules.elements),
        ..Picture::default()
    };
    for link in state.links.iter().filter(|link| link.kind == LinkKind::Vxlan) {
        let named = |entry| (link.name.clone(), entry);
        picture.neighbours.extend(admin.neighbours(link.index)?.into_iter().map(named));
        let named = |entry| (link.name.clone(), entry);
        picture.fdb.extend(admin.fdb(link.index)?.into_iter().map(named));
    }
    for link in state.links.iter().filter(|link| link.kind == LinkKind::Wireguard) {
        let peers = peers(wireguard.read(link.index)?);
        picture.wireguard_peers.extend(peers.into_iter().map(|peer| (link.name.clone(), peer)));
    }
    picture.state = state;
    Ok(picture)
}

/// One for each network of a peer that packets can go to.
fn peers(device: Device) -> Vec<WireguardPeer> {
    let mut peers = Vec::new();
    for (public_key, standing) in device.peers {
        let Some(endpoint) = standing.endpoint else { continue };
        let allowed = standing.allowed.into_iter();
        peers.extend(allowed.map(|allowed| WireguardPeer { public_key, endpoint, allowed }));
    }
    peers
}

/// `iptables-save`, without its counters and remarks.
async fn saved() -> Option<String> {
    let done = Command::new("iptables-save").output().await.ok()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let kept = text.lines().filter(|line| !line.starts_with('#'));
    let bare = kept.map(|line| match line.split_once(" [") {
        Some((chain, _)) if line.starts_with(':') => chain,
        _ => line,
    });
    done.status.success().then(|| bare.collect::<Vec<_>>().join("\n"))
}
