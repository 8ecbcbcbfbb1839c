//! Images: there, pulled, or refused (upstream's pkg/kubelet/images/image_manager.go).

use super::Inner;
use super::messages::{
    AuthConfig, Image, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest,
};
use crate::port::Answer;
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{Container, Credentials, Fault, Pull, Reply};
use smol_str::{SmolStr, format_smolstr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// No registry is slower.
const A_DAY: Duration = Duration::from_secs(86_400);

impl Inner {
    /// The newest observer is told; with the next one, a stream ends.
    pub(super) async fn observe_pulls(this: Rc<Inner>, answer: Answer<Reply>) {
        let (send, mut told) = mpsc::unbounded_channel();
        *this.pulls.borrow_mut() = Some(send);
        drop(this);
        while let Some(reply) = told.recv().await {
            if answer.send(reply).await.is_err() {
                break;
            }
        }
    }

    fn tell_of_pull(&self, reply: Reply) {
        if let Some(observer) = &*self.pulls.borrow() {
            // One that is gone has nobody to tell.
            let _ = observer.send(reply);
        }
    }

    pub(super) async fn image(
        &self,
        pod: Uid,
        spec: &Container,
        sandbox: &PodSandboxConfig,
    ) -> Result<Image, (Fault, SmolStr)> {
        let there = self.find(&spec.image).await?;
        match (spec.pull, there) {
            (Pull::IfNotPresent | Pull::Never, Some(image)) => return Ok(image),
            (Pull::Never, None) => {
                let why = format_smolstr!(
                    "Container image {:?} is not present with pull policy of Never",
                    spec.image
                );
                return Err((Fault::NeverPull, why));
            }
            _ => {}
        }
        let (name, begun) = (spec.name.clone(), Instant::now());
        self.tell_of_pull(Reply::Pulling { pod, name: name.clone() });
        self.pull_with_any(spec, sandbox).await?;
        let none = || (Fault::Pull, format_smolstr!("image {:?} is gone again", spec.image));
        let image = self.find(&spec.image).await?.ok_or_else(none)?;
        let (took, size) = (begun.elapsed(), image.size);
        self.tell_of_pull(Reply::Pulled { pod, name, took, size });
        Ok(image)
    }

    async fn find(&self, image: &str) -> Result<Option<Image>, (Fault, SmolStr)> {
        let request = ImageStatusRequest { image: Some(named(image)) };
        let found = self.call(request).await;
        found.map(|found| found.image).map_err(|why| (Fault::Pull, why.to_string().into()))
    }

    /// With all that may open the registry, until something does (`PullImage` of
    /// pkg/kubelet/kuberuntime/kuberuntime_image.go).
    async fn pull_with_any(
        &self,
        spec: &Container,
        sandbox: &PodSandboxConfig,
    ) -> Result<(), (Fault, SmolStr)> {
        if spec.credentials.is_empty() {
            return self.pull(&spec.image, None, sandbox).await;
        }
        let mut whys: Vec<SmolStr> = Vec::new();
        for Credentials { username, password } in &spec.credentials {
            let (username, password) = (username.to_string(), password.to_string());
            let auth = Some(AuthConfig { username, password });
            match self.pull(&spec.image, auth, sandbox).await {
                Ok(()) => return Ok(()),
                Err((_, why)) if whys.contains(&why) => {}
                Err((_, why)) => whys.push(why),
            }
        }
        let why = match &whys[..] {
            [one] => one.clone(),
            all => format_smolstr!("[{}]", all.join(", ")),
        };
        Err((Fault::Pull, why))
    }

    /// As long as the runtime lives, it goes on.
    async fn pull(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        sandbox: &PodSandboxConfig,
    ) -> Result<(), (Fault, SmolStr)> {
        let (image, sandbox_config) = (Some(named(image)), Some(sandbox.clone()));
        let request = PullImageRequest { image, auth, sandbox_config };
        tokio::select! {
            pulled = self.client.call(request, A_DAY) => match pulled {
                Ok(_) => Ok(()),
                Err(failure) => Err((Fault::Pull, failure.to_string().into())),
            },
            () = self.down.notified() => {
                Err((Fault::Pull, SmolStr::new_static("the container runtime is down")))
            }
        }
    }
}

fn named(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned() }
}

/// Whether an image breaks the word that nothing runs as root (`verifyRunAsNonRoot` of
/// pkg/kubelet/kuberuntime/security_context_others.go).
pub fn breaks_non_root(spec: &Container, image: &Image) -> Option<SmolStr> {
    if !spec.security.non_root {
        return None;
    }
    let uid = spec.security.user.or(image.uid.map(|uid| uid.value));
    match (spec.security.user, uid) {
        (Some(0), _) => Some("container's runAsUser breaks non-root policy".into()),
        (None, None) if !image.username.is_empty() => Some(format_smolstr!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user \
             is non-root",
            image.username
        )),
        (None, Some(0) | None) => {
            Some("container has runAsNonRoot and image will run as root".into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::Int64Value;
    use super::*;

    #[test]
    fn root_is_found_out() {
        let broken = |user, uid: Option<i64>, name: &str| {
            let mut spec = Container::of("c", "i");
            spec.security.non_root = true;
            spec.security.user = user;
            let uid = uid.map(|value| Int64Value { value });
            let image = Image { uid, username: name.to_owned(), ..Image::default() };
            breaks_non_root(&spec, &image).is_some()
        };
        assert!(broken(Some(0), Some(7), ""));
        assert!(!broken(Some(7), Some(0), ""));
        assert!(broken(None, Some(0), ""));
        assert!(!broken(None, Some(7), ""));
        assert!(broken(None, None, "www"));
        assert!(broken(None, None, ""));
        assert_eq!(breaks_non_root(&Container::of("c", "i"), &Image::default()), None);
    }
}
