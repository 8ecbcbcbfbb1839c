//! Overrides with a mistake, and what is said about each.

/// `--set` and what is said about it.
pub const SETS: &[(&str, &str, &str)] = &[
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
    (
        "probe.wget.kind",
        "dig",
        r##"error: [[probe]] lacks the key `query`
 --> --set:1:17
  |
1 | probe.wget.kind=dig
  |                 ^^^
"##,
    ),
];
