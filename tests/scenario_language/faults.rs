//! Mistakes in faults and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const FAULTS: &[(&str, &str, &str)] = &[
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
        r##"[[fault]]
kind = "sysctl"
at = "1s"
nodes = "w"
key = "net.ipv4.conf.eth0.forwardin"
value = 1
[[fault]]
kind = "sysctl"
at = "1s"
nodes = "w"
key = "net.ipv4.ip_forward"
value = 300
[[expect]]
name = "e"
kind = "sysctl"
key = "net.ipv4.ipforward"
value = 1
[[node]]
name = "v"
network = "lan"
sysctls = { "net.ipv4.ip_foward" = 1, "net.ipv4.icmp_ratelimit" = 5 }"##,
        r##"error: unknown sysctl `net.ipv4.conf.eth0.forwardin`
  --> a.toml:34:7
   |
34 | key = "net.ipv4.conf.eth0.forwardin"
   |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: did you mean `net.ipv4.conf.eth0.forwarding`?

error: the sysctl net.ipv4.ip_forward cannot be 300
  --> a.toml:41:9
   |
41 | value = 300
   |         ^^^
   = help: the model takes 0 to 255

error: unknown sysctl `net.ipv4.ipforward`
  --> a.toml:45:7
   |
45 | key = "net.ipv4.ipforward"
   |       ^^^^^^^^^^^^^^^^^^^^
   = help: did you mean `net.ipv4.ip_forward`?

error: unknown sysctl `net.ipv4.ip_foward`
  --> a.toml:50:13
   |
50 | sysctls = { "net.ipv4.ip_foward" = 1, "net.ipv4.icmp_ratelimit" = 5 }
   |             ^^^^^^^^^^^^^^^^^^^^
   = help: did you mean `net.ipv4.ip_forward`?

error: the sysctl net.ipv4.icmp_ratelimit cannot be 5
  --> a.toml:50:67
   |
50 | sysctls = { "net.ipv4.ip_foward" = 1, "net.ipv4.icmp_ratelimit" = 5 }
   |                                                                   ^
   = help: the model takes 0, no limit, and no other
"##,
    ),
    (
        "",
        r##"[[workload]]
name = "web"
yaml = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
"""
[[fault]]
kind = "delete"
at = "20s"
object = "Service/wbe"
[[fault]]
kind = "scale"
at = "20s"
object = "Deployment/web"
replicas = 3
[[fault]]
kind = "delete"
at = "20s"
object = "Node/w7"
[[fault]]
kind = "patch"
at = "20s"
object = "Service/kubernetes"
patch = { metadata = { labels = { a = "b" } } }"##,
        r##"error: nothing in the file makes a Service default/wbe
  --> a.toml:41:10
   |
41 | object = "Service/wbe"
   |          ^^^^^^^^^^^^^
   = help: did you mean `default/web`?

error: nothing in the file makes a Deployment default/web
  --> a.toml:45:10
   |
45 | object = "Deployment/web"
   |          ^^^^^^^^^^^^^^^^
   = help: there are none

error: nothing in the file makes a Node w7
  --> a.toml:50:10
   |
50 | object = "Node/w7"
   |          ^^^^^^^^^
   = help: did you mean `w1`?
"##,
    ),
    (
        "",
        r##"[cluster]
proxy = false
[[fault]]
kind = "kill"
at = "1s"
actor = "proxy"
nodes = "w"
[[fault]]
kind = "stop"
at = "1s"
actor = "scheduler"
nodes = ["w1", "w2"]
[[fault]]
kind = "node-add"
at = "1s"
nodes = ["w1"]"##,
        r##"error: no machine runs `proxy`: `cluster.proxy` is false
  --> a.toml:35:9
   |
35 | actor = "proxy"
   |         ^^^^^^^

error: `scheduler` does not run on w1, w2
  --> a.toml:40:9
   |
40 | actor = "scheduler"
   |         ^^^^^^^^^^^
   = help: it runs on the server, `n1`

error: `w1` is there from the start and cannot join
  --> a.toml:45:9
   |
45 | nodes = ["w1"]
   |         ^^^^^^
   = help: give its [[node]] off = true
"##,
    ),
    (
        "",
        r##"[[network]]
name = "wan"
cidr = "10.0.0.0/24"
[[fault]]
kind = "dhcp-push-dns"
at = "1s"
network = "wan"
dns = ["10.0.0.1"]
[[fault]]
kind = "move"
at = "1s"
node = "n1"
network = "wan"
[[fault]]
kind = "move"
at = "2s"
node = "w1"
network = "lan"
address = "192.168.1.150""##,
        r##"error: the network `wan` has no DHCP server
  --> a.toml:36:11
   |
36 | network = "wan"
   |           ^^^^^
   = help: give it a dhcp table

error: `n1` asks DHCP for its address, and `wan` has no DHCP server
  --> a.toml:42:11
   |
42 | network = "wan"
   |           ^^^^^
   = help: give the move an address, or the network a dhcp table

error: `w1` moves to 192.168.1.150, which the DHCP server of `lan` gives away
  --> a.toml:48:11
   |
48 | address = "192.168.1.150"
   |           ^^^^^^^^^^^^^^^
   = help: its pool is 192.168.1.100 to 192.168.1.199: take an address outside
"##,
    ),
    (
        "",
        r##"[[network]]
name = "wan"
cidr = "10.0.0.0/24"
[[fault]]
name = "first"
kind = "move"
at = "1s"
node = "w1"
network = "wan"
address = "10.0.0.9"
[[fault]]
name = "second"
kind = "move"
at = { from = "2s", to = "9s" }
node = "w2"
network = "wan"
address = "10.0.0.9""##,
        r##"error: `w1` and `w2` both move to the address 10.0.0.9, in `first` and `second`
  --> a.toml:46:11
   |
46 | address = "10.0.0.9"
   |           ^^^^^^^^^^
   = help: give them an address each, or let the first leave again
"##,
    ),
];
