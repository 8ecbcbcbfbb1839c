//! `kubectl describe` of one object of each kind. What it must say was worked out from upstream's
//! describers (kubectl `pkg/describe/describe.go`) and the objects, by hand:
//! `tests/golden/describe/texts.txt`. Where it says nothing, a field was not kept, or not filled in
//! as upstream's defaults are; where it says more, something was made up.

use super::each;
use std::path::Path;

fn golden(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/describe");
    std::fs::read_to_string(folder.join(file)).expect("a text")
}

/// What depends on the hour or on a uid, and what only newer releases say.
const PASSED: [&str; 11] = [
    "CreationTimestamp:",
    "Created on:",
    "Selector: batch.kubernetes.io/controller-uid=",
    "Labels: batch.kubernetes.io/",
    "batch.kubernetes.io/",
    "controller-uid=",
    "Node-Selectors:",
    "Tolerations:",
    "Suspend: false",
    "Backoff Limit:",
    "Time Zone:",
];

/// Older releases tell what is in a Secret or a ConfigMap in the order of a Go map, which is
/// another each time (`describeSecret`, `ConfigMapDescriber` in `pkg/describe/describe.go`).
fn in_any_order(mut lines: Vec<String>) -> Vec<String> {
    if let Some(data) = lines.iter().position(|line| line == "Data") {
        lines[data..].sort();
    }
    lines
}

/// A text's lines with single spaces, as columns are as wide as what is in them.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let passed = |line: &String| line.is_empty() || PASSED.iter().any(|p| line.starts_with(p));
    lines.filter(|line| !passed(line)).collect()
}

#[test]
fn kubectl_describes_every_kind_as_upstreams_describers_do() {
    let texts = golden("texts.txt");
    each(|_, server| {
        server.with("create -f -", &golden("objects.yaml"));
        let (mut described, mut wrong) = (0, Vec::new());
        for part in texts.split("== ").filter(|part| !part.is_empty()) {
            let (what, expected) = part.split_once('\n').expect("a heading");
            let said = server.kubectl(&format!("describe {what}"));
            let (mut said, mut expected) = (lines(&said), lines(expected));
            if what.starts_with("secret") || what.starts_with("configmap") {
                (said, expected) = (in_any_order(said), in_any_order(expected));
            }
            if said != expected {
                wrong.push(format!("{what} says\n{said:#?}\ninstead of\n{expected:#?}"));
            }
            described += 1;
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(described, 22, "each part of the golden file");
    });
}
