//! The programs that domains need, looked for before the first case is played.

use super::Domain;
use super::lan::Lan;
use super::six::Six;
use super::step::{Rules, Setup};
use std::process::{Command, Stdio};

/// A program, and Debian's package of it.
type Program = (&'static str, &'static str);

const IP: Program = ("ip", "iproute2");
const NFT: Program = ("nft", "nftables");
const STDBUF: Program = ("stdbuf", "coreutils");
const IPTABLES: &str = "iptables";

/// The first program that one of these domains needs and this machine has not, in a sentence.
pub fn lacking(domains: &[Domain]) -> Option<String> {
    missing(domains, |program| {
        let mut command = Command::new(program);
        let quiet = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok()
    })
}

fn missing(domains: &[Domain], mut is_there: impl FnMut(&str) -> bool) -> Option<String> {
    for domain in domains {
        let mut needed = programs(domain.setup()).into_iter();
        if let Some((program, package)) = needed.find(|(program, _)| !is_there(program)) {
            let name = domain.name();
            return Some(format!("{name} needs the program `{program}` (Debian: {package})"));
        }
    }
    None
}

fn programs(setup: Setup) -> Vec<Program> {
    match setup {
        // These ask the kernel themselves.
        Setup::Bare | Setup::Router(Rules::Flat) => Vec::new(),
        Setup::Router(Rules::Legacy) => {
            vec![STDBUF, ("iptables-legacy", IPTABLES), ("iptables-legacy-restore", IPTABLES)]
        }
        Setup::Router(Rules::Nft) => {
            vec![STDBUF, ("iptables-nft", IPTABLES), ("iptables-nft-restore", IPTABLES)]
        }
        Setup::Lan(Lan::Filtered) => [vec![IP], programs(Setup::Router(Rules::Legacy))].concat(),
        Setup::Lan(_) | Setup::Six(Six::Router | Six::Neighbours) => vec![IP],
        Setup::Six(Six::Filtered(Rules::Nft)) => {
            vec![IP, NFT, STDBUF, ("ip6tables-nft", IPTABLES), ("ip6tables-nft-restore", IPTABLES)]
        }
        Setup::Six(Six::Filtered(_)) => vec![
            IP,
            NFT,
            STDBUF,
            ("ip6tables-legacy", IPTABLES),
            ("ip6tables-legacy-restore", IPTABLES),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What only a later domain needs was missed when that was reached.
    #[test]
    fn what_any_of_the_domains_needs_is_looked_for() {
        let without = |program: &'static str| missing(&Domain::ALL, move |one| one != program);
        let why = without("ip6tables-nft-restore").expect("it is missed");
        let expected = "ip6tables-nft needs the program `ip6tables-nft-restore` (Debian: iptables)";
        assert_eq!(why, expected);
        assert_eq!(missing(&[Domain::Routes, Domain::Nftables], |_| false), None);
        for program in ["ip", "nft", "stdbuf", "iptables-legacy-restore", "iptables-nft"] {
            assert!(without(program).is_some_and(|why| why.contains(program)), "{program}");
        }
    }
}
