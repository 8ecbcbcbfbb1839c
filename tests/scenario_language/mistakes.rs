//! Mistakes in a file and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const MISTAKES: &[(&str, &str, &str)] = &[
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
        r##"error: no kind "Pood" in version "v1"
 --> dir/web.yaml:7:1
  |
7 | kind: Pood
  | ^^^^
  = help: did you mean `Pod`?

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
        r##"error: no kind "Servic" in version "v1"
  --> a.toml:34:1
   |
34 | kind = "Servic"
   | ^^^^
   = help: did you mean `Service`?
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
