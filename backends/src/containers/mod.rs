//! The container port with a machine's own means: a pod is a network namespace with a veth into
//! the node's bridge, its containers are processes of one program that plays images. The model is
//! `sim/src/world/containers.rs`; both do what `actors/src/containers.rs` says, and
//! `tests/port_containers.rs` proves them alike.
//!
//! Everything ends with this process: the namespaces are held by its descriptors only, and a child
//! asks the kernel to be killed when its parent goes.

mod instance;
mod process;
mod sandbox;

use crate::port::{Answer, Closed, Local, Port};
use crate::probe::{Command, Failed};
use kubesim_actors::containers::commands;
use kubesim_actors::containers::{Asker, Delays, Runtime, Step};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{Container, Exit, Fault, Reply, Request};
use process::Process;
use smol_str::SmolStr;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::sleep;

pub use instance::Instance;
pub use process::{HOSTS, NETNS, PARENT, RESOLV_CONF};
pub use sandbox::Space;

/// What a container's process is started with.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// How long its image takes to be pulled when it is not there.
    pub pull: Duration,
    /// How large it is, in bytes.
    pub size: u64,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

type Launches = dyn Fn(&Container) -> Option<Launch>;

/// Which program plays images, and how it is told which.
pub struct Settings {
    pub program: PathBuf,
    /// `None`: there is no such image.
    pub launch: Box<Launches>,
}

/// The driver. Clones are the same one.
#[derive(Clone)]
pub struct Processes(Rc<Inner>);

struct Inner {
    settings: Settings,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    runtime: Runtime,
    spaces: BTreeMap<Uid, Rc<Space>>,
    processes: BTreeMap<(Uid, SmolStr, u32), Process>,
    /// Who waits for a reply. The observer stays.
    askers: BTreeMap<Asker, mpsc::UnboundedSender<Reply>>,
    next_asker: Asker,
    observer: Option<Asker>,
    /// Who asked for a container to be stopped.
    stops: BTreeMap<(Uid, SmolStr), Vec<Asker>>,
}

impl Processes {
    pub fn new(settings: Settings) -> Processes {
        Processes(Rc::new(Inner { settings, state: RefCell::default() }))
    }

    /// A pod's network namespace: `None` for one that has none of its own, or is not there.
    pub fn space(&self, pod: Uid) -> Option<Rc<Space>> {
        self.0.state.borrow().spaces.get(&pod).cloned()
    }

    /// Addresses that live sandboxes hold, and the MTUs of their cards.
    pub fn addresses(&self) -> Vec<(Ipv4Addr, u32)> {
        let state = self.0.state.borrow();
        let addresses = state.runtime.addresses().filter_map(|(pod, ip)| {
            let mtu = state.spaces.get(&pod).map_or(0, |space| space.mtu());
            Some((ip?, mtu))
        });
        addresses.collect()
    }

    /// `exec` in a container that runs. A probe succeeds once the ports are open: what the command
    /// would see is that the program answers. A hook's command is played.
    pub fn exec(&self, command: Command) -> Local<Result<(), Failed>> {
        let this = self.clone();
        Box::pin(async move {
            let Command { pod, container, words, purpose, .. } = command;
            let ended = |code| Failed::Ended { code, stdout: String::new(), stderr: String::new() };
            let Some((attempt, open)) = this.newest(pod, &container) else {
                return Err(Failed::Not("container not running".into()));
            };
            if !purpose.is_hook() {
                return if open { Ok(()) } else { Err(ended(1)) };
            }
            let played = commands::play(&words);
            sleep(played.takes).await;
            // It ends with its container.
            let stays = this.newest(pod, &container).is_some_and(|(now, _)| now == attempt);
            match if stays { played.code } else { 137 } {
                0 => Ok(()),
                code => Err(ended(code)),
            }
        })
    }

    /// The attempt of a container that runs, and whether its ports are open.
    fn newest(&self, pod: Uid, container: &str) -> Option<(u32, bool)> {
        let state = self.0.state.borrow();
        let mut of = state.processes.iter().filter(|((p, n, _), _)| *p == pod && n == container);
        of.next_back().map(|((_, _, attempt), process)| (*attempt, process.is_open()))
    }

    /// Everything ends at once, as when the machine's power goes.
    pub fn power_off(&self) {
        let mut state = self.0.state.borrow_mut();
        for process in std::mem::take(&mut state.processes).into_values() {
            process.kill();
        }
        *state = State::default();
    }
}

impl Port for Processes {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let (send, mut replies) = mpsc::unbounded_channel();
        let observes = matches!(request, Request::Observe | Request::ObservePulls);
        let (asker, steps) = self.0.request(&request, send);
        Inner::take(&self.0, steps);
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            while let Some(reply) = replies.recv().await {
                if answer.send(reply.clone()).await == Err(Closed) {
                    inner.unheard(asker, reply);
                    break;
                }
                if !observes {
                    break;
                }
            }
            inner.state.borrow_mut().askers.remove(&asker);
        })
    }
}

impl Inner {
    fn request(&self, request: &Request, send: mpsc::UnboundedSender<Reply>) -> (Asker, Vec<Step>) {
        let mut state = self.state.borrow_mut();
        let asker = state.next_asker;
        state.next_asker += 1;
        state.askers.insert(asker, send);
        let mut delays = Delays {
            sandbox: Duration::ZERO,
            start: Duration::ZERO,
            remove: Duration::ZERO,
            pull: Duration::ZERO,
            pulls: BTreeMap::new(),
            size: 0,
        };
        match request {
            Request::Observe => state.observer = Some(asker),
            Request::StartContainer { spec, .. } => match (self.settings.launch)(spec) {
                Some(launch) => (delays.pull, delays.size) = (launch.pull, launch.size),
                None => state.runtime.set_pullable(&spec.image, false),
            },
            Request::StopContainer { pod, name, .. } => {
                state.stops.entry((*pod, name.clone())).or_default().push(asker);
            }
            _ => {}
        }
        (asker, state.runtime.request(request, asker, &delays))
    }

    fn take(this: &Rc<Inner>, steps: Vec<Step>) {
        let mut failed = BTreeMap::new();
        for step in steps {
            match step {
                Step::Later { job, after } => {
                    let this = Rc::clone(this);
                    spawn_local(async move {
                        sleep(after).await;
                        let none = Delays { remove: Duration::ZERO, ..Delays::default() };
                        let steps = this.state.borrow_mut().runtime.finish(&job, &none);
                        Inner::take(&this, steps);
                    });
                }
                Step::CreateNamespace { pod, spec } => match Space::new(pod, &spec) {
                    Ok(space) => {
                        this.state.borrow_mut().spaces.insert(pod, Rc::new(space));
                    }
                    Err(why) => {
                        this.state.borrow_mut().runtime.forget(pod);
                        failed.insert(pod, SmolStr::from(why));
                    }
                },
                Step::StartProgram { pod, spec, .. } => Inner::start(this, pod, &spec),
                Step::KillProgram { pod, name, attempt, grace } => {
                    this.kill(pod, name, attempt, grace);
                }
                Step::RemoveNamespace { pod } => {
                    let space = this.state.borrow_mut().spaces.remove(&pod);
                    drop(space);
                }
                Step::Reply { to, reply: Reply::SandboxReady { pod, .. } }
                    if failed.contains_key(&pod) =>
                {
                    let (what, why) = ("sandbox".into(), failed[&pod].clone());
                    let fault = Fault::Sandbox;
                    this.reply(to, Reply::Refused { pod, what, why, fault });
                }
                Step::Reply { to, reply } => this.reply(to, reply),
            }
        }
    }

    fn start(this: &Rc<Inner>, pod: Uid, spec: &Arc<Container>) {
        let key = (pod, spec.name.clone(), spec.attempt);
        let launch = (this.settings.launch)(spec).unwrap_or_default();
        let space = this.state.borrow().spaces.get(&pod).cloned();
        let started = match &space {
            Some(space) => Process::start(&this.settings.program, launch, spec, space),
            None => Err("the pod has no sandbox".to_owned()),
        };
        let exit = match started {
            Ok((process, exit)) => {
                this.state.borrow_mut().processes.insert(key.clone(), process);
                exit
            }
            Err(why) => {
                let (send, exit) = oneshot::channel();
                let _ = send.send(not_started(why));
                exit
            }
        };
        let this = Rc::clone(this);
        spawn_local(async move {
            let exit = exit.await.unwrap_or_else(|_| Exit::of(255));
            let steps = {
                let mut state = this.state.borrow_mut();
                state.processes.remove(&key);
                state.runtime.exited(key.0, &key.1, key.2, exit)
            };
            Inner::take(&this, steps);
        });
    }

    fn kill(&self, pod: Uid, name: SmolStr, attempt: u32, grace: Duration) {
        let state = self.state.borrow();
        if let Some(process) = state.processes.get(&(pod, name, attempt)) {
            process.terminate(grace);
        }
    }

    fn reply(&self, to: Asker, reply: Reply) {
        let mut state = self.state.borrow_mut();
        let subject = match &reply {
            Reply::Exited { pod, name, .. } | Reply::NotRunning { pod, name } => {
                Some((*pod, name.clone()))
            }
            _ => None,
        };
        // An exit that somebody asked for is the answer to that.
        let stops = subject.and_then(|subject| state.stops.remove(&subject));
        let heard = stops.is_some_and(|stops| {
            let told = stops.iter().filter_map(|asker| state.askers.get(asker));
            told.filter(|asker| asker.send(reply.clone()).is_ok()).count() > 0
        });
        if !heard && let Some(asker) = state.askers.get(&to) {
            let _ = asker.send(reply);
        }
    }

    /// Who asked is gone: an exit is for whoever observes now.
    fn unheard(&self, asker: Asker, reply: Reply) {
        let state = self.state.borrow();
        let observer = state.observer.filter(|observer| *observer != asker);
        if matches!(reply, Reply::Exited { .. })
            && let Some(observer) = observer.and_then(|observer| state.askers.get(&observer))
        {
            let _ = observer.send(reply);
        }
    }
}

/// What containerd says of a program that cannot be started (errorStartReason and
/// errorStartExitCode, pkg/cri/server/helpers.go of containerd 1.6).
fn not_started(why: String) -> Exit {
    Exit { message: why.into(), ..Exit::because("StartError", 128) }
}
