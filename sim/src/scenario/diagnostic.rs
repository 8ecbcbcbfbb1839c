//! What is wrong with an input, where, and what would be right.

use std::collections::BTreeSet;
use std::fmt;

/// One mistake, shown as
///
/// ```text
/// error: unknown key `latancy` in [[network]]
///   --> scenarios/x.toml:12:1
///    |
/// 12 | latancy = "5ms"
///    | ^^^^^^^
///    = help: did you mean `latency`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub file: String,
    /// From 1. Zero when the file as a whole is meant (it is missing).
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line of the file.
    pub source: String,
    /// Characters under which carets go; at least 1.
    pub width: usize,
    pub message: String,
    /// What was expected, the nearest right name.
    pub help: String,
}

impl Diagnostic {
    /// `start..end` are bytes of `text`; out of range or inside a character is put right.
    pub fn at(file: &str, text: &str, start: usize, end: usize, message: String) -> Self {
        let start = floor(text, start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, end.clamp(start, line_end));
        Diagnostic {
            file: file.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            source: text[line_start..line_end].trim_end().to_owned(),
            width: text[start..end].chars().count().max(1),
            message,
            help: String::new(),
        }
    }

    /// Of a file as a whole.
    pub fn of_file(file: &str, message: String) -> Self {
        Diagnostic {
            file: file.to_owned(),
            line: 0,
            column: 0,
            source: String::new(),
            width: 0,
            message,
            help: String::new(),
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        let margin = self.line.to_string().len();
        if self.line == 0 {
            writeln!(f, " --> {}", self.file)?;
        } else {
            writeln!(f, "{:margin$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
            writeln!(f, "{:margin$} |", "")?;
            writeln!(f, "{} | {}", self.line, self.source)?;
            // Tabs before the caret stay tabs, so that it stands under its text.
            let before = self.source.chars().take(self.column - 1);
            let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "{:margin$} | {indent}{}", "", "^".repeat(self.width))?;
        }
        if !self.help.is_empty() {
            writeln!(f, "{:margin$} = help: {}", "", self.help)?;
        }
        Ok(())
    }
}

/// Every mistake that was found, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The help for a name that is not one of `known`: the nearest, or all when they are few.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 24;
    // What has two meanings, a template and its only machine, is one name.
    let mut seen = BTreeSet::new();
    let known = known.into_iter().filter(|name| !name.is_empty() && seen.insert(*name));
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|k| (distance(name, k), *k)).min_by_key(|(distance, _)| *distance);
    match near {
        Some((distance, near)) if distance <= 1 + name.chars().count().max(3) / 3 => {
            format!("did you mean `{near}`?")
        }
        None => "there are none".to_owned(),
        Some(_) if known.len() <= SHOWN => format!("expected one of {}", known.join(", ")),
        Some(_) => {
            let more = known.len() - SHOWN;
            format!("expected one of {} and {more} more", known[..SHOWN].join(", "))
        }
    }
}

/// Levenshtein's distance in characters, a swap of neighbours counted once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        assert_eq!(suggest("latnecy", ["latency", "loss"]), "did you mean `latency`?");
        assert_eq!(suggest("zzz", ["latency", "loss"]), "expected one of latency, loss");
        assert_eq!(suggest("zzz", ["ab", "cd", "ab"]), "expected one of ab, cd");
        assert_eq!(suggest("zzz", []), "there are none");
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_caret_stands_under_its_text_after_tabs_and_wide_characters() {
        let text = "a\n\té = bad\n";
        let at = text.find("bad").unwrap();
        let shown = Diagnostic::at("f", text, at, at + 3, "m".into()).to_string();
        assert_eq!(shown, "error: m\n --> f:2:6\n  |\n2 | \té = bad\n  | \t    ^^^\n");
        let inside = Diagnostic::at("f", text, 4, 99, "m".into());
        assert_eq!((inside.line, inside.column), (2, 2));
    }
}
