//! A node's container runtime: which sandboxes and containers there are, and what the world has to
//! do for the next request. No network and no programs here: those are the world's, which is the
//! simulator (`sim/src/world/containers.rs`) or a machine (`backends/src/containers`).
//!
//! Two halves, as work takes time: [`Runtime::request`] notes what was asked and answers at once or
//! says when the work is done ([`Step::Later`]); [`Runtime::finish`] then makes it true. Requests
//! about one pod are serialised, so what a dead kubelet asked for may land late without harm: a
//! sandbox that is there is ready, a container that runs has started.

pub mod commands;

use crate::objects::Uid;
use crate::ports::container::{
    Container, ContainerState, Exit, Fault, PodNetwork, Pull, Reply, Request, Sandbox, SandboxState,
};
use kubesim_runtime::Hasher;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Who asked: one incarnation of the kubelet. The world drops replies to those that are no more.
pub type Asker = u64;

/// How long things take.
#[derive(Clone, Debug)]
pub struct Delays {
    /// RunSandbox: 72 ms measured with containerd 1.6, runc and the CNI bridge plugin.
    pub sandbox: Duration,
    /// Create and start, without the pull: 56 ms measured.
    pub start: Duration,
    pub remove: Duration,
    /// Of an image that `pulls` does not name.
    pub pull: Duration,
    pub pulls: BTreeMap<SmolStr, Duration>,
    /// How large the image is, in bytes.
    pub size: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Delays {
            sandbox: Duration::from_millis(72),
            start: Duration::from_millis(56),
            remove: Duration::from_millis(26),
            pull: Duration::from_secs(1),
            pulls: BTreeMap::new(),
            size: 0,
        }
    }
}

/// What the world has to do now, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Calls [`Runtime::finish`] after this long, unless the machine loses its power before.
    Later {
        job: Job,
        after: Duration,
    },
    /// Makes the pod's network namespace and plugs it in; for [`PodNetwork::Host`] there is
    /// nothing to plug in.
    CreateNamespace {
        pod: Uid,
        spec: Arc<Sandbox>,
    },
    /// Runs the image's program in the pod's namespace. When it ends by itself or is killed, the
    /// world calls [`Runtime::exited`].
    StartProgram {
        pod: Uid,
        sandbox: Arc<Sandbox>,
        spec: Arc<Container>,
        id: SmolStr,
    },
    /// SIGTERM, and SIGKILL after the grace (at once if it is zero).
    KillProgram {
        pod: Uid,
        name: SmolStr,
        attempt: u32,
        grace: Duration,
    },
    /// Everything in it is gone with it: interfaces, sockets, programs.
    RemoveNamespace {
        pod: Uid,
    },
    Reply {
        to: Asker,
        reply: Reply,
    },
}

/// Work under way. One that was overtaken (its pod removed, the machine off) finishes without
/// effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pod: Uid,
    /// A container's name; `None`: the sandbox.
    container: Option<SmolStr>,
    number: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Runtime {
    pods: BTreeMap<Uid, Pod>,
    images: BTreeSet<SmolStr>,
    unpullable: BTreeSet<SmolStr>,
    observer: Option<Asker>,
    /// Who is told of pulls.
    pull_observer: Option<Asker>,
    jobs: u64,
}

#[derive(Clone, Debug)]
struct Pod {
    spec: Arc<Sandbox>,
    phase: Phase,
    containers: BTreeMap<SmolStr, Kept>,
}

#[derive(Clone, Debug)]
enum Phase {
    Creating {
        job: u64,
        askers: Vec<Asker>,
    },
    Ready,
    /// `again`: to be made anew as soon as it is gone.
    Removing {
        job: u64,
        askers: Vec<Asker>,
        again: Option<(Arc<Sandbox>, Vec<Asker>)>,
    },
}

#[derive(Clone, Debug)]
struct Kept {
    spec: Arc<Container>,
    id: SmolStr,
    life: Life,
}

#[derive(Clone, Debug)]
enum Life {
    Starting {
        job: u64,
        fetch: Option<Fetch>,
        refuse: Option<Fault>,
        askers: Vec<Asker>,
        stop: Option<Duration>,
    },
    Running,
    Exited(Exit),
}

/// What is asked of the registry first.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    takes: Duration,
    size: u64,
}

impl Runtime {
    /// Images that are on the disk already.
    pub fn with_images(images: impl IntoIterator<Item = SmolStr>) -> Self {
        Runtime { images: images.into_iter().collect(), ..Runtime::default() }
    }

    /// Whether the registry gives this image (from now on).
    pub fn set_pullable(&mut self, image: &str, pullable: bool) {
        if pullable {
            self.unpullable.remove(image);
        } else {
            self.unpullable.insert(SmolStr::from(image));
        }
    }

    pub fn request(&mut self, request: &Request, asker: Asker, delays: &Delays) -> Vec<Step> {
        match request {
            Request::Observe => {
                self.observer = Some(asker);
                vec![Step::Reply { to: asker, reply: Reply::Listed { sandboxes: self.list() } }]
            }
            Request::ObservePulls => {
                self.pull_observer = Some(asker);
                Vec::new()
            }
            Request::RunSandbox { pod, spec } => self.run_sandbox(*pod, spec, asker, delays),
            Request::RemoveSandbox { pod } => self.remove_sandbox(*pod, asker, delays),
            Request::StartContainer { pod, spec } => {
                self.start_container(*pod, spec, asker, delays)
            }
            Request::StopContainer { pod, name, grace } => {
                self.stop_container(*pod, name, *grace, asker)
            }
        }
    }

    /// The work is done.
    pub fn finish(&mut self, job: &Job, delays: &Delays) -> Vec<Step> {
        match &job.container {
            Some(name) => self.finish_start(job.pod, name, job.number),
            None => self.finish_sandbox(job.pod, job.number, delays),
        }
    }

    /// A program ended. Old news (of an earlier attempt, or told already) change nothing.
    pub fn exited(&mut self, pod: Uid, name: &str, attempt: u32, exit: Exit) -> Vec<Step> {
        let observer = self.observer;
        let kept = self.pods.get_mut(&pod).and_then(|pod| pod.containers.get_mut(name));
        let Some(kept) = kept else { return Vec::new() };
        if kept.spec.attempt != attempt || !matches!(kept.life, Life::Running) {
            return Vec::new();
        }
        kept.life = Life::Exited(exit.clone());
        let reply = kept.exit(pod, exit);
        observer.map(|to| Step::Reply { to, reply }).into_iter().collect()
    }

    /// Nothing runs any more and nothing is known of what ran; images stay on the disk.
    pub fn power_loss(&mut self) {
        self.pods.clear();
        (self.observer, self.pull_observer) = (None, None);
    }

    pub fn disk_loss(&mut self) {
        self.power_loss();
        self.images.clear();
    }

    /// The sandboxes that are ready, with the addresses they hold.
    pub fn forget(&mut self, pod: Uid) {
        self.pods.remove(&pod);
    }

    pub fn addresses(&self) -> impl Iterator<Item = (Uid, Option<Ipv4Addr>)> + '_ {
        let ready = self.pods.iter().filter(|(_, pod)| matches!(pod.phase, Phase::Ready));
        ready.map(|(uid, pod)| (*uid, pod.ip()))
    }

    /// How many programs run.
    pub fn running(&self) -> usize {
        let kept = self.pods.values().flat_map(|pod| pod.containers.values());
        kept.filter(|kept| matches!(kept.life, Life::Running)).count()
    }

    fn list(&self) -> Arc<[SandboxState]> {
        let ready = self.pods.iter().filter(|(_, pod)| matches!(pod.phase, Phase::Ready));
        let state = |(uid, pod): (&Uid, &Pod)| SandboxState {
            pod: *uid,
            key: pod.spec.pod.clone(),
            ip: pod.ip(),
            host_network: pod.spec.network == PodNetwork::Host,
            containers: pod.containers.values().filter_map(Kept::state).collect(),
        };
        ready.map(state).collect()
    }

    fn run_sandbox(
        &mut self,
        uid: Uid,
        spec: &Arc<Sandbox>,
        asker: Asker,
        delays: &Delays,
    ) -> Vec<Step> {
        if let Some(pod) = self.pods.get_mut(&uid) {
            match &mut pod.phase {
                Phase::Ready => return vec![pod.ready(uid, asker)],
                Phase::Creating { askers, .. } => askers.push(asker),
                Phase::Removing { again: Some((_, askers)), .. } => askers.push(asker),
                Phase::Removing { again, .. } => *again = Some((spec.clone(), vec![asker])),
            }
            return Vec::new();
        }
        self.create_sandbox(uid, spec.clone(), vec![asker], delays)
    }

    /// As host-local refuses an address that another container holds.
    fn create_sandbox(
        &mut self,
        uid: Uid,
        spec: Arc<Sandbox>,
        askers: Vec<Asker>,
        delays: &Delays,
    ) -> Vec<Step> {
        let pod = Pod { spec, phase: Phase::Ready, containers: BTreeMap::new() };
        let taken = pod.ip().filter(|ip| self.pods.values().any(|other| other.ip() == Some(*ip)));
        if let Some(ip) = taken {
            let why = SmolStr::from(format!("requested IP address {ip} is not available"));
            let refuse = |to| {
                let what = SmolStr::new_static("sandbox");
                let why = why.clone();
                Step::Reply {
                    to,
                    reply: Reply::Refused { pod: uid, what, why, fault: Fault::Sandbox },
                }
            };
            return askers.into_iter().map(refuse).collect();
        }
        let job = self.next_job(uid, None);
        let phase = Phase::Creating { job: job.number, askers };
        self.pods.insert(uid, Pod { phase, ..pod });
        vec![Step::Later { job, after: delays.sandbox }]
    }

    fn finish_sandbox(&mut self, uid: Uid, number: u64, delays: &Delays) -> Vec<Step> {
        let Some(pod) = self.pods.get_mut(&uid) else { return Vec::new() };
        match &mut pod.phase {
            Phase::Creating { job, askers } if *job == number => {
                let askers = std::mem::take(askers);
                pod.phase = Phase::Ready;
                let mut steps = vec![Step::CreateNamespace { pod: uid, spec: pod.spec.clone() }];
                steps.extend(askers.into_iter().map(|to| pod.ready(uid, to)));
                steps
            }
            Phase::Removing { job, askers, again } if *job == number => {
                let askers = std::mem::take(askers).into_iter();
                let again = again.take();
                let reply = |to| Step::Reply { to, reply: Reply::SandboxRemoved { pod: uid } };
                let mut steps: Vec<_> = askers.map(reply).collect();
                self.pods.remove(&uid);
                if let Some((spec, askers)) = again {
                    steps.extend(self.create_sandbox(uid, spec, askers, delays));
                }
                steps
            }
            _ => Vec::new(),
        }
    }

    fn remove_sandbox(&mut self, uid: Uid, asker: Asker, delays: &Delays) -> Vec<Step> {
        let job = self.next_job(uid, None);
        let observer = self.observer;
        let Some(pod) = self.pods.get_mut(&uid) else {
            return vec![Step::Reply { to: asker, reply: Reply::SandboxRemoved { pod: uid } }];
        };
        let mut steps = Vec::new();
        let refused = |what: &str, to| {
            let (what, why) = (SmolStr::from(what), SmolStr::new_static("the sandbox is removed"));
            Step::Reply { to, reply: Reply::Refused { pod: uid, what, why, fault: Fault::Sandbox } }
        };
        match &mut pod.phase {
            Phase::Removing { askers, again, .. } => {
                askers.push(asker);
                if let Some((_, waiting)) = again.take() {
                    steps.extend(waiting.into_iter().map(|to| refused("sandbox", to)));
                }
                return steps;
            }
            Phase::Creating { askers, .. } => {
                steps.extend(askers.drain(..).map(|to| refused("sandbox", to)));
            }
            Phase::Ready => {
                for (name, kept) in std::mem::take(&mut pod.containers) {
                    match kept.life {
                        Life::Starting { askers, .. } => {
                            steps.extend(askers.into_iter().map(|to| refused(&name, to)));
                        }
                        Life::Running => {
                            let (attempt, grace) = (kept.spec.attempt, Duration::ZERO);
                            let reply = kept.exit(uid, Exit::of(137));
                            steps.push(Step::KillProgram { pod: uid, name, attempt, grace });
                            steps.extend(observer.map(|to| Step::Reply { to, reply }));
                        }
                        Life::Exited(_) => {}
                    }
                }
                steps.push(Step::RemoveNamespace { pod: uid });
            }
        }
        pod.phase = Phase::Removing { job: job.number, askers: vec![asker], again: None };
        steps.push(Step::Later { job, after: delays.remove });
        steps
    }

    fn start_container(
        &mut self,
        uid: Uid,
        spec: &Arc<Container>,
        asker: Asker,
        delays: &Delays,
    ) -> Vec<Step> {
        let job = self.next_job(uid, Some(spec.name.clone()));
        let (fault, fetch) = (self.refuses_image(spec), self.fetches(spec, delays));
        let refuse = |why| {
            let (what, why) = (spec.name.clone(), SmolStr::new_static(why));
            let reply = Reply::Refused { pod: uid, what, why, fault: Fault::Create };
            vec![Step::Reply { to: asker, reply }]
        };
        let ready = |pod: &&mut Pod| matches!(pod.phase, Phase::Ready);
        let told = self.pull_observer;
        let Some(pod) = self.pods.get_mut(&uid).filter(ready) else {
            return refuse("the pod has no sandbox");
        };
        if let Some(kept) = pod.containers.get_mut(&spec.name) {
            let newer = spec.attempt > kept.spec.attempt;
            match &mut kept.life {
                Life::Starting { askers, .. } => {
                    askers.push(asker);
                    return Vec::new();
                }
                Life::Running if newer => return refuse("an earlier attempt still runs"),
                Life::Running => {
                    return vec![Step::Reply { to: asker, reply: kept.started(uid) }];
                }
                Life::Exited(exit) if !newer => {
                    let exit = exit.clone();
                    return vec![Step::Reply { to: asker, reply: kept.exit(uid, exit) }];
                }
                Life::Exited(_) => {}
            }
        }
        let takes = fetch.map_or(Duration::ZERO, |fetch| fetch.takes);
        let after = if fault.is_some() { takes } else { takes + delays.start };
        let (refuse, askers) = (fault, vec![asker]);
        let life = Life::Starting { job: job.number, fetch, refuse, askers, stop: None };
        let id = container_id(uid, &spec.name, spec.attempt);
        pod.containers.insert(spec.name.clone(), Kept { spec: spec.clone(), id, life });
        let pulling = |to| {
            let reply = Reply::Pulling { pod: uid, name: spec.name.clone() };
            Step::Reply { to, reply }
        };
        let told = told.filter(|_| fetch.is_some()).map(pulling);
        told.into_iter().chain([Step::Later { job, after }]).collect()
    }

    /// What is asked of the registry, if anything is. What is there and asked for again (`Always`)
    /// is not fetched again, as its layers are there.
    fn fetches(&self, spec: &Container, delays: &Delays) -> Option<Fetch> {
        let there = self.images.contains(&spec.image);
        let asks = match spec.pull {
            Pull::Always => true,
            Pull::IfNotPresent => !there,
            Pull::Never => false,
        };
        let takes = if there && !self.unpullable.contains(&spec.image) {
            Duration::ZERO
        } else {
            delays.pulls.get(&spec.image).copied().unwrap_or(delays.pull)
        };
        asks.then_some(Fetch { takes, size: delays.size })
    }

    /// As upstream's pkg/kubelet/images/image_manager.go decides.
    fn refuses_image(&self, spec: &Container) -> Option<Fault> {
        let pulled = self.images.contains(&spec.image);
        let unpullable = self.unpullable.contains(&spec.image);
        match spec.pull {
            Pull::Always if unpullable => Some(Fault::Pull),
            Pull::IfNotPresent if !pulled && unpullable => Some(Fault::Pull),
            Pull::Never if !pulled => Some(Fault::NeverPull),
            _ => None,
        }
    }

    fn finish_start(&mut self, uid: Uid, name: &SmolStr, number: u64) -> Vec<Step> {
        let told = self.pull_observer;
        let Some(pod) = self.pods.get_mut(&uid) else { return Vec::new() };
        let Some(kept) = pod.containers.get_mut(name) else { return Vec::new() };
        let Life::Starting { job, fetch, refuse, askers, stop } = &mut kept.life else {
            return Vec::new();
        };
        if *job != number {
            return Vec::new();
        }
        let (fetch, refuse, stop, askers) = (*fetch, *refuse, *stop, std::mem::take(askers));
        let image = kept.spec.image.clone();
        if let Some(fault) = refuse {
            pod.containers.remove(name);
            let why = match fault {
                Fault::NeverPull => {
                    format!("Container image {image:?} is not present with pull policy of Never")
                }
                _ => format!("failed to pull and unpack image {image:?}: not found"),
            };
            let why = SmolStr::from(why);
            let reply = |to| {
                let (what, why) = (name.clone(), why.clone());
                Step::Reply { to, reply: Reply::Refused { pod: uid, what, why, fault } }
            };
            return askers.into_iter().map(reply).collect();
        }
        self.images.insert(image);
        kept.life = Life::Running;
        let (sandbox, spec, id) = (pod.spec.clone(), kept.spec.clone(), kept.id.clone());
        let attempt = spec.attempt;
        let pulled = told.zip(fetch).map(|(to, Fetch { takes: took, size })| {
            let reply = Reply::Pulled { pod: uid, name: name.clone(), took, size };
            Step::Reply { to, reply }
        });
        let mut steps: Vec<Step> = pulled.into_iter().collect();
        steps.push(Step::StartProgram { pod: uid, sandbox, spec, id });
        steps.extend(askers.into_iter().map(|to| Step::Reply { to, reply: kept.started(uid) }));
        if let Some(grace) = stop {
            steps.push(Step::KillProgram { pod: uid, name: name.clone(), attempt, grace });
        }
        steps
    }

    fn stop_container(
        &mut self,
        uid: Uid,
        name: &SmolStr,
        grace: Duration,
        asker: Asker,
    ) -> Vec<Step> {
        let kept = self.pods.get_mut(&uid).and_then(|pod| pod.containers.get_mut(name));
        let attempt = kept.as_ref().map_or(0, |kept| kept.spec.attempt);
        match kept.map(|kept| &mut kept.life) {
            Some(Life::Running) => {
                vec![Step::KillProgram { pod: uid, name: name.clone(), attempt, grace }]
            }
            Some(Life::Starting { stop, .. }) => {
                *stop = Some(grace);
                Vec::new()
            }
            Some(Life::Exited(_)) | None => {
                let reply = Reply::NotRunning { pod: uid, name: name.clone() };
                vec![Step::Reply { to: asker, reply }]
            }
        }
    }

    fn next_job(&mut self, pod: Uid, container: Option<SmolStr>) -> Job {
        self.jobs += 1;
        Job { pod, container, number: self.jobs }
    }
}

impl Pod {
    fn ip(&self) -> Option<Ipv4Addr> {
        match &self.spec.network {
            PodNetwork::Bridge { address, .. } => Some(address.addr()),
            PodNetwork::Host => None,
        }
    }
    fn ready(&self, pod: Uid, to: Asker) -> Step {
        Step::Reply { to, reply: Reply::SandboxReady { pod, ip: self.ip() } }
    }
}

impl Kept {
    fn started(&self, pod: Uid) -> Reply {
        let (name, attempt) = (self.spec.name.clone(), self.spec.attempt);
        Reply::Started { pod, name, attempt, id: self.id.clone() }
    }
    fn exit(&self, pod: Uid, exit: Exit) -> Reply {
        let (name, attempt) = (self.spec.name.clone(), self.spec.attempt);
        Reply::Exited { pod, name, attempt, exit }
    }
    /// One that is not started yet is not listed.
    fn state(&self) -> Option<ContainerState> {
        let exited = match &self.life {
            Life::Starting { .. } => return None,
            Life::Running => None,
            Life::Exited(exit) => Some(exit.clone()),
        };
        let (name, attempt) = (self.spec.name.clone(), self.spec.attempt);
        Some(ContainerState { name, attempt, id: self.id.clone(), exited })
    }
}

/// Sixteen hex digits out of who it is: the same in every run.
fn container_id(pod: Uid, name: &str, attempt: u32) -> SmolStr {
    let mut hasher = Hasher::default();
    pod.digest(&mut hasher);
    hasher.str(name);
    hasher.u32(attempt);
    SmolStr::from(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Key;

    const POD: Uid = Uid(1);

    fn sandbox(last: u8) -> Arc<Sandbox> {
        let network = PodNetwork::Bridge {
            bridge: "cni0".into(),
            address: format!("10.244.1.{last}/24").parse().unwrap(),
            gateway: Ipv4Addr::new(10, 244, 1, 1),
            mtu: 1500,
        };
        let pod = Key::new("default", "a");
        Arc::new(Sandbox { network, ..Sandbox::of(pod) })
    }

    fn container(attempt: u32) -> Arc<Container> {
        Arc::new(Container { attempt, ..Container::of("c", "nginx") })
    }

    /// Carries out what takes time at once; the steps that are left, in order.
    fn ask(runtime: &mut Runtime, request: Request) -> Vec<Step> {
        let delays = Delays::default();
        let mut done = Vec::new();
        let mut steps = runtime.request(&request, 1, &delays);
        while !steps.is_empty() {
            let mut next = Vec::new();
            for step in steps {
                match step {
                    Step::Later { job, .. } => next.extend(runtime.finish(&job, &delays)),
                    step => done.push(step),
                }
            }
            steps = next;
        }
        done
    }

    fn reply(reply: Reply) -> Step {
        Step::Reply { to: 1, reply }
    }

    fn running() -> Runtime {
        let mut runtime = Runtime::default();
        ask(&mut runtime, Request::Observe);
        ask(&mut runtime, Request::RunSandbox { pod: POD, spec: sandbox(2) });
        ask(&mut runtime, Request::StartContainer { pod: POD, spec: container(0) });
        runtime
    }

    #[test]
    fn what_is_there_already_is_only_confirmed() {
        let mut runtime = running();
        let ip = Some(Ipv4Addr::new(10, 244, 1, 2));
        let again = ask(&mut runtime, Request::RunSandbox { pod: POD, spec: sandbox(3) });
        assert_eq!(again, [reply(Reply::SandboxReady { pod: POD, ip })]);
        let again = ask(&mut runtime, Request::StartContainer { pod: POD, spec: container(0) });
        let id = container_id(POD, "c", 0);
        let started = Reply::Started { pod: POD, name: "c".into(), attempt: 0, id };
        assert_eq!(again, [reply(started)]);
        assert_eq!(runtime.running(), 1);
    }

    #[test]
    fn an_ended_attempt_is_not_run_again_and_the_next_one_is() {
        let mut runtime = running();
        let exit = Reply::Exited { pod: POD, name: "c".into(), attempt: 0, exit: Exit::of(3) };
        assert_eq!(runtime.exited(POD, "c", 0, Exit::of(3)), [reply(exit.clone())]);
        assert_eq!(runtime.exited(POD, "c", 0, Exit::of(3)), []);
        let again = ask(&mut runtime, Request::StartContainer { pod: POD, spec: container(0) });
        assert_eq!(again, [reply(exit)]);
        let next = ask(&mut runtime, Request::StartContainer { pod: POD, spec: container(1) });
        assert!(matches!(&next[0], Step::StartProgram { spec, .. } if spec.attempt == 1));
    }

    #[test]
    fn an_address_is_never_given_twice() {
        let mut runtime = running();
        let other = ask(&mut runtime, Request::RunSandbox { pod: Uid(2), spec: sandbox(2) });
        assert!(matches!(&other[0], Step::Reply { reply: Reply::Refused { .. }, .. }), "{other:?}");
        ask(&mut runtime, Request::RemoveSandbox { pod: POD });
        let other = ask(&mut runtime, Request::RunSandbox { pod: Uid(2), spec: sandbox(2) });
        assert!(matches!(&other[0], Step::CreateNamespace { .. }), "{other:?}");
    }

    #[test]
    fn a_removal_kills_tells_and_overtakes_what_was_under_way() {
        let (mut runtime, delays) = (running(), Delays::default());
        let steps = ask(&mut runtime, Request::RemoveSandbox { pod: POD });
        let exit = Reply::Exited { pod: POD, name: "c".into(), attempt: 0, exit: Exit::of(137) };
        assert!(
            steps.contains(&reply(exit)) && steps.contains(&Step::RemoveNamespace { pod: POD })
        );
        assert_eq!(steps.last(), Some(&reply(Reply::SandboxRemoved { pod: POD })));

        let request = Request::RunSandbox { pod: POD, spec: sandbox(2) };
        let created = runtime.request(&request, 1, &delays);
        let [Step::Later { job, .. }] = &created[..] else { panic!("{created:?}") };
        let steps = ask(&mut runtime, Request::RemoveSandbox { pod: POD });
        assert!(matches!(&steps[0], Step::Reply { reply: Reply::Refused { .. }, .. }), "{steps:?}");
        assert_eq!(runtime.finish(job, &delays), [], "the late half has no effect");
        assert_eq!(runtime.addresses().count(), 0);
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_refused_until_it_can() {
        let mut runtime = Runtime::default();
        runtime.set_pullable("nginx", false);
        ask(&mut runtime, Request::RunSandbox { pod: POD, spec: sandbox(2) });
        let start = || Request::StartContainer { pod: POD, spec: container(0) };
        let refused = ask(&mut runtime, start());
        let missing = |step: &Step| {
            matches!(step, Step::Reply { reply: Reply::Refused { fault: Fault::Pull, .. }, .. })
        };
        assert!(missing(&refused[0]), "{refused:?}");
        runtime.set_pullable("nginx", true);
        assert!(matches!(ask(&mut runtime, start())[0], Step::StartProgram { .. }));
    }

    #[test]
    fn a_pull_policy_says_whether_the_registry_is_asked() {
        let fault = |pull, there: bool, pullable: bool| {
            let images = there.then(|| SmolStr::from("nginx"));
            let mut runtime = Runtime::with_images(images);
            runtime.set_pullable("nginx", pullable);
            ask(&mut runtime, Request::RunSandbox { pod: POD, spec: sandbox(2) });
            let spec = Arc::new(Container { pull, ..(*container(0)).clone() });
            match ask(&mut runtime, Request::StartContainer { pod: POD, spec }).remove(0) {
                Step::Reply { reply: Reply::Refused { fault, .. }, .. } => Some(fault),
                Step::StartProgram { .. } => None,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(fault(Pull::Always, true, false), Some(Fault::Pull));
        assert_eq!(fault(Pull::Always, false, true), None);
        assert_eq!(fault(Pull::IfNotPresent, true, false), None);
        assert_eq!(fault(Pull::IfNotPresent, false, false), Some(Fault::Pull));
        assert_eq!(fault(Pull::Never, true, false), None);
        assert_eq!(fault(Pull::Never, false, true), Some(Fault::NeverPull));
    }

    #[test]
    fn who_observes_pulls_is_told_of_each_and_of_no_image_that_is_there() {
        let mut runtime = Runtime::default();
        assert_eq!(ask(&mut runtime, Request::ObservePulls), []);
        ask(&mut runtime, Request::RunSandbox { pod: POD, spec: sandbox(2) });
        let start = |attempt| Request::StartContainer { pod: POD, spec: container(attempt) };
        let steps = ask(&mut runtime, start(0));
        let took = Delays::default().pull;
        let pulling = reply(Reply::Pulling { pod: POD, name: "c".into() });
        let pulled = reply(Reply::Pulled { pod: POD, name: "c".into(), took, size: 0 });
        assert_eq!(steps[..2], [pulling.clone(), pulled]);
        assert!(matches!(steps[2], Step::StartProgram { .. }), "{steps:?}");
        runtime.exited(POD, "c", 0, Exit::of(1));
        let steps = ask(&mut runtime, start(1));
        assert!(matches!(steps[0], Step::StartProgram { .. }), "{steps:?}");
        // One that does not come is begun all the same.
        runtime.disk_loss();
        runtime.set_pullable("nginx", false);
        ask(&mut runtime, Request::ObservePulls);
        ask(&mut runtime, Request::RunSandbox { pod: POD, spec: sandbox(2) });
        let steps = ask(&mut runtime, start(2));
        let refused = |step: &Step| {
            matches!(step, Step::Reply { reply: Reply::Refused { fault: Fault::Pull, .. }, .. })
        };
        assert!(steps[0] == pulling && refused(&steps[1]) && steps.len() == 2, "{steps:?}");
    }

    #[test]
    fn after_a_loss_of_power_nothing_is_listed_and_images_are_there() {
        let mut runtime = running();
        runtime.power_loss();
        let listed = ask(&mut runtime, Request::Observe);
        assert_eq!(listed, [reply(Reply::Listed { sandboxes: Arc::default() })]);
        ask(&mut runtime, Request::RunSandbox { pod: POD, spec: sandbox(2) });
        let start = Request::StartContainer { pod: POD, spec: container(1) };
        let steps = runtime.request(&start, 1, &Delays::default());
        assert!(
            matches!(&steps[..], [Step::Later { after, .. }] if *after == Delays::default().start)
        );
    }
}
