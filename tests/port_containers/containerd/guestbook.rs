//! Kubernetes' guestbook of scenarios/guestbook on three real machines: the manifests that the
//! simulator and the lab play, with redis and a frontend of Debian's packages in their images.
//! What field note B saw of it is seen here by its commands.

use super::cluster::{Cluster, Running, echo};
use super::trio::{SERVER, Trio, WORKERS, on_three_machines};
use crate::namespace::ip;
use nix::sys::signal::Signal;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// The addresses that services.yaml gives the frontend: one in the cluster, one of a node.
const FRONTEND: &str = "10.3.0.252";
const EXTERNAL: &str = SERVER.1;
const NODE_PORT: u16 = 30080;

/// Three of them, seen ready soon, and at a port of each node as well.
const WIDER: &str = r#"{"spec": {"replicas": 3, "template": {"spec": {"containers": [
    {"name": "php-redis", "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}}
]}}}}"#;

#[test]
fn the_guestbook_is_as_the_field_note_saw_it() {
    on_three_machines(|trio| {
        stand(trio);
        addresses_answer(trio);
        the_guestbook_keeps(trio);
        networks_are_as_flannel_has_them(trio);
        rules_are_as_kube_proxy_writes_them(trio);
        a_rollout_fails_no_request(trio);
        every_node_is_looked_into(trio);
        for process in &mut trio.processes {
            assert_eq!(process.end(Signal::SIGTERM), Some(0));
        }
    });
}

fn manifest(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/guestbook");
    fs::read_to_string(folder.join(name)).expect("a manifest")
}

/// Services first: environment variables are those of the Services that there are.
fn stand(trio: &Trio) {
    let cluster = &trio.cluster;
    cluster.apply(&manifest("services.yaml"));
    for name in ["redis-master", "redis-slave", "frontend", "frontend-dns"] {
        cluster.apply(&manifest(&format!("{name}.yaml")));
    }
    for name in ["redis-master", "redis-slave", "frontend", "frontend-dns"] {
        let status = format!("rollout status deployment {name} --timeout=10s");
        cluster.until(name, || cluster.told(&status).contains("successfully rolled out"));
    }
    let placed = cluster.told("get pods -o jsonpath={.items[*].spec.nodeName}");
    assert!(!placed.contains(SERVER.0), "c1 takes none: {placed}");
}

/// The address of one of the pods of a tier.
fn pod_address(cluster: &Cluster, tier: &str) -> String {
    let path = "jsonpath={.items[0].status.podIP}";
    cluster.told(&format!("get pods -l app=guestbook,tier={tier} -o {path}"))
}

/// What `wget` and `ping` said: HTTP of all addresses, and no echo of a Service's.
fn addresses_answer(trio: &Trio) {
    let pod = pod_address(&trio.cluster, "frontend");
    for address in [FRONTEND, &pod, EXTERNAL] {
        trio.cluster
            .until(address, || get(address, 80, "/").is_ok_and(|text| text == "Guestbook\n"));
    }
    assert!(pings(&pod), "a pod answers");
    assert!(!pings(FRONTEND), "a Service's address is of ports only");
    for worker in &trio.workers {
        let all = [FRONTEND.to_owned(), pod.clone(), EXTERNAL.to_owned()];
        worker.run(move || {
            for address in all {
                assert_eq!(get(&address, 80, "/").expect("an answer"), "Guestbook\n", "{address}");
            }
        });
    }
    trio.outside.run(|| {
        assert_eq!(get(EXTERNAL, 80, "/").expect("an answer"), "Guestbook\n");
    });
}

/// By environment variables and by DNS: what is written to the master is read from a slave.
fn the_guestbook_keeps(trio: &Trio) {
    let cluster = &trio.cluster;
    let by_name = cluster.told("get service frontend-dns -o jsonpath={.spec.clusterIP}");
    for (address, entry) in [(FRONTEND, "by-env"), (by_name.as_str(), "by-dns")] {
        let write = format!("/cgi-bin/guestbook?cmd=set&key=messages&value={entry}");
        assert_eq!(get(address, 80, &write).expect("an answer"), "OK\n");
        let read = "/cgi-bin/guestbook?cmd=get&key=messages";
        let replicated = || get(address, 80, read).is_ok_and(|text| text.trim() == entry);
        cluster.until(entry, replicated);
    }
}

fn networks_are_as_flannel_has_them(trio: &Trio) {
    let cluster = &trio.cluster;
    for (worker, (name, _)) in trio.workers.iter().zip(WORKERS) {
        let subnet = cluster.told(&format!("get node {name} -o jsonpath={{.spec.podCIDR}}"));
        let gateway = subnet.replace(".0/24", ".1/24");
        let bridge = worker.run(|| ip("-d addr show cni0"));
        let told = fs::read_to_string(cluster.file(format!("{name}/subnet.env"))).expect("a file");
        for line in [
            "FLANNEL_NETWORK=10.2.0.0/16",
            &format!("FLANNEL_SUBNET={gateway}"),
            "FLANNEL_MTU=1450",
            "FLANNEL_IPMASQ=true",
        ] {
            assert!(told.lines().any(|found| found == line), "{line}: {told}");
        }
        assert!(bridge.contains(" mtu 1450 "), "{bridge}");
        assert!(bridge.contains(&format!("inet {gateway} ")), "{gateway}: {bridge}");
        let members = worker.run(|| ip("-o link show master cni0"));
        let pods = format!("get pods -o name --field-selector spec.nodeName={name}");
        assert_eq!(members.lines().count(), cluster.told(&pods).lines().count(), "{members}");
    }
    let card = cluster.told("exec deploy/frontend -- busybox ip addr show eth0");
    assert!(card.contains(" mtu 1450 "), "{card}");
    assert!(card.contains(&format!("inet {}/24 ", pod_address(cluster, "frontend"))), "{card}");
}

/// `iptables -t nat -S`: the Service's chain is entered at its address in the cluster and at the
/// external one; it leads to the pod, masquerades whoever is no pod, and the pod to itself.
fn rules_are_as_kube_proxy_writes_them(trio: &Trio) {
    let list = Command::new("iptables").args(["-t", "nat", "-S"]).output().expect("iptables runs");
    let list = String::from_utf8(list.stdout).expect("text");
    let pod = pod_address(&trio.cluster, "frontend");
    for words in [
        ["-A KUBE-SERVICES ", &format!("-d {FRONTEND}/32 "), "--dport 80 -j KUBE-SVC-"],
        ["-A KUBE-SERVICES ", &format!("-d {EXTERNAL}/32 "), "--dport 80 -j KUBE-EXT-"],
        ["! -s 10.2.0.0/16 ", &format!("-d {FRONTEND}/32 "), "-j KUBE-MARK-MASQ"],
        ["-A KUBE-SEP-", &format!("-s {pod}/32 "), "-j KUBE-MARK-MASQ"],
        ["-A KUBE-SEP-", "-j DNAT ", &format!("--to-destination {pod}:80")],
    ] {
        let found = list.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{words:?}: {list}");
    }
}

fn a_rollout_fails_no_request(trio: &Trio) {
    let cluster = &trio.cluster;
    let expose = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: outside}}\nspec:\n  type: NodePort\n  \
         selector: {{app: guestbook, tier: frontend}}\n  ports: [{{port: 80, nodePort: {NODE_PORT}}}]\n"
    );
    cluster.apply(&expose);
    cluster.told("scale deployment redis-slave --replicas=4");
    let patch = cluster.command("patch deployment frontend").args(["-p", WIDER]).output();
    assert!(patch.expect("kubectl runs").status.success());
    let rolled = || {
        let status = cluster.told("rollout status deployment frontend --timeout=50s");
        assert!(status.contains("successfully rolled out"), "{status}");
    };
    rolled();
    let slaves = "get deployment redis-slave -o jsonpath={.status.readyReplicas}";
    cluster.until("four slaves are ready", || cluster.told(slaves) == "4");
    let node = WORKERS[1].1;
    let answers = || trio.outside.run(move || get(node, NODE_PORT, "/").is_ok());
    cluster.until("the port of a node answers", answers);

    let load = trio.outside.run(|| Load::start(&[(EXTERNAL, 80), (WORKERS[0].1, NODE_PORT)]));
    sleep(Duration::from_secs(1));
    let before = cluster.told("get pods -l tier=frontend -o name");
    cluster.told("set env deployment/frontend GENERATION=2");
    rolled();
    sleep(Duration::from_secs(7));
    let after = cluster.told("get pods -l tier=frontend -o name");
    assert!(!before.lines().any(|pod| after.contains(pod)), "all are new: {after}");
    let (answered, failed) = load.end();
    eprintln!(
        "guestbook: {answered} requests answered while it was rolled, {} failed",
        failed.len()
    );
    assert!(answered > 500, "{answered}");
    assert_eq!(failed, Vec::<String>::new());
}

/// Logs, commands, files and ports of a pod on each node, by a client that reaches the server only.
fn every_node_is_looked_into(trio: &Trio) {
    let cluster = &trio.cluster;
    let content: Vec<u8> = (0..200_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    let (here, back) = (cluster.file("here.bin"), cluster.file("back.bin"));
    fs::write(&here, &content).expect("a file");
    for name in [SERVER.0, WORKERS[0].0, WORKERS[1].0] {
        let pod = format!("on-{name}");
        cluster.apply(&echo(&pod, Some(name)));
        cluster.ready(&pod);
        let run = |words: &str| cluster.told(&format!("exec {pod} -- busybox {words}"));
        assert_eq!(run("hostname"), format!("{pod}\n"));

        let mut follows = Running::start(&mut cluster.command(&format!("logs -f {pod}")));
        run("dd if=/etc/hostname of=/proc/1/fd/1");
        follows.says(&pod);

        // `cp` is `tar` in the container.
        run("ln -s busybox /bin/tar");
        cluster.told(&format!("cp {here} {pod}:/tmp/there.bin"));
        cluster.told(&format!("cp {pod}:/tmp/there.bin {back}"));
        assert!(fs::read(&back).expect("a file") == content, "{pod}");

        let forward = format!("port-forward {pod} :7000");
        let mut forwards = Running::start(&mut cluster.command(&forward));
        let words = forwards.says("Forwarding from 127.0.0.1:");
        let port = words.split(' ').next().expect("a port").parse().expect("a port");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it is forwarded");
        stream.write_all(b"hello").expect("it takes it");
        let mut said = [0; 5];
        stream.read_exact(&mut said).expect("it comes back");
        assert_eq!(&said, b"hello", "{pod}");
    }
}

/// Of a server's answer to `GET`, the body, if it says 200.
fn get(address: &str, port: u16, path: &str) -> io::Result<String> {
    let patience = Some(Duration::from_secs(3));
    let to = SocketAddr::new(address.parse::<Ipv4Addr>().expect("an address").into(), port);
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
    stream.set_read_timeout(patience)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: guestbook\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("it answers {text:?}"))),
    }
}

fn pings(address: &str) -> bool {
    let ping = Command::new("busybox").args(["ping", "-c", "2", "-W", "1", address]).output();
    ping.expect("busybox runs").status.success()
}

/// 100 requests a second, to some addresses in turn.
struct Load {
    over: Arc<AtomicBool>,
    asks: JoinHandle<(usize, Vec<String>)>,
}

impl Load {
    /// From the calling thread's network.
    fn start(to: &'static [(&'static str, u16)]) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let asks = thread::spawn(move || {
            let begun = Instant::now();
            let (mut open, mut due) = (Vec::new(), begun);
            for (address, port) in to.iter().cycle() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                // One that takes long keeps no other waiting.
                open.push(thread::spawn(move || get(address, *port, "/")));
                due += Duration::from_millis(10);
                sleep(due.saturating_duration_since(Instant::now()));
            }
            let (mut answered, mut failed) = (0, Vec::new());
            for ask in open {
                match ask.join().expect("it ends") {
                    Ok(_) => answered += 1,
                    Err(error) => failed.push(error.to_string()),
                }
            }
            (answered, failed)
        });
        Load { over, asks }
    }

    /// How many were answered, and why others were not.
    fn end(self) -> (usize, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        self.asks.join().expect("it ends")
    }
}
