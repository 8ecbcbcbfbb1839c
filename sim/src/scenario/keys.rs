//! Every key of the language, the one table that the parser checks against and that the reference
//! (`docs/scenario-language.md`) is checked against.

/// A kind of table.
pub struct Section {
    /// As it is written: `[[network]]`, `[[fault]] kind = "move"`.
    pub heading: &'static str,
    pub keys: &'static [Key],
}

pub struct Key {
    pub name: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// `required`, or what holds when it is absent; empty when absence just means none.
    pub default: &'static str,
}

macro_rules! sections {
    ($($id:ident $heading:literal { $($name:literal: $kind:literal = $default:literal,)* })*) => {
        $(pub static $id: Section = Section {
            heading: $heading,
            keys: &[$(Key { name: $name, kind: $kind, default: $default },)*],
        };)*
        /// In the order of the reference.
        pub static SECTIONS: &[&Section] = &[$(&$id,)*];
    };
}

sections! {
    ROOT "the file" {
        "name": "text" = "required",
        "title": "text" = "",
        "shows": "text" = "",
        "seen": "texts" = "",
        "seeds": "text" = "",
        "duration": "duration" = "required",
        "invariants": "texts" = "all",
        "cluster": "table" = "",
        "network": "tables" = "required",
        "link": "tables" = "",
        "upstream": "tables" = "",
        "client": "tables" = "",
        "node": "tables" = "required",
        "image": "tables by name" = "",
        "workload": "tables" = "",
        "fault": "tables" = "",
        "probe": "tables" = "",
        "expect": "tables" = "",
        "profile": "tables by name" = "",
        "lab": "table" = "",
    }
    SPAN "a span of time" {
        "from": "duration" = "required",
        "to": "duration" = "required",
    }
    CLUSTER "[cluster]" {
        "pod-network": "network" = "10.244.0.0/16",
        "service-network": "network" = "10.96.0.0/12",
        "node-mask": "integer" = "24",
        "backend": "`host-gw`, `vxlan`, `wireguard`" = "vxlan",
        "direct-routing": "boolean" = "false",
        "vni": "integer" = "1",
        "vxlan-port": "port" = "8472",
        "node-ports": "text" = "30000-32767",
        "dns": "boolean" = "true",
        "dns-address": "address" = "the tenth of the service network",
        "domain": "text" = "cluster.local",
        "pod-records": "boolean" = "false",
        "dns-upstreams": "addresses or path" = "/etc/resolv.conf",
        "proxy": "boolean" = "true",
        "proxy-mode": "`iptables`, `nftables`, `ipvs`" = "iptables",
        "proxy-min-sync": "duration" = "1s",
        "proxy-resync": "duration" = "30s",
        "netd-resync": "duration" = "10s",
        "lease-duration": "duration" = "40s",
        "status-period": "duration" = "5m",
        "node-grace": "duration" = "50s",
        "node-monitor": "duration" = "5s",
        "history": "integer" = "10000",
        "watch-delay": "duration or span" = "0s",
        "overlap": "`refuse`, `accept`" = "refuse",
        "netd": "`kubesim`, `flannel`" = "kubesim",
        "dns-program": "`kubesim`, `kube-dns`" = "kubesim",
    }
    NETWORK "[[network]]" {
        "name": "text" = "required",
        "cidr": "network" = "required",
        "gateway": "address" = "the first of the network",
        "mtu": "integer" = "1500",
        "latency": "duration" = "100us",
        "jitter": "duration" = "0s",
        "loss": "share" = "0",
        "duplicate": "share" = "0",
        "reorder": "share" = "0",
        "dhcp": "table" = "",
    }
    DHCP "[network.dhcp]" {
        "first": "address" = "required",
        "last": "address" = "required",
        "lease": "duration" = "1h",
        "dns": "addresses" = "the gateway",
    }
    LINK "[[link]]" {
        "name": "text" = "the two networks, joined by `-`",
        "between": "two networks" = "required",
        "nat": "network" = "",
        "mtu": "integer" = "1500",
        "latency": "duration" = "1ms",
        "jitter": "duration" = "0s",
        "loss": "share" = "0",
        "duplicate": "share" = "0",
        "reorder": "share" = "0",
    }
    UPSTREAM "[[upstream]]" {
        "name": "text" = "required",
        "network": "network's name" = "required",
        "address": "address" = "required",
        "latency": "duration" = "1ms",
        "records": "table" = "",
        "ttl": "duration" = "30s",
        "behaviour": "`answer`, `hang`, `refuse`, `servfail`, `nxdomain`" = "answer",
    }
    CLIENT "[[client]]" {
        "name": "text" = "required",
        "network": "network's name" = "required",
        "address": "address" = "required",
        "routes": "tables" = "",
    }
    ROUTE "[[client.routes]]" {
        "to": "network" = "required",
        "via": "address" = "required",
    }
    NODE "[[node]]" {
        "name": "text" = "required",
        "count": "integer" = "one machine of that very name",
        "rack-size": "integer" = "",
        "role": "`server`, `worker`" = "worker",
        "network": "network's name" = "required",
        "interface": "text" = "eth0",
        "address": "`dhcp` or address" = "dhcp",
        "labels": "table" = "",
        "taints": "texts" = "",
        "cpu": "quantity" = "4",
        "memory": "quantity" = "8Gi",
        "max-pods": "integer" = "110",
        "bridge": "text" = "cni0",
        "off": "boolean" = "false",
        "boot-delay": "duration or span" = "0s",
        "sysctls": "table" = "",
        "files": "table" = "",
        "software": "tables" = "",
    }
    SOFTWARE "[[node.software]]" {
        "kind": "`docker`, `ufw`, `network-manager`" = "required",
        "version": "text" = "1.13",
        "start": "duration" = "0s",
    }
    IMAGE "[image.\"NAME\"]" {
        "pull": "duration or span" = "1s",
        "start": "duration or span" = "100ms",
        "stop": "duration or span" = "50ms",
        "tcp": "ports" = "",
        "udp": "ports" = "",
        "http": "tables" = "",
        "stream": "tables" = "",
        "crash": "table" = "",
    }
    HTTP "[[image.\"NAME\".http]]" {
        "port": "port" = "80",
        "path": "text" = "/",
        "status": "integer" = "200",
        "delay": "duration or span" = "1ms",
        "text": "text" = "",
        "calls": "tables" = "",
    }
    CALL "[[image.\"NAME\".http.calls]]" {
        "host": "text" = "required",
        "port": "port" = "required",
        "find": "`env`, `dns`, `$VARIABLE`" = "dns",
    }
    STREAM "[[image.\"NAME\".stream]]" {
        "host": "text" = "required",
        "port": "port" = "required",
        "find": "`env`, `dns`, `$VARIABLE`" = "dns",
        "every": "duration" = "100ms",
    }
    CRASH "[image.\"NAME\".crash]" {
        "after": "duration or span" = "required",
        "code": "integer" = "1",
        "times": "integer" = "every start",
    }
    WORKLOAD "[[workload]]" {
        "name": "text" = "required",
        "at": "duration or span" = "0s",
        "manifests": "texts" = "",
        "yaml": "text" = "",
        "object": "table or tables" = "",
        "generate": "table" = "",
    }
    GENERATE "[workload.generate]" {
        "deployments": "integer" = "required",
        "replicas": "integer" = "required",
        "image": "image" = "required",
        "port": "port" = "80",
        "services": "boolean" = "true",
        "namespace": "text" = "default",
        "labels": "table" = "",
        "cpu": "quantity" = "100m",
        "memory": "quantity" = "64Mi",
        "max-surge": "text" = "25%",
        "max-unavailable": "text" = "25%",
    }
    FAULT "[[fault]]" {
        "name": "text" = "the kind and its number",
        "kind": "text" = "required",
        "at": "duration or span" = "required",
    }
    FAULT_MOVE "[[fault]] kind = \"move\"" {
        "node": "node" = "required",
        "network": "network's name" = "required",
        "outage": "duration or span" = "1s",
        "address": "address" = "",
    }
    FAULT_LINK_DOWN "[[fault]] kind = \"link-down\"" {
        "node": "node" = "",
        "link": "link" = "",
        "network": "network's name" = "",
        "lasts": "duration or span" = "until a `link-up`",
    }
    FAULT_LINK_UP "[[fault]] kind = \"link-up\"" {
        "node": "node" = "",
        "link": "link" = "",
        "network": "network's name" = "",
    }
    FAULT_PARTITION "[[fault]] kind = \"partition\"" {
        "from": "places" = "required",
        "to": "places" = "required",
        "one-way": "boolean" = "false",
        "lasts": "duration or span" = "required",
    }
    FAULT_DISTURB "[[fault]] kind = \"disturb\"" {
        "node": "node" = "",
        "link": "link" = "",
        "network": "network's name" = "",
        "latency": "duration" = "0s",
        "jitter": "duration" = "0s",
        "loss": "share" = "0",
        "duplicate": "share" = "0",
        "reorder": "share" = "0",
        "lasts": "duration or span" = "required",
    }
    FAULT_KILL "[[fault]] kind = \"kill\"" {
        "actor": "actor" = "required",
        "nodes": "nodes" = "required",
        "loss": "`process`, `power`, `disk`" = "process",
        "restart": "duration or span" = "never",
    }
    FAULT_STOP "[[fault]] kind = \"stop\"" {
        "actor": "actor" = "required",
        "nodes": "nodes" = "required",
    }
    FAULT_START "[[fault]] kind = \"start\"" {
        "actor": "actor" = "required",
        "nodes": "nodes" = "required",
    }
    FAULT_POWER_OFF "[[fault]] kind = \"power-off\"" {
        "nodes": "nodes" = "required",
        "lasts": "duration or span" = "until a `power-on`",
    }
    FAULT_POWER_ON "[[fault]] kind = \"power-on\"" {
        "nodes": "nodes" = "required",
    }
    FAULT_NODE_ADD "[[fault]] kind = \"node-add\"" {
        "nodes": "nodes" = "required",
    }
    FAULT_NODE_DELETE "[[fault]] kind = \"node-delete\"" {
        "nodes": "nodes" = "required",
        "power-off": "boolean" = "true",
    }
    FAULT_APPLY "[[fault]] kind = \"apply\"" {
        "manifests": "texts" = "",
        "yaml": "text" = "",
        "object": "table or tables" = "",
    }
    FAULT_PATCH "[[fault]] kind = \"patch\"" {
        "object": "`Kind/name`, `Kind/namespace/name`" = "",
        "of-kind": "kind" = "",
        "labels": "table" = "",
        "patch": "table" = "required",
    }
    FAULT_DELETE "[[fault]] kind = \"delete\"" {
        "object": "`Kind/name`, `Kind/namespace/name`" = "",
        "of-kind": "kind" = "",
        "labels": "table" = "",
    }
    FAULT_SCALE "[[fault]] kind = \"scale\"" {
        "object": "`Kind/name`, `Kind/namespace/name`" = "",
        "of-kind": "kind" = "",
        "labels": "table" = "",
        "replicas": "integer" = "required",
    }
    FAULT_WRITE_FILE "[[fault]] kind = \"write-file\"" {
        "nodes": "nodes" = "required",
        "path": "text" = "required",
        "how": "`rename`, `symlink`, `in-place`, `empty`" = "rename",
        "text": "text" = "",
    }
    FAULT_SYSCTL "[[fault]] kind = \"sysctl\"" {
        "nodes": "nodes" = "required",
        "key": "text" = "required",
        "value": "integer" = "required",
    }
    FAULT_IPTABLES "[[fault]] kind = \"iptables\"" {
        "nodes": "nodes" = "required",
        "command": "text" = "required",
    }
    FAULT_DHCP_PUSH_DNS "[[fault]] kind = \"dhcp-push-dns\"" {
        "network": "network's name" = "required",
        "dns": "addresses" = "required",
    }
    FAULT_START_SOFTWARE "[[fault]] kind = \"start-software\"" {
        "nodes": "nodes" = "required",
        "software": "`docker`, `ufw`" = "required",
        "version": "text" = "1.13",
    }
    FAULT_UPSTREAM "[[fault]] kind = \"upstream\"" {
        "upstream": "upstream's name" = "required",
        "behaviour": "`answer`, `hang`, `refuse`, `servfail`, `nxdomain`" = "required",
    }
    PROBE "[[probe]]" {
        "name": "text" = "required",
        "kind": "`http`, `tcp-stream`, `ping`, `dig`" = "required",
        "from": "table" = "required",
        "to": "table" = "required (a dig: the cluster DNS)",
        "start": "duration" = "0s",
        "until": "duration" = "the end",
        "every": "duration" = "1s (a stream: 100ms)",
        "once": "boolean" = "false",
        "timeout": "duration" = "1s",
    }
    PROBE_HTTP "[[probe]] kind = \"http\"" {
        "path": "text" = "/ (of the API: /readyz)",
        "status": "integer" = "200",
    }
    PROBE_DIG "[[probe]] kind = \"dig\"" {
        "query": "text" = "required",
        "record": "`A`, `AAAA`, `SRV`, `PTR`" = "A",
        "tcp": "boolean" = "false",
    }
    FROM "[probe.from]" {
        "node": "node" = "",
        "client": "client's name" = "",
        "pod": "`label=value,...`" = "",
        "name": "text" = "",
        "namespace": "text" = "any",
        "on": "node" = "any",
    }
    TO "[probe.to]" {
        "pod": "`label=value,...`" = "",
        "name": "text" = "",
        "namespace": "text" = "any",
        "on": "node" = "any",
        "service": "`name`, `namespace/name`" = "",
        "via": "`cluster-ip`, `external-ip` or node" = "cluster-ip",
        "node": "node" = "",
        "address": "address" = "",
        "host": "text" = "",
        "api": "boolean" = "",
        "dns": "boolean" = "",
        "port": "port" = "80",
    }
    EXPECT "[[expect]]" {
        "name": "text" = "required",
        "kind": "text" = "required",
    }
    DEADLINE "a deadline" {
        "by": "duration" = "the end",
        "after": "fault's name" = "",
        "moment": "`begins`, `ends`, `address-acquired`" = "begins",
        "within": "duration" = "",
    }
    PODS "pods" {
        "pod": "`label=value,...`" = "any",
        "pod-name": "text" = "any",
        "namespace": "text" = "any",
        "on": "node" = "any",
    }
    EXPECT_PODS_READY "[[expect]] kind = \"pods-ready\"" {
        "count": "integer" = "",
    }
    EXPECT_NODES_READY "[[expect]] kind = \"nodes-ready\"" {
        "nodes": "nodes" = "all",
    }
    EXPECT_PROBE "[[expect]] kind = \"probe\"" {
        "probe": "probe's name" = "required",
        "from": "duration" = "the probe's start",
        "until": "duration" = "the probe's end",
        "fails": "boolean" = "false",
    }
    EXPECT_RESUMES "[[expect]] kind = \"resumes\"" {
        "probe": "probe's name" = "required",
    }
    EXPECT_MAX_GAP "[[expect]] kind = \"max-gap\"" {
        "probe": "probe's name" = "required",
        "within": "duration" = "required",
    }
    EXPECT_SUBNET_KEPT "[[expect]] kind = \"subnet-kept\"" {
        "nodes": "nodes" = "all",
    }
    EXPECT_BRIDGE_KEPT "[[expect]] kind = \"bridge-kept\"" {
        "nodes": "nodes" = "all",
    }
    EXPECT_RESTARTS "[[expect]] kind = \"restarts\"" {
        "at-most": "integer" = "0",
    }
    EXPECT_ROUTES_CLEAN "[[expect]] kind = \"routes-clean\"" {
        "nodes": "nodes" = "all",
    }
    EXPECT_RULES "[[expect]] kind = \"rules\"" {
        "nodes": "nodes" = "all",
        "has": "texts" = "",
        "absent": "texts" = "",
        "proxy-mode": "`iptables`, `nftables`, `ipvs`" = "any",
    }
    EXPECT_REFUSED "[[expect]] kind = \"refused\"" {
        "actor": "actor" = "required",
        "text": "texts" = "required",
    }
    EXPECT_DNS_ANSWER "[[expect]] kind = \"dns-answer\"" {
        "probe": "probe's name" = "required",
        "answer": "addresses" = "required",
    }
    EXPECT_UPSTREAM_USED "[[expect]] kind = \"upstream-used\"" {
        "node": "node" = "required",
        "upstream": "upstream's name" = "required",
    }
    EXPECT_MTU "[[expect]] kind = \"mtu\"" {
        "nodes": "nodes" = "all",
        "interface": "text" = "required",
        "pods": "boolean" = "false",
        "mtu": "integer" = "required",
    }
    EXPECT_REPLICAS "[[expect]] kind = \"replicas\"" {
        "deployment": "`name`, `namespace/name`" = "required",
        "ready": "integer" = "required",
    }
    EXPECT_ROLLOUT "[[expect]] kind = \"rollout\"" {
        "labels": "table" = "",
    }
    EXPECT_SAYS "[[expect]] kind = \"says\"" {
        "actor": "actor" = "any",
        "node": "node" = "any",
        "text": "texts" = "required",
    }
    EXPECT_SYSCTL "[[expect]] kind = \"sysctl\"" {
        "nodes": "nodes" = "all",
        "key": "text" = "required",
        "value": "integer" = "required",
    }
    EXPECT_FILE "[[expect]] kind = \"file\"" {
        "nodes": "nodes" = "all",
        "path": "text" = "required",
        "contains": "texts" = "required",
    }
    EXPECT_FORWARDS "[[expect]] kind = \"forwards\"" {
        "nodes": "nodes" = "all",
    }
    EXPECT_SUBNET_REASSIGNED "[[expect]] kind = \"subnet-reassigned\"" {
        "from": "node" = "required",
        "to": "node" = "required",
    }
    PROFILE "[profile.NAME]" {
        "shows": "text" = "",
        "netd": "`kubesim`, `flannel`" = "kubesim",
        "dns": "`kubesim`, `kube-dns`" = "kubesim",
        "overlap": "`refuse`, `accept`" = "refuse",
        "set": "table" = "",
    }
    LAB "[lab]" {
        "set": "table" = "",
    }
}

/// The kinds of faults, in the order of the reference, with their keys.
pub fn faults() -> impl Iterator<Item = (&'static str, &'static Section)> {
    by_kind("[[fault]] kind = \"")
}

/// The kinds of expectations, with their keys.
pub fn expectations() -> impl Iterator<Item = (&'static str, &'static Section)> {
    by_kind("[[expect]] kind = \"")
}

fn by_kind(prefix: &'static str) -> impl Iterator<Item = (&'static str, &'static Section)> {
    SECTIONS.iter().filter_map(move |section| {
        let kind = section.heading.strip_prefix(prefix)?.strip_suffix('"')?;
        Some((kind, *section))
    })
}
