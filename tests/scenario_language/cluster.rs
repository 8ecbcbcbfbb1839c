//! Mistakes in the cluster's settings and profiles, and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const CLUSTER: &[(&str, &str, &str)] = &[
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
