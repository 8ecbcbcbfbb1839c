//! What a person asks of a pod's containers: their logs, and streams into them, which a runtime
//! serves by itself at an address of its machine.

use super::messages::{AttachRequest, ExecRequest, PortForwardRequest};
use super::{Cri, config, list};
use kubesim_actors::objects::{Key, Uid};
use std::path::PathBuf;

/// Which of its streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A command in a container of this name.
    Exec {
        container: String,
        command: Vec<String>,
        streams: Streams,
    },
    Attach {
        container: String,
        streams: Streams,
    },
    /// Connections to ports of the pod; which ones, each says itself.
    Ports,
}

/// Which attempt of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Newest,
    /// The newest of those that ended.
    Ended,
    /// The one before the newest.
    Before,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such container runs; nothing is wrong with the runtime.
    NotRunning,
    /// The runtime's word for it.
    Runtime(String),
}

impl Cri {
    /// Where the runtime serves it, `http://127.0.0.1:41237/exec/TOKEN`: for one who comes soon.
    pub async fn stream(&self, pod: Uid, wanted: Wanted) -> Result<String, Refused> {
        let inner = &self.0;
        let said = |failure: super::Failure| Refused::Runtime(failure.to_string());
        let sandbox = inner.ready_sandbox(pod).await.map_err(said)?;
        let sandbox = sandbox.ok_or(Refused::NotRunning)?.id;
        let all = inner.containers(config::of_pod(pod)).await.map_err(said)?;
        let running = |name: &str| {
            let found = list::newest(&all, &sandbox, name).filter(|found| found.is_running());
            found.map(|found| found.id.clone()).ok_or(Refused::NotRunning)
        };
        let answer = match wanted {
            Wanted::Exec { container, command: cmd, streams } => {
                let Streams { stdin, stdout, stderr, tty } = streams;
                let container_id = running(&container)?;
                let request = ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
                inner.call(request).await
            }
            Wanted::Attach { container, streams } => {
                let Streams { stdin, stdout, stderr, tty } = streams;
                let container_id = running(&container)?;
                inner.call(AttachRequest { container_id, stdin, tty, stdout, stderr }).await
            }
            Wanted::Ports => {
                let (pod_sandbox_id, port) = (sandbox, Vec::new());
                inner.call(PortForwardRequest { pod_sandbox_id, port }).await
            }
        };
        answer.map(|answer| answer.url).map_err(said)
    }

    /// Where the log of a container's attempt is.
    pub fn log(&self, pod: (&Key, Uid), container: &str, attempt: u32) -> PathBuf {
        let folder = config::log_directory(&self.0.settings.logs, pod.0, pod.1);
        folder.join(config::log_path(container, attempt))
    }

    /// Which attempt of a container is meant. If the runtime has none such, it is `else_`.
    pub async fn attempt(&self, pod: Uid, container: &str, which: Which, else_: u32) -> u32 {
        let all = self.0.containers(config::of_pod(pod)).await.unwrap_or_default();
        let mut all: Vec<_> = all.iter().filter(|one| one.name() == container).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.attempt()));
        let found = match which {
            Which::Newest => all.first(),
            Which::Ended => all.iter().find(|one| one.is_over()),
            Which::Before => all.get(1),
        };
        found.map_or(else_, |one| one.attempt())
    }

    /// Whether an attempt of a container still may say something. A runtime that is away says
    /// nothing of it, and containers run on.
    pub async fn may_speak(&self, pod: Uid, container: &str, attempt: u32) -> bool {
        let Ok(all) = self.0.containers(config::of_pod(pod)).await else { return true };
        let mut all = all.iter().filter(|one| one.name() == container && one.attempt() == attempt);
        all.any(|one| !one.is_over())
    }
}
