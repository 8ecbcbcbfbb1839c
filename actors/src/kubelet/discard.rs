//! Directories of volumes that nobody has any more: the Node says which, they are removed, and the
//! Node says that (`controllers/volumes/reclaim.rs` is the other side).

use super::supplies::Backoff;
use super::{Effect, Kubelet};
use crate::ports::volumes::Request;
use crate::storage;
use kubesim_runtime::{Context, Time};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub struct Discards(BTreeMap<SmolStr, State>);

#[derive(Clone, Debug)]
enum State {
    Due(Backoff),
    Asked(Backoff),
    Done,
}

impl Discards {
    /// What the Node is to say of them; nothing if there are none.
    pub fn told(&self) -> Option<String> {
        let done = self.0.iter().filter(|(_, state)| matches!(state, State::Done));
        let names: Vec<&str> = done.map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// When one is tried again. One whose time has come waits for a pod.
    pub fn due(&self, now: Time) -> Time {
        let due = self.0.values().filter_map(|state| match state {
            State::Due(backoff) => Some(backoff.at()),
            _ => None,
        });
        due.filter(|at| *at > now).min().unwrap_or(Time::NEVER)
    }
}

impl Kubelet {
    /// Asks for what is to be removed and is not yet. What a pod here still has stays until then.
    pub(super) fn discard(&mut self, ctx: &mut Context<'_, Kubelet>) {
        let directory = self.local.config.volumes.clone();
        let Some(node) = self.node.object().filter(|_| !directory.is_empty()) else { return };
        let wanted: BTreeSet<SmolStr> = storage::listed(node, storage::REMOVE)
            .filter(|name| is_name(name))
            .map(SmolStr::from)
            .collect();
        let discards = &mut self.local.discards.0;
        discards.retain(|name, _| wanted.contains(name));
        for name in wanted {
            let state = discards.entry(name.clone()).or_insert(State::Due(Backoff::default()));
            let State::Due(backoff) = *state else { continue };
            let used = self.pods.values().any(|pod| pod.has_volume(&name));
            if backoff.at() > ctx.now() || used {
                continue;
            }
            *state = State::Asked(backoff);
            let path = SmolStr::from(format!("{directory}/{name}"));
            ctx.perform(Effect::Volumes(Request::Discard { path }));
        }
    }

    pub(super) fn on_discarded(
        &mut self,
        path: &str,
        result: Result<(), SmolStr>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let Some(state) = self.local.discards.0.get_mut(name) else { return };
        let State::Asked(mut backoff) = *state else { return };
        match result {
            Ok(()) => {
                ctx.note(|| format!("the volume {name} is removed"));
                *state = State::Done;
            }
            Err(why) => {
                ctx.note(|| format!("removing the volume {name}: {why}"));
                backoff.failed(ctx.now());
                *state = State::Due(backoff);
            }
        }
        self.sync_node(ctx);
    }
}

/// One directory below another, whatever an annotation says.
fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(good)
}
