//! What the lab cannot play it says before it begins.

use super::{SMALL, can_run, kubesim, lab, text};
use std::net::{Ipv4Addr, TcpListener};
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
    let mtu = SMALL.replacen("latency =", "mtu = 65522\nlatency =", 1);
    refused("network `lan` has mtu = 65522, and a node's", &mut lab("mtu", &mtu));
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

/// What the options name is input: the environment was blamed for it.
#[test]
fn files_that_the_options_name_and_that_do_not_fit_are_wrong_input() {
    for (option, file, why) in [
        ("--kubeconfig", "/etc/passwd", "/etc/passwd is there already; name a new file"),
        ("--kubeconfig", "/nonexistent/admin.conf", "/nonexistent/admin.conf cannot be made (No"),
        ("--join", "/nonexistent", "/nonexistent has no pki/ca.key"),
    ] {
        let output = lab("files", SMALL).args([option, file]).output().expect("kubesim runs");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(&format!("error: {option}: {why}")), "{}", text(&output));
    }
}

/// It said so, and then that it was open.
#[test]
fn a_program_whose_port_is_taken_ends() {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = taken.local_addr().expect("its number").port().to_string();
    for what in ["http", "tcp-echo"] {
        let mut command = kubesim();
        command.args(["workload", what, "--port", &port]);
        let output = command.output().expect("kubesim runs");
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(!text(&output).contains("open"), "{}", text(&output));
        let why = format!("listening on TCP port {port}: Address already in use");
        assert!(text(&output).contains(&why), "{}", text(&output));
    }
}
