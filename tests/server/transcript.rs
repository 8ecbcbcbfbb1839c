//! Sessions with kubectl, written down: commands, and all that each of them says. What is expected
//! was worked out from upstream's sources (printers, describers, validations), by hand; each file
//! names its own.
//!
//! A session (`tests/golden/tour/*.txt`) is a list of steps:
//!
//! - `$ WORDS`: kubectl with these words, quoted as in a shell, must succeed. `$1 WORDS` must end
//!   with status 1. `$~ WORDS` is asked again until it says what is expected, for a minute.
//!   `$* WORDS` may say its lines in any order. A word `|` leads to a second kubectl; words
//!   `NAME=VALUE` before all others are its environment.
//! - `| LINE`: a line of its standard input.
//! - other lines: what it says, those on standard error with `! ` before them.
//! - `# `: a remark. `[<1.31] LINE` and `[>=1.31] LINE`: of these releases of kubectl only.
//!
//! Blank lines do not count, and columns are apart by two spaces or more: they are as wide as what
//! is in them. What depends on the hour or on chance is one of [`ANYTHING`].

use crate::world::{Place, Server};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a step may be asked again.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether a character may be in it.
type Of = fn(char) -> bool;

/// Words of a golden line that stand for what nobody can know.
const ANYTHING: [(&str, Of); 7] = [
    ("<AGE>", |c| c.is_ascii_digit() || "smhdy".contains(c)),
    ("<ID>", |c| c.is_ascii_lowercase() || c.is_ascii_digit()),
    ("<IP>", |c| c.is_ascii_digit() || c == '.'),
    ("<NUMBER>", |c| c.is_ascii_digit()),
    ("<TIME>", |c| c.is_ascii_alphanumeric() || " ,:+-".contains(c)),
    ("<UID>", |c| c.is_ascii_hexdigit() || c == '-'),
    ("<ANY>", |_| true),
];

/// Plays a session to its end; what a step says instead of what is expected is told of all steps
/// at once.
#[track_caller]
pub fn play(session: &str, place: &Place, server: &Server) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tour");
    let text = std::fs::read_to_string(folder.join(session)).expect("a session");
    let steps = steps(&text, release(server));
    assert!(!steps.is_empty(), "{session} has steps");
    let wrong: Vec<String> = steps.iter().filter_map(|step| step.play(place, server)).collect();
    assert!(wrong.is_empty(), "{session}, {}:\n{}", server.client.display(), wrong.join("\n"));
}

/// The minor release of a kubectl.
fn release(server: &Server) -> u32 {
    let said = server.kubectl("version --client -o json");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let minor = said["clientVersion"]["minor"].as_str().expect("a minor version");
    minor.trim_end_matches('+').parse().expect("a number")
}

#[derive(Debug, Default)]
struct Step {
    words: Vec<String>,
    again: bool,
    in_any_order: bool,
    code: i32,
    input: String,
    /// On standard output, then on standard error.
    expected: Vec<String>,
}

fn steps(text: &str, release: u32) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // Of a step that is another release's, nothing counts.
    let mut counts = false;
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (line, ours) = of_release(line, release);
        if let Some(command) = line.strip_prefix('$') {
            counts = ours;
            if ours {
                steps.push(Step::new(command));
            }
            continue;
        }
        let step = steps.last_mut().filter(|_| counts && ours);
        match (step, line.strip_prefix('|')) {
            (Some(step), Some(input)) => {
                step.input.push_str(input.strip_prefix(' ').unwrap_or(input));
                step.input.push('\n');
            }
            (Some(step), None) => step.expected.extend(match line.strip_prefix("! ") {
                Some(error) => lines(error, "! "),
                None => lines(line, ""),
            }),
            (None, _) => {}
        }
    }
    steps
}

/// A line without the releases that it is of, and whether this is one of them.
fn of_release(line: &str, release: u32) -> (&str, bool) {
    for (sign, since) in [("[<1.", false), ("[>=1.", true)] {
        let Some((number, rest)) = line.strip_prefix(sign).and_then(|rest| rest.split_once("] "))
        else {
            continue;
        };
        let number: u32 = number.parse().expect("a release");
        return (rest, (release >= number) == since);
    }
    (line, true)
}

impl Step {
    fn new(command: &str) -> Step {
        let (head, words) = command.split_once(' ').expect("words");
        let code = head.trim_start_matches(['~', '*']);
        Step {
            words: split(words),
            again: head.contains('~'),
            in_any_order: head.contains('*'),
            code: if code.is_empty() { 0 } else { code.parse().expect("an exit status") },
            ..Step::default()
        }
    }

    /// What it says instead of what is expected.
    fn play(&self, place: &Place, server: &Server) -> Option<String> {
        let end = Instant::now() + if self.again { PATIENCE } else { Duration::ZERO };
        let mut said = self.run(place, server);
        while !self.holds(&said) && Instant::now() < end {
            sleep(Duration::from_millis(100));
            said = self.run(place, server);
        }
        (!self.holds(&said)).then(|| self.differs(&said))
    }

    fn holds(&self, (code, said): &(Option<i32>, Vec<String>)) -> bool {
        if *code != Some(self.code) || said.len() != self.expected.len() {
            return false;
        }
        if !self.in_any_order {
            return self.expected.iter().zip(said).all(|(expected, said)| is(expected, said));
        }
        let mut left: Vec<&String> = said.iter().collect();
        self.expected.iter().all(|expected| {
            let at = left.iter().position(|said| is(expected, said));
            at.map(|at| left.swap_remove(at)).is_some()
        })
    }

    fn differs(&self, (code, said): &(Option<i32>, Vec<String>)) -> String {
        let mut told = format!("$ {} (status {code:?})", self.words.join(" "));
        for at in 0..said.len().max(self.expected.len()) {
            let (expected, said) = (self.expected.get(at), said.get(at));
            if !expected.zip(said).is_some_and(|(expected, said)| is(expected, said)) {
                told.push_str(&format!("\n  {said:?}\n  instead of {expected:?}"));
            }
        }
        told
    }

    fn run(&self, place: &Place, server: &Server) -> (Option<i32>, Vec<String>) {
        let (mut input, mut errors) = (self.input.clone().into_bytes(), Vec::new());
        let mut code = None;
        for words in self.words.split(|word| word == "|") {
            let first = words.iter().position(|word| !is_variable(word)).unwrap_or(words.len());
            let (variables, words) = words.split_at(first);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut command = server.command(&words);
            command.current_dir(&place.0);
            command.envs(variables.iter().filter_map(|one| one.split_once('=')));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut process = command.spawn().expect("kubectl starts");
            // One that does not read its input has no use for it.
            let _ = process.stdin.take().expect("a pipe").write_all(&input);
            let out = process.wait_with_output().expect("kubectl ends");
            (code, input) = (out.status.code(), out.stdout);
            errors.extend(out.stderr);
        }
        let mut said = lines(&String::from_utf8_lossy(&input), "");
        said.extend(lines(&String::from_utf8_lossy(&errors), "! "));
        (code, said)
    }
}

fn is_variable(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// A text's lines as they are compared, with a mark before each.
fn lines(text: &str, mark: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let line = |line: &str| {
        let line = line.replace('\t', "  ");
        let columns = line.trim().split("  ").filter(|column| !column.is_empty());
        let indent = &line[..line.len() - line.trim_start().len()];
        let columns: Vec<&str> = columns.map(str::trim).collect();
        format!("{mark}{indent}{}", columns.join("  "))
    };
    lines.map(line).collect()
}

/// Whether a line is what is expected.
fn is(expected: &str, said: &str) -> bool {
    let first = ANYTHING.iter().filter_map(|(word, of)| Some((expected.find(word)?, word, of)));
    let Some((at, word, of)) = first.min_by_key(|(at, ..)| *at) else { return expected == said };
    let rest = &expected[at + word.len()..];
    let Some(said) = said.strip_prefix(&expected[..at]) else { return false };
    let ends = said.char_indices().take_while(|(_, c)| of(*c)).map(|(at, c)| at + c.len_utf8());
    let may_be_empty = *word == "<ANY>";
    may_be_empty.then_some(0).into_iter().chain(ends).any(|end| is(rest, &said[end..]))
}

/// Words as a shell has them, but for what it expands.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn a_session_is_read_as_it_is_described() {
    let text = "# r\n$1 get 'a b' \"\" | apply\n| x: 1\n|\n[<1.30] old\n[>=1.30] new  <AGE>\n! no\n\
                [<1.30] $ gone\nsaid\n$~ get c\n$* get d\n1\n2\n";
    let steps = steps(text, 32);
    assert_eq!(steps.len(), 3);
    let said = |lines: &[&str]| (Some(0), lines.iter().map(ToString::to_string).collect());
    assert!(steps[2].holds(&said(&["2", "1"])) && !steps[2].holds(&said(&["1", "1"])));
    assert_eq!(steps[0].words, ["get", "a b", "", "|", "apply"]);
    assert_eq!((steps[0].code, steps[0].again, steps[1].again), (1, false, true));
    assert_eq!(steps[0].input, "x: 1\n\n");
    assert_eq!(steps[0].expected, ["new  <AGE>", "! no"]);
    assert!(is("new  <AGE>", "new  5m10s") && !is("new  <AGE>", "new  old"));
    assert!(is("<ANY>", "") && is("a <IP>:<NUMBER> b", "a 10.0.0.1:80 b") && !is("<IP>", ""));
    assert_eq!(lines("  a:\t b\n\n c   d e ", "! "), ["!   a:  b", "!  c  d e"]);
}
