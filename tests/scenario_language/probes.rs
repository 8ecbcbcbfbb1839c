//! Mistakes in probes and expectations, and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const PROBES: &[(&str, &str, &str)] = &[
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
];
