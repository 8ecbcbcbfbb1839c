//! Looking around in a lab that runs, by `kubesim lab list` and `exec`.

use crate::clusters::SMALL;
use crate::{can_run, kubesim, lab, text, wait_until};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn asks(words: &[&str]) -> Output {
    kubesim().arg("lab").args(words).output().expect("kubesim runs")
}

/// The machines of a lab have no name that `ip netns` knows, and nothing said how to enter one.
#[test]
fn a_machine_is_entered_by_its_name() {
    if !can_run() {
        return;
    }
    let mut command = lab("entered", SMALL);
    let mut child = command.stdout(Stdio::null()).spawn().expect("kubesim runs");
    let id = child.id().to_string();
    let within = |words: &[&str]| {
        let all = [&["exec", "two", "--run", &id, "--"], words].concat();
        asks(&all)
    };
    wait_until("both machines", Duration::from_secs(10), || {
        let said = text(&asks(&["list"]));
        let own = said.lines().filter(|line| line.starts_with(&format!("{id}  ")));
        own.filter(|line| line.contains("/run/kubesim-lab/")).count() == 2
    });
    wait_until("its address", Duration::from_secs(10), || {
        text(&within(&["ip", "-o", "addr"])).contains("192.168.7.12/")
    });
    // The status is the command's.
    assert_eq!(within(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    let nothing = within(&["/nowhere/command"]);
    assert_eq!(nothing.status.code(), Some(3), "{}", text(&nothing));
    let nobody = asks(&["exec", "three", "--run", &id, "--", "true"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", text(&nobody));
    let why = "no node `three` of a lab is on; those that are: one, two";
    assert!(text(&nobody).contains(why), "{}", text(&nobody));
    let sent = Command::new("kill").args(["-s", "TERM", &id]).status();
    assert!(sent.expect("kill runs").success());
    child.wait().expect("kubesim ends");
    assert!(!text(&asks(&["list"])).contains(&format!("{id}  ")));
}
