//! How a process is, as it says it at its socket and as a person reads it.

use kubesim_actors::objects::time;
use kubesim_runtime::{Look, Wall};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub process: u32,
    pub actors: Vec<Shown>,
}

/// An actor. Times are those of RFC 3339.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shown {
    pub name: String,
    /// Counted from 1: all before it failed.
    pub life: u32,
    /// False while it waits to be started again.
    pub lives: bool,
    pub steps: u64,
    pub last_step: String,
    /// Answers and streams that it is owed.
    pub awaits: usize,
    pub sees: Vec<String>,
    pub wants: Vec<String>,
    pub did: Vec<Did>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Did {
    pub at: String,
    pub what: String,
}

impl Shown {
    pub fn of(look: &Look) -> Shown {
        let account = look.account.clone();
        let lives = account.is_some();
        let account = account.unwrap_or_default();
        let did = look.did.iter().map(|did| Did { at: clock(did.at), what: did.text.clone() });
        Shown {
            name: look.name.to_owned(),
            life: look.life,
            lives,
            steps: look.steps,
            last_step: clock(look.last_step),
            awaits: look.awaits,
            sees: account.sees,
            wants: account.wants,
            did: did.collect(),
        }
    }

    /// A line each.
    pub fn lines(&self) -> Vec<String> {
        let Shown { name, life, steps, .. } = self;
        let life = if *life > 1 { format!(", life {life}") } else { String::new() };
        let mut lines =
            vec![format!("{name}: {steps} steps, the last at {}{life}", self.last_step)];
        if !self.lives {
            lines.push("  it failed, and is started again in a moment".to_owned());
        }
        lines.extend(self.sees.iter().map(|what| format!("  sees   {what}")));
        match self.wants.is_empty() && self.lives {
            true => lines.push("  wants  nothing more".to_owned()),
            false => lines.extend(self.wants.iter().map(|what| format!("  wants  {what}"))),
        }
        let did = self.did.iter().map(|did| format!("  did    {} {}", did.at, did.what));
        lines.extend(did);
        lines
    }
}

fn clock(at: Wall) -> String {
    time(at).0.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_runtime::{Account, Remark};

    #[test]
    fn an_actor_is_told_of_in_a_few_lines() {
        let at = Wall::from_unix_nanos(1_767_225_600_000_000_000);
        let account = Account {
            sees: vec!["the world".to_owned()],
            wants: vec!["peace: it is late".to_owned()],
        };
        let did = vec![Remark { at, text: "said so".to_owned() }];
        let look = Look {
            name: "kubelet",
            life: 2,
            steps: 7,
            last_step: at,
            awaits: 3,
            account: Some(account),
            did,
        };
        let shown = Shown::of(&look);
        assert_eq!(
            shown.lines(),
            [
                "kubelet: 7 steps, the last at 2026-01-01T00:00:00Z, life 2",
                "  sees   the world",
                "  wants  peace: it is late",
                "  did    2026-01-01T00:00:00Z said so",
            ]
        );
        let none = Shown::of(&Look { account: Some(Account::default()), life: 1, ..look.clone() });
        assert_eq!(none.lines()[1], "  wants  nothing more");
        let gone = Shown::of(&Look { account: None, ..look });
        assert_eq!(gone.lines()[1], "  it failed, and is started again in a moment");
    }
}
