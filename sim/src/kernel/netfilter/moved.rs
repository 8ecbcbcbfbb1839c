//! Sources that have other ports outside: who had to move, or was to, keeps the port towards
//! others as well (`nf_nat_bysource`, net/netfilter/nf_nat_core.c).

use super::tuple::Tuple;
use crate::kernel::family::Family;
use kubesim_actors::ports::rules::Protocol;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

type Source<F> = (Protocol, <F as Family>::Addr, u16);

/// An entry's number, and where its source seems to be.
type Mapping<F> = (u32, <F as Family>::Addr, u16);

/// Looked up, never iterated.
#[derive(Clone, Debug)]
pub(super) struct Moved<F: Family>(FxHashMap<Source<F>, SmallVec<[Mapping<F>; 1]>>);

impl<F: Family> Default for Moved<F> {
    fn default() -> Self {
        Moved(FxHashMap::default())
    }
}

fn source<F: Family>(tuple: &Tuple<F>) -> Source<F> {
    (tuple.protocol, tuple.src, tuple.sport)
}

impl<F: Family> Moved<F> {
    /// Of an entry's two tuples, once its source is bound.
    pub fn insert(&mut self, id: u32, original: &Tuple<F>, reply: &Tuple<F>) {
        if original.sport != outside(reply) {
            let mapping = (id, reply.dst, outside(reply));
            self.0.entry(source(original)).or_default().push(mapping);
        }
    }

    pub fn remove(&mut self, id: u32, original: &Tuple<F>) {
        if self.0.is_empty() {
            return;
        }
        if let Some(mappings) = self.0.get_mut(&source(original)) {
            mappings.retain(|(of, ..)| *of != id);
            if mappings.is_empty() {
                self.0.remove(&source(original));
            }
        }
    }

    /// The port that this source has at an address outside: its latest.
    pub fn port(&self, of: &Tuple<F>, at: F::Addr) -> Option<u16> {
        if self.0.is_empty() {
            return None;
        }
        let mappings = self.0.get(&source(of))?;
        mappings.iter().rev().find(|(_, ip, _)| *ip == at).map(|(.., port)| *port)
    }
}

/// The port (or id) by which answers find the source.
fn outside<F: Family>(reply: &Tuple<F>) -> u16 {
    if reply.protocol == Protocol::Icmp { reply.sport } else { reply.dport }
}
