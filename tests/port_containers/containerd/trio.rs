//! Three machines on a switch, each a network namespace with its own containerd, which are one
//! cluster by a command each: a server that is a node too, and two more nodes. They stand as those
//! of field note B did, with its networks and addresses.

use super::cluster::{Cluster, Given, JOINS, Running, on, on_a_machine, option};
use super::machine::Machine;
use super::packages;
use super::registry::Registry;
use super::up::Elsewhere;
use crate::namespace::{ip, skip};
use std::fs;
use std::process::Command;

/// The machine with the server, which is the network of the test's own thread.
pub const SERVER: (&str, &str) = ("c1", "172.17.4.101");
pub const WORKERS: [(&str, &str); 2] = [("w1", "172.17.4.201"), ("w2", "172.17.4.202")];
/// Where machines can be: a network's bridge, how its addresses begin, and the last number of the
/// router's.
const PLACES: [(&str, &str, u8); 2] = [("switch", "172.17.4", 2), ("cafe", "10.20.0", 1)];

pub struct Trio {
    pub cluster: Cluster,
    /// Processes of ours, the server's first.
    pub nodes: Vec<Running>,
    pub workers: Vec<Elsewhere>,
    /// The router of all places, which is on no node.
    pub outside: Elsewhere,
    pub machines: Vec<Machine>,
    /// Where each machine is.
    seats: Vec<Seat>,
    _registries: Vec<Registry>,
}

#[derive(Clone)]
struct Seat {
    node: &'static str,
    place: usize,
    address: String,
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
        let outside = router();
        let workers: Vec<Elsewhere> = WORKERS.iter().map(|_| Elsewhere::new()).collect();
        let seat = |(node, address): (&'static str, &str)| Seat {
            node,
            place: 0,
            address: address.to_owned(),
        };
        let seats: Vec<Seat> = [SERVER].iter().chain(&WORKERS).copied().map(seat).collect();
        let router = outside.thread.as_raw();
        for (index, seat) in seats.iter().cloned().enumerate() {
            let taken = seat.clone();
            on_machine(&workers, index, move || plug(router, &seat));
            outside.run(move || take(&taken));
            let seat = seats[index].clone();
            on_machine(&workers, index, move || seat.addressed());
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
        Trio { cluster, nodes, workers, outside, machines, seats, _registries: registries }
    }

    /// The machine's address becomes another one, with this number, in the place where it is or in
    /// another; what DHCP's client does. That address.
    pub fn moves(&mut self, machine: usize, elsewhere: bool, number: u8) -> String {
        let seat = &mut self.seats[machine];
        let left = seat.clone();
        if elsewhere {
            seat.place = (seat.place + 1) % PLACES.len();
        }
        seat.address = format!("{}.{number}", PLACES[seat.place].1);
        let (seat, taken) = (seat.clone(), seat.clone());
        let address = seat.address.clone();
        on_machine(&self.workers, machine, move || {
            ip(&format!("addr del {}/24 dev eth0", left.address));
            if elsewhere {
                ip("link set eth0 down");
            }
        });
        self.outside.run(move || take(&taken));
        on_machine(&self.workers, machine, move || seat.addressed());
        address
    }

    /// In words, where tunnels lead to that is no node, and to which node they do not lead. (Each
    /// machine has an entry for itself too, which nothing looks up.)
    pub fn stale_tunnels(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for machine in 0..self.seats.len() {
            let entries = on_machine(&self.workers, machine, || {
                let all = Command::new("bridge").args(["fdb", "show"]).output();
                String::from_utf8(all.expect("bridge runs").stdout).expect("text")
            });
            let led = entries.lines().filter_map(|line| line.split_once(" dst "));
            let led: Vec<_> = led.filter_map(|(_, rest)| rest.split(' ').next()).collect();
            let node = self.seats[machine].node;
            let is_node = |at: &&str| self.seats.iter().any(|seat| seat.address == *at);
            let gone = led.iter().filter(|at| !is_node(at));
            wrong.extend(gone.map(|at| format!("{node} leads to {at}, where nobody is")));
            let others = self.seats.iter().filter(|seat| seat.node != node);
            let missed = others.filter(|other| !led.contains(&other.address.as_str()));
            wrong.extend(missed.map(|other| format!("{node} does not lead to {}", other.address)));
        }
        wrong
    }
}

/// In the machine's network: the first one's is the test's own.
fn on_machine<T: Send + 'static>(
    workers: &[Elsewhere],
    machine: usize,
    act: impl FnOnce() -> T + Send + 'static,
) -> T {
    match machine.checked_sub(1) {
        None => act(),
        Some(worker) => workers[worker].run(act),
    }
}

fn router() -> Elsewhere {
    let router = Elsewhere::new();
    router.run(|| {
        for (bridge, net, own) in PLACES {
            ip(&format!("link add {bridge} type bridge"));
            ip(&format!("link set {bridge} up"));
            ip(&format!("addr add {net}.{own}/24 dev {bridge}"));
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a sysctl");
    });
    router
}

/// A card of the calling thread's machine, whose cable ends at the router.
fn plug(router: i32, seat: &Seat) {
    ip(&format!("link add eth0 type veth peer name {} netns {router}", seat.node));
}

/// The cable's end is plugged in where the machine is.
fn take(seat: &Seat) {
    ip(&format!("link set {} master {}", seat.node, PLACES[seat.place].0));
    ip(&format!("link set {} up", seat.node));
}

impl Seat {
    fn addressed(&self) {
        let (_, net, router) = PLACES[self.place];
        ip("link set eth0 up");
        ip(&format!("addr add {}/24 dev eth0", self.address));
        ip(&format!("route add default via {net}.{router}"));
    }
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
