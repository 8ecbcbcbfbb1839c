//! What a run that is cut short says of what it saw.

use crate::report::{Options, Outcome};
use crate::world::testing::{Said, scenario};
use std::time::Duration;

/// `n1` asks an address that nobody has, from 5 s on. Each expectation, and its outcome when the
/// run ends at 40 s.
const EXPECTED: [(&str, Outcome); 7] = [
    // Known by then.
    ("kind = \"says\"\nactor = \"netd\"\ntext = \"nonsense\"\nby = \"20s\"", Outcome::Failed),
    ("kind = \"probe\"\nprobe = \"p\"\nfrom = \"10s\"\nuntil = \"20s\"", Outcome::Failed),
    // What went wrong by then stays so, whatever comes.
    ("kind = \"probe\"\nprobe = \"p\"\nfrom = \"10s\"\nuntil = \"100s\"", Outcome::Failed),
    // Not due yet, or never tried.
    ("kind = \"says\"\nactor = \"netd\"\ntext = \"nonsense\"\nby = \"60s\"", Outcome::Skipped),
    ("kind = \"probe\"\nprobe = \"p\"\nfrom = \"60s\"\nuntil = \"100s\"", Outcome::Skipped),
    ("kind = \"max-gap\"\nprobe = \"p\"\nwithin = \"100s\"", Outcome::Skipped),
    ("kind = \"nodes-ready\"\nnodes = [\"n1\"]\nby = \"30s\"", Outcome::Passed),
];

/// What had failed was told as skipped, and the run passed.
#[test]
fn what_failed_before_a_run_was_cut_short_has_failed() {
    let mut text = "[[probe]]\nname = \"p\"\nkind = \"ping\"\nfrom = { node = \"n1\" }\n\
                    to = { address = \"192.168.1.99\", port = 1 }\nstart = \"5s\"\nevery = \"1s\"\n"
        .to_owned();
    for (number, (expected, _)) in EXPECTED.iter().enumerate() {
        text += &format!("[[expect]]\nname = \"{number}\"\n{expected}\n");
    }
    let options = Options { seed: 1, until: Some(Duration::from_secs(40)), ..Options::default() };
    let report = crate::run(&scenario("", &text), &options, &mut Said::default());
    for (told, (expected, outcome)) in report.expectations.iter().zip(&EXPECTED) {
        assert_eq!(told.outcome, *outcome, "{expected}: {told:?}");
    }
    assert_eq!(report.outcome, Outcome::Failed);
}
