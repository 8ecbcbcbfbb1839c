//! Names that the API would refuse, and what is said about each.

/// Names that the API would refuse, in place of a line of the base, and what is said about them; of
/// upstream's long words the beginning.
pub const NAMES: &[(&str, &str, &str)] = &[
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
    (
        "",
        r##"[cluster]
domain = "Cluster_local""##,
        r##"error: `Cluster_local` is no cluster domain
  --> a.toml:31:10
   |
31 | domain = "Cluster_local"
   |          ^^^^^^^^^^^^^^^
   = help: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characte
"##,
    ),
];
