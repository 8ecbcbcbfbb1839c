//! What this machine and the containers on it use: of each, two looks some seconds apart and what
//! lies between them. The server makes the resource metrics API of it
//! (`crate::http::nodes::usage`).

use crate::cri::{Cri, Used};
use k8s_openapi::jiff::Timestamp;
use kubesim_actors::objects::Uid;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fs;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// From one look to the next, as metrics-server's `--metric-resolution` in its manifests.
const EVERY: Duration = Duration::from_secs(15);
/// Who asks is not told of a look that is older, and what lies between two looks is no shorter.
const FRESH: Duration = Duration::from_secs(1);
/// In `/proc/stat` the kernel counts in hundredths of a second on all machines that Rust has
/// (`USER_HZ`, include/asm-generic/param.h).
const TICK: u64 = 10_000_000;

pub struct Usage {
    containers: Cri,
    looks: RefCell<VecDeque<Look>>,
}

/// All that was used up to a time.
struct Look {
    at: Instant,
    machine: Option<Machine>,
    /// By the runtime's own names.
    containers: BTreeMap<String, Used>,
}

/// What the machine has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    /// Nanoseconds since 1970.
    at: i64,
    /// Nanoseconds of all cores.
    cpu: u64,
    /// Bytes that cannot be taken back without swapping.
    memory: u64,
}

impl Usage {
    pub fn new(containers: Cri) -> Usage {
        Usage { containers, looks: RefCell::default() }
    }

    /// Looks every so often for as long as it is polled: who asks gets an answer at once.
    pub async fn watch(&self) -> Infallible {
        loop {
            // A runtime that is away is asked again; who asks meanwhile is told.
            let _ = self.look().await;
            sleep(EVERY).await;
        }
    }

    async fn look(&self) -> Result<(), String> {
        let containers = self.containers.used().await?;
        let containers = containers.into_iter().map(|used| (used.id.clone(), used)).collect();
        let look = Look { at: Instant::now(), machine: Machine::read(), containers };
        let mut looks = self.looks.borrow_mut();
        looks.push_back(look);
        // One that lies back long enough is kept, the newest one.
        while looks.get(1).is_some_and(|second| second.at.elapsed() >= EVERY) {
            looks.pop_front();
        }
        Ok(())
    }

    /// What is used now. The error is for people.
    pub async fn told(&self) -> Result<Value, String> {
        let fresh = self.looks.borrow().back().is_some_and(|newest| newest.at.elapsed() <= FRESH);
        if !fresh {
            self.look().await?;
        }
        Ok(told(&self.looks.borrow()))
    }
}

/// Of what there are two looks at, far enough apart.
fn told(looks: &VecDeque<Look>) -> Value {
    let Some(newest) = looks.back() else { return json!({"pods": []}) };
    let machine = newest.machine.and_then(|now| {
        let before = looks.iter().filter_map(|look| look.machine);
        let before = before.filter(|before| apart(before.at, now.at)).min_by_key(|one| one.at)?;
        Some(between((before.at, before.cpu), (now.at, now.cpu), now.memory))
    });
    let mut pods: BTreeMap<Uid, Vec<Value>> = BTreeMap::new();
    for (id, now) in &newest.containers {
        let before = looks.iter().filter_map(|look| look.containers.get(id));
        let before = before.filter(|before| apart(before.at, now.at)).min_by_key(|one| one.at);
        let Some(before) = before else { continue };
        let mut used = between((before.at, before.cpu), (now.at, now.cpu), now.memory);
        used["name"] = now.container.as_str().into();
        pods.entry(now.pod).or_default().push(used);
    }
    let pods = pods.into_iter();
    let pods: Vec<Value> =
        pods.map(|(uid, all)| json!({"uid": uid.to_string(), "containers": all})).collect();
    json!({"node": machine, "pods": pods})
}

fn apart(before: i64, now: i64) -> bool {
    let between = u128::try_from(i128::from(now) - i128::from(before)).unwrap_or(0);
    between >= FRESH.as_nanos()
}

/// `cpu` in thousandths of a millionth of a core, `memory` in bytes, times in nanoseconds.
fn between((before, cpu_before): (i64, u64), (now, cpu): (i64, u64), memory: u64) -> Value {
    let window = now.abs_diff(before).max(1);
    // What was counted anew has used what it has counted.
    let used = cpu.checked_sub(cpu_before).unwrap_or(cpu);
    let rate = u128::from(used) * 1_000_000_000 / u128::from(window);
    let rate = u64::try_from(rate).unwrap_or(u64::MAX);
    json!({"at": now, "window": window, "cpu": rate, "memory": memory})
}

impl Machine {
    fn read() -> Option<Machine> {
        let (stat, memory) =
            (fs::read_to_string("/proc/stat").ok()?, fs::read_to_string("/proc/meminfo").ok()?);
        let at = i64::try_from(Timestamp::now().as_nanosecond()).ok()?;
        Some(Machine { at, cpu: cpu(&stat)?, memory: working_set(&memory)? })
    }
}

/// All but the time in which nothing was done (proc_stat(5): `idle` and `iowait` are the fourth and
/// the fifth; a guest's is in its host's).
fn cpu(stat: &str) -> Option<u64> {
    let ticks = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let ticks: Vec<u64> = ticks.map(|tick| tick.parse().ok()).collect::<Option<_>>()?;
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { return None };
    [user, nice, system, irq, softirq, steal].iter().sum::<u64>().checked_mul(TICK)
}

/// As cAdvisor has it of a whole machine: what is not free, without the pages of files that nobody
/// has used lately (`setMemoryStats` in its container/libcontainer/handler.go, and
/// `rootStatsFromMeminfo` of opencontainers/cgroups).
fn working_set(memory: &str) -> Option<u64> {
    let field = |name: &str| {
        let rest = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let used = field("MemTotal")?.saturating_sub(field("MemFree")?);
    Some(used.saturating_sub(field("Inactive(file)").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn used(id: &str, at: i64, cpu: u64) -> Used {
        let (pod, container) = (Uid(7), "c".to_owned());
        Used { pod, container, id: id.to_owned(), at: at * SECOND, cpu, memory: 4096 }
    }

    fn look(at: i64, all: &[(&str, u64)]) -> Look {
        let containers = all.iter().map(|(id, cpu)| ((*id).to_owned(), used(id, at, *cpu)));
        let machine = Machine { at: at * SECOND, cpu: at.unsigned_abs() * 500_000_000, memory: 9 };
        Look { at: Instant::now(), machine: Some(machine), containers: containers.collect() }
    }

    #[test]
    fn what_lies_between_two_looks_is_told() {
        let looks = VecDeque::from([look(100, &[("a", 5), ("b", 0)]), look(110, &[("a", 20)])]);
        let told = told(&looks);
        assert_eq!(
            told["node"],
            json!({"at": 110 * SECOND, "window": 10 * SECOND,
            "cpu": 500_000_000_u64, "memory": 9})
        );
        let pods = told["pods"].as_array().expect("pods");
        assert_eq!(pods.len(), 1, "{told}");
        let containers = &pods[0]["containers"];
        assert_eq!(
            containers,
            &json!([{"name": "c", "at": 110 * SECOND, "window": 10 * SECOND,
            "cpu": 1, "memory": 4096}])
        );
    }

    #[test]
    fn what_was_seen_once_is_not_told() {
        let looks = VecDeque::from([look(100, &[])]);
        assert_eq!(told(&looks), json!({"node": null, "pods": []}));
        // Started anew between the looks.
        let looks = VecDeque::from([look(100, &[("a", 5)]), look(110, &[("b", 20)])]);
        assert_eq!(told(&looks)["pods"], json!([]));
        assert_eq!(told(&VecDeque::new())["pods"], json!([]));
    }

    #[test]
    fn the_machine_says_what_it_uses_as_proc_has_it() {
        let stat = "cpu  10 1 5 900 40 2 3 4 7 8\ncpu0 5 0 2 450 20 1 1 2 0 0\n";
        assert_eq!(cpu(stat), Some(25 * TICK));
        assert_eq!((cpu(""), cpu("cpu  1 2 3\n"), cpu("cpu  a b\n")), (None, None, None));
        let memory = "MemTotal:       1000 kB\nMemFree:         300 kB\nInactive(file):   50 kB\n";
        assert_eq!(working_set(memory), Some(650 * 1024));
        assert_eq!(working_set("MemTotal: 1000 kB\n"), None);
        assert!(Machine::read().is_some(), "this machine");
    }
}
