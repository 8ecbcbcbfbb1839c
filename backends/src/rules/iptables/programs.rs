//! Runs `iptables-save` and `iptables-restore`.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a program may take. What it did by then is unknown.
const DEADLINE: Duration = Duration::from_secs(60);

/// The programs' names, as found on PATH. Both have to be of one backend: what `iptables-nft`
/// writes, `iptables-legacy` does not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    pub save: String,
    pub restore: String,
}

impl Default for Programs {
    /// Whatever backend the system has chosen.
    fn default() -> Self {
        Programs { save: "iptables-save".into(), restore: "iptables-restore".into() }
    }
}

impl Programs {
    /// Those of one backend: `nft` or `legacy`.
    pub fn of_backend(backend: &str) -> Self {
        let named = |what: &str| format!("iptables-{backend}-{what}");
        Programs { save: named("save"), restore: named("restore") }
    }

    /// All rules with their counters.
    pub(super) async fn save(&self) -> Result<String, String> {
        let output = run(&self.save, &["-c"], "").await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} failed ({}): {}", self.save, output.status, said.trim()));
        }
        String::from_utf8(output.stdout).map_err(|_| format!("{} wrote no UTF-8", self.save))
    }

    /// Carries out a change: each table's part at its `COMMIT`, all of it or nothing. The error
    /// has the line that failed and what was said about it.
    pub(super) async fn restore(&self, input: &str) -> Result<(), String> {
        // The lock of iptables-legacy is one for the whole machine (/run/xtables.lock): wait.
        let arguments = ["--noflush", "--counters", "--wait", "5"];
        let output = run(&self.restore, &arguments, input).await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = failing_line(input, &said).map_or(String::new(), |line| format!(": {line}"));
        Err(format!("{} refused{line}: {}", self.restore, brief(&said)))
    }
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output, String> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; install iptables, or name the program by its path",
            _ => "",
        };
        format!("{program} could not be run: {error}{hint}")
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take();
    let write = async move {
        if let Some(stdin) = &mut stdin {
            // A program that has seen enough closes its end; what it says is what counts.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    match tokio::time::timeout(DEADLINE, both).await {
        Ok(output) => output.map_err(failed),
        Err(_) => Err(format!(
            "{program} was stopped after {} s, and what it did by then is unknown; is \
             /run/xtables.lock held by another program?",
            DEADLINE.as_secs()
        )),
    }
}

/// Without the usage hint.
fn brief(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("Try `")).collect::<Vec<_>>().join(" ")
}

/// The line of the input that `iptables-restore` complains about. Both backends check that a
/// jump's target exists only at the end of the table, so its name leads to the line then.
fn failing_line<'a>(input: &'a str, said: &str) -> Option<&'a str> {
    let number = ["Error occurred at line: ", "line "].into_iter().find_map(|before| {
        let (_, after) = said.split_once(before)?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    })?;
    let named = input.lines().nth(number.checked_sub(1)?)?;
    if !named.starts_with("COMMIT") {
        return Some(named);
    }
    let name = said.split(['`', '\'']).nth(1).unwrap_or_default();
    let jumps = |line: &str, flag: &str| line.ends_with(&format!(" {flag} {name}"));
    let before = input.lines().take(number);
    let mut culprits = before.filter(|line| jumps(line, "-j") || jumps(line, "-g"));
    culprits.next().or(Some(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str = "*filter\n:A - [0:0]\n-A A -j C\nCOMMIT\n";

    /// As iptables 1.8.9 of Debian 12 says it.
    #[test]
    fn the_failing_line_is_found() {
        let nft = "iptables-nft-restore v1.8.9 (nf_tables): Chain 'C' does not exist\n\
                   Error occurred at line: 4\nTry `iptables-nft-restore -h' or more.\n";
        let legacy = "iptables-restore v1.8.9 (legacy): Couldn't load target `C':No such file or \
                      directory\n\nError occurred at line: 3\nTry `iptables-restore -h'\n";
        let late = "iptables-nft-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed (Invalid \
                    argument): rule in chain A\n";
        for said in [nft, legacy, late] {
            assert_eq!(failing_line(INPUT, said), Some("-A A -j C"), "{said}");
        }
        assert_eq!(failing_line(INPUT, "iptables-restore: line 4 failed\n"), Some("COMMIT"));
        assert_eq!(failing_line(INPUT, "what?"), None);
        assert_eq!(failing_line(INPUT, "line 99 failed"), None);
        assert!(brief(nft).ends_with("Error occurred at line: 4"));
    }
}
