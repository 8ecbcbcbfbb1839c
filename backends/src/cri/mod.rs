//! The container port by the CRI: containerd, or any runtime that speaks v1 of it at a socket
//! (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto).
//!
//! The runtime is what remembers. Whatever is asked, the driver first looks at what is there, found
//! by the labels that upstream's kubelet gives it; so it may end and start anew at any time, and no
//! container notices. What it keeps to itself is which news the kubelet has been told (`watch.rs`).
//!
//! A request about a pod waits for those before it; only the time that a container takes to stop
//! is nobody else's. What cannot be refused (a removal, a stop) is tried until it is done.

mod client;
mod config;
mod container;
mod hosts;
mod image;
mod last_words;
mod leftovers;
mod list;
mod messages;
mod sandbox;
mod stop;
mod streaming;
mod usage;
mod watch;

pub use self::streaming::{Refused, Streams, Wanted, Which};
pub use self::usage::Used;

use self::client::{Client, Failure};
use self::messages::{Call, StatusRequest};
use self::watch::Watch;
use crate::port::{Answer, Closed, Local, Port};
use crate::probe::{Command, Failed};
use crate::turn::Turns;
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::container::{Fault, Reply, Request};
use smol_str::SmolStr;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, OwnedMutexGuard};

/// Where the runtime is, and how much time it has.
#[derive(Clone, Debug)]
pub struct Settings {
    pub socket: PathBuf,
    /// Below which folder the containers' logs are.
    pub logs: PathBuf,
    /// Below which folder each pod has one of its own, for what its containers leave. Beside it is
    /// one that says which pods were started.
    pub pods: PathBuf,
    /// The machine's own hosts file, for pods on its network.
    pub hosts: PathBuf,
    /// The cgroup of all pods.
    pub cgroup: String,
    /// For what is only asked or told.
    pub patience: Duration,
    /// How often the driver looks for what ended.
    pub relist: Duration,
    /// A runtime that has not answered for so long is down.
    pub away: Duration,
}

impl Settings {
    /// Upstream's values: `--runtime-request-timeout`, `genericPlegRelistPeriod` and
    /// `maxWaitForContainerRuntime` (pkg/kubelet/kubelet.go).
    pub fn new(socket: impl Into<PathBuf>) -> Settings {
        Settings {
            socket: socket.into(),
            logs: PathBuf::from("/var/log/pods"),
            pods: PathBuf::from("/var/lib/kubelet/pods"),
            hosts: PathBuf::from("/etc/hosts"),
            cgroup: "/kubepods".to_owned(),
            patience: Duration::from_secs(120),
            relist: Duration::from_secs(1),
            away: Duration::from_secs(30),
        }
    }
}

/// The driver. Clones are the same one.
#[derive(Clone)]
pub struct Cri(Rc<Inner>);

struct Inner {
    settings: Settings,
    client: Client,
    turns: RefCell<BTreeMap<Uid, Rc<Turns<()>>>>,
    watch: RefCell<Watch>,
    /// Who is told of pulls.
    pulls: RefCell<Option<UnboundedSender<Reply>>>,
    /// Somebody began to observe and waits for a list.
    asked: Notify,
    /// The runtime was found to be down: who waits without a deadline gives up.
    down: Notify,
}

/// Between two attempts at what must come to be.
const AGAIN: Duration = Duration::from_secs(1);

impl Cri {
    pub fn new(settings: Settings) -> Cri {
        let client = Client::new(settings.socket.clone());
        Cri(Rc::new(Inner {
            settings,
            client,
            turns: RefCell::default(),
            watch: RefCell::default(),
            pulls: RefCell::default(),
            asked: Notify::new(),
            down: Notify::new(),
        }))
    }

    /// Runs a command in a container that runs.
    pub fn exec(&self, command: Command) -> Local<Result<(), Failed>> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move { inner.exec(command).await })
    }

    /// Where the runtime looks for CNI plugins and for networks, of a runtime that says so:
    /// containerd shows its configuration (`Status` in pkg/cri/server/status.go, `CniConfig` in
    /// pkg/cri/config/config.go). The error is for people.
    pub async fn cni_places(&self) -> Result<Option<CniPlaces>, String> {
        let asked = self.0.call(StatusRequest { verbose: true }).await;
        let info = asked.map_err(|failure| failure.to_string())?.info;
        let config = info.get("config").map(String::as_str).unwrap_or_default();
        Ok(CniPlaces::of(config))
    }
}

/// Folders of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniPlaces {
    pub plugins: PathBuf,
    pub networks: PathBuf,
}

impl CniPlaces {
    /// By the configuration that containerd shows, as JSON.
    fn of(config: &str) -> Option<CniPlaces> {
        let config: serde_json::Value = serde_json::from_str(config).ok()?;
        let folder = |name: &str| {
            let text = config["cni"][name].as_str()?;
            (!text.is_empty()).then(|| PathBuf::from(text))
        };
        Some(CniPlaces { plugins: folder("binDir")?, networks: folder("confDir")? })
    }
}

impl Port for Cri {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let inner = Rc::clone(&self.0);
        let this = Rc::clone(&self.0);
        let work: Local<Reply> = match request {
            Request::Observe => return Box::pin(Inner::observe(inner, answer)),
            Request::ObservePulls => return Box::pin(Inner::observe_pulls(inner, answer)),
            Request::RunSandbox { pod, spec } => {
                let turn = this.turn(pod);
                Box::pin(async move {
                    let _turn = turn.await;
                    this.run_sandbox(pod, &spec).await
                })
            }
            Request::RemoveSandbox { pod } => {
                let turn = this.turn(pod);
                Box::pin(async move {
                    let _turn = turn.await;
                    this.remove_sandbox(pod).await
                })
            }
            Request::StartContainer { pod, spec } => {
                let turn = this.turn(pod);
                Box::pin(async move {
                    let _turn = turn.await;
                    this.start_container(pod, &spec).await
                })
            }
            Request::StopContainer { pod, name, grace } => {
                let turn = this.turn(pod);
                Box::pin(async move { this.stop_container(pod, name, grace, turn).await })
            }
        };
        Box::pin(async move {
            let reply = work.await;
            let exit = matches!(reply, Reply::Exited { .. }).then(|| reply.clone());
            if answer.send(reply).await == Err(Closed) {
                // An exit is for whoever observes now.
                exit.into_iter().for_each(|exit| inner.tell(exit));
            }
            inner.turns.borrow_mut().retain(|_, turns| Rc::strong_count(turns) > 1);
        })
    }
}

impl Inner {
    /// The place in the queue of a pod.
    fn turn(&self, pod: Uid) -> Local<Turn> {
        let turns = Rc::clone(
            self.turns.borrow_mut().entry(pod).or_insert_with(|| Rc::new(Turns::new(()))),
        );
        let place = turns.take();
        Box::pin(async move { Turn { _held: place.await, _queue: turns } })
    }

    async fn call<C: Call>(&self, request: C) -> Result<C::Answer, Failure> {
        self.client.call(request, self.settings.patience).await
    }
}

/// While it is there, others wait.
struct Turn {
    _held: OwnedMutexGuard<()>,
    /// Keeps the queue while somebody is in it.
    _queue: Rc<Turns<()>>,
}

fn refused(pod: Uid, what: &str, fault: Fault, why: impl Into<SmolStr>) -> Reply {
    Reply::Refused { pod, what: SmolStr::from(what), why: why.into(), fault }
}

#[cfg(test)]
mod tests {
    use super::CniPlaces;

    #[test]
    fn where_containerd_looks_is_in_what_it_shows() {
        let debian =
            r#"{"cni":{"binDir":"/usr/lib/cni","confDir":"/etc/cni/net.d","maxConfNum":1}}"#;
        let places = CniPlaces::of(debian).expect("both");
        assert_eq!(places.plugins.to_str(), Some("/usr/lib/cni"));
        assert_eq!(places.networks.to_str(), Some("/etc/cni/net.d"));
        assert_eq!(CniPlaces::of(r#"{"cni":{"binDir":"","confDir":"/etc/cni/net.d"}}"#), None);
        assert_eq!(CniPlaces::of(r#"{"sandboxImage":"pause"}"#), None);
    }
}
