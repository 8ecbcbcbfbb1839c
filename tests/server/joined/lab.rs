//! Three nodes of the lab's, joined to a server by its data directory.

use crate::skip::skipped;
use crate::world::Place;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Nothing is expected of it: it is there to be held.
const NODES: &str = r#"
name = "joined"
duration = "1s"

[cluster]
backend = "host-gw"
proxy-min-sync = "100ms"

[[network]]
name = "lan"
cidr = "192.168.7.0/24"
latency = "1ms"

[[node]]
name = "n1"
role = "server"
network = "lan"
address = "192.168.7.11"

[[node]]
name = "n2"
network = "lan"
address = "192.168.7.12"

[[node]]
name = "n3"
network = "lan"
address = "192.168.7.13"

[image."web:1"]
pull = "50ms"
tcp = [7000]
http = [{ port = 8080, text = "one" }]

[image."web:2"]
pull = "50ms"
tcp = [7000]
http = [{ port = 8080, text = "two" }]

# Whoever asks it has it ask the Service `web` by name.
[image."ask:1"]
pull = "50ms"
http = [{ port = 8080, text = "answered", calls = [{ host = "web", port = 7000 }] }]

# Does what it has to do, and ends.
[image."work:1"]
pull = "50ms"
crash = { after = "200ms", code = 0 }
"#;

/// On a machine that is busy.
const TRIES: usize = 3;

/// Until it is dropped.
pub struct Lab {
    process: Child,
    /// What it says goes there.
    said: PathBuf,
}

/// Whether this machine has what the lab takes; if not, says so.
pub fn can_run() -> bool {
    let found = Command::new("iptables-save").arg("--version").output().is_ok();
    let missing = match (geteuid().is_root(), Path::new("/dev/net/tun").exists(), found) {
        (false, ..) => "CAP_SYS_ADMIN, for network namespaces (run as root)",
        (_, false, _) => "/dev/net/tun",
        (.., false) => "the program `iptables-save` (Debian: iptables)",
        _ => return true,
    };
    skipped(missing);
    false
}

fn joins(place: &Place, file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubesim"));
    command.args(["run", "--world", "lab"]).arg(file).arg("--join").arg(place.0.join("data"));
    command
}

/// A scenario of the repository's, to its end: what its runs say, until one passes. What it expects
/// within 2 s of a real clock, a machine that is busy with other tests may be late for.
pub fn play(place: &Place, file: &str) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let mut said = String::new();
    for _ in 0..TRIES {
        let (code, told) = once(joins(place, &file));
        if code == Some(0) {
            return Ok(());
        }
        said.push_str(&told);
    }
    Err(said)
}

/// The nodes with more of a scenario, and with more words on the command line, for one run: its
/// exit status, and all that it says.
pub fn try_nodes(place: &Place, more: &str, words: &[&str]) -> (Option<i32>, String) {
    let file = place.0.join("once.toml");
    fs::write(&file, format!("{NODES}{more}")).expect("a file");
    let mut command = joins(place, &file);
    command.args(words);
    once(command)
}

fn once(mut command: Command) -> (Option<i32>, String) {
    let out = command.output().expect("the lab starts");
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (out.status.code(), said.concat())
}

impl Lab {
    /// A run that stood still is worth nothing and says so: it is tried again.
    pub fn join(place: &Place) -> Lab {
        let file = place.0.join("joined.toml");
        fs::write(&file, NODES).expect("a file");
        let said = place.0.join("lab");
        for _ in 0..TRIES {
            let mut command = joins(place, &file);
            let told = File::create(&said).expect("a file");
            let process = command.arg("--hold").stdout(told).spawn().expect("the lab starts");
            let mut lab = Lab { process, said: said.clone() };
            let ends = Instant::now() + Duration::from_secs(20);
            while lab.runs() && Instant::now() < ends {
                if fs::read_to_string(&said).expect("text").contains("the lab stays until ^C") {
                    return lab;
                }
                sleep(Duration::from_millis(50));
            }
        }
        panic!("no lab: {}", fs::read_to_string(&said).unwrap_or_default());
    }

    fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// What HTTP answers to a node's own programs.
    pub fn ask(&self, node: &str, at: &str) -> Result<String, String> {
        let at: SocketAddrV4 = at.parse().expect("an address");
        let namespace = self.namespace(node);
        // A thread that moved stays there.
        let asked = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            get(at)
        });
        asked.join().expect("a thread to its end").map_err(|error| error.to_string())
    }

    /// A node's network is that of its thread (`src/lab/machine.rs`).
    fn namespace(&self, node: &str) -> File {
        let threads = PathBuf::from(format!("/proc/{}/task", self.process.id()));
        let wanted = format!("lab-{node}");
        let mut threads = fs::read_dir(&threads).expect("threads").flatten();
        let thread = threads.find(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            name.trim_end() == wanted
        });
        let path = thread.expect("the node's thread").path().join("ns/net");
        File::open(path).expect("its network")
    }

    /// ^C; nothing of it stays on this machine.
    pub fn end(mut self) {
        let id = self.process.id();
        kill(Pid::from_raw(i32::try_from(id).expect("an id")), Signal::SIGINT).expect("it runs");
        let code = self.process.wait().expect("it ends").code();
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        assert_eq!(code, Some(0), "{said}");
        let homes = fs::read_dir("/run/kubesim-lab").into_iter().flatten().flatten();
        let left =
            homes.filter(|home| home.file_name().to_string_lossy().starts_with(&format!("{id}-")));
        assert_eq!(left.count(), 0, "its files are gone");
        assert_eq!(pods_of(id), 0, "its pods' processes are gone");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn get(at: SocketAddrV4) -> io::Result<String> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&at.into(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let ok = head.starts_with("HTTP/1.1 200 ");
    if ok { Ok(body.to_owned()) } else { Err(io::Error::other(answer.clone())) }
}

/// Processes of pods say in their environment whose they are.
fn pods_of(parent: u32) -> usize {
    let wanted = format!("KUBESIM_PARENT={parent}-");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let theirs = processes.filter(|process| {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(wanted.as_bytes()))
    });
    theirs.count()
}
