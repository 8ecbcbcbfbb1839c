//! Regular expressions as Go has them (RE2): its classes are of ASCII, and in brackets it knows
//! fewer signs than Rust's.

use regex::Regex;
use serde::{Deserialize, Deserializer};

/// One of a schema.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    /// Or why it is none.
    pub regex: Result<Regex, String>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(text)?;
        let regex = Regex::new(&translated(&text)).map_err(|why| why.to_string());
        Ok(Pattern { text, regex })
    }
}

/// The same expression for Rust's engine.
fn translated(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut letters = pattern.chars().peekable();
    // Within brackets, and right behind the one that opens them.
    let (mut class, mut opened, mut named) = (false, false, false);
    while let Some(letter) = letters.next() {
        let first = std::mem::take(&mut opened);
        match letter {
            '\\' => match letters.next() {
                Some(escaped) => escape(escaped, class, &mut text),
                None => text.push('\\'),
            },
            '[' if !class => {
                (class, opened) = (true, true);
                text.push('[');
                if letters.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
            }
            // A class by its name, `[:alpha:]`.
            '[' if letters.peek() == Some(&':') => {
                named = true;
                text.push('[');
            }
            ']' if named => {
                named = false;
                text.push(']');
            }
            ']' if class && first => text.push_str(r"\]"),
            ']' if class => {
                class = false;
                text.push(']');
            }
            '[' | '&' | '~' if class => {
                text.push('\\');
                text.push(letter);
            }
            _ => text.push(letter),
        }
    }
    text
}

fn escape(letter: char, class: bool, text: &mut String) {
    match letter {
        'd' => text.push_str("[0-9]"),
        'D' => text.push_str("[^0-9]"),
        's' => text.push_str(r"[\t\n\f\r ]"),
        'S' => text.push_str(r"[^\t\n\f\r ]"),
        'w' => text.push_str("[0-9A-Za-z_]"),
        'W' => text.push_str("[^0-9A-Za-z_]"),
        'b' | 'B' if !class => {
            text.push_str(r"(?-u:\");
            text.push(letter);
            text.push(')');
        }
        _ => {
            text.push('\\');
            text.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[track_caller]
    fn holds(pattern: &str, right: &[&str], wrong: &[&str]) {
        let pattern = Pattern::deserialize(Value::from(pattern)).expect("a text");
        let regex = pattern.regex.expect("an expression");
        assert!(right.iter().all(|text| regex.is_match(text)), "{regex}");
        assert!(!wrong.iter().any(|text| regex.is_match(text)), "{regex}");
    }

    #[test]
    fn classes_are_of_ascii() {
        holds(r"^\d+$", &["12"], &["a", "٣"]);
        holds(r"^[\d.]+\s\w$", &["1.2 x"], &["1.2x", "1.2 é"]);
        holds(r"^\S\D\W$", &["aé-", "ééé"], &[" a-", "a1-"]);
        holds(r"\bend\b", &["the end."], &["bend"]);
        holds(r"^[\W]$", &["-"], &["a"]);
    }

    #[test]
    fn brackets_have_no_signs_of_rusts() {
        holds(r"^[[]$", &["["], &["a"]);
        holds(r"^[]a]$", &["]", "a"], &["b"]);
        holds(r"^[^]a]$", &["b"], &["]", "a"]);
        holds(r"^[a&&b]+$", &["a&b"], &["c"]);
        holds(r"^[~~x]+$", &["~x"], &["y"]);
        holds(r"^[[:alpha:]_:]+x]$", &["a_:Zx]"], &["1x]"]);
        holds(r"^a{2}\.[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &["aa.b-c"], &["aa.b-"]);
    }
}
