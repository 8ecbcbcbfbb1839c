//! What another process costs, from /proc (proc(5)).

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Nanoseconds that a process has run, all its threads together.
pub fn cpu(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let of = |task: PathBuf| {
        let stat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|ran| ran.parse::<u64>().ok()).unwrap_or_default()
    };
    tasks.map(|task| of(task.expect("a task").path())).sum()
}

/// The same once it has nothing to do any more: what it does behind its answer counts as well.
pub fn settled(process: u32) -> u64 {
    let mut before = cpu(process);
    loop {
        thread::sleep(Duration::from_millis(5));
        match cpu(process) {
            now if now == before => return now,
            now => before = now,
        }
    }
}

/// Resident memory, in MiB.
pub fn resident(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.expect("its memory") / 1024.0
}

/// For criterion: CPU time in place of time. Only by `iter_custom`, which says what was spent.
pub struct Cpu;

impl Measurement for Cpu {
    type Intermediate = ();
    type Value = u64;
    fn start(&self) {}
    fn end(&self, (): ()) -> u64 {
        unreachable!("what was spent is told by the bench")
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
