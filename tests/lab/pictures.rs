//! What is expected after a fault is judged by what the machine has shown after it.

use super::{can_run, json, lab, stood_still};
use std::collections::BTreeMap;

/// Somebody changes rules and a sysctl of a machine whose cluster does not mind either, and makes
/// both as they were once more.
const CHANGED: &str = r#"
name = "changed"
duration = "8s"

[[network]]
name = "lan"
cidr = "192.168.7.0/24"

[[node]]
name = "one"
role = "server"
network = "lan"
address = "192.168.7.11"

[[node]]
name = "two"
network = "lan"
address = "192.168.7.12"

[[fault]]
name = "rule"
kind = "iptables"
at = "3s"
nodes = ["two"]
command = "-A INPUT -s 1.2.3.4/32 -j ACCEPT"

[[fault]]
name = "sysctl"
kind = "sysctl"
at = "3500ms"
nodes = ["two"]
key = "net.ipv4.conf.eth0.rp_filter"
value = 2

[[fault]]
name = "no-rule"
kind = "iptables"
at = "6s"
nodes = ["two"]
command = "-D INPUT -s 1.2.3.4/32 -j ACCEPT"
"#;

/// An expectation, its kind and the rest, and whether it is to hold.
const EXPECTED: [(&str, &str, &str, bool); 6] = [
    ("no rule", "rules", "absent = [\"-A INPUT -s 1.2.3.4/*\"]\nafter = \"rule\"", false),
    ("a rule", "rules", "has = [\"-A INPUT -s 1.2.3.4/*\"]\nafter = \"rule\"", true),
    ("the old value", "sysctl", "key = \"KEY\"\nvalue = 0\nafter = \"sysctl\"", false),
    ("the new value", "sysctl", "key = \"KEY\"\nvalue = 2\nafter = \"sysctl\"", true),
    ("a rule still", "rules", "has = [\"-A INPUT -s 1.2.3.4/*\"]\nafter = \"no-rule\"", false),
    (
        "no rule any more",
        "rules",
        "absent = [\"-A INPUT -s 1.2.3.4/*\"]\nafter = \"no-rule\"",
        true,
    ),
];

/// The picture from before the fault held whatever had been so before, for as long as nothing newer
/// came: up to two seconds for rules, and for ever for sysctls, of which there was none.
#[test]
fn what_was_so_before_a_fault_does_not_hold_after_it() {
    if !can_run() {
        return;
    }
    let mut text = CHANGED.to_owned();
    for (name, kind, rest, _) in EXPECTED {
        let rest = rest.replace("KEY", "net.ipv4.conf.eth0.rp_filter");
        text += &format!(
            "\n[[expect]]\nname = \"{name}\"\nkind = \"{kind}\"\nnodes = [\"two\"]\n{rest}\n\
             within = \"1s\"\n"
        );
    }
    let runs = (0..3).map(|_| lab("changed", &text).args(["--format", "json"]).output());
    let output = runs.map(|run| run.expect("a run")).find(|output| !stood_still(output));
    let output = output.expect("the machine is too busy for a run in real time");
    let run = json(&output);
    let told = run["expectations"].as_array().expect("expectations");
    let held = |told: &serde_json::Value| told["outcome"] == "passed";
    let held: BTreeMap<&str, bool> =
        told.iter().map(|told| (told["name"].as_str().expect("a name"), held(told))).collect();
    let wanted = EXPECTED.map(|(name, _, _, holds)| (name, holds));
    assert_eq!(held, BTreeMap::from(wanted), "{run:#}");
}
