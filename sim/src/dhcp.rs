//! When a DHCP client asks again for the address it has (RFC 2131, section 4.4.5): the models of a
//! client, in virtual time and in real, go by it.

use std::time::Duration;

/// What a client does about a lease at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Bound,
    /// It asks the server that gave the lease, from its address to the server's: from T1 on, half
    /// of the lease.
    Renewing,
    /// It asks every server, by a broadcast: from T2 on, seven eighths of the lease.
    Rebinding,
    /// It has no address any more, and begins anew.
    Expired,
}

/// The phase so long after the lease was asked for.
pub fn phase(lease: Duration, elapsed: Duration) -> Phase {
    if elapsed >= lease {
        Phase::Expired
    } else if elapsed >= t2(lease) {
        Phase::Rebinding
    } else if elapsed >= t1(lease) {
        Phase::Renewing
    } else {
        Phase::Bound
    }
}

/// When the client acts next, counted as `elapsed` is, if nobody answers it until then: an unheard
/// question is asked again after half of what is left of its phase, at least after [`shortest`],
/// and at once when the next phase begins.
pub fn next(lease: Duration, elapsed: Duration) -> Duration {
    let end = match phase(lease, elapsed) {
        Phase::Bound => return t1(lease),
        Phase::Renewing => t2(lease),
        Phase::Rebinding | Phase::Expired => lease,
    };
    let half = end.saturating_sub(elapsed) / 2;
    (elapsed + half.max(shortest(lease))).min(end)
}

fn t1(lease: Duration) -> Duration {
    lease / 2
}

fn t2(lease: Duration) -> Duration {
    // In this order, since seven of the longest do not fit.
    lease - lease / 8
}

/// RFC 2131 has a minute. That is a sixtieth of the hour that leases usually last, and stays one of
/// those that scenarios make shorter: else they would be asked for once.
fn shortest(lease: Duration) -> Duration {
    Duration::from_secs(60).min(lease / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every question about a lease that nobody answers, in seconds after it was given.
    fn unanswered(lease: u64) -> Vec<(u64, Phase)> {
        let lease = Duration::from_secs(lease);
        let mut asked = Vec::new();
        let mut elapsed = next(lease, Duration::ZERO);
        loop {
            let phase = phase(lease, elapsed);
            asked.push((elapsed.as_secs(), phase));
            if phase == Phase::Expired {
                return asked;
            }
            elapsed = next(lease, elapsed);
        }
    }

    #[test]
    fn an_hour_is_asked_for_as_the_standard_has_it() {
        use Phase::{Expired, Rebinding, Renewing};
        let expected = [
            (1800, Renewing),
            (2475, Renewing),
            (2812, Renewing),
            (2981, Renewing),
            (3065, Renewing),
            (3125, Renewing),
            (3150, Rebinding),
            (3375, Rebinding),
            (3487, Rebinding),
            (3547, Rebinding),
            (3600, Expired),
        ];
        assert_eq!(unanswered(3600), expected);
    }

    #[test]
    fn a_short_lease_is_asked_for_as_often_as_a_long_one() {
        let short = unanswered(60);
        assert_eq!(short.len(), unanswered(3600).len());
        assert_eq!(short[0], (30, Phase::Renewing));
        assert_eq!(short.last(), Some(&(60, Phase::Expired)));
        // A day's questions are a minute apart at last.
        let day = unanswered(86_400);
        assert!(day.windows(2).all(|pair| pair[1].0 <= 75_600 || pair[1].0 - pair[0].0 <= 5400));
    }
}
