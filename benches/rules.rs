//! Services become packet rules: all of them, and after one endpoint changed. The second is what a
//! cluster does all day; it must not grow with the number of Services.

#[path = "common/allocator.rs"]
mod allocator;
#[path = "common/cluster.rs"]
mod cluster;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::Ipv4Net;
use kubesim_actors::objects::View;
use kubesim_actors::ports::rules::{Chain, ChainKey, ChainSet, Reply, Request, Table};
use kubesim_actors::proxy::{compile, compile_anew};
use kubesim_runtime::Time;
use kubesim_sim::kernel::netfilter::Netfilter;
use std::net::Ipv4Addr;
use std::sync::Arc;

const POD_NETWORK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 10);
const SIZES: [u32; 2] = [1_000, 10_000];

fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("proxy: all Services");
    group.sample_size(10);
    for size in SIZES {
        let (services, slices) = cluster::views(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| compile_anew(&services, &slices, POD_NETWORK, None));
        });
    }
    group.finish();
}

/// The slice of the Service in the middle moves between two endpoints.
fn one_endpoint(slices: &mut View, size: u32) {
    let version = slices.version() + 1;
    let endpoint = Ipv4Addr::new(10, 64, 0, 1 + (version % 2) as u8);
    cluster::put_slice(slices, size / 2, endpoint, version);
}

fn one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("proxy: one endpoint changed");
    for size in SIZES {
        let (services, mut slices) = cluster::views(size);
        let first = compile(&services, &slices, POD_NETWORK, None);
        assert_eq!(first.services(), size as usize);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let change = || {
                one_endpoint(&mut slices, size);
                slices.clone()
            };
            let compile = |slices: View| compile(&services, &slices, POD_NETWORK, None);
            bencher.iter_batched(change, compile, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// A request that applies `shared` as the proxy would.
fn apply(compiled: &kubesim_actors::proxy::Compiled, shared: ChainSet) -> Request {
    let (owner, base) = ("proxy".into(), compiled.base.clone());
    Request::Apply { owner, base, shared, local: Arc::new([]) }
}

/// A Service's chain that jumps to its endpoint, and the same chain with a rule twice.
fn chain_in_two_forms(chains: &ChainSet) -> (ChainKey, [Arc<Chain>; 2]) {
    let of_service =
        |key: &ChainKey| key.table == Table::Nat && key.name.as_str().starts_with("KUBE-SVC-");
    let (key, chain) = chains.iter().find(|(key, _)| of_service(key)).expect("a Service's chain");
    let mut rules = chain.rules.clone();
    rules.extend(chain.rules.last().cloned());
    (key.clone(), [chain.clone(), Arc::new(Chain { rules })])
}

fn kernel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernel: one chain changed");
    for size in SIZES {
        let (services, slices) = cluster::views(size);
        let compiled = compile(&services, &slices, POD_NETWORK, None);
        let mut netfilter = Netfilter::default();
        let mut chains = compiled.chains.clone();
        let reply = netfilter.request(&apply(&compiled, chains.clone()), Time::ZERO);
        assert!(matches!(reply, Reply::Applied { result: Ok(()), .. }), "{reply:?}");
        let (key, forms) = chain_in_two_forms(&chains);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let change = || {
                let version = chains.version() + 1;
                chains.insert(key.clone(), forms[(version % 2) as usize].clone(), version);
                apply(&compiled, chains.clone())
            };
            let apply = |request: Request| netfilter.request(&request, Time::ZERO);
            bencher.iter_batched(change, apply, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, all, one, kernel);
criterion_main!(benches);
