//! `kubesim fidelity`: random cases through the modelled kernel and through this machine's, in a
//! network namespace of its own. Linux is right; any difference is a failure of the model.

mod dice;
mod forwarding;
mod linux;
mod model;
mod netlink;
mod routes;
mod shrink;
mod step;
mod wire;

use self::dice::Dice;
use self::linux::Linux;
use self::model::Model;
use self::step::{Case, Router};
use crate::Exit;
use crate::output::Output;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    /// How many cases of each domain.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub cases: u64,
    /// What the cases are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only cases about this; all of them when absent.
    #[arg(long, value_enum)]
    pub domain: Option<Domain>,
}

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Domain {
    /// Addresses, links, routes and look-ups.
    Routes,
    /// Who forwards what, the TTL, ICMP answers.
    Forwarding,
}

impl Domain {
    pub const ALL: [Domain; 2] = [Domain::Routes, Domain::Forwarding];

    pub fn name(self) -> &'static str {
        match self {
            Domain::Routes => "routes",
            Domain::Forwarding => "forwarding",
        }
    }

    fn case(self, seed: u64, index: u64) -> Case {
        let mut dice = Dice::new(seed, self.name(), index);
        match self {
            Domain::Routes => routes::case(&mut dice),
            Domain::Forwarding => forwarding::case(&mut dice),
        }
    }
}

/// How cases of one domain went.
pub struct Outcome {
    /// How many agreed.
    pub agreed: u64,
    pub took: Duration,
    /// The first that did not, as small as it gets.
    pub mismatch: Option<String>,
}

pub fn execute(args: &Args, output: &mut Output) -> Exit {
    let mut exit = Exit::Held;
    for domain in Domain::ALL {
        if args.domain.is_some_and(|only| only != domain) {
            continue;
        }
        let outcome = match compare(domain, args.seed, args.cases) {
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
        if let Some(mismatch) = outcome.mismatch {
            output.line(&mismatch);
            let seed = args.seed;
            let command = format!("kubesim fidelity --domain {name} --seed {seed}");
            output.line(&format!("replay: {command} --cases {}", outcome.agreed + 1));
            exit = Exit::Failed;
        }
    }
    output.flush();
    exit
}

/// Cases 0 to `cases` of a domain until one differs, on a thread whose namespace ends with it.
/// The error says what the environment lacks.
pub fn compare(domain: Domain, seed: u64, cases: u64) -> Result<Outcome, String> {
    let compare = move || {
        let mut pair = Pair { model: Model::new()?, linux: Linux::new()? };
        let begun = Instant::now();
        let mut outcome = Outcome { agreed: 0, took: Duration::ZERO, mismatch: None };
        for index in 0..cases {
            let case = domain.case(seed, index);
            if pair.differ(&case)?.is_some() {
                outcome.took = begun.elapsed();
                outcome.mismatch = Some(pair.story(domain, seed, index, case)?);
                return Ok(outcome);
            }
            outcome.agreed += 1;
        }
        outcome.took = begun.elapsed();
        Ok(outcome)
    };
    let thread = std::thread::spawn(compare);
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

struct Pair {
    model: Model,
    linux: Linux,
}

/// Where the two part: the step, what Linux showed and what the model did.
struct Difference {
    at: usize,
    linux: Vec<String>,
    model: Vec<String>,
}

impl Pair {
    fn differ(&mut self, case: &Case) -> Result<Option<Difference>, String> {
        self.model.reset()?;
        self.linux.reset()?;
        for (at, step) in case.iter().enumerate() {
            let (linux, model) = (self.linux.act(step)?, self.model.act(step)?);
            if linux != model {
                return Ok(Some(Difference { at, linux, model }));
            }
        }
        Ok(None)
    }

    /// The case as small as it gets, step by step, and the difference.
    fn story(
        &mut self,
        domain: Domain,
        seed: u64,
        index: u64,
        case: Case,
    ) -> Result<String, String> {
        // Each time in a namespace of its own: Linux remembers whom it sent how many errors, and
        // here the same hosts come again and again.
        let mut differs = |less: &Case| {
            self.linux = Linux::new()?;
            Ok(self.differ(less)?.is_some())
        };
        let case = shrink::shrink(case, &mut differs)?;
        self.linux = Linux::new()?;
        let mut text = format!("{} seed {seed} case {index}:", domain.name());
        let Some(found) = self.differ(&case)? else {
            return Ok(text + " differs on some plays only: is something else at work here?");
        };
        for step in &case[..=found.at] {
            text += &format!("\n  {step}");
        }
        for (whose, lines) in [("Linux", &found.linux), ("model", &found.model)] {
            text += &format!("\n{whose}:");
            for line in lines {
                text += &format!("\n  {line}");
            }
        }
        Ok(text)
    }
}
