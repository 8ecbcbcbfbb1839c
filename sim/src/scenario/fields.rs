//! A table read by its keys: every mistake is written down with its place and reading goes on with
//! a default, so that one run of the parser finds many mistakes.

use super::diagnostic::{Diagnostic, suggest};
use super::keys::Section;
use super::model::Span;
use super::tree::{At, Entry, Item, Source, Table, Value};
use super::value::{self, Wrong};
use ipnet::Ipv4Net;
use kubesim_actors::objects::Name;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where mistakes are collected.
pub struct Log {
    pub sources: Vec<Source>,
    found: RefCell<Vec<(At, Diagnostic)>>,
}

impl Log {
    pub fn new(sources: Vec<Source>) -> Self {
        Log { sources, found: RefCell::default() }
    }

    pub fn error(&self, at: At, message: impl Into<String>, help: impl Into<String>) {
        let source = &self.sources[at.source];
        let diagnostic =
            Diagnostic::at(&source.name, &source.text, at.start, at.end, message.into());
        self.found.borrow_mut().push((at, diagnostic.help(help)));
    }

    /// A mistake in another file that was named at `at`.
    pub fn foreign(&self, at: At, diagnostic: Diagnostic) {
        self.found.borrow_mut().push((at, diagnostic));
    }

    pub fn unknown<'a>(
        &self,
        at: At,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        self.error(at, format!("unknown {what} `{name}`"), suggest(name, known));
    }

    /// How many mistakes so far.
    pub fn len(&self) -> usize {
        self.found.borrow().len()
    }

    /// Every mistake in the order of the sources.
    pub fn finish(&self) -> Vec<Diagnostic> {
        let mut found = self.found.take();
        found.sort_by_key(|(at, _)| (at.source, at.start));
        found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }
}

/// A table of a known shape.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    pub log: &'a Log,
    pub at: At,
    pub heading: &'static str,
    table: &'a Table,
    /// It is a table indeed; else nothing is missed in it.
    sound: bool,
}

static EMPTY: Table = Table { entries: Vec::new() };

impl<'a> Fields<'a> {
    /// Complains about keys that are in none of `sections`; their first one gives the heading.
    pub fn open(log: &'a Log, item: &'a Item, sections: &[&'static Section]) -> Fields<'a> {
        let heading = sections.first().map_or("", |section| section.heading);
        let table = item.table().unwrap_or_else(|| {
            log.error(item.at, format!("expected a table, found {}", item.kind()), "");
            &EMPTY
        });
        let sound = item.table().is_some();
        let fields = Fields { log, at: item.at, heading, table, sound };
        let known = || sections.iter().flat_map(|section| section.keys.iter().map(|k| k.name));
        for entry in &table.entries {
            if !known().any(|name| name == entry.key) {
                let place = sections.last().map_or("", |section| section.heading);
                let message = format!("unknown key `{}` in {place}", entry.key);
                log.error(entry.key_at, message, suggest(&entry.key, known()));
            }
        }
        fields
    }

    pub fn item(&self, key: &str) -> Option<&'a Item> {
        self.table.get(key)
    }
    pub fn has(&self, key: &str) -> bool {
        self.item(key).is_some()
    }
    /// Where the value of `key` is, or the table when it is not there.
    pub fn place(&self, key: &str) -> At {
        self.place_of(&[key])
    }
    /// Where the first of these is that is there. Where none is, an override that changed the table
    /// is to blame, else the table as a whole.
    pub fn place_of(&self, keys: &[&str]) -> At {
        let found = keys.iter().find_map(|key| self.item(key));
        let entries = &self.table.entries;
        let changed = || entries.iter().find(|entry| entry.item.at.source != self.at.source);
        let found = found.or_else(|| changed().map(|entry| &entry.item));
        found.map_or(self.at, |item| item.at)
    }
    pub fn error(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.log.error(self.place(key), message, help);
    }

    /// The item, and a complaint when it is not there.
    pub fn required(&self, key: &str) -> Option<&'a Item> {
        let item = self.item(key);
        if item.is_none() && self.sound {
            let message = format!("{} lacks the key `{key}`", self.heading);
            self.log.error(self.place_of(&[]), message, "");
        }
        item
    }

    fn wrong(&self, item: &Item, key: &str, expected: &str) {
        let message = format!("`{key}` is {}, expected {expected}", item.kind());
        self.log.error(item.at, message, "");
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        let item = self.item(key)?;
        let text = item.text();
        if text.is_none() {
            self.wrong(item, key, "a text");
        }
        text
    }
    pub fn string(&self, key: &str) -> String {
        self.text(key).unwrap_or_default().to_owned()
    }
    pub fn required_name(&self, key: &str) -> Name {
        self.required(key).and_then(|_| self.text(key)).map(Name::from).unwrap_or_default()
    }

    pub fn bool(&self, key: &str, default: bool) -> bool {
        match self.item(key) {
            None => default,
            Some(Item { value: Value::Bool(yes), .. }) => *yes,
            Some(item) => {
                self.wrong(item, key, "true or false");
                default
            }
        }
    }

    /// An integer of `range`.
    pub fn int(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let item = self.item(key)?;
        let Value::Int(number) = item.value else {
            self.wrong(item, key, "an integer");
            return None;
        };
        if !range.contains(&number) {
            let (low, high) = range.into_inner();
            let message = format!("`{key}` is {number}, expected {low} to {high}");
            self.log.error(item.at, message, "");
            return None;
        }
        Some(number)
    }
    pub fn u32(&self, key: &str, default: u32) -> u32 {
        let number = self.int(key, 0..=i64::from(u32::MAX));
        number.and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    }
    pub fn port(&self, key: &str) -> Option<u16> {
        self.int(key, 1..=65535).and_then(|n| u16::try_from(n).ok())
    }

    /// A probability: `0.02` or `"2%"`.
    pub fn share(&self, key: &str) -> f64 {
        let Some(item) = self.item(key) else {
            return 0.0;
        };
        let share = match &item.value {
            Value::Float(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            Value::Text(text) => value::percent(text),
            _ => None,
        };
        match share.filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => share,
            None => {
                let message = format!("`{key}` is not a share");
                self.log.error(item.at, message, "write 0.02 or \"2%\", at most 1.0 or 100%");
                0.0
            }
        }
    }

    pub fn duration(&self, key: &str) -> Option<Duration> {
        self.duration_of(key, self.item(key)?)
    }
    fn duration_of(&self, key: &str, item: &Item) -> Option<Duration> {
        let Some(text) = item.text() else {
            let message = format!("`{key}` is {}, expected a duration", item.kind());
            self.log.error(item.at, message, DURATION_HELP);
            return None;
        };
        let help = |wrong| if wrong == Wrong::Form { DURATION_HELP } else { "" };
        match value::duration(text) {
            Ok(duration) => Some(duration),
            Err(wrong) => {
                let why = value::parse_duration(text).err().unwrap_or_default();
                self.log.error(item.at, why, help(wrong));
                None
            }
        }
    }

    /// `"60s"` or `{ from = "60s", to = "90s" }`.
    pub fn span(&self, key: &str) -> Option<Span> {
        let item = self.item(key)?;
        if item.table().is_none() {
            return self.duration_of(key, item).map(Span::exact);
        }
        let ends = Fields::open(self.log, item, &[&super::keys::SPAN]);
        ends.required("from")?;
        ends.required("to")?;
        let span = Span { from: ends.duration("from")?, to: ends.duration("to")? };
        if span.to < span.from {
            self.log.error(item.at, format!("`{key}` ends before it begins"), "");
            return None;
        }
        Some(span)
    }

    pub fn cidr(&self, key: &str) -> Option<Ipv4Net> {
        let text = self.text(key)?;
        match text.parse::<Ipv4Net>() {
            Ok(cidr) if cidr.trunc() == cidr => Some(cidr),
            Ok(cidr) => {
                let help = format!("the network of this address is {}", cidr.trunc());
                self.error(key, format!("`{text}` has bits set behind its prefix"), help);
                None
            }
            Err(_) => {
                let message = format!("`{text}` is not an IPv4 network");
                self.error(key, message, "write it like 192.168.1.0/24");
                None
            }
        }
    }

    pub fn address(&self, key: &str) -> Option<Ipv4Addr> {
        self.address_of(self.item(key)?, key)
    }
    pub fn address_of(&self, item: &Item, key: &str) -> Option<Ipv4Addr> {
        let Some(text) = item.text() else {
            self.wrong(item, key, "an IPv4 address as a text");
            return None;
        };
        let address = text.parse().ok();
        if address.is_none() {
            self.log.error(item.at, format!("`{text}` is not an IPv4 address"), "");
        }
        address
    }
    pub fn addresses(&self, key: &str) -> Vec<Ipv4Addr> {
        self.list(key).iter().filter_map(|item| self.address_of(item, key)).collect()
    }

    /// A list; one value stands for a list of one.
    pub fn list(&self, key: &str) -> &'a [Item] {
        match self.item(key) {
            None => &[],
            Some(Item { value: Value::List(items), .. }) => items,
            Some(item) => std::slice::from_ref(item),
        }
    }
    /// A list of tables (or one table).
    pub fn tables(&self, key: &str) -> &'a [Item] {
        self.list(key)
    }
    pub fn texts(&self, key: &str) -> Vec<(&'a str, At)> {
        let mut texts = Vec::new();
        for item in self.list(key) {
            match item.text() {
                Some(text) => texts.push((text, item.at)),
                None => self.wrong(item, key, "texts"),
            }
        }
        texts
    }
    pub fn strings(&self, key: &str) -> Vec<String> {
        self.texts(key).into_iter().map(|(text, _)| text.to_owned()).collect()
    }
    pub fn ports(&self, key: &str) -> Vec<u16> {
        let mut ports = Vec::new();
        for item in self.list(key) {
            match &item.value {
                Value::Int(port @ 1..=65535) => ports.push(*port as u16),
                _ => self.log.error(item.at, format!("`{key}` wants ports, 1 to 65535"), ""),
            }
        }
        ports
    }

    /// The entries of a free table.
    pub fn entries(&self, key: &str) -> &'a [Entry] {
        match self.item(key) {
            None => &[],
            Some(Item { value: Value::Table(table), .. }) => &table.entries,
            Some(item) => {
                self.wrong(item, key, "a table");
                &[]
            }
        }
    }
    pub fn text_map(&self, key: &str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for entry in self.entries(key) {
            match entry.item.text() {
                Some(text) => {
                    map.insert(entry.key.clone(), text.to_owned());
                }
                None => self.wrong(&entry.item, &entry.key, "a text"),
            }
        }
        map
    }

    /// One of a few words; `None` when absent or unknown.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known = words.iter().map(|(word, _)| *word);
            self.log.unknown(self.place(key), key, text, known);
        }
        found.map(|(_, value)| *value)
    }
}

pub const DURATION_HELP: &str = "write it like \"1.5s\", \"200ms\", \"2m30s\" or \"26h\"";
