//! An etcd of a test's own, on loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often it tells a watch that nothing happens to how far it is: upstream's is 10 minutes.
pub const PROGRESS: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Server {
    pub directory: PathBuf,
    port: u16,
    scheme: &'static str,
    options: Vec<String>,
    process: Option<Child>,
}

/// Whether this machine has the program.
pub fn installed() -> bool {
    Command::new("etcd").arg("--version").output().is_ok_and(|out| out.status.success())
}

impl Server {
    /// On ports `port` and `port + 1`.
    #[allow(dead_code, reason = "some are members of a cluster")]
    pub fn start(port: u16) -> Server {
        Server::with(port, "http", |_| Vec::new())
    }

    /// `options`: more of them, from the directory it keeps.
    pub fn with(
        port: u16,
        scheme: &'static str,
        options: impl Fn(&PathBuf) -> Vec<String>,
    ) -> Server {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-etcd-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let options = options(&directory);
        let mut server = Server { directory, port, scheme, options, process: None };
        server.run();
        server
    }

    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Its clients'.
    #[allow(dead_code, reason = "for tests that cut it off")]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// On what it kept.
    pub fn run(&mut self) {
        let peer = format!("http://127.0.0.1:{}", self.port + 1);
        let log = fs::File::create(self.directory.join("log")).expect("a log");
        let process = Command::new("etcd")
            .arg(format!("--data-dir={}", self.directory.join("data").display()))
            .arg(format!("--listen-client-urls={}", self.endpoint()))
            .arg(format!("--advertise-client-urls={}", self.endpoint()))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .arg(format!("--experimental-watch-progress-notify-interval={PROGRESS:?}"))
            .args(["--heartbeat-interval=20", "--election-timeout=200"])
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("etcd starts"));
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(Instant::now() < end, "etcd does not listen: {}", self.log());
            sleep(Duration::from_millis(10));
        }
        // It is not another one's port.
        let process = self.process.as_mut().expect("it was started");
        let ended = process.try_wait().expect("its state");
        assert!(ended.is_none(), "etcd ends: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Its id, while it runs.
    #[allow(dead_code, reason = "for the bench, which counts what it writes")]
    pub fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// All that it kept, while it does not run.
    #[allow(dead_code, reason = "for the tests of the driver")]
    pub fn lose(&self) {
        let _ = fs::remove_dir_all(self.directory.join("data"));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
