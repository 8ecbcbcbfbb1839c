//! What happened since the kubelet was told: the driver lists all there is once a second and
//! compares, as upstream's PLEG does (pkg/kubelet/pleg/generic.go). The runtime's own events
//! (GetContainerEvents) are of newer runtimes, and upstream lists beside them as well.

use super::Inner;
use super::client::Failure;
use super::list::newest;
use super::messages::{Container, Map, PodSandbox, StatusRequest};
use crate::port::Answer;
use kubesim_actors::objects::{Key, Uid};
use kubesim_actors::ports::container::{self as port, Exit, Reply};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

/// By SIGKILL: 128 and its number. That it was for want of memory comes to containerd by an event
/// of its own, which may be the later one (`TaskOOM`, pkg/cri/server/events.go).
const KILLED: i32 = 137;
/// How much later the reason may come.
const LATER: Duration = Duration::from_millis(250);

/// Who observes, and what they know.
#[derive(Default)]
pub struct Watch {
    observer: Option<mpsc::UnboundedSender<Reply>>,
    /// It waits for a list.
    unlisted: bool,
    /// Somebody looks, once in a while.
    looks: bool,
    sandboxes: BTreeMap<Uid, Known>,
    /// By the runtime's id.
    containers: BTreeMap<String, Known>,
    /// The number of the list that is being made, or was made last.
    list: u64,
}

struct Known {
    pod: Uid,
    id: String,
    name: SmolStr,
    attempt: u32,
    /// Since which list: what came while a list was made need not be on it.
    since: u64,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotSeen,
    /// Who stops it will be told by the answer.
    Awaited,
    Told,
}

impl Watch {
    pub fn sandbox_ready(&mut self, pod: Uid, id: &str) {
        let known = self.known(pod, id, "", 0);
        self.sandboxes.insert(pod, known);
    }
    /// It is being removed, and who asked for that will be told.
    pub fn sandbox_goes(&mut self, pod: Uid) {
        self.sandboxes.remove(&pod);
    }
    /// Or is about to, or has ended since.
    pub fn container_runs(&mut self, pod: Uid, found: &Container) {
        let known = self.known(pod, &found.id, found.name(), found.attempt());
        self.containers.entry(found.id.clone()).or_insert(known);
    }
    pub fn somebody_waits_for(&mut self, id: &str) {
        self.set(id, End::Awaited);
    }
    pub fn container_told(&mut self, id: &str) {
        self.set(id, End::Told);
    }
    pub fn container_gone(&mut self, id: &str) {
        self.containers.remove(id);
    }
    pub fn pod_gone(&mut self, pod: Uid) {
        self.sandboxes.remove(&pod);
        self.containers.retain(|_, known| known.pod != pod);
    }
    pub fn is_untold(&self, id: &str) -> bool {
        self.containers.get(id).is_some_and(|known| known.end == End::NotSeen)
    }

    fn known(&self, pod: Uid, id: &str, name: &str, attempt: u32) -> Known {
        let (id, name) = (id.to_owned(), SmolStr::from(name));
        Known { pod, id, name, attempt, since: self.list, end: End::NotSeen }
    }
    fn set(&mut self, id: &str, end: End) {
        if let Some(known) = self.containers.get_mut(id) {
            known.end = end;
        }
    }

    /// What is found for the first time is known from now on, and its end, if it has ended, with
    /// it.
    fn meet(&mut self, seen: &Seen) {
        for sandbox in seen.sandboxes.iter().filter(|sandbox| sandbox.is_ready()) {
            if let Some(pod) = sandbox.pod().filter(|pod| !self.sandboxes.contains_key(pod)) {
                self.sandbox_ready(pod, &sandbox.id);
            }
        }
        for container in &seen.containers {
            let sandbox = seen.sandboxes.iter().find(|s| s.id == container.pod_sandbox_id);
            let known = self.containers.contains_key(&container.id);
            if let Some(pod) = sandbox.and_then(PodSandbox::pod).filter(|_| !known) {
                self.container_runs(pod, container);
                if container.is_over() {
                    self.container_told(&container.id);
                }
            }
        }
    }

    /// Containers of which somebody must be told: those that ended, and those that are nowhere.
    fn ended(&self, seen: &Seen) -> Vec<(String, bool)> {
        let there: BTreeMap<_, _> = seen.containers.iter().map(|c| (&c.id, c)).collect();
        let untold = self.containers.values().filter(|known| known.end == End::NotSeen);
        let ended = untold.filter_map(|known| match there.get(&known.id) {
            Some(container) => container.is_over().then(|| (known.id.clone(), true)),
            None => (known.since < self.list).then(|| (known.id.clone(), false)),
        });
        ended.collect()
    }

    /// Pods whose sandbox went by itself.
    fn lost(&self, seen: &Seen) -> Vec<Uid> {
        let ready: BTreeSet<_> =
            seen.sandboxes.iter().filter(|s| s.is_ready()).map(|s| s.id.as_str()).collect();
        let gone = self
            .sandboxes
            .values()
            .filter(|known| known.since < self.list && !ready.contains(known.id.as_str()));
        gone.map(|known| known.pod).collect()
    }
}

/// All there is, at one moment.
struct Seen {
    sandboxes: Vec<PodSandbox>,
    containers: Vec<Container>,
}

impl Inner {
    /// The newest observer is told; with the next one, a stream ends.
    pub(super) async fn observe(this: Rc<Inner>, answer: Answer<Reply>) {
        let (send, mut told) = mpsc::unbounded_channel();
        let looks = {
            let mut watch = this.watch.borrow_mut();
            watch.observer = Some(send);
            watch.unlisted = true;
            std::mem::replace(&mut watch.looks, true)
        };
        this.asked.notify_one();
        if !looks {
            spawn_local(Inner::look(Rc::clone(&this)));
        }
        drop(this);
        while let Some(reply) = told.recv().await {
            if answer.send(reply).await.is_err() {
                break;
            }
        }
    }

    pub(super) fn tell(&self, reply: Reply) {
        if let Some(observer) = &self.watch.borrow().observer {
            // One that is gone has nobody to tell.
            let _ = observer.send(reply);
        }
    }

    /// Looks until nobody observes.
    async fn look(this: Rc<Inner>) {
        let away = this.settings.away;
        let (mut heard, mut down) = (Instant::now(), false);
        while this.is_observed() {
            let waited = this.watch.borrow().unlisted;
            let looked = timeout(away, Inner::look_once(&this, down)).await;
            let wrong = match looked.unwrap_or_else(|_| Err(Failure::late())) {
                Ok(wrong) => {
                    heard = Instant::now();
                    down &= wrong.is_some();
                    wrong
                }
                Err(failure) if heard.elapsed() >= away => {
                    Some(format!("container runtime is down: {failure}"))
                }
                Err(_) => None,
            };
            // Who has just been given a list does not know yet.
            let anew = waited && !this.watch.borrow().unlisted;
            if let Some(why) = wrong.filter(|_| anew || !down) {
                down = true;
                this.down.notify_waiters();
                this.tell(Reply::Down { why: SmolStr::from(why) });
            }
            tokio::select! {
                () = sleep(this.settings.relist) => {}
                () = this.asked.notified() => {}
            }
        }
        this.watch.borrow_mut().looks = false;
    }

    fn is_observed(&self) -> bool {
        let watch = self.watch.borrow();
        watch.observer.as_ref().is_some_and(|observer| !observer.is_closed())
    }

    /// One list, and all that follows from it. What is wrong with the runtime, if it says so
    /// itself; a list is told to who waits for one, or thinks that the runtime is down.
    async fn look_once(this: &Rc<Inner>, down: bool) -> Result<Option<String>, Failure> {
        this.watch.borrow_mut().list += 1;
        let containers = this.containers(Map::new()).await?;
        let sandboxes = this.sandboxes(Map::new()).await?;
        let seen = Seen { sandboxes, containers };
        let wrong = this.complaint().await?;
        if this.watch.borrow().unlisted || down && wrong.is_none() {
            this.list_all(&seen).await?;
            Inner::clear(this, &seen);
        }
        let ended = this.watch.borrow().ended(&seen);
        let mut exits = this.exits(&ended).await?;
        let killed = |exit: &Exit| exit.code == KILLED && exit.reason.is_empty();
        if exits.iter().any(killed) {
            sleep(LATER).await;
            exits = this.exits(&ended).await?;
        }
        for ((id, _), exit) in ended.iter().zip(exits) {
            this.tell_end(id, exit);
        }
        let lost = this.watch.borrow().lost(&seen);
        for pod in &lost {
            this.watch.borrow_mut().pod_gone(*pod);
            this.tell(Reply::SandboxRemoved { pod: *pod });
        }
        if !lost.is_empty() {
            Inner::clear(this, &seen);
        }
        Ok(wrong)
    }

    async fn list_all(&self, seen: &Seen) -> Result<(), Failure> {
        let sandboxes = self.listed(seen).await?.into();
        let mut watch = self.watch.borrow_mut();
        watch.unlisted = false;
        watch.meet(seen);
        drop(watch);
        self.tell(Reply::Listed { sandboxes });
        Ok(())
    }

    /// Of containers that ended, each of which may be there or not.
    async fn exits(&self, ended: &[(String, bool)]) -> Result<Vec<Exit>, Failure> {
        let mut exits = Vec::new();
        for (id, there) in ended {
            let exit = if *there { self.exit(id).await? } else { None };
            exits.push(exit.unwrap_or_else(|| Exit::because("ContainerStatusUnknown", KILLED)));
        }
        Ok(exits)
    }

    /// Tells of a container that ended, unless somebody was told or waits for it.
    fn tell_end(&self, id: &str, exit: Exit) {
        let reply = {
            let mut watch = self.watch.borrow_mut();
            let Some(known) = watch.containers.get_mut(id) else { return };
            if known.end != End::NotSeen {
                return;
            }
            known.end = End::Told;
            let (pod, name, attempt) = (known.pod, known.name.clone(), known.attempt);
            Reply::Exited { pod, name, attempt, exit }
        };
        self.tell(reply);
    }

    /// The same of one that was just killed with its sandbox.
    pub(super) async fn tell_exit(&self, pod: Uid, found: &Container) -> Result<(), Failure> {
        if found.is_running() {
            self.watch.borrow_mut().container_runs(pod, found);
        }
        if let Some(exit) = self.exit(&found.id).await? {
            self.tell_end(&found.id, exit);
        }
        Ok(())
    }

    /// As upstream words it (`updateRuntimeUp` in pkg/kubelet/kubelet.go).
    async fn complaint(&self) -> Result<Option<String>, Failure> {
        let status = self.call(StatusRequest::default()).await?.status.unwrap_or_default();
        let wrong = |name: &str| {
            let condition = status.conditions.iter().find(|c| c.name == name)?;
            let (reason, message) = (&condition.reason, &condition.message);
            let said = format!("{name}=false reason:{reason} message:{message}");
            (!condition.status).then_some(said)
        };
        let network = |said| format!("container runtime network not ready: {said}");
        let runtime = |said| format!("container runtime not ready: {said}");
        let broken = wrong("RuntimeReady").map(runtime);
        Ok(broken.or_else(|| wrong("NetworkReady").map(network)))
    }

    async fn listed(&self, seen: &Seen) -> Result<Vec<port::SandboxState>, Failure> {
        let mut listed = Vec::new();
        for sandbox in seen.sandboxes.iter().filter(|sandbox| sandbox.is_ready()) {
            let (Some(pod), Some(metadata)) = (sandbox.pod(), &sandbox.metadata) else { continue };
            let key = Key::new(metadata.namespace.as_str(), metadata.name.as_str());
            let ip = self.address(&sandbox.id).await?;
            let containers = self.listed_containers(seen, &sandbox.id).await?;
            let host_network = ip.is_none();
            listed.push(port::SandboxState { pod, key, ip, host_network, containers });
        }
        Ok(listed)
    }

    async fn listed_containers(
        &self,
        seen: &Seen,
        sandbox: &str,
    ) -> Result<Vec<port::ContainerState>, Failure> {
        let of = seen.containers.iter().filter(|c| c.pod_sandbox_id == sandbox);
        let names: BTreeSet<_> = of.map(Container::name).collect();
        let mut listed = Vec::new();
        for found in names.iter().filter_map(|name| newest(&seen.containers, sandbox, name)) {
            let exited = match (found.is_running(), found.is_over()) {
                (true, _) => None,
                (_, true) => self.exit(&found.id).await?,
                // Made, and not started yet.
                _ => continue,
            };
            let (name, id) = (SmolStr::from(found.name()), SmolStr::from(&found.id));
            listed.push(port::ContainerState { name, attempt: found.attempt(), id, exited });
        }
        Ok(listed)
    }

    /// Takes away sandboxes that broke, as in a power failure: the port has no word for such a one,
    /// and its pod, if it is to run, gets a new one.
    fn clear(this: &Rc<Inner>, seen: &Seen) {
        let broken = seen.sandboxes.iter().filter(|sandbox| !sandbox.is_ready());
        let pods: BTreeSet<_> = broken.filter_map(PodSandbox::pod).collect();
        for pod in pods {
            let this = Rc::clone(this);
            spawn_local(async move {
                let _turn = this.turn(pod).await;
                let Ok(found) = this.sandboxes(super::config::of_pod(pod)).await else { return };
                for left in found.iter().filter(|sandbox| !sandbox.is_ready()) {
                    // Who asks for the pod's sandbox tries again.
                    let _ = this.take_away(&left.id).await;
                }
            });
        }
    }
}
