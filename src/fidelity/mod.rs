//! `kubesim fidelity`: random cases through the modelled kernel and through this machine's, in a
//! network namespace of its own. Linux is right; any difference is a failure of the model.

mod connection;
mod conntrack;
mod dice;
mod domain;
mod forwarding;
mod fragments;
mod frame;
mod frame6;
mod iptables;
mod lan;
mod linux;
mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
mod nftables;
mod pair;
mod place;
mod recorded;
mod refusals;
mod routes;
mod shrink;
mod six;
mod spelling;
mod spread;
mod step;
mod wire;
mod words;

pub use self::domain::Domain;
use self::pair::{PLAYS, Pair, Verdict};
use self::recorded::Recorded;
use crate::Exit;
use crate::output::Output;
use crate::run;
use indicatif::ProgressBar;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After so many cases the next has a namespace that none before it has touched, so that what
/// differs once can be played again with all that came before it there.
const RENEWED: u64 = 200;

#[derive(clap::Args)]
pub struct Args {
    /// How many cases of each domain.
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub cases: u64,
    /// The number of the first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first: u64,
    /// What the cases are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only cases about this; all of them when absent.
    #[arg(long, value_enum)]
    pub domain: Option<Domain>,
    /// Go on until so many differ.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub mismatches: usize,
    /// Where cases that differ are written to, as small as they get, each a file.
    #[arg(long, value_name = "DIR", default_value = "fidelity-cases")]
    pub write: PathBuf,
    /// Play the case of such a file instead.
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["cases", "first", "seed", "domain", "mismatches", "write"])]
    pub case: Option<PathBuf>,
    /// Put this bug into the model first.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME")]
    pub mutant: Option<String>,
}

/// How cases of one domain went.
pub struct Outcome {
    /// How many agreed.
    pub agreed: u64,
    pub took: Duration,
    pub mismatches: Vec<Mismatch>,
    /// Of the agreed those that did so on two plays of three only, by chance: a port drawn at
    /// random can be one that the case names, or another's.
    pub chances: Vec<u64>,
    /// Those that differed once and in no other play, though by no chance that the model knows:
    /// they neither agree nor differ in a way that could be shown.
    pub once: Vec<Mismatch>,
}

/// A case that differs.
pub struct Mismatch {
    pub index: u64,
    /// Its steps, as few as there have to be, and what either kernel made of them.
    pub story: String,
    recorded: Recorded,
}

impl Mismatch {
    /// Writes it to a file in this folder, to be played by [`replay`]: its path.
    pub fn write(&self, folder: &Path, seed: u64) -> std::io::Result<PathBuf> {
        let (domain, index) = (self.recorded.domain.name(), self.index);
        let reversed = if self.recorded.reversed.is_some() { "-reversed" } else { "" };
        self.recorded.write(folder, &format!("{domain}-{seed}-{index}{reversed}"))
    }
}

/// Why a file's case was not played.
#[derive(Debug)]
pub enum Refused {
    /// What is wrong with it, and where.
    Input(String),
    /// What the environment lacks.
    Environment(String),
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    #[cfg(feature = "mutants")]
    if let Some(Err(unknown)) = args.mutant.as_deref().map(mutants::put_in) {
        output.complain(&format!("error: {unknown}"));
        return Exit::Input;
    }
    output.begin("the comparison with this machine's kernel");
    match &args.case {
        Some(file) => execute_file(file, output),
        None => execute_drawn(args, output),
    }
}

fn execute_file(file: &Path, output: &mut Output) -> Exit {
    match replay(file) {
        Ok(None) => {
            output.line(&format!("{}: agrees", file.display()));
            Exit::Held
        }
        Ok(Some(story)) => {
            output.line(&format!("{}:{story}", file.display()));
            Exit::Failed
        }
        Err(Refused::Input(why)) => {
            output.complain(&format!("error: {why}"));
            Exit::Input
        }
        Err(Refused::Environment(lacks)) => {
            output.complain(&format!("error: {lacks}"));
            Exit::Environment
        }
    }
}

/// What is said of all cases together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Agree,
    Once,
    Differ,
}

fn execute_drawn(args: &Args, output: &mut Output) -> Exit {
    let Some(end) = args.first.checked_add(args.cases) else {
        output.complain("error: --first and --cases: there are no cases beyond 2^64 - 1");
        return Exit::Input;
    };
    let mut said = Said::Agree;
    for domain in Domain::ALL {
        if args.domain.is_some_and(|only| only != domain) {
            continue;
        }
        let bar = output.progress.then(|| run::count_bar(args.cases, domain.name()));
        let cases = args.first..end;
        let outcome = compare_showing(domain, args.seed, cases, args.mismatches, bar.clone());
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(lacks) => {
                output.complain(&format!("error: {lacks}"));
                return Exit::Environment;
            }
        };
        let (name, seconds) = (domain.name(), outcome.took.as_secs_f64());
        let rate = outcome.agreed as f64 / seconds.max(1e-9);
        let agreed = outcome.agreed;
        output.line(&format!("{name}: {agreed} cases agree, {seconds:.1} s, {rate:.0} a second"));
        if !outcome.chances.is_empty() {
            let all: Vec<String> = outcome.chances.iter().map(u64::to_string).collect();
            let (count, all) = (all.len(), all.join(", "));
            output.line(&format!(
                "{name}: {count} of them on two plays of three only, by chance: {all}"
            ));
        }
        for found in &outcome.once {
            let (index, story) = (found.index, &found.story);
            let first = (index - index % RENEWED).max(args.first);
            let cases = index - first + 1;
            output.line(&format!(
                "{name} case {index} differed once and in none of {PLAYS} other plays:{story}\n\
                 with what came before it: kubesim fidelity --domain {name} --seed {} --first \
                 {first} --cases {cases}",
                args.seed
            ));
            said = said.max(Said::Once);
        }
        for found in outcome.mismatches {
            let (seed, index, story) = (args.seed, found.index, &found.story);
            output.line(&format!("{name} seed {seed} case {index}:{story}"));
            match found.write(&args.write, seed) {
                Ok(file) => {
                    output.line(&format!("replay: kubesim fidelity --case {}", file.display()));
                }
                Err(error) => {
                    let folder = args.write.display();
                    output.complain(&format!("error: cannot write it to {folder}: {error}"));
                    output.line(&found.recorded.text().unwrap_or_default());
                }
            }
            said = said.max(Said::Differ);
        }
        // Whoever ends the comparison has what is known by then.
        output.flush();
    }
    match said {
        Said::Agree => Exit::Held,
        Said::Once => Exit::Unproved,
        Said::Differ => Exit::Failed,
    }
}

/// These cases of a domain until `most` differ, on a thread whose namespace ends with it.
/// The error says what the environment lacks.
pub fn compare(
    domain: Domain,
    seed: u64,
    cases: Range<u64>,
    most: usize,
) -> Result<Outcome, String> {
    compare_showing(domain, seed, cases, most, None)
}

fn compare_showing(
    domain: Domain,
    seed: u64,
    cases: Range<u64>,
    most: usize,
    bar: Option<ProgressBar>,
) -> Result<Outcome, String> {
    let compare = move || {
        let mut pair = Pair::new(domain.setup())?;
        let begun = Instant::now();
        let mut outcome = Outcome {
            agreed: 0,
            took: Duration::ZERO,
            mismatches: Vec::new(),
            chances: Vec::new(),
            once: Vec::new(),
        };
        let mismatch = |index, reversed, (steps, story)| {
            let found = format!("seed {seed} case {index}");
            Mismatch { index, story, recorded: Recorded { domain, found, reversed, steps } }
        };
        for index in cases {
            if index % RENEWED == 0 {
                pair.renew()?;
            }
            let case = domain.case(seed, index);
            if let Some(case) = domain.reversed(seed, index)
                && pair.reverse(&case, index)?.is_some()
                && let Some(found) = pair.reverse(&case, index + 1)?
            {
                let (throw, story) = (index + 1, found.told_of_throw(&case, index + 1));
                outcome.mismatches.push(mismatch(index, Some(throw), (case, story)));
                if outcome.mismatches.len() >= most {
                    break;
                }
            }
            match pair.judge(&case)? {
                Verdict::Agrees => outcome.agreed += 1,
                Verdict::ByChance => {
                    outcome.agreed += 1;
                    outcome.chances.push(index);
                }
                Verdict::Once(found) => {
                    let story = found.told(&case);
                    outcome.once.push(mismatch(index, None, (case, story)));
                }
                Verdict::Differs(_) => {
                    outcome.mismatches.push(mismatch(index, None, pair.shrunk(case)?));
                }
            }
            if outcome.mismatches.len() >= most {
                break;
            }
            if let Some(bar) = &bar {
                bar.inc(1);
            }
        }
        outcome.took = begun.elapsed();
        Ok(outcome)
    };
    alone(compare)
}

/// The case of a file, as [`compare`] plays it: how the kernels part, where they do.
pub fn replay(file: &Path) -> Result<Option<String>, Refused> {
    let Recorded { domain, reversed, steps, .. } = Recorded::read(file).map_err(Refused::Input)?;
    let name = file.display().to_string();
    alone(move || {
        let mut pair = Pair::new(domain.setup()).map_err(Refused::Environment)?;
        let playable = pair.try_out(&steps).map_err(Refused::Environment)?;
        playable.map_err(|why| Refused::Input(format!("{name}: {why}")))?;
        if let Some(throw) = reversed {
            let found = pair.reverse(&steps, throw).map_err(Refused::Environment)?;
            return Ok(found.map(|found| found.told_of_throw(&steps, throw)));
        }
        Ok(match pair.judge(&steps).map_err(Refused::Environment)? {
            Verdict::Agrees | Verdict::ByChance | Verdict::Once(_) => None,
            Verdict::Differs(found) => Some(found.told(&steps)),
        })
    })
}

/// On a thread whose namespace ends with it.
fn alone<T: Send + 'static>(play: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(play).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
