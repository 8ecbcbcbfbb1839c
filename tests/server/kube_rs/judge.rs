//! Whether a watcher told what is known to have happened. The writers' knowledge is the model; it
//! shares nothing with the server or the watcher.
//!
//! A watcher may say that it begins anew. Then it lists, and what changed since it was told last is
//! there in its newest state only. Apart from that every version of every object is told, once and
//! in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// An object's state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub name: String,
    pub uid: String,
    pub version: u64,
}

/// One after the other, as the client learned of it.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A write was acknowledged, or the state was looked at afterwards.
    There(At),
    /// So was a deletion, by uid.
    Gone(String),
    /// The watcher begins anew.
    Began,
    Listed(At),
    /// All that there is was listed.
    Whole,
    Applied(At),
    Deleted(At),
}

#[derive(Debug, Default)]
pub struct Told {
    pub writes: usize,
    pub lists: usize,
    pub events: usize,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { writes, lists, events } = self;
        write!(f, "{writes} writes known, {events} changes told one by one, {lists} lists")
    }
}

/// What was listed at once, by uid, and where in the log that lies.
struct List {
    began: usize,
    whole: usize,
    items: BTreeMap<String, At>,
}

#[derive(Default)]
struct Story {
    lists: Vec<List>,
    /// What was told one by one: where in the log, and the version.
    streamed: Vec<(usize, u64)>,
    /// Every state that was shown.
    shown: BTreeSet<(String, u64)>,
    /// What who followed has in the end, by name.
    held: BTreeMap<String, At>,
}

/// The error says what is wrong first.
pub fn judge(log: &[Entry]) -> Result<Told, String> {
    let story = read(log)?;
    for list in &story.lists {
        list.is_fresh(&log[..list.began])?;
    }
    let known = |(uid, version): &(String, u64)| {
        log.iter().any(
            |entry| matches!(entry, Entry::There(at) if at.uid == *uid && at.version == *version),
        )
    };
    // The cluster's own are nobody's writes.
    let ours = ours(log);
    let mut shown = story.shown.iter().filter(|(uid, _)| ours.contains(uid));
    if let Some(never) = shown.find(|state| !known(state)) {
        return Err(format!("{never:?} is shown, and was never so"));
    }
    let mut told = Told { lists: story.lists.len(), events: story.streamed.len(), writes: 0 };
    for (index, entry) in log.iter().enumerate() {
        match entry {
            Entry::There(at) => story.shows(at, index, log)?,
            Entry::Gone(_) => {}
            _ => continue,
        }
        told.writes += 1;
    }
    let held: Vec<At> = story.held.into_values().collect();
    same_in_the_end(log, &held)?;
    Ok(told)
}

/// Whether somebody holds in the end what is there, of what was written.
pub fn same_in_the_end(log: &[Entry], held: &[At]) -> Result<(), String> {
    let mut there = BTreeMap::new();
    for entry in log {
        match entry {
            Entry::There(at) => drop(there.insert(at.uid.clone(), at.clone())),
            Entry::Gone(uid) => drop(there.remove(uid)),
            _ => {}
        }
    }
    let ours = ours(log);
    let held: BTreeSet<&At> = held.iter().filter(|at| ours.contains(&at.uid)).collect();
    let there: BTreeSet<&At> = there.values().collect();
    let only = |a: &BTreeSet<&At>, b: &BTreeSet<&At>| format!("{:?}", a - b);
    if held == there {
        return Ok(());
    }
    Err(format!("in the end {} is missing, {} is held", only(&there, &held), only(&held, &there)))
}

fn ours(log: &[Entry]) -> BTreeSet<String> {
    let uid = |entry: &Entry| match entry {
        Entry::There(at) => Some(at.uid.clone()),
        _ => None,
    };
    log.iter().filter_map(uid).collect()
}

/// The watcher's story by itself: versions go up, and what follows fits what was before.
fn read(log: &[Entry]) -> Result<Story, String> {
    let mut story = Story::default();
    let (mut newest, mut began) = (0, 0);
    let mut items = BTreeMap::new();
    for (index, entry) in log.iter().enumerate() {
        match entry {
            Entry::There(_) | Entry::Gone(_) => {}
            Entry::Began => (began, items) = (index, BTreeMap::new()),
            Entry::Listed(at) => {
                story.shown.insert((at.uid.clone(), at.version));
                if items.insert(at.uid.clone(), at.clone()).is_some() {
                    return Err(format!("{at:?} is listed twice"));
                }
            }
            Entry::Whole => {
                let items = std::mem::take(&mut items);
                newest = items.values().map(|at| at.version).fold(newest, u64::max);
                story.held = items.values().map(|at| (at.name.clone(), at.clone())).collect();
                story.lists.push(List { began, whole: index, items });
            }
            Entry::Applied(at) | Entry::Deleted(at) => {
                if at.version <= newest {
                    return Err(format!("{at:?} is told after version {newest}"));
                }
                newest = at.version;
                story.streamed.push((index, newest));
                story.step(entry, at)?;
            }
        }
    }
    Ok(story)
}

impl Story {
    fn step(&mut self, entry: &Entry, at: &At) -> Result<(), String> {
        let before = self.held.get(&at.name).map(|held| held.uid.as_str());
        let deleted = matches!(entry, Entry::Deleted(_));
        let fits = before == Some(&at.uid) || (before.is_none() && !deleted);
        if !fits {
            return Err(format!("{entry:?}, where {before:?} was"));
        }
        if deleted {
            self.held.remove(&at.name);
        } else {
            self.shown.insert((at.uid.clone(), at.version));
            self.held.insert(at.name.clone(), at.clone());
        }
        Ok(())
    }

    /// This state, known at that place of the log, was shown, or passed over by a list.
    fn shows(&self, at: &At, known: usize, log: &[Entry]) -> Result<(), String> {
        if self.shown.contains(&(at.uid.clone(), at.version)) {
            return Ok(());
        }
        let later = self.streamed.iter().find(|(_, version)| *version > at.version);
        let end = later.map_or(log.len(), |(index, _)| *index);
        let list = self.lists.iter().rev().find(|list| list.whole < end);
        let gone = || log.iter().any(|entry| matches!(entry, Entry::Gone(uid) if *uid == at.uid));
        let passed = list.is_some_and(|list| match list.items.get(&at.uid) {
            Some(item) => item.version > at.version,
            // It was deleted before the list was made, and its state was known before that.
            None => known < list.whole && gone(),
        });
        if passed { Ok(()) } else { Err(format!("{at:?} is never told")) }
    }
}

impl List {
    /// A list is of no older state than what was known when it was asked for.
    fn is_fresh(&self, known: &[Entry]) -> Result<(), String> {
        let mut newest: BTreeMap<&str, Option<u64>> = BTreeMap::new();
        for entry in known {
            match entry {
                Entry::There(at) => drop(newest.insert(&at.uid, Some(at.version))),
                Entry::Gone(uid) => drop(newest.insert(uid, None)),
                _ => {}
            }
        }
        for (uid, version) in newest {
            match (self.items.get(uid), version) {
                (Some(item), None) => return Err(format!("{item:?} is listed, and was gone")),
                (Some(item), Some(version)) if item.version < version => {
                    return Err(format!("{item:?} is listed, and was at {version}"));
                }
                // One that is not listed is looked for in the end.
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Entry::{Applied, Began, Deleted, Gone, Listed, There, Whole};
    use super::*;

    fn at(name: &str, version: u64) -> At {
        At { name: name.to_owned(), uid: format!("uid-of-{name}"), version }
    }

    /// Two objects; between two lists `b` changes unseen, and `c` comes and goes.
    fn right() -> Vec<Entry> {
        vec![
            There(at("a", 1)),
            Began,
            Listed(at("a", 1)),
            Whole,
            There(at("b", 2)),
            Applied(at("b", 2)),
            Applied(at("a", 3)),
            There(at("a", 3)),
            There(at("b", 4)),
            There(at("c", 5)),
            Gone("uid-of-c".to_owned()),
            There(at("b", 7)),
            Began,
            Listed(at("a", 3)),
            Listed(at("b", 7)),
            Whole,
            Deleted(at("a", 8)),
            Gone("uid-of-a".to_owned()),
            There(at("b", 9)),
            Applied(at("b", 9)),
        ]
    }

    #[track_caller]
    fn wrong(change: impl FnOnce(&mut Vec<Entry>), why: &str) {
        let mut log = right();
        change(&mut log);
        let judged = judge(&log).expect_err(why);
        assert!(judged.contains(why), "{judged}");
    }

    #[test]
    fn what_is_right_passes() {
        let told = judge(&right()).expect("a right story");
        assert_eq!((told.writes, told.lists, told.events), (9, 2, 4));
    }

    #[test]
    fn what_is_missed_repeated_or_made_up_does_not() {
        wrong(|log| drop(log.remove(5)), "version: 2 } is never told");
        wrong(|log| log.insert(6, Applied(at("b", 2))), "is told after version 2");
        wrong(|log| log.swap(5, 6), "is told after version 3");
        wrong(|log| log[14] = Listed(at("b", 4)), "is listed, and was at 7");
        wrong(|log| log.insert(15, Listed(at("c", 5))), "is listed, and was gone");
        wrong(|log| drop(log.remove(14)), "is never told");
        wrong(|log| log[5] = Applied(at("b", 1)), "is told after version 1");
        wrong(|log| log.insert(6, Applied(at("a", 2))), "is told after version 2");
        wrong(|log| log[19] = Applied(at("b", 10)), "never so");
        wrong(|log| drop(log.remove(16)), "in the end");
        wrong(|log| drop(log.remove(19)), "is never told");
        wrong(|log| log.insert(16, Deleted(at("c", 7))), "is told after");
        wrong(|log| log.insert(17, Deleted(at("a", 8))), "is told after");
    }
}
