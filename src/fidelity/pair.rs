//! A router of the model beside one of Linux, and how a case is judged on both.

use super::linux::Linux;
use super::model::Model;
use super::step::{Case, Router, Setup, Step};
use super::{lan, shrink, six};

/// How often Linux may be asked to do what the model did; of what happens once in 16 times one in
/// 10^11 is missed.
const REVERSED_PLAYS: u64 = 400;

pub struct Pair {
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
            Modelled::Lan(model) => model.reseed(number),
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
pub struct Difference {
    at: usize,
    linux: Vec<String>,
    model: Vec<String>,
    /// The model before that step, where the step throws dice.
    before: Option<Modelled>,
}

impl Difference {
    /// Chance may have decided otherwise on Linux: whatever it did, the model must do as well
    /// with some throw of its dice. The model that has done so, where it does within so many.
    fn thrown(&self, step: &Step, throws: u64) -> Result<Option<Modelled>, String> {
        let Some(before) = &self.before else { return Ok(None) };
        for number in 1..throws {
            let mut other = before.clone();
            other.reseed(number);
            if other.router().act(step)? == self.linux {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    pub fn told(&self, case: &Case) -> String {
        let mut text = String::new();
        for step in &case[..=self.at] {
            text += &format!("\n  {step}");
        }
        text + &under("Linux", &self.linux) + &under("model", &self.model)
    }

    /// The same of what the model does with a throw of its dice.
    pub fn told_of_throw(&self, case: &Case, throw: u64) -> String {
        let model = format!("the model, with throw {throw}, and Linux in none of {REVERSED_PLAYS}");
        let mut text = String::new();
        for step in case {
            text += &format!("\n  {step}");
        }
        text + &under(&model, &self.model) + &under("Linux, the last time", &self.linux)
    }
}

fn under(whose: &str, lines: &[String]) -> String {
    lines.iter().fold(format!("\n{whose}:"), |text, line| text + "\n  " + line)
}

/// What came of a case.
pub enum Verdict {
    Agrees,
    /// It differed once, where Linux did what the model does too, but seldom.
    ByChance,
    /// It differed once, though the model never does what Linux did, and in none of [`PLAYS`] more
    /// plays: something else was at work, such as a clock that ran on while nobody played.
    Once(Difference),
    Differs(Difference),
}

/// How often the model may throw its dice to do what Linux has done. What has a probability of
/// one in 400 (a port below 1024) is missed once in 30,000 times.
const THROWS: u64 = 1 << 12;

/// The same where it decides whether a case failed. A port at random is one that the case names,
/// or that another connection drew, once in 64,512 times: that is missed once in 10^7 times, and
/// takes seconds.
const RARE_THROWS: u64 = 1 << 20;

/// How often a case is played again to be told of.
pub const PLAYS: usize = 30;

impl Pair {
    pub fn new(setup: Setup) -> Result<Pair, String> {
        Ok(Pair { setup, model: Modelled::new(setup)?, linux: real(setup)? })
    }

    /// As if nothing had been played.
    pub fn renew(&mut self) -> Result<(), String> {
        *self = Pair::new(self.setup)?;
        Ok(())
    }

    fn differ(&mut self, case: &Case) -> Result<Option<Difference>, String> {
        self.model.router().reset()?;
        self.linux.reset()?;
        for (at, step) in case.iter().enumerate() {
            let throws = step.throws_dice() && self.setup.has_rules();
            let before = throws.then(|| self.model.clone());
            let (linux, model) = (self.linux.act(step)?, self.model.router().act(step)?);
            if linux == model {
                continue;
            }
            let difference = Difference { at, linux, model, before };
            match difference.thrown(step, THROWS)? {
                Some(other) => self.model = other,
                None => return Ok(Some(difference)),
            }
        }
        Ok(None)
    }

    /// As [`Pair::differ`] with the roles exchanged: what the model does with some throw of its
    /// dice, Linux must do in one of many plays. So it is seen as well that the model allows
    /// what never happens.
    pub fn reverse(&mut self, case: &Case, throw: u64) -> Result<Option<Difference>, String> {
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
        Ok(Some(Difference { at, linux: linux.concat(), model: model.concat(), before: None }))
    }

    /// Plays a case that differs twice more. What goes away then was chance if the model does it as
    /// well, however seldom; else it is played many times more, and must not come back.
    pub fn judge(&mut self, case: &Case) -> Result<Verdict, String> {
        let Some(first) = self.differ(case)? else { return Ok(Verdict::Agrees) };
        if let Some(found) = self.differ_again(case, 2)? {
            return Ok(Verdict::Differs(found));
        }
        if first.thrown(&case[first.at], RARE_THROWS)?.is_some() {
            return Ok(Verdict::ByChance);
        }
        Ok(self.differ_again(case, PLAYS)?.map_or(Verdict::Once(first), Verdict::Differs))
    }

    /// The difference in one of so many plays, each in a namespace of its own.
    fn differ_again(&mut self, case: &Case, plays: usize) -> Result<Option<Difference>, String> {
        for _ in 0..plays {
            self.linux = real(self.setup)?;
            if let Some(found) = self.differ(case)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether all of a case can be played here; if not, which step cannot.
    pub fn try_out(&mut self, case: &Case) -> Result<Result<(), String>, String> {
        for router in [self.model.router(), &mut *self.linux] {
            router.reset()?;
            for (number, step) in (1..).zip(case) {
                if let Err(why) = router.act(step) {
                    return Ok(Err(format!("step {number} ({step}): {why}")));
                }
            }
        }
        Ok(Ok(()))
    }

    /// The case as small as it gets, step by step, and the difference in words.
    pub fn shrunk(&mut self, case: Case) -> Result<(Case, String), String> {
        // Each time in a namespace of its own: Linux remembers whom it sent how many errors, and
        // here the same hosts come again and again.
        let setup = self.setup;
        let mut differs = |less: &Case| {
            self.linux = real(setup)?;
            Ok(self.differ(less)?.is_some())
        };
        let case = shrink::shrink(case, &mut differs)?;
        if let Some(found) = self.differ_again(&case, PLAYS)? {
            let story = found.told(&case);
            return Ok((case, story));
        }
        let story = " differs on some plays only: is something else at work here?";
        Ok((case, story.to_owned()))
    }
}
