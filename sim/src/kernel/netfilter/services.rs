//! What a namespace has for Services beside chains: nftables mode's tables, and IPVS.

use super::conntrack::Conntrack;
use super::family::Beside;
use super::flat::FlatTable;
use super::ipvs::{Course, Ipvs};
use super::walk::Outcome;
use super::{Hook, HookContext, Verdict};
use crate::kernel::family::V4;
use crate::kernel::packet::Packet;
use kubesim_actors::ports::rules::RejectWith;
use kubesim_runtime::Rng;

#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Tables of owners in nftables mode.
    pub(super) flat: Vec<FlatTable>,
    /// There once somebody has asked for virtual services.
    pub(super) ipvs: Option<Box<Ipvs>>,
}

impl Beside<V4> for Services {
    fn has_nat(&self) -> bool {
        self.flat.iter().any(|table| !table.is_empty())
    }

    fn tracks(&self) -> bool {
        self.ipvs.as_ref().is_some_and(|ipvs| !ipvs.is_idle())
    }

    fn nat(
        &mut self,
        hook: Hook,
        packet: &mut Packet,
        dnat: bool,
        context: &HookContext<'_>,
        rng: &mut Rng,
    ) -> Outcome {
        let outcomes = self.flat.iter_mut().map(|t| t.nat(hook, packet, dnat, context, rng));
        outcomes.into_iter().find(|outcome| *outcome != Outcome::Accept).unwrap_or(Outcome::Accept)
    }

    fn filter(&self, hook: Hook, packet: &Packet, context: &HookContext<'_>) -> Outcome {
        for table in &self.flat {
            let outcome = table.filter(hook, packet, context);
            if matches!(outcome, Outcome::Drop | Outcome::Reject(_)) {
                return outcome;
            }
        }
        Outcome::Accept
    }

    fn pass(
        &mut self,
        hook: Hook,
        packet: &mut Packet,
        conntrack: &mut Conntrack,
        context: &HookContext<'_>,
    ) -> Option<Verdict> {
        let ipvs = self.ipvs.as_mut().filter(|ipvs| !context.sent_on && !ipvs.is_idle())?;
        match ipvs.pass(hook, packet, conntrack, context) {
            Course::On => None,
            Course::SentOn => Some(Verdict::SentOn),
            Course::Refused => Some(Verdict::Reject(RejectWith::PortUnreachable)),
            Course::Dropped => Some(Verdict::Drop),
        }
    }
}
