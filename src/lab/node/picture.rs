//! What the node's kernel has, told to whoever judges.

use super::actors::Ports;
use super::below;
use crate::lab::mail::{Mail, News};
use crate::lab::plan::Plan;
use kubesim_actors::objects::Name;
use kubesim_actors::ports::network::{Errno, LinkKind, WireguardPeer};
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};
use kubesim_actors::proxy;
use kubesim_backends::network::admin::Admin;
use kubesim_backends::network::sysctl;
use kubesim_backends::network::wireguard::{Device, Devices};
use kubesim_backends::rules::nftables::{elements_of, generation};
use kubesim_runtime::Time;
use kubesim_sim::world::external::Picture;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

/// How often links and routes are looked at.
const PERIOD: Duration = Duration::from_millis(20);
/// The rules, which cost a process, once in so many looks even if nf_tables says that none has
/// changed: those of iptables-legacy are not its own.
const RULES: u32 = 100;

/// Who may ask for a picture that is newer than the question.
#[derive(Clone)]
pub struct Shutter(UnboundedSender<Time>);

impl Shutter {
    pub fn press(&self, asked: Time) {
        // Nobody listens when the power goes.
        let _ = self.0.send(asked);
    }
}

/// Tells of every change, and of what there is when the shutter is pressed.
pub fn keep(plan: &Rc<Plan>, ports: &Ports, mail: &Mail) -> Result<Shutter, String> {
    let admin = Admin::open().map_err(|error| format!("a netlink socket: {error}"))?;
    let (press, pressed) = unbounded_channel();
    let camera = Camera {
        plan: Rc::clone(plan),
        ports: ports.clone(),
        kernel: Kernel { admin, wireguard: Devices::default() },
        rules: Rules::default(),
    };
    spawn_local(camera.look(mail.clone(), pressed));
    Ok(Shutter(press))
}

struct Camera {
    plan: Rc<Plan>,
    ports: Ports,
    kernel: Kernel,
    rules: Rules,
}

impl Camera {
    async fn look(mut self, mail: Mail, mut pressed: UnboundedReceiver<Time>) {
        let mut clock = interval(PERIOD);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What is asked stays so until it could be answered.
        let (mut told, mut refused, mut asked) = (None, None, None);
        for look in 0u32.. {
            tokio::select! {
                biased;
                Some(at) = pressed.recv() => asked = asked.max(Some(at)),
                _ = clock.tick() => {}
            }
            let read = if asked.is_some() {
                self.show_files(&mail);
                self.rules.read().await
            } else {
                self.rules.refresh(look % RULES == 0).await
            };
            let taken =
                read.and_then(|()| take(&self.plan, &self.ports, &mut self.kernel, &self.rules));
            match taken {
                Ok(picture) => {
                    refused = None;
                    if asked.is_some() || told.as_ref() != Some(&picture) {
                        told = Some(picture.clone());
                        mail.send(News::Pictured(Box::new(picture), asked.take()));
                    }
                }
                Err(why) => {
                    if refused.as_ref() != Some(&why) {
                        mail.send(News::Remark(format!("lab@{}", self.plan.name), why.clone()));
                    }
                    refused = Some(why);
                    // Not at once again.
                    clock.tick().await;
                }
            }
        }
    }

    /// As they are now: those that are watched are told of when their change is noticed.
    fn show_files(&self, mail: &Mail) {
        for path in &self.plan.shown.files {
            let content = std::fs::read_to_string(below(&self.plan.root, path)).ok();
            mail.send(News::File(path.clone(), content.map(Arc::from)));
        }
    }
}

/// What is looked at when it has changed.
#[derive(Clone, Default)]
struct Rules {
    saved: String,
    elements: Arc<[(FlatKey, FlatValue)]>,
    /// Of nf_tables, when they were read.
    generation: Option<u32>,
}

impl Rules {
    async fn refresh(&mut self, anyway: bool) -> Result<(), String> {
        // Without nf_tables there is none.
        let now = generation().ok();
        if anyway || now != self.generation { self.read().await } else { Ok(()) }
    }

    async fn read(&mut self) -> Result<(), String> {
        // From before: what changes meanwhile is read again.
        self.generation = generation().ok();
        self.saved = saved().await?;
        self.elements = elements_of(proxy::OWNER).map_or_else(|_| Arc::default(), Arc::from);
        Ok(())
    }
}

/// Who is asked what the kernel has.
struct Kernel {
    admin: Admin,
    wireguard: Devices,
}

fn take(plan: &Plan, ports: &Ports, kernel: &mut Kernel, rules: &Rules) -> Result<Picture, String> {
    picture(plan, ports, kernel, rules)
        .map_err(|errno| format!("looking at links and routes: {errno}"))
}

fn picture(
    plan: &Plan,
    ports: &Ports,
    kernel: &mut Kernel,
    rules: &Rules,
) -> Result<Picture, Errno> {
    let Kernel { admin, wireguard } = kernel;
    let state = ports.drivers.network.state()?;
    let value = |key: &Name| Some((key.clone(), sysctl::get(key)?.to_string()));
    let mut picture = Picture {
        routes: admin.routes()?,
        sysctls: plan.shown.sysctls.iter().filter_map(value).collect(),
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
async fn saved() -> Result<String, String> {
    let failed = |why: &str| format!("looking at rules: iptables-save: {why}");
    let done = Command::new("iptables-save").output().await;
    let done = done.map_err(|error| failed(&error.to_string()))?;
    if !done.status.success() {
        return Err(failed(String::from_utf8_lossy(&done.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&done.stdout);
    let kept = text.lines().filter(|line| !line.starts_with('#'));
    let bare = kept.map(|line| match line.split_once(" [") {
        Some((chain, _)) if line.starts_with(':') => chain,
        _ => line,
    });
    Ok(bare.collect::<Vec<_>>().join("\n"))
}
