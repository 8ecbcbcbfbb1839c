//! A packet's way through one hook, table by table.

use super::family::{Beside, Filtered};
use super::matches::{Key, Scene, state_of};
use super::walk::{Outcome, Walk};
use super::{Hook, HookContext, State, Verdict, nat, table};
use crate::kernel::packet::{Ct, Packet};
use kubesim_actors::ports::rules::Table;
use kubesim_runtime::Rng;

impl<F: Filtered> State<F> {
    /// After every change of the rules.
    pub(super) fn changed(&mut self) {
        self.nat |= self.rules.has_nat_rules() || self.beside.has_nat();
        self.tracking = self.nat || self.rules.needs_conntrack() || self.beside.tracks();
        self.idle = !self.tracking && self.rules.is_empty();
        self.loaded = self.rules.loaded();
        self.rules.share();
    }

    pub(super) fn hook(
        &mut self,
        hook: Hook,
        packet: &mut Packet<F>,
        context: &HookContext<'_, F>,
        rng: &mut Rng,
    ) -> Verdict<F> {
        let verdict = self.stages(hook, packet, context, rng);
        // The answer to a refused packet still needs its entry (see `Netfilter::attach`).
        if verdict == Verdict::Drop {
            self.conntrack.forget(packet.ct);
        }
        verdict
    }

    fn stages(
        &mut self,
        hook: Hook,
        packet: &mut Packet<F>,
        context: &HookContext<'_, F>,
        rng: &mut Rng,
    ) -> Verdict<F> {
        let enters = matches!(hook, Hook::Prerouting | Hook::Output);
        let leaves = matches!(hook, Hook::Input | Hook::Postrouting);
        if enters {
            if self.walk(Table::Raw, hook, packet, context, rng) == Outcome::Drop {
                return Verdict::Drop;
            }
            if self.tracking && self.conntrack.track(packet, context.now).is_err() {
                return Verdict::Drop;
            }
        }
        if self.walk(Table::Mangle, hook, packet, context, rng) == Outcome::Drop {
            return Verdict::Drop;
        }
        if enters && !self.translate(hook, packet, context, rng) {
            return Verdict::Drop;
        }
        if hook == Hook::Output
            && let Some(verdict) = self.beside.pass(hook, packet, &mut self.conntrack, context)
        {
            return verdict;
        }
        match self.walk(Table::Filter, hook, packet, context, rng) {
            Outcome::Drop => return Verdict::Drop,
            Outcome::Reject(with) => return Verdict::Reject(with),
            _ => {}
        }
        match self.beside.filter(hook, packet, context) {
            Outcome::Drop => return Verdict::Drop,
            Outcome::Reject(with) => return Verdict::Reject(with),
            _ => {}
        }
        if matches!(hook, Hook::Input | Hook::Forward)
            && let Some(verdict) = self.beside.pass(hook, packet, &mut self.conntrack, context)
        {
            return verdict;
        }
        if leaves {
            let fine = self.translate(hook, packet, context, rng)
                && self.conntrack.confirm(packet, context.now);
            if !fine {
                return Verdict::Drop;
            }
        }
        Verdict::Accept
    }

    /// The packet's connection has a rewritten destination.
    fn is_dnat(&self, packet: &Packet<F>) -> bool {
        match packet.ct {
            Ct::Entry { id, .. } => self.conntrack.get(id).is_some_and(|entry| entry.dst_nat),
            _ => false,
        }
    }

    /// The nat table at a hook: chains for what is undecided, the rewriting for all.
    fn translate(
        &mut self,
        hook: Hook,
        packet: &mut Packet<F>,
        context: &HookContext<'_, F>,
        rng: &mut Rng,
    ) -> bool {
        if !self.nat {
            return true;
        }
        if nat::undecided(&self.conntrack, packet, hook) {
            let mut outcome = self.walk(Table::Nat, hook, packet, context, rng);
            if outcome == Outcome::Accept {
                let dnat = self.is_dnat(packet);
                outcome = self.beside.nat(hook, packet, dnat, context, rng);
            }
            if outcome == Outcome::Drop
                || !nat::bind(&mut self.conntrack, packet, hook, outcome, context, rng)
            {
                return false;
            }
        }
        nat::translate(&mut self.conntrack, packet, hook, context)
    }

    /// What a table says at a hook; its policy at the end.
    #[inline]
    fn walk(
        &mut self,
        table: Table,
        hook: Hook,
        packet: &mut Packet<F>,
        context: &HookContext<'_, F>,
        rng: &mut Rng,
    ) -> Outcome<F> {
        if self.loaded & table::bit(table, hook) == 0 {
            return Outcome::Accept;
        }
        let base = self.rules.built_in(table, hook);
        let policy = if base.policy_drop { Outcome::Drop } else { Outcome::Accept };
        if base.entries().is_empty() {
            return policy;
        }
        let dnat = self.is_dnat(packet);
        let scene = Scene {
            key: Key::of(packet),
            mark: packet.mark,
            state: state_of(packet.ct),
            untouched: packet.ct.is_unseen(),
            dnat,
            context,
            recent: &mut self.recent,
            rng,
        };
        let mut walk = Walk { rules: &self.rules, scene, notrack: false };
        let outcome = walk.chain(base.counted(), 0);
        packet.mark = walk.scene.mark;
        if walk.notrack && packet.ct.is_unseen() {
            packet.ct = Ct::Untracked;
        }
        outcome.unwrap_or(policy)
    }
}
