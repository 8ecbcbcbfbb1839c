//! What a hook's command comes to in a container whose program is a model: there is nothing to run
//! it. `sleep` takes its time, `false` and `exit` have their codes, `true` and all that no model
//! knows succeed at once; `sh -c` does one after the other, as `;`, `&&` and `||` say. Quotes,
//! variables and pipes are not read.

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    pub takes: Duration,
    pub code: i32,
}

pub fn play(words: &[String]) -> Played {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match &words[..] {
        [shell, "-c", script, ..] if matches!(base(shell), "sh" | "bash" | "ash" | "dash") => {
            play_script(script)
        }
        words => step(words).0,
    }
}

fn play_script(text: &str) -> Played {
    let mut played = Played::default();
    let (mut rest, mut runs) = (text, true);
    loop {
        let found = [";", "\n", "&&", "||"].map(|mark| rest.find(mark).map(|at| (at, mark)));
        let next = found.into_iter().flatten().min_by_key(|(at, _)| *at);
        let words: Vec<_> =
            rest[..next.map_or(rest.len(), |(at, _)| at)].split_whitespace().collect();
        if runs && !words.is_empty() {
            let (one, exits) = step(&words);
            played = Played { takes: played.takes.saturating_add(one.takes), code: one.code };
            if exits {
                return played;
            }
        }
        let Some((at, mark)) = next else { return played };
        runs = match mark {
            "&&" => runs && played.code == 0,
            "||" => played.code != 0,
            _ => true,
        };
        rest = &rest[at + mark.len()..];
    }
}

/// One command, and whether it ends the shell.
fn step(words: &[&str]) -> (Played, bool) {
    let words =
        if words.first().is_some_and(|word| base(word) == "busybox") { &words[1..] } else { words };
    let (name, more) = words.split_first().map_or(("", words), |(name, more)| (base(name), more));
    let code = |code| Played { takes: Duration::ZERO, code };
    match name {
        "sleep" => match more.iter().map(|span| seconds(span)).sum::<Option<f64>>() {
            Some(all) if !more.is_empty() => {
                let takes = Duration::try_from_secs_f64(all).unwrap_or(Duration::MAX);
                (Played { takes, code: 0 }, false)
            }
            _ => (code(1), false),
        },
        "false" => (code(1), false),
        "exit" => (code(more.first().and_then(|code| code.parse().ok()).unwrap_or(0)), true),
        _ => (code(0), false),
    }
}

/// As GNU's and busybox' sleep read it: `0.5`, `15`, `2m`.
fn seconds(text: &str) -> Option<f64> {
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) if text.ends_with('s') => (number, 1.0),
        Some(number) if text.ends_with('m') => (number, 60.0),
        Some(number) if text.ends_with('h') => (number, 3600.0),
        Some(number) => (number, 86_400.0),
        None => (text, 1.0),
    };
    number.parse().ok().filter(|number: &f64| *number >= 0.0).map(|number| number * factor)
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(words: &[&str]) -> (u64, i32) {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let Played { takes, code } = play(&words);
        (takes.as_millis() as u64, code)
    }

    #[test]
    fn what_hooks_say_most_is_understood() {
        assert_eq!(played(&["sleep", "15"]), (15_000, 0));
        assert_eq!(played(&["/bin/sh", "-c", "busybox sleep 0.5; nginx -s quit"]), (500, 0));
        assert_eq!(played(&["sh", "-c", "sleep 1m && exit 3; sleep 1"]), (60_000, 3));
        assert_eq!(played(&["sh", "-c", "false || sleep 2"]), (2000, 0));
        assert_eq!(played(&["sh", "-c", "true || sleep 2"]), (0, 0));
        assert_eq!(played(&["sh", "-c", "false && sleep 2\nfalse"]), (0, 1));
        assert_eq!(played(&["sleep", "soon"]), (0, 1));
        assert_eq!(played(&["/bin/false"]), (0, 1));
        assert_eq!(played(&["/drain", "--all"]), (0, 0));
        assert_eq!(played(&[]), (0, 0));
    }
}
