//! A node of the lab, on its own thread and in its own network namespace: the actors under the
//! production host with the real drivers, whoever holds the card's address, and the tries of the
//! scenario's probes.
//!
//! - `actors`: which driver carries out what
//! - `clients`: the API, as each component has it
//! - `server`: the API server's store and front; `relay`, `mirror`: of a cluster that is joined
//! - `address`: DHCP, or a static address; `dhcp`, and `frames` of who has no address yet
//! - `software`: docker, ufw
//! - `picture`: what the kernel has, for whoever judges
//! - `tries`, `streams`: probes

mod actors;
mod address;
mod clients;
mod dhcp;
mod frames;
mod mirror;
mod orders;
mod picture;
mod relay;
mod server;
mod software;
mod streams;
mod tries;

use super::mail::{Mail, News};
use super::plan::Plan;
use crate::drive::{self, Drivers};
use actors::{Hosts, Ports};
use clients::Clients;
use kubesim_actors::ports::files;
use kubesim_backends::containers::{Processes, Settings};
use kubesim_backends::files::Files;
use kubesim_backends::network::Network;
use kubesim_backends::network::admin::Admin;
use kubesim_backends::network::sysctl;
use kubesim_backends::packets::{Codec, Packets};
use kubesim_backends::port::{Answer, Port};
use kubesim_backends::probe::Probes;
use kubesim_backends::rules::Rules;
use kubesim_backends::volumes::Volumes;
use kubesim_sim::world::external::{Attempt, Order};
use kubesim_sim::world::unapplied::no_sysctl;
use kubesim_sim::world::words;
use server::Person;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::spawn_local;

const LO: u32 = 1;
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// A node that is on.
struct Node {
    plan: Rc<Plan>,
    mail: Mail,
    ports: Ports,
    hosts: Hosts,
    /// At the API server's machine.
    person: Option<Person>,
    admin: Admin,
    /// The card's number, and whether its cable has a signal.
    card: u32,
    carrier: watch::Sender<bool>,
    streams: streams::Streams,
    shutter: picture::Shutter,
}

/// Until its power goes.
pub async fn live(plan: Plan, mail: Mail, mut orders: UnboundedReceiver<Order>) {
    let mut node = match Node::boot(plan, mail.clone()) {
        Ok(node) => node,
        Err(why) => return mail.send(News::Broken(why)),
    };
    node.start(&mail).await;
    while let Some(order) = orders.recv().await {
        if matches!(order, Order::PowerOff(_)) {
            break;
        }
        node.obey(order).await;
    }
    node.ports.drivers.containers.power_off();
}

impl Node {
    fn boot(plan: Plan, mail: Mail) -> Result<Node, String> {
        let plan = Rc::new(plan);
        let mut admin = Admin::open().map_err(|error| format!("a netlink socket: {error}"))?;
        let refused = |what: &'static str| move |errno| format!("{what}: {errno}");
        admin.set_up(LO, true).map_err(refused("setting the loopback up"))?;
        let card = admin.link(&plan.card.name).map_err(refused("finding the card"))?;
        admin.set_up(card, true).map_err(refused("setting the card up"))?;
        for (key, value) in &plan.sysctls {
            if let Err(errno) = sysctl::set(key, value) {
                let whose = format!("the sysctls of node `{}`", plan.name);
                let what = format!("sysctl {key}={value} at its boot");
                let why = no_sysctl(errno, orders::links().iter());
                mail.send(News::Disobeyed(Some(Attempt { whose, what }), why));
            }
        }
        if plan.first {
            for (path, text) in &plan.files {
                put_file(&plan.root, path, text).map_err(|why| format!("writing {path}: {why}"))?;
            }
        } else {
            // These are in memory on a machine (file-hierarchy(7)).
            for folder in ["run", "tmp"] {
                empty(&plan.root.join(folder))?;
            }
        }
        let ports = Ports::new(&plan, &mail)?;
        let (carrier, carried) = watch::channel(true);
        address::hold(&plan, &mail, &mut admin, card, carried);
        mirror_files(&plan, &ports.drivers.files, &mail);
        let clients = ports.clients.clone();
        // They are told when their own address is gone.
        drive::observe_addresses(&ports.drivers.network, move |has| clients.addresses_changed(has));
        let shutter = picture::keep(&plan, &ports, &mail)?;
        let hosts = Hosts::new(&plan, &ports, &mail);
        let person = plan.door.as_ref().map(|door| Person::new(door, &mail));
        let streams = streams::Streams::default();
        Ok(Node { plan, mail, ports, hosts, person, admin, card, carrier, streams, shutter })
    }
}

impl Node {
    /// Foreign programs first, then the actors.
    async fn start(&mut self, mail: &Mail) {
        for program in &self.plan.software {
            let started = software::start(program, &mut self.admin, &self.plan.name, mail).await;
            if let Err(why) = started {
                let text = format!("starting {} at its boot: {why}", words::program(program.kind));
                mail.send(News::Remark(format!("lab@{}", self.plan.name), text));
            }
        }
        self.hosts.start_all();
    }
}

/// A file below the node's own root directory.
fn put_file(root: &Path, path: &str, text: &str) -> Result<(), String> {
    let full = below(root, path);
    let folder = full.parent().unwrap_or(root);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&full, text))
        .map_err(|error| refusal(&error))
}

/// Why a file could not be written, as the simulator words it.
fn refusal(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Nothing is left in a folder, if there is one.
fn empty(folder: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("emptying {}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Where a file of the node lies: no path leads out of its root directory.
fn below(root: &Path, path: &str) -> PathBuf {
    let parts = Path::new(path).components();
    let names = parts.filter(|part| matches!(part, Component::Normal(_)));
    names.fold(root.to_owned(), |full, name| full.join(name))
}

/// Tells of the files that expectations are about.
fn mirror_files(plan: &Plan, files: &Files, mail: &Mail) {
    for path in &plan.shown.files {
        let mail = mail.clone();
        let answer = Answer::new(move |reply| {
            if let files::Reply::Content { path, content } = reply {
                mail.send(News::File(path, content));
            }
            async { Ok(()) }
        });
        let request = files::Request::Watch { path: path.clone() };
        spawn_local(files.perform(request, answer));
    }
}

impl Ports {
    fn new(plan: &Rc<Plan>, mail: &Mail) -> Result<Ports, String> {
        let images = plan.images.clone();
        let containers = Processes::new(Settings {
            program: plan.program.clone(),
            launch: Box::new(move |spec| images.launch(&spec.image, spec.attempt)),
        });
        let inside = containers.clone();
        let drivers = Drivers {
            network: Network::open().map_err(|error| format!("a netlink socket: {error}"))?,
            rules: Rc::new(Rules::new(Default::default())),
            files: Files::below(&plan.root).with_manifests(MANIFESTS),
            volumes: Volumes::new(plan.root.join("var/lib/kubelet"), &plan.root).without_mounts(),
            dns: Packets::new(Codec::Dns),
            peers: Packets::new(Codec::Peer),
            probes: Probes::new(move |command| inside.exec(command)),
            containers,
        };
        Ok(Ports { clients: Clients::new(plan, mail), trust: plan.trust.clone(), drivers })
    }
}
