//! Virtual time by the machine's: which instant of a run is due when.

use crate::run::Speed;
use kubesim_runtime::Time;
use std::time::{Duration, Instant};

/// A run that is this far behind is not hurried afterwards: time would not pass evenly for who
/// looks on.
const LATE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    speed: Speed,
    /// An instant of the machine's, and that of the run which was due then.
    from: (Instant, Time),
}

impl Pace {
    /// This instant of the run is due now.
    pub fn new(speed: Speed, at: Time, wall: Instant) -> Pace {
        Pace { speed, from: (wall, at) }
    }

    /// Whatever was due: this instant is now.
    pub fn begin(&mut self, at: Time, wall: Instant) {
        self.from = (wall, at);
    }

    /// The instant of the run that is due; `None`: any, as soon as it is reached.
    pub fn due(&self, wall: Instant) -> Option<Time> {
        let Speed::Times(times) = self.speed else { return None };
        let (since, at) = self.from;
        Some(at + wall.saturating_duration_since(since).mul_f64(times))
    }

    /// How long until an instant of the run is due.
    pub fn until(&self, at: Time, wall: Instant) -> Duration {
        let (Speed::Times(times), Some(due)) = (self.speed, self.due(wall)) else {
            return Duration::ZERO;
        };
        at.since(due).div_f64(times)
    }

    /// The run has come this far.
    pub fn reached(&mut self, at: Time, wall: Instant) {
        let Speed::Times(times) = self.speed else { return };
        if self.due(wall).is_some_and(|due| due.since(at) > LATE.mul_f64(times)) {
            self.begin(at, wall);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_passes_evenly() {
        let begun = Instant::now();
        let pace = Pace::new(Speed::Times(10.0), Time::from_secs(5), begun);
        assert_eq!(pace.due(begun), Some(Time::from_secs(5)));
        assert_eq!(pace.due(begun + SECOND), Some(Time::from_secs(15)));
        assert_eq!(pace.until(Time::from_secs(25), begun + SECOND), SECOND);
        assert_eq!(pace.until(Time::from_secs(9), begun + SECOND), Duration::ZERO);
    }

    #[test]
    fn a_run_that_is_late_is_not_hurried() {
        let begun = Instant::now();
        let mut pace = Pace::new(Speed::Times(2.0), Time::ZERO, begun);
        // A little behind, it catches up.
        pace.reached(Time::from_millis(1_600), begun + SECOND);
        assert_eq!(pace.due(begun + SECOND), Some(Time::from_secs(2)));
        pace.reached(Time::from_secs(1), begun + SECOND);
        assert_eq!(pace.due(begun + SECOND), Some(Time::from_secs(1)));
        assert_eq!(pace.due(begun + 2 * SECOND), Some(Time::from_secs(3)));
    }

    #[test]
    fn as_fast_as_it_goes_is_always_due() {
        let begun = Instant::now();
        let mut pace = Pace::new(Speed::Max, Time::ZERO, begun);
        pace.reached(Time::ZERO, begun + SECOND);
        assert_eq!(pace.due(begun), None);
        assert_eq!(pace.until(Time::from_secs(9), begun), Duration::ZERO);
    }
}
