//! Ports of the node that lead to its pods: when their rules are set, and when they go.

use super::world::{World, config, pod};
use super::{is_ready, secs};
use crate::kubelet::Config;
use crate::objects::{Key, Kind};
use crate::ports::rules::{CtFilter, Request};
use kubesim_runtime::Loss;
use serde_json::{Value, json};

fn with_ports(name: &str, ports: Value) -> Value {
    pod(name, json!({ "ports": ports }))
}

fn web() -> Value {
    with_ports("web", json!([{ "containerPort": 80, "hostPort": 8080 }]))
}

fn running(config: Config) -> World {
    let mut world = World::of(config);
    world.run(secs(5));
    world
}

fn lines(world: &World, chain: &str) -> Vec<String> {
    let of = format!("-A {chain} ");
    let all = world.rules.lines().filter_map(|line| line.strip_prefix(&of));
    all.map(str::to_owned).collect()
}

/// What was forgotten of connections, after the latest change.
fn forgotten(world: &World) -> Vec<CtFilter> {
    let all = world.ruled.iter().rev();
    let mut deleted = all.filter_map(|request| match request {
        Request::DeleteConntrack { filters } => Some(filters.to_vec()),
        _ => None,
    });
    deleted.next().unwrap_or_default()
}

#[test]
fn ports_lead_to_a_pod_before_its_container_starts() {
    let mut world = running(config());
    world.refused_rules = Some("iptables-restore: no such thing".to_owned());
    world.apply(web());
    world.run(secs(4));
    assert!(world.starts.is_empty(), "it waits");
    world.refused_rules = None;
    world.run(secs(10));
    assert!(is_ready(&world.status("web")));
    let ip = world.status("web").pod_ip.expect("an address");
    assert_eq!(
        lines(&world, "HOSTPORT-DNAT"),
        [format!(
            "-p tcp -m comment --comment \"default/web\" -m tcp --dport 8080 -j DNAT \
             --to-destination {ip}:80"
        )]
    );
    let masqueraded = |source: &str| {
        format!("-s {source} -d {ip}/32 -p tcp -m tcp --dport 80 -j MASQUERADE --random-fully")
    };
    let own = masqueraded(&format!("{ip}/32"));
    assert_eq!(lines(&world, "HOSTPORT-MASQ"), [own, masqueraded("127.0.0.0/8")]);
    assert_eq!(
        lines(&world, "PREROUTING"),
        ["-m comment --comment \"host ports of pods\" -m addrtype --dst-type LOCAL -j \
          HOSTPORT-DNAT"]
    );
}

#[test]
fn of_several_ports_each_is_where_it_is_asked_for() {
    let mut world = running(config());
    world.apply(with_ports(
        "dns",
        json!([
            { "containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.168.1.11" },
            { "containerPort": 53, "hostPort": 53, "hostIP": "0.0.0.0" },
            { "containerPort": 9, "hostPort": 9, "protocol": "SCTP" },
            { "containerPort": 10 },
            { "containerPort": 11, "hostPort": 11, "hostIP": "fd00::1" },
        ]),
    ));
    world.run(secs(5));
    let rules = lines(&world, "HOSTPORT-DNAT");
    assert_eq!(rules.len(), 3, "{rules:?}");
    assert!(rules[0].starts_with("-d 192.168.1.11/32 -p udp "), "{rules:?}");
    assert!(rules[1].starts_with("-p tcp ") && rules[2].starts_with("-p sctp "), "{rules:?}");
    let asked = forgotten(&world);
    assert_eq!(asked.len(), 1, "datagrams that led nowhere until now");
    assert_eq!(asked[0].original_dst.map(|ip| ip.to_string()).as_deref(), Some("192.168.1.11"));
    assert_eq!(asked[0].original_dport, Some(53));
}

#[test]
fn they_go_with_the_pod_and_leave_nothing() {
    let mut world = running(config());
    world.apply(web());
    world.apply(with_ports("other", json!([{ "containerPort": 81, "hostPort": 8081 }])));
    world.run(secs(5));
    let ip = world.status("web").pod_ip.expect("an address");
    world.delete("web");
    world.run(secs(60));
    assert_eq!(lines(&world, "HOSTPORT-DNAT").len(), 1);
    let asked = forgotten(&world);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].dnat_to.map(|ip| ip.to_string()), Some(ip));
    world.delete("other");
    world.run(secs(60));
    assert_eq!(world.rules, "", "neither chains nor jumps");
}

#[test]
fn rules_that_went_are_put_back() {
    let mut world = running(config());
    world.apply(web());
    world.run(secs(5));
    world.rules.clear();
    world.run(secs(31));
    assert_eq!(lines(&world, "HOSTPORT-DNAT").len(), 1);
}

#[test]
fn a_kubelet_that_starts_anew_disturbs_them_not_and_takes_away_what_is_nobodys() {
    let mut world = running(Config { sweeps: true, ..config() });
    world.apply(web());
    world.run(secs(5));
    let before = world.rules.clone();
    world.ruled.clear();
    world.restart(Loss::Process);
    world.run(secs(10));
    assert_eq!(world.rules, before);
    let applied = |request: &&Request| matches!(request, Request::Apply { .. });
    assert_eq!(world.ruled.iter().filter(applied).count(), 1, "asked for again, and once");
    // The pod goes while nobody looks.
    world.restart(Loss::Process);
    world.remove(Kind::Pod, &Key::new("default", "web"));
    world.run(secs(60));
    assert_eq!(world.rules, "");
}

#[test]
fn where_nobody_has_one_nothing_is_asked_for() {
    let mut world = running(config());
    world.apply(pod("plain", json!({ "ports": [{ "containerPort": 80 }] })));
    let mut host = pod("host", json!({ "ports": [{ "containerPort": 90, "hostPort": 90 }] }));
    host["spec"]["hostNetwork"] = json!(true);
    world.apply(host);
    world.run(secs(60));
    assert!(is_ready(&world.status("plain")) && is_ready(&world.status("host")));
    assert!(world.ruled.is_empty());
}
