//! The shipped scenarios: each passes by default, and is red under its profile for the reason that
//! its users were hurt by.

use kubesim_runtime::Time;
use kubesim_sim::scenario::Scenario;
use kubesim_sim::{Observer, Options, Outcome, Report};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

struct Silent;

impl Observer for Silent {
    fn line(&mut self, _at: Time, _who: &str, _text: &str) {}
    fn progress(&mut self, _at: Time, _of: Duration, _events: u64) {}
}

fn load(name: &str, profile: Option<&str>, sets: &[(&str, &str)]) -> Scenario {
    let path = format!("scenarios/{name}.toml");
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let sets: Vec<_> = sets.iter().map(owned).collect();
    Scenario::load(path.as_ref(), &sets, profile).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// Plays seeds 1 to `last`, two at a time, and hands each report on.
fn each_seed(scenario: &Scenario, last: u64, check: impl Fn(&Report) + Sync) {
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        break;
                    }
                    let options = Options { seed, ..Options::default() };
                    check(&kubesim_sim::run(scenario, &options, &mut Silent));
                }
            });
        }
    });
}

fn failures(report: &Report) -> Vec<String> {
    let failed = report.expectations.iter().filter(|e| e.outcome == Outcome::Failed);
    let told = failed.map(|e| format!("{}: {} ({})", e.name, e.reason, e.measured));
    told.chain(report.failure.clone()).collect()
}

fn passes(name: &str) {
    passes_with(name, &[]);
}

fn passes_with(name: &str, sets: &[(&str, &str)]) {
    each_seed(&load(name, None, sets), 8, |report| {
        assert_eq!(failures(report), Vec::<String>::new(), "{name}, seed {}", report.seed);
        let skipped = report.expectations.iter().filter(|e| e.outcome == Outcome::Skipped);
        assert_eq!(skipped.count(), 0, "{name}, seed {}", report.seed);
    });
}

/// Every seed fails; for each (expectation, words) that expectation's reason has all the words.
fn is_red(name: &str, profile: &str, reasons: &[(&str, &[&str])]) {
    each_seed(&load(name, Some(profile), &[]), 8, |report| {
        let seed = report.seed;
        assert_eq!(report.outcome, Outcome::Failed, "{name} under {profile}, seed {seed}");
        for (expectation, words) in reasons {
            let found = report.expectations.iter().find(|e| e.name.contains(expectation));
            let found = found.unwrap_or_else(|| panic!("{name} expects `{expectation}`"));
            assert_eq!(found.outcome, Outcome::Failed, "seed {seed}: {expectation}");
            for word in *words {
                assert!(
                    found.reason.contains(word),
                    "seed {seed}: {expectation}: {}",
                    found.reason
                );
            }
        }
    });
}

#[test]
fn laptop_ip_change_passes() {
    passes("laptop-ip-change");
}

/// A move is another endpoint: its expectations hold with a tunnel to every peer as well.
#[test]
fn laptop_ip_change_passes_with_wireguard() {
    passes_with("laptop-ip-change", &[("cluster.backend", "wireguard")]);
}

#[test]
fn under_flannel_a_ghost_lease_keeps_the_laptops_subnet_and_stale_routes() {
    let reasons: &[(&str, &[&str])] = &[
        ("keeps its pod subnet", &["ghost lease 10-244-", "for 192.168.1.100"]),
        ("at the café: every stale route", &["stale route to 10.244.", "ghost lease"]),
        ("at the café: the stream laptop to desk", &["stale route to 10.244."]),
    ];
    is_red("laptop-ip-change", "flannel", reasons);
}

#[test]
fn flannel_restart_stale_routes_passes() {
    passes("flannel-restart-stale-routes");
}

#[test]
fn under_flannel_the_route_to_a_peer_deleted_unseen_stays() {
    let words: &[&str] = &["n1: stale route to", "via 192.168.1.13", "no live node has it"];
    is_red("flannel-restart-stale-routes", "flannel", &[("n1 has no stale route", words)]);
}

#[test]
fn guestbook_passes() {
    passes("guestbook");
}

#[test]
fn host_ports_passes() {
    passes("host-ports");
}

#[test]
fn rolling_update_passes() {
    passes("rolling-update");
}

#[test]
fn without_a_sleep_before_the_end_a_rolling_update_loses_requests() {
    let text = std::fs::read_to_string("scenarios/rolling-update.toml").expect("a scenario");
    let hasty = text.replace("          preStop: {sleep: {seconds: 5}}\n", "");
    assert_ne!(hasty, text);
    let none = |pattern: &str| Err(format!("no {pattern}"));
    let read = Scenario::parse("hasty.toml", &hasty, &none, &[], None);
    let scenario = read.unwrap_or_else(|wrong| panic!("{wrong}"));
    each_seed(&scenario, 4, |report| {
        let lost = failures(report).iter().filter(|why| why.starts_with("no request")).count();
        assert!(lost > 0, "seed {}: {:?}", report.seed, failures(report));
    });
}

#[test]
fn workloads_passes() {
    passes("workloads");
}

#[test]
fn volumes_passes() {
    passes("volumes");
}

#[test]
fn autoscale_passes() {
    passes("autoscale");
}

#[test]
fn cidr_overlap_is_refused() {
    passes("cidr-overlap");
}

#[test]
fn under_kubeadm_overlapping_networks_are_accepted() {
    let words: &[&str] = &["it runs", "packet that goes wrong", "10.0.0.0/16"];
    is_red("cidr-overlap", "kubeadm", &[("refuses to start and names the pod", words)]);
}

#[test]
fn docker_forwarding_passes() {
    passes("docker-forwarding");
}

#[test]
fn upstream_nobody_undoes_what_docker_ufw_and_others_did_to_forwarding() {
    let reasons: &[(&str, &[&str])] = &[
        ("behind docker 1.13", &["docker113", "the FORWARD policy is DROP"]),
        ("behind ufw", &["ufw", "the FORWARD policy is DROP"]),
        ("past the foreign DROP", &["sysctl-first", "-A FORWARD -j DROP"]),
        ("of the reset interface", &["net.ipv4.conf.eth0.forwarding on docker112 is 0"]),
    ];
    is_red("docker-forwarding", "upstream", reasons);
}

#[test]
fn dns_over_tcp_passes() {
    passes("dns-over-tcp");
}

#[test]
fn resolv_conf_change_passes() {
    passes("resolv-conf-change");
}

#[test]
fn under_kube_dns_the_first_upstream_is_asked_for_ever() {
    let still: &[&str] = &["first (192.168.7.31) is still asked"];
    let reasons: &[(&str, &[&str])] = &[
        ("after a rename the new upstream", still),
        ("after a symlink flip the new upstream", still),
        ("after a push by DHCP the new upstream", still),
        ("outside names are answered", &["at 140.000s", "no answer"]),
    ];
    is_red("resolv-conf-change", "kube-dns", reasons);
}

#[test]
fn a_small_fleet_passes() {
    let sets = [
        ("node.n.count", "40"),
        ("node.n.rack-size", "10"),
        ("workload.web.generate.deployments", "5"),
    ];
    each_seed(&load("fleet", None, &sets), 1, |report| {
        assert_eq!(failures(report), Vec::<String>::new());
    });
}
