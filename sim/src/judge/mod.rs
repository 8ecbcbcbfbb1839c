//! The judge of a run: every expectation of the scenario, looked at while it is open, with the
//! value that was measured and the reason when it does not hold.

mod history;
mod network;
#[cfg(test)]
mod tests;
mod workload;

pub use workload::why_waiting;

use crate::oracles;
use crate::report;
use crate::scenario::{Anchor, Deadline, Expect, Expectation, Moment};
use crate::world::World;
use crate::world::probes::Probe;
use history::History;
use kubesim_actors::objects::Name;
use kubesim_actors::proxy::Mode;
use kubesim_runtime::Time;
use std::collections::BTreeMap;
use std::time::Duration;
use workload::too_many_off;

/// What is known of one expectation.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Open,
    Held {
        measured: String,
    },
    Broken {
        measured: String,
        reason: String,
    },
    /// Broken for want of anything that could be measured.
    Lacking {
        measured: String,
        reason: String,
    },
}

/// Said of rules that belong to a mode of the proxy that it does not have.
const OTHER_MODE: &str = "not looked at: the proxy has another mode";

fn is_other(mode: Option<Mode>, world: &World) -> bool {
    mode.is_some_and(|mode| mode != world.scenario.cluster.proxy_mode)
}

impl Verdict {
    fn held(measured: impl Into<String>) -> Self {
        Verdict::Held { measured: measured.into() }
    }
    fn broken(measured: impl Into<String>, reason: impl Into<String>) -> Self {
        Verdict::Broken { measured: measured.into(), reason: reason.into() }
    }
    fn lacking(measured: impl Into<String>, reason: impl Into<String>) -> Self {
        Verdict::Lacking { measured: measured.into(), reason: reason.into() }
    }
    /// With more to say, where it is broken.
    fn explained(mut self, more: impl FnOnce() -> String) -> Self {
        if let Verdict::Broken { reason, .. } = &mut self {
            reason.push_str(&more());
        }
        self
    }
}

#[derive(Debug)]
pub struct Judge {
    expectations: Vec<Expectation>,
    verdicts: Vec<Verdict>,
    history: History,
    /// When a state that has to last began, by expectation.
    since: BTreeMap<usize, Time>,
    looked: Time,
}

impl Judge {
    pub fn new(world: &World) -> Self {
        let expectations = world.scenario.expectations.clone();
        let verdicts = vec![Verdict::Open; expectations.len()];
        Judge {
            expectations,
            verdicts,
            history: History::default(),
            since: BTreeMap::new(),
            looked: Time::ZERO,
        }
    }

    /// How often a run of this size is looked at; and so often that each moment that a deadline
    /// counts from is known before the deadline.
    pub fn period(world: &World) -> Duration {
        let of_size = match world.scenario.nodes.len() {
            0..=20 => Duration::from_millis(20),
            21..=200 => Duration::from_millis(200),
            _ => Duration::from_secs(1),
        };
        let deadlines = world.scenario.expectations.iter().filter_map(|one| one.expect.deadline());
        let tightest = deadlines.map(|by| by.within).filter(|within| !within.is_zero()).min();
        tightest.map_or(of_size, |tightest| tightest.min(of_size))
    }

    /// The next deadline of what is still open: it has to be looked at there.
    pub fn next_due(&self, world: &World) -> Option<Time> {
        let open = self.expectations.iter().zip(&self.verdicts);
        let open = open.filter(|(_, verdict)| **verdict == Verdict::Open);
        let due = open.filter_map(|(one, _)| deadline(world, one.expect.deadline()?));
        due.filter(|due| *due > world.now).min()
    }

    /// Looks at everything that is still open.
    pub fn look(&mut self, world: &World) {
        if world.now.since(self.looked) >= Duration::from_millis(200) || self.looked == Time::ZERO {
            self.looked = world.now;
            self.remember(world);
        }
        for index in 0..self.expectations.len() {
            if self.verdicts[index] == Verdict::Open {
                self.verdicts[index] = self.judge(index, world, false);
            }
        }
    }

    /// The last look: nothing stays open but what is due later than the run went.
    pub fn finish(&mut self, world: &World, cut_short: bool) -> Vec<report::Expectation> {
        self.remember(world);
        for index in 0..self.expectations.len() {
            if self.verdicts[index] == Verdict::Open {
                let verdict = self.judge(index, world, true);
                // Time might have put it right, and was cut off.
                let early = cut_short && !is_lasting(&self.expectations[index].expect);
                if !(early && matches!(verdict, Verdict::Broken { .. })) {
                    self.verdicts[index] = verdict;
                }
            }
        }
        let verdicts = self.expectations.iter().zip(&self.verdicts);
        verdicts.map(|(expectation, verdict)| told(expectation, verdict, cut_short)).collect()
    }

    fn remember(&mut self, world: &World) {
        self.history.remember(world, &self.expectations);
    }

    fn judge(&mut self, index: usize, world: &World, last: bool) -> Verdict {
        let expect = self.expectations[index].expect.clone();
        match &expect {
            Expect::PodsReady { pods, count, by } => {
                self.settled(index, world, by, last, |_, w| workload::pods_ready(w, pods, *count))
            }
            Expect::NodesReady { nodes, by } => {
                self.settled(index, world, by, last, |_, w| workload::nodes_ready(w, nodes))
            }
            Expect::Replicas { deployment, ready, by } => {
                self.settled(index, world, by, last, |_, w| {
                    workload::replicas(w, deployment, *ready)
                })
            }
            Expect::Rollout { labels, by } => {
                let look = |_: &History, w: &World| workload::rollout(w, labels);
                self.settled(index, world, by, last, look).explained(|| too_many_off(world))
            }
            Expect::Restarts { pods, at_most } if last => {
                workload::restarts(world, &self.history, pods, *at_most)
            }
            Expect::Probe { probe, from, until, fails } => {
                workload::probe(world, probe, (*from, *until), *fails, last)
            }
            Expect::Resumes { probe, by } => resumes(world, probe, by, last),
            Expect::MaxGap { probe, within } if last => workload::max_gap(world, probe, *within),
            Expect::SubnetKept { nodes } if last => {
                network::kept(nodes, &self.history.subnets, &self.history.ghosts, "pod subnet")
            }
            Expect::BridgeKept { nodes } if last => {
                network::kept(nodes, &self.history.bridges, &BTreeMap::new(), "bridge address")
            }
            Expect::RoutesClean { nodes, by } => self.routes_clean(index, world, nodes, by, last),
            Expect::Rules { mode, .. } if is_other(*mode, world) => Verdict::held(OTHER_MODE),
            Expect::Rules { nodes, has, absent, by, .. } => {
                self.shown(world, by, last, |w| network::rules(w, nodes, has, absent))
            }
            Expect::Mtu { nodes, interface, pods, mtu, by } => {
                self.shown(world, by, last, |w| network::mtu(w, nodes, interface, *pods, *mtu))
            }
            Expect::Sysctl { nodes, key, value, by } => {
                self.shown(world, by, last, |w| network::sysctl(w, nodes, key, *value))
            }
            Expect::File { nodes, path, contains, by } => {
                self.shown(world, by, last, |w| network::file(w, nodes, path, contains))
            }
            Expect::Forwards { nodes, by } => {
                self.shown(world, by, last, |w| network::forwards(w, nodes))
            }
            Expect::SubnetReassigned { from, to, by } => {
                self.before(world, by, last, |h, w| network::reassigned(w, h, from, to))
            }
            Expect::Refused { actor, text, by } => {
                self.before(world, by, last, |_, w| workload::refused(w, *actor, text, &by.after))
            }
            Expect::Says { actor, node, text, by } => {
                let after = anchor(world, &by.after);
                self.before(world, by, last, |_, w| {
                    workload::says(w, *actor, node.as_ref(), text, after.unwrap_or(Time::ZERO))
                })
            }
            Expect::DnsAnswer { probe, answer, by } => {
                workload::dns_answer(world, probe, answer, deadline(world, by), last)
            }
            Expect::UpstreamUsed { node, upstream, by } => {
                workload::upstream_used(world, node, upstream, by, last)
            }
            _ => Verdict::Open,
        }
    }

    /// A [`Judge::state`] of machines' own, which external ones have to show first.
    fn shown(
        &self,
        world: &World,
        by: &Deadline,
        last: bool,
        look: impl FnOnce(&World) -> Result<String, String>,
    ) -> Verdict {
        let start = if is_at_end(world, by) { None } else { anchor(world, &by.after) };
        let start = start.unwrap_or_else(|| world.last_moment());
        self.state(world, by, last, |_, w| match w.unseen_since(start) {
            None => look(w),
            Some(name) => Err(unseen(name, start)),
        })
    }

    /// Something that must be so at some moment between the anchor and the deadline; without a
    /// deadline, at the end of the run.
    fn state(
        &self,
        world: &World,
        by: &Deadline,
        last: bool,
        look: impl FnOnce(&History, &World) -> Result<String, String>,
    ) -> Verdict {
        if !is_at_end(world, by) {
            return self.before(world, by, last, look);
        }
        if world.now < Time::ZERO + world.scenario.duration {
            let early = "the run ended before";
            return if last { Verdict::broken("", early) } else { Verdict::Open };
        }
        match look(&self.history, world) {
            Ok(what) if what.is_empty() => Verdict::held("at the end"),
            Ok(what) => Verdict::held(what),
            Err(why) => Verdict::broken("not at the end", why),
        }
    }

    /// What the cluster comes to after a fault. It was so before and stays so until the fault is
    /// noticed: what counts is the deadline, and since when it is so then.
    fn settled(
        &mut self,
        index: usize,
        world: &World,
        by: &Deadline,
        last: bool,
        look: impl FnOnce(&History, &World) -> Result<String, String>,
    ) -> Verdict {
        if by.after == Anchor::Start {
            return self.state(world, by, last, look);
        }
        let Some(start) = anchor(world, &by.after) else { return never(by, last) };
        let deadline = start + by.within;
        let due = world.now >= deadline;
        match look(&self.history, world) {
            Ok(what) => {
                let since = *self.since.entry(index).or_insert(world.now);
                let took = since.since(start).as_secs_f64();
                let measured = join(&what, &format!("after {took:.3} s"));
                match (due, last) {
                    (true, _) if since > deadline => Verdict::broken(measured, late(by)),
                    (true, _) => Verdict::held(measured),
                    (false, true) => Verdict::broken("", "the run ended before"),
                    (false, false) => Verdict::Open,
                }
            }
            Err(why) => {
                self.since.remove(&index);
                let measured = || format!("not {} s after", by.within.as_secs_f64());
                if due || last { Verdict::broken(measured(), why) } else { Verdict::Open }
            }
        }
    }

    /// Something that must be so at some moment between the anchor and the deadline.
    fn before(
        &self,
        world: &World,
        by: &Deadline,
        last: bool,
        look: impl FnOnce(&History, &World) -> Result<String, String>,
    ) -> Verdict {
        let Some(start) = anchor(world, &by.after) else {
            return never(by, last);
        };
        let deadline = start + by.within;
        match look(&self.history, world) {
            Ok(what) => {
                let took = world.now.since(start).as_secs_f64();
                let measured = join(&what, &format!("after {took:.3} s"));
                match world.now <= deadline {
                    true => Verdict::held(measured),
                    false => Verdict::broken(measured, late(by)),
                }
            }
            Err(why) if world.now >= deadline || last => {
                Verdict::broken(format!("not within {} s", by.within.as_secs_f64()), why)
            }
            Err(_) => Verdict::Open,
        }
    }

    /// Clean at the deadline, and from then on until the next fault.
    fn routes_clean(
        &mut self,
        index: usize,
        world: &World,
        nodes: &[Name],
        by: &Deadline,
        last: bool,
    ) -> Verdict {
        let Some(start) = anchor(world, &by.after) else { return never(by, last) };
        let deadline = start + by.within;
        let until = next_fault(world, start).unwrap_or(Time::NEVER);
        let measured = |since: Option<&Time>| {
            since.map_or_else(String::new, |at| {
                format!("clean after {:.3} s", at.since(start).as_secs_f64())
            })
        };
        if world.now >= until || (last && self.since.contains_key(&index) && world.now >= deadline)
        {
            return match self.since.get(&index) {
                Some(_) => Verdict::held(measured(self.since.get(&index))),
                None => Verdict::broken("never clean", "the next fault came first"),
            };
        }
        if let Some(name) = world.unseen_since(start) {
            let reason = || unseen(name, start);
            return if last { Verdict::broken("", reason()) } else { Verdict::Open };
        }
        // A big cluster's tables are compared when it matters, not at every look.
        let known_clean = self.since.contains_key(&index);
        if world.scenario.nodes.len() > 200 && known_clean && !last {
            return Verdict::Open;
        }
        let stale = oracles::stale_routes(world, nodes);
        match stale.first() {
            None => {
                let since = *self.since.entry(index).or_insert(world.now);
                if since > deadline {
                    return Verdict::broken(measured(Some(&since)), late(by));
                }
                if last { Verdict::held(measured(self.since.get(&index))) } else { Verdict::Open }
            }
            Some(first) if world.now >= deadline => Verdict::broken(
                format!(
                    "{} stale after {:.3} s",
                    stale.len(),
                    world.now.since(start).as_secs_f64()
                ),
                first.clone(),
            ),
            Some(_) if last => Verdict::broken(format!("{} stale", stale.len()), stale[0].clone()),
            Some(_) => {
                self.since.remove(&index);
                Verdict::Open
            }
        }
    }
}

/// Whether a deadline is none: what is expected is so at the end of the run.
fn is_at_end(world: &World, by: &Deadline) -> bool {
    by.after == Anchor::Start && by.within >= world.scenario.duration
}

/// It is so, and was not when it had to be.
fn late(by: &Deadline) -> String {
    format!("it had to be so within {} s", by.within.as_secs_f64())
}

fn unseen(name: &str, since: Time) -> String {
    format!("{name} has not shown its network since {since}")
}

fn join(what: &str, took: &str) -> String {
    if what.is_empty() { took.to_owned() } else { format!("{what}, {took}") }
}

fn told(expectation: &Expectation, verdict: &Verdict, cut_short: bool) -> report::Expectation {
    let (outcome, measured, reason) = match verdict {
        Verdict::Held { measured } => (report::Outcome::Passed, measured.clone(), String::new()),
        Verdict::Broken { measured, reason } => {
            (report::Outcome::Failed, measured.clone(), reason.clone())
        }
        Verdict::Lacking { measured, reason } if !cut_short => {
            (report::Outcome::Failed, measured.clone(), reason.clone())
        }
        Verdict::Open | Verdict::Lacking { .. } => {
            (report::Outcome::Skipped, String::new(), "the run ended before it was due".to_owned())
        }
    };
    report::Expectation { name: expectation.name.clone(), outcome, measured, reason }
}

/// Whether no time puts right what broke it: it is about all that happens, up to any moment.
fn is_lasting(expect: &Expect) -> bool {
    use Expect::{BridgeKept, MaxGap, Probe, Restarts, SubnetKept};
    matches!(
        expect,
        Restarts { .. } | Probe { .. } | MaxGap { .. } | SubnetKept { .. } | BridgeKept { .. }
    )
}

/// The moment came, or not yet.
pub(crate) fn anchor(world: &World, anchor: &Anchor) -> Option<Time> {
    match anchor {
        Anchor::Start => Some(Time::ZERO),
        Anchor::Fault { fault, moment } => {
            let fault = world.happened.iter().find(|known| known.name == *fault)?;
            match moment {
                Moment::Begins => fault.began,
                Moment::Ends => fault.ended,
                Moment::AddressAcquired => fault.address_acquired,
            }
        }
    }
}

pub(crate) fn deadline(world: &World, by: &Deadline) -> Option<Time> {
    Some(anchor(world, &by.after)? + by.within)
}

/// When the first fault after a moment begins.
pub(crate) fn next_fault(world: &World, after: Time) -> Option<Time> {
    world.happened.iter().filter_map(|fault| fault.began).filter(|began| *began > after).min()
}

fn never(by: &Deadline, last: bool) -> Verdict {
    if last {
        Verdict::broken("", format!("{} never came", moment(&by.after)))
    } else {
        Verdict::Open
    }
}

/// `the new address of to-cafe`
fn moment(anchor: &Anchor) -> String {
    match anchor {
        Anchor::Start => "the start".to_owned(),
        Anchor::Fault { fault, moment } => match moment {
            Moment::Begins => format!("the beginning of {fault}"),
            Moment::Ends => format!("the end of {fault}"),
            Moment::AddressAcquired => format!("the new address of {fault}"),
        },
    }
}

fn resumes(world: &World, name: &str, by: &Deadline, last: bool) -> Verdict {
    let Some(probe) = world.probes.iter().find(|probe| probe.spec.name == name) else {
        return Verdict::broken("", format!("no probe {name}"));
    };
    let Some(start) = anchor(world, &by.after) else { return never(by, last) };
    match probe.resumed_after(start) {
        Some(took) if took <= by.within => Verdict::held(format!("{:.3} s", took.as_secs_f64())),
        Some(took) => Verdict::broken(
            format!("{:.3} s", took.as_secs_f64()),
            format!("more than {} s", by.within.as_secs_f64()),
        ),
        None if last || world.now > start + by.within => {
            Verdict::broken("never", why_silent(world, probe))
        }
        None => Verdict::Open,
    }
}

/// Why nothing arrives: a route, a rule, or what the tries themselves say.
fn why_silent(world: &World, probe: &Probe) -> String {
    if let Some(cause) = network::cause(world) {
        return cause;
    }
    if let Some(broke) = probe.broken {
        return format!("the stream broke at {broke}");
    }
    let last = probe.successes().max();
    let since = last.map_or_else(String::new, |at| format!(" since {at}"));
    let said = probe.tries.iter().rev().find_map(|t| t.result.as_ref().err());
    let said = said.map_or_else(String::new, |why| format!(", a try says: {why}"));
    format!("nothing has arrived{since}{said}")
}
