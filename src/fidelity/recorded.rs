//! Cases in files, so that what was found once is played again whatever is drawn later. A file is
//! JSON with a step a line:
//!
//! ```json
//! {
//!   "domain": "iptables-legacy",
//!   "found": "seed 1 case 7",
//!   "steps": [
//!     {"append": ["nat", "POSTROUTING", "-j MASQUERADE"]},
//!     {"send": [5000, "10.1.0.10", 80, 0]}
//!   ]
//! }
//! ```

use super::Domain;
use super::step::{Case, Step};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    pub domain: Domain,
    /// Where it comes from, for whoever reads it.
    pub found: String,
    /// Which throw of the model's dice Linux has to do as well; without one it is the model that
    /// has to do what Linux does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversed: Option<u64>,
    pub steps: Case,
}

impl Recorded {
    /// The error says what the file lacks, and where.
    pub fn read(file: &Path) -> Result<Recorded, String> {
        let name = file.display();
        let text = fs::read_to_string(file).map_err(|error| format!("reading {name}: {error}"))?;
        Recorded::parse(&text).map_err(|error| format!("{name}: {error}"))
    }

    fn parse(text: &str) -> serde_json::Result<Recorded> {
        let recorded: Recorded = serde_json::from_str(text)?;
        match recorded.steps.is_empty() {
            true => Err(serde_json::Error::custom("a case without steps")),
            false => Ok(recorded),
        }
    }

    /// Into this folder, which is made if need be: the file's path.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<PathBuf> {
        let file = folder.join(format!("{name}.json"));
        fs::create_dir_all(folder)?;
        fs::write(&file, self.text()?)?;
        Ok(file)
    }

    pub fn text(&self) -> serde_json::Result<String> {
        let mut head = serde_json::to_value(self)?;
        let steps = self.steps.iter().map(serde_json::to_string::<Step>);
        let steps = steps.collect::<Result<Vec<_>, _>>()?.join(",\n    ");
        let mut text = String::from("{\n");
        for key in ["domain", "found", "reversed"] {
            if !head[key].is_null() {
                text += &format!("  \"{key}\": {},\n", head[key].take());
            }
        }
        text += &format!("  \"steps\": [\n    {steps}\n  ]\n}}\n");
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Recorded::parse(text).expect_err("it is refused").to_string()
    }

    #[test]
    fn cases_of_every_domain_are_read_as_they_were_written() {
        for domain in Domain::ALL {
            for index in 0..200 {
                let found = format!("seed 1 case {index}");
                let steps = domain.case(1, index);
                let recorded = Recorded { domain, found, reversed: None, steps };
                let text = recorded.text().expect("a text");
                let read = Recorded::parse(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
                assert_eq!(format!("{read:?}"), format!("{recorded:?}"), "{text}");
            }
        }
    }

    #[test]
    fn a_broken_file_is_told_with_its_line() {
        let with = |step: &str| {
            let head = "{\n  \"domain\": \"routes\",\n  \"found\": \"\",\n  \"steps\": [\n    ";
            refused(&format!("{head}{step}\n  ]\n}}\n"))
        };
        let why = with(r#"{"jump": ["10.0.0.1"]}"#);
        assert!(why.contains("unknown variant `jump`") && why.contains("line 5"), "{why}");
        let why = with(r#"{"set_up": ["leg7", true]}"#);
        assert!(why.contains("no leg is called leg7") && why.contains("line 5"), "{why}");
        let why = with(r#"{"append": ["nat", "OUTPUT", "-j DNAT"]}"#);
        assert!(why.contains("DNAT wants --to-destination") && why.contains("line 5"), "{why}");
        let why = with(r#"{"sysctl": ["kernel.panic", 1]}"#);
        assert!(why.contains("no sysctl of a network namespace"), "{why}");
        assert_eq!(with(""), "a case without steps");
        let why = refused("{\"domain\": \"rutes\"}");
        assert!(why.contains("unknown variant `rutes`") && why.contains("line 1"), "{why}");
        assert!(refused("").contains("EOF"));
    }
}
