//! What people are told of a node's pods, and of the node (the reasons are those of upstream's
//! pkg/kubelet/events/event.go; the words stand where they are used: kuberuntime/, prober/,
//! kubelet.go and kubelet_node_status.go in pkg/kubelet).
//!
//! An image is pulled where a container is started, by the runtime, which says when it has to. Of
//! one that was not pulled it is told that it was there, once its container has started.

use super::container_state::{Ctr, Role, State};
use super::env::Skipped;
use super::hooks::Moment;
use super::local::Local;
use super::pod::Pod;
use crate::objects::{Kind, Object};
use crate::ports::container::Fault;
use crate::ports::probe::Purpose;
use crate::recorder::{Reference, Tidings};
use std::sync::Arc;
use std::time::Duration;

const COMPONENT: &str = "kubelet";

pub fn of_node(k: &mut Local, what: Tidings, message: impl FnOnce() -> String) {
    let node = k.config.node.clone();
    k.recorder.tell(COMPONENT, OfNode(&node), what, message);
}

/// Nothing is made of it if nobody is told.
struct OfNode<'a>(&'a str);

impl From<OfNode<'_>> for Reference {
    fn from(OfNode(name): OfNode<'_>) -> Reference {
        Reference::node(name)
    }
}

struct OfContainer<'a>(&'a Object, &'a Ctr);

impl From<OfContainer<'_>> for Reference {
    /// `GenerateContainerRef`.
    fn from(OfContainer(pod, ctr): OfContainer<'_>) -> Reference {
        let list = match ctr.role {
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
            Role::Init | Role::Sidecar => "initContainers",
        };
        Reference::from(pod).at(format!("spec.{list}{{{}}}", ctr.name))
    }
}

impl Pod {
    /// Whom people know it by: its mirror, if it is of a manifest.
    fn shown(&self) -> &Arc<Object> {
        self.record.as_ref().unwrap_or(&self.object)
    }

    pub(super) fn tell(&self, k: &mut Local, what: Tidings, message: impl FnOnce() -> String) {
        k.recorder.tell(COMPONENT, self.shown(), what, message);
    }

    fn tell_of(
        &self,
        name: &str,
        k: &mut Local,
        what: Tidings,
        message: impl FnOnce(&Ctr, &str) -> String,
    ) {
        let mut all = self.containers.iter().enumerate();
        let Some((index, ctr)) = all.find(|(_, ctr)| ctr.name == name) else { return };
        k.recorder.tell(COMPONENT, OfContainer(self.shown(), ctr), what, || {
            let spec = self.spec();
            let wanted = self.wanted(index, &spec).map(|wanted| wanted.container);
            let image = wanted.as_ref().and_then(|wanted| wanted.image.as_deref());
            message(ctr, image.unwrap_or_default())
        });
    }

    /// As pkg/kubelet/images/image_manager.go.
    pub(super) fn tell_pulling(&self, name: &str, k: &mut Local) {
        self.tell_of(name, k, Tidings::normal("Pulling"), |_, image| {
            format!("Pulling image {image:?}")
        });
    }

    /// No pull waits for another one, so what it took is what it took with its waiting.
    pub(super) fn tell_pulled(&mut self, name: &str, took: Duration, size: u64, k: &mut Local) {
        let Some(ctr) = self.containers.iter_mut().find(|ctr| ctr.name == name) else { return };
        ctr.pulled = true;
        self.tell_of(name, k, Tidings::normal("Pulled"), |_, image| {
            let took = as_go(took);
            format!(
                "Successfully pulled image {image:?} in {took} ({took} including waiting). Image \
                 size: {size} bytes."
            )
        });
    }

    pub(super) fn tell_started(&self, name: &str, k: &mut Local) {
        let pulled = self.containers.iter().any(|ctr| ctr.name == name && ctr.pulled);
        if !pulled {
            self.tell_of(name, k, Tidings::normal("Pulled"), |_, image| {
                format!("Container image {image:?} already present on machine")
            });
        }
        let created = Tidings::normal("Created");
        self.tell_of(name, k, created, |_, _| format!("Created container: {name}"));
        let started = Tidings::normal("Started");
        self.tell_of(name, k, started, |_, _| format!("Started container {name}"));
    }

    /// As `makeEnvironmentVariables` told it up to Kubernetes 1.29, of names that a process cannot
    /// have; others are taken since (KEP-4369).
    pub(super) fn tell_skipped(&self, skipped: &[Skipped], k: &mut Local) {
        for Skipped { kind, name, keys } in skipped {
            let word = if *kind == Kind::Secret { "secret" } else { "configMap" };
            self.tell(k, Tidings::warning("InvalidEnvironmentVariableNames"), || {
                let (keys, namespace) = (keys.join(", "), &self.object.key.namespace);
                format!(
                    "Keys [{keys}] from the EnvFrom {word} {namespace}/{name} were skipped since \
                     they are considered invalid environment variable names."
                )
            });
        }
    }

    pub(super) fn tell_stopping(&self, name: &str, k: &mut Local) {
        let killing = Tidings::normal("Killing");
        self.tell_of(name, k, killing, |_, _| format!("Stopping container {name}"));
    }

    pub(super) fn tell_no_sandbox(&self, why: &str, k: &mut Local) {
        self.tell(k, Tidings::warning("FailedCreatePodSandBox"), || {
            format!("Failed to create pod sandbox: {why}")
        });
    }

    /// It ended and is not started again at once.
    pub(super) fn tell_backoff(&self, name: &str, k: &mut Local) {
        self.tell_of(name, k, Tidings::warning("BackOff"), |_, _| {
            let (key, uid) = (&self.object.key, self.uid);
            let pod = format!("{}_{}({uid})", key.name, key.namespace);
            format!("Back-off restarting failed container {name} in pod {pod}")
        });
    }

    /// The runtime would not start it, or it cannot be asked to.
    pub(super) fn tell_refused(&self, name: &str, why: &str, fault: Fault, k: &mut Local) {
        let failed = || Tidings::warning("Failed");
        match fault {
            Fault::Pull => {}
            Fault::NeverPull => {
                let never = "ErrImageNeverPull";
                self.tell_of(name, k, Tidings::warning(never), |_, _| why.to_owned());
                return self.tell_of(name, k, failed(), |_, _| format!("Error: {never}"));
            }
            _ => return self.tell_of(name, k, failed(), |_, _| format!("Error: {why}")),
        }
        self.tell_of(name, k, failed(), |_, image| {
            format!("Failed to pull image {image:?}: {why}")
        });
        self.tell_of(name, k, failed(), |ctr, _| match &ctr.state {
            State::Waiting { reason, .. } => format!("Error: {reason}"),
            _ => "Error: ErrImagePull".to_owned(),
        });
        self.tell_of(name, k, Tidings::normal("BackOff"), |_, image| {
            format!("Back-off pulling image {image:?}")
        });
    }

    /// What went wrong may be a secret: people are told that it did
    /// (pkg/kubelet/kuberuntime/kuberuntime_container.go).
    pub(super) fn tell_failed_hook(&self, name: &str, moment: Moment, k: &mut Local) {
        let (reason, message) = match moment {
            Moment::PostStart => ("FailedPostStartHook", "PostStartHook failed"),
            Moment::PreStop => ("FailedPreStopHook", "PreStopHook failed"),
        };
        self.tell_of(name, k, Tidings::warning(reason), |_, _| message.to_owned());
    }

    pub(super) fn tell_post_start_kills(&self, name: &str, k: &mut Local) {
        let killing = Tidings::normal("Killing");
        self.tell_of(name, k, killing, |_, _| "FailedPostStartHook".to_owned());
    }

    /// A hook asked `whom` by HTTPS, and then without (pkg/kubelet/lifecycle/handlers.go).
    pub(super) fn tell_fallback(&self, whom: &str, k: &mut Local) {
        self.tell(k, Tidings::warning("LifecycleHTTPFallback"), || {
            format!(
                "request to HTTPS lifecycle hook {whom} got HTTP response, retry with HTTP \
                 succeeded"
            )
        });
    }

    pub(super) fn tell_unhealthy(&self, name: &str, of: Purpose, why: &str, k: &mut Local) {
        let probe = match of {
            Purpose::Startup => "Startup",
            Purpose::Liveness => "Liveness",
            _ => "Readiness",
        };
        let unhealthy = Tidings::warning("Unhealthy");
        self.tell_of(name, k, unhealthy, |_, _| format!("{probe} probe failed: {why}"));
    }

    pub(super) fn tell_killed(&self, name: &str, of: Purpose, k: &mut Local) {
        self.tell_of(name, k, Tidings::normal("Killing"), |_, _| {
            let probe = if of == Purpose::Startup { "startup" } else { "liveness" };
            format!("Container {name} failed {probe} probe, will be restarted")
        });
    }
}

/// As Go prints a duration of whole milliseconds: `400ms`, `1.5s`, `1m2s`.
fn as_go(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let (seconds, rest) = (millis / 1000 % 60, millis % 1000);
    let whole = format!("{seconds}.{rest:03}");
    let short = whole.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes, seconds) {
        (0, 0, 0) if rest > 0 => format!("{rest}ms"),
        (0, 0, _) => format!("{short}s"),
        (0, ..) => format!("{minutes}m{short}s"),
        _ => format!("{hours}h{minutes}m{short}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::as_go;
    use std::time::Duration;

    #[test]
    fn durations_are_gos() {
        let told = |millis| as_go(Duration::from_millis(millis));
        assert_eq!([0, 50, 1000, 1500].map(told), ["0s", "50ms", "1s", "1.5s"]);
        assert_eq!([10_000, 60_000, 62_030].map(told), ["10s", "1m0s", "1m2.03s"]);
        assert_eq!([3_600_000, 3_725_004].map(told), ["1h0m0s", "1h2m5.004s"]);
    }
}
