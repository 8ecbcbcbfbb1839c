//! What only a real runtime does: it outlives its driver, hangs, dies, and says why.

use super::registry::Registry;
use super::{Containerd, on_containerd};
use crate::{IP, OTHER, POD, World, container, exited, run, sandbox};
use kubesim_actors::objects::Key;
use kubesim_actors::ports::container::{
    Container, ContainerState, Credentials, Exit, Fault, Pull, Reply, Request, Sandbox,
    SandboxState,
};
use kubesim_actors::ports::probe::Purpose;
use kubesim_backends::probe::{Command, Failed};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

/// A container of busybox that runs this in its shell.
fn script(text: &str) -> Container {
    let command = ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
    Container { command, ..Container::of("c", "shell") }
}

fn start(world: &mut Containerd, spec: Container) -> Vec<Reply> {
    world.ask(Request::StartContainer { pod: POD, spec: Arc::new(spec) })
}

/// Of a sandbox that was just made, the container has started.
fn run_script(world: &mut Containerd, spec: Container) {
    world.ask(Request::Observe);
    world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
    let started = start(world, spec);
    assert!(matches!(&started[..], [Reply::Started { .. }]), "{started:?}");
}

/// News, until this one comes.
fn hears(world: &mut Containerd, wanted: impl Fn(&Reply) -> bool) {
    let (mut told, deadline) = (Vec::new(), Instant::now() + LONG);
    while Instant::now() < deadline {
        told.extend(world.driven.next_news(LONG));
        if told.iter().any(&wanted) {
            return;
        }
    }
    panic!("not among {told:#?}");
}

fn listed(told: Vec<Reply>) -> Vec<SandboxState> {
    match &told[..] {
        [Reply::Listed { sandboxes }] => sandboxes.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_driver_finds_what_runs_and_disturbs_nothing() {
    on_containerd(|world| {
        run(world, "echo");
        let tasks = world.machine.tasks();
        world.restart_driver();
        let found = listed(world.ask(Request::Observe));
        let [SandboxState { pod: POD, key, ip: Some(IP), host_network: false, containers }] =
            &found[..]
        else {
            panic!("{found:?}");
        };
        assert_eq!(*key, Key::new("default", "a"));
        let [ContainerState { name, attempt: 0, id, exited: None }] = &containers[..] else {
            panic!("{containers:?}");
        };
        assert_eq!(name, "c");
        let ready = world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
        assert_eq!(ready, [Reply::SandboxReady { pod: POD, ip: Some(IP) }]);
        let again = world.ask(Request::StartContainer { pod: POD, spec: container("echo", 0) });
        let (name, id) = (name.clone(), id.clone());
        assert_eq!(again, [Reply::Started { pod: POD, name, attempt: 0, id }]);
        assert_eq!(world.machine.tasks(), tasks);
        assert!(world.accepts(IP, 7000));
    });
}

#[test]
fn a_runtime_that_hangs_is_down_until_it_answers() {
    on_containerd(|world| {
        run(world, "echo");
        world.machine.run("kill -STOP $runtime");
        let down = |reply: &Reply| match reply {
            Reply::Down { why } => why.starts_with("container runtime is down: rpc error"),
            _ => false,
        };
        hears(world, down);
        assert!(world.accepts(IP, 7000), "its containers run on");
        let other = Ipv4Addr::new(10, 244, 1, 3);
        let refused = world.ask(Request::RunSandbox { pod: OTHER, spec: sandbox(other) });
        let [Reply::Refused { fault: Fault::Sandbox, why, .. }] = &refused[..] else {
            panic!("{refused:?}");
        };
        assert!(why.contains("DeadlineExceeded"), "{why}");
        world.machine.run("kill -CONT $runtime");
        hears(
            world,
            |reply| matches!(reply, Reply::Listed { sandboxes } if sandboxes[0].pod == POD),
        );
        let stop =
            Request::StopContainer { pod: POD, name: "c".into(), grace: Duration::from_secs(5) };
        assert_eq!(world.ask(stop), [exited(143)]);
    });
}

#[test]
fn what_ended_while_the_runtime_was_dead_is_told_when_it_is_back() {
    on_containerd(|world| {
        run_script(world, script("busybox sleep 2; exit 5"));
        world.machine.run("kill -KILL $runtime; wait $runtime");
        hears(world, |reply| matches!(reply, Reply::Down { .. }));
        world.machine.start_runtime();
        hears(world, |reply| *reply == exited(5));
    });
}

#[test]
fn a_sandbox_that_was_killed_is_told_of_and_made_again() {
    on_containerd(|world| {
        run(world, "echo");
        let sandboxes = "labels.\"io.cri-containerd.kind\"==sandbox";
        let id = world.machine.ctr(&["containers", "ls", "-q", sandboxes]);
        world.machine.ctr(&["tasks", "kill", "-s", "SIGKILL", id.trim()]);
        hears(world, |reply| *reply == Reply::SandboxRemoved { pod: POD });
        let ready = world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
        assert_eq!(ready, [Reply::SandboxReady { pod: POD, ip: Some(IP) }]);
        let started = world.ask(Request::StartContainer { pod: POD, spec: container("echo", 1) });
        assert!(matches!(&started[..], [Reply::Started { attempt: 1, .. }]), "{started:?}");
        assert!(world.accepts(IP, 7000));
    });
}

#[test]
fn what_cannot_start_is_refused_and_has_ended() {
    on_containerd(|world| {
        world.ask(Request::Observe);
        world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
        let nothing = vec!["/nothing".to_owned()];
        let refused = start(world, Container { command: nothing, ..script("") });
        let [Reply::Refused { fault: Fault::Start, why, .. }] = &refused[..] else {
            panic!("{refused:?}");
        };
        assert!(why.contains("no such file or directory"), "{why}");
        let ended = |reply: &Reply| match reply {
            Reply::Exited { attempt: 0, exit: Exit { code: 128, reason, message }, .. } => {
                reason == "StartError" && message.contains("no such file or directory")
            }
            _ => false,
        };
        hears(world, ended);
    });
}

#[test]
fn images_are_refused_for_what_they_are() {
    on_containerd(|world| {
        world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
        let mut refused = |spec: Container| match &start(world, spec)[..] {
            [Reply::Refused { fault, why, .. }] => (*fault, why.to_string()),
            other => panic!("{other:?}"),
        };
        let never = Container { pull: Pull::Never, ..Container::of("c", "absent") };
        let (fault, why) = refused(never);
        assert_eq!(fault, Fault::NeverPull);
        assert_eq!(why, "Container image \"absent\" is not present with pull policy of Never");
        let (fault, why) = refused(Container::of("c", "absent"));
        assert_eq!(fault, Fault::Pull);
        assert!(why.starts_with("rpc error: code = "), "{why}");
        let mut rooted = script("exit 0");
        rooted.security.non_root = true;
        let (fault, why) = refused(rooted.clone());
        assert_eq!(fault, Fault::Config);
        assert!(why.contains("image will run as root"), "{why}");
        let (fault, why) = refused(Container { image: "named".into(), ..rooted.clone() });
        assert_eq!(fault, Fault::Config);
        assert!(why.contains("non-numeric user (www)"), "{why}");
        // And not if the spec names another user.
        rooted.security.user = Some(7);
        let started = start(world, rooted);
        assert!(matches!(&started[..], [Reply::Started { .. }]), "{started:?}");
    });
}

#[test]
fn the_registry_is_asked_as_often_as_the_policy_says() {
    on_containerd(|world| {
        world.ask(Request::Observe);
        world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
        let registry = Registry::start();
        let image = registry.name("shell");
        let mut attempt = 0;
        let mut tried = |pull| {
            let image = image.as_str().into();
            let spec = Container { image, pull, attempt, ..script("exit 0") };
            let reply = start(world, spec).remove(0);
            if matches!(reply, Reply::Started { .. }) {
                hears(world, |reply| matches!(reply, Reply::Exited { .. }));
                attempt += 1;
            }
            reply
        };
        assert!(matches!(tried(Pull::IfNotPresent), Reply::Started { .. }));
        let first = registry.resolved();
        assert!(first > 0);
        assert!(matches!(tried(Pull::IfNotPresent), Reply::Started { .. }));
        assert_eq!(registry.resolved(), first);
        assert!(matches!(tried(Pull::Always), Reply::Started { .. }));
        assert!(registry.resolved() > first);
        drop(registry);
        assert!(matches!(tried(Pull::Never), Reply::Started { .. }));
        match tried(Pull::Always) {
            Reply::Refused { fault: Fault::Pull, why, .. } => {
                assert!(why.contains("connection refused"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_registry_is_asked_with_each_password_until_one_is_right() {
    on_containerd(|world| {
        world.ask(Request::RunSandbox { pod: POD, spec: sandbox(IP) });
        let registry = Registry::guarded("Basic bWU6cmlnaHQ=");
        let image = registry.name("shell");
        let mut tried = |passwords: &[&str]| {
            let of = |word: &&str| Credentials { username: "me".into(), password: (*word).into() };
            let credentials = passwords.iter().map(of).collect();
            let image = image.as_str().into();
            start(world, Container { image, credentials, ..script("exit 0") }).remove(0)
        };
        for passwords in [&[][..], &["wrong"], &["wrong", "false"]] {
            let Reply::Refused { fault: Fault::Pull, why, .. } = tried(passwords) else {
                panic!("with {passwords:?} it is pulled");
            };
            // What containerd says of one that is wrong, and of none.
            let said =
                why.contains("401 Unauthorized") || why.contains("no basic auth credentials");
            assert!(said && !why.contains("wrong"), "{why}");
        }
        assert!(matches!(tried(&["wrong", "right"]), Reply::Started { .. }));
    });
}

#[test]
fn who_takes_more_memory_than_it_may_is_killed_for_that() {
    on_containerd(|world| {
        let command = ["/bin/busybox", "tail", "/dev/zero"].map(str::to_owned).to_vec();
        let mut greedy = Container { command, ..script("") };
        greedy.resources.memory_limit = 32 << 20;
        run_script(world, greedy);
        hears(world, |reply| {
            matches!(reply, Reply::Exited { exit, .. }
                if (exit.code, exit.reason.as_str()) == (137, "OOMKilled"))
        });
    });
}

/// A line each: the time, the stream, whether the line is full, and the line
/// (kubernetes/design-proposals-archive, node/kubelet-cri-logging.md).
#[test]
fn logs_are_where_upstreams_are_and_have_its_form() {
    on_containerd(|world| {
        let spec = script("echo said; echo $GREETING >&2; pwd");
        let env = vec![("GREETING".to_owned(), "hello".to_owned())];
        run_script(world, Container { env, working_dir: "/tmp".into(), ..spec });
        hears(world, |reply| *reply == exited(0));
        let path = world.machine.logs().join(format!("default_a_{POD}")).join("c/0.log");
        let log = fs::read_to_string(&path).expect("a log");
        let mut lines: Vec<_> = log.lines().filter_map(|line| line.split_once(' ')).collect();
        lines.sort_by_key(|(_, rest)| *rest);
        let said: Vec<_> = lines.iter().map(|(_, rest)| *rest).collect();
        assert_eq!(said, ["stderr F hello", "stdout F /tmp", "stdout F said"]);
        let time = lines[0].0;
        assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "{time}");
    });
}

#[test]
fn commands_run_in_a_container() {
    on_containerd(|world| {
        run_script(world, script("trap 'exit 143' TERM; busybox sleep 1000 & wait"));
        let exec = |text: &str| {
            let words = ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
            let (within, purpose) = (Some(Duration::from_secs(5)), Purpose::Readiness);
            let command = Command { pod: POD, container: "c".into(), words, within, purpose };
            world.driven.block_on(world.driven.driver.exec(command))
        };
        assert_eq!(exec("test -e /bin/busybox"), Ok(()));
        let ended = |code, stdout: &str, stderr: &str| {
            let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
            Err(Failed::Ended { code, stdout, stderr })
        };
        assert_eq!(exec("echo no; exit 3"), ended(3, "no\n", ""));
        assert_eq!(exec("echo why >&2; exit 4"), ended(4, "", "why\n"));
    });
}

#[test]
fn a_pod_may_be_on_the_machines_network() {
    on_containerd(|world| {
        world.ask(Request::Observe);
        let spec = Arc::new(Sandbox::of(Key::new("default", "a")));
        let ready = world.ask(Request::RunSandbox { pod: POD, spec });
        assert_eq!(ready, [Reply::SandboxReady { pod: POD, ip: None }]);
        world.ask(Request::StartContainer { pod: POD, spec: container("echo", 0) });
        assert!(world.accepts(Ipv4Addr::LOCALHOST, 7000));
        world.restart_driver();
        let found = listed(world.ask(Request::Observe));
        assert!(matches!(found[..], [SandboxState { host_network: true, ip: None, .. }]));
    });
}
