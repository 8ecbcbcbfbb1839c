//! What is well written and means nothing, or not what was meant.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const SENSELESS: &[(&str, &str, &str)] = &[
    (
        "",
        r##"[[workload]]
name = "yaml"
yaml = """
# A slip.
apiVersion: v1
metadata: {name: x}
kind: Deployment
""""##,
        r##"error: no kind "Deployment" in version "v1"
  --> a.toml:34:1
   |
34 | apiVersion: v1
   | ^^^^^^^^^^
   = help: Deployment is in version apps/v1
"##,
    ),
    (
        r##"duration = "60s""##,
        r##"duration = "9999999999d""##,
        r##"error: `9999999999d` is too large, the most is 213503d
 --> a.toml:2:12
  |
2 | duration = "9999999999d"
  |            ^^^^^^^^^^^^^
"##,
    ),
    (
        "count = 3",
        r##"count = 3
cpu = "99999999999999999999"
memory = "16777216Ti""##,
        r##"error: `cpu` is too large, the most is 18446744073709551
  --> a.toml:14:7
   |
14 | cpu = "99999999999999999999"
   |       ^^^^^^^^^^^^^^^^^^^^^^

error: `memory` is too large, the most is 16777215Ti
  --> a.toml:15:10
   |
15 | memory = "16777216Ti"
   |          ^^^^^^^^^^^^
"##,
    ),
    (
        "",
        r##"[[network]]
name = "lo"
cidr = "127.0.0.0/24"
[[network]]
name = "all"
cidr = "224.1.0.0/16"
[[network]]
name = "none"
cidr = "0.0.0.0/24"
[cluster]
pod-network = "169.254.0.0/16"
service-network = "127.4.0.0/16""##,
        r##"error: the network 127.0.0.0/24 has addresses of 127.0.0.0/8, the loopback's
  --> a.toml:32:8
   |
32 | cidr = "127.0.0.0/24"
   |        ^^^^^^^^^^^^^^
   = help: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16

error: the network 224.1.0.0/16 has addresses of 224.0.0.0/4, which is multicast
  --> a.toml:35:8
   |
35 | cidr = "224.1.0.0/16"
   |        ^^^^^^^^^^^^^^
   = help: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16

error: the network 0.0.0.0/24 has addresses of 0.0.0.0/8, which means "this network"
  --> a.toml:38:8
   |
38 | cidr = "0.0.0.0/24"
   |        ^^^^^^^^^^^^
   = help: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16

error: the network 169.254.0.0/16 has addresses of 169.254.0.0/16, link-local, which nobody forwards
  --> a.toml:40:15
   |
40 | pod-network = "169.254.0.0/16"
   |               ^^^^^^^^^^^^^^^^
   = help: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16

error: the network 127.4.0.0/16 has addresses of 127.0.0.0/8, the loopback's
  --> a.toml:41:19
   |
41 | service-network = "127.4.0.0/16"
   |                   ^^^^^^^^^^^^^^
   = help: take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16
"##,
    ),
    (
        r##"role = "server""##,
        r##"role = "server"
off = true
boot-delay = "5m""##,
        r##"error: the server `n1` is off
  --> a.toml:10:7
   |
10 | off = true
   |       ^^^^
   = help: nobody could join before it; give it a `boot-delay`, or a fault `power-off`

error: `boot-delay` is past the end of the run
  --> a.toml:11:14
   |
11 | boot-delay = "5m"
   |              ^^^^
   = help: the run's duration is 60s
"##,
    ),
    (
        "count = 3",
        r##"count = 3
role = "server""##,
        r##"error: `n1` and `w1` are both servers
  --> a.toml:14:8
   |
14 | role = "server"
   |        ^^^^^^^^
   = help: one machine has the store and the API server: make the others workers
"##,
    ),
    (
        r##"to = { service = "web" }"##,
        r##"to = { service = "web", node = "w1" }
timeout = "0s""##,
        r##"error: where the probe goes is both `service` and `node`
  --> a.toml:27:32
   |
27 | to = { service = "web", node = "w1" }
   |                                ^^^^
   = help: give one of them, and a probe each

error: `timeout` must be longer than nothing
  --> a.toml:28:11
   |
28 | timeout = "0s"
   |           ^^^^
   = help: a probe's usual one is 1s
"##,
    ),
    (
        r##"from = { node = "n1" }"##,
        r##"from = { node = "n1", pod = "app=web" }"##,
        r##"error: where the probe is from is both `node` and `pod`
  --> a.toml:26:29
   |
26 | from = { node = "n1", pod = "app=web" }
   |                             ^^^^^^^^^
   = help: give one of them, and a probe each
"##,
    ),
    (
        "",
        r##"[[probe]]
name = "a"
kind = "dig"
from = { node = "n1" }
query = "web..svc"
[[probe]]
name = "c"
kind = "ping"
from = { node = "n1" }
to = { host = "." }"##,
        r##"error: the name `web..svc` has an empty label
  --> a.toml:34:9
   |
34 | query = "web..svc"
   |         ^^^^^^^^^^
   = help: write it like web.default.svc

error: the name `.` has no label
  --> a.toml:39:15
   |
39 | to = { host = "." }
   |               ^^^
   = help: write it like web.default.svc
"##,
    ),
    (
        "",
        r##"[[expect]]
name = "e"
kind = "rules"
[[expect]]
name = "f"
kind = "says"
text = []"##,
        r##"error: which rules are looked for?
  --> a.toml:32:8
   |
32 | kind = "rules"
   |        ^^^^^^^
   = help: give `has`, `absent` or both a pattern

error: `text` has no text to look for
  --> a.toml:36:8
   |
36 | text = []
   |        ^^
"##,
    ),
    (
        "",
        r##"[lab.set]
"duration" = "5s"
[profile.x.set]
"cluster.bakend" = "vxlan"
"node.v.count" = 3
[profile.y.set]
"cluster.vni" = 0"##,
        r##"error: `at` is past the end of the run
  --> a.toml:20:6
   |
20 | at = "10s"
   |      ^^^^^
   = help: the run's duration is 5s; so it is with the values of [lab.set]

error: there is no `v` here
  --> a.toml:34:1
   |
34 | "node.v.count" = 3
   | ^^^^^^^^^^^^^^
   = help: did you mean `w`?; so it is with the values of [profile.x]

error: unknown key `bakend` in [cluster]
  --> a.toml:33:1
   |
33 | "cluster.bakend" = "vxlan"
   | ^^^^^^^^^^^^^^^^
   = help: did you mean `backend`?; so it is with the values of [profile.x]

error: `vni` is 0, expected 1 to 16777215
  --> a.toml:36:17
   |
36 | "cluster.vni" = 0
   |                 ^
   = help: so it is with the values of [profile.y]
"##,
    ),
];
