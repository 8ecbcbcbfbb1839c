//! What a namespace's labels ask for (api/helpers.go, api/constants.go).

use crate::objects::validation::Causes;
use std::collections::BTreeMap;
use std::fmt;

pub type Labels = BTreeMap<String, String>;

/// The labels of a mode: of its level, and of that level's version.
const ENFORCE: [&str; 2] =
    ["pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/enforce-version"];
const AUDIT: [&str; 2] =
    ["pod-security.kubernetes.io/audit", "pod-security.kubernetes.io/audit-version"];
const WARN: [&str; 2] =
    ["pod-security.kubernetes.io/warn", "pod-security.kubernetes.io/warn-version"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

/// Any later version is the latest one, by another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Of 1.
    Minor(u64),
    Latest,
}

impl Version {
    /// `latest`, or `v1.` and a number as one writes it.
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|byte| byte.is_ascii_digit())
            && (minor == "0" || !minor.starts_with('0'));
        // Go's int is signed.
        let minor = minor.parse::<i64>().ok().filter(|_| plain)?;
        u64::try_from(minor).ok().map(Version::Minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Minor(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

/// `restricted:latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// Nobody reads what `audit` asks for; it must be readable all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub warn: Standard,
}

impl Policy {
    /// There always is one, and what is wrong with the labels (`PolicyToEvaluate`): what cannot be
    /// read is enforced as `restricted` and warns of nothing.
    pub fn of(labels: Option<&Labels>) -> (Self, Causes) {
        let mut causes = Causes::default();
        let enforce = standard(labels, ENFORCE, Level::Restricted, &mut causes);
        standard(labels, AUDIT, Level::Privileged, &mut causes);
        let warn = standard(labels, WARN, Level::Privileged, &mut causes);
        (Policy { enforce, warn }, causes)
    }
}

fn standard(
    labels: Option<&Labels>,
    [level, version]: [&str; 2],
    unreadable: Level,
    causes: &mut Causes,
) -> Standard {
    let mut found = Standard { level: Level::Privileged, version: Version::Latest };
    let said = |key: &str| labels.and_then(|labels| labels.get(key));
    let mut wrong = |key: &str, text: &str, why: &str| {
        causes.invalid(format_args!("metadata.labels[{key}]"), format_args!("{text:?}"), why);
    };
    if let Some(text) = said(level) {
        found.level = Level::parse(text).unwrap_or_else(|| {
            wrong(level, text, "must be one of privileged, baseline, restricted");
            unreadable
        });
    }
    if let Some(text) = said(version) {
        found.version = Version::parse(text).unwrap_or_else(|| {
            wrong(version, text, "must be \"latest\" or \"v1.x\"");
            Version::Latest
        });
    }
    found
}
