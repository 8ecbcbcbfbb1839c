//! `--replay`: a run that had visitors, with what they wrote.

use kubesim_sim::scenario::Scenario;
use kubesim_sim::visits::{Of, Record};
use std::fs;
use std::path::Path;

/// Reads the record of such a run of this scenario with this seed. The error is for people.
pub fn read(path: &Path, scenario: &Scenario, seed: u64) -> Result<Record, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("--replay: {shown}: {error}"))?;
    let record = Record::read(&text).map_err(|why| format!("--replay: {shown}: {why}"))?;
    match differs(&record.of, &Of::new(scenario, seed)) {
        None => Ok(record),
        Some(how) => Err(format!("--replay: {shown} is of another run: {how}")),
    }
}

/// What of the run that is asked for is not the record's, and how to ask for that.
fn differs(record: &Of, asked: &Of) -> Option<String> {
    if record.scenario != asked.scenario {
        return Some(format!("of scenario `{}`, not `{}`", record.scenario, asked.scenario));
    }
    if record.profile != asked.profile {
        return Some(match &record.profile {
            Some(profile) => format!("give --profile {profile}"),
            None => "leave --profile out".to_owned(),
        });
    }
    (record.seed != asked.seed).then(|| format!("give --seed {}", record.seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_which_run_it_is_of() {
        let of = |scenario: &str, profile: Option<&str>, seed| Of {
            scenario: scenario.to_owned(),
            profile: profile.map(str::to_owned),
            seed,
        };
        let record = of("a", Some("flannel"), 7);
        assert_eq!(differs(&record, &record), None);
        let how = |asked| differs(&record, &asked).expect("it differs");
        assert_eq!(how(of("b", Some("flannel"), 7)), "of scenario `a`, not `b`");
        assert_eq!(how(of("a", None, 7)), "give --profile flannel");
        assert_eq!(how(of("a", Some("flannel"), 1)), "give --seed 7");
        let plain = differs(&of("a", None, 7), &record);
        assert_eq!(plain.as_deref(), Some("leave --profile out"));
    }
}
