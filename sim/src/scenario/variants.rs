//! A file is right under each of its profiles and in the lab, or it is wrong: whoever reads it is
//! told, not only who asks for that profile. And who changes a right file with `--set` is told that
//! the change is to blame, where a mistake shows elsewhere.

use super::diagnostic::Diagnostic;
use super::fields::Log;
use super::load::{apply_lab, apply_profile, apply_sets};
use super::read::{self, Files};
use super::tree::{Item, Source};

/// A file as it stands, without any change.
pub struct File<'a> {
    pub root: &'a Item,
    pub source: &'a Source,
    pub files: Files<'a>,
}

impl File<'_> {
    /// What is wrong under the profiles and in the lab that were not asked for. `changed`: what was
    /// asked for is not the file as it stands, which may be wrong by itself.
    pub fn others(&self, asked: Option<&str>, lab: bool, changed: bool) -> Vec<Diagnostic> {
        let mut wrong = Vec::new();
        if changed && !self.read(None, false).is_empty() {
            return wrong;
        }
        let has_lab = self.root.table().is_some_and(|top| top.get("lab").is_some());
        if has_lab && !lab {
            let found = self.read(None, true);
            wrong.extend(found.into_iter().map(|found| under(found, "the values of [lab.set]")));
        }
        let profiles = self.root.table().and_then(|top| top.get("profile"));
        let profiles = profiles.and_then(Item::table);
        for entry in profiles.map(|table| table.entries.as_slice()).unwrap_or_default() {
            if asked != Some(entry.key.as_str()) {
                let what = format!("the values of [profile.{}]", entry.key);
                let found = self.read(Some(&entry.key), false);
                wrong.extend(found.into_iter().map(|found| under(found, &what)));
            }
        }
        wrong
    }

    /// What is wrong without the profile and the values of the lab that were asked for: neither
    /// makes a wrong file right.
    pub fn by_itself(
        &self,
        sets: &[(String, String)],
        profile: Option<&str>,
        lab: bool,
    ) -> Vec<Diagnostic> {
        let left_out = profile.map(|name| format!("[profile.{name}]"));
        let left_out: Vec<String> =
            left_out.into_iter().chain(lab.then(|| "[lab]".into())).collect();
        if left_out.is_empty() {
            return Vec::new();
        }
        let found = self.read_with(None, false, sets);
        let without = format!("without {}", left_out.join(" and "));
        found.into_iter().map(|found| under_what(found, &without)).collect()
    }

    /// Mistakes that stand in the file, where the file alone has none.
    pub fn blame(
        &self,
        wrong: &mut [Diagnostic],
        sets: &[(String, String)],
        profile: Option<&str>,
        lab: bool,
    ) {
        let outside = |found: &Diagnostic| found.line > 0 && found.file == self.source.name;
        if !wrong.iter().any(outside) || !self.read(profile, lab).is_empty() {
            return;
        }
        let sets: Vec<String> =
            sets.iter().map(|(path, value)| format!("--set {path}={value}")).collect();
        let what = sets.join(" ");
        for found in wrong.iter_mut().filter(|found| outside(found)) {
            *found = under(found.clone(), &what);
        }
    }

    fn read(&self, profile: Option<&str>, lab: bool) -> Vec<Diagnostic> {
        self.read_with(profile, lab, &[])
    }

    fn read_with(
        &self,
        profile: Option<&str>,
        lab: bool,
        sets: &[(String, String)],
    ) -> Vec<Diagnostic> {
        let mut root = self.root.clone();
        let mut wrong = Vec::new();
        if let Some(profile) = profile {
            wrong.extend(apply_profile(&mut root, self.source, profile));
        }
        if lab {
            wrong.extend(apply_lab(&mut root, self.source));
        }
        let mut sources = vec![self.source.clone()];
        wrong.extend(apply_sets(&mut root, &mut sources, sets));
        let log = Log::new(sources);
        read::scenario(&log, &root, profile, self.files);
        wrong.extend(log.finish());
        wrong
    }
}

fn under(found: Diagnostic, what: &str) -> Diagnostic {
    under_what(found, &format!("with {what}"))
}

fn under_what(mut found: Diagnostic, what: &str) -> Diagnostic {
    let apart = if found.help.is_empty() { "" } else { "; " };
    found.help = format!("{}{apart}so it is {what}", found.help);
    found
}
