//! Startup, liveness and readiness of one container (pkg/kubelet/prober/worker.go).

use crate::ports::probe::{Check, Get, Purpose};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubesim_runtime::{Rng, Time};
use smallvec::SmallVec;
use smol_str::{SmolStr, format_smolstr};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// The probes of a container; at most one of each purpose.
#[derive(Clone, Debug)]
pub struct Probes {
    workers: Vec<Worker>,
    began: Time,
}

#[derive(Clone, Debug)]
struct Worker {
    purpose: Purpose,
    /// Where and how to ask; `None` if it names no port that exists.
    form: Option<Form>,
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    /// When to ask next; [`Time::NEVER`] while it has to hold.
    due: Time,
    /// The attempt of the container that the question under way is about.
    flight: Option<u32>,
    /// Successes in a row, or failures if negative.
    streak: i64,
    passed: bool,
}

/// A question as the spec has it. The pod's address goes where no other host is named.
#[derive(Clone, Debug)]
enum Form {
    Http { get: Arc<Get> },
    Tcp { host: Option<Ipv4Addr>, port: u16 },
    Exec { command: Vec<String> },
}

/// To be asked of a container now.
#[derive(Clone, Debug)]
pub struct Question {
    pub purpose: Purpose,
    pub timeout: Duration,
    pub check: Check,
}

/// What a result means for the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// Readiness or startup turned.
    Turned,
    /// Liveness or startup failed for good: the container must be killed.
    Kill,
}

impl Probes {
    pub fn approach(&self) {
        kubesim_runtime::near::slice(&self.workers, 4);
    }
    pub fn new(spec: &Container) -> Self {
        let worker =
            |purpose, probe: &Option<Probe>| Some(Worker::new(purpose, probe.as_ref()?, spec));
        let workers = [
            worker(Purpose::Startup, &spec.startup_probe),
            worker(Purpose::Liveness, &spec.liveness_probe),
            worker(Purpose::Readiness, &spec.readiness_probe),
        ];
        Probes { workers: workers.into_iter().flatten().collect(), began: Time::NEVER }
    }

    fn passed(&self, purpose: Purpose) -> bool {
        self.workers.iter().find(|w| w.purpose == purpose).is_none_or(|worker| worker.passed)
    }
    pub fn started(&self) -> bool {
        self.passed(Purpose::Startup)
    }
    /// No readiness probe, or it says so.
    pub fn ready(&self) -> bool {
        self.passed(Purpose::Readiness)
    }

    /// The container runs from now on; or it did already, and the API was told that it had
    /// `started` and was `ready`: a kubelet's restart must not take a pod out of service.
    pub fn begin(&mut self, now: Time, told: (bool, bool), rng: &mut Rng) {
        self.began = now;
        for worker in &mut self.workers {
            worker.streak = 0;
            worker.passed = match worker.purpose {
                Purpose::Startup => told.0,
                Purpose::Readiness => told.1,
                _ => true,
            };
            worker.due = Time::NEVER;
        }
        self.release(now, rng);
    }

    /// The startup probe holds the others back, and asks no more once it has succeeded.
    fn release(&mut self, now: Time, rng: &mut Rng) {
        let (started, began) = (self.started(), self.began);
        for worker in &mut self.workers {
            if (worker.purpose == Purpose::Startup) == started {
                worker.due = Time::NEVER;
            } else {
                let first = (began + worker.initial_delay).max(now);
                worker.due = first + rng.between(Duration::ZERO, worker.period);
            }
        }
    }

    /// The container does not run.
    pub fn halt(&mut self) {
        for worker in &mut self.workers {
            worker.due = Time::NEVER;
            worker.passed = worker.purpose == Purpose::Liveness;
        }
    }
    /// The pod is being deleted: only readiness still counts.
    pub fn leave_alive(&mut self) {
        for worker in self.workers.iter_mut().filter(|w| w.purpose != Purpose::Readiness) {
            worker.due = Time::NEVER;
        }
    }

    pub fn due(&self) -> Time {
        self.workers.iter().map(|worker| worker.due).min().unwrap_or(Time::NEVER)
    }

    /// The questions to ask now of the container at this address. One that cannot be put counts
    /// as neither.
    pub fn ask(&mut self, now: Time, attempt: u32, ip: Ipv4Addr) -> SmallVec<[Question; 1]> {
        let mut asked = SmallVec::new();
        for worker in self.workers.iter_mut().filter(|worker| worker.due <= now) {
            worker.due = now + worker.period;
            if worker.flight.is_none()
                && let Some(form) = &worker.form
            {
                worker.flight = Some(attempt);
                let (purpose, timeout) = (worker.purpose, worker.timeout);
                asked.push(Question { purpose, timeout, check: form.check(ip) });
            }
        }
        asked
    }

    /// An answer; one about an earlier life of the container counts for nothing.
    pub fn answer(
        &mut self,
        purpose: Purpose,
        success: bool,
        attempt: u32,
        now: Time,
        rng: &mut Rng,
    ) -> Verdict {
        let Some(worker) = self.workers.iter_mut().find(|w| w.purpose == purpose) else {
            return Verdict::Same;
        };
        if worker.flight.take() != Some(attempt) || worker.due == Time::NEVER {
            return Verdict::Same;
        }
        worker.streak = match success {
            true => worker.streak.max(0) + 1,
            false => worker.streak.min(0) - 1,
        };
        let threshold = if success { worker.success_threshold } else { worker.failure_threshold };
        if worker.streak.unsigned_abs() < u64::from(threshold) {
            return Verdict::Same;
        }
        let turned = worker.passed != success;
        worker.passed = success;
        if !success && purpose != Purpose::Readiness {
            worker.due = Time::NEVER;
            return Verdict::Kill;
        }
        if purpose == Purpose::Startup {
            self.release(now, rng);
        }
        if turned { Verdict::Turned } else { Verdict::Same }
    }
}

impl Worker {
    fn new(purpose: Purpose, probe: &Probe, spec: &Container) -> Self {
        let number = |field: Option<i32>, default: u32, least: u32| {
            field.and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= least).unwrap_or(default)
        };
        let seconds =
            |field, default, least| Duration::from_secs(u64::from(number(field, default, least)));
        Worker {
            purpose,
            form: Form::of(probe, spec),
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            success_threshold: number(probe.success_threshold, 1, 1),
            failure_threshold: number(probe.failure_threshold, 3, 1),
            due: Time::NEVER,
            flight: None,
            streak: 0,
            passed: purpose == Purpose::Liveness,
        }
    }
}

impl Form {
    fn of(probe: &Probe, spec: &Container) -> Option<Form> {
        let host = |host: &Option<String>| host.as_ref().and_then(|host| host.parse().ok());
        Some(if let Some(http) = &probe.http_get {
            Form::Http { get: Arc::new(get(http, spec)?) }
        } else if let Some(tcp) = &probe.tcp_socket {
            Form::Tcp { host: host(&tcp.host), port: port(spec, &tcp.port)? }
        } else if let Some(grpc) = &probe.grpc {
            Form::Tcp { host: None, port: u16::try_from(grpc.port).ok()? }
        } else {
            Form::Exec { command: probe.exec.as_ref()?.command.clone().unwrap_or_default() }
        })
    }

    fn check(&self, ip: Ipv4Addr) -> Check {
        match self {
            Form::Http { get } => Check::Http { ip, get: Arc::clone(get) },
            Form::Tcp { host, port } => Check::Tcp { ip: host.unwrap_or(ip), port: *port },
            Form::Exec { command } => Check::Exec { command: command.clone() },
        }
    }
}

/// `None` if it names no port that exists (pkg/probe/http/request.go, pkg/probe/util.go).
pub(super) fn get(action: &HTTPGetAction, spec: &Container) -> Option<Get> {
    let path = action.path.as_deref().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    let headers = action.http_headers.iter().flatten();
    Some(Get {
        host: SmolStr::from(action.host.as_deref().unwrap_or_default()),
        port: port(spec, &action.port)?,
        path: format_smolstr!("{slash}{path}"),
        tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        headers: headers.map(|h| (SmolStr::from(&h.name), SmolStr::from(&h.value))).collect(),
    })
}

fn port(spec: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = spec.ports.as_deref().unwrap_or_default();
            let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}
