//! `kubesim run --serve`: the API of a simulated cluster for people and their `kubectl`, while
//! virtual time passes at a pace of their choice.
//!
//! - `door`: the API's front, on its own thread
//! - `pace`: virtual time by the machine's
//! - `home`: keys, and the record of what was written
//!
//! The run itself is one thread's, as any run is. Between two steps of virtual time it takes what
//! came in and hands out what the API server told; the record says at which instants of virtual
//! time that was, and with it the run can be played again (`kubesim_sim::visits`).

mod door;
mod home;
mod pace;

use self::door::{Door, Inward, Outward, Write};
use self::home::{Home, Record};
use self::pace::Pace;
use crate::kubeconfig::Kubeconfig;
use crate::pki::{LEAF, Pki};
use crate::run::{self, Serve};
use kubesim_actors::apiserver::RequestId;
use kubesim_actors::ports::api::{Error, Reason};
use kubesim_runtime::Time;
use kubesim_sim::scenario::Scenario;
use kubesim_sim::visits::{Of, Visit, Visited};
use kubesim_sim::world::visitors::Told;
use kubesim_sim::{Observer, Options, Report};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Virtual time between two looks at the door.
const STEP: Duration = Duration::from_millis(10);
/// How long nothing is done, at least and at most, where time is paced and nothing is due.
const NAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Plays a scenario with visitors. The error says what the machine lacks, or what ended the run.
pub fn run(
    scenario: &Scenario,
    options: &Options,
    (visit, serve): (&run::Visit, &Serve),
    observer: &mut dyn Observer,
) -> Result<Report, String> {
    let home = Home::new()?;
    let mut host = Host::new(scenario, options, (visit, serve), &home)?;
    host.play(observer)?;
    // Before the last look, so that nobody is served by a run that is over.
    drop((host.door, host.kubeconfig));
    let (report, end) = host.run.finish(observer);
    host.record.close(end)?;
    Ok(report)
}

struct Host {
    run: Visited,
    /// What is written again, as it was before, oldest first.
    again: VecDeque<Visit>,
    /// Until then time is not paced.
    from: Time,
    pace: Pace,
    /// The run goes on after the scenario's end.
    hold: bool,
    door: Door,
    kubeconfig: Kubeconfig,
    invited: bool,
    record: Record,
    /// Writes that were not answered yet, by their numbers in the run.
    asked: BTreeMap<u64, RequestId>,
    /// What goes out next.
    news: Vec<Outward>,
}

impl Host {
    fn new(
        scenario: &Scenario,
        options: &Options,
        (visit, serve): (&run::Visit, &Serve),
        home: &Home,
    ) -> Result<Host, String> {
        // From the machine itself, the address of all its interfaces is loopback's.
        let ip = *serve.at.ip();
        let reached = if ip == Ipv4Addr::UNSPECIFIED { Ipv4Addr::LOCALHOST } else { ip };
        let pki = Pki::open(&home.keys(), &[reached], LEAF)?;
        let door = Door::open(serve.at, &pki)?;
        let usual = home.kubeconfig();
        let path: &Path = visit.kubeconfig.as_deref().unwrap_or(&usual);
        let url = format!("https://{reached}:{}", door.at.port());
        let kubeconfig = Kubeconfig::new(&pki, path, &url)?;
        let of = Of::new(scenario, options.seed);
        let record = Record::new(serve, home, &of)?;
        let mut run = Visited::new(&Arc::new(scenario.clone()), options);
        run.world().expect_visitors();
        let pace = format!("virtual time passes at {}", serve.speed);
        run.world().remark("serve", format!("the API will be at {url}; {pace}"));
        Ok(Host {
            run,
            again: serve.again.iter().flat_map(|record| record.visits.clone()).collect(),
            from: Time::ZERO + serve.from,
            pace: Pace::new(serve.speed, Time::ZERO, Instant::now()),
            hold: visit.hold,
            door,
            kubeconfig,
            invited: false,
            record,
            asked: BTreeMap::new(),
            news: Vec::new(),
        })
    }

    /// To the scenario's end, or until somebody ends it.
    fn play(&mut self, observer: &mut dyn Observer) -> Result<(), String> {
        loop {
            let nap = self.nap();
            let came = self.door.take(nap);
            let was_over = self.run.is_over();
            self.advance(observer)?;
            if self.run.is_over() && !was_over {
                if !self.hold {
                    return Ok(());
                }
                let text = "the scenario is over and judged; its time goes on until ^C";
                self.run.world().remark("serve", text.to_owned());
            }
            for inward in came {
                match inward {
                    Inward::Write(write) => self.write(write)?,
                    Inward::Remark(text) => self.run.world().remark("serve", text),
                    Inward::Interrupted => return Ok(()),
                    Inward::Broken(why) => return Err(format!("serving the API: {why}")),
                }
            }
            self.hand_out();
        }
    }

    /// How long there is nothing to do.
    fn nap(&mut self) -> Duration {
        let (wall, now) = (Instant::now(), self.run.now());
        let step = now + STEP;
        if now < self.from || self.pace.due(wall).is_none_or(|due| due >= step) {
            return Duration::ZERO;
        }
        let next = self.run.world().next_at().unwrap_or(Time::from_nanos(u64::MAX));
        let next = next.min(self.run.end().max(step));
        let (least, most) = NAPS;
        self.pace.until(next, wall).clamp(least, most)
    }

    /// As far as time has come, but no further than a step.
    fn advance(&mut self, observer: &mut dyn Observer) -> Result<(), String> {
        let now = self.run.now();
        let mut to = now + STEP;
        if now < self.from {
            to = to.min(self.from);
        } else if let Some(due) = self.pace.due(Instant::now()) {
            to = to.min(due).max(now);
        }
        if !self.hold {
            to = to.min(self.run.end());
        }
        while let Some(visit) = self.again.pop_front_if(|visit| visit.at <= to) {
            self.run.move_to(visit.at, observer);
            if let Some((_, visit)) = self.run.visit(visit.request, visit.dry_run) {
                self.record.keep(&visit)?;
            }
        }
        self.run.move_to(to, observer);
        match now < self.from {
            true => self.pace.begin(to, Instant::now()),
            false => self.pace.reached(to, Instant::now()),
        }
        self.door.set_clock(self.run.world().wall());
        Ok(())
    }

    fn write(&mut self, Write { id, request, dry_run }: Write) -> Result<(), String> {
        match self.run.visit(request, dry_run) {
            Some((call, visit)) => {
                self.asked.insert(call, id);
                self.record.keep(&visit)
            }
            None => {
                let why = "no API server runs in the simulation now: nothing happened, ask again";
                let error = Error::new(Reason::Unreachable, why);
                self.news.push(Outward::Answered(id, Err(error)));
                Ok(())
            }
        }
    }

    /// What the API server told.
    fn hand_out(&mut self) {
        for told in self.run.world().take_told() {
            let news = match told {
                Told::Published(cache) => {
                    self.invite();
                    Outward::Published(cache)
                }
                Told::Answered { call, result } => {
                    let Some(id) = self.asked.remove(&call) else { continue };
                    Outward::Answered(id, result)
                }
                Told::Ended => {
                    self.asked.clear();
                    Outward::Ended
                }
            };
            self.news.push(news);
        }
        self.door.tell(std::mem::take(&mut self.news));
    }

    /// Once there is something to be seen.
    fn invite(&mut self) {
        if !std::mem::replace(&mut self.invited, true) {
            let text = self.kubeconfig.invitation();
            self.run.world().remark("serve", text);
        }
    }
}
