//! `path=value` laid over the tree: what `--set` and a profile's `set` do.
//!
//! A path is keys joined by dots. An item of a list of tables is named by its `name` (or counted
//! from 0); a part with a dot in it is quoted: `image."redis:7.2".pull`.

use super::diagnostic::{Diagnostic, suggest};
use super::tree::{At, Entry, Item, Table, Value};

/// One override: `text[path]` is the path, all of it a source of its own.
pub struct Override<'a> {
    pub source: usize,
    /// Shown in messages.
    pub name: &'a str,
    pub text: &'a str,
    /// Bytes of `text`.
    pub path: std::ops::Range<usize>,
    pub value: Item,
    /// Where a new key stands in a file, when the path itself stands there.
    pub key_at: Option<At>,
}

pub fn apply(root: &mut Item, set: Override<'_>) -> Result<(), Box<Diagnostic>> {
    let fail = |range: std::ops::Range<usize>, message: String, help: String| {
        let shown = Diagnostic::at(set.name, set.text, range.start, range.end, message);
        Err(Box::new(shown.help(help)))
    };
    let Some(parts) = split(set.text, set.path.clone()) else {
        let help = "write it like node.n.count=500, image.\"redis:7\".pull=1s".to_owned();
        return fail(set.path.clone(), "this is not a path of keys".to_owned(), help);
    };
    let Some(((last, last_range), parents)) = parts.split_last() else {
        return Ok(());
    };
    let mut here = root;
    for (part, range) in parents {
        let known = names(here);
        match step(here, part) {
            Some(next) => here = next,
            None => {
                let help = suggest(part, known.iter().map(String::as_str));
                return fail(range.clone(), format!("there is no `{part}` here"), help);
            }
        }
    }
    let known = names(here);
    match (&mut here.value, step_exists(&known, last)) {
        (Value::Table(table), _) => {
            let key_at = set.key_at.unwrap_or_else(|| place(set.source, last_range));
            put(table, last, key_at, set.value);
        }
        (Value::List(_), true) => {
            if let Some(slot) = step(here, last) {
                *slot = set.value;
            }
        }
        _ => {
            let help = suggest(last, known.iter().map(String::as_str));
            return fail(last_range.clone(), format!("there is no `{last}` here"), help);
        }
    }
    Ok(())
}

fn place(source: usize, range: &std::ops::Range<usize>) -> At {
    At { source, start: range.start, end: range.end }
}

/// An unknown key goes in too: the reader then says so, with the place in the override.
fn put(table: &mut Table, key: &str, key_at: At, value: Item) {
    match table.get_mut(key) {
        Some(item) => *item = value,
        None => table.entries.push(Entry { key: key.to_owned(), key_at, item: value }),
    }
}

fn step_exists(known: &[String], part: &str) -> bool {
    known.iter().any(|name| name == part) || part.parse::<usize>().is_ok_and(|n| n < known.len())
}

fn step<'a>(item: &'a mut Item, part: &str) -> Option<&'a mut Item> {
    match &mut item.value {
        Value::Table(table) => table.get_mut(part),
        Value::List(items) => {
            let named = items.iter().position(|item| name_of(item) == Some(part));
            let index = named.or_else(|| part.parse().ok())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// What can be named below an item.
fn names(item: &Item) -> Vec<String> {
    match &item.value {
        Value::Table(table) => table.entries.iter().map(|entry| entry.key.clone()).collect(),
        Value::List(items) => {
            let name = |(n, item): (usize, &Item)| {
                name_of(item).map_or_else(|| n.to_string(), str::to_owned)
            };
            items.iter().enumerate().map(name).collect()
        }
        _ => Vec::new(),
    }
}

fn name_of(item: &Item) -> Option<&str> {
    item.table()?.get("name")?.text()
}

type Part = (String, std::ops::Range<usize>);

fn split(text: &str, path: std::ops::Range<usize>) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut at = path.start;
    loop {
        let rest = &text[at..path.end];
        let (part, length) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (&quoted[..end], end + 2)
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].trim(), end)
            }
        };
        if part.is_empty() {
            return None;
        }
        parts.push((part.to_owned(), at..at + length));
        at += length;
        match text[at..path.end].chars().next() {
            None => return Some(parts),
            Some('.') => at += 1,
            Some(_) => return None,
        }
    }
}
