//! What people ask of pods over the tunnel that a node dials: `kubectl logs`, `exec`, `attach`,
//! `cp` and `port-forward`, by an old release of `kubectl` and a new one, to a node whose name
//! nobody resolves.

use super::cluster::{Cluster, Given, JOINS, Running, addressed, on, on_a_machine, option, plug};
use super::machine::Machine;
use super::up::Elsewhere;
use crate::namespace::ip;
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const ADDRESS: &str = "192.168.77.2";
const LONG: Duration = Duration::from_secs(30);

/// Says something, once on each output, and then what it is told to; the first of them ends.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: echo
    imagePullPolicy: IfNotPresent
    command:
    - /bin/sh
    - -c
    - >-
      echo first; busybox sleep 1; echo second;
      busybox nc -ll -p 7000 -e busybox cat & wait
";
const OTHERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: a
    image: shell
    imagePullPolicy: IfNotPresent
    command: [/bin/sh, -c, 'echo one; exit 3']
  - name: b
    image: shell
    imagePullPolicy: IfNotPresent
    stdin: true
    command: [/bin/sh, -c, 'busybox cat']
---
apiVersion: v1
kind: Pod
metadata: {name: never}
spec:
  containers:
  - {name: c, image: nowhere.invalid/none, imagePullPolicy: Never}
";

/// The releases of `kubectl` beside this machine's: the oldest that is supported, which speaks
/// SPDY, and the newest, which speaks WebSocket. Else its own.
fn releases() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let stock = std::env::split_paths(&path).map(|place| place.join("kubectl"));
    let stock = stock.filter_map(|program| fs::canonicalize(program).ok()).next();
    let home = stock.as_ref().and_then(|stock| stock.parent()).map(PathBuf::from);
    let beside = ["kubectl.1.27", "kubectl.1.33"].iter();
    let beside = beside.filter_map(|name| home.as_ref().map(|home| home.join(name)));
    let beside: Vec<PathBuf> = beside.filter(|program| program.is_file()).collect();
    if beside.is_empty() { vec![PathBuf::from("kubectl")] } else { beside }
}

/// One release of `kubectl`, the cluster that it asks, and the pod that it calls `web`.
struct Client<'a> {
    program: PathBuf,
    cluster: &'a Cluster,
    pod: String,
}

impl Client<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(self.cluster.data().join("admin.conf"));
        command.arg("--cache-dir").arg(self.cluster.folder.join("cache"));
        let named = words.iter().map(|word| self.named(word));
        command.env("HOME", &self.cluster.folder).args(named).stdin(Stdio::null());
        command
    }

    /// A word with the pod's own name.
    fn named(&self, word: &str) -> String {
        match word.strip_prefix("web") {
            Some(rest) if rest.is_empty() || rest.starts_with(':') => format!("{}{rest}", self.pod),
            _ => word.to_owned(),
        }
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let pipes = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
        let [stdin, stdout, stderr] = pipes;
        let mut command = self.command(words);
        let mut process =
            command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().expect("kubectl starts");
        let mut stdin = process.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("it takes it");
        drop(stdin);
        process.wait_with_output().expect("kubectl ends")
    }

    /// What it prints, and how it ends.
    fn says(&self, words: &[&str], input: &str) -> (String, String, Option<i32>) {
        let Output { status, stdout, stderr } = self.run(words, input);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(stdout), text(stderr), status.code())
    }

    #[track_caller]
    fn told(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        let (out, error, code) = self.says(&words, "");
        assert_eq!(code, Some(0), "{:?} {words:?}: {error}", self.program);
        out
    }

    #[track_caller]
    fn refused(&self, words: &str, why: &str) {
        let words: Vec<&str> = words.split_whitespace().collect();
        let (out, error, code) = self.says(&words, "");
        assert_ne!(code, Some(0), "{:?} {words:?}: {out}", self.program);
        let why = why.replace("web", &self.pod);
        assert!(error.contains(&why), "{:?} {words:?}: {error}", self.program);
    }
}

fn up(cluster: &Cluster, machine: &Machine, more: &[(&'static str, String)]) -> Running {
    let data_dir = cluster.data().display().to_string();
    let given = [&[("--data-dir", data_dir), ("--name", "n1".to_owned())], more].concat();
    Running::start(&mut on(machine, "up", &given))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn people_look_into_pods_and_speak_with_them() {
    on_a_machine(|| {
        plug(ADDRESS);
        let (machine, cluster) = (Machine::start(), Cluster::new());
        let mut up = up(&cluster, &machine, &[]);
        up.says("the node n1 is ready");
        cluster.apply(OTHERS);
        let ready = |pod: &str, index: u32, field: &str| {
            let path = format!("{{.status.containerStatuses[{index}].{field}}}");
            cluster.of_pod(pod, &path)
        };
        cluster.until("it has ended twice", || {
            let restarts = ready("two", 0, "restartCount").parse().unwrap_or(0);
            restarts >= 1 && !ready("two", 0, "lastState.terminated.exitCode").is_empty()
        });
        cluster.until("it cannot start", || !ready("never", 0, "state.waiting.reason").is_empty());
        static_pods(&cluster);
        for (number, program) in releases().into_iter().enumerate() {
            let client = Client { program, cluster: &cluster, pod: format!("web-{number}") };
            cluster.apply(&POD.replace("name: web", &format!("name: {}", client.pod)));
            cluster.ready(&client.pod);
            logs(&client);
            commands(&client);
            files(&client);
            attaches(&client);
            debugs(&client);
            ports(&client);
            refusals(&client);
        }
        assert_eq!(up.end(Signal::SIGTERM), Some(0));
    });
}

#[test]
fn a_node_is_asked_wherever_it_is_and_told_of_where_it_is_not() {
    on_a_machine(|| {
        let there = Elsewhere::new();
        ip(&format!("link add eth0 type veth peer name eth0 netns {}", there.thread));
        addressed(ADDRESS);
        there.run(|| addressed("192.168.77.3"));
        let (machine, other) = (Machine::start(), there.run(Machine::start));
        let cluster = Cluster::new();
        let mut first = up(&cluster, &machine, &[]);
        let words = first.says(JOINS);
        let given = |name: &'static str| -> Given { (name, option(&words, name)) };
        let own = [("--name", "n2".to_owned()), ("--data-dir", cluster.file("other"))];
        let options = [&[given("--server"), given("--token")], &own[..]].concat();
        let mut command = on(&other, "node", &options);
        let mut second = there.run(move || Running::start(&mut command));
        second.says("the node n2 is ready");
        cluster.apply(&POD.replace("spec:\n", "spec:\n  nodeName: n2\n"));
        cluster.ready("web");
        assert!(cluster.told("logs web").starts_with("first\n"));
        assert_eq!(cluster.told("exec web -- busybox echo a"), "a\n");

        there.run(|| {
            ip("addr del 192.168.77.3/24 dev eth0");
            addressed("192.168.77.4");
        });
        let answers = || cluster.told("exec web -- busybox echo b") == "b\n";
        cluster.until("it is asked at its other address", answers);

        assert_eq!(second.end(Signal::SIGTERM), Some(0));
        let told = || {
            let out = cluster.command("logs web").output().expect("kubectl runs");
            String::from_utf8(out.stderr).expect("text")
        };
        let why = "node \"n2\" is not connected to this server, so it cannot be asked: it dialled \
                   from 192.168.77.4:";
        cluster.until("it is told that it is gone", || told().contains(why));
        assert_eq!(first.end(Signal::SIGTERM), Some(0));
    });
}

/// Its node knows one by another uid than its mirror has in the API.
fn static_pods(cluster: &Cluster) {
    let said = "echo said; trap 'exit 0' TERM; busybox sleep 1000 & wait";
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "static", "namespace": "default" },
        "spec": { "containers": [{
            "name": "c", "image": "shell", "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", said],
        }] },
    });
    let manifests = cluster.data().join("node/manifests");
    fs::create_dir_all(&manifests).expect("a folder");
    fs::write(manifests.join("static.json"), pod.to_string()).expect("a file");
    cluster.ready("static-n1");
    cluster.until("it is heard", || cluster.told("logs static-n1") == "said\n");
    assert_eq!(cluster.told("exec static-n1 -- busybox echo a"), "a\n");
}

fn logs(client: &Client<'_>) {
    client.cluster.until("it has said all", || client.told("logs web").contains("second"));
    assert_eq!(client.told("logs web"), "first\nsecond\n");
    assert_eq!(client.told("logs web --tail=1"), "second\n");
    assert_eq!(client.told("logs web --limit-bytes=3"), "fir");
    assert_eq!(client.told("logs web --since=1h"), "first\nsecond\n");
    let stamped = client.told("logs web --timestamps");
    let (time, said) = lines(&stamped)[0].split_once(' ').expect("a time");
    assert!(time.starts_with("20") && said == "first", "{stamped}");
    assert_eq!(client.told("logs web --since-time=2099-01-01T00:00:00Z"), "");
    assert_eq!(client.told("logs two -c a -p"), "one\n");
    let none = "previous terminated container \"c\" in pod \"web\" not found";
    client.refused("logs web -p", none);
    client.refused("logs two -c z", "container z is not valid for pod two");
    client.refused("logs never", "container \"c\" in pod \"never\" is waiting to start: ");
    // What comes later, and the end of who says it.
    let mut follows = Running::start(&mut client.command(&["logs", "-f", "web", "--tail=1"]));
    follows.says("second");
    let run = ["exec", "web", "--", "/bin/sh", "-c", "echo third >/proc/1/fd/1"];
    assert_eq!(client.says(&run, "").2, Some(0));
    follows.says("third");
    drop(follows);
}

fn commands(client: &Client<'_>) {
    let said = client.says(&["exec", "web", "--", "/bin/sh", "-c", "echo out; echo err >&2"], "");
    assert_eq!(said, ("out\n".to_owned(), "err\n".to_owned(), Some(0)));
    let (_, error, code) = client.says(&["exec", "web", "--", "/bin/sh", "-c", "exit 7"], "");
    assert_eq!((error.trim_end(), code), ("command terminated with exit code 7", Some(7)));
    // All of the input, to its end.
    let input = "a line of text\n".repeat(20_000);
    let (out, error, code) = client.says(&["exec", "-i", "web", "--", "busybox", "cat"], &input);
    assert_eq!((out.len(), code), (input.len(), Some(0)), "{error}");
    assert!(out == input);
    let (out, ..) = client.says(&["exec", "-i", "web", "--", "busybox", "wc", "-c"], &input);
    assert_eq!(out.trim(), input.len().to_string());
    let missing = client.says(&["exec", "web", "--", "nothing"], "");
    assert!(missing.2 != Some(0) && missing.1.contains("nothing"), "{missing:?}");
}

fn files(client: &Client<'_>) {
    // `cp` is `tar` in the container, which busybox has.
    let link = ["exec", "web", "--", "busybox", "ln", "-sf", "busybox", "/bin/tar"];
    assert_eq!(client.says(&link, "").2, Some(0));
    let (here, back) = (client.cluster.file("there.bin"), client.cluster.file("back.bin"));
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    fs::write(&here, &content).expect("a file");
    client.told(&format!("cp {here} web:/tmp/there.bin"));
    client.told(&format!("cp web:/tmp/there.bin {back}"));
    assert!(fs::read(&back).expect("a file") == content);
}

fn attaches(client: &Client<'_>) {
    let mut command = client.command(&["attach", "-i", "two", "-c", "b"]);
    let attached = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut attached = attached.spawn().expect("kubectl starts");
    let mut input = attached.stdin.take().expect("a pipe");
    let mut output = attached.stdout.take().expect("a pipe");
    input.write_all(b"hello\n").expect("it takes it");
    input.flush().expect("it takes it");
    let mut said = [0; 6];
    output.read_exact(&mut said).expect("it comes back");
    assert_eq!(&said, b"hello\n");
    let _ = attached.kill();
    let _ = attached.wait();
}

/// Ephemeral containers: beside one that runs, whose processes they see, and beside one that does
/// not.
fn debugs(client: &Client<'_>) {
    let look = "read line; echo $line; busybox cat /proc/1/cmdline";
    let image = ["--image=shell", "--image-pull-policy=IfNotPresent", "-q", "-c"];
    let debug = |pod: &'static str, name: &'static str, more: &[&'static str]| {
        [&["debug", pod], &image[..], &[name], more].concat()
    };
    let (first, ..) = client.says(&["exec", "web", "--", "busybox", "cat", "/proc/1/cmdline"], "");
    assert!(first.starts_with("/bin/sh\0"), "{first:?}");
    let words = ["-i", "--target=c", "--", "/bin/sh", "-c", look];
    let mut looks = client.command(&debug("web", "looks", &words));
    let mut looks = looks.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    // The runtime says no more to one whose input has ended.
    let mut input = looks.stdin.take().expect("a pipe");
    input.write_all(b"hello\n").expect("it takes it");
    let mut said = vec![0; "hello\n".len() + first.len()];
    let out = looks.stdout.as_mut().expect("a pipe");
    out.read_exact(&mut said).expect("it comes back");
    assert_eq!(String::from_utf8(said).expect("text"), format!("hello\n{first}"));
    drop(input);
    assert!(looks.wait().expect("kubectl ends").success());
    let state = || {
        let path = "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}";
        client.told(&format!("get pod web -o {path}"))
    };
    client.cluster.until("it is seen to have ended", || state() == "0");
    let ready = client.told("get pod web --no-headers");
    assert_eq!(ready.split_whitespace().nth(1), Some("1/1"), "{ready}");
    let shown = client.told("describe pod web");
    assert!(shown.contains("Ephemeral Containers:\n  looks:\n"), "{shown}");
    assert!(shown.contains("Started container looks"), "{shown}");

    let name: &'static str = client.pod.clone().leak();
    let said = client.says(&debug("never", name, &["--", "/bin/sh", "-c", "echo here"]), "");
    assert_eq!(said.2, Some(0), "{said:?}");
    let logs = || client.says(&["logs", "never", "-c", name], "").0;
    client.cluster.until("it is heard", || logs() == "here\n");
    let none = debug("web", "other", &["--target=z", "--", "true"]);
    let (_, error, code) = client.says(&none, "");
    assert!(code != Some(0) && error.contains("\"z\""), "{error}");
}

fn ports(client: &Client<'_>) {
    let mut forwards = Running::start(&mut client.command(&["port-forward", "web", ":7000"]));
    let words = forwards.says("Forwarding from 127.0.0.1:");
    let port = words.split_whitespace().next().expect("a port").parse().expect("a port");
    for round in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it is forwarded");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        let said = format!("round {round}\n").repeat(1000);
        let mut writes = stream.try_clone().expect("a socket");
        let input = said.clone();
        let writing = std::thread::spawn(move || writes.write_all(input.as_bytes()));
        let mut heard = vec![0; said.len()];
        stream.read_exact(&mut heard).expect("it comes back");
        writing.join().expect("it ends").expect("it is written");
        assert!(heard == said.as_bytes());
    }
}

fn refusals(client: &Client<'_>) {
    client.refused("exec web -c z -- true", "container z is not valid for pod web");
    client.refused("exec two -c a -- true", "container not found (\"a\")");
    client.refused("exec none -- true", "pods \"none\" not found");
    let sees = "create clusterrole sees --verb=get,list --resource=pods";
    client.cluster.told(sees);
    client.cluster.told("create clusterrolebinding sees --clusterrole=sees --user=jane");
    client.refused("logs web --as=jane", "User \"jane\" cannot get resource \"pods/log\"");
    client.refused("exec web --as=jane -- true", "resource \"pods/exec\"");
}
