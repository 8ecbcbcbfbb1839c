//! When something is due again and again: the schedules of robfig/cron v3's `ParseStandard`, which
//! CronJobs have (`parser.go`, `spec.go` and `constantdelay.go` there).

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Span, Timestamp, Zoned};
use kubesim_runtime::Wall;
use std::time::Duration;

/// A schedule that nothing fulfils for so long is due never.
const YEARS: i16 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    At(Fields),
    /// So long after it was due last; whole seconds.
    Every(Duration),
}

/// The values of each field that fit, a bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Days of the month and of the week must fit both, as one of them is any; else one is enough.
    both_days: bool,
}

/// A field's bounds, and what some of its values are called, from the lowest on.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const BOUNDS: [Bounds; 5] = [
    Bounds { low: 0, high: 59, names: &[] },
    Bounds { low: 0, high: 23, names: &[] },
    Bounds { low: 1, high: 31, names: &[] },
    Bounds { low: 1, high: 12, names: &MONTHS },
    Bounds { low: 0, high: 6, names: &WEEKDAYS },
];

const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// Five fields, or a word; the error is cron's.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if let Some(interval) = text.strip_prefix("@every ") {
            let every = interval_of(interval)
                .map_err(|why| format!("failed to parse duration {text}: {why}"))?;
            // Not more often than once a second, and no parts of one.
            return Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1))));
        }
        let word = WORDS.iter().find(|(word, _)| *word == text);
        let fields = match word {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => {
                return Err(format!("unrecognized descriptor: {text}"));
            }
            None => text,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let (found, shown) = (fields.len(), fields.join(" "));
            return Err(format!("expected exactly 5 fields, found {found}: [{shown}]"));
        };
        let [minute, hour, day, month, weekday] = {
            let mut read = [(0, false); 5];
            let texts = [minute, hour, day, month, weekday];
            for ((place, text), bounds) in read.iter_mut().zip(texts).zip(BOUNDS) {
                *place = field(text, &bounds)?;
            }
            read
        };
        Ok(Schedule::At(Fields {
            minute: minute.0,
            hour: hour.0,
            day: day.0,
            month: month.0,
            weekday: weekday.0,
            both_days: day.1 || weekday.1,
        }))
    }

    /// When it is due first after that moment. `None`: never.
    pub fn next(&self, after: Wall, zone: &TimeZone) -> Option<Wall> {
        let second = Wall::from_unix_secs(after.unix_secs());
        match self {
            Schedule::Every(every) => Some(second + *every),
            Schedule::At(fields) => {
                let from = Timestamp::from_second(second.unix_secs() + 1).ok()?;
                let found = fields.next(from.to_zoned(zone.clone()))?;
                Some(super::wall(found.timestamp()))
            }
        }
    }
}

impl Fields {
    /// The first moment from `at` on that fits: a field that does not fit is moved on, and the
    /// smaller ones begin anew. Hours, minutes and seconds are of the clock's time, so an hour that
    /// a change of the clock repeats counts twice, and one that it leaves out does not.
    fn next(&self, mut at: Zoned) -> Option<Zoned> {
        let last = at.year() + YEARS;
        while at.year() <= last {
            if !has(self.month, at.month()) {
                let first = at.date().first_of_month();
                at = start(first.checked_add(Span::new().months(1)).ok()?, &at)?;
            } else if !self.day_fits(at.date()) {
                at = start(at.date().tomorrow().ok()?, &at)?;
            } else if !has(self.hour, at.hour()) {
                at = later(&at, 3600 - into_hour(&at))?;
            } else if !has(self.minute, at.minute()) || at.second() != 0 {
                at = later(&at, 60 - i64::from(at.second()))?;
            } else {
                return Some(at);
            }
        }
        None
    }

    fn day_fits(&self, date: Date) -> bool {
        let day = has(self.day, date.day());
        let weekday = has(self.weekday, date.weekday().to_sunday_zero_offset());
        if self.both_days { day && weekday } else { day || weekday }
    }
}

/// The first moment of the day, in the zone of `like`.
fn start(date: Date, like: &Zoned) -> Option<Zoned> {
    date.to_zoned(like.time_zone().clone()).ok()?.start_of_day().ok()
}

fn later(at: &Zoned, seconds: i64) -> Option<Zoned> {
    at.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn into_hour(at: &Zoned) -> i64 {
    i64::from(at.minute()) * 60 + i64::from(at.second())
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & 1 << value != 0)
}

/// The values of a list of ranges, and whether one of them is any.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (values, is_any) = range(part, bounds)?;
        bits |= values;
        any |= is_any;
    }
    Ok((bits, any))
}

/// `*`, `7`, `1-5`, `mon-fri`, each perhaps with a step behind a slash.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let Bounds { low, high, names } = *bounds;
    let number = |text: &str| {
        let named = names.iter().position(|name| *name == text.to_lowercase());
        let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + low);
        named.or_else(|| text.parse().ok()).ok_or_else(|| {
            format!(
                "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
            )
        })
    };
    let (range, step) = match text.split_once('/') {
        Some((_, steps)) if steps.contains('/') => return Err(format!("too many slashes: {text}")),
        Some((range, step)) => (range, Some(step)),
        None => (text, None),
    };
    let any = range.split('-').next().is_some_and(|first| ["*", "?"].contains(&first));
    let (begin, mut end) = match range.split_once('-') {
        _ if any => (low, high),
        Some((_, end)) if end.contains('-') => return Err(format!("too many hyphens: {text}")),
        Some((begin, end)) => (number(begin)?, number(end)?),
        None => (number(range)?, number(range)?),
    };
    let step = step.map(number).transpose()?;
    // From one value on, not that value alone.
    if step.is_some() && !range.contains('-') {
        end = high;
    }
    let step = step.unwrap_or(1);
    if begin < low {
        return Err(format!("beginning of range ({begin}) below minimum ({low}): {text}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if begin > end {
        return Err(format!("beginning of range ({begin}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let values = (begin..=end).step_by(step as usize);
    // A star with a step is a list like any other: it is not any value.
    Ok((values.fold(0, |bits, value| bits | 1 << value), any && step == 1))
}

/// `1h30m`, as Go's `time.ParseDuration` reads it.
fn interval_of(text: &str) -> Result<Duration, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut rest, mut nanos) = (text, 0_u128);
    if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let unit = rest.find(|c| !is_number(c));
        let unit = unit.ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let (number, tail) = rest.split_at(unit);
        let (unit, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        let unit: u128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{part}");
        let digits: u64 = digits.parse().map_err(|_| wrong())?;
        let scale = u32::try_from(part.len()).ok().and_then(|len| 10_u128.checked_pow(len));
        nanos += u128::from(digits) * unit / scale.ok_or_else(wrong)?;
        rest = tail;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| wrong())?;
    Ok(Duration::from_secs(seconds))
}

/// The zone of this name, of the tz database that the program carries. Names are as they are
/// spelled there.
pub fn zone(name: &str) -> Option<TimeZone> {
    let found = TimeZoneDatabase::bundled().get(name).ok()?;
    (found.iana_name() == Some(name)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(text: &str) -> Wall {
        crate::objects::wall(text.parse().expect("a time"))
    }

    fn next(schedule: &str, after: &str) -> Option<String> {
        next_in(schedule, after, &TimeZone::UTC)
    }

    fn next_in(schedule: &str, after: &str, zone: &TimeZone) -> Option<String> {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let found = schedule.next(wall(after), zone)?;
        Some(crate::objects::time(found).0.to_string())
    }

    /// Of cron's own tests (`spec_test.go`), and some more.
    #[test]
    fn the_next_moment_is_crons() {
        for (schedule, after, expected) in [
            ("0/15 * * * *", "2012-07-09T14:45:00Z", "2012-07-09T15:00:00Z"),
            ("0/15 * * * *", "2012-07-09T14:59:59Z", "2012-07-09T15:00:00Z"),
            ("20-35/15 * * * *", "2012-07-09T15:45:00Z", "2012-07-09T16:20:00Z"),
            ("*/15 * * * *", "2012-07-09T23:46:00Z", "2012-07-10T00:00:00Z"),
            ("20-35/15 1/2 */2 * *", "2012-07-09T23:35:51Z", "2012-07-11T01:20:00Z"),
            ("20-35/15 10-12 */2 * *", "2012-07-09T23:35:51Z", "2012-07-11T10:20:00Z"),
            ("0 0 */5 Apr,Aug,Oct Mon", "2012-07-09T23:35:00Z", "2012-08-01T00:00:00Z"),
            ("0 0 9 Apr-Oct ?", "2012-07-09T23:35:00Z", "2012-08-09T00:00:00Z"),
            ("0 0 * Feb Mon", "2012-07-09T23:35:00Z", "2013-02-04T00:00:00Z"),
            ("0 0 29 Feb ?", "2012-07-09T23:35:00Z", "2016-02-29T00:00:00Z"),
            // Day and weekday: one of them is enough, unless one is any.
            ("0 0 1 * Sun", "2012-07-02T00:00:00Z", "2012-07-08T00:00:00Z"),
            ("0 0 13 * *", "2012-07-02T00:00:00Z", "2012-07-13T00:00:00Z"),
            ("@hourly", "2012-07-09T14:00:00Z", "2012-07-09T15:00:00Z"),
            ("@weekly", "2012-07-09T14:00:00Z", "2012-07-15T00:00:00Z"),
            ("@yearly", "2012-07-09T14:00:00Z", "2013-01-01T00:00:00Z"),
            ("@every 1h30m", "2012-07-09T14:00:00.5Z", "2012-07-09T15:30:00Z"),
        ] {
            assert_eq!(next(schedule, after).as_deref(), Some(expected), "{schedule} {after}");
        }
        assert_eq!(next("0 0 30 Feb ?", "2012-07-09T23:35:00Z"), None);
    }

    #[test]
    fn a_zone_has_its_own_midnight_and_its_own_hours() {
        let berlin = zone("Europe/Berlin").expect("a zone");
        for (schedule, after, expected) in [
            ("0 0 * * *", "2024-07-09T14:00:00Z", "2024-07-09T22:00:00Z"),
            ("0 0 * * *", "2024-01-09T14:00:00Z", "2024-01-09T23:00:00Z"),
            // 02:30 is left out on that day, and comes twice on the other.
            ("30 2 * * *", "2024-03-30T12:00:00Z", "2024-04-01T00:30:00Z"),
            ("30 2 * * *", "2024-10-26T12:00:00Z", "2024-10-27T00:30:00Z"),
            ("30 2 * * *", "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"),
        ] {
            let found = next_in(schedule, after, &berlin);
            assert_eq!(found.as_deref(), Some(expected), "{schedule} {after}");
        }
        for wrong in ["europe/berlin", "Mars/Olympus", "", "Local"] {
            assert!(zone(wrong).is_none(), "{wrong}");
        }
        assert!(zone("UTC").is_some() && zone("Etc/UTC").is_some());
    }

    #[test]
    fn what_is_no_schedule_is_told_as_cron_does() {
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/2/3 * * * *", "too many slashes: */2/3"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\""),
        ] {
            assert_eq!(Schedule::parse(bad), Err(why.to_owned()), "{bad}");
        }
        for good in ["* * * * *", "*/5 0-6,12 1 jan-mar MON", "@every 90s", "0 0 1 1 ?"] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
    }
}
