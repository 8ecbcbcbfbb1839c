//! What a durable write costs: the store in a directory, and etcd beside it (feature `etcd`, where
//! the program is installed). Criterion has the times; latencies, CPU and bytes are printed after.
//!
//! `cargo bench -p kubesim-backends --features etcd --bench store`

use criterion::{Criterion, Throughput};
use kubesim_actors::objects::{Key, Kind, Object};
use kubesim_actors::ports::store::{Op, Reply, Request};
use kubesim_backends::port::{Answer, Port};
use kubesim_backends::store::embedded::{Embedded, Options};
use serde_json::json;
use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

#[cfg(feature = "etcd")]
#[path = "../tests/common/etcd.rs"]
mod etcd;

type Written = (Arc<Object>, u64);
type Driver = Rc<dyn Port<Request = Request, Reply = Reply>>;

/// Objects a writer writes in turn.
const KEYS: usize = 16;
const MANY: usize = 64;

struct Subject {
    name: &'static str,
    driver: Driver,
    /// The processes that do the work: this one, or that one as well.
    others: Vec<u32>,
    /// Each writer's, and the revision it is at.
    objects: Vec<RefCell<Vec<Written>>>,
    runtime: Runtime,
    local: LocalSet,
}

/// A pod as one is: 2 KB of JSON.
fn pod(writer: usize, number: usize) -> Arc<Object> {
    let setting = |n| json!({"name": format!("SETTING_{n}"), "value": "a value of it"});
    let settings: Vec<_> = (0..8).map(setting).collect();
    let container = |name: &str| {
        json!({"name": name, "image": format!("registry.example.com/team/{name}:v1.2.3"),
            "env": settings,
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 10},
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"},
                          "requests": {"cpu": "100m", "memory": "128Mi"}}})
    };
    let since = "2026-11-26T12:00:00Z";
    let condition = |kind| json!({"type": kind, "status": "True", "lastTransitionTime": since});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("web-{writer}-{number}"), "namespace": "default",
            "uid": "ffffffff-ffff-4fff-8123-456789abcdef",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"}},
        "spec": {"containers": [container("web"), container("sidecar")], "nodeName": "node-1"},
        "status": {"phase": "Running", "podIP": "10.244.1.17", "conditions": conditions}});
    Arc::new(Object::from_json(pod).expect("a pod"))
}

impl Subject {
    fn new(name: &'static str, others: Vec<u32>, open: impl FnOnce() -> Driver) -> Subject {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, local) = (runtime.expect("a runtime"), LocalSet::new());
        let driver = local.block_on(&runtime, async { open() });
        let objects = |writer| (0..KEYS).map(|n| (pod(writer, n), 0)).collect::<Vec<_>>();
        let objects = (0..MANY).map(|writer| RefCell::new(objects(writer))).collect();
        Subject { name, driver, others, objects, runtime, local }
    }

    async fn write(&self, writer: usize, turn: usize) -> Duration {
        let began = Instant::now();
        let (value, version) = self.objects[writer].borrow()[turn % KEYS].clone();
        let key = (Kind::Pod, Key::clone(&value.key));
        let compare = vec![(key.clone(), version)];
        let then = vec![Op::Put { key, value }];
        let told = Rc::new(RefCell::new(None));
        let kept = Rc::clone(&told);
        let answer = Answer::new(move |reply| {
            kept.replace(Some(reply));
            async { Ok(()) }
        });
        self.driver.perform(Request::Txn { id: 1, compare, then }, answer).await;
        let reply = told.take();
        let Some(Reply::Committed { revision, .. }) = reply else { panic!("{reply:?}") };
        self.objects[writer].borrow_mut()[turn % KEYS].1 = revision;
        began.elapsed()
    }

    /// So many transactions by so many writers: how long all took, and each.
    fn run(&self, writers: usize, count: u64) -> (Duration, Vec<Duration>) {
        let each = |writer: usize| async move {
            let mut took = Vec::new();
            for turn in (writer as u64..count).step_by(writers) {
                took.push(self.write(writer, turn as usize / writers).await);
            }
            took
        };
        let began = Instant::now();
        let all = futures_util::future::join_all((0..writers).map(each));
        let took = self.local.block_on(&self.runtime, all);
        (began.elapsed(), took.concat())
    }

    fn used(&self) -> Used {
        let mut used = Used::of("self");
        for process in &self.others {
            let other = Used::of(&process.to_string());
            used.cpu += other.cpu;
            used.written += other.written;
        }
        used
    }

    fn tell(&self, writers: usize, count: u64) {
        let before = self.used();
        let (all, mut each) = self.run(writers, count);
        let after = self.used();
        each.sort();
        let at = |percent: usize| each[(each.len() - 1) * percent / 100];
        println!(
            "{}, {writers} at once: {:.0} a second; half within {:.2?}, 99 of 100 within {:.2?}; \
             CPU {:.0} µs and {:.1} KiB written each",
            self.name,
            count as f64 / all.as_secs_f64(),
            at(50),
            at(99),
            (after.cpu - before.cpu).as_secs_f64() * 1e6 / count as f64,
            (after.written - before.written) as f64 / 1024.0 / count as f64,
        );
    }
}

struct Used {
    cpu: Duration,
    written: u64,
}

impl Used {
    /// Of a process, from /proc (proc(5)): in hundredths of a second, and what it had written to
    /// the disk.
    fn of(process: &str) -> Used {
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}"));
        let stat = read("stat").expect("its stat");
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        let io = read("io").expect("its io");
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        let written = written.and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
        Used { cpu: Duration::from_millis(ticks * 10), written }
    }
}

fn measure(criterion: &mut Criterion, subject: &Subject) {
    let mut group = criterion.benchmark_group(format!("store, {}", subject.name));
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for writers in [1, MANY] {
        group.bench_function(format!("a transaction, {writers} at once"), |bencher| {
            bencher.iter_custom(|count| subject.run(writers, count).0);
        });
    }
    group.finish();
    subject.tell(1, 2000);
    subject.tell(MANY, 20_000);
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    println!("a pod is {} bytes", pod(0, 0).to_bytes().len());
    let folder: PathBuf =
        std::env::temp_dir().join(format!("kubesim-bench-{}", std::process::id()));
    let open = || Embedded::open(&folder, Options::default()).expect("a store");
    measure(&mut criterion, &Subject::new("a directory", Vec::new(), || Rc::new(open())));
    let _ = fs::remove_dir_all(&folder);
    #[cfg(feature = "etcd")]
    if etcd::installed() {
        use kubesim_backends::store::etcd::{Etcd, Options};
        let server = etcd::Server::start(23790);
        let options = Options::new([server.endpoint()]);
        let open = || Etcd::new(options).expect("options");
        let others = server.process().into_iter().collect();
        measure(&mut criterion, &Subject::new("etcd", others, || Rc::new(open())));
    }
    criterion.final_summary();
}
