//! Ports of the node that lead to its pods, over a real machine's rules.

use super::cluster::{Cluster, Running, on_a_machine, plug};
use super::machine::Machine;
use super::up::{Elsewhere, HERE, up};
use crate::namespace::ip;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(2);

/// Whether an echo comes from there, of a stream.
fn echoes(address: &str, port: u16) -> bool {
    let at: SocketAddr = format!("{address}:{port}").parse().expect("an address");
    let heard = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, WITHIN)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        Ok(heard)
    };
    heard().is_ok_and(|heard| heard == "hello")
}

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: c
    image: echo
    imagePullPolicy: IfNotPresent
    ports:
    - {containerPort: 7000, hostPort: 8080}
    - {containerPort: 7000, hostPort: 8081, hostIP: 192.168.77.2}
    - {containerPort: 7000, hostPort: 8082, hostIP: 127.0.0.1}
    - {containerPort: 7777, hostPort: 7777, protocol: UDP}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  containers:
  - {name: c, image: echo, imagePullPolicy: IfNotPresent}
";

/// Whether a pod's own programs hear an echo there.
fn within(cluster: &Cluster, pod: &str, address: &str, port: u16) -> bool {
    let script = format!("echo hello | busybox nc -w 3 {address} {port}");
    let words = format!("exec {pod} -c c -- /bin/sh -c");
    let mut command = cluster.command(&words);
    let out = command.arg(script).output().expect("kubectl runs");
    String::from_utf8_lossy(&out.stdout).trim() == "hello"
}

#[test]
fn host_ports_lead_to_a_pod_from_everywhere_and_go_with_it() {
    on_a_machine(|| {
        plug(HERE);
        let (machine, cluster) = (Machine::start(), Cluster::new());
        // Somebody on the machine's network, who is not it.
        let stranger = Elsewhere::new();
        ip(&format!("link set wire0 netns {}", stranger.thread));
        stranger.run(|| {
            ip("link set wire0 up");
            ip("addr add 192.168.77.9/24 dev wire0");
        });
        let mut running = Running::start(&mut up(&cluster, &machine));
        running.says("the node n1 is ready");
        cluster.apply(PODS);
        cluster.ready("web");
        cluster.ready("other");

        let tried = stranger.run(|| [8080, 8081, 8082].map(|port| echoes(HERE, port)));
        assert_eq!(tried, [true, true, false], "the third is for the machine itself only");
        // Busybox has no server of datagrams: it is looked at how they are led.
        let list = Command::new("iptables").args(["-t", "nat", "-S"]).output();
        let list = String::from_utf8(list.expect("iptables runs").stdout).expect("text");
        let to =
            format!("-j DNAT --to-destination {}:7777", cluster.of_pod("web", "{.status.podIP}"));
        let is_led = |line: &str| line.contains("-p udp") && line.contains(&to);
        assert!(list.lines().any(is_led), "{to}: {list}");
        let here = [(HERE, 8080), (HERE, 8081), ("127.0.0.1", 8080), ("127.0.0.1", 8082)];
        for (address, port) in here {
            assert!(echoes(address, port), "{address}:{port} from the machine");
        }
        assert!(!echoes("127.0.0.1", 8081));
        assert!(within(&cluster, "other", HERE, 8080), "from another pod");
        assert!(within(&cluster, "web", HERE, 8080), "from the pod itself");

        assert_eq!(running.end(Signal::SIGKILL), None);
        assert!(echoes(HERE, 8080), "it stands without us");
        let mut running = Running::start(&mut up(&cluster, &machine));
        running.says("the node n1 is ready");
        assert!(echoes(HERE, 8080));
        cluster.told("delete pod web --grace-period=1");
        cluster.until("nobody is led anywhere", || !echoes(HERE, 8080));
        let rules = || {
            let out = std::process::Command::new("iptables-save").output().expect("it runs");
            String::from_utf8(out.stdout).expect("text")
        };
        cluster.until("no rule is left", || !rules().contains("HOSTPORT"));
        assert_eq!(running.end(Signal::SIGTERM), Some(0));
    });
}
