//! The scenario language as its users meet it: what is shipped parses, what is wrong is explained.

use kubesim_sim::scenario::{
    Address, Backend, Diagnostics, FaultKind, NetdProgram, SECTIONS, Scenario,
};
use std::path::Path;

/// Every scenario of the repository.
fn shipped() -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir("scenarios")
        .expect("tests run in the repository")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}

fn load(path: &Path, profile: Option<&str>) -> Scenario {
    Scenario::load(path, &[], profile).unwrap_or_else(|wrong| panic!("\n{wrong}"))
}

#[test]
fn every_shipped_scenario_parses_under_each_of_its_profiles() {
    let files = shipped();
    assert!(files.len() >= 7);
    for path in files {
        let scenario = load(&path, None);
        assert_eq!(Some(scenario.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
        assert!(!scenario.expectations.is_empty(), "{path:?} expects nothing");
        for profile in &scenario.profiles {
            assert_eq!(load(&path, Some(profile)).profile.map(|p| p.name).as_ref(), Some(profile));
        }
    }
}

// ---- the reference

/// Headings and rows of the tables under "Every key" in the reference.
fn documented() -> Vec<(String, Vec<[String; 4]>)> {
    let text = std::fs::read_to_string("docs/scenario-language.md").expect("the reference");
    let mut sections: Vec<(String, Vec<[String; 4]>)> = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            sections.push((heading.trim_matches('`').to_owned(), Vec::new()));
        } else if let (Some(row), Some((_, rows))) = (line.strip_prefix("| `"), sections.last_mut())
        {
            let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
            let [key, kind, default, meaning] = cells.as_slice() else {
                panic!("not four cells: {line}");
            };
            let key = key.trim_matches('`');
            rows.push([key, kind, default, meaning].map(|cell| cell.to_string()));
        }
    }
    sections
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let documented = documented();
    let headings: Vec<&str> = documented.iter().map(|(heading, _)| heading.as_str()).collect();
    let known: Vec<&str> = SECTIONS.iter().map(|section| section.heading).collect();
    assert_eq!(headings, known);
    for (section, (heading, rows)) in SECTIONS.iter().zip(&documented) {
        let keys: Vec<[&str; 3]> =
            section.keys.iter().map(|key| [key.name, key.kind, key.default]).collect();
        let rows_of: Vec<[&str; 3]> =
            rows.iter().map(|[key, kind, default, _]| [&**key, &**kind, &**default]).collect();
        assert_eq!(rows_of, keys, "under {heading}");
        for [key, _, _, meaning] in rows {
            assert!(!meaning.is_empty(), "{heading} {key} has no meaning");
        }
    }
}

#[test]
fn the_reference_says_which_invariants_are_judged() {
    let text = std::fs::read_to_string("docs/scenario-language.md").expect("the reference");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| I"));
    let rows: Vec<(String, bool)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split(" | ").collect();
            (format!("I{}", cells[0]), !cells[2].starts_with("not yet"))
        })
        .collect();
    let ids: Vec<String> = (1..=20).map(|number| format!("I{number}")).collect();
    assert_eq!(rows.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids);
    let judged: Vec<String> =
        kubesim_sim::oracles::JUDGED.iter().map(|invariant| format!("{invariant:?}")).collect();
    let said: Vec<&String> = rows.iter().filter(|(_, yes)| *yes).map(|(id, _)| id).collect();
    assert_eq!(said, judged.iter().collect::<Vec<_>>());
}

#[test]
fn the_references_own_examples_parse() {
    let text = std::fs::read_to_string("docs/scenario-language.md").expect("the reference");
    let mut examples = 0;
    for example in text.split("```toml\n").skip(1) {
        let example = example.split("```").next().unwrap_or_default();
        parse(example, &[], None).unwrap_or_else(|wrong| panic!("\n{wrong}"));
        examples += 1;
    }
    assert!(examples > 0);
}

// ---- mistakes

const BASE: &str = r#"name = "base"
duration = "60s"
[[network]]
name = "lan"
cidr = "192.168.1.0/24"
dhcp = { first = "192.168.1.100", last = "192.168.1.199" }
[[node]]
name = "n1"
role = "server"
network = "lan"
[[node]]
name = "w"
count = 3
rack-size = 2
network = "lan"
address = "192.168.1.11"
[[fault]]
name = "netd-down"
kind = "stop"
at = "10s"
actor = "netd"
nodes = ["w1"]
[[probe]]
name = "wget"
kind = "http"
from = { node = "n1" }
to = { service = "web" }
[profile.flannel]
netd = "flannel"
"#;

type Sets<'a> = &'a [(&'a str, &'a str)];

fn parse(text: &str, sets: Sets<'_>, profile: Option<&str>) -> Result<Scenario, Diagnostics> {
    let files = |pattern: &str| match pattern {
        "web.yaml" => Ok(vec![("dir/web.yaml".to_owned(), MANIFEST.to_owned())]),
        _ => Err(format!("cannot read dir/{pattern}: no such file")),
    };
    let sets: Vec<_> = sets.iter().map(|(p, v)| ((*p).to_owned(), (*v).to_owned())).collect();
    Scenario::parse("a.toml", text, &files, &sets, profile)
}

const MANIFEST: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\n# second\n\
    apiVersion: v1\nkind: Pood\nmetadata: {name: x}\n---\nkind: [oops\n";

/// The messages of the base with a line put in place of another (or added to the end).
fn wrong(line: &str, with: &str) -> String {
    let text = match line {
        "" => format!("{BASE}{with}\n"),
        _ => {
            assert_eq!(BASE.matches(line).count(), 1, "{line}");
            BASE.replace(line, with)
        }
    };
    match parse(&text, &[], None) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(wrong) => wrong.to_string(),
    }
}

/// What is put in place of a line of the base (or added to its end), and what is said about it.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        r##"name = "base""##,
        r##"name = "base"
titel = "x""##,
        r##"error: unknown key `titel` in the file
 --> a.toml:2:1
  |
2 | titel = "x"
  | ^^^^^
  = help: did you mean `title`?
"##,
    ),
    (
        r##"duration = "60s""##,
        "duration = 60",
        r##"error: `duration` is an integer, expected a duration
 --> a.toml:2:12
  |
2 | duration = 60
  |            ^^
  = help: write it like "1.5s", "200ms", "2m30s" or "26h"
"##,
    ),
    (
        r##"duration = "60s""##,
        r##"duration = "60 seconds""##,
        r##"error: `60 seconds` is not a duration
 --> a.toml:2:12
  |
2 | duration = "60 seconds"
  |            ^^^^^^^^^^^^
  = help: write it like "1.5s", "200ms", "2m30s" or "26h"
"##,
    ),
    (
        r##"duration = "60s""##,
        "",
        r##"error: the file lacks the key `duration`
 --> a.toml:1:1
  |
1 | name = "base"
  | ^
"##,
    ),
    (
        r##"duration = "60s""##,
        r##"duration = "60s"##,
        r##"error: not TOML: invalid basic string, expected `"`
 --> a.toml:2:16
  |
2 | duration = "60s
  |                ^
"##,
    ),
    (
        r##"cidr = "192.168.1.0/24""##,
        r##"cidr = "192.168.1.7/24""##,
        r##"error: `192.168.1.7/24` has bits set behind its prefix
 --> a.toml:5:8
  |
5 | cidr = "192.168.1.7/24"
  |        ^^^^^^^^^^^^^^^^
  = help: the network of this address is 192.168.1.0/24
"##,
    ),
    (
        r##"cidr = "192.168.1.0/24""##,
        r##"cidr = "192.168.1""##,
        r##"error: `192.168.1` is not an IPv4 network
 --> a.toml:5:8
  |
5 | cidr = "192.168.1"
  |        ^^^^^^^^^^^
  = help: write it like 192.168.1.0/24
"##,
    ),
    (
        "",
        r##"[[network]]
name = "wlan"
cidr = "192.168.0.0/16""##,
        r##"error: the networks `wlan` (192.168.0.0/16) and `lan` (192.168.1.0/24) overlap
  --> a.toml:32:8
   |
32 | cidr = "192.168.0.0/16"
   |        ^^^^^^^^^^^^^^^^
   = help: every [[network]] needs a range of its own
"##,
    ),
    (
        r##"nodes = ["w1"]"##,
        r##"nodes = ["w1", "w7"]"##,
        r##"error: unknown node `w7`
  --> a.toml:22:16
   |
22 | nodes = ["w1", "w7"]
   |                ^^^^
   = help: did you mean `w`?
"##,
    ),
    (
        r##"at = "10s""##,
        r##"at = "2m""##,
        r##"error: `at` is past the end of the run
  --> a.toml:20:6
   |
20 | at = "2m"
   |      ^^^^
   = help: the run's duration is 60s
"##,
    ),
    (
        r##"at = "10s""##,
        r##"at = { from = "20s", to = "10s" }"##,
        r##"error: `at` ends before it begins
  --> a.toml:20:6
   |
20 | at = { from = "20s", to = "10s" }
   |      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"##,
    ),
    (
        r##"at = "10s""##,
        r##"at = { form = "20s", to = "30s" }"##,
        r##"error: a span of time lacks the key `from`
  --> a.toml:20:6
   |
20 | at = { form = "20s", to = "30s" }
   |      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: unknown key `form` in a span of time
  --> a.toml:20:8
   |
20 | at = { form = "20s", to = "30s" }
   |        ^^^^
   = help: did you mean `from`?
"##,
    ),
    (
        r##"kind = "stop""##,
        r##"kind = "stopp""##,
        r##"error: unknown kind `stopp` of [[fault]]
  --> a.toml:19:8
   |
19 | kind = "stopp"
   |        ^^^^^^^
   = help: did you mean `stop`?
"##,
    ),
    (
        r##"actor = "netd""##,
        r##"actor = "flanneld""##,
        r##"error: unknown actor `flanneld`
  --> a.toml:21:9
   |
21 | actor = "flanneld"
   |         ^^^^^^^^^^
   = help: expected one of apiserver, controllers, scheduler, kubelet, netd, proxy, dns
"##,
    ),
    (
        r##"role = "server""##,
        r##"role = "master""##,
        r##"error: unknown role `master`
 --> a.toml:9:8
  |
9 | role = "master"
  |        ^^^^^^^^
  = help: expected one of server, worker
"##,
    ),
    (
        r##"address = "192.168.1.11""##,
        r##"address = "192.168.2.11""##,
        r##"error: 192.168.2.11 is not a machine's address in 192.168.1.0/24
  --> a.toml:16:11
   |
16 | address = "192.168.2.11"
   |           ^^^^^^^^^^^^^^
   = help: its machines are 192.168.1.1 to 192.168.1.254
"##,
    ),
    (
        r##"address = "192.168.1.11""##,
        r##"address = "192.168.1.253""##,
        r##"error: `192.168.1.0/24` has no room for 3 machines from 192.168.1.253 on
  --> a.toml:16:11
   |
16 | address = "192.168.1.253"
   |           ^^^^^^^^^^^^^^^
"##,
    ),
    (
        r##"address = "192.168.1.11""##,
        r##"address = "192.168.1.1""##,
        r##"error: `w1` and `lan's router` both have the address 192.168.1.1
  --> a.toml:16:11
   |
16 | address = "192.168.1.1"
   |           ^^^^^^^^^^^^^
"##,
    ),
    (
        r##"last = "192.168.1.199" }"##,
        r##"last = "192.168.1.199", lease = "500ms" }"##,
        r##"error: `lease` is too short
 --> a.toml:6:67
  |
6 | dhcp = { first = "192.168.1.100", last = "192.168.1.199", lease = "500ms" }
  |                                                                   ^^^^^^^
  = help: at least 1s: it is counted in whole seconds
"##,
    ),
    (
        "count = 3",
        r##"count = "three""##,
        r##"error: `count` is a text, expected an integer
  --> a.toml:13:9
   |
13 | count = "three"
   |         ^^^^^^^
"##,
    ),
    (
        "count = 3",
        "count = 0",
        r##"error: `count` is 0, expected 1 to 100000
  --> a.toml:13:9
   |
13 | count = 0
   |         ^
"##,
    ),
    (
        "",
        r##"[[expect]]
name = "e"
kind = "probe"
probe = "wgt""##,
        r##"error: unknown probe `wgt`
  --> a.toml:33:9
   |
33 | probe = "wgt"
   |         ^^^^^
   = help: did you mean `wget`?
"##,
    ),
    (
        "",
        r##"[[expect]]
name = "e"
kind = "resumes"
probe = "wget"
after = "netd-down"
moment = "address-acquired"
within = "2s""##,
        r##"error: nothing acquires an address in the fault `netd-down`
  --> a.toml:35:10
   |
35 | moment = "address-acquired"
   |          ^^^^^^^^^^^^^^^^^^
   = help: only a `move` has this moment
"##,
    ),
    (
        "",
        r##"[[expect]]
name = "e"
kind = "nodes-ready"
within = "2s""##,
        r##"error: `within` wants an `after`
  --> a.toml:33:10
   |
33 | within = "2s"
   |          ^^^^
   = help: or give `by`, a time
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
manifests = ["web.yaml", "none.yaml"]"##,
        r##"error: no kind "Pood" in version "v1"; known are v1 Namespace, v1 Node, v1 Pod, v1 Service, v1 ConfigMap, v1 Event, apps/v1 Deployment, apps/v1 ReplicaSet, discovery.k8s.io/v1 EndpointSlice, coordination.k8s.io/v1 Lease, net.kubesim.dev/v1 Subnet
 --> dir/web.yaml:6:1
  |
6 | apiVersion: v1
  | ^^^^^^^^^^^^^^

error: not YAML: unclosed bracket '['
  --> dir/web.yaml:10:7
   |
10 | kind: [oops
   |       ^

error: cannot read dir/none.yaml: no such file
  --> a.toml:32:26
   |
32 | manifests = ["web.yaml", "none.yaml"]
   |                          ^^^^^^^^^^^
   = help: paths start at the scenario's folder
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
yaml = """
kind: Service
apiVersion: v1
metadata: {labels: {a: b}}
---
foo: [
""""##,
        r##"error: this Service (v1) has no metadata.name
  --> a.toml:33:1
   |
33 | kind: Service
   | ^^^^^^^^^^^^^

error: not YAML: unclosed bracket '['
  --> a.toml:37:6
   |
37 | foo: [
   |      ^
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
[workload.object]
apiVersion = "v1"
kind = "Servic""##,
        r##"error: no kind "Servic" in version "v1"; known are v1 Namespace, v1 Node, v1 Pod, v1 Service, v1 ConfigMap, v1 Event, apps/v1 Deployment, apps/v1 ReplicaSet, discovery.k8s.io/v1 EndpointSlice, coordination.k8s.io/v1 Lease, net.kubesim.dev/v1 Subnet
  --> a.toml:32:1
   |
32 | [workload.object]
   | ^^^^^^^^^^^^^^^^^
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
yaml = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replica: 3
  template:
    spec:
      containers:
      - {name: a, imagee: "nginx:1", ports: [{containerPort: "http"}]}
"""
[[workload]]
name = "table"
[workload.object]
apiVersion = "v1"
kind = "Service"
metadata = { name = "web" }
spec = { port = 80 }
[[fault]]
kind = "patch"
at = "1s"
object = "Deployment/web"
patch = { spec = { replica = 2, template = { spec = { containers = [{ nmae = "a" }] } } } }"##,
        r##"error: unknown field "spec.replica"
  --> a.toml:37:3
   |
37 |   replica: 3
   |   ^^^^^^^
   = help: did you mean `replicas`?

error: unknown field "spec.template.spec.containers[0].imagee"
  --> a.toml:41:19
   |
41 |       - {name: a, imagee: "nginx:1", ports: [{containerPort: "http"}]}
   |                   ^^^^^^
   = help: did you mean `image`?

error: spec.template.spec.containers[0].ports[0].containerPort: invalid type: string "http", expected i32
  --> a.toml:41:47
   |
41 |       - {name: a, imagee: "nginx:1", ports: [{containerPort: "http"}]}
   |                                               ^^^^^^^^^^^^^

error: unknown field "spec.port"
  --> a.toml:49:10
   |
49 | spec = { port = 80 }
   |          ^^^^
   = help: did you mean `ports`?

error: unknown field "spec.replica"
  --> a.toml:54:20
   |
54 | patch = { spec = { replica = 2, template = { spec = { containers = [{ nmae = "a" }] } } } }
   |                    ^^^^^^^
   = help: did you mean `replicas`?

error: unknown field "spec.template.spec.containers[0].nmae"
  --> a.toml:54:71
   |
54 | patch = { spec = { replica = 2, template = { spec = { containers = [{ nmae = "a" }] } } } }
   |                                                                       ^^^^
   = help: did you mean `name`?
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
[workload.generate]
deployments = 1
replicas = 1
image = "nginx:1"
max-surge = "abc"
max-unavailable = "101%""##,
        r##"error: `max-surge` is `abc`, expected a whole number or a percentage
  --> a.toml:36:13
   |
36 | max-surge = "abc"
   |             ^^^^^
   = help: write it like "2" or "25%"

error: `max-unavailable` is `101%`, expected a whole number or a percentage
  --> a.toml:37:19
   |
37 | max-unavailable = "101%"
   |                   ^^^^^^
   = help: write it like "2" or "25%", at most 100%
"##,
    ),
    (
        "",
        r##"[[probe]]
name = "p"
kind = "pnig"
from = {}
to = { adress = "10.0.0.1" }"##,
        r##"error: unknown kind `pnig`
  --> a.toml:32:8
   |
32 | kind = "pnig"
   |        ^^^^^^
   = help: did you mean `ping`?

error: from where?
  --> a.toml:33:8
   |
33 | from = {}
   |        ^^
   = help: give one of `node`, `client`, `pod` or `name`

error: to where?
  --> a.toml:34:6
   |
34 | to = { adress = "10.0.0.1" }
   |      ^^^^^^^^^^^^^^^^^^^^^^^
   = help: give one of api, dns, service, pod, name, node, host, address

error: unknown key `adress` in [probe.to]
  --> a.toml:34:8
   |
34 | to = { adress = "10.0.0.1" }
   |        ^^^^^^
   = help: did you mean `address`?
"##,
    ),
    (
        r##"address = "192.168.1.11""##,
        r##"address = "192.168.1.99""##,
        r##"error: `w2` has the address 192.168.1.100, which the DHCP server of `lan` gives away (192.168.1.100 to 192.168.1.199)
  --> a.toml:16:11
   |
16 | address = "192.168.1.99"
   |           ^^^^^^^^^^^^^^
   = help: take an address outside the pool, or a smaller pool
"##,
    ),
    (
        r##"dhcp = { first = "192.168.1.100", last = "192.168.1.199" }"##,
        r##"dhcp = { first = "192.168.1.1", last = "192.168.1.10" }"##,
        r##"error: the pool (192.168.1.1 to 192.168.1.10) gives away 192.168.1.1, the gateway of 192.168.1.0/24
 --> a.toml:6:18
  |
6 | dhcp = { first = "192.168.1.1", last = "192.168.1.10" }
  |                  ^^^^^^^^^^^^^
  = help: begin it behind the gateway, or end it before
"##,
    ),
    (
        "",
        r##"[[network]]
name = "tiny"
cidr = "10.0.0.0/31"
[[network]]
name = "host"
cidr = "10.0.1.1/32""##,
        r##"error: the network 10.0.0.0/31 has no room for a router and a machine
  --> a.toml:32:8
   |
32 | cidr = "10.0.0.0/31"
   |        ^^^^^^^^^^^^^
   = help: the smallest that has is a /30

error: the network 10.0.1.1/32 has no room for a router and a machine
  --> a.toml:35:8
   |
35 | cidr = "10.0.1.1/32"
   |        ^^^^^^^^^^^^^
   = help: the smallest that has is a /30
"##,
    ),
    (
        "",
        r##"[[client]]
name = "phone"
network = "lan"
address = "192.168.1.12"
[[upstream]]
name = "isp"
network = "lan"
address = "192.168.1.1"
[[link]]
between = ["lan", "lan"]"##,
        r##"error: `w2` and `phone` both have the address 192.168.1.12
  --> a.toml:16:11
   |
16 | address = "192.168.1.11"
   |           ^^^^^^^^^^^^^^

error: `isp` and `lan's router` both have the address 192.168.1.1
  --> a.toml:37:11
   |
37 | address = "192.168.1.1"
   |           ^^^^^^^^^^^^^

error: the link has `lan` at both ends
  --> a.toml:39:11
   |
39 | between = ["lan", "lan"]
   |           ^^^^^^^^^^^^^^
   = help: name two networks
"##,
    ),
    (
        "",
        r##"[[network]]
name = "cafe"
cidr = "10.20.0.0/24"
[[client]]
name = "phone"
network = "cafe"
address = "10.20.0.9"
[[fault]]
kind = "move"
at = "1s"
node = "n1"
network = "cafe"
address = "10.20.0.9"
[[fault]]
kind = "move"
at = "2s"
node = "w1"
network = "cafe"
address = "10.21.0.9""##,
        r##"error: `n1` moves to the address 10.20.0.9, which `phone` has
  --> a.toml:42:11
   |
42 | address = "10.20.0.9"
   |           ^^^^^^^^^^^

error: 10.21.0.9 is not a machine's address in 10.20.0.0/24
  --> a.toml:48:11
   |
48 | address = "10.21.0.9"
   |           ^^^^^^^^^^^
   = help: its machines are 10.20.0.1 to 10.20.0.254
"##,
    ),
    (
        "",
        r##"[cluster]
backend = "wireguard"
netd = "flannel""##,
        r##"error: the model of flannel has no `wireguard` backend
  --> a.toml:31:11
   |
31 | backend = "wireguard"
   |           ^^^^^^^^^^^
   = help: `host-gw` and `vxlan` it has; netd has all three
"##,
    ),
    (
        "",
        r##"[cluster]
dns-address = "10.96.0.1"
pod-network = "10.1.0.0/24""##,
        r##"error: the cluster DNS and the Service `kubernetes` both have 10.96.0.1
  --> a.toml:31:15
   |
31 | dns-address = "10.96.0.1"
   |               ^^^^^^^^^^^
   = help: `dns-address` may be 10.96.0.2 to 10.111.255.254

error: a node's share, a /24, is no part of the pod network 10.1.0.0/24
  --> a.toml:32:15
   |
32 | pod-network = "10.1.0.0/24"
   |               ^^^^^^^^^^^^^
   = help: `node-mask` must be longer than the pod network's prefix
"##,
    ),
    (
        "",
        r##"[cluster]
dns-address = "10.0.0.10"
node-mask = 15"##,
        r##"error: 10.0.0.10 is no address of the service network 10.96.0.0/12
  --> a.toml:31:15
   |
31 | dns-address = "10.0.0.10"
   |               ^^^^^^^^^^^
   = help: `dns-address` may be 10.96.0.2 to 10.111.255.254

error: a node's share, a /15, is no part of the pod network 10.244.0.0/16
  --> a.toml:32:13
   |
32 | node-mask = 15
   |             ^^
   = help: `node-mask` must be longer than the pod network's prefix
"##,
    ),
    (
        "",
        r##"[cluster]
service-network = "10.7.0.0/29""##,
        r##"error: the service network 10.7.0.0/29 has no tenth address, 10.7.0.10, for the cluster DNS
  --> a.toml:31:19
   |
31 | service-network = "10.7.0.0/29"
   |                   ^^^^^^^^^^^^^
   = help: `dns-address` may be 10.7.0.2 to 10.7.0.6
"##,
    ),
    (
        "",
        r##"[[link]]
between = ["lan", "wan"]
loss = "200%""##,
        r##"error: unknown network `wan`
  --> a.toml:31:19
   |
31 | between = ["lan", "wan"]
   |                   ^^^^^
   = help: did you mean `lan`?
"##,
    ),
    (
        "",
        r##"[[network]]
name = "wan"
cidr = "10.0.0.0/24"
[[node]]
name = "w3"
network = "wan"
[[fault]]
kind = "link-down"
at = "1s"
[[fault]]
kind = "delete"
at = "1s"
[[fault]]
kind = "link-up"
at = "1s"
node = "w2"
network = "lan""##,
        r##"error: two machines are called `w3`: one of `w`, one of `w3`
  --> a.toml:34:8
   |
34 | name = "w3"
   |        ^^^^

error: the network `wan` has no DHCP server
  --> a.toml:35:11
   |
35 | network = "wan"
   |           ^^^^^
   = help: give it a dhcp table, or the node an address

error: which cable is meant?
  --> a.toml:37:8
   |
37 | kind = "link-down"
   |        ^^^^^^^^^^^
   = help: give exactly one of `node`, `link` and `network`

error: which object is meant?
  --> a.toml:40:8
   |
40 | kind = "delete"
   |        ^^^^^^^^
   = help: give `object`, or `of-kind` and `labels`

error: which cable is meant?
  --> a.toml:46:11
   |
46 | network = "lan"
   |           ^^^^^
   = help: give exactly one of `node`, `link` and `network`
"##,
    ),
    (
        "",
        "invariants = []",
        r##"error: unknown key `invariants` in [profile.NAME]
  --> a.toml:30:1
   |
30 | invariants = []
   | ^^^^^^^^^^
   = help: expected one of shows, netd, dns, overlap, set
"##,
    ),
    (
        "[profile.flannel]",
        r##"[profile.flannel]
dsn = "kube-dns""##,
        r##"error: unknown key `dsn` in [profile.NAME]
  --> a.toml:29:1
   |
29 | dsn = "kube-dns"
   | ^^^
   = help: did you mean `dns`?
"##,
    ),
];

#[test]
fn every_mistake_is_explained_at_its_place() {
    for (line, with, expected) in MISTAKES {
        assert_eq!(wrong(line, with), *expected, "\n{with}");
    }
}

/// Names that the API would refuse, as [`MISTAKES`] are; of upstream's long words the beginning.
const NAMES: &[(&str, &str, &str)] = &[
    (
        r##"name = "w"
count = 3"##,
        r##"name = "W_"
labels = { "a/b/c" = "x", "zone" = "eu west" }
taints = ["a b=c:NoSchedule", "dedicated"]
count = 3"##,
        r##"error: `W_3` is no name of a node
  --> a.toml:12:8
   |
12 | name = "W_"
   |        ^^^^
   = help: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characte

error: `a/b/c` is no name of a label
  --> a.toml:13:12
   |
13 | labels = { "a/b/c" = "x", "zone" = "eu west" }
   |            ^^^^^^^
   = help: a qualified name must consist of alphanumeric characters, '-', '_' or '.', and 

error: `eu west` is no value of a label
  --> a.toml:13:36
   |
13 | labels = { "a/b/c" = "x", "zone" = "eu west" }
   |                                    ^^^^^^^^^
   = help: a valid label must be an empty string or consist of alphanumeric characters, '-

error: `a b=c:NoSchedule` is no taint
  --> a.toml:14:11
   |
14 | taints = ["a b=c:NoSchedule", "dedicated"]
   |           ^^^^^^^^^^^^^^^^^^
   = help: name part must consist of alphanumeric characters, '-', '_' or '.', and must st

error: `dedicated` is not a taint
  --> a.toml:14:31
   |
14 | taints = ["a b=c:NoSchedule", "dedicated"]
   |                               ^^^^^^^^^^^
   = help: write it like key=value:NoSchedule
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "Web"
generate = { deployments = 1, replicas = 1, image = "i", namespace = "a.b", labels = { t = "-" } }"##,
        r##"error: `Web-1` is no name of a generated object
  --> a.toml:31:8
   |
31 | name = "Web"
   |        ^^^^^
   = help: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characte

error: `a.b` is no name of a namespace
  --> a.toml:32:70
   |
32 | generate = { deployments = 1, replicas = 1, image = "i", namespace = "a.b", labels = { t = "-" } }
   |                                                                      ^^^^^
   = help: a lowercase RFC 1123 label must consist of lower case alphanumeric characters o

error: `-` is no value of a label
  --> a.toml:32:92
   |
32 | generate = { deployments = 1, replicas = 1, image = "i", namespace = "a.b", labels = { t = "-" } }
   |                                                                                            ^^^
   = help: a valid label must be an empty string or consist of alphanumeric characters, '-
"##,
    ),
];

#[test]
fn names_are_refused_in_upstreams_words() {
    for (line, with, expected) in NAMES {
        let said = wrong(line, with);
        let cut = |line: &str| match line.starts_with("   = help") {
            true => line.chars().take(90).collect::<String>() + "\n",
            false => format!("{line}\n"),
        };
        assert_eq!(said.lines().map(cut).collect::<String>(), *expected, "\n{with}");
    }
}

#[test]
fn nothing_is_done_to_nobody_or_without_an_end() {
    let probe = |every| {
        format!(
            "[[probe]]\nname = \"again\"\nkind = \"ping\"\nfrom = {{ node = \"w1\" }}\n\
             to = {{ node = \"w1\" }}\nevery = \"{every}\""
        )
    };
    let said = wrong("", &probe("1ns"));
    assert!(said.contains("error: `every` is shorter than 1ms\n"), "{said}");
    assert!(!wrong("", &probe("1ms")).contains("every"));
    let fault = "[[fault]]\nname = \"none\"\nat = \"1s\"\nkind = \"power-off\"\nnodes = []";
    let said = wrong("", fault);
    assert!(said.contains("error: `nodes` names no machine\n"), "{said}");
    let said = wrong("", "[[node]]\nname = \"\"\nnetwork = \"lan\"\naddress = \"192.168.1.77\"");
    assert!(said.contains("error: `` is no name of a node\n"), "{said}");
}

#[test]
fn what_has_no_end_is_not_read_to_its_end() {
    let said = Scenario::load(Path::new("/dev/zero"), &[], None).expect_err("no scenario");
    assert!(said.to_string().contains("it is larger than 64 MiB"), "{said}");
}

/// `--set` and what is said about it.
const SETS: &[(&str, &str, &str)] = &[
    (
        "node.x.count",
        "5",
        r##"error: there is no `x` here
 --> --set:1:6
  |
1 | node.x.count=5
  |      ^
  = help: did you mean `w`?
"##,
    ),
    (
        "node.w.cuont",
        "5",
        r##"error: unknown key `cuont` in [[node]]
 --> --set:1:8
  |
1 | node.w.cuont=5
  |        ^^^^^
  = help: did you mean `count`?
"##,
    ),
    (
        "node.w.count",
        r##""5""##,
        r##"error: `count` is a text, expected an integer
 --> --set:1:14
  |
1 | node.w.count="5"
  |              ^^^
"##,
    ),
    (
        "node..w",
        "5",
        r##"error: this is not a path of keys
 --> --set:1:1
  |
1 | node..w=5
  | ^^^^^^^
  = help: write it like node.n.count=500, image."redis:7".pull=1s
"##,
    ),
    (
        "duration",
        "1h30",
        r##"error: `1h30` is not a duration
 --> --set:1:10
  |
1 | duration=1h30
  |          ^^^^
  = help: write it like "1.5s", "200ms", "2m30s" or "26h"
"##,
    ),
    (
        "fault.netd-down.at",
        r##"{ from = "1s", too = "2s" }"##,
        r##"error: a span of time lacks the key `to`
 --> --set:1:20
  |
1 | fault.netd-down.at={ from = "1s", too = "2s" }
  |                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: unknown key `too` in a span of time
 --> --set:1:35
  |
1 | fault.netd-down.at={ from = "1s", too = "2s" }
  |                                   ^^^
  = help: did you mean `to`?
"##,
    ),
    (
        "node.w",
        "5",
        r##"error: expected a table, found an integer
 --> --set:1:8
  |
1 | node.w=5
  |        ^
"##,
    ),
    (
        "name.x",
        "5",
        r##"error: there is no `x` here
 --> --set:1:6
  |
1 | name.x=5
  |      ^
  = help: there are none
"##,
    ),
];

#[test]
fn a_mistake_in_an_override_is_shown_in_the_override() {
    for (path, value, expected) in SETS {
        let wrong = parse(BASE, &[(path, value)], None).unwrap_err().to_string();
        assert_eq!(wrong, *expected, "{path}={value}");
    }
}

#[test]
fn a_mistake_in_a_profile_is_shown_in_the_profile() {
    let wrong = parse(BASE, &[], Some("flanel")).unwrap_err().to_string();
    let help = "did you mean `flannel`?";
    assert_eq!(
        wrong,
        format!("error: the scenario has no profile `flanel`\n --> a.toml\n  = help: {help}\n")
    );
    let text = format!("{BASE}[profile.x.set]\n\"cluster.bakend\" = \"vxlan\"\nnode.w.count = 3\n");
    let wrong = parse(&text, &[], Some("x")).unwrap_err();
    let places: Vec<_> = wrong.0.iter().map(|w| (w.line, w.message.as_str())).collect();
    assert_eq!(
        places,
        [(32, "`node` is a table, expected a value"), (31, "unknown key `bakend` in [cluster]"),]
    );
}

// ---- what a file means

#[test]
fn templates_racks_and_overrides() {
    let sets = [("node.w.count", "4"), ("fault.netd-down.nodes", "rack-2"), ("cluster.vni", "7")];
    let scenario = parse(BASE, &sets, Some("flannel")).unwrap();
    let nodes: Vec<_> = scenario
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.rack.as_deref().unwrap_or("-"), n.address))
        .collect();
    let fixed = |last| Address::Static([192, 168, 1, last].into());
    assert_eq!(
        nodes,
        [
            ("n1", "-", Address::Dhcp),
            ("w1", "rack-1", fixed(11)),
            ("w2", "rack-1", fixed(12)),
            ("w3", "rack-2", fixed(13)),
            ("w4", "rack-2", fixed(14)),
        ]
    );
    match &scenario.faults[0].kind {
        FaultKind::Stop { nodes, .. } => assert_eq!(nodes, &["w3", "w4"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(scenario.cluster.netd, NetdProgram::Flannel);
    assert!(matches!(scenario.cluster.backend, Backend::Vxlan { vni: 7, .. }));
    assert_eq!(scenario.cluster.dns_address.to_string(), "10.96.0.10");
}

#[test]
fn the_fleet_is_made_smaller_and_larger() {
    let path = Path::new("scenarios/fleet.toml");
    for (count, deployments) in [(50, 3), (5000, 2500)] {
        let sets = [
            ("node.n.count".to_owned(), count.to_string()),
            ("workload.web.generate.deployments".to_owned(), deployments.to_string()),
        ];
        let fleet = Scenario::load(path, &sets, None).unwrap();
        assert_eq!(fleet.nodes.len(), count + 1);
        assert_eq!(fleet.workloads[0].objects.len(), 2 * deployments);
    }
}

/// A piece of a shipped file cut out, doubled or overwritten: explained or understood, never a
/// panic.
#[test]
fn no_damage_makes_the_parser_panic() {
    let texts: Vec<String> =
        shipped().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let pieces = ["", "\"", "[", "]]", "= 5\n", "{", "\n", "é", "1e999", "[[node]]\n", "-1", "\t"];
    let strategy = (0..texts.len(), 0.0..1.0f64, 0usize..40, 0..pieces.len());
    let config = proptest::test_runner::Config { cases: 300, ..Default::default() };
    proptest::proptest!(config, |((file, place, length, piece) in strategy)| {
        let text = &texts[file];
        let inside = |at: usize| (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i));
        let start = inside((place * text.len() as f64) as usize).unwrap_or(0);
        let end = inside(start + length).unwrap_or(start).max(start);
        let damaged = format!("{}{}{}", &text[..start], pieces[piece], &text[end..]);
        if let Err(wrong) = parse(&damaged, &[("node.n.count", "3")], None) {
            proptest::prop_assert!(!wrong.0.is_empty() && !wrong.to_string().is_empty());
        }
    });
}
