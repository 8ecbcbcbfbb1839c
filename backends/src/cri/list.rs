//! What the runtime has of a pod, or of all.

use super::Inner;
use super::client::Failure;
use super::config;
use super::last_words;
use super::messages::{
    Container, ContainerFilter, ContainerState, ContainerStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, Map, PodSandbox, PodSandboxFilter, PodSandboxState,
    PodSandboxStatusRequest,
};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::Exit;
use smol_str::SmolStr;
use std::net::Ipv4Addr;

impl PodSandbox {
    pub fn pod(&self) -> Option<Uid> {
        Uid::parse(&self.metadata.as_ref()?.uid)
    }
    pub fn attempt(&self) -> u32 {
        self.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
    }
    pub fn is_ready(&self) -> bool {
        self.state() == PodSandboxState::Ready
    }
}

impl Container {
    pub fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.name)
    }
    pub fn attempt(&self) -> u32 {
        self.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
    }
    pub fn is_running(&self) -> bool {
        self.state() == ContainerState::Running
    }
    /// One that the runtime has lost sight of is as good as ended, and the next stop makes it so.
    pub fn is_over(&self) -> bool {
        matches!(self.state(), ContainerState::Exited | ContainerState::Unknown)
    }
}

/// The newest container of a name, of those of one sandbox.
pub fn newest<'a>(all: &'a [Container], sandbox: &str, name: &str) -> Option<&'a Container> {
    let of = |c: &&Container| c.pod_sandbox_id == sandbox && c.name() == name;
    all.iter().filter(of).max_by_key(|container| container.attempt())
}

impl Inner {
    pub async fn sandboxes(&self, labels: Map) -> Result<Vec<PodSandbox>, Failure> {
        let filter = Some(PodSandboxFilter { label_selector: labels });
        Ok(self.call(ListPodSandboxRequest { filter }).await?.items)
    }

    pub async fn containers(&self, labels: Map) -> Result<Vec<Container>, Failure> {
        let filter = Some(ContainerFilter { label_selector: labels });
        Ok(self.call(ListContainersRequest { filter }).await?.containers)
    }

    pub async fn ready_sandbox(&self, pod: Uid) -> Result<Option<PodSandbox>, Failure> {
        let all = self.sandboxes(config::of_pod(pod)).await?;
        Ok(all.into_iter().filter(PodSandbox::is_ready).max_by_key(PodSandbox::attempt))
    }

    /// `None` on the machine's own network.
    pub async fn address(&self, sandbox: &str) -> Result<Option<Ipv4Addr>, Failure> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned() };
        let network = self.call(request).await?.status.and_then(|status| status.network);
        Ok(network.and_then(|network| network.ip.parse().ok()))
    }

    /// `None` while it runs.
    pub async fn exit(&self, container: &str) -> Result<Option<Exit>, Failure> {
        let request = ContainerStatusRequest { container_id: container.to_owned() };
        let status = self.call(request).await?.status.unwrap_or_default();
        if matches!(status.state(), ContainerState::Created | ContainerState::Running) {
            return Ok(None);
        }
        let mut exit = Exit::of(status.exit_code);
        if exit.reason() != status.reason {
            exit.reason = SmolStr::from(&status.reason);
        }
        exit.message = SmolStr::from(last_words::of(&status));
        Ok(Some(exit))
    }
}
