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
mod place;
mod refusals;
mod routes;
mod shrink;
mod six;
mod step;
mod wire;
mod words;

pub use self::domain::Domain;
use self::linux::Linux;
use self::model::Model;
use self::six::Six;
use self::step::{Case, Router, Setup, Step};
use crate::Exit;
use crate::output::Output;
use std::ops::Range;
use std::time::{Duration, Instant};

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
    /// Put this bug into the model first.
    #[cfg(feature = "mutants")]
    #[arg(long, value_name = "NAME")]
    pub mutant: Option<String>,
}

/// How often Linux may be asked to do what the model did; of what happens once in 16 times one in
/// 10^11 is missed.
const REVERSED_PLAYS: u64 = 400;

/// How cases of one domain went.
pub struct Outcome {
    /// How many agreed.
    pub agreed: u64,
    pub took: Duration,
    /// Those that did not, as small as they get, each with its number.
    pub mismatches: Vec<(u64, String)>,
    /// Of the agreed those that did so on two plays of three only: a port drawn at random can be
    /// one that the case names, or another's, which is not worth the model's throwing its dice
    /// that often.
    pub chances: Vec<u64>,
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    #[cfg(feature = "mutants")]
    if let Some(Err(unknown)) = args.mutant.as_deref().map(mutants::put_in) {
        output.complain(&format!("error: {unknown}"));
        return Exit::Input;
    }
    let Some(end) = args.first.checked_add(args.cases) else {
        output.complain("error: --first and --cases: there are no cases beyond 2^64 - 1");
        return Exit::Input;
    };
    output.begin("the comparison with this machine's kernel");
    let mut exit = Exit::Held;
    for domain in Domain::ALL {
        if args.domain.is_some_and(|only| only != domain) {
            continue;
        }
        let outcome = match compare(domain, args.seed, args.first..end, args.mismatches) {
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
            output.line(&format!("{name}: {count} of them on two plays of three only: {all}"));
        }
        for (index, story) in outcome.mismatches {
            let seed = args.seed;
            output.line(&format!("{name} seed {seed} case {index}:{story}"));
            let command = format!("kubesim fidelity --domain {name} --seed {seed}");
            output.line(&format!("replay: {command} --first {index} --cases 1"));
            exit = Exit::Failed;
        }
    }
    exit
}

/// These cases of a domain until `most` differ, on a thread whose namespace ends with it.
/// The error says what the environment lacks.
pub fn compare(
    domain: Domain,
    seed: u64,
    cases: Range<u64>,
    most: usize,
) -> Result<Outcome, String> {
    let compare = move || {
        let mut pair = Pair::new(domain.setup())?;
        let begun = Instant::now();
        let mut outcome = Outcome {
            agreed: 0,
            took: Duration::ZERO,
            mismatches: Vec::new(),
            chances: Vec::new(),
        };
        for index in cases {
            let case = domain.case(seed, index);
            if let Some(case) = domain.reversed(seed, index)
                && pair.reverse(&case, index)?.is_some()
                && let Some(found) = pair.reverse(&case, index + 1)?
            {
                outcome.took = begun.elapsed();
                outcome.mismatches.push((index, found.told(&case)));
                return Ok(outcome);
            }
            if pair.differ(&case)?.is_none() {
                outcome.agreed += 1;
                continue;
            }
            if !pair.differ_again(&case)? {
                outcome.agreed += 1;
                outcome.chances.push(index);
                continue;
            }
            outcome.took = begun.elapsed();
            outcome.mismatches.push((index, pair.story(case)?));
            if outcome.mismatches.len() >= most {
                return Ok(outcome);
            }
        }
        outcome.took = begun.elapsed();
        Ok(outcome)
    };
    let thread = std::thread::spawn(compare);
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Pair {
    setup: Setup,
    model: Modelled,
    linux: Box<dyn Router>,
}

/// The modelled one of a pair: it can be copied, and throw its dice again.
#[derive(Clone)]
enum Modelled {
    Router(Box<Model>),
    Lan(Box<lan::model::Model>),
    Six(Box<six::model::Model>),
}

impl Modelled {
    fn new(setup: Setup) -> Result<Modelled, String> {
        Ok(match setup {
            Setup::Lan(lan) => Modelled::Lan(Box::new(lan::model::Model::new(lan)?)),
            Setup::Six(six) => Modelled::Six(Box::new(six::model::Model::new(six)?)),
            _ => Modelled::Router(Box::new(Model::new(setup)?)),
        })
    }

    fn router(&mut self) -> &mut dyn Router {
        match self {
            Modelled::Router(model) => &mut **model,
            Modelled::Lan(model) => &mut **model,
            Modelled::Six(model) => &mut **model,
        }
    }

    fn reseed(&mut self, number: u64) {
        match self {
            Modelled::Router(model) => model.reseed(number),
            Modelled::Six(model) => model.reseed(number),
            Modelled::Lan(_) => {}
        }
    }
}

fn real(setup: Setup) -> Result<Box<dyn Router>, String> {
    Ok(match setup {
        Setup::Lan(lan) => Box::new(lan::linux::Linux::new(lan)?),
        Setup::Six(six) => Box::new(six::linux::Linux::new(six)?),
        _ => Box::new(Linux::new(setup)?),
    })
}

/// Where the two part: the step, what Linux showed and what the model did.
struct Difference {
    at: usize,
    linux: Vec<String>,
    model: Vec<String>,
}

impl Difference {
    fn told(&self, case: &Case) -> String {
        let mut text = String::new();
        for step in &case[..=self.at] {
            text += &format!("\n  {step}");
        }
        for (whose, lines) in [("Linux", &self.linux), ("model", &self.model)] {
            text += &format!("\n{whose}:");
            for line in lines {
                text += &format!("\n  {line}");
            }
        }
        text
    }
}

/// How often the model may throw its dice to do what Linux has done. What has a probability of
/// one in 400 (a port below 1024) is missed once in 30,000 times.
const THROWS: u64 = 4096;

/// How often a case is played again to be told of.
const PLAYS: usize = 30;

impl Pair {
    fn new(setup: Setup) -> Result<Pair, String> {
        Ok(Pair { setup, model: Modelled::new(setup)?, linux: real(setup)? })
    }

    fn differ(&mut self, case: &Case) -> Result<Option<Difference>, String> {
        self.model.router().reset()?;
        self.linux.reset()?;
        for (at, step) in case.iter().enumerate() {
            let rules = matches!(self.setup, Setup::Router(_) | Setup::Six(Six::Filtered(_)));
            let throws = step.throws_dice() && rules;
            let before = throws.then(|| self.model.clone());
            let (linux, mut model) = (self.linux.act(step)?, self.model.router().act(step)?);
            if let Some(before) = before.filter(|_| linux != model) {
                model = self.throw_again(&before, step, &linux)?.unwrap_or(model);
            }
            if linux != model {
                return Ok(Some(Difference { at, linux, model }));
            }
        }
        Ok(None)
    }

    /// As [`Pair::differ`] with the roles exchanged: what the model does with some throw of its
    /// dice, Linux must do in one of many plays. So it is seen as well that the model allows
    /// what never happens.
    fn reverse(&mut self, case: &Case, throw: u64) -> Result<Option<Difference>, String> {
        let mut model = Vec::new();
        self.model.router().reset()?;
        self.model.reseed(throw);
        for step in case {
            model.push(self.model.router().act(step)?);
        }
        let mut linux = Vec::new();
        for _ in 0..REVERSED_PLAYS {
            linux.clear();
            self.linux.forget();
            self.linux.reset()?;
            for step in case {
                linux.push(self.linux.act(step)?);
            }
            if linux == model {
                self.linux.forget();
                return Ok(None);
            }
        }
        self.linux.forget();
        let at = case.len().saturating_sub(1);
        Ok(Some(Difference { at, linux: linux.concat(), model: model.concat() }))
    }

    /// Chance may have decided otherwise on Linux: whatever it did, the model must do as well
    /// with some throw of its dice.
    fn throw_again(
        &mut self,
        before: &Modelled,
        step: &Step,
        linux: &[String],
    ) -> Result<Option<Vec<String>>, String> {
        for number in 1..THROWS {
            let mut other = before.clone();
            other.reseed(number);
            let model = other.router().act(step)?;
            if model == linux {
                self.model = other;
                return Ok(Some(model));
            }
        }
        Ok(None)
    }

    /// Whether a case that differed does so on one of two more plays: a port chosen at random can
    /// by chance be one that a case names.
    fn differ_again(&mut self, case: &Case) -> Result<bool, String> {
        for _ in 0..2 {
            self.linux = real(self.setup)?;
            if self.differ(case)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The case as small as it gets, step by step, and the difference.
    fn story(&mut self, case: Case) -> Result<String, String> {
        // Each time in a namespace of its own: Linux remembers whom it sent how many errors, and
        // here the same hosts come again and again.
        let setup = self.setup;
        let mut differs = |less: &Case| {
            self.linux = real(setup)?;
            Ok(self.differ(less)?.is_some())
        };
        let case = shrink::shrink(case, &mut differs)?;
        let mut found = None;
        for _ in 0..PLAYS {
            self.linux = real(setup)?;
            found = self.differ(&case)?;
            if found.is_some() {
                break;
            }
        }
        let Some(found) = found else {
            return Ok(" differs on some plays only: is something else at work here?".to_owned());
        };
        Ok(found.told(&case))
    }
}
