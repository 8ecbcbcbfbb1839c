//! The names that a pod's containers know without asking anybody.

use super::{Containerd, on_containerd};
use crate::{IP, OTHER, POD, World, sandbox};
use kubesim_actors::objects::{Key, Uid};
use kubesim_actors::ports::container::{Container, Hosts, Reply, Request, Sandbox};
use kubesim_actors::ports::probe::Purpose;
use kubesim_backends::probe::{Command, Failed};
use std::sync::Arc;
use std::time::Duration;

fn start(world: &mut Containerd, pod: Uid, name: &str, hosts: Option<Hosts>) {
    let script = "trap 'exit 143' TERM; busybox sleep 1000 & wait";
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let spec = Arc::new(Container { command, hosts, ..Container::of(name, "shell") });
    let started = world.ask(Request::StartContainer { pod, spec });
    assert!(matches!(&started[..], [Reply::Started { .. }]), "{started:?}");
}

/// What a command prints, in a container.
fn said(world: &Containerd, pod: Uid, container: &str, script: &str) -> String {
    let words = ["/bin/sh", "-c", &format!("{script}; exit 3")].map(str::to_owned).to_vec();
    let (within, purpose) = (Some(Duration::from_secs(5)), Purpose::Readiness);
    let command = Command { pod, container: container.into(), words, within, purpose };
    match world.driven.block_on(world.driven.driver.exec(command)) {
        Err(Failed::Ended { code: 3, stdout, .. }) => stdout.trim().to_owned(),
        other => panic!("it exits with 3: {other:?}"),
    }
}

const READ: &str = "busybox cat /etc/hosts";

#[test]
fn a_pods_containers_share_one_hosts_file() {
    on_containerd(|world| {
        world.ask(Request::Observe);
        world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
        let of = |head: &str| Some(Hosts { head: head.into(), machines: false, tail: "".into() });
        start(world, POD, "a", of("10.244.1.2\tone\n"));
        assert_eq!(said(world, POD, "a", READ), "10.244.1.2\tone");
        let found = said(world, POD, "a", "busybox ping -c 1 -W 1 one");
        assert!(found.contains("10.244.1.2"), "{found}");
        let written =
            said(world, POD, "a", "echo 10.0.0.1 more >>/etc/hosts; busybox cat /etc/hosts");
        assert_eq!(written, "10.244.1.2\tone\n10.0.0.1 more");
        // The next one has it as the kubelet says, and so have those that run.
        start(world, POD, "b", of("10.244.1.2\ttwo\n"));
        for container in ["a", "b"] {
            assert_eq!(said(world, POD, container, READ), "10.244.1.2\ttwo");
        }
        // Without one of the pod's, it is the runtime's.
        start(world, POD, "c", None);
        assert!(!said(world, POD, "c", READ).contains("two"));
        let left = world.machine.pods().join(POD.to_string());
        assert!(left.join("etc-hosts").exists());
        world.ask(Request::RemoveSandbox { pod: POD });
        assert!(!left.exists(), "nothing is left");
    });
}

#[test]
fn a_pod_on_the_machines_network_knows_what_the_machine_knows() {
    on_containerd(|world| {
        world.ask(Request::Observe);
        let spec = Arc::new(Sandbox::of(Key::new("default", "a")));
        world.ask(Request::RunSandbox { pod: OTHER, spec });
        let hosts = Hosts { head: "# first\n".into(), machines: true, tail: "# last\n".into() };
        start(world, OTHER, "a", Some(hosts));
        assert_eq!(said(world, OTHER, "a", READ), "# first\n192.0.2.1\tmachine\n# last");
    });
}
