//! Many seeds, side by side.

use super::{Args, bar, options, replay};
use crate::output::{self, Format, Output, Result as Shown, Silent};
use crate::{Exit, Runner};
use kubesim_sim::scenario::Scenario;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

/// Both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    pub first: u64,
    pub last: u64,
}

impl Seeds {
    /// `1..200`.
    pub fn parse(text: &str) -> Result<Seeds, String> {
        let bad = || "write it like 1..200".to_owned();
        let (first, last) = text.split_once("..").ok_or_else(bad)?;
        let last = last.strip_prefix('=').unwrap_or(last);
        let seeds = Seeds {
            first: first.parse().map_err(|_| bad())?,
            last: last.parse().map_err(|_| bad())?,
        };
        if seeds.last < seeds.first {
            return Err("the last seed comes before the first".to_owned());
        }
        Ok(seeds)
    }
}

pub fn play(
    args: &Args,
    seeds: Seeds,
    scenario: &Scenario,
    runner: Runner<'_>,
    output: &mut Output,
) -> Exit {
    let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let count = (seeds.last - seeds.first).saturating_add(1);
    let jobs = args.jobs.map_or_else(processors, NonZeroUsize::get);
    let jobs = jobs.min(usize::try_from(count).unwrap_or(usize::MAX));
    let bar = output.progress.then(|| bar(count, "{bar:40} seed {pos} of {len} {msg}"));
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (send, results) = mpsc::channel();
    let mut summary = output::Summary::default();
    let lacks = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let send = send.clone();
            scope.spawn(|| {
                let send = send;
                while !stop.load(Ordering::Relaxed) {
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if offset >= count {
                        break;
                    }
                    let options = options(args, seeds.first + offset);
                    let result = super::play(args.world, scenario, &options, runner, &mut Silent);
                    if send.send((offset, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let lacks = in_order(results, |shown| {
            if let Some(bar) = &bar {
                bar.inc(1);
            }
            output::hidden(bar.as_ref(), || match args.format {
                Format::Json => output::json(output, &shown),
                Format::Text => output::seed_line(output, &shown),
            });
            summary.add(&shown);
            if output.lost() {
                stop.store(true, Ordering::Relaxed);
            }
        });
        stop.store(true, Ordering::Relaxed);
        lacks
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Some(lacks) = lacks {
        output.complain(&format!("error: {lacks}"));
        return Exit::Environment;
    }
    if args.format == Format::Text {
        summary.show(output, scenario);
        if let Some(seed) = summary.first_failed() {
            output.line(&format!("replay: {}", replay(args, seed, None)));
        }
    }
    if summary.first_failed().is_some() { Exit::Failed } else { Exit::Held }
}

/// Hands results on in the order of their seeds, whichever was ready first; ends early with what
/// the environment lacks.
fn in_order(
    results: mpsc::Receiver<(u64, Result<Shown, String>)>,
    mut show: impl FnMut(Shown),
) -> Option<String> {
    let mut early = BTreeMap::new();
    let mut due = 0;
    for (offset, result) in results {
        match result {
            Ok(shown) => early.insert(offset, shown),
            Err(lacks) => return Some(lacks),
        };
        while let Some(shown) = early.remove(&due) {
            show(shown);
            due += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_inclusive_and_in_order() {
        assert_eq!(Seeds::parse("1..200"), Ok(Seeds { first: 1, last: 200 }));
        assert_eq!(Seeds::parse("7..=7"), Ok(Seeds { first: 7, last: 7 }));
        for bad in ["", "1", "2..1", "a..b", "1..", "-1..2"] {
            assert!(Seeds::parse(bad).is_err(), "{bad:?}");
        }
    }
}
