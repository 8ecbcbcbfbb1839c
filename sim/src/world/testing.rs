//! Whole runs for unit tests: a scenario's text, and what was said.

use crate::report::{Observer, Options, Outcome, Report, Trace};
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

/// `w1` pings `w2` each second while faults overlap. Each case: its faults, and when the pings
/// arrive (`true`) or not, by seconds.
pub fn pings(faults: &[&str], windows: &[(u32, u32, bool)]) {
    let node = |name: &str, last: u32| {
        let place = format!("network = \"lan\"\naddress = \"192.168.1.{last}\"");
        format!("[[node]]\nname = \"{name}\"\n{place}\n")
    };
    let cafe = "[[network]]\nname = \"cafe\"\ncidr = \"10.9.0.0/24\"\n\
                [[link]]\nbetween = [\"lan\", \"cafe\"]\n";
    let probe = "[[probe]]\nname = \"p\"\nkind = \"ping\"\nfrom = { node = \"w1\" }\n\
                 to = { node = \"w2\" }\nstart = \"5s\"\nevery = \"1s\"\n";
    let mut text = format!("{cafe}{}{}{probe}", node("w1", 12), node("w2", 13));
    for (number, fault) in faults.iter().enumerate() {
        text += &format!("[[fault]]\nname = \"f{number}\"\n{fault}\n");
    }
    for (from, until, arrive) in windows {
        let fails = if *arrive { "" } else { "fails = true\n" };
        text += &format!(
            "[[expect]]\nname = \"{from}\"\nkind = \"probe\"\nprobe = \"p\"\nfrom = \"{from}s\"\n\
             until = \"{until}s\"\n{fails}"
        );
    }
    let (report, _) = play(&scenario("", &text), Trace::default());
    let wrong: Vec<_> =
        report.expectations.iter().filter(|e| e.outcome != Outcome::Passed).collect();
    assert!(wrong.is_empty() && report.failure.is_none(), "{faults:?}: {report:?}");
}
