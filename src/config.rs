//! `--config`: a file that gives the flags of `kubesim up`, `server` and `node`, for who is started
//! by systemd. A table a command, and in it the flags by their names; what is on the command line
//! goes before what is in the file. It is checked as strictly as a scenario, the tables of the
//! other commands too:
//!
//! ```toml
//! [node]
//! server = "https://192.168.1.10:6443"
//! pod-network = "10.244.0.0/16"
//! ```

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, value_parser};
use kubesim_sim::scenario::{Diagnostic, Diagnostics, suggest};
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where it is looked for if it is not said.
const USUAL: &str = "/etc/kubesim/config.toml";
const NAME: &str = "config";
/// What may be told so, each with a table of its name.
const COMMANDS: [&str; 3] = ["node", "server", "up"];
/// Larger than any; a device may have no end.
const MOST_BYTES: u64 = 1 << 20;

/// The program's command line with the flag.
pub fn declare(command: clap::Command) -> clap::Command {
    let here = |name: &&str| is_here(&command, name);
    let named: Vec<&str> = COMMANDS.iter().filter(|name| here(name)).copied().collect();
    named.into_iter().fold(command, |command, name| {
        let flag = Arg::new(NAME)
            .long(NAME)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .action(ArgAction::Set)
            .help(format!(
                "What gives these flags below [{name}]; those of the command line go before. If it \
                 is not said, {USUAL} where that is"
            ));
        command.mut_subcommand(name, |sub| sub.arg(flag))
    })
}

/// Whether this build has more of a command than a word on how to get it.
fn is_here(command: &clap::Command, name: &str) -> bool {
    let sub = command.find_subcommand(name);
    sub.is_some_and(|sub| sub.get_arguments().any(|arg| arg.get_long() == Some("data-dir")))
}

/// The words of a command line with those of its file. `args` begin with the program's name, and
/// `usual` is the file that is read if it is there and no other is named.
pub fn fill(
    command: &clap::Command,
    mut args: Vec<OsString>,
    usual: Option<&Path>,
) -> Result<Vec<OsString>, Diagnostics> {
    const FIRST: usize = 2;
    let named = args.get(1).and_then(|name| name.to_str());
    let Some(name) = named.filter(|name| COMMANDS.contains(name) && is_here(command, name)) else {
        return Ok(args);
    };
    // What is wrong with the words is said when all of them are there.
    let Ok(given) = lax(command, name).try_get_matches_from(&args[1..]) else { return Ok(args) };
    if given.subcommand().is_some() {
        return Ok(args);
    }
    let told: Option<&PathBuf> = given.get_one(NAME);
    let Some(path) = told.map(PathBuf::as_path).or(usual) else { return Ok(args) };
    let text = match text(path) {
        Ok(text) => text,
        Err(error) if told.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(args),
        Err(error) => {
            let why = format!("cannot read the configuration: {error}");
            return Err(Diagnostics(vec![Diagnostic::of_file(&path.display().to_string(), why)]));
        }
    };
    let mut tables = read(command, &path.display().to_string(), &text)?;
    let flags = tables.remove(name).unwrap_or_default();
    let said = |id: &String| given.value_source(id) == Some(ValueSource::CommandLine);
    let added = flags.into_iter().filter(|(id, _)| !said(id)).map(|(_, word)| word.into());
    args.splice(FIRST..FIRST, added.collect::<Vec<OsString>>());
    Ok(args)
}

/// The file if nobody names another one.
pub fn usual() -> Option<&'static Path> {
    Some(Path::new(USUAL))
}

/// A command that lacks nothing, so that a part of its words can be read.
fn lax(command: &clap::Command, name: &str) -> clap::Command {
    let sub = command.find_subcommand(name).cloned().unwrap_or_default();
    sub.mut_args(|arg| arg.required(false))
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MOST_BYTES {
        true => Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20))),
        false => Ok(text),
    }
}

/// By the command: a flag's id, and the word that gives it.
type Flags = BTreeMap<String, Vec<(String, String)>>;

/// All that the file says, or all that is wrong with it.
fn read(command: &clap::Command, name: &str, text: &str) -> Result<Flags, Diagnostics> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut wrong = Wrong { name, text, found: Vec::new() };
    for error in &errors {
        wrong.at(error.span().unwrap_or_default(), format!("not TOML: {}", error.message()), "");
    }
    let mut flags = Flags::new();
    let top = if errors.is_empty() { Some(document.get_ref()) } else { None };
    for (key, value) in top.into_iter().flat_map(|top| top.iter()) {
        let heading: &str = key.get_ref();
        match value.get_ref() {
            DeValue::Table(table) if COMMANDS.contains(&heading) => {
                if is_here(command, heading) {
                    let read = flags_of(&lax(command, heading), table, &mut wrong);
                    flags.insert(heading.to_owned(), read);
                }
            }
            _ if COMMANDS.contains(&heading) => {
                let why = format!("`{heading}` is {}, expected a table", kind(value.get_ref()));
                wrong.at(value.span(), why, &format!("the flags stand below [{heading}]"));
            }
            DeValue::Table(_) => {
                let help = suggest(heading, COMMANDS);
                wrong.at(key.span(), format!("unknown table [{heading}]"), &help);
            }
            _ => {
                let help = "flags stand below the command that has them: [node], [server] or [up]";
                wrong.at(key.span(), format!("`{heading}` stands below no command"), help);
            }
        }
    }
    wrong.end(flags)
}

fn flags_of(
    sub: &clap::Command,
    table: &DeTable<'_>,
    wrong: &mut Wrong<'_>,
) -> Vec<(String, String)> {
    let known = || {
        sub.get_arguments().filter(|arg| arg.get_id() != NAME && arg.get_action().takes_values())
    };
    let mut flags = Vec::new();
    for (key, value) in table.iter() {
        let name: &str = key.get_ref();
        let Some(arg) = known().find(|arg| arg.get_long() == Some(name)) else {
            let help = suggest(name, known().filter_map(Arg::get_long));
            wrong.at(key.span(), format!("unknown key `{name}` in [{}]", sub.get_name()), &help);
            continue;
        };
        let Some(text) = words(arg, value) else {
            let why = format!("`{name}` is {}, expected a text", kind(value.get_ref()));
            wrong.at(value.span(), why, "");
            continue;
        };
        let word = format!("--{name}={text}");
        match sub.clone().try_get_matches_from([sub.get_name(), &word]) {
            Ok(_) => flags.push((arg.get_id().to_string(), word)),
            Err(error) => {
                let (why, help) = reason(&error, &text);
                wrong.at(value.span(), format!("`{name}` is \"{text}\": {why}"), &help);
            }
        }
    }
    flags
}

/// A value as it is on a command line; a list where a flag takes several.
fn words(arg: &Arg, value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Array(items) => {
            let delimiter = arg.get_value_delimiter()?;
            let items = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            let items: Option<Vec<String>> = items.collect();
            Some(items?.join(&delimiter.to_string()))
        }
        _ => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Why a flag does not take a value, and what it takes instead where that can be told.
fn reason(error: &clap::Error, text: &str) -> (String, String) {
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
        && !valid.is_empty()
    {
        let help = suggest(text, valid.iter().map(String::as_str));
        return ("no value of this flag".to_owned(), help);
    }
    let why = match error.source() {
        Some(source) => source.to_string(),
        None => {
            let shown = error.to_string();
            let first = shown.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    };
    (why, String::new())
}

/// What is wrong with a file.
struct Wrong<'a> {
    name: &'a str,
    text: &'a str,
    found: Vec<(usize, Diagnostic)>,
}

impl Wrong<'_> {
    fn at(&mut self, span: Range<usize>, why: String, help: &str) {
        let shown = Diagnostic::at(self.name, self.text, span.start, span.end, why).help(help);
        self.found.push((span.start, shown));
    }

    fn end<T>(mut self, right: T) -> Result<T, Diagnostics> {
        self.found.sort_by_key(|(at, _)| *at);
        match self.found.is_empty() {
            true => Ok(right),
            false => Err(Diagnostics(self.found.into_iter().map(|(_, shown)| shown).collect())),
        }
    }
}

#[cfg(test)]
mod tests;
