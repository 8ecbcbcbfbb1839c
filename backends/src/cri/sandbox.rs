//! Sandboxes come and go.

use super::client::Failure;
use super::messages::{
    Map, PodSandbox, RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest,
};
use super::{AGAIN, Cri, Inner, refused};
use super::{config, hosts, last_words};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{Fault, Reply, Sandbox};
use std::fs;
use std::path::PathBuf;
use tokio::time::sleep;

impl Inner {
    pub(super) async fn run_sandbox(&self, pod: Uid, spec: &Sandbox) -> Reply {
        match self.try_run(pod, spec).await {
            Ok(ready) => ready,
            Err(failure) => refused(pod, "sandbox", Fault::Sandbox, failure.to_string()),
        }
    }

    async fn try_run(&self, pod: Uid, spec: &Sandbox) -> Result<Reply, Failure> {
        let found = self.sandboxes(config::of_pod(pod)).await?;
        let newest = found.iter().map(PodSandbox::attempt).max();
        if let Some(ready) = found.iter().find(|sandbox| sandbox.is_ready()) {
            return self.ready(pod, &ready.id).await;
        }
        // What a power failure, or an attempt that was not finished, has left.
        for left in &found {
            self.take_away(&left.id).await?;
        }
        let (logs, cgroup) = (&self.settings.logs, &self.settings.cgroup);
        let attempt = newest.map_or(0, |attempt| attempt + 1);
        let config = config::sandbox((pod, spec), attempt, logs, cgroup);
        self.starts(pod);
        // The runtime writes into it, and does not make it. If it cannot be made, that fails.
        let _ = fs::create_dir_all(&config.log_directory);
        let request = RunPodSandboxRequest { config: Some(config) };
        // An image may have to be pulled: upstream gives it twice the time.
        let within = self.settings.patience * 2;
        let made = self.client.call(request, within).await?;
        self.ready(pod, &made.pod_sandbox_id).await
    }

    async fn ready(&self, pod: Uid, id: &str) -> Result<Reply, Failure> {
        let ip = self.address(id).await?;
        self.watch.borrow_mut().sandbox_ready(pod, id);
        Ok(Reply::SandboxReady { pod, ip })
    }

    pub(super) async fn remove_sandbox(&self, pod: Uid) -> Reply {
        self.watch.borrow_mut().sandbox_goes(pod);
        while self.try_remove(pod).await.is_err() {
            sleep(AGAIN).await;
        }
        self.watch.borrow_mut().pod_gone(pod);
        hosts::forget(&self.settings.pods, pod);
        last_words::forget(&self.settings.pods, pod);
        Reply::SandboxRemoved { pod }
    }

    async fn try_remove(&self, pod: Uid) -> Result<(), Failure> {
        let containers = self.containers(config::of_pod(pod)).await?;
        for sandbox in self.sandboxes(config::of_pod(pod)).await? {
            let id = sandbox.id.clone();
            absent(self.call(StopPodSandboxRequest { pod_sandbox_id: id }).await)?;
            for ended in containers.iter().filter(|c| c.pod_sandbox_id == sandbox.id) {
                self.tell_exit(pod, ended).await?;
            }
            self.take_away(&sandbox.id).await?;
        }
        Ok(())
    }

    /// With all that is in it.
    pub(super) async fn take_away(&self, sandbox: &str) -> Result<(), Failure> {
        let pod_sandbox_id = || sandbox.to_owned();
        absent(self.call(StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id() }).await)?;
        absent(self.call(RemovePodSandboxRequest { pod_sandbox_id: pod_sandbox_id() }).await)
    }
}

impl Cri {
    /// Removes every sandbox that a driver with these settings has made, for good: the folder of
    /// each one's logs is told. The error is for people.
    pub async fn remove_all(&self) -> Result<Vec<PathBuf>, String> {
        let inner = &self.0;
        let all = inner.sandboxes(Map::new()).await.map_err(|why| why.to_string())?;
        let ours = all.iter().filter(|sandbox| config::is_below(sandbox, &inner.settings.cgroup));
        let mut logs = Vec::new();
        for sandbox in ours {
            inner.take_away(&sandbox.id).await.map_err(|why| why.to_string())?;
            logs.push(config::existing(sandbox, &inner.settings.logs).log_directory.into());
        }
        Ok(logs)
    }
}

/// What is not there any more is removed.
pub fn absent<T>(result: Result<T, Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if !failure.not_there() => Err(failure),
        _ => Ok(()),
    }
}
