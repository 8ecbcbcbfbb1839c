//! A machine with containerd: processes and mounts of its own, which end with the test, in the
//! network namespace of the thread that starts it.

use super::image::{Image, Layout};
use crate::plugin::link_all;
use kubesim_backends::cni;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// What the bodies of the tests run, and the sandboxes' own.
const IMAGES: [Image; 5] = [
    Image { name: "pause", command: &["/bin/busybox", "sleep", "1000000"], user: "" },
    Image {
        name: "echo",
        // The first process of a container is asked to end in vain unless it listens.
        command: &[
            "/bin/sh",
            "-c",
            "trap 'exit 143' TERM; busybox nc -ll -p 7000 -e busybox cat & wait",
        ],
        user: "",
    },
    Image { name: "crash", command: &["/bin/sh", "-c", "busybox usleep 100000; exit 3"], user: "" },
    Image { name: "shell", command: &["/bin/sh"], user: "" },
    Image { name: "named", command: &["/bin/sh"], user: "www" },
];

/// What the first process does until its input ends; with it, all others end.
const INIT: &str = "
mount -t tmpfs tmpfs /run || exit 1
while read -r line; do eval \"$line\"; done";

pub fn images() -> Layout {
    Layout::of(&IMAGES, Path::new(BUSYBOX)).expect("busybox")
}

/// What is not installed.
pub fn missing() -> Option<&'static str> {
    let lacks = |program: &str| Command::new(program).arg("--version").output().is_err();
    if lacks("containerd") || lacks("ctr") {
        return Some("containerd (Debian: containerd)");
    }
    if lacks("runc") {
        return Some("runc (Debian: runc)");
    }
    (!Path::new(BUSYBOX).exists()).then_some("busybox (Debian: busybox-static)")
}

const BUSYBOX: &str = "/bin/busybox";

pub struct Machine {
    init: Child,
    /// Commands for the first process.
    input: Option<ChildStdin>,
    folder: PathBuf,
    name: String,
}

impl Machine {
    pub fn start() -> Machine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kubesim-cri-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        let plugins = folder.join("cni");
        fs::create_dir_all(&plugins).expect("a folder");
        fs::write(folder.join("hosts"), "192.0.2.1\tmachine\n").expect("a file");
        fs::write(folder.join("config.toml"), config(&folder)).expect("a file");
        let network = cni::network_list().to_string();
        fs::write(plugins.join("10-pods.conflist"), network).expect("a file");
        link_all(&plugins);
        let mut init = Command::new("unshare");
        init.args(["--mount", "--propagation=slave", "--pid", "--fork"]);
        // What a kubelet mounts on the machine is seen here, and nothing of here there.
        init.args(["--mount-proc", "sh", "-c", INIT]);
        init.stdin(Stdio::piped());
        let mut init = init.spawn().expect("unshare runs");
        let input = init.stdin.take();
        let mut machine = Machine { init, input, folder, name };
        machine.start_runtime();
        machine.import();
        machine
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }
    /// Where the runtime has plugins and networks.
    pub fn cni(&self) -> PathBuf {
        self.folder.join("cni")
    }
    /// The machine's own.
    pub fn hosts(&self) -> PathBuf {
        self.folder.join("hosts")
    }
    /// A node's own things.
    pub fn data(&self) -> PathBuf {
        self.folder.join("node")
    }
    pub fn pods(&self) -> PathBuf {
        self.data().join("pods")
    }
    pub fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    /// What the runtime itself has: `root` and `state`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// What /proc has of a process in the machine's mount namespace, or below `root` its files.
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.init.id()))
    }

    /// All that run on it, in its process namespace.
    pub fn processes(&self) -> Vec<u32> {
        let own = fs::read_link(self.proc("ns/pid_for_children")).ok();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_own = |id: &u32| fs::read_link(format!("/proc/{id}/ns/pid")).ok() == own;
        all.filter(|id| own.is_some() && is_own(id)).collect()
    }

    /// Images whose names say no registry come from this one.
    pub fn pulls_from(&self, registry: SocketAddr) {
        let folder = self.folder.join("registries/docker.io");
        fs::create_dir_all(&folder).expect("a folder");
        let url = format!("http://{registry}");
        let hosts = format!("server = \"{url}\"\n[host.\"{url}\"]\n");
        fs::write(folder.join("hosts.toml"), hosts).expect("a file");
    }

    /// A command for the machine's shell; `$runtime` is containerd.
    pub fn run(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it runs");
        writeln!(input, "{line}").expect("it listens");
    }

    pub fn start_runtime(&mut self) {
        let folder = self.folder.display().to_string();
        self.run(&format!(
            "containerd -c {folder}/config.toml >>{folder}/containerd.log 2>&1 & runtime=$!"
        ));
    }

    /// SIGKILL. What it started runs on.
    pub fn kill_runtime(&mut self) {
        self.run("kill -9 $runtime; wait $runtime 2>/dev/null");
    }

    /// `ctr` with these words succeeds in the end: after its start containerd takes a moment.
    pub fn ctr(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let socket = self.socket().display().to_string();
            let mut ctr = Command::new("ctr");
            let done = ctr.args(["-a", &socket, "-n", "k8s.io"]).args(words).output();
            let done = done.expect("ctr runs");
            if done.status.success() {
                return String::from_utf8_lossy(&done.stdout).into_owned();
            }
            let log = fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default();
            let error = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(Instant::now() < deadline, "ctr {words:?}: {error}\n{log}");
            sleep(Duration::from_millis(50));
        }
    }

    /// The processes of containers and sandboxes, a line each; `ctr` has them in no order.
    pub fn tasks(&self) -> Vec<String> {
        let listed = self.ctr(&["tasks", "ls"]);
        let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn import(&self) {
        let path = self.folder.join("images.tar");
        fs::write(&path, images().tar()).expect("a file");
        let path = path.display().to_string();
        self.ctr(&["images", "import", "--snapshotter", "native", &path]);
        // The part of containerd that serves the CRI hears of images a moment later, and names
        // each by its id as well.
        let deadline = Instant::now() + SOON;
        let known = |listed: &str| listed.matches("io.cri-containerd.image=managed").count();
        while known(&self.ctr(&["images", "ls"])) < 2 * IMAGES.len() {
            assert!(Instant::now() < deadline, "the images are not taken over");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.init.wait();
        // What runc would have removed.
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&controller.path().join(&self.name));
        }
        remove_cgroups(&Path::new("/sys/fs/cgroup").join(&self.name));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A cgroup is removed as a folder, once it has none below it; its files are none.
fn remove_cgroups(folder: &Path) {
    for below in fs::read_dir(folder).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&below.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// The native snapshotter asks nothing of the file system below it.
fn config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{folder}/socket"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:latest"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{folder}/registries"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/cni"
conf_dir = "{folder}/cni"
"#
    )
}
