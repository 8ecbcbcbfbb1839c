//! Killing any actor at any of its first 200 events changes nothing in the end.
//!
//! Each actor of `laptop-ip-change` and of `guestbook` is killed in place of its k-th event, with
//! loss of its process or of its machine's power. Whatever was lost, what is asked of the rest is:
//!
//! - no invariant is violated at any time, no actor panics, no effect is answered twice or never;
//! - what the scenario expects of the end holds ([`LASTING`]): a kill may well break a TCP stream,
//!   restart a pod (a power loss takes all containers) or delay a recovery, so the expectations
//!   about the way there are not asked for;
//! - the specs in the API are those of the run without a kill ([`canonical`]).
//!
//! By default a sample is played. `KUBESIM_KILL=all` plays every kill, `KUBESIM_KILL=2000` a sample
//! of that size, and a failure's replay line the one kill: `KUBESIM_KILL="guestbook Proxy 1 17
//! power"`.

use kubesim_actors::objects::{Kind as ObjectKind, Object};
use kubesim_runtime::{Loss, Rng, Stream};
use kubesim_sim::run::{Inject, play};
use kubesim_sim::scenario::Scenario;
use kubesim_sim::world::{Cell, Kill, Kind, World};
use kubesim_sim::{Observer, Options, Outcome, Report};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SCENARIOS: [&str; 2] = ["laptop-ip-change", "guestbook"];
const STEPS: u64 = 200;
const SAMPLE: usize = 300;
/// A run goes on for so long after its kill. What takes longest: a server that lost its power is
/// back after 5 s and its pods after a pull, while its peers redial and wait out their back-offs.
const SETTLE: Duration = Duration::from_secs(90);

/// Kills that once broke something: scenario, actor, its index, event, loss, and what was wrong.
const REGRESSIONS: &[(&str, Kind, u32, u64, Loss, &str)] = &[];

/// Expectations about the end of the run.
const LASTING: [&str; 1] = ["all nodes are ready at the end"];

struct Silent;

impl Observer for Silent {
    fn line(&mut self, _: kubesim_runtime::Time, _: &str, _: &str) {}
    fn progress(&mut self, _: kubesim_runtime::Time, _: Duration, _: u64) {}
}

struct Subject {
    name: &'static str,
    scenario: Arc<Scenario>,
    /// Of the run without a kill.
    specs: BTreeMap<String, usize>,
    /// Every actor, and how many events it handled.
    cells: Vec<(Cell, u64)>,
}

impl Subject {
    fn new(name: &'static str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"));
        let scenario = Scenario::load(&file, &[], None).expect("a shipped scenario");
        let scenario = Arc::new(scenario);
        let (report, world) = go(&scenario, None);
        assert_eq!(report.outcome, Outcome::Passed, "{name} without a kill: {report:#?}");
        let world = world.expect("a run without a panic leaves its world");
        let cells = world.machines.iter().flat_map(|machine| machine.cells.iter().copied());
        let cells = cells.map(|cell| (cell, world.steps(cell))).collect();
        Subject { name, scenario, specs: specs(&world), cells }
    }

    fn kills(&self) -> impl Iterator<Item = Kill> {
        self.cells.iter().flat_map(|&(cell, reached)| {
            (1..=reached.min(STEPS)).flat_map(move |step| {
                [Loss::Process, Loss::Power].map(|loss| Kill { cell, step, loss })
            })
        })
    }

    /// What is wrong after this kill.
    fn check(&self, kill: Kill) -> Result<(), String> {
        let (report, world) = go(&self.scenario, Some(kill));
        if let Some(failure) = report.failure {
            return Err(failure);
        }
        let world = world.ok_or("the world is lost")?;
        if world.killed.is_none() {
            return Err(format!("the actor never came to its event {}", kill.step));
        }
        let broken = report
            .expectations
            .iter()
            .find(|e| LASTING.contains(&e.name.as_str()) && e.outcome == Outcome::Failed);
        if let Some(broken) = broken {
            return Err(format!("{}: {}", broken.name, broken.reason));
        }
        difference(&self.specs, &specs(&world))
    }
}

fn go(scenario: &Arc<Scenario>, kill: Option<Kill>) -> (Report, Option<World>) {
    let options = Options { seed: 1, ..Options::default() };
    play(scenario, &options, Inject { kill, settle: SETTLE, ..Inject::default() }, &mut Silent)
}

fn replay(name: &str, kill: Kill) -> String {
    let Kill { cell, step, loss } = kill;
    let loss = format!("{loss:?}").to_lowercase();
    format!("KUBESIM_KILL=\"{name} {:?} {} {step} {loss}\"", cell.kind, cell.index)
}

fn difference(
    wanted: &BTreeMap<String, usize>,
    found: &BTreeMap<String, usize>,
) -> Result<(), String> {
    let texts: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let count = |specs: &BTreeMap<String, usize>, text: &str| specs.get(text).copied().unwrap_or(0);
    let differ = texts.into_iter().filter(|text| count(wanted, text) != count(found, text));
    let lines: Vec<String> = differ
        .map(|text| format!("{} instead of {}: {text}", count(found, text), count(wanted, text)))
        .collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(format!("final specs differ\n  {}", lines.join("\n  ")))
    }
}

/// The canonical specs of everything in the API, and how many objects say the same.
fn specs(world: &World) -> BTreeMap<String, usize> {
    let mut specs = BTreeMap::new();
    for &kind in ObjectKind::ALL {
        for object in world.objects(kind) {
            if let Some(text) = canonical(object) {
                *specs.entry(text).or_default() += 1;
            }
        }
    }
    specs
}

/// What of an object has to be the same after a kill: kind, labels, annotations, owner and spec,
/// and the name unless it is generated. Left out, and why:
///
/// - status, resource versions, generations, timestamps, managed fields: they tell the way there;
/// - uids, and the generated names of pods and EndpointSlices: an apiserver that was killed draws
///   from fresh dice;
/// - what is drawn or allocated, where the user did not ask for one: cluster addresses of
///   services, and the subnets of nodes, which go to whoever registers first. Of a subnet its
///   prefix length stays, and the invariants see to it that no two are the same;
/// - where pods run and which addresses they have: a pod is bound by what the scheduler sees at
///   that moment, and a node that is off is not chosen. Of endpoints their number, ports and
///   conditions stay;
/// - of Leases how often they changed hands and when they were renewed;
/// - Events: they are a log;
/// - of a Node's lease of a pod network the node's uid, which stands for the node's name.
fn canonical(object: &Object) -> Option<String> {
    let mut whole = object.to_json();
    leave_out_empty(&mut whole);
    let mut spec = whole["spec"].take();
    let mut name = object.key.to_string();
    match object.kind() {
        ObjectKind::Event => return None,
        ObjectKind::Service => mask(&mut spec, &["clusterIP", "clusterIPs"]),
        ObjectKind::Node => {
            mask_subnets(&mut spec, &["podCIDR", "podCIDRs"]);
        }
        ObjectKind::Subnet => {
            mask(&mut spec, &["nodeUid"]);
            mask_subnets(&mut spec, &["cidr"]);
        }
        ObjectKind::Lease => mask(&mut spec, &["renewTime", "acquireTime", "leaseTransitions"]),
        ObjectKind::Pod => {
            mask(&mut spec, &["nodeName"]);
            "generated".clone_into(&mut name);
        }
        ObjectKind::EndpointSlice => {
            spec = json!({"ports": whole["ports"], "type": whole["addressType"]});
            let endpoints = whole["endpoints"].as_array().into_iter().flatten();
            let mut conditions: Vec<String> =
                endpoints.map(|e| e["conditions"].to_string()).collect();
            conditions.sort();
            spec["endpoints"] = json!(conditions);
            "generated".clone_into(&mut name);
        }
        ObjectKind::ConfigMap => spec = whole["data"].take(),
        _ => {}
    }
    let meta = &whole["metadata"];
    let owners = meta["ownerReferences"].as_array().into_iter().flatten();
    let owners: Vec<Value> =
        owners.map(|o| json!([o["kind"], o["name"], o["controller"]])).collect();
    let (labels, annotations) = (&meta["labels"], &meta["annotations"]);
    let deleting = if object.deleting() { " being deleted" } else { "" };
    Some(format!(
        "{} {name}{deleting} of {owners:?} labels {labels} \
         annotations {annotations} spec {spec}",
        object.kind()
    ))
}

/// An empty list and no list are the same on Kubernetes' wire (Go's `omitempty`), and so are an
/// empty map of annotations or labels and none.
fn leave_out_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(leave_out_empty);
            fields.retain(|name, value| match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => {
                    !map.is_empty() || !matches!(&**name, "labels" | "annotations")
                }
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(leave_out_empty),
        _ => {}
    }
}

fn mask(spec: &mut Value, fields: &[&str]) {
    for field in fields {
        if let Some(value) = spec.get_mut(*field) {
            *value = json!("*");
        }
    }
}

fn mask_subnets(spec: &mut Value, fields: &[&str]) {
    let prefix = |text: &str| format!("*/{}", text.rsplit('/').next().unwrap_or_default());
    for field in fields {
        match spec.get_mut(*field) {
            Some(Value::String(text)) => *text = prefix(text),
            Some(Value::Array(list)) => {
                for text in list.iter_mut() {
                    *text = json!(prefix(text.as_str().unwrap_or_default()));
                }
            }
            _ => {}
        }
    }
}

fn kind_named(name: &str) -> Option<Kind> {
    let kinds = [
        Kind::ApiServer,
        Kind::Controllers,
        Kind::Scheduler,
        Kind::Kubelet,
        Kind::Netd,
        Kind::Proxy,
        Kind::Dns,
    ];
    kinds.into_iter().find(|kind| format!("{kind:?}").eq_ignore_ascii_case(name))
}

/// `guestbook Proxy 1 17 power`.
fn parse(line: &str) -> Option<(&str, Kill)> {
    let [name, kind, index, step, loss] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    let cell = Cell { kind: kind_named(kind)?, index: index.parse().ok()? };
    let loss = match loss {
        "process" => Loss::Process,
        "power" => Loss::Power,
        _ => return None,
    };
    Some((name, Kill { cell, step: step.parse().ok()?, loss }))
}

/// Every so many kills of all, each actor in its turn, at events drawn from `seed`.
fn sample(subjects: &[Subject], size: usize, seed: u64) -> Vec<(usize, Kill)> {
    let stream = Stream { seed, label: "kills", index: 0, incarnation: 0 };
    let mut rng = Rng::new(stream);
    let cells: Vec<(usize, Cell, u64)> = subjects
        .iter()
        .enumerate()
        .flat_map(|(subject, s)| {
            s.cells.iter().map(move |&(cell, reached)| (subject, cell, reached))
        })
        .collect();
    (0..size)
        .map(|turn| {
            let (subject, cell, reached) = cells[turn % cells.len()];
            let step = 1 + rng.below(reached.clamp(1, STEPS));
            let loss = if rng.below(2) == 0 { Loss::Process } else { Loss::Power };
            (subject, Kill { cell, step, loss })
        })
        .collect()
}

fn chosen(subjects: &[Subject]) -> Vec<(usize, Kill)> {
    let all = || {
        let each = subjects.iter().enumerate();
        each.flat_map(|(index, subject)| subject.kills().map(move |kill| (index, kill))).collect()
    };
    match std::env::var("KUBESIM_KILL").as_deref() {
        Err(_) => sample(subjects, SAMPLE, 1),
        Ok("all") => all(),
        Ok(text) => match (text.parse(), parse(text)) {
            (Ok(size), _) => sample(subjects, size, 2),
            (_, Some((name, kill))) => {
                let index = subjects.iter().position(|subject| subject.name == name);
                vec![(index.expect("a scenario of this test"), kill)]
            }
            _ => panic!("KUBESIM_KILL: expected all, a number or a replay line, not {text:?}"),
        },
    }
}

/// Plays the kills on all processors; tells those that broke something.
fn failures(subjects: &[Subject], kills: &[(usize, Kill)]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let broken = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(subject, kill)) = kills.get(turn) else { return };
                    let subject = &subjects[subject];
                    if let Err(why) = subject.check(kill) {
                        let text = format!("{}\n  {why}", replay(subject.name, kill));
                        eprintln!("{text}");
                        broken.lock().expect("no worker panics holding it").insert(turn, text);
                    }
                }
            });
        }
    });
    broken.into_inner().expect("all workers are done").into_values().collect()
}

#[test]
fn a_killed_actor_changes_nothing_in_the_end() {
    let subjects = SCENARIOS.map(Subject::new);
    let kills = chosen(&subjects);
    let broken = failures(&subjects, &kills);
    assert!(broken.is_empty(), "{} of {} kills:\n{}", broken.len(), kills.len(), broken.join("\n"));
}

#[test]
fn kills_that_broke_something_once_do_no_more() {
    let subjects = SCENARIOS.map(Subject::new);
    for &(name, kind, index, step, loss, story) in REGRESSIONS {
        let subject = subjects.iter().find(|subject| subject.name == name);
        let kill = Kill { cell: Cell { kind, index }, step, loss };
        let checked = subject.expect("a scenario of this test").check(kill);
        assert_eq!(checked, Ok(()), "{}: {story}", replay(name, kill));
    }
}

#[test]
fn a_replay_line_names_its_kill() {
    let cell = Cell { kind: Kind::Proxy, index: 1 };
    let kill = Kill { cell, step: 17, loss: Loss::Power };
    let line = replay("guestbook", kill);
    let quoted = line.split('"').nth(1).expect("the line has a value");
    assert_eq!(parse(quoted), Some(("guestbook", kill)));
}
