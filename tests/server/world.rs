//! A server of a test's own, on loopback, and the stock `kubectl` as its client.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The releases of `kubectl` that lie beside this machine's; else its own. One that has others
/// beside it chooses among them itself, by the server's version.
pub fn clients() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join("kubectl"));
    let Some(stock) = found.into_iter().find(|program| program.is_file()) else {
        crate::skip::skipped("kubectl");
        return Vec::new();
    };
    let home = fs::canonicalize(&stock).ok().and_then(|real| real.parent().map(Path::to_owned));
    let releases = ["kubectl.1.33", "kubectl.1.27", "kubectl.1.32"];
    let beside = releases.iter().filter_map(|name| home.as_ref().map(|home| home.join(name)));
    let beside: Vec<PathBuf> = beside.filter(|program| program.is_file()).collect();
    if beside.is_empty() { vec![stock] } else { beside }
}

/// Of a server on which nothing happens by itself.
pub const ALONE: [&str; 2] =
    ["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];

/// What the server keeps; removed in the end.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-server-{}-{number}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir_all(&place).expect("a directory");
        Place(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub struct Server {
    process: Child,
    place: PathBuf,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The `kubectl` that is used.
    pub client: PathBuf,
}

impl Server {
    /// The API server alone, on what the place keeps: what is made stays as it is. `listen` is an
    /// address, with port 0 for any.
    pub fn start(place: &Place, listen: &str, client: &Path) -> Server {
        Server::start_with(place, listen, client, &ALONE)
    }

    /// With more words on its command line.
    pub fn start_with(place: &Place, listen: &str, client: &Path, more: &[&str]) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kubesim"))
            .arg("server")
            .arg("--data-dir")
            .arg(place.0.join("data"))
            .args(["--listen", listen])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let told = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut url = String::new();
        for line in told.lines() {
            let line = line.expect("text");
            if let Some(rest) = line.strip_prefix("the API is at ") {
                url = rest.split(',').next().expect("an address").to_owned();
            }
            if line.starts_with("try: ") {
                break;
            }
        }
        assert!(!url.is_empty(), "the server says where it is");
        Server { process, place: place.0.clone(), url, client: client.to_owned() }
    }

    /// A process that serves already, with `data/admin.conf` in the place.
    pub fn of(process: Child, place: &Place, url: String, client: &Path) -> Server {
        Server { process, place: place.0.clone(), url, client: client.to_owned() }
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.url.trim_start_matches("https://").parse().expect("an address")
    }

    /// One that cannot start: its exit status, and what it says.
    pub fn refused(place: &Place, listen: &str) -> (Option<i32>, String) {
        Server::refused_with(place, listen, &[])
    }

    pub fn refused_with(place: &Place, listen: &str, more: &[&str]) -> (Option<i32>, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_kubesim"))
            .arg("server")
            .arg("--data-dir")
            .arg(place.0.join("data"))
            .args(["--listen", listen])
            .args(more)
            .output()
            .expect("the program starts");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// SIGTERM, and its exit status.
    pub fn end(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.process.wait().expect("it ends").code()
    }

    /// Until it ends by itself, and its exit status.
    pub fn wait(mut self) -> Option<i32> {
        self.process.wait().expect("it ends").code()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.process.wait();
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).expect("an id");
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command
            .arg("--kubeconfig")
            .arg(self.place.join("data/admin.conf"))
            .arg("--cache-dir")
            .arg(self.place.join("cache"))
            .env("HOME", &self.place)
            .args(words);
        command
    }

    /// `kubectl …`, with something on its standard input.
    pub fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = self.command(words);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = pipes.spawn().expect("kubectl starts");
        let sent = process.stdin.take().expect("a pipe").write_all(input.as_bytes());
        // One that does not read its input has no use for it.
        let _ = sent;
        process.wait_with_output().expect("kubectl ends")
    }

    /// What it prints, having succeeded.
    #[track_caller]
    pub fn kubectl(&self, words: &str) -> String {
        self.with(words, "")
    }

    #[track_caller]
    pub fn with(&self, words: &str, input: &str) -> String {
        let out = self.run(&words.split_whitespace().collect::<Vec<_>>(), input);
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "kubectl {words}: {error}");
        String::from_utf8(out.stdout).expect("UTF-8")
    }

    /// What it complains of, having failed.
    #[track_caller]
    pub fn fails(&self, words: &str) -> String {
        let out = self.run(&words.split_whitespace().collect::<Vec<_>>(), "");
        assert!(!out.status.success(), "kubectl {words} succeeds");
        String::from_utf8(out.stderr).expect("UTF-8")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
