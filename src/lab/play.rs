//! The thread that moves the world: its time is the machine's.

use super::home::Home;
use super::joined::{Guest, Joined};
use super::machine::Machine;
use super::mail::{MailBox, News};
use super::needs;
use super::plan::{Cluster, Plan};
use super::visitors::Visitors;
use super::wire::frame;
use crate::patient;
use crate::pki::{LEAF, Pki};
use crate::run::Visit;
use kubesim_runtime::Time;
use kubesim_sim::run::Stage;
use kubesim_sim::scenario::Scenario;
use kubesim_sim::world::external::Order;
use kubesim_sim::{Observer, Options, Report};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames read of one card before the others have their turn.
const BURST: usize = 64;
const LARGEST_FRAME: usize = 64 << 10;
/// This very program, for the pods: also when its file was replaced by a newer one or removed.
const PROGRAM: &str = "/proc/self/exe";
/// The loop goes round at least every look, and probes give up after half a second.
const STALL: Duration = Duration::from_millis(500);

/// What this machine or the scenario lacks for a run, in a sentence.
pub fn lacking(scenario: &Scenario, until: Option<Duration>) -> Option<String> {
    needs::lacking().or_else(|| needs::beyond(scenario, until))
}

/// Plays a scenario that [`lacking`] says nothing about on this machine's kernel. The error says
/// what ended the run.
pub fn run(
    scenario: &Scenario,
    options: &Options,
    visit: &Visit,
    observer: &mut dyn Observer,
) -> Result<Report, String> {
    let mut lab = Lab::new(scenario, options, visit)?;
    let report = lab.run(visit.hold, observer);
    lab.leave(observer);
    report
}

/// Sees the world after each step, and the machines that are on. An error ends the run.
pub type Watcher<'a> = dyn FnMut(&Stage, &BTreeMap<u32, Machine>) -> Result<(), String> + 'a;

/// The same with somebody who watches.
pub fn run_watched(
    scenario: &Scenario,
    options: &Options,
    observer: &mut dyn Observer,
    watcher: &mut Watcher<'_>,
) -> Result<Report, String> {
    let mut lab = Lab::new(scenario, options, &Visit::default())?;
    let end = lab.play(observer, watcher)?;
    Ok(lab.judge(&end, observer))
}

/// How a scenario's play ended.
#[derive(PartialEq, Eq)]
enum End {
    Over,
    /// By hand, before.
    Interrupted,
}

struct Lab {
    stage: Stage,
    machines: BTreeMap<u32, Machine>,
    mail: MailBox,
    cluster: Cluster,
    begun: Instant,
    signals: SignalFd,
    buffer: Vec<u8>,
    /// In a cluster that was joined.
    guest: Option<Guest>,
    _visitors: Option<Visitors>,
    /// Last: the machines are off before their files go.
    home: Home,
}

impl Lab {
    fn new(scenario: &Scenario, options: &Options, visit: &Visit) -> Result<Lab, String> {
        // Before any thread is made.
        let signals = signals()?;
        let mut stage = Stage::external(&Arc::new(scenario.clone()), options);
        let program = PathBuf::from(PROGRAM);
        let home = Home::new()?;
        let joined = visit.join.as_deref().map(|place| Joined::open(place, scenario));
        let (pki, joined, guest) = match joined.transpose()? {
            Some(Joined { pki, outside, guest }) => (pki, Some(outside), Some(guest)),
            // By its name: the addresses change.
            None => (Arc::new(Pki::open(&home.of_cluster(), &[], LEAF)?), None, None),
        };
        let visitors = match &visit.kubeconfig {
            Some(path) => {
                home.note_kubeconfig(path)?;
                Some(Visitors::new(&pki, path)?)
            }
            None => None,
        };
        if let Some(visitors) = &visitors {
            stage.world.remark("lab", visitors.invitation());
        }
        let listener = visitors.as_ref().map(Visitors::listener);
        let mail = MailBox::new()?;
        if let Some(guest) = &guest {
            guest.arrive().map_err(|why| format!("--join: {why}"))?;
        }
        Ok(Lab {
            stage,
            machines: BTreeMap::new(),
            mail,
            guest,
            cluster: Cluster { store: Arc::default(), pki, listener, joined, program },
            begun: Instant::now(),
            signals,
            buffer: vec![0; LARGEST_FRAME],
            _visitors: visitors,
            home,
        })
    }

    fn now(&self) -> Time {
        Time::ZERO + self.begun.elapsed()
    }

    fn run(&mut self, hold: bool, observer: &mut dyn Observer) -> Result<Report, String> {
        let end = self.play(observer, &mut |_, _| Ok(()))?;
        let report = self.judge(&end, observer);
        if hold && end == End::Over {
            let text = "the scenario is over; the lab stays until ^C";
            observer.line(self.stage.world.now, "lab", text);
            self.hold(observer)?;
        }
        Ok(report)
    }

    fn judge(&mut self, end: &End, observer: &mut dyn Observer) -> Report {
        let interrupted = *end == End::Interrupted;
        if interrupted {
            self.stage.world.remark("lab", "interrupted: what was due later is not judged".into());
            self.stage.look(observer);
            self.stage.end_here();
        }
        Report { interrupted, ..self.stage.finish() }
    }

    fn play(
        &mut self,
        observer: &mut dyn Observer,
        watcher: &mut Watcher<'_>,
    ) -> Result<End, String> {
        // Who is on from the start is there before the clock begins.
        self.stage.world.run_until(Time::ZERO);
        self.carry_out()?;
        self.begun = Instant::now();
        let mut look = Time::ZERO;
        loop {
            if self.interrupted() {
                return Ok(End::Interrupted);
            }
            self.kept_pace()?;
            self.turn(self.now().min(self.stage.end()))?;
            watcher(&self.stage, &self.machines)?;
            let now = self.stage.world.now;
            if now >= look {
                self.stage.look(observer);
                look = now + self.stage.period();
            }
            look = self.stage.next_due().map_or(look, |due| due.min(look));
            if now >= self.stage.end() {
                return Ok(End::Over);
            }
            let next = self.stage.world.next_at().unwrap_or(look).min(look);
            self.wait(next)?;
        }
    }

    /// Goes on after the end, judged no more, until it is interrupted.
    fn hold(&mut self, observer: &mut dyn Observer) -> Result<(), String> {
        while !self.interrupted() {
            self.turn(self.now())?;
            for line in self.stage.world.lines.drain(..) {
                observer.line(line.at, &line.who, &line.text);
            }
            let latest = self.stage.world.now + self.stage.period();
            let next = self.stage.world.next_at().unwrap_or(latest).min(latest);
            self.wait(next)?;
        }
        Ok(())
    }

    /// Moves the world to an instant; then what came in, and what goes out.
    fn turn(&mut self, to: Time) -> Result<(), String> {
        self.stage.world.run_until(to);
        self.take_news()?;
        self.take_frames();
        self.carry_out()
    }

    /// A run that stood still for a while would blame the cluster for what the machine did.
    fn kept_pace(&self) -> Result<(), String> {
        let behind = self.now().since(self.stage.world.now);
        if behind < STALL { Ok(()) } else { Err(stood_still(behind)) }
    }

    fn take_news(&mut self) -> Result<(), String> {
        let news: Vec<(u32, News)> = self.mail.take().collect();
        let world = &mut self.stage.world;
        for (machine, news) in news {
            match news {
                News::AddressTaken(address) => world.address_taken(machine, address),
                News::AddressDropped(address, why) => world.address_dropped(machine, address, why),
                News::Noted(cell, text) => world.noted(cell, text),
                News::Failed(cell, cause) => world.failed(cell, &cause),
                News::Refused(cell, why) => world.refused_to_run(cell, why),
                News::Published(cache) => world.published(cache),
                News::Operated(call, result) => {
                    if let Some(guest) = &mut self.guest {
                        guest.told(call, &result);
                    }
                    world.operated(call, result);
                }
                News::File(path, content) => world.file_seen(machine, &path, content),
                News::Pictured(picture, asked) => world.pictured(machine, &picture, asked),
                News::Tried(slot, number, outcome) => world.tried(slot, number, outcome),
                News::StreamOpened(slot) => world.stream_opened(slot),
                News::StreamBroke(slot) => world.stream_broke(slot),
                News::StreamEchoed(seq) => world.stream_echoed(seq),
                News::Remark(who, text) => world.remark(&who, text),
                News::Disobeyed(attempt, why) => world.disobeyed(machine, attempt, &why),
                News::Broken(why) => {
                    let name = &world.machines[machine as usize].name;
                    return Err(format!("{name} of the lab cannot be played any more: {why}"));
                }
            }
        }
        Ok(())
    }

    fn take_frames(&mut self) {
        for (machine, host) in &self.machines {
            for _ in 0..BURST {
                let Ok(length) = host.tap.recv(&mut self.buffer) else { break };
                if let Some(frame) = frame::decode(&self.buffer[..length]) {
                    self.stage.world.frame_from(*machine, frame);
                }
            }
        }
    }

    fn carry_out(&mut self) -> Result<(), String> {
        for (machine, order) in self.stage.world.take_orders() {
            match order {
                Order::Frame(frame) => {
                    if let (Some(host), Some(bytes)) =
                        (self.machines.get(&machine), frame::encode(&frame))
                    {
                        // A card that is down or full loses it.
                        let _ = host.tap.send(&bytes);
                    }
                }
                Order::PowerOn => self.power_on(machine)?,
                Order::PowerOff(_) => drop(self.machines.remove(&machine)),
                order => {
                    if let (Order::Operate { call, request }, Some(guest)) =
                        (&order, &mut self.guest)
                    {
                        guest.asks(*call, request);
                    }
                    if let Some(host) = self.machines.get(&machine) {
                        host.order(order);
                    }
                }
            }
        }
        Ok(())
    }

    fn power_on(&mut self, machine: u32) -> Result<(), String> {
        let world = &self.stage.world;
        let name = &world.machines[machine as usize].name;
        let plan = Plan::new(world, machine, self.home.of(name), &self.cluster)?;
        let host = Machine::start(plan, self.mail.of(machine))?;
        self.home.note_thread(name, host.id)?;
        self.machines.insert(machine, host);
        Ok(())
    }

    /// Until a frame or news come, or `next` is due.
    fn wait(&self, next: Time) -> Result<(), String> {
        let timeout = TimeSpec::from_duration(next.since(self.now()));
        let mut descriptors = vec![
            PollFd::new(self.mail.bell.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        let taps = self.machines.values().map(|host| host.tap.as_fd());
        descriptors.extend(taps.map(|tap| PollFd::new(tap, PollFlags::POLLIN)));
        match ppoll(&mut descriptors, Some(timeout), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(format!("waiting for frames: {errno}")),
        }
    }

    /// Off, all at once: each waits for its thread.
    fn power_off(&mut self) {
        for host in self.machines.values() {
            host.order(Order::PowerOff(kubesim_runtime::Loss::Power));
        }
        self.machines.clear();
    }

    /// A cluster that was joined is as it was before.
    fn leave(&mut self, observer: &mut dyn Observer) {
        self.power_off();
        if let Some(Err(why)) = self.guest.as_ref().map(Guest::leave) {
            let text = format!("what it brought stays in the cluster: {why}");
            observer.line(self.stage.world.now, "lab", &text);
        }
    }

    /// ^C, or a polite end.
    fn interrupted(&mut self) -> bool {
        matches!(self.signals.read_signal(), Ok(Some(_)))
    }
}

/// Why a run is worth nothing.
fn stood_still(behind: Duration) -> String {
    let seconds = behind.as_secs_f64();
    format!(
        "the lab stood still for {seconds:.1} s of real time, so what it would say is worth \
         nothing: the machine was suspended, or is too busy; try again when it is not"
    )
}

/// What ends a run, as something to read. Threads that are made later have it blocked as well.
fn signals() -> Result<SignalFd, String> {
    let set = patient::ending();
    set.thread_block().map_err(|errno| format!("blocking signals: {errno}"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|errno| format!("a descriptor for signals: {errno}"))
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.power_off();
    }
}
