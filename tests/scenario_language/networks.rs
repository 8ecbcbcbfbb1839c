//! Mistakes in networks, links, machines and their addresses, and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const NETWORKS: &[(&str, &str, &str)] = &[
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
        r##"role = "server""##,
        r##"role = "server"
interface = "eth%d""##,
        r##"error: `eth%d` is no name of a link
  --> a.toml:10:13
   |
10 | interface = "eth%d"
   |             ^^^^^^^
   = help: 1 to 15 bytes without `/`, `:`, `%` and blanks, not all or default, like eth0
"##,
    ),
    (
        r##"role = "server""##,
        r##"role = "server"
interface = "all""##,
        r##"error: `all` is no name of a link
  --> a.toml:10:13
   |
10 | interface = "all"
   |             ^^^^^
   = help: 1 to 15 bytes without `/`, `:`, `%` and blanks, not all or default, like eth0
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
];
