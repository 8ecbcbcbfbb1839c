//! The invariants: what must hold whatever happens, and the reasons when it does not.
//!
//! Some hold at every moment (unique addresses, no NAT between pods); others must hold again once
//! the faults have been over for a while (routes lead to live owners, conntrack leads to
//! endpoints, nothing is pending). Numbers are those of the invariants in the scenario reference.

mod services;
mod workloads;

use crate::kernel::NsId;
use crate::report::NotJudged;
use crate::scenario::{Invariant, Scenario};
use crate::settled;
use crate::world::probes::is_ready;
use crate::world::{Machine, Role, SUBNET_ENV, World};
use ipnet::Ipv4Net;
use kubesim_actors::objects::{Key, Kind, Name, Phase, Uid};
use kubesim_actors::ports::network::Proto;
use kubesim_actors::proxy::Mode;
use kubesim_runtime::Time;
use services::{conntrack_to_nowhere, unprogrammed_service};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The invariants that are judged; I15 where a client hears, all others here.
pub const JUDGED: &[Invariant] = &[
    Invariant::I1,
    Invariant::I2,
    Invariant::I3,
    Invariant::I4,
    Invariant::I5,
    Invariant::I6,
    Invariant::I10,
    Invariant::I11,
    Invariant::I15,
    Invariant::I18,
];

/// The oracles of one run.
#[derive(Debug)]
pub struct Oracles {
    invariants: BTreeSet<Invariant>,
    pub violations: Vec<String>,
    /// What the scenario wants judged and was not, and why; known at the end.
    pub not_judged: Vec<NotJudged>,
    looked: Time,
    period: Duration,
    /// Who has more pods than wanted, since when.
    surplus: BTreeMap<Uid, Time>,
}

impl Oracles {
    pub fn new(scenario: &Scenario) -> Self {
        let period = match scenario.nodes.len() {
            0..=20 => Duration::from_millis(500),
            21..=200 => Duration::from_secs(2),
            _ => Duration::from_secs(60),
        };
        Oracles {
            invariants: scenario.invariants.iter().copied().collect(),
            violations: Vec::new(),
            not_judged: Vec::new(),
            looked: Time::ZERO,
            period,
            surplus: BTreeMap::new(),
        }
    }

    fn wants(&self, invariant: Invariant) -> bool {
        self.invariants.contains(&invariant)
    }

    fn not_judged(&mut self, invariants: &[Invariant], reason: &str) {
        let wanted = invariants.iter().filter(|invariant| self.wants(**invariant));
        let invariants: Vec<String> = wanted.map(|invariant| format!("{invariant:?}")).collect();
        if !invariants.is_empty() {
            self.not_judged.push(NotJudged { invariants, reason: reason.to_owned() });
        }
    }

    fn report(&mut self, world: &World, invariant: Invariant, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(format!("{invariant:?} at {}: {what}", world.now));
        }
    }

    /// What must hold at every moment.
    pub fn look(&mut self, world: &World) {
        if world.now.since(self.looked) < self.period {
            return;
        }
        self.looked = world.now;
        if self.wants(Invariant::I1)
            && let Some(what) = shared_address(world)
        {
            self.report(world, Invariant::I1, what);
        }
        if self.wants(Invariant::I3)
            && let Some(what) = shared_subnet(world)
        {
            self.report(world, Invariant::I3, what);
        }
        if self.wants(Invariant::I4)
            && let Some(what) = nat_between_pods(world)
        {
            self.report(world, Invariant::I4, what);
        }
        if self.wants(Invariant::I11) {
            self.surplus(world);
        }
    }

    /// What must hold again when the faults have been over for a while.
    pub fn finish(&mut self, world: &mut World, cut_short: bool) {
        self.look(world);
        self.violations.extend(world.unanswered().into_iter().take(5));
        if world.knobs.external {
            let what = "the lab has no picture of tracked flows, nor of what clients hear";
            self.not_judged(&[Invariant::I4, Invariant::I15], what);
        }
        type Check = fn(&World) -> Option<String>;
        let checks: [(Invariant, Check); 5] = [
            (Invariant::I2, |world| stale_routes(world, &[]).into_iter().next()),
            (Invariant::I5, unprogrammed_service),
            (Invariant::I6, conntrack_to_nowhere),
            (Invariant::I10, leaked_address),
            (Invariant::I18, pending),
        ];
        let unsettled = match cut_short {
            true => Some("the run was ended early".to_owned()),
            false => settled::unsettled(world),
        };
        if let Some(why) = unsettled {
            self.not_judged(&checks.map(|(invariant, _)| invariant), &why);
            return;
        }
        for (invariant, check) in checks {
            if let Some(why) = unseen(world, invariant) {
                self.not_judged(&[invariant], why);
            } else if self.wants(invariant)
                && let Some(what) = check(world)
            {
                self.report(world, invariant, what);
            }
        }
    }

    /// I11: never more pods than wanted and allowed on top, for longer than a deletion takes to be
    /// asked for after a scale-down.
    fn surplus(&mut self, world: &World) {
        let now = workloads::surplus(world);
        self.surplus.retain(|uid, _| now.iter().any(|(of, ..)| of == uid));
        for (uid, extra, who) in now {
            let since = *self.surplus.entry(uid).or_insert(world.now);
            if world.now.since(since) > Duration::from_secs(60) {
                let what = format!("{who} has had {extra} pods too many since {since}");
                self.report(world, Invariant::I11, what);
            }
        }
    }
}

/// Why nobody can tell whether an invariant holds in a world that has settled.
fn unseen(world: &World, invariant: Invariant) -> Option<&'static str> {
    let cluster = &world.scenario.cluster;
    let lab = world.knobs.external;
    match invariant {
        Invariant::I5 if !cluster.proxy => Some("no service proxy runs"),
        Invariant::I5 if lab && cluster.proxy_mode != Mode::Iptables => {
            Some("the lab has no picture of this proxy mode's rules")
        }
        Invariant::I6 if lab => Some("the lab has no picture of tracked flows"),
        Invariant::I18 if !world.refusals.is_empty() => Some("an actor refused to run"),
        _ => None,
    }
}

// I1, I3.

/// Two pods, or two nodes, with one address.
fn shared_address(world: &World) -> Option<String> {
    let mut holders: Vec<(&str, &Key)> = Vec::new();
    for pod in world.objects(Kind::Pod) {
        let Some(body) = pod.pod_body() else { continue };
        let facts = body.facts();
        let live = facts.phase == Phase::Running && !facts.ip.is_empty() && !pod.deleting();
        if !live || body.spec().host_network == Some(true) {
            continue;
        }
        // A node that is away cannot take back what it said of its pods.
        let machine = facts.node().and_then(|node| world.machine_named(node));
        if machine.is_some_and(|machine| world.machines[machine as usize].on) {
            holders.push((&facts.ip, &pod.key));
        }
    }
    holders.sort_unstable();
    let both = holders.windows(2).find(|pair| pair[0].0 == pair[1].0)?;
    let ((ip, one), (_, other)) = (both[0], both[1]);
    Some(format!("pods {one} and {other} both have {ip}"))
}

fn shared_subnet(world: &World) -> Option<String> {
    let mut holders: BTreeMap<String, Name> = BTreeMap::new();
    for node in world.objects(Kind::Node) {
        let cidr = node.node().and_then(|(spec, _)| spec.pod_cidr.clone());
        if let Some(cidr) = cidr
            && let Some(other) = holders.insert(cidr.clone(), node.key.name.clone())
        {
            return Some(format!(
                "nodes {other} and {} both have pod subnet {cidr}",
                node.key.name
            ));
        }
    }
    None
}

// I4.

/// A tracked connection between two pods whose source was rewritten: `getpeername` lies.
fn nat_between_pods(world: &World) -> Option<String> {
    let pods = world.scenario.cluster.pod_network;
    for machine in nodes_on(world) {
        let Some(netfilter) = machine.kernel.netfilter(NsId::HOST) else { continue };
        for entry in netfilter.conntrack() {
            let (src, dst) = (entry.original.src, entry.original.dst);
            let rewritten = entry.reply.dst != src;
            let pods_only = pods.contains(&src) && pods.contains(&dst) && entry.reply.src == dst;
            // A bridge's own address is the node's, not a pod's.
            if rewritten && pods_only && !is_bridge(machine, src) {
                return Some(format!(
                    "on {} {src} -> {dst} is masqueraded as {}",
                    machine.name, entry.reply.dst
                ));
            }
        }
    }
    None
}

fn is_bridge(machine: &Machine, ip: Ipv4Addr) -> bool {
    machine
        .told
        .as_ref()
        .is_some_and(|state| state.links.iter().any(|l| l.addresses.iter().any(|a| a.addr() == ip)))
}

// I2.

/// A live owner of a pod subnet.
struct Owner {
    name: Name,
    address: Option<Ipv4Addr>,
}

fn owners(world: &World) -> BTreeMap<Ipv4Net, Owner> {
    let mut owners = BTreeMap::new();
    for machine in nodes_on(world) {
        let announced = machine.files.read(SUBNET_ENV).and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("FLANNEL_SUBNET="))?
                .trim()
                .to_owned();
            line.parse::<Ipv4Net>().ok()
        });
        if let Some(net) = announced {
            let owner =
                Owner { name: machine.name.clone(), address: world.address_of(&machine.name) };
            owners.insert(net.trunc(), owner);
        }
    }
    owners
}

/// Subnets of machines that are off and whose Nodes nobody deleted: they are still those nodes',
/// and nobody else may have them.
fn away(world: &World) -> BTreeSet<Ipv4Net> {
    let off = world.machines.iter().filter(|m| !m.on && matches!(m.role, Role::Node(_)));
    let cidr = |machine: &Machine| {
        let node = world.object(Kind::Node, &Key::cluster(machine.name.clone()))?;
        node.node()?.0.pod_cidr.as_ref()?.parse().ok()
    };
    off.filter_map(cidr).collect()
}

const STALE: &str = "stale route";

/// Every route to a pod subnet, of these nodes or all, that does not lead to its live owner, every
/// one that is missing, and every one without an owner, in words.
pub fn stale_routes(world: &World, nodes: &[Name]) -> Vec<String> {
    let (owners, away) = (owners(world), away(world));
    let mut stale = Vec::new();
    for machine in nodes_on(world) {
        if nodes.is_empty() || nodes.contains(&machine.name) {
            stale_on(world, machine, (&owners, &away), &mut stale);
        }
        if stale.len() > 100 {
            break;
        }
    }
    // What leads astray says more than what is missing.
    stale.sort_by_key(|text| !text.contains(STALE));
    stale
}

fn stale_on(
    world: &World,
    machine: &Machine,
    (owners, away): (&BTreeMap<Ipv4Net, Owner>, &BTreeSet<Ipv4Net>),
    stale: &mut Vec<String>,
) {
    let pods = world.scenario.cluster.pod_network;
    let name = &machine.name;
    let fdb = machine.kernel.vxlan_remotes(NsId::HOST);
    let mut reached = BTreeSet::new();
    for (route, proto) in machine.kernel.routes(NsId::HOST) {
        if proto == Proto::KERNEL || !pods.contains(&route.to) || route.to == pods {
            continue;
        }
        let via = route
            .via
            .map_or_else(|| route.dev.to_string(), |via| format!("{via} dev {}", route.dev));
        let Some(owner) = owners.get(&route.to) else {
            if away.contains(&route.to) {
                continue;
            }
            stale.push(format!(
                "{name}: {STALE} to {} via {via}: no live node has it{}",
                route.to,
                lease_of(world, route.to)
            ));
            continue;
        };
        if owner.name == *name {
            stale.push(format!("{name}: a route to its own subnet {} via {via}", route.to));
            continue;
        }
        let leads_to = match route.via {
            Some(gateway) if machine.kernel.is_vxlan(NsId::HOST, &route.dev) => machine
                .kernel
                .neighbour_mac(NsId::HOST, &route.dev, gateway)
                .and_then(|mac| fdb.get(&mac).copied()),
            None => machine.kernel.wireguard_endpoint(NsId::HOST, &route.dev, route.to.network()),
            gateway => gateway,
        };
        if leads_to != owner.address {
            stale.push(format!(
                "{name}: {STALE} to {} via {via}: leads to {}, and {} is at {}",
                route.to,
                leads_to.map_or_else(|| "nowhere".to_owned(), |ip| ip.to_string()),
                owner.name,
                owner.address.map_or_else(|| "no address".to_owned(), |ip| ip.to_string()),
            ));
        }
        reached.insert(route.to);
    }
    // Who never got a subnet of its own has not joined, and owes nobody a route.
    let joined = owners.values().any(|owner| owner.name == *name);
    for (net, owner) in owners.iter().filter(|_| joined) {
        if owner.name != *name && !reached.contains(net) {
            stale.push(format!("{name}: no route to {net} of {}", owner.name));
            if stale.len() > 100 {
                return;
            }
        }
    }
}

/// Who leases a subnet in the API, in words.
fn lease_of(world: &World, net: Ipv4Net) -> String {
    let text = net.to_string();
    let lease =
        world.objects(Kind::Subnet).find(|s| s.subnet().is_some_and(|(spec, _)| spec.cidr == text));
    lease.map_or_else(String::new, |lease| {
        let locator = lease.subnet().and_then(|(_, status)| status.locator);
        let locator = locator.map_or_else(String::new, |ip| format!(" for {ip}"));
        format!(" (ghost lease {}{locator})", lease.key.name)
    })
}

/// A lease that still holds a node's former subnet under an address the node has no more.
pub fn ghost_lease(world: &World, node: &str, subnet: &str) -> Option<String> {
    let now = world.address_of(node);
    let lease = world
        .objects(Kind::Subnet)
        .find(|s| s.subnet().is_some_and(|(spec, _)| spec.cidr == subnet))?;
    let (_, status) = lease.subnet()?;
    (status.locator != now).then(|| {
        let ip = status.locator.map_or_else(|| "no address".to_owned(), |ip| ip.to_string());
        let now = now.map_or_else(|| "no address".to_owned(), |ip| ip.to_string());
        format!("ghost lease {} keeps {subnet} for {ip}, and {node} is at {now}", lease.key.name)
    })
}

// I10.

/// A pod that is bound to a node and has not ended.
struct Bound {
    uid: Uid,
    runs: bool,
    ip: Option<Ipv4Addr>,
}

/// Addresses of sandboxes and of pods differ: a pod that runs has one, and a sandbox that has one
/// is that of a pod which has not ended (it may wait for its image).
fn leaked_address(world: &World) -> Option<String> {
    let mut bound: BTreeMap<&str, Vec<Bound>> = BTreeMap::new();
    for pod in world.objects(Kind::Pod) {
        let Some(body) = pod.pod_body() else { continue };
        let facts = body.facts();
        if let Some(node) = facts.node().filter(|_| !facts.phase.ended())
            && body.spec().host_network != Some(true)
        {
            let runs = facts.phase == Phase::Running;
            let pods = bound.entry(node.as_str()).or_default();
            pods.push(Bound { uid: pod.uid, runs, ip: facts.ip.parse().ok() });
        }
    }
    for machine in nodes_on(world) {
        let mut held = BTreeSet::new();
        for ip in machine.sandbox_addresses() {
            if !held.insert(ip) {
                return Some(format!("{}: two sandboxes hold {ip}", machine.name));
            }
        }
        let pods = bound.remove(machine.name.as_str()).unwrap_or_default();
        let claims = pods.iter().filter(|pod| pod.runs).filter_map(|pod| pod.ip);
        let lacking = claims.into_iter().find(|ip| !held.contains(ip));
        if let Some(ip) = lacking {
            return Some(format!("{}: a pod claims {ip}, which no sandbox holds", machine.name));
        }
        let waits = |ip: &Ipv4Addr| {
            let of = machine.runtime.addresses().find(|(_, held)| *held == Some(*ip));
            of.is_some_and(|(uid, _)| pods.iter().any(|pod| pod.uid == uid))
        };
        let claimed = |ip: &Ipv4Addr| pods.iter().any(|pod| pod.ip == Some(*ip));
        if let Some(ip) = held.iter().find(|ip| !claimed(ip) && !waits(ip)) {
            let name = &machine.name;
            return Some(format!("{name}: a sandbox holds {ip} for no pod that is to run"));
        }
    }
    None
}

// I18.

/// What has not converged, in words.
pub fn pending(world: &World) -> Option<String> {
    // A pod of a machine that is off is deleted and never finished: nobody can say that it ended.
    let off = |pod: &kubesim_actors::objects::Object| {
        let node = pod.pod_facts().and_then(|facts| facts.node());
        let machine = node.and_then(|node| world.machine_named(node));
        machine.is_some_and(|m| !world.machines[m as usize].on)
    };
    // Nor is one ever deleted that tolerates that for ever.
    let kept = |pod: &kubesim_actors::objects::Object| {
        let node = pod.pod_facts().and_then(|facts| facts.node());
        let node = node.and_then(|node| world.object(Kind::Node, &Key::cluster(node.clone())));
        node.is_some_and(|node| kubesim_actors::controllers::stays(pod, node))
    };
    for pod in world.objects(Kind::Pod) {
        if off(pod) && (pod.deleting() || kept(pod)) {
            continue;
        }
        if pod.deleting() {
            return Some(format!("pod {} is still being deleted", pod.key));
        }
        let finished = pod.pod_facts().is_some_and(|facts| facts.phase.ended());
        if !is_ready(pod) && !finished {
            let node = pod.pod_facts().and_then(|facts| facts.node()).filter(|_| off(pod));
            let why =
                node.map_or_else(String::new, |node| format!("; {node}, where it is, is off"));
            return Some(format!("pod {} is {}{why}", pod.key, crate::judge::why_waiting(pod)));
        }
    }
    for set in world.objects(Kind::ReplicaSet) {
        let Some((spec, status)) = set.replica_set() else { continue };
        if status.replicas != spec.replicas.unwrap_or(1) {
            return Some(format!(
                "ReplicaSet {} has {} of {} pods",
                set.key,
                status.replicas,
                spec.replicas.unwrap_or(1)
            ));
        }
    }
    workloads::pending(world)
}

// FORWARD.

/// Which rule or policy keeps forwarded pod packets out, in words.
pub fn forward_culprit(machine: &Machine) -> String {
    let Some(netfilter) = machine.kernel.netfilter(NsId::HOST) else { return String::new() };
    let save = netfilter.save(Some(kubesim_actors::ports::rules::Table::Filter));
    let policy = save.lines().find(|line| line.starts_with(":FORWARD DROP"));
    let rule =
        save.lines().find(|line| line.starts_with("-A FORWARD") && line.ends_with("-j DROP"));
    match (rule, policy) {
        (Some(rule), _) => rule.to_owned(),
        (None, Some(_)) => "the FORWARD policy is DROP and no rule accepts pod traffic".to_owned(),
        (None, None) => "a chain that FORWARD jumps to".to_owned(),
    }
}

/// Where overlapping networks were accepted: an address that both claim.
pub fn first_clash(world: &World) -> Option<String> {
    let cluster = &world.scenario.cluster;
    let (pods, services) = (cluster.pod_network, cluster.service_network);
    for service in world.objects(Kind::Service) {
        let ip = service
            .service()
            .and_then(|(spec, _)| spec.cluster_ip.as_ref()?.parse::<Ipv4Addr>().ok());
        let Some(ip) = ip else { continue };
        if pods.contains(&ip) {
            return Some(format!(
                "the first packet that goes wrong: one for {ip} is both for service {} (of {services}) and for a pod (of {pods})",
                service.key
            ));
        }
        if let Some(lan) = world.scenario.networks.iter().find(|lan| lan.cidr.contains(&ip)) {
            return Some(format!(
                "service {} has {ip}, which is also an address of network {}",
                service.key, lan.name
            ));
        }
    }
    None
}

fn nodes_on(world: &World) -> impl Iterator<Item = &Machine> {
    world.machines.iter().filter(|machine| machine.on && matches!(machine.role, Role::Node(_)))
}

#[cfg(test)]
mod tests {
    use super::pending;
    use crate::world::testing;

    #[test]
    fn of_a_pod_that_waits_on_a_machine_that_is_off_it_is_said() {
        let more = "[image.web]\ntcp = [80]\n[[workload]]\nname = \"x\"\n\
                    generate = { deployments = 1, replicas = 1, image = \"web\" }\n\
                    [[node]]\nname = \"w\"\nnetwork = \"lan\"\naddress = \"192.168.1.20\"\n\
                    [[fault]]\nname = \"off\"\nkind = \"power-off\"\nat = \"100s\"\nnodes = \"w\"\n";
        let world = testing::world_after(testing::scenario("", more));
        let said = pending(&world).unwrap_or_default();
        assert!(said.ends_with("; w, where it is, is off"), "{said}");
    }
}
