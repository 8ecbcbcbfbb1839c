//! With what the images of a pod are pulled: the Secrets that it, or the admission for its account,
//! names (`getPullSecretsForPod`, pkg/kubelet/kubelet_pods.go).

use super::Kubelet;
use super::keyring::Keyring;
use super::local::Local;
use super::pod::Pod;
use super::supplies::Lack;
use crate::objects::{Key, Kind, PodSpec};
use crate::ports::container::{Credentials, Fault};
use crate::recorder::Tidings;
use kubesim_runtime::Context;

impl Pod {
    /// What opens the registry of an image. Secrets that cannot be had are told of, and do without.
    pub fn credentials(
        &self,
        image: &str,
        spec: &PodSpec,
        k: &mut Local,
    ) -> Result<Vec<Credentials>, Lack> {
        let secrets = spec.image_pull_secrets.as_deref().unwrap_or_default();
        let (mut keyring, mut failed) = (Keyring::default(), Vec::new());
        for secret in secrets.iter().filter(|secret| !secret.name.is_empty()) {
            let key = Key::new(self.object.key.namespace.clone(), secret.name.as_str());
            match k.objects.get(Kind::Secret, &key, false) {
                Ok(Some(data)) => keyring.add(&data).map_err(Lack::Wrong)?,
                Ok(None) => {}
                Err(Lack::Wrong(_)) => failed.push(secret.name.as_str()),
                Err(Lack::Coming) => return Err(Lack::Coming),
            }
        }
        if !failed.is_empty() {
            self.tell(k, Tidings::warning("FailedToRetrieveImagePullSecret"), || {
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the \
                     image may not succeed.",
                    failed.join(", ")
                )
            });
        }
        Ok(keyring.look_up(image))
    }

    /// A Secret that is no docker config is a pull that failed. False if it is.
    pub fn lacks_credentials(
        &mut self,
        index: usize,
        lack: Lack,
        k: &mut Local,
        ctx: &mut Context<'_, Kubelet>,
    ) -> bool {
        let Lack::Wrong(why) = lack else { return true };
        let ctr = &mut self.containers[index];
        let name = ctr.name.clone();
        ctr.starting(ctx.now());
        ctr.on_refused(&why, Fault::Pull, ctx.now());
        self.report.dirty = true;
        self.tell_refused(&name, &why, Fault::Pull, k);
        false
    }
}
