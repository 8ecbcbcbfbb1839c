//! Faults that by their own table could do nothing, and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const EFFECTS: &[(&str, &str, &str)] = &[
    (
        "",
        r##"[[fault]]
kind = "disturb"
at = "1s"
node = "w1"
lasts = "5s"
[[fault]]
kind = "disturb"
at = "1s"
node = "w1"
loss = 0.0
lasts = "5s"
[[fault]]
kind = "partition"
at = "1s"
from = "w1"
to = ["w1"]
lasts = "5s"
[[fault]]
kind = "partition"
at = "1s"
from = ["w1", "w2"]
to = ["w1", "w2"]
lasts = "5s""##,
        r##"error: this disturbs nothing
  --> a.toml:31:8
   |
31 | kind = "disturb"
   |        ^^^^^^^^^
   = help: give at least one of `latency`, `jitter`, `loss`, `duplicate`, `reorder`

error: this disturbs nothing
  --> a.toml:39:8
   |
39 | loss = 0.0
   |        ^^^
   = help: give at least one of `latency`, `jitter`, `loss`, `duplicate`, `reorder`

error: `from` and `to` are both `w1`: nothing is cut
  --> a.toml:45:6
   |
45 | to = ["w1"]
   |      ^^^^^^
   = help: name machines on both sides
"##,
    ),
    (
        "",
        r##"[[fault]]
kind = "patch"
at = "1s"
object = "Node/w1"
patch = { status = { phase = "Running" } }
[[fault]]
kind = "patch"
at = "1s"
object = "Node/w1"
patch = { metadata = { labels = {} } }
[[fault]]
kind = "patch"
at = "1s"
object = "Node/w1"
patch = { metadata = { labels = { a = "b" } }, status = { phase = "Running" } }"##,
        r##"error: a patch changes no `status`, and this has nothing else for a Node
  --> a.toml:34:9
   |
34 | patch = { status = { phase = "Running" } }
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: controllers and kubelets write it: change what they look at

error: this patch changes nothing
  --> a.toml:39:9
   |
39 | patch = { metadata = { labels = {} } }
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   = help: give a field and its value
"##,
    ),
    (
        "",
        r##"[[fault]]
kind = "write-file"
at = "1s"
nodes = "w1"
path = "etc/resolv.conf"
[[fault]]
kind = "write-file"
at = "1s"
nodes = "w1"
path = "/etc"
[[fault]]
kind = "write-file"
at = "1s"
nodes = "w1"
path = "/"
[[fault]]
kind = "write-file"
at = "1s"
nodes = "w1"
path = "/etc/motd/"
[[fault]]
kind = "write-file"
at = "1s"
nodes = "w1"
path = "/etc/../motd""##,
        r##"error: `etc/resolv.conf` is no absolute path
  --> a.toml:34:8
   |
34 | path = "etc/resolv.conf"
   |        ^^^^^^^^^^^^^^^^^
   = help: write it like /etc/resolv.conf

error: `/etc` is a directory
  --> a.toml:39:8
   |
39 | path = "/etc"
   |        ^^^^^^
   = help: write it like /etc/resolv.conf

error: `/` is a directory
  --> a.toml:44:8
   |
44 | path = "/"
   |        ^^^
   = help: write it like /etc/resolv.conf

error: `/etc/motd/` is a directory
  --> a.toml:49:8
   |
49 | path = "/etc/motd/"
   |        ^^^^^^^^^^^^
   = help: write it like /etc/resolv.conf

error: `/etc/../motd` has an empty part, `.` or `..`
  --> a.toml:54:8
   |
54 | path = "/etc/../motd"
   |        ^^^^^^^^^^^^^^
   = help: write it like /etc/resolv.conf
"##,
    ),
    (
        "count = 3",
        r##"count = 3
files = { "motd" = "x", "/etc/hosts" = "y" }"##,
        r##"error: `motd` is no absolute path
  --> a.toml:14:11
   |
14 | files = { "motd" = "x", "/etc/hosts" = "y" }
   |           ^^^^^^
   = help: write it like /etc/resolv.conf
"##,
    ),
    (
        "",
        r##"[[fault]]
kind = "iptables"
at = "1s"
nodes = ["w2", "w2"]
command = ""
[[fault]]
kind = "iptables"
at = "1s"
nodes = ["w", "w2"]
command = "  "
[[fault]]
kind = "start-software"
at = "1s"
nodes = "w1"
software = "network-manager"
[[fault]]
kind = "partition"
at = "1s"
from = ["w1", "n1", "w1"]
to = "w"
lasts = "5s""##,
        r##"error: `w2` is named twice
  --> a.toml:33:16
   |
33 | nodes = ["w2", "w2"]
   |                ^^^^

error: `command` is blank
  --> a.toml:34:11
   |
34 | command = ""
   |           ^^
   = help: write it like -I FORWARD 1 -j DROP

error: `command` is blank
  --> a.toml:39:11
   |
39 | command = "  "
   |           ^^^^
   = help: write it like -I FORWARD 1 -j DROP

error: `network-manager` is a way in which a machine runs its DHCP client: nothing is started
  --> a.toml:44:12
   |
44 | software = "network-manager"
   |            ^^^^^^^^^^^^^^^^^
   = help: give it to the [[node]] as `software`

error: `w1` is named twice
  --> a.toml:48:21
   |
48 | from = ["w1", "n1", "w1"]
   |                     ^^^^
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
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: web}]}
"""
[[fault]]
kind = "scale"
at = "20s"
object = "Deployment/web"
replicas = 2147483648
[[fault]]
kind = "scale"
at = "20s"
object = "Deployment/web"
replicas = -1"##,
        r##"error: `replicas` is 2147483648, expected 0 to 2147483647
  --> a.toml:46:12
   |
46 | replicas = 2147483648
   |            ^^^^^^^^^^

error: `replicas` is -1, expected 0 to 2147483647
  --> a.toml:51:12
   |
51 | replicas = -1
   |            ^^
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
kind = "scale"
at = "20s"
object = "Service/web"
replicas = 2
[[fault]]
kind = "scale"
at = "20s"
of-kind = "Node"
replicas = 2
[[fault]]
kind = "start-software"
at = "20s"
nodes = "w1"
software = "ufw"
version = "1.13"
[[fault]]
kind = "write-file"
at = "20s"
nodes = "w1"
path = "/etc/motd"
how = "empty"
text = "x"
[[fault]]
kind = "write-file"
at = "20s"
nodes = "w1"
path = "/var/lib"
[[fault]]
name = ""
kind = "iptables"
at = "20s"
nodes = "w1"
command = "-t nat -nvL"
[[fault]]
kind = "iptables"
at = "20s"
nodes = "w1"
command = "-A FORWARD -m comment --comment -L -j DROP""##,
        r##"error: a Service has no replicas
  --> a.toml:41:10
   |
41 | object = "Service/web"
   |          ^^^^^^^^^^^^^
   = help: scale a Deployment or a ReplicaSet

error: a Node has no replicas
  --> a.toml:46:11
   |
46 | of-kind = "Node"
   |           ^^^^^^
   = help: scale a Deployment or a ReplicaSet

error: only docker has a `version` here
  --> a.toml:53:11
   |
53 | version = "1.13"
   |           ^^^^^^
   = help: leave it out

error: `how = "empty"` leaves nothing in the file
  --> a.toml:60:8
   |
60 | text = "x"
   |        ^^^
   = help: leave `text` out, or write it `in-place`

error: `/var/lib` is a directory
  --> a.toml:65:8
   |
65 | path = "/var/lib"
   |        ^^^^^^^^^^
   = help: write it like /etc/resolv.conf

error: a fault's name is empty
  --> a.toml:67:8
   |
67 | name = ""
   |        ^^
   = help: leave it out, or give it one

error: `-nvL` changes no rule
  --> a.toml:71:11
   |
71 | command = "-t nat -nvL"
   |           ^^^^^^^^^^^^^
   = help: what rules are is asked with an expectation `rules`
"##,
    ),
];
