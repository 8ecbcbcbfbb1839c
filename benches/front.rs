//! What a request costs `kubesim server`, with 10,000 pods in a directory: its CPU by criterion,
//! which here measures the server's and not the time, and latencies printed after. Clients are
//! connections of this process over HTTPS.
//!
//! `cargo bench --features server --bench front`

#[path = "common/https.rs"]
mod https;
#[path = "common/process.rs"]
mod process;

use criterion::{Criterion, Throughput};
use https::Connection;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process::{Cpu, cpu, resident, settled};
use rustls::ClientConfig;
use serde_json::{Value, json};
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
const STARTS: usize = 7;
/// A server of nothing but the API.
const ALONE: &[&str] =
    &["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];

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
    fn start(place: &Place, arguments: &[&str]) -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_kubesim"))
            .args(["server", "--listen=127.0.0.1:0", "--data-dir"])
            .arg(&place.0)
            .args(arguments)
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

impl Server {
    /// The CPU time that something costs it.
    fn spent(&self, work: impl FnOnce()) -> u64 {
        let before = settled(self.process.id());
        work();
        settled(self.process.id()) - before
    }

    /// Ends it as an administrator does.
    fn stop(mut self) {
        let process = i32::try_from(self.process.id()).expect("a process");
        kill(Pid::from_raw(process), Signal::SIGTERM).expect("it runs");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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

/// Each by one of these.
fn all_made(connections: &mut [Connection], names: &[String]) {
    let each = names.len().div_ceil(connections.len()).max(1);
    thread::scope(|scope| {
        for (connection, names) in connections.iter_mut().zip(names.chunks(each)) {
            scope.spawn(move || names.iter().for_each(|name| made(connection, name)));
        }
    });
}

fn changed(connection: &mut Connection, name: &str, number: usize) {
    let patch = json!({"metadata": {"annotations": {"changed": number.to_string()}}}).to_string();
    let path = format!("{PATH}/{name}");
    let (code, answer) = connection.ask("PATCH", &path, "application/merge-patch+json", &patch);
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
}

fn got(connection: &mut Connection, path: &str) -> Vec<u8> {
    let (code, answer) = connection.ask("GET", path, "", "");
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
    answer
}

fn gone(connection: &mut Connection, name: &str) {
    let (code, _) = connection.ask("DELETE", &format!("{PATH}/{name}"), "", "");
    assert_eq!(code, 200);
}

fn costs(server: &Server) {
    let mut criterion = Criterion::default().with_measurement(Cpu).configure_from_args();
    let mut group = criterion.benchmark_group("front");
    group.sample_size(20);
    let mut connection = server.open();
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    let mut more = Vec::new();
    group.bench_function("create", |bench| {
        bench.iter_custom(|count| {
            let names: Vec<String> = (0..count).map(|_| format!("more-{}", next())).collect();
            let spent = server.spent(|| names.iter().for_each(|name| made(&mut connection, name)));
            more.extend(names);
            spent
        });
    });
    more.iter().for_each(|name| gone(&mut connection, name));
    let mut writers: Vec<Connection> = (0..WRITERS).map(|_| server.open()).collect();
    let mut more = Vec::new();
    group.bench_function("create, 16 at once", |bench| {
        bench.iter_custom(|count| {
            let names: Vec<String> = (0..count).map(|_| format!("more-{}", next())).collect();
            let spent = server.spent(|| all_made(&mut writers, &names));
            more.extend(names);
            spent
        });
    });
    more.iter().for_each(|name| gone(&mut connection, name));
    group.bench_function("get", |bench| {
        let path = format!("{PATH}/pod-77");
        bench.iter_custom(|count| {
            server.spent(|| (0..count).for_each(|_| drop(got(&mut connection, &path))))
        });
    });
    group.bench_function("patch", |bench| {
        bench.iter_custom(|count| {
            server.spent(|| (0..count).for_each(|_| changed(&mut connection, "pod-77", next())))
        });
    });
    group.sample_size(10);
    group.bench_function("list of 10,000", |bench| {
        bench.iter_custom(|count| {
            server.spent(|| (0..count).for_each(|_| drop(got(&mut connection, PATH))))
        });
    });
    let mut watchers = watchers(server, &mut connection);
    // The changes are part of what is measured: each is a 1,000th of its events.
    group.throughput(Throughput::Elements((WATCHERS * EVENTS) as u64));
    let spread = |connection: &mut Connection, watchers: &mut [Connection], at: &[usize]| {
        at.iter().for_each(|at| changed(connection, "pod-78", *at));
        watchers.iter_mut().for_each(|watcher| watcher.events(EVENTS));
    };
    group.bench_function("20 events to 1,000 watchers", |bench| {
        bench.iter_custom(|count| {
            let mut spent = 0;
            for _ in 0..count {
                let at: Vec<usize> = (0..EVENTS).map(|_| next()).collect();
                spent += server.spent(|| spread(&mut connection, &mut watchers, &at));
            }
            spent
        });
    });
    group.finish();
    criterion.final_summary();
}

fn watchers(server: &Server, connection: &mut Connection) -> Vec<Connection> {
    let list: Value =
        serde_json::from_slice(&got(connection, &format!("{PATH}?limit=1"))).expect("JSON");
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{PATH}?watch=1&resourceVersion={from}&timeoutSeconds=3000");
    let watcher = |_| {
        let mut connection = server.open();
        connection.watch(&path);
        connection
    };
    (0..WATCHERS).map(watcher).collect()
}

/// Many at once: creations, changes and deletions.
fn mixed(server: &Server) {
    const EACH: usize = 200;
    let (began, ran) = (Instant::now(), settled(server.process.id()));
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
    let took = began.elapsed();
    let ran = settled(server.process.id()) - ran;
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
        got(connection, &format!("{PATH}/pod-{number}"));
    });
    told("list of 11,000", 50, &mut |connection, _| {
        got(connection, PATH);
    });
}

/// With no client but its own components.
fn idle(server: &Server, what: &str, seconds: u64) {
    let process = server.process.id();
    thread::sleep(Duration::from_secs(2));
    let before = cpu(process);
    thread::sleep(Duration::from_secs(seconds));
    let share = (cpu(process) - before) as f64 / 1e7 / seconds as f64;
    println!("idle for {seconds} s, {what}: {share:.3} % of a core, {:.1} MiB", resident(process));
}

/// From the start of the program to `/readyz`, in a directory that it left in order.
fn starts(place: &Place, what: &str, arguments: &[&str]) {
    let start = |_| {
        let began = Instant::now();
        let server = Server::start(place, arguments);
        drop(server.ready());
        let took = began.elapsed().as_secs_f64() * 1e3;
        server.stop();
        took
    };
    let mut times: Vec<f64> = (0..STARTS).map(start).collect();
    times.sort_by(f64::total_cmp);
    let (least, middle, most) = (times[0], times[STARTS / 2], times[STARTS - 1]);
    println!("start to readyz, {what}: {middle:.1} ms ({least:.1} to {most:.1})");
}

fn place(name: &str) -> Place {
    let place = std::env::temp_dir().join(format!("kubesim-front-{}-{name}", std::process::id()));
    fs::create_dir_all(&place).expect("a directory");
    Place(place)
}

fn fill(server: &Server) {
    let mut writers: Vec<Connection> = (0..WRITERS).map(|_| server.open()).collect();
    let names: Vec<String> = (0..PODS).map(|number| format!("pod-{number}")).collect();
    all_made(&mut writers, &names);
    let mut connection = server.open();
    let one = got(&mut connection, &format!("{PATH}/pod-0")).len();
    let all = got(&mut connection, PATH).len();
    println!("a pod: {} bytes sent, {one} kept; all: {all} bytes", pod("pod-0").len());
}

fn main() {
    let whole = place("whole");
    let server = Server::start(&whole, &[]);
    drop(server.ready());
    idle(&server, "with all its components", 60);
    server.stop();
    starts(&whole, "a cluster without nodes", &[]);
    let place = place("pods");
    let server = Server::start(&place, ALONE);
    fill(&server);
    server.stop();
    starts(&place, "10,000 pods", ALONE);
    let server = Server::start(&place, ALONE);
    drop(server.ready());
    idle(&server, "10,000 pods that nobody has asked for", 60);
    costs(&server);
    latencies(&server);
    mixed(&server);
    idle(&server, "after all that", 10);
}
