//! Whole runs for unit tests: a scenario's text, and what was said.

use crate::report::{Observer, Options, Report, Trace};
use crate::scenario::Scenario;
use crate::world::World;
use kubesim_runtime::Time;
use std::sync::Arc;
use std::time::Duration;

/// What was said: when, by whom and what.
#[derive(Default)]
pub struct Said(pub Vec<(Time, String, String)>);

impl Observer for Said {
    fn line(&mut self, at: Time, who: &str, text: &str) {
        self.0.push((at, who.to_owned(), text.to_owned()));
    }
    fn progress(&mut self, _: Time, _: Duration, _: u64) {}
}

impl Said {
    /// When and what one of them said.
    pub fn by(&self, who: &str) -> Vec<(Time, &str)> {
        let own = self.0.iter().filter(|(_, speaker, _)| speaker == who);
        own.map(|(at, _, text)| (*at, text.as_str())).collect()
    }
}

/// One server, `n1`, on a LAN of which `dhcp` is the server; more follows.
pub fn scenario(dhcp: &str, more: &str) -> Scenario {
    let base = r#"
name = "testing"
duration = "160s"
invariants = []
[[node]]
name = "n1"
role = "server"
network = "lan"
address = "192.168.1.11"
"#;
    let lan = format!("[[network]]\nname = \"lan\"\ncidr = \"192.168.1.0/24\"\n{dhcp}\n");
    let none = |pattern: &str| Err(format!("no {pattern}"));
    let read = Scenario::parse("a.toml", &format!("{base}{lan}{more}"), &none, &[], None);
    read.unwrap_or_else(|wrong| panic!("\n{wrong}"))
}

pub fn play(scenario: &Scenario, trace: Trace) -> (Report, Said) {
    let mut said = Said::default();
    let options = Options { seed: 1, trace, ..Options::default() };
    (crate::run(scenario, &options, &mut said), said)
}

/// The world as the run left it.
pub fn world_after(scenario: Scenario) -> World {
    let options = Options { seed: 1, ..Options::default() };
    let inject = crate::run::Inject::default();
    let (report, world) =
        crate::run::play(&Arc::new(scenario), &options, inject, &mut Said::default());
    world.unwrap_or_else(|| panic!("{:?}", report.failure))
}
