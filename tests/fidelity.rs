//! The modelled kernel beside this machine's: fresh random cases of each domain. What they find
//! is left in tests/golden/fidelity, and as tests of the model alone in
//! sim/src/kernel/tests/fidelity*.rs.

#![cfg(target_os = "linux")]

#[path = "common/namespace.rs"]
mod namespace;

use kubesim::fidelity::{Domain, Replayed, compare, replay};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::PathBuf;

/// Another one each time, unless it is given.
fn seed() -> u64 {
    let given = std::env::var("KUBESIM_FIDELITY_SEED").ok();
    let given = given.map(|text| text.parse().expect("KUBESIM_FIDELITY_SEED is a number"));
    given.unwrap_or_else(|| RandomState::new().hash_one(()) >> 32)
}

fn agree(domain: Domain, cases: u64) {
    // What is missing is said there, or fails the test where nothing may be.
    namespace::in_namespace(move || {
        let seed = seed();
        println!("seed {seed}");
        let outcome = compare(domain, seed, 0..cases, 1).expect("a machine that makes namespaces");
        println!("{} cases in {:.1} s", outcome.agreed, outcome.took.as_secs_f64());
        assert!(outcome.mismatches.is_empty(), "{}", outcome.mismatches[0].story);
        let once: Vec<&str> = outcome.once.iter().map(|once| once.story.as_str()).collect();
        assert!(once.is_empty(), "differed once: {}", once.concat());
        assert_eq!(outcome.agreed, cases);
    });
}

/// Of the cases that differ, be it once.
fn stories(domain: Domain, seed: u64, cases: Range<u64>) -> Vec<String> {
    let outcome = compare(domain, seed, cases, 1).expect("a machine that makes namespaces");
    outcome.mismatches.into_iter().chain(outcome.once).map(|found| found.story).collect()
}

/// What was found once.
fn recorded() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fidelity");
    let files = std::fs::read_dir(folder).expect("the folder of recorded cases");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files
}

#[test]
fn recorded_cases_agree() {
    namespace::in_namespace(|| {
        let files = recorded();
        assert!(!files.is_empty(), "there are recorded cases");
        for file in files {
            let replayed = replay(&file).expect("a case that can be played");
            assert_eq!(replayed, Replayed::Agrees, "{}", file.display());
        }
    });
}

/// Case 3800 of this seed has the rules of the reversed case before it, which Linux plays until it
/// does what the model did, and which counts all that: the last case alone can be blamed for what
/// it counts.
#[test]
fn what_is_played_the_other_way_round_counts_in_no_other_case() {
    namespace::in_namespace(|| {
        assert_eq!(stories(Domain::Ip6tablesLegacy, 20261204, 3800..3801), [""; 0]);
    });
}

/// Case 30869 leaves a connection that no list shows, as its original tuple is another's: its
/// answers' port was taken for the rest of a second, which case 30953 met.
#[test]
fn what_no_list_shows_is_in_no_later_case() {
    namespace::in_namespace(|| {
        assert_eq!(stories(Domain::BridgeFilter, 20261128, 30869..30954), [""; 0]);
    });
}

#[test]
fn routes_are_as_linux_has_them() {
    agree(Domain::Routes, 1500);
}

#[test]
fn packets_are_forwarded_as_linux_does() {
    agree(Domain::Forwarding, 1500);
}

#[test]
fn rules_of_iptables_legacy_do_what_they_do_on_linux() {
    agree(Domain::IptablesLegacy, 1500);
}

#[test]
fn rules_of_iptables_nft_do_what_they_do_on_linux() {
    agree(Domain::IptablesNft, 1500);
}

#[test]
fn services_of_nftables_mode_do_what_they_do_on_linux() {
    agree(Domain::Nftables, 1500);
}

#[test]
fn connections_live_as_on_linux() {
    agree(Domain::Conntrack, 1500);
}

#[test]
fn a_bridge_learns_and_forwards_as_on_linux() {
    agree(Domain::Bridge, 1500);
}

#[test]
fn bridged_packets_meet_rules_as_on_linux() {
    agree(Domain::BridgeFilter, 1500);
}

#[test]
fn a_tunnel_takes_and_gives_as_on_linux() {
    agree(Domain::Vxlan, 1500);
}

#[test]
fn neighbours_are_asked_and_believed_as_on_linux() {
    agree(Domain::Neighbours, 1500);
}

#[test]
fn routes_of_ipv6_are_as_linux_has_them() {
    agree(Domain::Routes6, 1500);
}

#[test]
fn packets_of_ipv6_are_forwarded_as_linux_does() {
    agree(Domain::Forwarding6, 1500);
}

#[test]
fn neighbours_of_ipv6_are_asked_and_believed_as_on_linux() {
    agree(Domain::Neighbours6, 1500);
}

#[test]
fn rules_of_ip6tables_legacy_do_what_they_do_on_linux() {
    agree(Domain::Ip6tablesLegacy, 1500);
}

#[test]
fn rules_of_ip6tables_nft_do_what_they_do_on_linux() {
    agree(Domain::Ip6tablesNft, 1500);
}

#[test]
fn connections_of_ipv6_live_as_on_linux() {
    agree(Domain::Conntrack6, 1500);
}
