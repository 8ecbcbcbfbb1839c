//! What a node's network has, in the words of the tools that print it: the modelled kernel's, and
//! the real one's, asked itself and not by way of the model: its lines are read by nothing that
//! could lose a word of them. Each line that only one of the two has is a difference, so nothing is
//! left out because the model has no word for it.

use super::{connections, others};
use kubesim_actors::ports::network::LinkKind;
use kubesim_actors::ports::rules::FlatSettings;
use kubesim_runtime::Time;
use kubesim_sim::kernel::netfilter::Netfilter;
use kubesim_sim::kernel::{Kernel, Link, NsId};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::fs::File;
use std::process::Command;

#[derive(Debug, Default, PartialEq)]
pub struct Tables {
    /// Device by device but the pods': its kind, MTU and whether it is up.
    pub links: Vec<String>,
    pub addresses: Vec<String>,
    /// `ip route show table all`, with what the cables say of them.
    pub routes: Vec<String>,
    /// `ip rule`
    pub routing_rules: Vec<String>,
    /// `bridge fdb`: what is behind which peer.
    pub fdb: Vec<String>,
    /// `ip neigh`: those that do not age.
    pub neighbours: Vec<String>,
    /// `iptables-save`
    pub rules: String,
    /// The proxy's own table of nf_tables, and those that the model has no word for.
    pub nftables: Vec<String>,
    /// `conntrack -L`, of each connection what two runs have in common.
    pub connections: Vec<String>,
    /// `wg show`, without times and counts.
    pub wireguard: Vec<String>,
    /// `ipvsadm -Sn`
    pub virtuals: Vec<String>,
}

/// Programs that read the real ones, and Debian's packages of them.
pub const PROGRAMS: [(&str, &str); 2] = [("ip", "iproute2"), ("bridge", "iproute2")];

impl Tables {
    /// `settings`: what a table of the proxy depends on beside its elements.
    pub fn modelled(kernel: &Kernel, now: Time, settings: FlatSettings) -> Result<Tables, String> {
        let host = NsId::HOST;
        let links = || kernel.links(host).filter(|link| !is_a_pods(link));
        let addresses = links().flat_map(|link| {
            link.addresses.iter().map(|address| {
                let scope = address.scope_word();
                format!("{} scope {scope} on {}", address.net, link.name)
            })
        });
        let rules = kernel.netfilter(host);
        let connections = rules.map(|rules| rules.conntrack_list(now)).unwrap_or_default();
        let routes = kernel.ip_route(host) + &kernel.ip_route_local(host);
        let elements = rules.into_iter().flat_map(Netfilter::elements).collect();
        Ok(Tables {
            links: links()
                .map(|link| {
                    described(&link.name, kind_name(link.link_kind()), link.mtu.into(), link.up)
                })
                .collect(),
            addresses: addresses.collect(),
            routes: routes.lines().map(route).collect(),
            routing_rules: kernel.ip_rule().lines().map(words).collect(),
            fdb: kernel.bridge_fdb(host).lines().filter(|line| is_given(line)).map(words).collect(),
            neighbours: permanent(&kernel.ip_neigh(host)),
            rules: rules.map(|rules| rules.save(None)).unwrap_or_default(),
            nftables: others::modelled_table(settings, elements)?,
            connections: connections::lines(&connections),
            wireguard: others::modelled_tunnels(kernel),
            virtuals: rules.map(Netfilter::ipvsadm_save).unwrap_or_default(),
        })
    }

    /// Of a network namespace. Takes as long as six processes, and one more for each table of
    /// nf_tables and for virtual services.
    pub fn real(namespace: &File) -> Result<Tables, String> {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| format!("entering a node's network namespace: {errno}"))?;
        let Devices { links, addresses, wireguard } = links(&said("ip", "-j -d addr show")?)?;
        let rules = said("iptables-save", "")?;
        let mut nftables = others::own_table()?;
        nftables.extend(others::foreign_tables(rules.contains(" (nf_tables) "))?);
        Ok(Tables {
            links,
            addresses,
            routes: said("ip", "-4 route show table all")?.lines().map(route).collect(),
            routing_rules: said("ip", "-4 rule show")?.lines().map(words).collect(),
            fdb: said("bridge", "fdb show")?
                .lines()
                .filter(|line| is_given(line))
                .map(words)
                .collect(),
            neighbours: permanent(&said("ip", "-4 neigh show nud permanent")?),
            rules,
            nftables,
            connections: connections::real()?,
            wireguard: others::real_tunnels(&wireguard)?,
            virtuals: others::real_virtuals()?,
        })
    }
}

/// What a program prints, in the calling thread's network namespace.
pub fn said(program: &str, arguments: &str) -> Result<String, String> {
    let done = Command::new(program).args(arguments.split_whitespace()).output();
    let done = done.map_err(|error| format!("running {program}: {error}"))?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        return Err(format!("{program} {arguments}: {}", why.trim()));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Its other end is in a pod. How many there are, the pods themselves say.
fn is_a_pods(link: &Link) -> bool {
    link.link_kind() == LinkKind::Veth && link.master.is_some()
}

/// As `ip -d link` calls it.
fn kind_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Loopback => "loopback",
        LinkKind::Uplink => "card",
        LinkKind::Bridge => "bridge",
        LinkKind::Vxlan => "vxlan",
        LinkKind::Veth => "veth",
        LinkKind::Dummy => "dummy",
        LinkKind::Wireguard => "wireguard",
    }
}

fn described(name: &str, kind: &str, mtu: u64, up: bool) -> String {
    format!("{name}: {kind}, mtu {mtu}, {}", if up { "up" } else { "down" })
}

/// Devices that a kernel whose tunnel modules are loaded puts, down, into each namespace
/// (ip_tunnel_init_net, net/ipv4/ip_tunnel.c; net.core.fb_tunnels_only_for_init_net).
const FALLBACKS: [&str; 9] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0"];

/// What an `ip -j -d addr show` tells.
#[derive(Debug, Default, PartialEq)]
struct Devices {
    links: Vec<String>,
    addresses: Vec<String>,
    /// Names and numbers of WireGuard's.
    wireguard: Vec<(String, u32)>,
}

fn links(json: &str) -> Result<Devices, String> {
    let all: Vec<Value> =
        serde_json::from_str(json).map_err(|error| format!("reading ip's JSON: {error}"))?;
    let mut found = Devices::default();
    for link in &all {
        let text = |pointer: &str| link.pointer(pointer).and_then(Value::as_str);
        let name = text("/ifname").unwrap_or("?");
        let kind = match text("/linkinfo/info_kind").or(text("/link_type")) {
            // A lab's network card is a TAP.
            Some("tun") => "card",
            kind => kind.unwrap_or("?"),
        };
        let flags = link["flags"].as_array();
        let up = flags.is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
        if kind == "veth" && text("/master").is_some() || !up && FALLBACKS.contains(&name) {
            continue;
        }
        if kind == "wireguard" {
            let index = link["ifindex"].as_u64().unwrap_or_default() as u32;
            found.wireguard.push((name.to_owned(), index));
        }
        found.links.push(described(name, kind, link["mtu"].as_u64().unwrap_or_default(), up));
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let (local, length) = (&address["local"], &address["prefixlen"]);
            let scope = address["scope"].as_str().unwrap_or_default();
            let local = local.as_str().unwrap_or("?");
            found.addresses.push(format!("{local}/{length} scope {scope} on {name}"));
        }
    }
    Ok(found)
}

/// A line without the spaces that tools leave at its end or between columns.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A route. Which next hop object has its gateway says nothing; and whether the pods' bridge has a
/// carrier says whether a pod of those that may be anywhere is here.
fn route(line: &str) -> String {
    let (mut kept, pods) = (Vec::new(), line.contains(" dev cni0 "));
    let mut all = line.split_whitespace();
    while let Some(word) = all.next() {
        match word {
            "nhid" => drop(all.next()),
            "linkdown" if pods => {}
            word => kept.push(word),
        }
    }
    kept.join(" ")
}

/// What somebody wrote into a table of a bridge or tunnel, not what it learned.
fn is_given(line: &str) -> bool {
    line.contains(" dst ") || line.contains(" static")
}

fn permanent(neighbours: &str) -> Vec<String> {
    let permanent = |line: &&str| line.trim_end().ends_with(" PERMANENT");
    neighbours.lines().filter(permanent).map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_what_it_says_and_not_how() {
        let line = "10.244.1.0/24 nhid 7 via 10.0.0.2 dev eth0 proto 98 onlink linkdown ";
        assert_eq!(route(line), "10.244.1.0/24 via 10.0.0.2 dev eth0 proto 98 onlink linkdown");
        let own = "10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1";
        assert_eq!(route(&format!("{own} linkdown ")), own);
        assert_eq!(route("blackhole 10.97.0.0/16 "), "blackhole 10.97.0.0/16");
    }

    #[test]
    fn devices_are_read_but_those_of_pods() {
        let json = r#"[
            {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "mtu": 65536, "link_type": "loopback",
             "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8,
              "scope": "host"}]},
            {"ifname": "eth0", "flags": ["UP"], "mtu": 1500, "link_type": "ether",
             "linkinfo": {"info_kind": "tun"}, "addr_info": []},
            {"ifname": "veth1", "flags": ["UP"], "mtu": 1450, "link_type": "ether",
             "master": "cni0", "linkinfo": {"info_kind": "veth"}, "addr_info": []},
            {"ifname": "tunl0", "flags": [], "mtu": 1480, "link_type": "ipip",
             "linkinfo": {"info_kind": "ipip"}, "addr_info": []},
            {"ifname": "wg", "ifindex": 7, "flags": ["UP"], "mtu": 1420, "link_type": "none",
             "linkinfo": {"info_kind": "wireguard"}, "addr_info": []},
            {"ifname": "evil", "flags": [], "mtu": 1500, "link_type": "ether",
             "linkinfo": {"info_kind": "macvlan"}, "addr_info": []}]"#;
        let found = links(json).expect("JSON");
        let expected = [
            "lo: loopback, mtu 65536, up",
            "eth0: card, mtu 1500, up",
            "wg: wireguard, mtu 1420, up",
            "evil: macvlan, mtu 1500, down",
        ];
        let expected = Devices {
            links: expected.map(String::from).into(),
            addresses: vec!["127.0.0.1/8 scope host on lo".into()],
            wireguard: vec![("wg".into(), 7)],
        };
        assert_eq!(found, expected);
    }
}
