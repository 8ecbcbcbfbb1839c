//! What a request costs `kubesim server`, with 10,000 pods in a directory: its CPU by criterion,
//! which here measures the server's and not the time, and latencies printed after. Clients are
//! connections of this process over HTTPS.
//!
//! `cargo bench --features server --bench front`

#[path = "common/https.rs"]
mod https;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BatchSize, Criterion, Throughput};
use https::Connection;
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const PODS: usize = 10_000;
const WATCHERS: usize = 1_000;
/// Changes that all watchers are told of, one after the other.
const EVENTS: usize = 20;
const WRITERS: usize = 16;

const PATH: &str = "/api/v1/namespaces/default/pods";

struct Server {
    process: Child,
    at: SocketAddr,
    config: Arc<ClientConfig>,
}

/// What the server keeps.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Server {
    fn start(place: &Place) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kubesim"))
            .args(["server", "--listen=127.0.0.1:0", "--without=scheduler,controllers"])
            .args(["--disable-admission-plugins=ServiceAccount", "--data-dir"])
            .arg(&place.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut at = None;
        for line in BufReader::new(process.stdout.take().expect("a pipe")).lines() {
            let line = line.expect("text");
            if let Some(rest) = line.strip_prefix("the API is at https://") {
                at = rest.split(',').next().and_then(|at| at.parse().ok());
            }
            if line.starts_with("try: ") {
                break;
            }
        }
        let kubeconfig = fs::read_to_string(place.0.join("admin.conf")).expect("a kubeconfig");
        let config = https::administrator(&kubeconfig);
        Server { process, at: at.expect("where it is"), config }
    }

    fn open(&self) -> Connection {
        Connection::open(self.at, &self.config)
    }

    /// Until it has read what it keeps.
    fn ready(&self) -> Connection {
        loop {
            let mut connection = self.open();
            if connection.ask("GET", "/readyz", "", "").0 == 200 {
                return connection;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Nanoseconds that a process has run, all its threads together.
fn cpu(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let of = |task: PathBuf| {
        let stat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|ran| ran.parse::<u64>().ok()).unwrap_or_default()
    };
    tasks.map(|task| of(task.expect("a task").path())).sum()
}

struct Cpu(u32);

impl Measurement for Cpu {
    type Intermediate = u64;
    type Value = u64;
    fn start(&self) -> u64 {
        cpu(self.0)
    }
    fn end(&self, start: u64) -> u64 {
        cpu(self.0) - start
    }
    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }
    fn zero(&self) -> u64 {
        0
    }
    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        &Micros
    }
}

struct Micros;

impl ValueFormatter for Micros {
    fn scale_values(&self, _: f64, values: &mut [f64]) -> &'static str {
        values.iter_mut().for_each(|value| *value /= 1e3);
        "us of CPU"
    }
    fn scale_throughputs(&self, _: f64, of: &Throughput, values: &mut [f64]) -> &'static str {
        let Throughput::Elements(count) = of else { return "" };
        values.iter_mut().for_each(|value| *value /= 1e3 * *count as f64);
        "us of CPU each"
    }
    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ns"
    }
}

/// A pod as one is: 2 KB of JSON.
fn pod(name: &str) -> String {
    let setting = |n| json!({"name": format!("SETTING_{n}"), "value": "a value of it"});
    let settings: Vec<Value> = (0..8).map(setting).collect();
    let container = |name: &str| {
        json!({"name": name, "image": format!("registry.example.com/team/{name}:v1.2.3"),
            "env": settings,
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 10},
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"},
                          "requests": {"cpu": "100m", "memory": "128Mi"}}})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": name, "labels": {"app": "web", "tier": "front"}},
           "spec": {"containers": [container("web"), container("sidecar")]}})
    .to_string()
}

fn made(connection: &mut Connection, name: &str) {
    let (code, answer) = connection.ask("POST", PATH, "", &pod(name));
    assert_eq!(code, 201, "{}", String::from_utf8_lossy(&answer));
}

fn changed(connection: &mut Connection, name: &str, number: usize) {
    let patch = json!({"metadata": {"annotations": {"changed": number.to_string()}}}).to_string();
    let path = format!("{PATH}/{name}");
    let (code, answer) = connection.ask("PATCH", &path, "application/merge-patch+json", &patch);
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
}

fn gone(connection: &mut Connection, name: &str) {
    let (code, _) = connection.ask("DELETE", &format!("{PATH}/{name}"), "", "");
    assert_eq!(code, 200);
}

fn costs(server: &Server) {
    let measurement = Cpu(server.process.id());
    let mut criterion = Criterion::default().with_measurement(measurement).configure_from_args();
    let mut group = criterion.benchmark_group("front");
    let mut connection = server.open();
    let number = Cell::new(0);
    let next = || {
        number.set(number.get() + 1);
        format!("more-{}", number.get())
    };
    group.bench_function("create", |bench| {
        bench.iter_batched(next, |name| made(&mut connection, &name), BatchSize::PerIteration);
    });
    for number in 1..=number.get() {
        gone(&mut connection, &format!("more-{number}"));
    }
    group.bench_function("get", |bench| {
        let path = format!("{PATH}/pod-77");
        bench.iter(|| assert_eq!(connection.ask("GET", &path, "", "").0, 200));
    });
    group.bench_function("patch", |bench| {
        bench.iter_batched(
            || number.replace(number.get() + 1),
            |number| changed(&mut connection, "pod-77", number),
            BatchSize::PerIteration,
        );
    });
    group.sample_size(20);
    group.bench_function("list of 10,000", |bench| {
        bench.iter(|| assert_eq!(connection.ask("GET", PATH, "", "").0, 200));
    });
    let mut watchers: Vec<Connection> = (0..WATCHERS).map(|_| server.open()).collect();
    let list = connection.ask("GET", &format!("{PATH}?limit=1"), "", "").1;
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version");
    for watcher in &mut watchers {
        watcher.watch(&format!("{PATH}?watch=1&resourceVersion={from}&timeoutSeconds=3000"));
    }
    group.sample_size(10);
    // A change is part of what is measured: some hundred us in (1,000 watchers) x (one event).
    group.throughput(Throughput::Elements((WATCHERS * EVENTS) as u64));
    group.bench_function("20 events to 1,000 watchers", |bench| {
        bench.iter(|| {
            for _ in 0..EVENTS {
                let at = number.replace(number.get() + 1);
                changed(&mut connection, "pod-78", at);
            }
            watchers.iter_mut().for_each(|watcher| watcher.events(EVENTS));
        });
    });
    group.finish();
    criterion.final_summary();
}

/// Many at once: creations, changes and deletions.
fn mixed(server: &Server) {
    const EACH: usize = 200;
    let (began, ran) = (Instant::now(), cpu(server.process.id()));
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let writer = |writer: usize| {
            let mut connection = server.open();
            let mut times = Vec::new();
            let mut timed = |write: &mut dyn FnMut()| {
                let began = Instant::now();
                write();
                times.push(began.elapsed());
            };
            for number in 0..EACH {
                let name = format!("mixed-{writer}-{number}");
                timed(&mut || made(&mut connection, &name));
                timed(&mut || changed(&mut connection, &name, number));
                timed(&mut || gone(&mut connection, &name));
            }
            times
        };
        let threads: Vec<_> =
            (0..WRITERS).map(|number| scope.spawn(move || writer(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect()
    });
    let (took, ran) = (began.elapsed(), cpu(server.process.id()) - ran);
    times.sort();
    let at = |part: usize| times[times.len() * part / 1000].as_secs_f64() * 1e3;
    println!(
        "mixed writes by {WRITERS}: {:.0} a second, {:.0} us of CPU each; p50 {:.2}, p99 {:.2}, \
         p99.9 {:.2} ms",
        times.len() as f64 / took.as_secs_f64(),
        ran as f64 / 1e3 / times.len() as f64,
        at(500),
        at(990),
        at(999),
    );
}

fn latencies(server: &Server) {
    let mut connection = server.open();
    let mut told = |what: &str, count: usize, ask: &mut dyn FnMut(&mut Connection, usize)| {
        let mut times: Vec<f64> = Vec::new();
        for number in 0..count {
            let began = Instant::now();
            ask(&mut connection, number);
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{what}: p50 {:.3}, p99 {:.3} ms", times[count / 2], times[count * 99 / 100]);
    };
    told("create, one after the other", 1000, &mut |connection, number| {
        made(connection, &format!("late-{number}"));
    });
    told("get", 1000, &mut |connection, number| {
        assert_eq!(connection.ask("GET", &format!("{PATH}/pod-{number}"), "", "").0, 200);
    });
    told("list of 11,000", 50, &mut |connection, _| {
        assert_eq!(connection.ask("GET", PATH, "", "").0, 200);
    });
}

fn idle(server: &Server) {
    let process = server.process.id();
    let before = cpu(process);
    thread::sleep(Duration::from_secs(10));
    let share = (cpu(process) - before) as f64 / 1e8;
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    println!("idle: {share:.3} % of a core, {} resident", resident.unwrap_or_default().trim());
}

fn main() {
    let place = std::env::temp_dir().join(format!("kubesim-front-{}", std::process::id()));
    fs::create_dir_all(&place).expect("a directory");
    let place = Place(place);
    let server = Server::start(&place);
    drop(server.ready());
    idle(&server);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let server = &server;
            scope.spawn(move || {
                let mut connection = server.open();
                for number in (writer..PODS).step_by(WRITERS) {
                    made(&mut connection, &format!("pod-{number}"));
                }
            });
        }
    });
    costs(&server);
    latencies(&server);
    mixed(&server);
    idle(&server);
    drop(server);
    let began = Instant::now();
    let server = Server::start(&place);
    drop(server.ready());
    println!("start to readyz, with what it keeps: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
}
