//! What a run that is cut short says of what it saw, and what comes too late or came too early.

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

/// 31 nodes are looked at each 200 ms: the first look after a deadline held what came after it.
#[test]
fn what_comes_after_its_deadline_has_failed() {
    let mut text = "[[node]]\nname = \"m\"\ncount = 30\nnetwork = \"lan\"\n\
                    address = \"192.168.1.20\"\n"
        .to_owned();
    for (name, at, value) in [("off", "10.01s", 0), ("on", "10.15s", 1)] {
        text += &format!(
            "[[fault]]\nname = \"{name}\"\nkind = \"sysctl\"\nat = \"{at}\"\nnodes = [\"n1\"]\n\
             key = \"net.ipv4.conf.all.rp_filter\"\nvalue = {value}\n"
        );
    }
    let deadlines = ["after = \"off\"\nwithin = \"50ms\"", "by = \"10.1s\""];
    let kept = ["after = \"off\"\nwithin = \"141ms\"", "by = \"10.15s\""];
    for (number, by) in deadlines.iter().chain(&kept).enumerate() {
        text += &format!(
            "[[expect]]\nname = \"{number}\"\nkind = \"sysctl\"\nnodes = [\"n1\"]\n\
             key = \"net.ipv4.conf.all.rp_filter\"\nvalue = 1\n{by}\n"
        );
    }
    let outcomes = outcomes(&text);
    assert_eq!(outcomes[..2], [Outcome::Failed; 2], "too late");
    assert_eq!(outcomes[2..], [Outcome::Passed; 2], "just in time");
}

/// What was refused at 5 s was held to be what is refused after a fault at 20 s.
#[test]
fn what_was_refused_before_a_fault_is_not_refused_after_it() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n\
                   spec: {clusterIP: 1.2.3.4, ports: [{port: 80}]}\n";
    let mut text = format!(
        "[[fault]]\nname = \"bad\"\nkind = \"apply\"\nat = \"5s\"\nyaml = \"\"\"\n{service}\"\"\"\n\
         [[fault]]\nname = \"later\"\nkind = \"sysctl\"\nat = \"20s\"\nnodes = [\"n1\"]\n\
         key = \"net.ipv4.conf.all.rp_filter\"\nvalue = 1\n"
    );
    for after in ["bad", "later"] {
        text += &format!(
            "[[expect]]\nname = \"{after}\"\nkind = \"refused\"\nactor = \"apiserver\"\ntext = [\"1.2.3.4\"]\n\
             after = \"{after}\"\nwithin = \"2s\"\n"
        );
    }
    assert_eq!(outcomes(&text), [Outcome::Passed, Outcome::Failed]);
}

/// Of each expectation, in order.
fn outcomes(text: &str) -> Vec<Outcome> {
    let options = Options { seed: 1, ..Options::default() };
    let report = crate::run(&scenario("", text), &options, &mut Said::default());
    report.expectations.iter().map(|told| told.outcome).collect()
}
