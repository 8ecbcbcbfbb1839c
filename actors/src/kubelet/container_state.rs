//! One container of a pod: what state it is in, and when it may be started again.

use super::hooks::{Blame, Hook, Moment};
use super::probes::Probes;
use crate::objects::time;
use crate::ports::container::{Exit, Fault};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus};
use kubesim_runtime::{Time, Wall};
use smol_str::SmolStr;
use std::time::Duration;

/// When a pod whose step failed is looked at again (`backOffPeriod` in pkg/kubelet/kubelet.go).
const RESYNC: Duration = Duration::from_secs(10);

/// What the kubelet knows of a container. The spec stands in the pod's, at the same index.
#[derive(Clone, Debug)]
pub struct Ctr {
    pub name: SmolStr,
    pub role: Role,
    /// The attempt number of the next start (or of the one under way).
    pub next: u32,
    pub state: State,
    /// How the life before this one ended.
    pub last: Option<Box<ContainerStateTerminated>>,
    /// The runtime's id of the present or last life.
    pub id: SmolStr,
    pub crashes: Backoff,
    pub failures: Backoff,
    /// Its image was fetched for the start under way, and people were told.
    pub pulled: bool,
    /// A stop was asked for and not answered, or its preStop hook runs.
    pub stopping: bool,
    /// The hook that runs.
    pub hook: Option<Box<Hook>>,
    /// Its postStart hook failed, and it has not been started since.
    pub blame: Option<Box<Blame>>,
    pub probes: Probes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always` (KEP-753): the next one starts when it has
    /// started.
    Sidecar,
    Main,
    /// Put into the pod while it ran, and started once at most (KEP-277). What becomes of it is
    /// nothing to the pod.
    Ephemeral,
}

#[derive(Clone, Debug)]
pub enum State {
    /// Not started yet, or refused: may be tried at `until`.
    Waiting {
        reason: &'static str,
        message: String,
        until: Time,
    },
    /// The runtime has been asked.
    Starting,
    Running {
        since: Wall,
    },
    Exited {
        how: Box<ContainerStateTerminated>,
        at: Time,
    },
}

/// What the pod should do about a container now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Start,
    StartAt(Time),
    /// It runs, starts, or ended for good.
    Nothing,
}

impl Ctr {
    pub fn init(spec: &Container) -> Self {
        let sidecar = spec.restart_policy.as_deref() == Some("Always");
        Ctr::new(spec, if sidecar { Role::Sidecar } else { Role::Init })
    }

    pub fn new(spec: &Container, role: Role) -> Self {
        Ctr {
            name: SmolStr::from(&spec.name),
            role,
            next: 0,
            state: State::Waiting { reason: "", message: String::new(), until: Time::ZERO },
            last: None,
            id: SmolStr::default(),
            pulled: false,
            crashes: Backoff::default(),
            failures: Backoff::default(),
            stopping: false,
            hook: None,
            blame: None,
            probes: Probes::new(spec),
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }
    /// Runs or may come to run without another word from us.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Starting)
    }
    /// Being started, which takes until its postStart hook, if any, has ended well.
    pub fn is_starting(&self) -> bool {
        match self.state {
            State::Starting => true,
            State::Running { .. } => self.blame.is_some() || self.runs_hook(Moment::PostStart),
            _ => false,
        }
    }
    fn runs_hook(&self, moment: Moment) -> bool {
        self.hook.as_ref().is_some_and(|hook| hook.moment == moment)
    }
    /// Started, and its startup probe, if any, has succeeded.
    pub fn started(&self) -> bool {
        self.is_running() && !self.is_starting() && self.probes.started()
    }
    pub fn ready(&self) -> bool {
        match self.role {
            Role::Init => self.exit_code() == Some(0),
            _ => self.started() && self.probes.ready(),
        }
    }
    pub fn exit_code(&self) -> Option<i32> {
        match &self.state {
            State::Exited { how, .. } => Some(how.exit_code),
            _ => None,
        }
    }
    pub fn restart_count(&self) -> u32 {
        self.next.saturating_sub(1)
    }

    /// Whether a container that ended is to be started again under the pod's restart policy.
    pub fn restarts(&self, policy: &str) -> bool {
        match (self.role, policy) {
            (Role::Ephemeral, _) => false,
            (Role::Sidecar, _) => true,
            (Role::Init, "Never") | (Role::Main, "Never") => false,
            (Role::Init, _) | (Role::Main, "OnFailure") => self.exit_code() != Some(0),
            (Role::Main, _) => true,
        }
    }
    /// Ended, and stays so.
    pub fn is_final(&self, policy: &str) -> bool {
        self.exit_code().is_some() && !self.restarts(policy)
    }

    pub fn next_step(&self, policy: &str, now: Time) -> Next {
        let due = match &self.state {
            State::Starting | State::Running { .. } => return Next::Nothing,
            State::Waiting { until, .. } => *until,
            State::Exited { .. } if !self.restarts(policy) => return Next::Nothing,
            State::Exited { at, .. } => self.crashes.due(*at),
        };
        if due <= now { Next::Start } else { Next::StartAt(due) }
    }

    /// The runtime is being asked to start it.
    pub fn starting(&mut self, now: Time) {
        if let State::Exited { how, at } = &self.state {
            self.crashes.next(*at, now);
            self.last = Some(how.clone());
        }
        self.pulled = false;
        self.state = State::Starting;
    }

    /// False if the news is old.
    pub fn on_started(&mut self, attempt: u32, id: SmolStr, wall: Wall) -> bool {
        let fresh = matches!(self.state, State::Starting) && attempt >= self.next;
        if fresh {
            self.next = attempt + 1;
            self.id = id;
            self.failures = Backoff::default();
            self.blame = None;
            self.state = State::Running { since: wall };
        }
        fresh
    }

    /// False if the news is old.
    pub fn on_exited(&mut self, attempt: u32, exit: &Exit, now: Time, wall: Wall) -> bool {
        let fresh = attempt >= self.next || self.is_running() && attempt + 1 == self.next;
        if fresh {
            self.next = self.next.max(attempt + 1);
            self.ended(exit, now, wall);
        }
        fresh
    }

    /// Notes an end, whoever told of it.
    pub fn ended(&mut self, exit: &Exit, now: Time, wall: Wall) {
        let started = match &self.state {
            State::Running { since } => Some(time(*since)),
            _ => None,
        };
        let how = ContainerStateTerminated {
            container_id: Some(container_id(&self.id)),
            exit_code: exit.code,
            finished_at: Some(time(wall)),
            message: (!exit.message.is_empty()).then(|| exit.message.to_string()),
            reason: Some(exit.reason().to_owned()),
            signal: None,
            started_at: started.or_else(|| Some(time(wall))),
        };
        self.state = State::Exited { how: Box::new(how), at: now };
        self.stopping = false;
        self.hook = None;
        if let Some(blame) = &mut self.blame {
            blame.until = now + RESYNC;
        }
        self.probes.halt();
    }

    /// The runtime would not start it. False if the news is old.
    pub fn on_refused(&mut self, why: &str, fault: Fault, now: Time) -> bool {
        if !matches!(self.state, State::Starting) {
            return false;
        }
        let first = self.failures.delay.is_zero();
        // pkg/kubelet/images/types.go, pkg/kubelet/kuberuntime/kuberuntime_container.go.
        let reason = match fault {
            Fault::Pull if first => "ErrImagePull",
            Fault::Pull => "ImagePullBackOff",
            Fault::NeverPull => "ErrImageNeverPull",
            Fault::Config => "CreateContainerConfigError",
            Fault::Create => "CreateContainerError",
            Fault::Sandbox | Fault::Start => "RunContainerError",
        };
        self.failures.next(now, now);
        let until = self.failures.due(now);
        self.state = State::Waiting { reason, message: why.to_owned(), until };
        true
    }

    /// Takes over what the API last heard of a container that the runtime knows nothing of: it
    /// was lost with the machine's power if it had ever run. containerd reports such a one with
    /// exit code 255 and reason `Unknown`.
    pub fn lost(&mut self, told: &ContainerStatus, now: Time, wall: Wall) {
        let state = told.state.as_ref();
        let ran = state.is_some_and(|s| s.running.is_some() || s.terminated.is_some());
        let last = told.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        if !ran && last.is_none() {
            return;
        }
        self.next = u32::try_from(told.restart_count).unwrap_or(0) + 1;
        let id = told.container_id.as_deref().unwrap_or_default();
        self.id = SmolStr::from(id.trim_start_matches("containerd://"));
        match state.and_then(|s| s.terminated.as_ref()).or(last) {
            Some(how) if state.is_none_or(|s| s.running.is_none()) => {
                self.state = State::Exited { how: Box::new(how.clone()), at: now };
            }
            _ => self.ended(&Exit::because("Unknown", 255), now, wall),
        }
    }

    /// The state's reason while it waits: upstream says back-off once it has said why.
    pub fn waiting_reason(&self, creating: &'static str) -> (&'static str, String) {
        match &self.state {
            State::Starting | State::Running { .. } | State::Exited { .. }
                if let Some(blame) = &self.blame =>
            {
                ("PostStartHookError", blame.message.clone())
            }
            State::Waiting { reason: "", .. } | State::Starting | State::Running { .. } => {
                (creating, String::new())
            }
            State::Waiting { reason, message, .. } => (reason, message.clone()),
            _ => {
                let wait = self.crashes.delay.as_secs();
                (
                    "CrashLoopBackOff",
                    format!("back-off {wait}s restarting failed container={}", self.name),
                )
            }
        }
    }
}

pub fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

/// Upstream's `flowcontrol.Backoff` as the kubelet uses it: 10 s, doubling to 5 min, forgotten
/// when an end comes more than 10 min after the last start. The first time is free: the wait
/// holds from the second failure on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    pub delay: Duration,
    updated: Time,
}

impl Backoff {
    const INITIAL: Duration = Duration::from_secs(10);
    const MAX: Duration = Duration::from_secs(300);

    /// When what failed at `event` may be tried again.
    pub fn due(&self, event: Time) -> Time {
        if self.expired(event) { event } else { event + self.delay }
    }
    /// It is tried again `now`.
    pub fn next(&mut self, event: Time, now: Time) {
        let doubled = self.delay.saturating_mul(2).min(Self::MAX);
        self.delay = if self.expired(event) { Self::INITIAL } else { doubled };
        self.updated = now;
    }
    fn expired(&self, event: Time) -> bool {
        self.delay.is_zero() || event.since(self.updated) > Self::MAX * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_free_and_the_wait_doubles_to_five_minutes() {
        let mut backoff = Backoff::default();
        let (mut now, mut waits) = (Time::from_secs(1), Vec::new());
        for _ in 0..8 {
            let due = backoff.due(now);
            waits.push(due.since(now).as_secs());
            backoff.next(now, due);
            now = due + Duration::from_secs(1);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let calm = now + Duration::from_secs(601);
        assert_eq!(backoff.due(calm), calm);
    }
}
