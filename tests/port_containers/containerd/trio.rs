//! Three machines on a switch, each a network namespace with its own containerd, which are one
//! cluster by a command each: a server that is a node too, and two more nodes. They stand as those
//! of field note B did, with its networks and addresses.

use super::cluster::{Cluster, Given, JOINS, Running, on, on_a_machine, option};
use super::machine::Machine;
use super::packages;
use super::registry::Registry;
use super::up::Elsewhere;
use crate::namespace::{ip, skip};

/// The machine with the server, which is the network of the test's own thread.
pub const SERVER: (&str, &str) = ("c1", "172.17.4.101");
pub const WORKERS: [(&str, &str); 2] = [("w1", "172.17.4.201"), ("w2", "172.17.4.202")];
/// Whoever is at the switch, and on no node.
const OUTSIDE: &str = "172.17.4.2";

pub struct Trio {
    pub cluster: Cluster,
    /// Processes of ours, the server's first.
    pub nodes: Vec<Running>,
    pub workers: Vec<Elsewhere>,
    pub outside: Elsewhere,
    /// Before the machines: they pull from these.
    _registries: Vec<Registry>,
    _machines: Vec<Machine>,
}

/// `body` with three machines, if there is what they take.
pub fn on_three_machines(body: fn(&mut Trio)) {
    if let Some(what) = packages::missing() {
        return skip::skipped(what);
    }
    on_a_machine(move || body(&mut Trio::new()));
}

impl Trio {
    fn new() -> Trio {
        let outside = switch();
        let workers: Vec<Elsewhere> = WORKERS.iter().map(|_| Elsewhere::new()).collect();
        connect(&outside, SERVER);
        for (worker, place) in workers.iter().zip(WORKERS) {
            let switch = outside.thread;
            worker.run(move || plug(switch.as_raw(), place));
            outside.run(move || take(place.0));
        }
        let (registry, machine) = equip();
        let (mut registries, mut machines) = (vec![registry], vec![machine]);
        for worker in &workers {
            let (registry, machine) = worker.run(equip);
            registries.push(registry);
            machines.push(machine);
        }

        let cluster = Cluster::new();
        let mut server = start_server(&cluster, &machines[0]);
        let words = server.says(JOINS);
        server.says("the node c1 is ready");
        let mut nodes = vec![server];
        for ((worker, machine), (name, _)) in workers.iter().zip(&machines[1..]).zip(WORKERS) {
            let mut node = start_node(&cluster, worker, machine, name, &words);
            node.says(&format!("the node {name} is ready"));
            nodes.push(node);
        }
        let taint = "taint nodes c1 node-role.kubernetes.io/control-plane=:NoSchedule";
        cluster.told(taint);
        let (_registries, _machines) = (registries, machines);
        Trio { cluster, nodes, workers, outside, _registries, _machines }
    }
}

fn switch() -> Elsewhere {
    let switch = Elsewhere::new();
    switch.run(|| {
        ip("link add switch type bridge");
        ip("link set switch up");
        ip(&format!("addr add {OUTSIDE}/24 dev switch"));
    });
    switch
}

fn connect(switch: &Elsewhere, place: (&'static str, &'static str)) {
    plug(switch.thread.as_raw(), place);
    switch.run(move || take(place.0));
}

/// A card of the calling thread's machine, whose cable ends at the switch.
fn plug(switch: i32, (name, address): (&str, &str)) {
    ip(&format!("link add eth0 type veth peer name {name} netns {switch}"));
    ip("link set eth0 up");
    ip(&format!("addr add {address}/24 dev eth0"));
    ip(&format!("route add default via {OUTSIDE}"));
}

fn take(name: &str) {
    ip(&format!("link set {name} master switch"));
    ip(&format!("link set {name} up"));
}

/// A registry on the machine's loopback, and the containerd that pulls from it.
fn equip() -> (Registry, Machine) {
    let (registry, machine) = (Registry::of(packages::images()), Machine::start());
    machine.pulls_from(registry.address());
    (registry, machine)
}

/// The cluster's networks.
fn networks() -> [Given; 2] {
    [("--pod-network", "10.2.0.0/16".to_owned()), ("--service-network", "10.3.0.0/24".to_owned())]
}

fn start_server(cluster: &Cluster, machine: &Machine) -> Running {
    let data_dir = cluster.data().display().to_string();
    let own = [("--name", SERVER.0.to_owned()), ("--data-dir", data_dir)];
    Running::start(&mut on(machine, "up", &[&own[..], &networks()].concat()))
}

fn start_node(
    cluster: &Cluster,
    worker: &Elsewhere,
    machine: &Machine,
    name: &str,
    words: &str,
) -> Running {
    let given = |name: &'static str| -> Given { (name, option(words, name)) };
    let own = [("--name", name.to_owned()), ("--data-dir", cluster.file(name))];
    let options = [&[given("--server"), given("--token")], &own[..], &networks()].concat();
    let mut command = on(machine, "node", &options);
    worker.run(move || Running::start(&mut command))
}
