//! What a scenario's cluster settings mean to each actor.

use super::build::{MANIFESTS, NET_CONF, NETD_MEMORY, RESOLV_CONF, SUBNET_ENV, VOLUMES};
use crate::scenario::{Address, Backend, DnsUpstreams, FaultKind, Manifest, Overlap, Scenario};
use kubesim_actors::objects::Kind;
use kubesim_actors::{apiserver, controllers, dns, kubelet, netd, proxy};
use kubesim_runtime::{Rng, Stream};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

/// flannel's network configuration, as the cluster's settings say.
pub(super) fn net_conf(scenario: &Scenario) -> String {
    let cluster = &scenario.cluster;
    let backend = match cluster.backend {
        Backend::HostGw => serde_json::json!({"Type": "host-gw"}),
        Backend::Vxlan { direct_routing, vni, port } => serde_json::json!({
            "Type": "vxlan", "VNI": vni, "Port": port, "DirectRouting": direct_routing,
        }),
        Backend::Wireguard => serde_json::json!({"Type": "wireguard"}),
    };
    let conf = serde_json::json!({
        "Network": cluster.pod_network.to_string(),
        "SubnetLen": cluster.node_mask,
        // flannel's own default leaves the first subnet out; our allocation of podCIDRs does not.
        "SubnetMin": cluster.pod_network.network().to_string(),
        "Backend": backend,
    });
    conf.to_string()
}

pub(super) fn server(scenario: &Scenario) -> Option<&crate::scenario::Node> {
    scenario.nodes.iter().find(|node| node.server)
}

/// Where a node looks for the API first: itself, or the server's first address.
pub(super) fn dial_first(scenario: &Scenario, is_server: bool) -> Vec<Ipv4Addr> {
    if is_server {
        return vec![Ipv4Addr::LOCALHOST];
    }
    server(scenario).and_then(|node| first_address(scenario, node)).into_iter().collect()
}

pub(super) fn first_address(scenario: &Scenario, node: &crate::scenario::Node) -> Option<Ipv4Addr> {
    match node.address {
        Address::Static(address) => Some(address),
        Address::Dhcp => {
            let lan = scenario.networks.iter().find(|n| n.name == node.network)?;
            let own = scenario
                .nodes
                .iter()
                .filter(|n| n.network == node.network && n.address == Address::Dhcp);
            let place = own.take_while(|n| n.name != node.name).count() as u32;
            Some(Ipv4Addr::from_bits(lan.dhcp.as_ref()?.first.to_bits() + place))
        }
    }
}

pub(super) fn apiserver_config(
    scenario: &Scenario,
    memo: bool,
    visitors: bool,
) -> apiserver::Config {
    let cluster = &scenario.cluster;
    apiserver::Config {
        pod_network: cluster.pod_network,
        service_network: cluster.service_network,
        node_ports: cluster.node_ports,
        node_networks: scenario
            .networks
            .iter()
            .filter(|network| scenario.nodes.iter().any(|node| node.network == network.name))
            .map(|network| (network.name.to_string(), network.cidr))
            .collect(),
        refuse_overlap: cluster.overlap == Overlap::Refuse,
        shared: false,
        service_accounts: false,
        volumes: claims(scenario, visitors),
        history: cluster.history as usize,
        memo,
    }
}

pub(super) fn controllers_config(scenario: &Scenario, visitors: bool) -> controllers::Config {
    let (cluster, given) = (&scenario.cluster, given(scenario));
    controllers::Config {
        pod_network: cluster.pod_network,
        node_mask: cluster.node_mask,
        node_grace: cluster.node_grace,
        node_monitor: cluster.node_monitor,
        root_ca: None,
        collects: match visitors {
            true => controllers::collectable(),
            false => given.iter().copied().filter(|kind| *kind != Kind::Event).collect(),
        },
        events: visitors,
        endpoints: visitors,
        autoscales: visitors || given.contains(&Kind::HorizontalPodAutoscaler),
        volumes: claims(scenario, visitors),
    }
}

/// What the scenario itself gives to the API.
fn manifests(scenario: &Scenario) -> impl Iterator<Item = &Manifest> {
    let applied = scenario.faults.iter().flat_map(|fault| match &fault.kind {
        FaultKind::Apply { objects } => objects.as_slice(),
        _ => &[],
    });
    scenario.workloads.iter().flat_map(|workload| &workload.objects).chain(applied)
}

/// Whether anybody claims storage: else it would cost watches for nothing.
pub(super) fn claims(scenario: &Scenario, visitors: bool) -> bool {
    visitors || manifests(scenario).any(|manifest| manifest.claims)
}

/// The kinds of it.
fn given(scenario: &Scenario) -> BTreeSet<Kind> {
    manifests(scenario).map(|manifest| manifest.object.kind()).collect()
}

pub(super) fn kubelet_config(scenario: &Scenario, index: usize, visitors: bool) -> kubelet::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    kubelet::Config {
        node: node.name.clone(),
        labels: node.labels.clone(),
        taints: node.taints.clone(),
        interface: node.interface.clone(),
        cpu_millis: node.cpu_millis,
        memory_bytes: node.memory_bytes,
        max_pods: node.max_pods,
        cluster_dns: cluster.dns_address,
        cluster_domain: cluster.domain.clone(),
        subnet_env: SUBNET_ENV.into(),
        resolv_conf: RESOLV_CONF.into(),
        manifests: MANIFESTS.into(),
        lease_duration: cluster.lease_duration,
        volumes: if claims(scenario, visitors) { VOLUMES.into() } else { "".into() },
        events: visitors,
        sweeps: visitors || manifests(scenario).any(|manifest| manifest.host_ports),
        status_period: cluster.status_period,
    }
}

pub(super) fn netd_config(
    scenario: &Scenario,
    index: usize,
    seed: u64,
    is_server: bool,
) -> netd::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    let mut rng = Rng::new(Stream { seed, label: "node key", index: index as u64, incarnation: 0 });
    let mut key_seed = [0; 32];
    for chunk in key_seed.chunks_exact_mut(8) {
        chunk.copy_from_slice(&rng.u64().to_le_bytes());
    }
    let servers = server(scenario).and_then(|node| {
        let first = if is_server { Ipv4Addr::LOCALHOST } else { first_address(scenario, node)? };
        Some((node.name.clone(), first))
    });
    netd::Config {
        node: node.name.clone(),
        interface: node.interface.clone(),
        net_conf: NET_CONF.into(),
        subnet_env: SUBNET_ENV.into(),
        memory: NETD_MEMORY.into(),
        bridge: node.bridge.clone(),
        key_seed,
        servers: servers.into_iter().collect(),
        service_network: cluster.service_network,
        resync: cluster.netd_resync,
    }
}

pub(super) fn proxy_config(scenario: &Scenario, index: usize) -> proxy::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    proxy::Config {
        mode: cluster.proxy_mode,
        node: node.name.clone(),
        cluster_cidr: cluster.pod_network,
        min_sync: cluster.proxy_min_sync,
        resync: cluster.proxy_resync,
        interface: node.interface.clone(),
    }
}

pub(super) fn dns_config(scenario: &Scenario, index: usize) -> dns::Config {
    let (cluster, node) = (&scenario.cluster, &scenario.nodes[index]);
    dns::Config {
        node: node.name.clone(),
        listen: cluster.dns_address,
        cluster_domain: cluster.domain.clone(),
        service_network: cluster.service_network,
        pod_network: cluster.pod_network,
        pod_records: cluster.pod_records,
        upstreams: match &cluster.dns_upstreams {
            DnsUpstreams::Explicit(servers) => dns::Upstreams::Explicit(
                servers.iter().map(|ip| SocketAddrV4::new(*ip, 53)).collect(),
            ),
            DnsUpstreams::File(path) => dns::Upstreams::File(path.clone()),
        },
    }
}
