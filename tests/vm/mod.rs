//! A small virtual machine with a kernel that has what this machine's may lack (IPVS, WireGuard,
//! netem): Debian's cloud kernel in qemu, without hardware help, so that it runs where nested
//! virtualisation does not. It boots in some seconds, runs one command and ends.
//!
//! ```ignore
//! let Some(vm) = Vm::new(&["ip"]) else { return };
//! let done = vm
//!     .modules(&["wireguard"])
//!     .run("ip link add wg0 type wireguard && ip link", Duration::from_secs(30));
//! assert!(done.succeeded(), "{done}");
//! ```
//!
//! The machine has a memory file system with busybox, `/proc`, `/sys`, `/dev`, `/run` and what was
//! put in, and no disk and no network card. It is thrown away with all that was done in it. Code
//! runs some ten times slower there than outside.
//!
//! [`Vm::run_this_test`] runs a test of the very binary that is running, inside: the test asks
//! [`inside`] on which side it is. Needs qemu-system-x86_64, busybox and a kernel that
//! `tests/vm/fetch-kernel` has unpacked.

mod initramfs;
mod kernel;
#[path = "../common/skip.rs"]
pub mod skip;

use initramfs::Initramfs;
use kernel::Kernel;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

static TURN: Mutex<()> = Mutex::new(());

/// Set in the machine.
const INSIDE: &str = "KUBESIM_IN_VM";
/// Of memory, which this machine gives as it is used.
const MEGABYTES: &str = "2048";
const QEMU: &str = "qemu-system-x86_64";
/// Before the command's exit status, on a line of its own.
const STATUS: &str = "=== the command ended with ";

/// Whether this process runs in a machine of this harness.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What a machine will have.
pub struct Vm {
    kernel: Kernel,
    files: Initramfs,
    modules: Vec<String>,
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status; `None` if the machine was still busy when time was over, or died.
    pub status: Option<i32>,
    /// What it wrote to standard output and standard error.
    pub output: String,
    /// What the kernel and `/init` wrote to the console.
    pub console: String,
    /// From qemu's start to its end.
    pub took: Duration,
}

impl Outcome {
    pub fn succeeded(&self) -> bool {
        self.status == Some(0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { status, output, console, took } = self;
        match status {
            Some(status) => writeln!(f, "the command ended with {status} after {took:?}")?,
            None => writeln!(f, "the command did not end within {took:?}")?,
        }
        write!(f, "--- output\n{output}\n--- console\n{console}")
    }
}

impl Vm {
    /// With these programs of this machine, at the same places and with the libraries they are
    /// linked with; `iptables` is that program's whole family, with its extensions and the modules
    /// it needs, over nf_tables. `None`, with a word on what is missing, where this machine cannot
    /// run one.
    pub fn new(programs: &[&str]) -> Option<Vm> {
        match Vm::needs(programs) {
            Ok(vm) => Some(vm),
            Err(missing) => {
                skip::skipped(&missing);
                None
            }
        }
    }

    fn needs(programs: &[&str]) -> Result<Vm, String> {
        if !runs(QEMU, "--version") {
            return Err(format!("the program `{QEMU}` (Debian: qemu-system-x86)"));
        }
        let busybox = found("busybox").ok_or("the program `busybox` (Debian: busybox-static)")?;
        let kernel = Kernel::find()?;
        let mut files = Initramfs::default();
        files.program(&busybox, Path::new("/usr/bin/busybox"));
        // busybox's own shell takes its own programs for those that were put in.
        files.program(Path::new("/bin/sh"), Path::new("/usr/bin/sh"));
        let mut vm = Vm { kernel, files, modules: Vec::new() };
        for name in programs {
            let path = found(name).ok_or_else(|| format!("the program `{name}`"))?;
            match *name {
                "iptables" => vm = vm.with_iptables(),
                _ => vm.files.program(&path, &path),
            }
        }
        Ok(vm)
    }

    /// Loads these modules at boot, and before each what it depends on.
    pub fn modules(mut self, names: &[&str]) -> Vm {
        self.modules.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Another program of this machine, under another path and without what only a debugger reads
    /// of it.
    pub fn program_as(mut self, path: impl AsRef<Path>, to: &str) -> Vm {
        self.files.stripped(path.as_ref(), Path::new(to));
        self
    }

    /// A file or directory of this machine, with all that is in it, at the same place.
    pub fn tree(mut self, path: impl AsRef<Path>) -> Vm {
        self.files.tree(path.as_ref(), path.as_ref());
        self
    }

    fn with_iptables(mut self) -> Vm {
        let real = fs::canonicalize("/usr/sbin/iptables-nft").expect("Debian's iptables");
        self.files.program(&real, &real);
        for name in ["iptables", "iptables-save", "iptables-restore"] {
            let (front, back) = name.split_at("iptables".len());
            for link in [format!("/usr/sbin/{name}"), format!("/usr/sbin/{front}-nft{back}")] {
                self.files.link(&link, &real.display().to_string());
            }
        }
        self.tree("/usr/lib/x86_64-linux-gnu/xtables").modules(kernel::IPTABLES)
    }

    /// Boots, and runs a test of the calling binary by its full name.
    pub fn run_this_test(self, name: &str, within: Duration) -> Outcome {
        let own = std::env::current_exe().expect("the test's own program");
        let command = format!("/test --exact {name} --nocapture --test-threads=1");
        self.program_as(own, "/test").run(&command, within)
    }

    /// Boots, runs a line of shell in `/`, as root, and switches off.
    pub fn run(mut self, command: &str, within: Duration) -> Outcome {
        let modules = self.kernel.with_dependencies(&self.modules);
        for module in &modules {
            self.files.tree(&self.kernel.module_file(module), Path::new(module));
        }
        self.files.file(Path::new("/modules"), lines(&modules).as_bytes(), 0o644);
        self.files.file(Path::new("/command"), command.as_bytes(), 0o755);
        self.files.file(Path::new("/init"), init().as_bytes(), 0o755);
        let folder = Scratch::new();
        let [initrd, console, output] = ["initrd", "console", "output"].map(|n| folder.0.join(n));
        fs::write(&initrd, self.files.archive()).expect("room for an initramfs");
        // One after the other: what runs inside may measure time.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        let machine = self.start(&initrd, &console, &output);
        let ended = wait(machine, within);
        let read = |path: &Path| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\r', "")
        };
        let (output, console) = (read(&output), read(&console));
        let (output, status) = split_status(&output, ended);
        Outcome { status, output, console, took: started.elapsed() }
    }

    fn start(&self, initrd: &Path, console: &Path, output: &Path) -> Child {
        let file = |path: &Path| format!("file:{}", path.display());
        let append = "console=ttyS0 quiet panic=-1 random.trust_cpu=on";
        Command::new(QEMU)
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-accel", "tcg", "-cpu", "max", "-m", MEGABYTES])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", append, "-serial", &file(console), "-serial", &file(output)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu starts")
    }
}

/// Whether it ended by itself.
fn wait(mut machine: Child, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        match machine.try_wait().expect("qemu can be waited for") {
            Some(_) => return true,
            None if Instant::now() > deadline => {
                let _ = machine.kill();
                let _ = machine.wait();
                return false;
            }
            None => sleep(Duration::from_millis(20)),
        }
    }
}

fn split_status(output: &str, ended: bool) -> (String, Option<i32>) {
    match output.rsplit_once(STATUS) {
        Some((before, status)) if ended => (before.to_owned(), status.trim().parse().ok()),
        _ => (output.to_owned(), None),
    }
}

/// The kernel's log goes to the first serial port, what the command says to the second.
fn init() -> String {
    format!(
        "#!/usr/bin/busybox sh
/usr/bin/busybox mkdir -p /proc /sys /dev /run /tmp /usr/busybox /etc
/usr/bin/busybox --install -s /usr/busybox
export PATH=/usr/sbin:/usr/bin:/usr/busybox HOME=/ {INSIDE}=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
while read module; do insmod $module || echo \"insmod $module failed\"; done < /modules
ip link set lo up
stty -F /dev/ttyS1 raw
/usr/bin/sh /command < /dev/null > /dev/ttyS1 2>&1
echo \"{STATUS}$?\" > /dev/ttyS1
reboot -f
"
    )
}

fn lines(of: &[String]) -> String {
    of.iter().map(|line| format!("{line}\n")).collect()
}

fn found(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

fn runs(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A directory of a machine's own, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vm-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).expect("a directory");
        Scratch(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
