//! What a test says that cannot run on this machine.

use std::io::Write;

/// Set to 1 where everything must be proved: then a test that cannot run fails.
const REQUIRED: &str = "KUBESIM_REQUIRE_KERNEL";

/// Says on standard error what is missing. Not by `eprintln!`, which `cargo test` keeps to itself
/// for a test that passes: who reads "ok" would take what was skipped for proved.
pub fn skipped(missing: &str) {
    let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
    assert!(!required, "{REQUIRED} is 1 and this machine lacks {missing}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("skipped: {test}: needs {missing}\n");
    // One write: tests run side by side.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
