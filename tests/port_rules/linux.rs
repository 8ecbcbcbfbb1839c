//! Linux: a client and a server in network namespaces of their own, each made by a thread that
//! nothing else runs on; they end with the threads and their sockets.

use super::machine::{Answered, CLIENT, Machine, PORTS, SERVER, SERVERS};
use kubesim_actors::ports::rules::text::table_name;
use kubesim_actors::ports::rules::{Match, Protocol, Reply, Request, Rule, Table, Target};
use kubesim_backends::port::{Answer, Port};
use kubesim_backends::rules::iptables::Programs;
use kubesim_backends::rules::ipvs::At;
use kubesim_backends::rules::{Rules, Settings};
use nix::sched::{CloneFlags, unshare};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

/// How long an answer may take that crosses a cable of no length.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells a story on Linux, or says what is missing for it.
pub fn run(backend: &'static str, story: fn(&mut Linux)) {
    if let Err(missing) = needs(backend) {
        return crate::vm::skip::skipped(&missing);
    }
    let told = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        story(&mut Linux::new(backend));
    });
    if let Err(panic) = told.join() {
        std::panic::resume_unwind(panic);
    }
}

fn needs(backend: &str) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("root".into());
    }
    thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET))
        .join()
        .expect("no panic")
        .map_err(|error| format!("network namespaces ({error})"))?;
    for program in ["ip".to_owned(), "nft".to_owned(), format!("iptables-{backend}-restore")] {
        Command::new(&program).arg("-V").output().map_err(|error| {
            format!("{program} ({error}; Debian's iproute2, iptables and nftables)")
        })?;
    }
    Ok(())
}

pub struct Linux {
    backend: &'static str,
    runtime: tokio::runtime::Runtime,
    rules: Rules,
    /// Of each address and port, with its port.
    server: Vec<(UdpSocket, u16)>,
    listener: TcpListener,
    clients: BTreeMap<u16, UdpSocket>,
    connections: Vec<TcpStream>,
}

/// Runs a program in the namespace of this thread.
fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Linux {
    fn new(backend: &'static str) -> Self {
        sh("ip link set lo up");
        let (give_ns, ns) = std::sync::mpsc::channel();
        let (give_cable, cable) = std::sync::mpsc::channel::<()>();
        let server = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            give_ns
                .send(File::open("/proc/thread-self/ns/net").expect("/proc"))
                .expect("a listener");
            cable.recv().expect("a cable");
            sh(&format!(
                "ip link set lo up && ip addr add {SERVER}/24 dev eth0 && ip link set eth0 up"
            ));
            for address in &SERVERS[1..] {
                sh(&format!("ip addr add {address}/24 dev eth0"));
            }
            // A socket on all addresses would answer from the first, whichever was asked.
            let at = SERVERS.into_iter().flat_map(|ip| PORTS.map(|port| (ip, port)));
            let udp = at.map(|at| (UdpSocket::bind(at).expect("a free port"), at.1)).collect();
            (udp, TcpListener::bind((SERVER, PORTS[0])).expect("a free port"))
        });
        let ns = ns.recv().expect("a namespace");
        let path = format!("/proc/{}/fd/{}", std::process::id(), ns.as_raw_fd());
        sh(&format!(
            "ip link add eth0 type veth peer name eth0 netns {path} && \
             ip addr add {CLIENT}/24 dev eth0 && ip link set eth0 up && \
             ip route add default via {SERVER}"
        ));
        give_cable.send(()).expect("a server");
        let (server, listener): (Vec<(UdpSocket, u16)>, TcpListener) =
            server.join().expect("a server");
        carries(&server[0].0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Linux {
            backend,
            runtime: runtime.expect("a runtime"),
            rules: rules(backend),
            server,
            listener,
            clients: BTreeMap::new(),
            connections: Vec::new(),
        }
    }

    /// The server's side of a question: the first of its ports that is asked.
    fn serve(&self) -> Option<()> {
        let end = std::time::Instant::now() + PATIENCE;
        let mut buffer = [0; 16];
        while std::time::Instant::now() < end {
            for (socket, port) in &self.server {
                socket.set_nonblocking(true).expect("a flag");
                if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&port.to_be_bytes(), from).expect("a way back");
                    return Some(());
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }
}

/// Waits until the cable carries packets: the kernel looks at a new link's carrier once a second
/// (net/core/link_watch.c).
fn carries(server: &UdpSocket) {
    let probe = UdpSocket::bind((CLIENT, 0)).expect("a free port");
    server.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    for _ in 0..200 {
        let _ = probe.send_to(b"!", (SERVER, PORTS[0]));
        if server.recv_from(&mut [0; 16]).is_ok() {
            while server.recv_from(&mut [0; 16]).is_ok() {}
            return;
        }
    }
    panic!("the cable between the namespaces carries nothing after 10 s");
}

fn rules(backend: &str) -> Rules {
    Rules::new(Settings { programs: Programs::of_backend(backend) })
}

impl Machine for Linux {
    fn ask(&mut self, request: Request) -> Reply {
        let replies = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&replies);
        let answer = Answer::new(move |reply| {
            kept.borrow_mut().push(reply);
            async { Ok(()) }
        });
        let done = self.rules.perform(request, answer);
        self.runtime.block_on(done);
        let mut replies = replies.borrow_mut();
        assert_eq!(replies.len(), 1, "one answer: {replies:?}");
        replies.remove(0)
    }
    fn restart(&mut self) {
        self.rules = rules(self.backend);
    }
    fn iptables(&mut self, command: &str) {
        sh(&format!("iptables-{} -w 5 {command}", self.backend));
    }
    fn takes(&mut self, command: &str) -> bool {
        let mut iptables = Command::new(format!("iptables-{}", self.backend));
        let done = iptables.args(["-w", "5"]).args(command.split(' ')).output();
        done.expect("iptables runs").status.success()
    }
    fn delete_flat(&mut self, owner: &str) {
        sh(&format!("nft delete table ip {owner}"));
    }
    fn nft(&mut self, command: &str) -> bool {
        sh(&format!("nft '{command}'"));
        true
    }
    fn ipvsadm(&mut self, command: &str) {
        sh(&format!("ipvsadm {command}"));
    }
    fn ipvs(&mut self) -> Vec<String> {
        let listed = sh("ipvsadm -Sn");
        let bare = |line: &str| line.replace(" -b flag-3", "").trim().to_owned();
        let mut lines: Vec<_> = listed.lines().map(bare).collect();
        lines.sort();
        lines
    }
    fn connections(&mut self, front: SocketAddrV4, endpoint: Ipv4Addr) -> u64 {
        let all = kubesim_backends::rules::ipvs::services().expect("IPVS");
        let (ip, protocol, port) = (*front.ip(), Protocol::Udp, front.port());
        let service = all.get(&At { ip, protocol, port });
        let endpoint = service.and_then(|service| service.endpoints.get(&(endpoint, PORTS[0])));
        endpoint.map_or(0, |endpoint| endpoint.connections.into())
    }
    fn delete_link(&mut self, name: &str) {
        sh(&format!("ip link delete {name}"));
    }
    fn wait(&mut self, time: Duration) {
        thread::sleep(time);
    }
    fn save(&mut self) -> String {
        sh(&format!("iptables-{}-save", self.backend))
    }
    fn transactions(&mut self) -> Option<u64> {
        Some(self.runtime.block_on(self.rules.written()).transactions)
    }
    fn packets(&mut self, table: Table, chain: &str, number: usize) -> u64 {
        let table = table_name(table);
        let saved = sh(&format!("iptables-{}-save -c -t {table}", self.backend));
        let of_chain = format!(" -A {chain} ");
        let line = saved.lines().filter(|line| line.contains(&of_chain)).nth(number);
        let packets = line.and_then(|line| line.strip_prefix('[')?.split(':').next()?.parse().ok());
        packets.expect("a counter")
    }
    fn udp(&mut self, sport: u16, to: SocketAddrV4) -> Option<Answered> {
        let bind = || {
            let socket = UdpSocket::bind((CLIENT, sport)).expect("a free port");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        };
        let client = self.clients.entry(sport).or_insert_with(bind);
        match client.send_to(b"??", to) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
            Err(error) => panic!("{error}"),
        }
        let client = client.try_clone().expect("a descriptor");
        self.serve()?;
        let mut answer = [0; 2];
        let (_, by) = client.recv_from(&mut answer).ok()?;
        let SocketAddr::V4(by) = by else { panic!("{by}") };
        Some(Answered { by, at: u16::from_be_bytes(answer) })
    }
    fn tcp(&mut self, to: SocketAddrV4) -> bool {
        let connection = TcpStream::connect_timeout(&to.into(), PATIENCE);
        let open = connection.is_ok();
        self.connections.extend(connection);
        if open {
            self.connections.push(self.listener.accept().expect("a connection").0);
        }
        open
    }
}

/// A foreign rule of a kind that the port does not know.
fn words_are_kept(machine: &mut Linux) {
    machine.iptables("-A INPUT -m limit --limit 3/min -j LOG --log-prefix '[UFW BLOCK] '");
    let chain = "INPUT".into();
    let read = machine.ask(Request::ReadBase { table: Table::Filter, chain });
    let Reply::Base { rules, .. } = read else { panic!("{read:?}") };
    let limit = Match::Other("-m limit --limit 3/min".into());
    let log = Target::Other("LOG --log-prefix \"[UFW BLOCK] \"".into());
    assert_eq!(rules[..], [Rule { matches: vec![limit], target: log }]);
}

#[test]
fn words_are_kept_through_nft() {
    run("nft", words_are_kept);
}

#[test]
fn words_are_kept_through_legacy() {
    run("legacy", words_are_kept);
}

/// People look at tables with `nft`, and take things out of them.
#[test]
fn nft_reads_the_table_and_what_it_takes_is_missed() {
    run("nft", |machine| {
        let owner = super::flat::OWNER;
        let wanted = |version| {
            super::flat::request(&super::flat::everything(), &Default::default(), version)
        };
        super::machine::applied(machine.ask(wanted(1))).expect("applied");
        let listed = sh(&format!("nft list table ip {owner}"));
        assert!(!listed.contains("invalid type"), "{listed}");
        assert!(listed.contains("10.96.0.7 . udp . 53 . 0x00000001 : 10.9.0.2 . 8081"), "{listed}");
        let taken = [
            ("flush map ip {} endpoints", "map endpoints: 6 elements not as applied"),
            (
                "add element ip {} hairpin { 10.0.0.1 . 10.0.0.1 }",
                "map hairpin: 1 elements of somebody else",
            ),
            ("flush chain ip {} inside-2", "chain inside-2: not as applied"),
            ("add rule ip {} services drop", "chain services: not as applied"),
            ("add set ip {} more { type ipv4_addr; }", "there are sets of somebody else"),
            ("delete element ip {} treatments { 0:200 }", "chain inside-2: not as applied"),
        ];
        for (command, said) in taken {
            sh(&format!("nft '{}'", command.replace("{}", owner)));
            let missing = super::machine::missing(machine, owner);
            assert_eq!(missing, [said], "{command}");
            super::machine::applied(machine.ask(wanted(1))).expect("applied");
            assert_eq!(super::machine::missing(machine, owner), Vec::<String>::new());
            let again = sh(&format!("nft list table ip {owner}"));
            assert_eq!(again.lines().count(), listed.lines().count(), "{command}");
        }
        // What is somebody else's is nobody's business.
        sh("nft add table ip other");
        assert_eq!(super::machine::missing(machine, owner), Vec::<String>::new());
    });
}
