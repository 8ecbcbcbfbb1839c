//! What a case is drawn with: one stream a case, so that each can be had again alone.

use super::step::LEGS;
use kubesim_runtime::{Rng, Stream};

pub struct Dice(Rng);

impl Dice {
    pub fn new(seed: u64, domain: &str, index: u64) -> Dice {
        Dice(Rng::new(Stream { seed, label: domain, index, incarnation: 0 }))
    }
    /// Uniform in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }
    /// One of them; there is at least one.
    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
    /// True once in `one_in` times.
    pub fn yes(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
    pub fn leg(&mut self) -> usize {
        self.below(LEGS.len())
    }
}
