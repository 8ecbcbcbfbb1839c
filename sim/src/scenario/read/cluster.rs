use super::super::fields::Fields;
use super::super::keys;
use super::super::model::{Backend, Cluster, DnsProgram, DnsUpstreams, NetdProgram, Overlap};
use super::super::tree::{Item, Table, Value};
use super::Reader;
use super::network::nth;
use ipnet::Ipv4Net;
use kubesim_actors::objects::{Name, names};
use kubesim_actors::proxy::Mode;
use std::time::Duration;

pub const NETD: &[(&str, NetdProgram)] =
    &[("kubesim", NetdProgram::Kubesim), ("flannel", NetdProgram::Flannel)];
pub const DNS: &[(&str, DnsProgram)] =
    &[("kubesim", DnsProgram::Kubesim), ("kube-dns", DnsProgram::KubeDns)];
pub const MODE: &[(&str, Mode)] =
    &[("iptables", Mode::Iptables), ("nftables", Mode::Nftables), ("ipvs", Mode::Ipvs)];
pub const OVERLAP: &[(&str, Overlap)] = &[("refuse", Overlap::Refuse), ("accept", Overlap::Accept)];

impl Reader<'_> {
    pub fn cluster(&self, top: Fields<'_>, root: &Item) -> Cluster {
        let empty = Item { at: root.at, value: Value::Table(Table::default()) };
        let item = top.item("cluster").unwrap_or(&empty);
        let f = Fields::open(self.log, item, &[&keys::CLUSTER]);
        let net = |key, a, length| f.cidr(key).unwrap_or_else(|| network(a, length));
        let pod_network = net("pod-network", [10, 244, 0, 0], 16);
        let service_network = net("service-network", [10, 96, 0, 0], 12);
        let sound =
            self.roomy(f, "service-network", service_network, "the API's address and another");
        self.usable(f, "pod-network", pod_network, true);
        self.usable(f, "service-network", service_network, true);
        if let Some(domain) = f.text("domain") {
            self.named(f.place("domain"), "cluster domain", domain, names::subdomain(domain));
        }
        let seconds = |key, default| f.duration(key).unwrap_or(Duration::from_secs(default));
        let period = |key, default| self.period(f, key, default);
        Cluster {
            pod_network,
            service_network,
            node_mask: self.node_mask(f, pod_network),
            backend: self.backend(f),
            node_ports: self.node_ports(f),
            dns: f.bool("dns", true),
            dns_address: if sound {
                self.dns_address(f, service_network)
            } else {
                nth(service_network, 1)
            },
            domain: f.text("domain").unwrap_or("cluster.local").to_owned(),
            pod_records: f.bool("pod-records", false),
            dns_upstreams: self.dns_upstreams(f),
            proxy: f.bool("proxy", true),
            proxy_mode: f.word("proxy-mode", MODE).unwrap_or_default(),
            proxy_min_sync: seconds("proxy-min-sync", 1),
            proxy_resync: period("proxy-resync", 30),
            netd_resync: period("netd-resync", 10),
            lease_duration: period("lease-duration", 40),
            status_period: period("status-period", 300),
            node_grace: period("node-grace", 50),
            node_monitor: period("node-monitor", 5),
            history: f.u32("history", 10_000),
            watch_delay: f.span("watch-delay").unwrap_or_default(),
            overlap: f.word("overlap", OVERLAP).unwrap_or(Overlap::Refuse),
            netd: f.word("netd", NETD).unwrap_or(NetdProgram::Kubesim),
            dns_program: f.word("dns-program", DNS).unwrap_or(DnsProgram::Kubesim),
        }
    }

    /// How often something is done again and again, in seconds by default.
    fn period(&self, f: Fields<'_>, key: &str, default: u64) -> Duration {
        const SHORTEST: Duration = Duration::from_millis(100);
        let period = f.duration(key).unwrap_or(Duration::from_secs(default));
        if period < SHORTEST {
            let message = format!("`{key}` is too short");
            f.error(key, message, "at least 100ms: what is done again takes some time itself");
        }
        period
    }

    fn node_mask(&self, f: Fields<'_>, pod_network: Ipv4Net) -> u8 {
        let mask = f.int("node-mask", 8..=30).map_or(24, |mask| mask as u8);
        if mask <= pod_network.prefix_len() {
            let key = if f.has("node-mask") { "node-mask" } else { "pod-network" };
            let message =
                format!("a node's share, a /{mask}, is no part of the pod network {pod_network}");
            f.error(key, message, "`node-mask` must be longer than the pod network's prefix");
        }
        mask
    }

    fn backend(&self, f: Fields<'_>) -> Backend {
        let vxlan = Backend::Vxlan {
            direct_routing: f.bool("direct-routing", false),
            vni: f.int("vni", 1..=0xff_ffff).map_or(1, |vni| vni as u32),
            port: f.port("vxlan-port").unwrap_or(8472),
        };
        let words =
            [("host-gw", Backend::HostGw), ("vxlan", vxlan), ("wireguard", Backend::Wireguard)];
        let backend = f.word("backend", &words).unwrap_or(vxlan);
        if backend == Backend::Wireguard && f.text("netd") == Some("flannel") {
            let message = "the model of flannel has no `wireguard` backend";
            f.error("backend", message, "`host-gw` and `vxlan` it has; netd has all three");
        }
        backend
    }

    fn node_ports(&self, f: Fields<'_>) -> (u16, u16) {
        const DEFAULT: (u16, u16) = (30000, 32767);
        let Some(text) = f.text("node-ports") else {
            return DEFAULT;
        };
        let range = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        });
        match range {
            Some((first, last)) if 0 < first && first <= last => (first, last),
            _ => {
                let message = format!("`{text}` is not a range of ports");
                f.error("node-ports", message, "write it like 30000-32767");
                DEFAULT
            }
        }
    }

    /// A list is addresses, one text an address or a path.
    fn dns_upstreams(&self, f: Fields<'_>) -> DnsUpstreams {
        match f.item("dns-upstreams").and_then(Item::text) {
            Some(path) if path.starts_with('/') => DnsUpstreams::File(Name::from(path)),
            None if !f.has("dns-upstreams") => {
                DnsUpstreams::File(Name::new_static("/etc/resolv.conf"))
            }
            _ => DnsUpstreams::Explicit(f.addresses("dns-upstreams")),
        }
    }
}

fn network(address: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new(address.into(), length).expect("the defaults are networks")
}
