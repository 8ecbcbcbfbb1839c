//! Three machines on a switch, each a network namespace with its own containerd, which are one
//! cluster by a command each: a server that is a node too, and two more nodes. They stand as those
//! of field note B did, with its networks and addresses.

use super::cluster::{Cluster, Given, JOINS, Running, kubesim, on, on_a_machine, option};
use super::machine::Machine;
use super::packages;
use super::registry::Registry;
use super::up::Elsewhere;
use crate::etcd;
use crate::namespace::{ip, skip};
use nix::sys::signal::Signal;
use std::fs;
use std::mem::replace;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// The machine with the server, which is the network of the test's own thread.
pub const SERVER: (&str, &str) = ("c1", "172.17.4.101");
pub const WORKERS: [(&str, &str); 2] = [("w1", "172.17.4.201"), ("w2", "172.17.4.202")];
/// Where machines can be: a network's bridge, how its addresses begin, and the last number of the
/// router's.
const PLACES: [(&str, &str, u8); 2] = [("switch", "172.17.4", 2), ("cafe", "10.20.0", 1)];

pub struct Trio {
    pub cluster: Cluster,
    /// Processes of ours, the server's first, and a node's on each machine that `up` is not on.
    pub processes: Vec<Process>,
    /// Where objects are kept, if that is not with the server.
    pub etcd: Option<etcd::Server>,
    pub workers: Vec<Elsewhere>,
    /// The router of all places, which is on no node.
    pub outside: Elsewhere,
    pub machines: Vec<Machine>,
    /// Where each machine is.
    seats: Vec<Seat>,
    _registries: Vec<Registry>,
}

/// What comes of a lease that is to be renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Renewal {
    /// The address with other lifetimes: nothing changes.
    Same,
    /// It had to be given up, and is given again (dhclient-script's EXPIRE and BOUND).
    Lapsed,
    /// Another one, when the old one is gone.
    Another,
    /// Another one, before the old one is gone.
    Overlapping,
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
    on_a_machine(move || body(&mut Trio::new(None)));
}

/// The same with `kubesim server`, its objects in etcd, and a `kubesim node` on each machine.
#[cfg(feature = "etcd")]
pub fn on_three_machines_and_etcd(body: fn(&mut Trio)) {
    if let Some(what) = packages::missing() {
        return skip::skipped(what);
    }
    if !etcd::installed() {
        return skip::skipped("etcd (Debian: etcd-server)");
    }
    on_a_machine(move || body(&mut Trio::new(Some(etcd::Server::start(2379)))));
}

/// A process of ours, the command that starts it, and where.
pub struct Process {
    pub name: String,
    machine: usize,
    command: Command,
    running: Running,
}

impl Process {
    /// Its exit status, if it was not the signal's.
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        self.running.end(signal)
    }

    pub fn has_ended(&mut self) -> bool {
        self.running.has_ended()
    }

    /// Again, as systemd would.
    pub fn start(&mut self, workers: &[Elsewhere]) {
        let command = replace(&mut self.command, Command::new("true"));
        (self.command, self.running) = started(workers, self.machine, command);
    }
}

/// A process on a machine.
fn started(workers: &[Elsewhere], machine: usize, mut command: Command) -> (Command, Running) {
    on_machine(workers, machine, move || {
        let running = Running::start(&mut command);
        (command, running)
    })
}

impl Trio {
    fn new(etcd: Option<etcd::Server>) -> Trio {
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
        let mut trio = Trio {
            cluster,
            processes: Vec::new(),
            etcd,
            workers,
            outside,
            machines,
            seats,
            _registries: registries,
        };
        trio.form();
        trio
    }

    /// The machines become a cluster.
    fn form(&mut self) {
        let server = match &self.etcd {
            None => up_command(&self.cluster, &self.machines[0]),
            Some(etcd) => server_command(&self.cluster, etcd),
        };
        let words = self.begin("server", 0, server).says(JOINS);
        let with_server = usize::from(self.etcd.is_none());
        if with_server == 1 {
            self.processes[0].running.says("the node c1 is ready");
        }
        let names = [SERVER, WORKERS[0], WORKERS[1]].map(|(name, _)| name);
        for (machine, name) in names.into_iter().enumerate().skip(with_server) {
            let command = node_command(&self.cluster, &self.machines[machine], name, &words);
            let node = self.begin(name, machine, command);
            node.says(&format!("the node {name} is ready"));
        }
        let taint = "taint nodes c1 node-role.kubernetes.io/control-plane=:NoSchedule";
        self.cluster.told(taint);
    }

    fn begin(&mut self, name: &str, machine: usize, command: Command) -> &mut Running {
        let (command, running) = started(&self.workers, machine, command);
        self.processes.push(Process { name: name.to_owned(), machine, command, running });
        &mut self.processes.last_mut().expect("it was put there").running
    }

    pub fn node(&self, machine: usize) -> &'static str {
        self.seats[machine].node
    }

    /// Where the machine's node keeps what it must, and where its process tells how it is.
    pub fn data(&self, machine: usize) -> [PathBuf; 2] {
        let (cluster, node) = (&self.cluster, self.node(machine));
        match machine == 0 && self.etcd.is_none() {
            true => [cluster.data().join("node"), cluster.data()],
            false => [cluster.file(node).into(), cluster.file(node).into()],
        }
    }

    /// In a machine's network.
    pub fn on<T: Send + 'static>(
        &self,
        machine: usize,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        on_machine(&self.workers, machine, act)
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

    pub fn address(&self, machine: usize) -> &str {
        &self.seats[machine].address
    }

    /// What a DHCP client does to its interface when its lease comes up: the address is the one it
    /// has, or another one of the same network.
    pub fn renews(&mut self, machine: usize, how: Renewal, number: u8) {
        let seat = &mut self.seats[machine];
        let left = seat.clone();
        if how != Renewal::Same && how != Renewal::Lapsed {
            seat.address = format!("{}.{number}", PLACES[seat.place].1);
        }
        let seat = seat.clone();
        on_machine(&self.workers, machine, move || match how {
            Renewal::Same => seat.lease("replace"),
            Renewal::Lapsed => {
                left.lose();
                sleep(Duration::from_millis(500));
                seat.lease("add");
                seat.default_route();
            }
            Renewal::Another => {
                left.lose();
                seat.lease("add");
                seat.default_route();
            }
            // One that it happens to have already stays.
            Renewal::Overlapping if left.address == seat.address => seat.lease("replace"),
            Renewal::Overlapping => {
                seat.lease("add");
                left.lose();
                // Linux takes the first address of a network with all others of it, unless told
                // (promote_secondaries), and routes with it.
                seat.lease("replace");
                seat.default_route();
            }
        });
    }

    /// Processes of ours that run on it.
    pub fn processes_on(&self, machine: usize) -> Vec<u32> {
        let on = self.processes.iter().filter(|process| process.machine == machine);
        on.map(|process| process.running.id()).collect()
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
        ip("link set eth0 up");
        ip(&format!("addr add {}/24 dev eth0", self.address));
        self.default_route();
    }

    /// As a DHCP client does it, with the lifetimes of its lease.
    fn lease(&self, how: &str) {
        let times = "valid_lft 3600 preferred_lft 3600";
        ip(&format!("addr {how} {}/24 dev eth0 {times}", self.address));
    }

    fn lose(&self) {
        ip(&format!("addr del {}/24 dev eth0", self.address));
    }

    fn default_route(&self) {
        let (_, net, router) = PLACES[self.place];
        ip(&format!("route replace default via {net}.{router}"));
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

fn up_command(cluster: &Cluster, machine: &Machine) -> Command {
    let data_dir = cluster.data().display().to_string();
    let own = [("--name", SERVER.0.to_owned()), ("--data-dir", data_dir)];
    on(machine, "up", &[&own[..], &networks()].concat())
}

fn server_command(cluster: &Cluster, etcd: &etcd::Server) -> Command {
    let mut command = kubesim("server");
    let store = etcd.endpoint().replace("http://", "etcd://");
    command.args(["--listen", "0.0.0.0:6443", "--store", &store]);
    command.arg("--data-dir").arg(cluster.data());
    for (name, value) in networks() {
        command.args([name, &value]);
    }
    command
}

fn node_command(cluster: &Cluster, machine: &Machine, name: &str, words: &str) -> Command {
    let given = |name: &'static str| -> Given { (name, option(words, name)) };
    let own = [("--name", name.to_owned()), ("--data-dir", cluster.file(name))];
    let options = [&[given("--server"), given("--token")], &own[..], &networks()].concat();
    on(machine, "node", &options)
}
