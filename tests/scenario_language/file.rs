//! Mistakes in the file as a whole: TOML, keys, durations and spans, and what is said about each.

/// What is put in place of a line of the base (or added to its end), and what is said about it.
pub const FILE: &[(&str, &str, &str)] = &[
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
];
