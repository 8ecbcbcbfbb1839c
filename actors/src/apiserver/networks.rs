//! Which networks may not overlap: pods, services and machines each need their own.
//!
//! An address in two of them is answered by whoever is nearer, and nothing says so; hence the
//! refusal before the first pod.

use super::Config;
use crate::objects::NodeStatus;
use crate::objects::validation::Causes;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Why the configured networks cannot work together, naming every pair that overlaps.
pub(super) fn overlap(config: &Config) -> Option<String> {
    let mut networks = vec![
        ("the pod network".to_owned(), config.pod_network),
        ("the service network".to_owned(), config.service_network),
    ];
    let nodes = config.node_networks.iter();
    networks.extend(nodes.map(|(name, net)| (format!("the node network {name:?}"), *net)));
    let mut found = Vec::new();
    // Two node networks may be one and the same segment under two names: routed, not ours to judge
    // unless they differ and still overlap.
    for (index, (a_role, a)) in networks.iter().enumerate() {
        for (b_role, b) in &networks[index + 1..] {
            let both_nodes = index >= 2;
            if overlaps(*a, *b) && !(both_nodes && a == b) {
                found.push(describe(a_role, *a, b_role, *b));
            }
        }
    }
    (!found.is_empty()).then(|| found.join("; "))
}

fn describe(a_role: &str, a: Ipv4Net, b_role: &str, b: Ipv4Net) -> String {
    let change = if a_role.contains("node") { "renumber one of them" } else { advice(a_role) };
    format!("{a_role} {a} overlaps {b_role} {b}: {change}")
}

fn advice(role: &str) -> &'static str {
    if role.contains("pod") {
        "choose another pod network (for example 10.244.0.0/16)"
    } else {
        "choose another service network (for example 10.96.0.0/16)"
    }
}

fn overlaps(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// A machine's address inside the pod or service network is the same mistake, found later.
pub(super) fn check_node(config: &Config, status: &NodeStatus, causes: &mut Causes) {
    if !config.refuse_overlap {
        return;
    }
    for (index, address) in status.addresses.iter().flatten().enumerate() {
        if address.type_ != "InternalIP" {
            continue;
        }
        let Ok(ip) = address.address.parse::<Ipv4Addr>() else {
            continue;
        };
        let roles =
            [("pod network", config.pod_network), ("service network", config.service_network)];
        for (role, network) in roles.iter().filter(|(_, network)| network.contains(&ip)) {
            let own = config.node_networks.iter().find(|(_, net)| net.contains(&ip));
            let own = own.map_or(format!("{ip}/32"), |(name, net)| format!("{name:?} {net}"));
            causes.invalid(
                format_args!("status.addresses[{index}].address"),
                format_args!("{ip:?}", ip = ip.to_string()),
                format_args!(
                    "the node's network {own} overlaps the {role} {network}: change the {role} \
                     or the node's address"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pods: &str, services: &str, nodes: &[(&str, &str)]) -> Config {
        let net = |text: &str| text.parse().expect("a network");
        Config {
            pod_network: net(pods),
            service_network: net(services),
            node_ports: (30000, 32767),
            node_networks: nodes.iter().map(|(n, c)| ((*n).to_owned(), net(c))).collect(),
            refuse_overlap: true,
            shared: false,
            service_accounts: false,
            volumes: false,
            history: 1000,
            memo: true,
        }
    }

    #[test]
    fn disjoint_networks_are_fine() {
        let nodes = [("home", "192.168.1.0/24"), ("cafe", "192.168.2.0/24")];
        assert_eq!(overlap(&config("10.244.0.0/16", "10.96.0.0/12", &nodes)), None);
    }

    #[test]
    fn each_overlap_names_both_ranges_and_roles() {
        let nodes = [("lan", "10.0.0.0/24")];
        let why = overlap(&config("10.0.0.0/16", "10.0.0.0/16", &nodes)).unwrap();
        assert!(
            why.contains("the pod network 10.0.0.0/16 overlaps the service network 10.0.0.0/16")
        );
        assert!(why.contains("overlaps the node network \"lan\" 10.0.0.0/24"), "{why}");
        assert!(why.contains("choose another"), "{why}");
    }
}
