//! What netfilter asks of a family of IP beside its addresses.

use super::conntrack::Conntrack;
use super::services::Services;
use super::walk::Outcome;
use super::{Hook, HookContext, Verdict};
use crate::kernel::family::{Family, V4, V6};
use crate::kernel::packet::Packet;
use kubesim_actors::ports::rules::Address;
use kubesim_runtime::Rng;
use std::fmt::Debug;

/// What a packet is compared by.
pub type Bits<F> = <<F as Family>::Addr as Address>::Bits;
/// What REJECT says.
pub type RejectWith<F> = <<F as Family>::Addr as Address>::RejectWith;

pub trait Filtered: Family {
    type Beside: Beside<Self>;
    /// ICMP's types of an echo's request and reply.
    const ECHO: [u8; 2];
}

impl Filtered for V4 {
    type Beside = Services;
    const ECHO: [u8; 2] = [8, 0];
}

impl Filtered for V6 {
    type Beside = Nothing;
    const ECHO: [u8; 2] = [128, 129];
}

/// What is hooked in beside the tables of iptables.
pub trait Beside<F: Family>: Clone + Debug + Default {
    /// There is something that rewrites.
    fn has_nat(&self) -> bool;
    /// There is something that needs conntrack.
    fn tracks(&self) -> bool;
    /// Behind the nat table, where that said nothing. `dnat`: the destination is rewritten.
    fn nat(
        &mut self,
        hook: Hook,
        packet: &mut Packet<F>,
        dnat: bool,
        context: &HookContext<'_, F>,
        rng: &mut Rng,
    ) -> Outcome<F>;
    /// Behind the filter table.
    fn filter(&self, hook: Hook, packet: &Packet<F>, context: &HookContext<'_, F>) -> Outcome<F>;
    /// Around it. `Some`: the packet's way through the hook ends here.
    fn pass(
        &mut self,
        hook: Hook,
        packet: &mut Packet<F>,
        conntrack: &mut Conntrack<F>,
        context: &HookContext<'_, F>,
    ) -> Option<Verdict<F>>;
}

/// Of IPv6 nobody asks for more yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl<F: Family> Beside<F> for Nothing {
    fn has_nat(&self) -> bool {
        false
    }
    fn tracks(&self) -> bool {
        false
    }
    fn nat(
        &mut self,
        _: Hook,
        _: &mut Packet<F>,
        _: bool,
        _: &HookContext<'_, F>,
        _: &mut Rng,
    ) -> Outcome<F> {
        Outcome::Accept
    }
    fn filter(&self, _: Hook, _: &Packet<F>, _: &HookContext<'_, F>) -> Outcome<F> {
        Outcome::Accept
    }
    fn pass(
        &mut self,
        _: Hook,
        _: &mut Packet<F>,
        _: &mut Conntrack<F>,
        _: &HookContext<'_, F>,
    ) -> Option<Verdict<F>> {
        None
    }
}

/// The words of iptables or ip6tables, after the program's name.
pub(super) fn said<F: Family>(words: &str) -> String {
    format!("{}: {words}", F::Addr::PROGRAM)
}
