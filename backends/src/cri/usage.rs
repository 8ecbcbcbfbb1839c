//! What containers use, as the runtime counts it.

use super::Cri;
use super::config::{CONTAINER_NAME, POD_UID};
use super::messages::{ContainerStats, ListContainerStatsRequest};
use kubesim_actors::objects::Uid;

/// What a container has used at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub pod: Uid,
    pub container: String,
    /// The runtime's own: a container that was started anew has another one, and counts anew.
    pub id: String,
    /// Nanoseconds since 1970.
    pub at: i64,
    /// Nanoseconds of all cores since it began.
    pub cpu: u64,
    /// Bytes that cannot be taken back without swapping: its working set.
    pub memory: u64,
}

impl Cri {
    /// Of all containers that run. One of which the runtime does not know it yet is left out. The
    /// error is for people.
    pub async fn used(&self) -> Result<Vec<Used>, String> {
        let asked = self.0.call(ListContainerStatsRequest {}).await;
        let all = asked.map_err(|failure| format!("asking the runtime what is used: {failure}"))?;
        Ok(all.stats.into_iter().filter_map(of).collect())
    }
}

fn of(stats: ContainerStats) -> Option<Used> {
    let (attributes, cpu) = (stats.attributes?, stats.cpu?);
    Some(Used {
        pod: Uid::parse(attributes.labels.get(POD_UID)?)?,
        container: attributes.labels.get(CONTAINER_NAME)?.clone(),
        id: attributes.id,
        at: cpu.timestamp,
        cpu: cpu.usage_core_nano_seconds?.value,
        memory: stats.memory?.working_set_bytes?.value,
    })
}
