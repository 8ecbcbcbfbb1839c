//! What the lab cannot play it says before it begins.

use super::{SMALL, can_run, kubesim, lab, text};
use std::path::Path;

fn refused(why: &str, command: &mut std::process::Command) {
    let output = command.output().expect("kubesim runs");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains(why), "{why}: {}", text(&output));
}

#[test]
fn a_scenario_that_is_too_long_too_large_or_measured_is_refused() {
    if !can_run() {
        return;
    }
    let long = SMALL.replace("duration = \"16s\"", "duration = \"90s\"");
    refused("small lasts 90 s: say what shrinks", &mut lab("long", &long));
    let many = "[[node]]\nname = \"n\"\ncount = 63\nnetwork = \"lan\"\n\n[image.";
    let many = SMALL.replacen("[image.", many, 1);
    refused("it has 65 machines, and more than 64", &mut lab("many", &many));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    for how in [["run", "--world", "lab"].as_slice(), &["parity"]] {
        let mut command = kubesim();
        command.args(how).arg(shipped.join("autoscale.toml"));
        refused("its autoscaler asks what pods use, which nobody measures", &mut command);
    }
    // How much of it there is to be was said.
    let output = lab("long", &long).args(["--until", "1s"]).output().expect("kubesim runs");
    assert_ne!(output.status.code(), Some(2), "{}", text(&output));
    assert!(!text(&output).contains("what shrinks"), "{}", text(&output));
}
