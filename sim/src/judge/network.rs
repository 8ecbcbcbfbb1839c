//! Expectations of nodes' networks: subnets, bridges, rules, sysctls, files.

use super::{History, Verdict};
use crate::kernel::NsId;
use crate::kernel::netfilter::{Hook, HookContext, Verdict as Passes};
use crate::kernel::packet::{Ct, Icmp, L4, Packet};
use crate::oracles;
use crate::world::{Machine, World};
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use kubesim_actors::ports::rules::AddrType;
use kubesim_runtime::{Rng, Stream, Time};
use std::collections::BTreeMap;

/// The subnet in the node's subnet.env, as a network: `10.244.1.0/24`.
pub fn announced_subnet(machine: &Machine) -> Option<String> {
    let text = machine.files.read(crate::world::SUBNET_ENV)?;
    let line = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET="))?;
    let net: Ipv4Net = line.trim().parse().ok()?;
    Some(net.trunc().to_string())
}

pub fn bridge_of(world: &World, node: &str) -> Option<Name> {
    world.scenario.nodes.iter().find(|n| n.name == node).map(|n| n.bridge.clone())
}

fn each<'a>(world: &'a World, nodes: &'a [Name]) -> impl Iterator<Item = (&'a Name, &'a Machine)> {
    world
        .scenario
        .nodes
        .iter()
        .map(|node| &node.name)
        .filter(move |name| nodes.is_empty() || nodes.contains(name))
        .filter_map(|name| Some((name, &world.machines[world.machine_named(name)? as usize])))
}

/// The same value from the first time it was seen to the end.
pub fn kept(
    nodes: &[Name],
    seen: &BTreeMap<Name, Vec<(Time, String)>>,
    ghosts: &BTreeMap<Name, String>,
    what: &str,
) -> Verdict {
    let mut values = Vec::new();
    for node in nodes {
        match seen.get(node).map(Vec::as_slice) {
            None | Some([]) => return Verdict::lacking("", format!("{node} never had a {what}")),
            Some([(_, value)]) => values.push(format!("{node} {value}")),
            Some([(_, first), (at, _), ..]) => {
                let all: Vec<&str> = seen[node].iter().map(|(_, value)| value.as_str()).collect();
                let why = ghosts.get(node).map(|text| format!("; {text}")).unwrap_or_default();
                return Verdict::broken(
                    format!("{first} became {}", all[1..].join(", then ")),
                    format!("the {what} of {node} changed at {at}{why}"),
                );
            }
        }
    }
    Verdict::held(values.join(", "))
}

pub fn rules(
    world: &World,
    nodes: &[Name],
    has: &[String],
    absent: &[String],
) -> Result<String, String> {
    let mut counted = 0;
    for (node, machine) in each(world, nodes) {
        let save =
            machine.kernel.netfilter(NsId::HOST).map(|rules| rules.save(None)).unwrap_or_default();
        for pattern in has {
            if !save.lines().any(|line| fits(pattern, line)) {
                return Err(format!("no rule on {node} like: {pattern}"));
            }
            counted += 1;
        }
        for pattern in absent {
            if let Some(line) = save.lines().find(|line| fits(pattern, line)) {
                return Err(format!("on {node} there is: {line}"));
            }
        }
    }
    Ok(format!("{counted} rules found"))
}

/// `*` stands for any text, none included.
pub fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

pub fn mtu(
    world: &World,
    nodes: &[Name],
    interface: &str,
    pods: bool,
    wanted: u32,
) -> Result<String, String> {
    let name = if pods { "eth0" } else { interface };
    let mut links = 0;
    for (node, machine) in each(world, nodes) {
        let found = if pods {
            machine.pod_mtus()
        } else {
            let found = machine.kernel.mtu(NsId::HOST, interface);
            vec![found.ok_or_else(|| format!("{node} has no {name}"))?]
        };
        if let Some(other) = found.iter().find(|mtu| **mtu != wanted) {
            return Err(format!("{name} on {node} has {other}, not {wanted}"));
        }
        links += found.len();
    }
    if links == 0 {
        Err("there is no such interface".to_owned())
    } else {
        Ok(format!("{wanted} on {links} interfaces"))
    }
}

pub fn sysctl(world: &World, nodes: &[Name], key: &str, wanted: i64) -> Result<String, String> {
    for (node, machine) in each(world, nodes) {
        let value = machine.kernel.sysctl(NsId::HOST, key);
        if value.as_deref() != Some(wanted.to_string().as_str()) {
            return Err(format!(
                "{key} on {node} is {}",
                value.unwrap_or_else(|| "missing".to_owned())
            ));
        }
    }
    Ok(format!("{key} = {wanted}"))
}

pub fn file(world: &World, nodes: &[Name], path: &str, texts: &[String]) -> Result<String, String> {
    for (node, machine) in each(world, nodes) {
        let content = machine.files.read(path).ok_or_else(|| format!("{node} has no {path}"))?;
        if let Some(missing) = texts.iter().find(|text| !content.contains(text.as_str())) {
            return Err(format!("{path} on {node} does not say {missing:?}"));
        }
    }
    Ok(format!("{path} says so"))
}

/// A packet of the node's pods towards another node's would pass the FORWARD hook, and the links
/// it crosses forward; else every node where not, and why.
pub fn forwards(world: &World, nodes: &[Name]) -> Result<String, String> {
    let wrong: Vec<String> =
        each(world, nodes).filter_map(|(node, machine)| drops(world, node, machine)).collect();
    if wrong.is_empty() { Ok(String::new()) } else { Err(wrong.join("; ")) }
}

fn drops(world: &World, node: &Name, machine: &Machine) -> Option<String> {
    let spec = world.scenario.nodes.iter().find(|n| n.name == *node)?;
    let state = machine.kernel.state();
    for name in [&spec.bridge, &spec.interface] {
        let link = state.links.iter().find(|link| link.name == *name);
        if !link.is_some_and(|link| link.forwarding) {
            return Some(format!("{node}: net.ipv4.conf.{name}.forwarding is not 1"));
        }
    }
    let subnet = announced_subnet(machine).and_then(|net| net.parse::<Ipv4Net>().ok());
    let Some(subnet) = subnet else { return Some(format!("{node} has no pod subnet")) };
    let culprit =
        || format!("{node}: FORWARD drops pods' packets: {}", oracles::forward_culprit(machine));
    (!passes(world, machine, spec, subnet)).then(culprit)
}

/// What keeps pods' packets from arriving now: a route that leads astray, or nodes that do not
/// forward, in words.
pub fn cause(world: &World) -> Option<String> {
    let stale = oracles::stale_routes(world, &[]).into_iter().next();
    stale.or_else(|| {
        let nodes = world.scenario.nodes.iter().map(|node| node.name.clone());
        let on =
            |name: &Name| world.machine_named(name).is_some_and(|m| world.machines[m as usize].on);
        let on: Vec<Name> = nodes.filter(on).collect();
        forwards(world, &on).err()
    })
}

fn passes(world: &World, machine: &Machine, spec: &crate::scenario::Node, subnet: Ipv4Net) -> bool {
    let pods = world.scenario.cluster.pod_network;
    let from = subnet.hosts().nth(1).unwrap_or(subnet.addr());
    let to = pods.hosts().find(|ip| !subnet.contains(ip)).unwrap_or(pods.addr());
    let mut packet = Packet {
        src: from,
        dst: to,
        ttl: 63,
        dont_fragment: true,
        len: 84,
        segment: 84,
        l4: L4::Icmp(Icmp::EchoRequest { id: 1, seq: 1 }),
        body: Default::default(),
        mark: 0,
        ct: Ct::None,
    };
    let Some(mut netfilter) = machine.kernel.netfilter(NsId::HOST).cloned() else { return false };
    let context = HookContext {
        now: world.now,
        input: Some(&spec.bridge),
        output: Some(&spec.interface),
        physdev_in: false,
        sent_on: false,
        has_type: &|_, is| is == AddrType::Unicast,
        masquerade_to: &|_| None,
    };
    let mut rng = Rng::new(Stream { seed: 0, label: "judge", index: 0, incarnation: 0 });
    let before = netfilter.hook(Hook::Prerouting, &mut packet, &context, &mut rng);
    before == Passes::Accept
        && netfilter.hook(Hook::Forward, &mut packet, &context, &mut rng) == Passes::Accept
}

pub fn reassigned(
    world: &World,
    history: &History,
    from: &Name,
    to: &Name,
) -> Result<String, String> {
    let old = history.cidrs.get(from).ok_or_else(|| format!("{from} never had a subnet"))?;
    let gone = world.object(
        kubesim_actors::objects::Kind::Node,
        &kubesim_actors::objects::Key::cluster(from.clone()),
    );
    match history.cidrs.get(to) {
        Some(new) if new == old && gone.is_none() => Ok(format!("{new} went from {from} to {to}")),
        Some(new) => Err(format!("{to} has {new}, and {from} had {old}")),
        None => Err(format!("{to} has no subnet yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_any_text() {
        assert!(fits("-A KUBE-SVC-* -j KUBE-SEP-*", "-A KUBE-SVC-ABC -m x -j KUBE-SEP-D"));
        assert!(fits("*dport 80*", "-A X --dport 80 -j Y"));
        assert!(!fits("-A X", "-A X -j Y"));
        assert!(!fits("-A *-j Z", "-A X -j Y"));
    }
}
