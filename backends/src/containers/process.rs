//! A container's process.

use super::sandbox::Space;
use super::{Instance, Launch};
use kubesim_actors::ports::container::{Container, Exit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// Variables by which the process is told of its network namespace (a path), of its parent (whose
/// end is its own: an [`Instance`]), and of its resolv.conf and its hosts file (the texts).
pub const NETNS: &str = "KUBESIM_NETNS";
pub const PARENT: &str = "KUBESIM_PARENT";
pub const RESOLV_CONF: &str = "KUBESIM_RESOLV_CONF";
pub const HOSTS: &str = "KUBESIM_HOSTS";
/// Said on standard output once the ports are open.
const OPEN: &str = "open";

/// One that was started.
#[derive(Debug)]
pub struct Process {
    id: Pid,
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    open: Cell<bool>,
    /// It was waited for: its number may be another's.
    over: Cell<bool>,
}

impl Process {
    /// How it ended comes by the channel: with 128 and the signal's number if one ended it.
    pub fn start(
        program: &Path,
        launch: Launch,
        spec: &Container,
        space: &Space,
    ) -> Result<(Process, oneshot::Receiver<Exit>), String> {
        let mut command = Command::new(program);
        // A path like /proc/self/exe would tell who lists processes nothing.
        command.arg0("kubesim");
        command.args(launch.args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
        command.kill_on_drop(true);
        command.envs(spec.variables().cloned()).envs(launch.env);
        command.env(PARENT, Instance::own()?.to_string());
        command.env(RESOLV_CONF, &*space.resolv_conf);
        if let Some(hosts) = &spec.hosts {
            // A machine of the lab has no file of its own.
            command.env(HOSTS, hosts.text(""));
        }
        if let Some(namespace) = &space.namespace {
            command.env(NETNS, namespace.path());
        }
        let failed = |error| format!("starting {}: {error}", program.display());
        let child = command.spawn().map_err(failed)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or("it is gone already")?;
        let shared = Rc::new(Shared::default());
        let (send, exit) = oneshot::channel();
        spawn_local(watch(child, Rc::clone(&shared), send));
        Ok((Process { id: Pid::from_raw(id), shared }, exit))
    }

    pub fn is_open(&self) -> bool {
        self.shared.open.get() && !self.shared.over.get()
    }

    /// SIGTERM, and SIGKILL after the grace.
    pub fn terminate(&self, grace: Duration) {
        if grace.is_zero() {
            return self.kill();
        }
        signal(self.id, &self.shared, Signal::SIGTERM);
        let (id, shared) = (self.id, Rc::clone(&self.shared));
        spawn_local(async move {
            sleep(grace).await;
            signal(id, &shared, Signal::SIGKILL);
        });
    }

    pub fn kill(&self) {
        signal(self.id, &self.shared, Signal::SIGKILL);
    }
}

fn signal(id: Pid, shared: &Shared, what: Signal) {
    if !shared.over.get() {
        // It may have ended just now; until it is waited for the number is its own.
        let _ = kill(id, what);
    }
}

async fn watch(mut child: Child, shared: Rc<Shared>, exit: oneshot::Sender<Exit>) {
    if let Some(out) = child.stdout.take() {
        let mut lines = BufReader::new(out).lines();
        // Until it closes its output, which is when it ends.
        while let Ok(Some(line)) = lines.next_line().await {
            if line == OPEN {
                shared.open.set(true);
            }
        }
    }
    let status = child.wait().await;
    shared.over.set(true);
    let _ = exit.send(Exit::of(status.map_or(255, code)));
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
