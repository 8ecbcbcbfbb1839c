//! From a path or a text to a scenario.

use super::diagnostic::{Diagnostic, Diagnostics, suggest};
use super::fields::Log;
use super::model::Scenario;
use super::read::{self, Files};
use super::set::{self, Override};
use super::tree::{self, At, Item, Source, Value};
use super::variants;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The world in which a scenario is to be played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Sim,
    /// With the values of the file's `[lab]`.
    Lab,
}

impl Scenario {
    /// Reads a file and the manifests that it names. `sets` are `(path, value)`, applied in order,
    /// after the profile's own.
    pub fn load(
        path: &Path,
        sets: &[(String, String)],
        profile: Option<&str>,
    ) -> Result<Scenario, Diagnostics> {
        Scenario::load_for(Stage::Sim, path, sets, profile)
    }

    /// The same for one world or another.
    pub fn load_for(
        stage: Stage,
        path: &Path,
        sets: &[(String, String)],
        profile: Option<&str>,
    ) -> Result<Scenario, Diagnostics> {
        let name = path.display().to_string();
        let text = text_of(path).map_err(|error| {
            let message = format!("cannot read the scenario: {error}");
            Diagnostics(vec![Diagnostic::of_file(&name, message).help(nearest(path))])
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        read(stage, &name, &text, &|pattern| find(folder, pattern), sets, profile)
    }

    /// The same without touching the disk: `files` finds what `manifests` names.
    pub fn parse(
        name: &str,
        text: &str,
        files: Files<'_>,
        sets: &[(String, String)],
        profile: Option<&str>,
    ) -> Result<Scenario, Diagnostics> {
        read(Stage::Sim, name, text, files, sets, profile)
    }
}

fn read(
    stage: Stage,
    name: &str,
    text: &str,
    files: Files<'_>,
    sets: &[(String, String)],
    profile: Option<&str>,
) -> Result<Scenario, Diagnostics> {
    let whole = Source { name: name.to_owned(), text: text.to_owned() };
    let mut root = tree::parse(0, name, text)?;
    ensure_cluster(&mut root);
    let pristine = root.clone();
    let mut sources = vec![whole.clone()];
    let mut wrong = Vec::new();
    if let Some(profile) = profile {
        wrong.extend(apply_profile(&mut root, &sources[0], profile));
    }
    if stage == Stage::Lab {
        wrong.extend(apply_lab(&mut root, &sources[0]));
    }
    wrong.extend(apply_sets(&mut root, &mut sources, sets));
    let log = Log::new(sources);
    let scenario = read::scenario(&log, &root, profile, files);
    wrong.extend(log.finish());
    let plain = variants::File { root: &pristine, source: &whole, files };
    let lab = stage == Stage::Lab;
    if wrong.is_empty() {
        let changed = lab || profile.is_some() || !sets.is_empty();
        wrong = plain.by_itself(sets, profile, lab);
        wrong.extend(plain.others(profile, lab, changed));
    } else if !sets.is_empty() {
        plain.blame(&mut wrong, sets, profile, lab);
    }
    if wrong.is_empty() { Ok(scenario) } else { Err(Diagnostics(wrong)) }
}

/// Overrides in their order, each a source of its own.
pub(super) fn apply_sets(
    root: &mut Item,
    sources: &mut Vec<Source>,
    sets: &[(String, String)],
) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    for (path, value) in sets {
        let source = Source { name: "--set".to_owned(), text: format!("{path}={value}") };
        wrong.extend(apply_set(root, sources.len(), &source, path.len()));
        sources.push(source);
    }
    wrong
}

/// A value is TOML where it parses as such, else a text: `--set duration=2m` needs no quotes.
fn apply_set(root: &mut Item, number: usize, source: &Source, path: usize) -> Option<Diagnostic> {
    let at = At { source: number, start: path + 1, end: source.text.len() };
    let text = &source.text[path + 1..];
    let value = match tree::parse_value(number, text) {
        Some(mut item) => {
            shift(&mut item, path + 1);
            item
        }
        None => Item { at, value: Value::Text(text.to_owned()) },
    };
    let over = Override {
        source: number,
        name: &source.name,
        text: &source.text,
        path: 0..path,
        value,
        key_at: None,
    };
    set::apply(root, over).err().map(|wrong| *wrong)
}

/// Places of a value parsed by itself, as places of the whole override.
fn shift(item: &mut Item, by: usize) {
    item.at.start += by;
    item.at.end += by;
    match &mut item.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Value::Table(table) => {
            for entry in &mut table.entries {
                entry.key_at.start += by;
                entry.key_at.end += by;
                shift(&mut entry.item, by);
            }
        }
        _ => {}
    }
}

/// The named profile's programs and settings become the cluster's.
pub(super) fn apply_profile(root: &mut Item, source: &Source, name: &str) -> Vec<Diagnostic> {
    let profiles = root.table().and_then(|top| top.get("profile")).and_then(Item::table);
    let Some(profile) = profiles.and_then(|profiles| profiles.get(name)).cloned() else {
        let known = profiles.map(|profiles| profiles.entries.as_slice()).unwrap_or_default();
        let help = suggest(name, known.iter().map(|entry| entry.key.as_str()));
        let message = format!("the scenario has no profile `{name}`");
        return vec![Diagnostic::of_file(&source.name, message).help(help)];
    };
    let mut overrides = Vec::new();
    for entry in profile.table().map(|table| table.entries.as_slice()).unwrap_or_default() {
        let path = match entry.key.as_str() {
            "netd" => "cluster.netd",
            "dns" => "cluster.dns-program",
            "overlap" => "cluster.overlap",
            _ => continue,
        };
        overrides.push((path.to_owned(), entry.key_at, entry.item.clone()));
    }
    let mut wrong = quoted_paths(&profile, source, &mut overrides);
    wrong.extend(apply_all(root, source, overrides));
    wrong
}

/// What real time shrinks: the `set` of the file's `[lab]`.
pub(super) fn apply_lab(root: &mut Item, source: &Source) -> Vec<Diagnostic> {
    let Some(lab) = root.table().and_then(|top| top.get("lab")).cloned() else { return Vec::new() };
    let mut overrides = Vec::new();
    let mut wrong = quoted_paths(&lab, source, &mut overrides);
    wrong.extend(apply_all(root, source, overrides));
    wrong
}

/// A path, where it stands in the file, and its value.
type Placed = (String, At, Item);

/// The overrides of a table's `set`.
fn quoted_paths(of: &Item, source: &Source, overrides: &mut Vec<Placed>) -> Vec<Diagnostic> {
    let set = of.table().and_then(|table| table.get("set")).and_then(Item::table);
    let mut wrong = Vec::new();
    for entry in set.map(|table| table.entries.as_slice()).unwrap_or_default() {
        if entry.item.table().is_some() && !entry.key.contains('.') {
            let At { start, end, .. } = entry.key_at;
            let message = format!("`{}` is a table, expected a value", entry.key);
            let shown = Diagnostic::at(&source.name, &source.text, start, end, message);
            wrong.push(shown.help("quote the whole path: \"cluster.backend\" = \"vxlan\""));
            continue;
        }
        overrides.push((entry.key.clone(), entry.key_at, entry.item.clone()));
    }
    wrong
}

fn apply_all(root: &mut Item, source: &Source, overrides: Vec<Placed>) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    for (path, at, value) in overrides {
        let length = path.len();
        let over =
            Override { source: 0, name: "", text: &path, path: 0..length, value, key_at: Some(at) };
        if let Err(mistake) = set::apply(root, over) {
            // The path stands inside the file: show it there.
            let shown =
                Diagnostic::at(&source.name, &source.text, at.start, at.end, mistake.message);
            wrong.push(shown.help(mistake.help));
        }
    }
    wrong
}

/// So that overrides find the table where a file has none.
fn ensure_cluster(root: &mut Item) {
    let at = root.at;
    if let Value::Table(top) = &mut root.value
        && top.get("cluster").is_none()
    {
        let item = Item { at, value: Value::Table(tree::Table::default()) };
        top.entries.push(tree::Entry { key: "cluster".to_owned(), key_at: at, item });
    }
}

/// Larger than any scenario or manifest; a device may have no end.
const MOST_BYTES: u64 = 64 << 20;

fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20)));
    }
    Ok(text)
}

/// The files of a pattern: `*` in the last part of the path stands for any text.
fn find(folder: &Path, pattern: &str) -> Result<Vec<(String, String)>, String> {
    let read = |path: &Path| {
        let text = text_of(path).map_err(|error| {
            let near = nearest(path);
            let near = if near.is_empty() { near } else { format!("; {near}") };
            format!("cannot read {}: {error}{near}", path.display())
        })?;
        Ok((path.display().to_string(), text))
    };
    let path = folder.join(pattern);
    let last = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some((before, after)) = last.split_once('*') else {
        return Ok(vec![read(&path)?]);
    };
    let parent = path.parent().unwrap_or(folder);
    let entries = std::fs::read_dir(parent)
        .map_err(|error| format!("cannot read {}: {error}", parent.display()))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| {
        name.len() >= before.len() + after.len()
            && name.starts_with(before)
            && name.ends_with(after)
    });
    names.sort();
    if names.is_empty() {
        return Err(format!("no file matches {}", path.display()));
    }
    names.iter().map(|name| read(&parent.join(name))).collect()
}

/// For a file that is not there: one beside it with a similar name.
fn nearest(path: &Path) -> String {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return String::new() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
    if path.exists() {
        return String::new();
    }
    let names = entries.into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let help = suggest(name, names.iter().map(String::as_str));
    // A list of everything in a folder helps nobody.
    if help.starts_with("did you mean") { help } else { String::new() }
}
