//! Which moments a schedule was due and nobody began a Job for, and when it is due next
//! (`mostRecentScheduleTime`, `nextScheduleTime` and `nextScheduleTimeDuration` of upstream's
//! `utils.go`).

use crate::objects::schedule::Schedule;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kubesim_runtime::Wall;
use std::time::Duration;

pub struct Due<'a> {
    pub schedule: &'a Schedule,
    pub zone: &'a TimeZone,
    /// The last moment that is done with.
    pub since: Wall,
    pub now: Wall,
}

impl Due<'_> {
    fn after(&self, at: Wall) -> Option<Wall> {
        self.schedule.next(at, self.zone)
    }

    /// The latest moment that is not done with, and about how many there were; those before the
    /// deadline do not count. The error is of a schedule that makes no sense.
    pub fn unmet(&self, deadline: Option<Duration>) -> Result<Option<(Wall, i64)>, &'static str> {
        let bound = deadline.map(|deadline| {
            let nanos = i128::try_from(deadline.as_nanos()).unwrap_or(i128::MAX);
            Wall::from_unix_nanos(self.now.unix_nanos().saturating_sub(nanos))
        });
        let since = bound.map_or(self.since, |bound| bound.max(self.since));
        let Some(first) = self.after(since).filter(|first| *first <= self.now) else {
            return Ok(None);
        };
        let second = match self.after(first) {
            Some(second) if second > self.now => return Ok(Some((first, 1))),
            Some(second) => second,
            None => return Ok(Some((first, 1))),
        };
        let interval = second.unix_secs() - first.unix_secs();
        if interval < 1 {
            return Err("time difference between two schedules is less than 1 second");
        }
        // What was missed for years is not gone through one by one: from the first interval follows
        // about where the last moment is. If there is none from there on, as with what is due
        // irregularly, upstream waits for the next one.
        let missed = (self.now.unix_secs() - first.unix_secs()) / interval + 1;
        let from = Wall::from_unix_secs(first.unix_secs() + (missed - 2) * interval);
        let mut latest = None;
        let mut next = self.after(from);
        while let Some(at) = next.filter(|at| *at <= self.now) {
            latest = Some((at, missed));
            next = self.after(at);
        }
        Ok(latest)
    }

    /// The first moment that is to come.
    pub fn next(&self) -> Option<Wall> {
        match self.schedule {
            // From the last time on, in whole intervals.
            Schedule::Every(every) => {
                let behind = self.now.since(self.since).as_secs() / every.as_secs().max(1);
                self.after(self.since + *every * u32::try_from(behind).unwrap_or(u32::MAX))
            }
            Schedule::At(_) => self.after(self.now),
        }
    }
}

/// As Go writes it: with `Z`, or the zone's offset.
pub fn rfc3339(at: Wall, zone: &TimeZone) -> String {
    let Ok(at) = Timestamp::from_second(at.unix_secs()) else { return String::new() };
    let offset = zone.to_offset(at);
    if offset.is_zero() { at.to_string() } else { at.display_with_offset(offset).to_string() }
}

/// As Go's `time.RFC1123Z`, in UTC.
pub fn rfc1123(at: Wall) -> String {
    let at = Timestamp::from_second(at.unix_secs()).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}
