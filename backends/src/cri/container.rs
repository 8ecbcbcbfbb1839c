//! Containers start, and commands run in them.

use super::messages::{
    Container as Found, ContainerMetadata, ContainerState, CreateContainerRequest, ExecSyncRequest,
    PodSandbox, RemoveContainerRequest, StartContainerRequest,
};
use super::sandbox::absent;
use super::{Inner, Settings, config, hosts, image, last_words, list, refused};
use crate::probe::{Command, Failed};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{Container, Exit, Fault, Reply};
use smol_str::SmolStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Why it does not start.
type Refusal = (Fault, SmolStr);

impl Inner {
    pub(super) async fn start_container(&self, pod: Uid, spec: &Container) -> Reply {
        match self.try_start(pod, spec).await {
            Ok(reply) => reply,
            Err((fault, why)) => refused(pod, &spec.name, fault, why),
        }
    }

    async fn try_start(&self, pod: Uid, spec: &Container) -> Result<Reply, Refusal> {
        let sandbox = self.ready_sandbox(pod).await.map_err(failed(Fault::Create))?;
        let none = SmolStr::new_static("the pod has no sandbox");
        let sandbox = sandbox.ok_or((Fault::Create, none))?;
        let all = self.containers(config::of_pod(pod)).await.map_err(failed(Fault::Create))?;
        let found = list::newest(&all, &sandbox.id, &spec.name);
        if let Some(found) = found {
            match found.state() {
                ContainerState::Running if spec.attempt > found.attempt() => {
                    return Err((Fault::Create, "an earlier attempt still runs".into()));
                }
                ContainerState::Running => return Ok(self.started(pod, found)),
                ContainerState::Created if found.attempt() >= spec.attempt => {
                    return self.start(pod, found).await;
                }
                _ if found.attempt() >= spec.attempt => return self.ended(pod, found).await,
                _ => {}
            }
        }
        let target = target(spec, &all, &sandbox)?;
        let id = self.create(pod, &sandbox, spec, target).await?;
        self.forget_old(&sandbox, &all, spec).await;
        let metadata = ContainerMetadata { name: spec.name.to_string(), attempt: spec.attempt };
        let made = Found { id, metadata: Some(metadata), ..Found::default() };
        self.start(pod, &made).await
    }

    async fn create(
        &self,
        pod: Uid,
        sandbox: &PodSandbox,
        spec: &Container,
        target: Option<&str>,
    ) -> Result<String, Refusal> {
        let sandbox_config = config::existing(sandbox, &self.settings.logs);
        let image = self.image(pod, spec, &sandbox_config).await?;
        if let Some(why) = image::breaks_non_root(spec, &image) {
            return Err((Fault::Config, why));
        }
        let mut config = config::container(sandbox, spec, &image, target);
        let place = last_words::place(&self.settings.pods, pod, spec);
        config.mounts.extend(last_words::mount(&place, spec).map_err(|why| (Fault::Create, why))?);
        if let Some(hosts) = &spec.hosts {
            let Settings { pods, hosts: machine, .. } = &self.settings;
            let mount = hosts::mount(pods, pod, hosts, machine);
            config.mounts.push(mount.map_err(|why| (Fault::Create, why))?);
        }
        let logs = Path::new(&sandbox_config.log_directory).join(&*spec.name);
        // As for a sandbox: without it, the creation fails.
        let _ = fs::create_dir_all(logs);
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let made = self.call(request).await.map_err(failed(Fault::Create))?;
        Ok(made.container_id)
    }

    async fn start(&self, pod: Uid, made: &Found) -> Result<Reply, Refusal> {
        let request = StartContainerRequest { container_id: made.id.clone() };
        let started = self.call(request).await;
        // One that fails to start has ended all the same, and that will be found.
        let reply = self.started(pod, made);
        started.map(|_| reply).map_err(failed(Fault::Start))
    }

    fn started(&self, pod: Uid, found: &Found) -> Reply {
        self.watch.borrow_mut().container_runs(pod, found);
        let (name, id) = (SmolStr::from(found.name()), SmolStr::from(&found.id));
        Reply::Started { pod, name, attempt: found.attempt(), id }
    }

    /// This attempt is over: it is not run again.
    async fn ended(&self, pod: Uid, found: &Found) -> Result<Reply, Refusal> {
        let exit = self.exit(&found.id).await.map_err(failed(Fault::Start))?;
        let exit = exit.unwrap_or_else(|| Exit::because("ContainerStatusUnknown", 137));
        self.watch.borrow_mut().container_told(&found.id);
        let (name, attempt) = (SmolStr::from(found.name()), found.attempt());
        Ok(Reply::Exited { pod, name, attempt, exit })
    }

    /// Of what ended, the last one is kept for who asks for its logs, as upstream does
    /// (`maxPerPodContainerCount`).
    async fn forget_old(&self, sandbox: &PodSandbox, all: &[Found], spec: &Container) {
        let old =
            |c: &&Found| c.name() == spec.name && c.is_over() && c.attempt() + 1 < spec.attempt;
        let logs = config::existing(sandbox, &self.settings.logs).log_directory;
        for container in all.iter().filter(old) {
            let request = RemoveContainerRequest { container_id: container.id.clone() };
            if absent(self.call(request).await).is_ok() {
                let log = config::log_path(container.name(), container.attempt());
                let _ = fs::remove_file(Path::new(&logs).join(log));
                self.watch.borrow_mut().container_gone(&container.id);
            }
        }
    }

    pub(super) async fn exec(&self, command: Command) -> Result<(), Failed> {
        let Command { pod, container, words: cmd, within, .. } = command;
        let words = |failure: super::Failure| Failed::Not(SmolStr::from(failure.to_string()));
        let sandbox = self.ready_sandbox(pod).await.map_err(words)?;
        let all = self.containers(config::of_pod(pod)).await.map_err(words)?;
        let id = sandbox.map(|sandbox| sandbox.id).unwrap_or_default();
        let found = list::newest(&all, &id, &container).filter(|found| found.is_running());
        let found = found.ok_or(Failed::Not("container not running".into()))?;
        // The runtime keeps the time, and says so when it is over; by 0 it keeps none.
        let seconds = within.map_or(0, |within| within.as_secs().max(1));
        let timeout = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = ExecSyncRequest { container_id: found.id.clone(), cmd, timeout };
        let within = within.map_or(Duration::MAX, |within| within + self.settings.patience);
        let done = self.client.call(request, within).await.map_err(words)?;
        if done.exit_code == 0 {
            return Ok(());
        }
        let text = |said: &[u8]| String::from_utf8_lossy(said).into_owned();
        let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
        Err(Failed::Ended { code: done.exit_code, stdout, stderr })
    }
}

/// The id of the container that it looks at, if any (`getTargetID` of pkg/kubelet/kuberuntime/
/// kuberuntime_container.go).
fn target<'a>(
    spec: &Container,
    all: &'a [Found],
    sandbox: &PodSandbox,
) -> Result<Option<&'a str>, Refusal> {
    if spec.target.is_empty() {
        return Ok(None);
    }
    let found = list::newest(all, &sandbox.id, &spec.target);
    let none = || smol_str::format_smolstr!("unable to find target container {}", spec.target);
    found.map(|found| Some(found.id.as_str())).ok_or_else(|| (Fault::Config, none()))
}

/// In the runtime's own words, as a container's status has them.
fn failed(fault: Fault) -> impl Fn(super::Failure) -> Refusal {
    move |failure| (fault, SmolStr::from(failure.message))
}
