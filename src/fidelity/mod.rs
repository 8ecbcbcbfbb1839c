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
mod needs;
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
use self::pair::{Difference, PLAYS, Pair, Verdict};
use self::recorded::Recorded;
use crate::Exit;
use crate::output::Output;
use crate::run;
use indicatif::ProgressBar;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
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
    fn domain(&self) -> Domain {
        self.recorded.domain
    }

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
        Ok(replayed) => {
            let (said, exit) = replayed.told(&file.display().to_string());
            output.line(&said);
            exit
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
    let chosen = |domain: &Domain| args.domain.is_none_or(|only| only == *domain);
    let domains: Vec<Domain> = Domain::ALL.into_iter().filter(chosen).collect();
    // What the last domain lacks would else be known when the others have been played.
    if let Some(lacks) = needs::lacking(&domains) {
        output.complain(&format!("error: {lacks}"));
        return Exit::Environment;
    }
    let mut said = Said::Agree;
    for domain in domains {
        let bar = output.progress.then(|| run::count_bar(args.cases, domain.name()));
        let (name, cases) = (domain.name(), args.first..end);
        let outcome =
            compare_showing(domain, args.seed, cases, args.mismatches, bar.clone(), |it| {
                let mut show = || said = said.max(show(it, args, output));
                match &bar {
                    Some(bar) => bar.suspend(show),
                    None => show(),
                }
            });
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
        let seconds = outcome.took.as_secs_f64();
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
        output.flush();
    }
    match said {
        Said::Agree => Exit::Held,
        Said::Once => Exit::Unproved,
        Said::Differ => Exit::Failed,
    }
}

/// Prints a case that differs, and writes it if it does so again. Whoever ends the comparison has
/// what is known by then.
fn show(found: &Found, args: &Args, output: &mut Output) -> Said {
    let seed = args.seed;
    let said = match found {
        Found::Once(found) => {
            let (name, index, story) = (found.domain().name(), found.index, &found.story);
            let first = (index - index % RENEWED).max(args.first);
            let cases = index - first + 1;
            output.line(&format!(
                "{name} case {index} {}:{story}\nwith what came before it: kubesim fidelity \
                 --domain {name} --seed {seed} --first {first} --cases {cases}",
                once()
            ));
            Said::Once
        }
        Found::Differs(found) => {
            let (name, index, story) = (found.domain().name(), found.index, &found.story);
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
            Said::Differ
        }
    };
    output.flush();
    said
}

/// A case that differs, as soon as that is known.
enum Found {
    Once(Mismatch),
    Differs(Mismatch),
}

/// These cases of a domain until `most` differ, on a thread whose namespace ends with it.
/// The error says what the environment lacks.
pub fn compare(
    domain: Domain,
    seed: u64,
    cases: Range<u64>,
    most: usize,
) -> Result<Outcome, String> {
    compare_showing(domain, seed, cases, most, None, |_| {})
}

fn compare_showing(
    domain: Domain,
    seed: u64,
    cases: Range<u64>,
    most: usize,
    bar: Option<ProgressBar>,
    mut show: impl FnMut(&Found),
) -> Result<Outcome, String> {
    let (mut mismatches, mut once) = (Vec::new(), Vec::new());
    let play = move |tell: &Sender<Found>| play(domain, seed, cases, most, bar.as_ref(), tell);
    let played = heard(play, |found| {
        show(&found);
        match found {
            Found::Once(found) => once.push(found),
            Found::Differs(found) => mismatches.push(found),
        }
    });
    let Played { agreed, took, chances } = played?;
    Ok(Outcome { agreed, took, mismatches, chances, once })
}

/// How the cases went that are not told of one by one.
struct Played {
    agreed: u64,
    took: Duration,
    chances: Vec<u64>,
}

fn play(
    domain: Domain,
    seed: u64,
    cases: Range<u64>,
    most: usize,
    bar: Option<&ProgressBar>,
    tell: &Sender<Found>,
) -> Result<Played, String> {
    let mut pair = Pair::new(domain.setup())?;
    let begun = Instant::now();
    let (mut agreed, mut chances, mut differ) = (0, Vec::new(), 0);
    let mismatch = |index, reversed, (steps, story)| {
        let found = format!("seed {seed} case {index}");
        Mismatch { index, story, recorded: Recorded { domain, found, reversed, steps } }
    };
    // Whoever hears of it outlives this thread.
    let tell = |found| drop(tell.send(found));
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
            tell(Found::Differs(mismatch(index, Some(throw), (case, story))));
            differ += 1;
            if differ >= most {
                break;
            }
        }
        match pair.judge(&case)? {
            Verdict::Agrees => agreed += 1,
            Verdict::ByChance => {
                agreed += 1;
                chances.push(index);
            }
            Verdict::Once(found) => {
                let story = found.told(&case);
                tell(Found::Once(mismatch(index, None, (case, story))));
            }
            Verdict::Differs(_) => {
                tell(Found::Differs(mismatch(index, None, pair.shrunk(case)?)));
                differ += 1;
            }
        }
        if differ >= most {
            break;
        }
        if let Some(bar) = bar {
            bar.inc(1);
        }
    }
    Ok(Played { agreed, took: begun.elapsed(), chances })
}

fn once() -> String {
    format!("differed once and in none of {PLAYS} other plays")
}

/// What came of a file's case.
#[derive(Debug, PartialEq)]
pub enum Replayed {
    Agrees,
    /// It differed once and in no other play: how.
    Once(String),
    Differs(String),
}

impl Replayed {
    fn told(&self, file: &str) -> (String, Exit) {
        match self {
            Replayed::Agrees => (format!("{file}: agrees"), Exit::Held),
            Replayed::Once(story) => (format!("{file} {}:{story}", once()), Exit::Unproved),
            Replayed::Differs(story) => (format!("{file}:{story}"), Exit::Failed),
        }
    }
}

/// The case of a file, as [`compare`] plays it: how the kernels part, where they do.
pub fn replay(file: &Path) -> Result<Replayed, Refused> {
    let Recorded { domain, reversed, steps, .. } = Recorded::read(file).map_err(Refused::Input)?;
    if let Some(lacks) = needs::lacking(&[domain]) {
        return Err(Refused::Environment(lacks));
    }
    let name = file.display().to_string();
    alone(move || {
        let mut pair = Pair::new(domain.setup()).map_err(Refused::Environment)?;
        let playable = pair.try_out(&steps).map_err(Refused::Environment)?;
        playable.map_err(|why| Refused::Input(format!("{name}: {why}")))?;
        if let Some(throw) = reversed {
            let found = pair.reverse(&steps, throw).map_err(Refused::Environment)?;
            let told = |found: Difference| Replayed::Differs(found.told_of_throw(&steps, throw));
            return Ok(found.map_or(Replayed::Agrees, told));
        }
        Ok(match pair.judge(&steps).map_err(Refused::Environment)? {
            Verdict::Agrees | Verdict::ByChance => Replayed::Agrees,
            Verdict::Once(found) => Replayed::Once(found.told(&steps)),
            Verdict::Differs(found) => Replayed::Differs(found.told(&steps)),
        })
    })
}

/// On a thread whose namespace ends with it.
fn alone<T: Send + 'static>(play: impl FnOnce() -> T + Send + 'static) -> T {
    ended(thread::spawn(play))
}

/// The same, and what is told there is heard here meanwhile.
fn heard<T: Send + 'static, N: Send + 'static>(
    play: impl FnOnce(&Sender<N>) -> T + Send + 'static,
    hear: impl FnMut(N),
) -> T {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || play(&tell));
    told.into_iter().for_each(hear);
    ended(thread)
}

fn ended<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was said to agree.
    #[test]
    fn a_files_case_that_differs_once_is_not_one_that_agrees() {
        let story = "\n  a step".to_owned();
        let (said, exit) = Replayed::Once(story.clone()).told("a.json");
        assert!(said.starts_with("a.json differed once and in none of 30 other plays:"), "{said}");
        assert!(said.ends_with(&story), "{said}");
        assert_eq!(exit, Exit::Unproved);
        assert_eq!(Replayed::Differs(story).told("a.json").1, Exit::Failed);
        let agrees = ("a.json: agrees".to_owned(), Exit::Held);
        assert_eq!(Replayed::Agrees.told("a.json"), agrees);
    }

    /// What differed was lost where the environment failed later, or somebody ended it.
    #[test]
    fn what_is_found_is_told_before_the_comparison_ends() {
        let (go_on, waits) = mpsc::channel();
        let mut found = Vec::new();
        let play = move |tell: &Sender<u64>| -> Result<(), String> {
            tell.send(7).map_err(|error| error.to_string())?;
            // Until it was heard.
            waits.recv().map_err(|error: mpsc::RecvError| error.to_string())?;
            Err("the environment fails".to_owned())
        };
        let ended = heard(play, |news| {
            found.push(news);
            go_on.send(()).expect("the comparison goes on");
        });
        assert_eq!((ended, found), (Err("the environment fails".to_owned()), vec![7]));
    }
}
