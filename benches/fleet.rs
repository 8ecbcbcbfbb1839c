//! `scenarios/fleet.toml`, made smaller, from the first machine's power-on to 90 s of virtual time,
//! by which all nodes and pods are ready.

#[path = "common/allocator.rs"]
mod allocator;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kubesim_runtime::Time;
use kubesim_sim::scenario::Scenario;
use kubesim_sim::{Observer, Options, Outcome, Report};
use std::path::Path;
use std::time::Duration;

struct Silent;

impl Observer for Silent {
    fn line(&mut self, _: Time, _: &str, _: &str) {}
    fn progress(&mut self, _: Time, _: Duration, _: u64) {}
}

const NODES: u32 = 200;

/// Ten pods a node, as in the whole one.
fn scenario() -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/fleet.toml");
    let set = |path: &str, value: String| (path.to_owned(), value);
    let sets = [
        set("node.n.count", NODES.to_string()),
        set("workload.web.generate.deployments", (NODES / 2).to_string()),
        set("expect.\"every pod is ready within 5 minutes\".by", "90s".to_owned()),
    ];
    Scenario::load(&path, &sets, None).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn boot(scenario: &Scenario) -> Report {
    let until = Some(Duration::from_secs(90));
    let options = Options { seed: 1, until, ..Options::default() };
    kubesim_sim::run(scenario, &options, &mut Silent)
}

fn fleet(criterion: &mut Criterion) {
    let scenario = scenario();
    let report = boot(&scenario);
    let held = report.expectations.iter().filter(|e| e.outcome == Outcome::Passed).count();
    assert!(report.outcome == Outcome::Passed && held >= 2, "{report:#?}");
    let mut group = criterion.benchmark_group("boot until all pods are ready");
    group.sample_size(10);
    group.throughput(Throughput::Elements(report.events));
    group.bench_function(BenchmarkId::new("nodes", NODES), |bencher| {
        bencher.iter(|| boot(&scenario));
    });
    group.finish();
}

criterion_group!(benches, fleet);
criterion_main!(benches);
