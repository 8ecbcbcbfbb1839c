//! What the controllers tell people of what their calls came to (upstream's `RealPodControl` in
//! pkg/controller/controller_utils.go, stateful_pod_control.go, cronjob_controllerv2.go). What is
//! seen and not done is told where it is seen.

use super::client::{Loop, Outcome, Subject};
use super::world::World;
use crate::objects::{Key, Kind, Object};
use crate::ports::api::{Error, Reason, Request};
use crate::recorder::{Recorder, Tidings};
use std::sync::Arc;

/// As which of upstream's controllers a loop tells; empty for those that say nothing.
pub fn name(of: Loop) -> &'static str {
    match of {
        Loop::Deployment => "deployment-controller",
        Loop::ReplicaSet => "replicaset-controller",
        Loop::Lifecycle => "node-controller",
        Loop::Eviction => "taint-eviction-controller",
        Loop::Job => "job-controller",
        Loop::DaemonSet => "daemonset-controller",
        Loop::StatefulSet => "statefulset-controller",
        Loop::CronJob => "cronjob-controller",
        Loop::Autoscaler => "horizontal-pod-autoscaler",
        Loop::Volume => "persistentvolume-controller",
        Loop::Endpoints | Loop::Ipam | Loop::Collector | Loop::Namespaces | Loop::Disruption => "",
    }
}

/// A create or a delete that was answered.
pub fn of(outcome: &Outcome, world: &World, recorder: &mut Recorder) {
    let Subject { of, kind, key } = &outcome.subject;
    let (kind, key) = (*kind, key.clone());
    let Some(owner) = world.get(kind, &key) else { return };
    let (verb, what, child) = match &*outcome.request {
        Request::Create { object } => (Verb::Create, object.kind(), &object.key),
        Request::Delete { kind, key, .. } => (Verb::Delete, *kind, key),
        _ => return,
    };
    let refusal = match &outcome.result {
        // Deleted by somebody else, or another by now.
        Ok(None) => return,
        Ok(Some(_)) => None,
        Err(error) if is_no_refusal(error) => return,
        Err(error) => Some(&*error.message),
    };
    let call = Call { verb, what, child, refusal };
    let tidings = match of {
        Loop::ReplicaSet | Loop::Job | Loop::DaemonSet if what == Kind::Pod => call.of_pods(),
        Loop::StatefulSet => call.of_a_stateful_set(owner),
        Loop::CronJob => call.of_jobs(),
        Loop::Deployment => call.of_a_replica_set(outcome),
        _ => None,
    };
    if let Some((what, message)) = tidings {
        recorder.tell(name(*of), owner, what, || message);
    }
}

/// It was made before, or nobody knows.
fn is_no_refusal(error: &Error) -> bool {
    matches!(error.reason, Reason::AlreadyExists | Reason::Unreachable | Reason::Unknown)
}

#[derive(Clone, Copy)]
enum Verb {
    Create,
    Delete,
}

struct Call<'a> {
    verb: Verb,
    what: Kind,
    child: &'a Key,
    /// Why it was refused.
    refusal: Option<&'a str>,
}

type Told = Option<(Tidings, String)>;

impl Call<'_> {
    fn of_pods(&self) -> Told {
        let name = &self.child.name;
        Some(match (self.verb, self.refusal) {
            (Verb::Create, None) => (self.tidings(), format!("Created pod: {name}")),
            (Verb::Create, Some(why)) => (self.tidings(), format!("Error creating: {why}")),
            (Verb::Delete, None) => (self.tidings(), format!("Deleted pod: {name}")),
            (Verb::Delete, Some(why)) => (self.tidings(), format!("Error deleting: {why}")),
        })
    }

    fn of_jobs(&self) -> Told {
        let name = &self.child.name;
        Some(match (self.verb, self.refusal) {
            (Verb::Create, None) => (self.tidings(), format!("Created job {name}")),
            (Verb::Create, Some(why)) => (self.tidings(), format!("Error creating job: {why}")),
            (Verb::Delete, None) => (self.tidings(), format!("Deleted job {name}")),
            (Verb::Delete, Some(why)) => (self.tidings(), format!("Deleted job: {why}")),
        })
    }

    fn of_a_stateful_set(&self, set: &Arc<Object>) -> Told {
        let verb = match self.verb {
            Verb::Create => "create",
            Verb::Delete => "delete",
        };
        let (name, set) = (&self.child.name, &set.key.name);
        let message = match (self.what, self.refusal) {
            (Kind::Pod, None) => format!("{verb} Pod {name} in StatefulSet {set} successful"),
            (Kind::Pod, Some(why)) => {
                format!("{verb} Pod {name} in StatefulSet {set} failed error: {why}")
            }
            (Kind::PersistentVolumeClaim, refusal) => {
                // A claim is called as its template and its pod.
                let at = name.find(&format!("-{set}-")).map_or(0, |at| at + 1);
                let pod = &name[at..];
                match refusal {
                    None => format!("{verb} Claim {name} Pod {pod} in StatefulSet {set} success"),
                    Some(why) => {
                        format!(
                            "{verb} Claim {name} for Pod {pod} in StatefulSet {set} failed \
                                 error: {why}"
                        )
                    }
                }
            }
            _ => return None,
        };
        Some((self.tidings(), message))
    }

    /// What is scaled up or down besides, the Deployment's loop tells itself.
    fn of_a_replica_set(&self, outcome: &Outcome) -> Told {
        let Request::Create { object } = &*outcome.request else { return None };
        let (spec, _) = object.replica_set()?;
        let (name, replicas) = (&self.child.name, spec.replicas.unwrap_or(1));
        match self.refusal {
            None if replicas == 0 => None,
            None => Some(scaled(name, 0, replicas)),
            Some(why) => {
                let what = Tidings::warning("ReplicaSetCreateError");
                Some((what, format!("Failed to create new replica set {:?}: {why}", &**name)))
            }
        }
    }

    fn tidings(&self) -> Tidings {
        match (self.verb, self.refusal) {
            (Verb::Create, None) => Tidings::normal("SuccessfulCreate"),
            (Verb::Create, Some(_)) => Tidings::warning("FailedCreate"),
            (Verb::Delete, None) => Tidings::normal("SuccessfulDelete"),
            (Verb::Delete, Some(_)) => Tidings::warning("FailedDelete"),
        }
    }
}

/// Of a ReplicaSet that has another size (`scaleReplicaSet` in pkg/controller/deployment/sync.go).
pub fn scaled(set: &str, before: i32, after: i32) -> (Tidings, String) {
    let way = if after > before { "up" } else { "down" };
    let what = Tidings::normal("ScalingReplicaSet");
    (what, format!("Scaled {way} replica set {set} from {before} to {after}"))
}
