//! The Debian package on a Debian machine, in qemu without hardware help: installed from the .deb
//! it starts under systemd, a crash and a restart of it end no pod, and after a reboot the cluster
//! is there with its pods; purged, it leaves the cluster's own data.
//!
//! `tests/deploy/make-root` makes the machine's disk, `deploy/package` the package, and
//! `tests/deploy/run` is what is done on the machine.

#![cfg(target_os = "linux")]

#[path = "../port_containers/containerd/image.rs"]
#[allow(dead_code, reason = "more images are made where containerd's driver is tried")]
mod image;
#[path = "../vm/initramfs.rs"]
#[allow(dead_code, reason = "the small machine has programs with their libraries")]
mod initramfs;
#[path = "../vm/kernel.rs"]
#[allow(dead_code, reason = "the small machine has iptables")]
mod kernel;
#[path = "../common/skip.rs"]
mod skip;

use image::{Image, Layout, Tar};
use initramfs::Initramfs;
use kernel::Kernel;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
const BUSYBOX: &str = "/bin/busybox";
/// Two boots, where code runs some ten times slower than outside, on a machine that is busy.
const ROOM: Duration = Duration::from_secs(1500);
const DISK: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_net", "overlay"];

const IMAGES: [Image; 2] = [
    Image { name: "pause", command: SLEEP, user: "" },
    Image { name: "web", command: SLEEP, user: "" },
];
/// The first process of a container is asked to end in vain unless it listens; a machine that ends
/// asks as well, and waits for a minute and a half.
const SLEEP: &[&str] = &["/bin/sh", "-c", "trap exit TERM; busybox sleep 1000000 & wait"];

const POD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
data: {what: this}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: web, imagePullPolicy: IfNotPresent}
";

/// Mounts the disk and starts what is on it.
const INIT: &str = "#!/usr/bin/busybox sh
/usr/bin/busybox mkdir -p /proc /dev /root /usr/busybox
export PATH=/usr/busybox
/usr/bin/busybox --install -s /usr/busybox
mount -t devtmpfs devtmpfs /dev
while read module; do insmod $module || echo \"insmod $module failed\"; done < /modules
tries=0
until mount -t ext4 /dev/vda /root; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || poweroff -f
    sleep 0.1
done
exec switch_root /root /usr/lib/systemd/systemd
";

/// What a machine is made of.
struct Parts {
    kernel: Kernel,
    root: PathBuf,
    package: PathBuf,
    kubectl: PathBuf,
}

impl Parts {
    fn find() -> Result<Parts, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("");
        let runs = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
        runs.map_err(|_| format!("the program `{QEMU}` (Debian: qemu-system-x86)"))?;
        let there = |path: PathBuf, how: &str| match path.exists() {
            true => Ok(path),
            false => Err(format!("{} ({how})", path.display())),
        };
        let kernel = Kernel::find()?;
        let root = there(target.join("deploy/root.img"), "run tests/deploy/make-root")?;
        there(BUSYBOX.into(), "Debian: busybox-static")?;
        let all = fs::read_dir(target.join("debian")).into_iter().flatten().flatten();
        let all = all.map(|entry| entry.path());
        let package = all.filter(|path| path.extension().is_some_and(|kind| kind == "deb")).max();
        let package = package.ok_or("the package (run deploy/package --built)")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut found = std::env::split_paths(&path).map(|place| place.join("kubectl"));
        let kubectl = found.find(|program| program.is_file()).ok_or("kubectl")?;
        // One that has others beside it chooses among them, and would have to have them there.
        let kubectl = fs::canonicalize(kubectl).map_err(|error| format!("kubectl: {error}"))?;
        let newest = kubectl.with_file_name("kubectl.1.33");
        let kubectl = if newest.is_file() { newest } else { kubectl };
        Ok(Parts { kernel, root, package, kubectl })
    }

    /// What boots the disk.
    fn initrd(&self) -> Vec<u8> {
        let mut files = Initramfs::default();
        files.tree(Path::new(BUSYBOX), Path::new("/usr/bin/busybox"));
        let modules = self.kernel.with_dependencies(&DISK.map(str::to_owned));
        for module in &modules {
            files.tree(&self.kernel.module_file(module), Path::new(module));
        }
        let listed: String = modules.iter().map(|module| format!("{module}\n")).collect();
        files.file(Path::new("/modules"), listed.as_bytes(), 0o644);
        files.file(Path::new("/init"), INIT.as_bytes(), 0o755);
        files.archive()
    }

    /// What is to be done, and with what.
    fn todo(&self) -> Vec<u8> {
        let read = |path: &Path| {
            fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let images = Layout::of(&IMAGES, Path::new(BUSYBOX)).expect("images").tar();
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/run");
        let mut tar = Tar::default();
        tar.add("run", b'0', "", &read(&run));
        tar.add("pod.yaml", b'0', "", POD.as_bytes());
        tar.add("images.tar", b'0', "", &images);
        tar.add("kubectl", b'0', "", &read(&self.kubectl));
        tar.add("kubesim.deb", b'0', "", &read(&self.package));
        tar.end()
    }
}

/// A directory of the test's own, removed in the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the machine said, all of it and by name, and what the kernel and systemd did.
struct Told {
    facts: BTreeMap<String, String>,
    all: String,
}

impl Told {
    fn of(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("nothing of {name}\n{}", self.all))
    }

    /// Two words.
    fn both(&self, name: &str) -> (&str, &str) {
        let said = self.of(name);
        said.split_once(' ').unwrap_or_else(|| panic!("{name}: {said}\n{}", self.all))
    }
}

fn boot(parts: &Parts) -> Told {
    let name = format!("deploy-{}", std::process::id());
    let folder = Scratch(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    fs::create_dir_all(&folder.0).expect("a directory");
    let place = |name: &str| folder.0.join(name);
    fs::write(place("initrd"), parts.initrd()).expect("room for an initramfs");
    fs::write(place("todo"), parts.todo()).expect("room for what is to be done");
    let file = |name: &str| format!("file:{}", place(name).display());
    // What is written goes to a file of qemu's own, which ends with it and not with a reboot.
    let disk = |path: &Path| format!("if=virtio,format=raw,snapshot=on,file={}", path.display());
    let append = "console=ttyS0 quiet panic=-1 random.trust_cpu=on rw systemd.show_status=0";
    let mut machine = Command::new(QEMU)
        .env("TMPDIR", &folder.0)
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .arg("-kernel")
        .arg(&parts.kernel.image)
        .arg("-initrd")
        .arg(place("initrd"))
        .args(["-append", append, "-serial", &file("console"), "-serial", &file("told")])
        .args(["-drive", &disk(&parts.root), "-drive", &disk(&place("todo"))])
        // A network of its own, from which nothing leads here.
        .args(["-nic", "user,restrict=on,model=virtio-net-pci"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("qemu starts");
    let deadline = Instant::now() + ROOM;
    while machine.try_wait().expect("qemu can be waited for").is_none() {
        if Instant::now() > deadline {
            let _ = machine.kill();
            let _ = machine.wait();
        }
        sleep(Duration::from_millis(100));
    }
    let read = |name: &str| {
        let bytes = fs::read(place(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    };
    let (told, console) = (read("told"), read("console"));
    let facts = told.lines().filter_map(|line| line.split_once(": "));
    let facts = facts.map(|(name, found)| (name.to_owned(), found.trim().to_owned())).collect();
    Told { facts, all: format!("--- told\n{told}\n--- console\n{console}") }
}

#[test]
fn the_package_starts_with_systemd_and_survives_a_reboot_with_its_pods() {
    let parts = match Parts::find() {
        Ok(parts) => parts,
        Err(missing) => return skip::skipped(&missing),
    };
    let begun = Instant::now();
    let told = boot(&parts);
    assert!(!told.facts.contains_key("failed"), "{}", told.all);
    assert_eq!(told.of("over"), "yes", "{}", told.all);

    // Which of its units a machine is for is not the package's to say.
    assert_eq!(told.of("installed"), "disabled inactive");
    let is_ready = "the API is at https://127.0.0.1:6443, and the node desk1 ready";
    assert_eq!(told.of("started"), format!("active, {is_ready}"));
    assert_eq!(told.of("node"), "True");
    let (uid, runs) = told.both("pod");
    let (container, process) = runs.split_once(' ').unwrap_or_default();
    assert!(container.starts_with("containerd://"), "{container}");
    assert!(process.parse::<u32>().is_ok(), "{process}");
    // Neither a crash nor a restart is anything to it.
    assert_eq!(told.of("crashed"), format!("1 {runs}"));
    assert_eq!(told.of("restarted"), format!("active {runs}"));

    assert_eq!(told.of("rebooted"), is_ready);
    let (same, other) = told.both("again");
    assert_eq!(same, uid, "it is the same pod");
    assert_ne!(other, container, "its container ended with the machine");
    assert_eq!(told.of("kept"), "this");

    assert_eq!(told.of("containers"), "0", "{}", told.all);
    assert!(!told.of("links").contains("cni0"), "{}", told.of("links"));
    assert_eq!(told.of("rules"), "0", "{}", told.all);
    let kept = ["admin.conf", "networks", "pki", "store", "token", "version"];
    let kept: Vec<String> = kept.iter().map(|name| format!("/var/lib/kubesim/{name}")).collect();
    assert_eq!(told.of("left").split(' ').collect::<Vec<_>>(), kept, "the cluster's own");
    println!("{}all of it took {:?}", told.all, begun.elapsed());
}
