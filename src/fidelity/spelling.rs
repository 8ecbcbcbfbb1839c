//! How parts of a step are spelled in a file: as the commands that make them have them.

use super::step::LEGS;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// A leg by its name.
pub mod leg {
    use super::*;

    pub fn serialize<S: Serializer>(leg: &usize, to: S) -> Result<S::Ok, S::Error> {
        let name = LEGS.get(*leg).ok_or_else(|| S::Error::custom(format!("no leg {leg}")))?;
        to.serialize_str(name)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        let name = String::deserialize(from)?;
        let found = LEGS.iter().position(|leg| *leg == name);
        found.ok_or_else(|| {
            D::Error::custom(format!("no leg is called {name}; there are {}", LEGS.join(", ")))
        })
    }
}

/// A rule in iptables' words, from its first match on.
pub mod rule {
    use super::*;
    use kubesim_actors::ports::rules::parse::{rule_of, split};
    use kubesim_actors::ports::rules::text::rule_text;
    use kubesim_actors::ports::rules::{Address, Rule};

    pub fn serialize<A: Address, S: Serializer>(rule: &Rule<A>, to: S) -> Result<S::Ok, S::Error> {
        let mut words = String::new();
        rule_text(&mut words, rule);
        to.serialize_str(words.trim_start())
    }

    pub fn deserialize<'de, A: Address, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Rule<A>, D::Error> {
        let line = String::deserialize(from)?;
        let rule = split(&line).and_then(|words| rule_of(&words));
        rule.map_err(|why| D::Error::custom(format!("the rule \"{line}\": {why}")))
    }
}

/// A sysctl's key; only the network's, which a namespace has for itself.
pub mod sysctl {
    use super::*;

    pub fn serialize<S: Serializer>(key: &str, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(key)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        let key = String::deserialize(from)?;
        if !key.starts_with("net.") || key.contains("..") || key.contains('/') {
            return Err(D::Error::custom(format!("no sysctl of a network namespace: {key}")));
        }
        Ok(key)
    }
}
