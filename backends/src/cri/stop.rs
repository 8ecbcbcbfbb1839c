//! Containers stop.

use super::client::Failure;
use super::messages::{Container as Found, StopContainerRequest};
use super::sandbox::absent;
use super::{AGAIN, Inner, Turn, config};
use crate::port::Local;
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{Exit, Reply};
use smol_str::SmolStr;
use std::time::Duration;
use tokio::time::sleep;

impl Inner {
    /// Answers when it has ended, however long the runtime takes to be there.
    pub(super) async fn stop_container(
        &self,
        pod: Uid,
        name: SmolStr,
        grace: Duration,
        turn: Local<Turn>,
    ) -> Reply {
        let turn = turn.await;
        let found = loop {
            match self.to_stop(pod, &name).await {
                Ok(found) => break found,
                Err(_) => sleep(AGAIN).await,
            }
        };
        let Some(found) = found else {
            return Reply::NotRunning { pod, name };
        };
        self.watch.borrow_mut().somebody_waits_for(&found.id);
        drop(turn);
        let exit = loop {
            match self.stop(&found.id, grace).await {
                Ok(Some(exit)) => break exit,
                Ok(None) | Err(_) => sleep(AGAIN).await,
            }
        };
        self.watch.borrow_mut().container_told(&found.id);
        Reply::Exited { pod, name, attempt: found.attempt(), exit }
    }

    /// What runs, or has ended and nobody was told.
    async fn to_stop(&self, pod: Uid, name: &str) -> Result<Option<Found>, Failure> {
        let all = self.containers(config::of_pod(pod)).await?;
        let of = all.into_iter().filter(|container| container.name() == name);
        let newest = of.max_by_key(Found::attempt);
        let watch = self.watch.borrow();
        Ok(newest
            .filter(|found| found.is_running() || found.is_over() && watch.is_untold(&found.id)))
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<Option<Exit>, Failure> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let within = grace.saturating_add(self.settings.patience);
        absent(self.client.call(request, within).await)?;
        match self.exit(id).await {
            // Somebody else took it away.
            Err(failure) if failure.not_there() => {
                Ok(Some(Exit::because("ContainerStatusUnknown", 137)))
            }
            other => other,
        }
    }
}
