//! The proxy's rules in Linux, in a network namespace of this process: needs root, and says so.

#![cfg(target_os = "linux")]

#[path = "common/cluster.rs"]
mod cluster;

use criterion::{BenchmarkId, Criterion};
use ipnet::Ipv4Net;
use kubesim_actors::objects::View;
use kubesim_actors::ports::rules::{Chains, FlatSettings, Reply, Request};
use kubesim_actors::proxy::{
    Basis, Compiled, Mode, Shape, compile, flat_overlay, loop_back, overlay, virtual_overlay,
};
use kubesim_backends::netlink::Netlink;
use kubesim_backends::port::{Answer, Port};
use kubesim_backends::rules::iptables::Programs;
use kubesim_backends::rules::nftables::whole_table;
use kubesim_backends::rules::{Rules, Settings, Written};
use nix::sched::{CloneFlags, unshare};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 10);
const OWNER: &str = "bench";
/// Of the cluster's endpoints none is on this node.
const NODE: &str = "n2";

/// A node whose proxy sees each version and whose kernel has the last one.
struct Node {
    runtime: Runtime,
    rules: Rules,
    shape: Shape,
    services: View,
    slices: View,
    basis: Option<Basis>,
}

impl Node {
    fn new(mode: Mode, programs: Programs, size: u32) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (services, slices) = cluster::views(size);
        let rules = Rules::new(Settings { programs });
        let shape = Shape { mode, cluster_cidr: PODS };
        let mut node = Node { runtime, rules, shape, services, slices, basis: None };
        node.sync();
        node
    }

    /// From a new version of the views to rules that stand.
    fn sync(&mut self) {
        let compiled = compile(&self.services, &self.slices, self.shape, self.basis.as_ref());
        self.apply(request(&compiled));
        let (services, slices) = (self.services.clone(), self.slices.clone());
        self.basis = Some(Basis { services, slices, compiled });
    }

    fn apply(&self, request: Request) {
        let done = Rc::new(Cell::new(None));
        let kept = Rc::clone(&done);
        let answer = Answer::new(move |reply| {
            kept.set(Some(reply));
            async { Ok(()) }
        });
        self.runtime.block_on(self.rules.perform(request, answer));
        let Some(Reply::Applied { result, .. }) = done.take() else { panic!("no answer") };
        result.expect("applied");
    }

    fn compiled(&self) -> &Compiled {
        &self.basis.as_ref().expect("synced").compiled
    }
    fn written(&self) -> Written {
        self.runtime.block_on(self.rules.written())
    }
}

fn request(compiled: &Compiled) -> Request {
    let owner = OWNER.into();
    match compiled.shape.mode {
        Mode::Iptables => Request::Apply {
            owner,
            base: Arc::clone(&compiled.base),
            shared: compiled.chains.clone(),
            local: overlay(compiled, NODE),
        },
        Mode::Nftables => Request::ApplyFlat {
            owner,
            settings: SETTINGS,
            shared: compiled.flat.set.clone(),
            local: flat_overlay(compiled, NODE),
        },
        Mode::Ipvs => Request::ApplyVirtual {
            owner,
            chains: Chains {
                base: Arc::clone(&compiled.base),
                shared: compiled.chains.clone(),
                local: loop_back(compiled, NODE),
            },
            shared: compiled.virtuals.set.clone(),
            local: virtual_overlay(compiled, NODE),
        },
    }
}

const SETTINGS: FlatSettings = FlatSettings { pods: PODS, mark: 0x4000 };

/// What becomes of the endpoints of the Service in the middle.
#[derive(Clone, Copy)]
enum Kind {
    /// Its one endpoint has another address.
    Moves,
    /// It gets a second endpoint, or loses it.
    Scales,
}

fn change(node: &mut Node, size: u32, kind: Kind) {
    let version = node.slices.version() + 1;
    let odd = (version % 2) as u8;
    let at = |last: u8| Ipv4Addr::new(10, 64, 0, last);
    let endpoints = match kind {
        Kind::Moves => vec![at(1 + odd)],
        Kind::Scales => (1..=1 + odd).map(at).collect(),
    };
    cluster::put_slice_of(&mut node.slices, size / 2, &endpoints, version);
}

fn one_change(
    criterion: &mut Criterion,
    name: &str,
    mode: Mode,
    programs: &Programs,
    sizes: &[u32],
) {
    for (kind, what) in [(Kind::Moves, "endpoint moves"), (Kind::Scales, "endpoint more or less")] {
        let mut group = criterion.benchmark_group(format!("{name}: one {what}"));
        group.sample_size(if mode == Mode::Nftables { 50 } else { 10 });
        for &size in sizes {
            let mut node = Node::new(mode, programs.clone(), size);
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter_custom(|times| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..times {
                        change(&mut node, size, kind);
                        let begun = Instant::now();
                        node.sync();
                        spent += begun.elapsed();
                    }
                    spent
                });
            });
            let before = node.written();
            for _ in 0..10 {
                change(&mut node, size, kind);
                node.sync();
            }
            let after = node.written();
            let bytes = (after.bytes - before.bytes) / 10;
            println!("{name}: one {what}, {size} Services: {bytes} bytes written a sync");
            assert_eq!((after.transactions - before.transactions, after.reads), (10, before.reads));
            clear(mode, programs);
        }
        group.finish();
    }
}

fn clear(mode: Mode, programs: &Programs) {
    match mode {
        Mode::Ipvs => sh(&["ipvsadm", "-C"]),
        Mode::Nftables => sh(&["nft", "delete", "table", "ip", OWNER]),
        Mode::Iptables => {
            for table in ["nat", "filter"] {
                let iptables = programs.save.replace("-save", "");
                sh(&[&iptables, "-t", table, "-F"]);
                sh(&[&iptables, "-t", table, "-X"]);
            }
        }
    }
}

fn sh(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().expect("a program");
    assert!(status.success(), "{words:?}");
}

/// All at once: through the driver, and the same bytes with nothing around them.
fn bulk(criterion: &mut Criterion) {
    const SIZE: u32 = 45_000;
    let programs = Programs::default();
    let node = Node::new(Mode::Nftables, programs.clone(), SIZE);
    println!("nftables: {SIZE} Services at once: {} bytes written", node.written().bytes);
    let shared = || node.compiled().flat.set.clone();
    let (nothing, fresh) = (Arc::new([]), || Rules::new(Settings::default()));
    let batch = whole_table(OWNER, SETTINGS, shared(), nothing);
    let mut group = criterion.benchmark_group("nftables: 45,000 Services");
    group.sample_size(10);
    group.bench_function("adopted by a new driver", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let again = Node { rules: fresh(), ..fork(&node) };
                let begun = Instant::now();
                again.apply(request(node.compiled()));
                spent += begun.elapsed();
                assert_eq!(again.written().transactions, 0);
            }
            spent
        });
    });
    group.bench_function("written by the driver", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                clear(Mode::Nftables, &programs);
                let again = Node { rules: fresh(), ..fork(&node) };
                let begun = Instant::now();
                again.apply(request(node.compiled()));
                spent += begun.elapsed();
            }
            spent
        });
    });
    group.bench_function("the same bytes, only sent", |bencher| {
        let mut netlink = Netlink::open().expect("a socket");
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                clear(Mode::Nftables, &programs);
                let begun = Instant::now();
                netlink.request(&batch, |_| {}).expect("taken");
                spent += begun.elapsed();
            }
            spent
        });
    });
    group.finish();
    clear(Mode::Nftables, &programs);
}

/// The same node with another runtime.
fn fork(node: &Node) -> Node {
    Node {
        runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
        rules: Rules::new(Settings::default()),
        shape: node.shape,
        services: node.services.clone(),
        slices: node.slices.clone(),
        basis: node.basis.clone(),
    }
}

fn needs() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("root".into());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("network namespaces: {error}"))?;
    for program in ["nft", "iptables-nft-save", "iptables-legacy-save"] {
        Command::new(program).arg("-V").output().map_err(|error| format!("{program}: {error}"))?;
    }
    Ok(())
}

fn main() {
    if let Err(missing) = needs() {
        println!("skipped: needs {missing}");
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let sizes = [1_000, 10_000, 45_000];
    one_change(&mut criterion, "nftables", Mode::Nftables, &Programs::default(), &sizes);
    bulk(&mut criterion);
    for backend in ["nft", "legacy"] {
        let programs = Programs::of_backend(backend);
        let name = format!("iptables-{backend}");
        one_change(&mut criterion, &name, Mode::Iptables, &programs, &sizes[..2]);
    }
    criterion.final_summary();
}
