use super::super::fields::Fields;
use super::super::keys;
use super::super::model::{Address, Network, Node, Software, SoftwareKind, Span};
use super::super::tree::Value;
use super::super::value::{self, Wrong};
use super::Reader;
use kubesim_actors::objects::Name;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// More than any machine can simulate; keeps a slip of the finger from filling the memory.
const MOST_NODES: i64 = 100_000;

impl Reader<'_> {
    pub fn nodes(&self, top: Fields<'_>, networks: &[Network]) -> Vec<Node> {
        top.required("node");
        let mut nodes = Vec::new();
        let mut templates = Vec::new();
        let mut racks = 0;
        for item in top.tables("node") {
            let f = Fields::open(self.log, item, &[&keys::NODE]);
            let first = self.node_template(f, networks);
            self.unique(&mut templates, "node", &first.name, f.place("name"));
            let count = f.int("count", 1..=MOST_NODES);
            let rack_size = f.int("rack-size", 1..=MOST_NODES);
            // The last one has the longest name.
            let last = count.filter(|_| f.has("count"));
            let last = last.map_or(first.name.to_string(), |last| format!("{}{last}", first.name));
            self.node_name(f, &last);
            for index in 0..count.unwrap_or(1) {
                let mut node = first.clone();
                if f.has("count") {
                    node.name = Name::from(format!("{}{}", first.name, index + 1));
                }
                node.rack =
                    rack_size.map(|size| Name::from(format!("rack-{}", racks + index / size + 1)));
                if let (Address::Static(start), Some(network)) =
                    (first.address, networks.iter().find(|n| n.name == first.network))
                {
                    let address = Ipv4Addr::from(u32::from(start).wrapping_add(index as u32));
                    node.address = Address::Static(address);
                    let fits =
                        network.cidr.contains(&address) && address != network.cidr.broadcast();
                    if !fits && network.cidr.contains(&start) {
                        let message = format!(
                            "`{}` has no room for {} machines from {start} on",
                            network.cidr,
                            count.unwrap_or(1)
                        );
                        f.error("address", message, "");
                        break;
                    }
                    if network.cidr.contains(&start)
                        && !self.take(f.place("address"), network, address, &node.name)
                    {
                        break;
                    }
                }
                nodes.push(node);
            }
            if let Some(size) = rack_size {
                racks += (count.unwrap_or(1) + size - 1) / size;
            }
        }
        nodes
    }

    fn node_template(&self, f: Fields<'_>, networks: &[Network]) -> Node {
        let name = f.required_name("name");
        let network = self.required_reference(f, "network", "network", &self.names.networks);
        let lan = networks.iter().find(|n| n.name == network);
        let bridge = self.link_name(f, "bridge", "cni0", &["lo"]);
        Node {
            template: name.clone(),
            name,
            server: f.word("role", &[("server", true), ("worker", false)]).unwrap_or(false),
            rack: None,
            interface: self.link_name(f, "interface", "eth0", &["lo", bridge.as_str()]),
            address: self.node_address(f, lan),
            network,
            labels: self.label_map(f, "labels"),
            taints: self.taints(f),
            cpu_millis: self.quantity(f, "cpu", value::cpu).unwrap_or(4000),
            memory_bytes: self.quantity(f, "memory", value::memory).unwrap_or(8 << 30),
            max_pods: f.u32("max-pods", 110),
            off: self.is_off(f),
            boot_delay: self.boot_delay(f),
            sysctls: self.sysctls(f),
            files: self.files_of(f),
            software: self.software(f),
            bridge,
        }
    }

    fn files_of(&self, f: Fields<'_>) -> BTreeMap<Name, String> {
        for entry in f.entries("files") {
            self.file_path(entry.key_at, &entry.key);
        }
        f.text_map("files").into_iter().map(|(path, text)| (Name::from(path), text)).collect()
    }

    fn is_off(&self, f: Fields<'_>) -> bool {
        let off = f.bool("off", false);
        if off && f.text("role") == Some("server") {
            let message = format!("the server `{}` is off", f.text("name").unwrap_or_default());
            let help =
                "nobody could join before it; give it a `boot-delay`, or a fault `power-off`";
            f.error("off", message, help);
        }
        off
    }

    fn boot_delay(&self, f: Fields<'_>) -> Span {
        let delay = f.span("boot-delay").unwrap_or_default();
        self.within_run(f, "boot-delay", delay.to);
        delay
    }

    /// The name of a link that the kernel takes (dev_valid_name, net/core/dev.c), and that is none
    /// of its sysctls' (sysctl_dev_name_is_allowed, include/net/ip.h). With a `%` it is a pattern,
    /// in whose place the kernel takes a free number (__dev_alloc_name, net/core/dev.c).
    fn link_name(&self, f: Fields<'_>, key: &str, default: &str, taken: &[&str]) -> Name {
        const LONGEST: usize = 15;
        let name = f.text(key).unwrap_or(default);
        let odd = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace();
        if name.is_empty()
            || name.len() > LONGEST
            || name.contains(odd)
            || [".", "..", "all", "default"].contains(&name)
        {
            let help =
                "1 to 15 bytes without `/`, `:`, `%` and blanks, not all or default, like eth0";
            f.error(key, format!("`{name}` is no name of a link"), help);
        } else if taken.contains(&name) || name.starts_with("kubesim.") {
            let message = format!("`{name}` is the name of another link of every node");
            f.error(key, message, "take a name like eth0, wlan0 or cni0");
        }
        Name::from(name)
    }

    fn node_address(&self, f: Fields<'_>, lan: Option<&Network>) -> Address {
        let dhcp = !f.has("address") || f.item("address").and_then(|i| i.text()) == Some("dhcp");
        let Some(lan) = lan else { return Address::Dhcp };
        if !dhcp {
            return self.inside(f, "address", lan.cidr).map_or(Address::Dhcp, Address::Static);
        }
        if lan.dhcp.is_none() {
            let message = format!("the network `{}` has no DHCP server", lan.name);
            let at = f.place_of(&["address", "network"]);
            self.log.error(at, message, "give it a dhcp table, or the node an address");
        }
        Address::Dhcp
    }

    fn taints(&self, f: Fields<'_>) -> Vec<String> {
        for (text, at) in f.texts("taints") {
            self.taint(at, text);
        }
        f.strings("taints")
    }

    /// A Kubernetes quantity, as a text or an integer.
    pub fn quantity(
        &self,
        f: Fields<'_>,
        key: &str,
        parse: fn(&str) -> Result<u64, Wrong>,
    ) -> Option<u64> {
        let item = f.item(key)?;
        let quantity = match &item.value {
            Value::Text(text) => parse(text),
            Value::Int(number) => parse(&number.to_string()),
            _ => Err(Wrong::Form),
        };
        match quantity {
            Ok(quantity) => return Some(quantity),
            Err(Wrong::Form) => {
                let message = format!("`{key}` is not a quantity");
                f.error(key, message, "write it like \"500m\" or \"8Gi\"");
            }
            Err(Wrong::TooLarge) => {
                // 2^64 thousandths of a processor, 2^64 bytes.
                let most = if key == "cpu" { "18446744073709551" } else { "16777215Ti" };
                f.error(key, format!("`{key}` is too large, the most is {most}"), "");
            }
        }
        None
    }

    fn sysctls(&self, f: Fields<'_>) -> Vec<(String, i64)> {
        let mut sysctls = Vec::new();
        for entry in f.entries("sysctls") {
            match &entry.item.value {
                Value::Int(value) => {
                    self.sysctl_key(entry.key_at, &entry.key);
                    self.sysctl_value(entry.item.at, &entry.key, *value);
                    sysctls.push((entry.key.clone(), *value));
                }
                _ => self.log.error(
                    entry.item.at,
                    format!("the sysctl is {}, expected an integer", entry.item.kind()),
                    "quote its name: \"net.ipv4.ip_forward\" = 1",
                ),
            }
        }
        sysctls
    }

    fn software(&self, f: Fields<'_>) -> Vec<Software> {
        let mut software = Vec::new();
        for item in f.tables("software") {
            let s = Fields::open(self.log, item, &[&keys::SOFTWARE]);
            s.required("kind");
            if let Some(kind) = self.software_kind(s, "kind") {
                software.push(Software { kind, start: s.duration("start").unwrap_or_default() });
            }
        }
        software
    }

    pub fn software_kind(&self, f: Fields<'_>, key: &str) -> Option<SoftwareKind> {
        let version = f.text("version").unwrap_or("1.13");
        let numbers = version.split_once('.').and_then(|(major, rest)| {
            let minor = rest.split('.').next()?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let Some((major, minor)) = numbers else {
            f.error("version", format!("`{version}` is not a version"), "write it like \"1.13\"");
            return None;
        };
        let kind = f.word(
            key,
            &[
                ("docker", SoftwareKind::Docker { major, minor }),
                ("ufw", SoftwareKind::Ufw),
                ("network-manager", SoftwareKind::NetworkManager),
            ],
        )?;
        if f.has("version") && !matches!(kind, SoftwareKind::Docker { .. }) {
            f.error("version", "only docker has a `version` here", "leave it out");
        }
        Some(kind)
    }
}
