//! What a network may have that not every one does: WireGuard's devices, virtual services of IPVS,
//! tables of nf_tables: the proxy's, and those that are neither the proxy's nor iptables'.

use super::tables::said;
use crate::lab::needs::in_a_namespace;
use kubesim_actors::ports::network::{PublicKey, WireguardPeer};
use kubesim_actors::ports::rules::FlatSettings;
use kubesim_actors::ports::rules::flat::{FlatKey, FlatValue};
use kubesim_actors::proxy;
use kubesim_backends::network::wireguard::{self, Standing};
use kubesim_backends::rules::nftables;
use kubesim_sim::kernel::{Kernel, NsId};
use std::collections::BTreeSet;
use std::fs;

/// Devices of WireGuard and their peers, as `wg show` has them but for what was sent and when,
/// which are counts and times.
pub fn modelled_tunnels(kernel: &Kernel) -> Vec<String> {
    let mut lines = Vec::new();
    for (dev, key, port, peers) in kernel.wireguard_devices(NsId::HOST) {
        lines.push(tunnel(dev, Some(key), port));
        let each = |WireguardPeer { public_key, endpoint, allowed }| {
            format!("{dev}: peer {public_key}, endpoint {endpoint}, allowed {allowed}")
        };
        lines.extend(peers.into_iter().map(each));
    }
    lines
}

/// The same of devices with these names and numbers.
pub fn real_tunnels(devices: &[(String, u32)]) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for (name, index) in devices {
        let device = wireguard::device(*index)
            .map_err(|errno| format!("reading the WireGuard device {name}: {errno}"))?;
        lines.push(tunnel(name, device.public_key, device.port));
        lines.extend(device.peers.iter().map(|(key, standing)| peer(name, *key, standing)));
    }
    Ok(lines)
}

fn tunnel(name: &str, key: Option<PublicKey>, port: u16) -> String {
    let key = key.map_or_else(|| "none".to_owned(), |key| key.to_string());
    format!("{name}: key {key}, port {port}")
}

fn peer(device: &str, key: PublicKey, standing: &Standing) -> String {
    let endpoint = standing.endpoint.map_or_else(|| "none".to_owned(), |at| at.to_string());
    let allowed: Vec<String> = standing.allowed.iter().map(ToString::to_string).collect();
    let more = if standing.embellished { ", and more" } else { "" };
    let allowed = allowed.join(", ");
    format!("{device}: peer {key}, endpoint {endpoint}, allowed {allowed}{more}")
}

/// `ipvsadm -Sn`. A kernel without IPVS has no such file, and one without services only its heads.
pub fn real_virtuals() -> Result<Vec<String>, String> {
    const HEADS: usize = 3;
    let shown = fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default();
    if shown.lines().count() <= HEADS {
        return Ok(Vec::new());
    }
    Ok(said("ipvsadm", "-Sn")?.lines().map(virtual_line).collect())
}

/// By a scheduler's flag the driver knows its own services (backends/src/rules/ipvs); the model
/// remembers them.
fn virtual_line(line: &str) -> String {
    let line = line.trim_end();
    line.strip_suffix(" -b flag-3").unwrap_or(line).to_owned()
}

/// Tables of nf_tables that neither the proxy nor, where it writes them, iptables has made, with
/// all that is in them; and those of the two that are switched off.
pub fn foreign_tables(of_iptables: bool) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for table in nftables::tables()?.iter().filter(|table| is_foreign(table, of_iptables)) {
        let nftables::Table { family, name, flags } = table;
        let named = format!("{} {name}", family_name(*family));
        lines.push(format!("nftables: table {named} flags {flags}"));
        lines.extend(content(&named, &listed(&named)?));
    }
    Ok(lines)
}

/// The proxy's own table in the calling thread's network namespace, as the kernel has it: its sets
/// and maps, its chains with their hooks, priorities and policies, the rules of each in their
/// order, and which treatment leads to which chain. All other elements the kernel is asked for by
/// the proxy's driver (`view`).
pub fn own_table() -> Result<Vec<String>, String> {
    let is_own = |table: &nftables::Table| table.family == IPV4 && table.name == proxy::OWNER;
    if !nftables::tables()?.iter().any(is_own) {
        return Ok(Vec::new());
    }
    let table = format!("ip {}", proxy::OWNER);
    Ok(content(&table, &bare(&listed(&table)?)))
}

/// Of elements a listed table keeps those that lead to chains, each on a line and in an order of
/// their own: that of a hash says nothing.
fn bare(listed: &str) -> String {
    let (mut text, mut rest) = (String::new(), listed);
    while let Some((before, after)) = rest.split_once("elements = {") {
        text += before;
        let (elements, behind) = after.split_once('}').unwrap_or((after, ""));
        let head = before.rsplit('{').nth(1).unwrap_or_default();
        if head.ends_with("map treatments ") {
            let each: BTreeSet<&str> = elements.split(',').map(str::trim).collect();
            each.into_iter().for_each(|element| text += &format!("{element}\n"));
        }
        rest = behind;
    }
    text + rest
}

/// The same of a modelled kernel, which has no chains but what they do: as a real kernel lists the
/// table that the driver makes for these elements, in a network namespace of its own.
pub fn modelled_table(
    settings: FlatSettings,
    elements: Vec<(FlatKey, FlatValue)>,
) -> Result<Vec<String>, String> {
    if elements.is_empty() {
        return Ok(Vec::new());
    }
    let made = in_a_namespace(move || {
        nftables::make_table(proxy::OWNER, settings, elements.into())?;
        own_table()
    });
    made.map_err(|why| format!("making the simulator's nf_tables in a network namespace: {why}"))
}

/// What `nft` lists of a table, without counters: they count packets of this run.
fn listed(table: &str) -> Result<String, String> {
    said("nft", &format!("-s list table {table}"))
}

fn is_foreign(table: &nftables::Table, of_iptables: bool) -> bool {
    const IPTABLES: [&str; 4] = ["raw", "mangle", "nat", "filter"];
    let name = table.name.as_str();
    let known = name == proxy::OWNER || of_iptables && IPTABLES.contains(&name);
    !(table.family == IPV4 && known && table.flags == 0)
}

/// What stands in the braces of a listed table, each line with what it stands in: block by block,
/// a block's lines in their order. Which block is listed first says when it was made, and no more.
fn content(table: &str, listed: &str) -> Vec<String> {
    let (mut within, mut blocks) = (Vec::new(), Vec::<Vec<String>>::new());
    for line in listed.lines().map(str::trim).skip(1).filter(|line| !line.is_empty()) {
        if line == "}" {
            within.pop();
            continue;
        }
        if within.is_empty() {
            blocks.push(Vec::new());
        }
        let told = match line.strip_suffix(" {") {
            Some(opened) => {
                within.push(opened);
                within.join(" ")
            }
            None if within.is_empty() => line.to_owned(),
            None => format!("{}: {line}", within.join(" ")),
        };
        if let Some(block) = blocks.last_mut() {
            block.push(format!("nftables: {table}: {told}"));
        }
    }
    blocks.sort_unstable();
    blocks.concat()
}

/// `NFPROTO_IPV4`
const IPV4: u8 = 2;

/// `NFPROTO_*` as `nft` calls them.
fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "of an unknown family",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddrV4;

    #[test]
    fn only_known_tables_are_left_out() {
        let table =
            |family, name: &str, flags| nftables::Table { family, name: name.into(), flags };
        let is = |family, name, flags, of| is_foreign(&table(family, name, flags), of);
        assert!(!is(2, proxy::OWNER, 0, true) && is(2, proxy::OWNER, 1, true));
        assert!(!is(2, "filter", 0, true) && is(2, "filter", 0, false));
        assert!(is(10, "filter", 0, true) && is(1, "evil", 0, true));
    }

    #[test]
    fn each_rule_is_told_with_its_chain() {
        let listed = "table ip evil {\n\tset s {\n\t\ttype ipv4_addr\n\t}\n\n\tchain c {\n\
                      \t\tip saddr 1.2.3.4 drop\n\t}\n}\n";
        let told = [
            "nftables: ip evil: chain c",
            "nftables: ip evil: chain c: ip saddr 1.2.3.4 drop",
            "nftables: ip evil: set s",
            "nftables: ip evil: set s: type ipv4_addr",
        ];
        assert_eq!(content("ip evil", listed), told);
    }

    /// All lines of a table were sorted.
    #[test]
    fn the_order_within_a_chain_is_told_and_that_of_chains_is_not() {
        let chain = |name: &str, rules: &str| format!("\tchain {name} {{\n{rules}\t}}\n");
        let table = |chains: [String; 2]| {
            content("ip t", &format!("table ip t {{\n{}}}\n", chains.concat()))
        };
        let (one, other) = ("\t\tdrop\n", "\t\taccept\n");
        let [a, b] = [chain("a", &(one.to_owned() + other)), chain("b", one)];
        let first = table([a.clone(), b.clone()]);
        assert_eq!(table([b.clone(), a]), first);
        assert_ne!(table([chain("a", &(other.to_owned() + one)), b]), first);
    }

    #[test]
    fn of_elements_those_that_lead_to_chains_are_told() {
        let map = |name: &str| {
            format!(
                "\tmap {name} {{\n\t\ttype classid : verdict\n\t\telements = \
                 {{ 2:40 : goto b,\n\t\t\t     1:40 : goto a }}\n\t}}\n\n"
            )
        };
        let table = format!("table ip t {{\n{}{}}}\n", map("members"), map("treatments"));
        let told = [
            "nftables: ip t: map members",
            "nftables: ip t: map members: type classid : verdict",
            "nftables: ip t: map treatments",
            "nftables: ip t: map treatments: type classid : verdict",
            "nftables: ip t: map treatments: 1:40 : goto a",
            "nftables: ip t: map treatments: 2:40 : goto b",
        ];
        assert_eq!(content("ip t", &bare(&table)), told);
    }

    #[test]
    fn a_virtual_service_is_told_as_the_model_tells_it() {
        assert_eq!(virtual_line("-A -t 10.0.0.1:80 -s rr -b flag-3 "), "-A -t 10.0.0.1:80 -s rr");
        assert_eq!(virtual_line("-A -t 10.0.0.1:80 -s sh"), "-A -t 10.0.0.1:80 -s sh");
    }

    /// Whatever of a peer is not as netd asked for is seen.
    #[test]
    fn a_peer_is_all_that_it_has() {
        let at = |port| Some(SocketAddrV4::new([192, 168, 7, 11].into(), port));
        let nets = |all: &[&str]| all.iter().map(|net| net.parse().expect("a net")).collect();
        let plain = Standing {
            endpoint: at(51_820),
            allowed: nets(&["10.244.1.0/24"]),
            ..Standing::default()
        };
        let told = |standing: &Standing| peer("wg", PublicKey([7; 32]), standing);
        let as_asked = told(&plain);
        let asked = WireguardPeer {
            public_key: PublicKey([7; 32]),
            endpoint: at(51_820).expect("an endpoint"),
            allowed: "10.244.1.0/24".parse().expect("a net"),
        };
        let WireguardPeer { public_key, endpoint, allowed } = asked;
        let modelled = format!("wg: peer {public_key}, endpoint {endpoint}, allowed {allowed}");
        assert_eq!(as_asked, modelled);
        for other in [
            Standing { endpoint: at(1), ..plain.clone() },
            Standing { endpoint: None, ..plain.clone() },
            Standing { allowed: nets(&["10.244.1.0/24", "10.9.0.0/16"]), ..plain.clone() },
            Standing { embellished: true, ..plain.clone() },
        ] {
            assert_ne!(told(&other), as_asked);
        }
    }
}
