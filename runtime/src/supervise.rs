//! What happens when an actor fails, the same in every world.

use crate::Rng;
use std::time::Duration;

/// What a crash takes with it, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The actor's memory. The machine, its kernel and its containers go on.
    Process,
    /// Everything on the machine but its disk: all its actors, its kernel's tables, its containers.
    Power,
    /// The disk as well: the machine comes back empty, under the same name.
    Disk,
}

/// Exponential back-off with jitter: `initial * 2^n`, at most `max`, lengthened by up to a
/// `jitter` fraction. A calm spell of `reset_after` starts it anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
    pub jitter: f64,
    pub reset_after: Duration,
}

impl Backoff {
    /// The policy by which hosts restart a failed actor.
    pub const SUPERVISOR: Backoff = Backoff {
        initial: Duration::from_millis(100),
        max: Duration::from_secs(10),
        jitter: 0.2,
        reset_after: Duration::from_secs(60),
    };

    /// How long to wait before attempt number `failures` (1 after the first failure).
    pub fn delay(&self, failures: u32, rng: &mut Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let base = self.initial.saturating_mul(1 << doublings).min(self.max);
        rng.jitter(base, self.jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;

    #[test]
    fn it_doubles_up_to_its_ceiling() {
        let mut rng = Rng::new(Stream { seed: 1, label: "t", index: 0, incarnation: 0 });
        let calm = Backoff { jitter: 0.0, ..Backoff::SUPERVISOR };
        let delays: Vec<_> = [1, 2, 3, 8, 400].map(|n| calm.delay(n, &mut rng).as_millis()).into();
        assert_eq!(delays, [100, 200, 400, 10_000, 10_000]);
    }
}
