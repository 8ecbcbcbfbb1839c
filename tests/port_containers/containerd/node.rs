//! The kubelet itself on containerd: the actor of the simulator and of the lab under the production
//! host, and an API that is a map.

use super::{Containerd, on_containerd};
use crate::{IP, World};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, NodeCondition, PodStatus};
use kubesim_actors::kubelet::{Config, Effect, Event, Kubelet};
use kubesim_actors::objects::{Key, Kind, Object, Uid, View, time};
use kubesim_actors::ports::{api, files, network};
use kubesim_backends::cri::Cri;
use kubesim_backends::port::{Answer, Closed, Local, Port};
use kubesim_backends::probe::Probes;
use kubesim_backends::volumes::Volumes;
use kubesim_runtime::host::{self, AnswerTo, Driver, Hosted, Seen, Settings, SystemClock};
use kubesim_runtime::{Snapshot, Ticket, Wall};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

const NODE: &str = "n1";
const SUBNET_ENV: &str = "/run/flannel/subnet.env";
const LONG: Duration = Duration::from_secs(30);

fn config() -> Config {
    Config {
        node: NODE.into(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        interface: "eth0".into(),
        cpu_millis: 4000,
        memory_bytes: 8 << 30,
        max_pods: 110,
        cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
        cluster_domain: "cluster.local".to_owned(),
        subnet_env: SUBNET_ENV.into(),
        resolv_conf: "/etc/resolv.conf".into(),
        manifests: "".into(),
        events: false,
        volumes: "".into(),
        sweeps: false,
        lease_duration: Duration::from_secs(40),
        status_period: Duration::from_secs(300),
    }
}

/// Objects, and who is told of them.
#[derive(Default)]
struct Api {
    objects: BTreeMap<(Kind, Key), Arc<Object>>,
    version: u64,
    watches: Vec<(Kind, mpsc::UnboundedSender<View>)>,
}

impl Api {
    fn view(&self, kind: Kind) -> View {
        let mut view = Snapshot::empty(kind.number());
        for ((_, key), object) in self.objects.iter().filter(|((of, _), _)| *of == kind) {
            view.insert(key.clone(), Arc::clone(object), self.version);
        }
        view.advance(self.version);
        view
    }

    fn changed(&mut self, kind: Kind) {
        let view = self.view(kind);
        let told = |watch: &(Kind, mpsc::UnboundedSender<View>)| {
            watch.0 != kind || watch.1.send(view.clone()).is_ok()
        };
        self.watches.retain(told);
    }

    fn store(&mut self, mut object: Object) -> Arc<Object> {
        self.version += 1;
        object.version = self.version;
        if object.uid == Uid::NONE {
            object.uid = Uid::from_random(7, self.version);
        }
        let kind = object.kind();
        let object = Arc::new(object);
        self.objects.insert((kind, object.key.clone()), Arc::clone(&object));
        self.changed(kind);
        object
    }

    fn call(&mut self, request: &api::Request) -> Result<api::Reply, api::Error> {
        use api::{Error, Reason, Reply, Request};
        let (kind, key) = request.subject();
        let stored = self.objects.get(&(kind, key.clone())).cloned();
        match (request, stored) {
            (Request::Create { object }, None) => Ok(Reply::Object(self.store((**object).clone()))),
            (Request::Create { .. }, Some(_)) => Err(Error::new(Reason::AlreadyExists, "")),
            (_, None) => Err(Error::new(Reason::NotFound, "")),
            (Request::Update { object } | Request::UpdateStatus { object }, Some(stored)) => {
                if object.version != stored.version {
                    return Err(Error::new(Reason::Conflict, "modified"));
                }
                Ok(Reply::Object(self.store((**object).clone())))
            }
            (Request::Delete { .. }, Some(stored)) => {
                self.version += 1;
                self.objects.remove(&(kind, key));
                self.changed(kind);
                Ok(Reply::Object(stored))
            }
            (_, Some(stored)) => Ok(Reply::Object(stored)),
        }
    }
}

/// What is behind the kubelet's ports.
struct Ports {
    api: Rc<RefCell<Api>>,
    containers: Cri,
    probes: Probes,
    volumes: Volumes,
}

impl Driver<Kubelet> for Ports {
    fn perform(
        &self,
        _: Ticket,
        effect: Effect,
        answer: AnswerTo<Kubelet>,
    ) -> impl Future<Output = ()> + 'static {
        let work: Local<()> = match effect {
            Effect::Api(effect) => ask(&self.api, effect, to(answer, Event::Api)),
            Effect::Container(request) => {
                self.containers.perform(request, to(answer, Event::Container))
            }
            Effect::Probe(request) => self.probes.perform(request, to(answer, Event::Probe)),
            Effect::Files(request) => read(request, to(answer, Event::Files)),
            Effect::Volumes(request) => self.volumes.perform(request, to(answer, Event::Volumes)),
            Effect::Rules(request) => unreachable!("no pod here has a host port: {request:?}"),
            Effect::Network(_) => Box::pin(async move {
                let _ = answer.send(Event::Network(addresses())).await;
                pending().await
            }),
        };
        work
    }
}

/// An answer's way back, as the event it is to the kubelet.
fn to<R: 'static>(answer: AnswerTo<Kubelet>, event: fn(R) -> Event) -> Answer<R> {
    let answer = Rc::new(answer);
    Answer::new(move |reply| {
        let (answer, event) = (Rc::clone(&answer), event(reply));
        async move { answer.send(event).await.map_err(|_| Closed) }
    })
}

fn ask(api: &Rc<RefCell<Api>>, effect: api::Effect, answer: Answer<api::Event>) -> Local<()> {
    let mut held = api.borrow_mut();
    match effect {
        api::Effect::Watch { kind, scope } => {
            let (send, mut views) = mpsc::unbounded_channel();
            let _ = send.send(held.view(kind));
            held.watches.push((kind, send));
            Box::pin(async move {
                while let Some(view) = views.recv().await {
                    let news = api::News::View { kind, scope: scope.clone(), view };
                    if answer.send(api::Event::News(news)).await.is_err() {
                        return;
                    }
                }
            })
        }
        api::Effect::Call { tag, request } => {
            let result = held.call(&request);
            Box::pin(async move {
                let _ = answer.send(api::Event::Answer(api::Answer { tag, result })).await;
            })
        }
        api::Effect::Dial { .. } => Box::pin(async {}),
    }
}

fn read(request: files::Request, answer: Answer<files::Reply>) -> Local<()> {
    Box::pin(async move {
        if let files::Request::Watch { path } = request {
            let subnet = path == SUBNET_ENV;
            let text = if subnet { "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n" } else { "" };
            let _ = answer.send(files::Reply::Content { path, content: Some(text.into()) }).await;
        }
        pending().await
    })
}

fn addresses() -> network::Reply {
    let link = network::Link {
        name: "eth0".into(),
        index: 2,
        kind: network::LinkKind::Uplink,
        mac: network::Mac::default(),
        mtu: 1500,
        up: true,
        carrier: true,
        master: None,
        addresses: vec![Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 11), 24)],
        forwarding: true,
        default_route: true,
    };
    network::Reply::State(Arc::new(network::State { links: vec![link], ..Default::default() }))
}

struct Node {
    api: Rc<RefCell<Api>>,
    kubelet: Hosted<Kubelet>,
    /// Why it failed, each time.
    failures: Rc<RefCell<Vec<String>>>,
}

impl Node {
    fn on(world: &Containerd) -> Node {
        let containers = world.driven.driver.clone();
        let volumes = Volumes::new(world.machine.data(), "/");
        world.driven.block_on(async { Node::start(containers, volumes) })
    }

    /// Within tokio.
    fn start(containers: Cri, volumes: Volumes) -> Node {
        let api = Rc::new(RefCell::new(Api::default()));
        let failures = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&failures);
        let observer = Box::new(move |seen| {
            if let Seen::Failed { cause, .. } = seen {
                noted.borrow_mut().push(cause);
            }
        });
        let inside = containers.clone();
        let probes = Probes::new(move |command| inside.exec(command));
        let ports = Ports { api: Rc::clone(&api), containers, probes, volumes };
        let settings = Settings { seed: 1, index: 0, steps: false, observer };
        let kubelet = host::spawn::<Kubelet>(config(), ports, SystemClock::new(), settings);
        Node { api, kubelet, failures }
    }

    fn apply(&self, name: &str, container: Value, policy: &str) {
        let mut spec = json!({ "name": "c", "image": "shell", "imagePullPolicy": "IfNotPresent" });
        let more = container.as_object().expect("an object").clone();
        spec.as_object_mut().expect("an object").extend(more);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "nodeName": NODE, "restartPolicy": policy, "containers": [spec] },
        });
        self.api.borrow_mut().store(Object::from_json(pod).expect("a pod"));
    }

    /// As `kubectl delete` does.
    fn delete(&self, name: &str) {
        let key = (Kind::Pod, Key::new("default", name));
        let mut api = self.api.borrow_mut();
        let mut pod = (*api.objects[&key]).clone();
        let meta = Arc::make_mut(&mut pod.meta);
        meta.deletion_timestamp = Some(time(Wall::from_unix_secs(1_700_000_000)));
        meta.deletion_grace_period_seconds = Some(5);
        api.store(pod);
    }

    fn status(&self, name: &str) -> Option<PodStatus> {
        let api = self.api.borrow();
        let pod = api.objects.get(&(Kind::Pod, Key::new("default", name)))?;
        Some((**pod.pod()?.1).clone())
    }

    fn ready(&self) -> Option<NodeCondition> {
        let api = self.api.borrow();
        let (_, status) = api.objects.get(&(Kind::Node, Key::cluster(NODE)))?.node()?;
        status.conditions.iter().flatten().find(|c| c.type_ == "Ready").cloned()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Node) -> Option<bool>) {
        let deadline = Instant::now() + LONG;
        while holds(self) != Some(true) {
            if Instant::now() >= deadline {
                panic!("{what}: {:#?}", self.api.borrow().objects);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn container(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.as_ref()?.first()
}

fn state(status: &PodStatus) -> Option<&ContainerState> {
    container(status)?.state.as_ref()
}

fn is_ready(node: &Node, name: &str) -> Option<bool> {
    Some(container(&node.status(name)?)?.ready)
}

fn waits_for(node: &Node, name: &str, reasons: &[&str]) -> Option<bool> {
    let status = node.status(name)?;
    let reason = state(&status)?.waiting.as_ref()?.reason.clone()?;
    Some(reasons.contains(&reason.as_str()))
}

fn last_end(node: &Node, name: &str) -> Option<(i32, String)> {
    let status = node.status(name)?;
    let end = container(&status)?.last_state.as_ref()?.terminated.clone()?;
    Some((end.exit_code, end.reason?))
}

#[test]
fn a_kubelet_runs_a_pod_survives_its_own_crash_and_ends_it() {
    on_containerd(|world| {
        let node = Node::on(world);
        let ready = json!({ "exec": { "command": ["/bin/busybox", "true"] }, "periodSeconds": 1 });
        node.apply("web", json!({ "image": "echo", "readinessProbe": ready }), "Always");
        world.driven.block_on(node.until("it is ready", |node| is_ready(node, "web")));
        let status = node.status("web").expect("a pod");
        assert_eq!(status.pod_ip, Some(IP.to_string()));
        assert!(world.accepts(IP, 7000));

        let tasks = world.machine.tasks();
        world.driven.block_on(async {
            node.kubelet.kill("a test").await;
            // Its supervisor starts it again in a second, and it looks around.
            sleep(Duration::from_secs(4)).await;
        });
        assert_eq!(world.machine.tasks(), tasks);
        let after = node.status("web").expect("a pod");
        assert!(container(&after).is_some_and(|c| c.ready && c.restart_count == 0), "{after:?}");
        assert_eq!(
            container(&after).unwrap().container_id,
            container(&status).unwrap().container_id
        );

        node.delete("web");
        world.driven.block_on(node.until("it is gone", |node| Some(node.status("web").is_none())));
        assert!(!world.accepts(IP, 7000));
        assert_eq!(*node.failures.borrow(), ["a test"]);
    });
}

#[test]
fn what_goes_wrong_has_the_reason_that_people_know() {
    on_containerd(|world| {
        let node = Node::on(world);
        let until = |what, holds: fn(&Node) -> Option<bool>| {
            world.driven.block_on(node.until(what, holds));
        };
        node.apply("never", json!({ "image": "absent", "imagePullPolicy": "Never" }), "Always");
        until("no pull", |node| waits_for(node, "never", &["ErrImageNeverPull"]));
        node.apply("nowhere", json!({ "image": "absent:1" }), "Always");
        until("no image", |node| waits_for(node, "nowhere", &["ErrImagePull"]));
        until("back-off", |node| waits_for(node, "nowhere", &["ImagePullBackOff"]));
        let not_root = json!({ "securityContext": { "runAsNonRoot": true } });
        node.apply("rooted", not_root, "Always");
        until("root", |node| waits_for(node, "rooted", &["CreateContainerConfigError"]));
        node.apply("wrong", json!({ "command": ["/nothing"] }), "Always");
        until("no start", |node| Some(last_end(node, "wrong")? == (128, "StartError".to_owned())));
        until("a loop", |node| waits_for(node, "wrong", &["CrashLoopBackOff"]));
        node.apply("once", json!({ "command": ["/bin/sh", "-c", "exit 3"] }), "Never");
        until("failed", |node| Some(node.status("once")?.phase? == "Failed"));
        let status = node.status("once").expect("a pod");
        let end = state(&status).and_then(|state| state.terminated.clone()).expect("an end");
        assert_eq!((end.exit_code, end.reason.as_deref()), (3, Some("Error")));
        assert_eq!(*node.failures.borrow(), Vec::<String>::new());
    });
}

#[test]
fn a_node_whose_runtime_hangs_is_not_ready() {
    on_containerd(|world| {
        let node = Node::on(world);
        let ready = |node: &Node| Some(node.ready()?.status == "True");
        world.driven.block_on(node.until("ready", ready));
        world.machine.run("kill -STOP $runtime");
        let down = |node: &Node| {
            let condition = node.ready()?;
            let message = condition.message?;
            Some(condition.status == "False" && message.starts_with("container runtime is down: "))
        };
        world.driven.block_on(node.until("down", down));
        world.machine.run("kill -CONT $runtime");
        world.driven.block_on(node.until("ready again", ready));
        assert_eq!(*node.failures.borrow(), Vec::<String>::new());
    });
}
