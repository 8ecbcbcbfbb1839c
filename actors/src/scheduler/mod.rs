//! The scheduler: one pod at a time, from a queue with back-off, onto the best node it fits.

use crate::ports::api;
use kubesim_runtime::{Actor, Answers, Context, Digest, Hasher};

#[derive(Clone, Debug)]
pub struct Config {
    /// `spec.schedulerName` of the pods it serves.
    pub name: String,
}

#[derive(Clone, Debug)]
pub enum Event {
    Api(api::Event),
}

#[derive(Clone, Debug)]
pub enum Effect {
    Api(api::Effect),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    Schedule,
    Backoff,
}

impl kubesim_runtime::Effect for Effect {
    fn answers(&self) -> Answers {
        let Effect::Api(effect) = self;
        effect.answers()
    }
}

impl Digest for Event {
    fn digest(&self, hasher: &mut Hasher) {
        let Event::Api(event) = self;
        event.digest(hasher);
    }
}

#[derive(Clone, Debug)]
pub struct Scheduler {}

impl Actor for Scheduler {
    const NAME: &'static str = "scheduler";
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(_config: &Config, _ctx: &mut Context<'_, Self>) -> Self {
        Scheduler {}
    }
    fn handle(&mut self, _event: Event, _ctx: &mut Context<'_, Self>) {}
    fn timeout(&mut self, _timer: Timer, _ctx: &mut Context<'_, Self>) {}
}

/// `Toleration.ToleratesTaint` (core/v1 `toleration.go`).
pub fn tolerates(
    toleration: &k8s_openapi::api::core::v1::Toleration,
    taint: &k8s_openapi::api::core::v1::Taint,
) -> bool {
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            !key.is_empty() && text(&toleration.value) == text(&taint.value)
        }
        Some(_) => false,
    }
}
