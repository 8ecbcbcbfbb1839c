//! What pods that are gone have left on the machine is taken away: their logs and cgroups. A pod
//! is gone when the API knows it no more and the runtime has no sandbox of it, as for upstream's
//! kubelet (`containerGC` of pkg/kubelet/kuberuntime/kuberuntime_gc.go); until then its logs are
//! there for who asks for them.

use kubesim_actors::objects::{MIRROR, Uid};
use kubesim_backends::cri::Cri;
use kubesim_backends::http::client::Client;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked for. Upstream looks once a minute (`ContainerGCPeriod`, pkg/kubelet/
/// kubelet.go) for these and every 2 s for cgroups; what is asked of the API here is asked only if
/// something is found.
const LOOK: Duration = Duration::from_secs(5);

pub struct Leftovers {
    /// The kubelet's.
    pub client: Client,
    pub node: String,
    pub containers: Cri,
}

impl Leftovers {
    pub async fn run(self) {
        loop {
            sleep(LOOK).await;
            if let Err(why) = self.clear().await {
                eprintln!("kubelet: taking away what pods have left: {why}");
            }
        }
    }

    /// The API is asked behind what was found: a pod that comes meanwhile is not among these. While
    /// it or the runtime is away, nothing is taken.
    async fn clear(&self) -> Result<(), String> {
        let Ok(left) = self.containers.left().await else { return Ok(()) };
        if left.is_empty() {
            return Ok(());
        }
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.node);
        let Ok(list) = self.client.get(&path).await else { return Ok(()) };
        let Some(known) = known(&list) else { return Ok(()) };
        for pod in left.difference(&known) {
            self.containers.clear_away(*pod).await?;
        }
        Ok(())
    }
}

/// The pods of a list, static ones by the uid that they have on the node.
fn known(list: &Value) -> Option<BTreeSet<Uid>> {
    let items = list["items"].as_array()?;
    let of = |pod: &Value| {
        let metadata = &pod["metadata"];
        [&metadata["uid"], &metadata["annotations"][MIRROR]].map(|uid| Uid::parse(uid.as_str()?))
    };
    Some(items.iter().flat_map(of).flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn static_pods_are_known_by_both_uids() {
        let uid = |number: u128| Uid(number);
        let list = json!({ "items": [
            { "metadata": { "uid": uid(1).to_string() } },
            { "metadata": {
                "uid": uid(2).to_string(), "annotations": { MIRROR: uid(3).to_string() }
            } },
        ] });
        assert_eq!(known(&list), Some(BTreeSet::from([uid(1), uid(2), uid(3)])));
        assert_eq!(known(&json!({ "kind": "Status" })), None, "a refusal is no empty list");
    }
}
