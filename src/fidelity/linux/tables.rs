//! iptables' rules through one program that runs as long as its namespace: `iptables-restore`
//! carries out a table at each COMMIT and waits for more. With `--verbose` it repeats comments,
//! which tells how far it has come (iptables 1.8, iptables/iptables-restore.c and
//! xtables-restore.c).

use crate::fidelity::step::{CHAINS, Rules};
use crate::fidelity::words::built_in;
use kubesim_actors::ports::rules::text::{table_name, write_rule};
use kubesim_actors::ports::rules::{Rule, Table};
use smol_str::SmolStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];
/// Keeps a rule that needs conntrack, so that it is always at work.
const KEEP: &str = "KEEP";

pub struct Tables {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// How often it was waited for.
    turns: u64,
    /// Rules that are to be there before anything else happens, by table.
    wanted: [Wanted; 4],
}

#[derive(Default)]
struct Wanted {
    rules: Vec<(SmolStr, Rule)>,
    drops: Vec<SmolStr>,
    /// Not yet written.
    changed: bool,
    /// Not empty.
    used: bool,
}

impl Tables {
    /// In the calling thread's network namespace.
    pub fn new(rules: Rules) -> Result<Tables, String> {
        let program = match rules {
            Rules::Legacy => "iptables-legacy-restore",
            Rules::Nft => "iptables-nft-restore",
        };
        let mut child = Command::new("stdbuf")
            .args(["-oL", program, "--verbose", "--noflush", "-w", "5"])
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                format!("needs {program} and stdbuf (Debian: iptables, coreutils): {error}")
            })?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("a program without an output")?;
        let output = BufReader::new(output);
        let wanted = Default::default();
        let mut tables = Tables { child, input, output, turns: 0, wanted };
        let mut all = String::new();
        for table in TABLES {
            let _ = writeln!(all, "*{}\n{}COMMIT", table_name(table), emptied(table));
        }
        let keep = "-m conntrack --ctstate UNTRACKED";
        let _ = writeln!(all, "*raw\n:{KEEP} - [0:0]\n-A {KEEP} {keep}\nCOMMIT");
        // Both stay registered when their rules go.
        all += "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n*nat\n-F POSTROUTING\nCOMMIT\n";
        tables.play(&all)?;
        Ok(tables)
    }

    pub fn append(&mut self, table: Table, chain: &SmolStr, rule: &Rule) {
        let wanted = &mut self.wanted[table as usize];
        wanted.rules.push((chain.clone(), rule.clone()));
        wanted.changed = true;
    }

    pub fn drop_by_policy(&mut self, chain: &SmolStr) {
        let wanted = &mut self.wanted[Table::Filter as usize];
        wanted.drops.push(chain.clone());
        wanted.changed = true;
    }

    pub fn reset(&mut self) {
        for wanted in &mut self.wanted {
            wanted.changed = wanted.used;
            wanted.rules.clear();
            wanted.drops.clear();
        }
    }

    /// Writes what was changed, table by table. The counters of those begin anew.
    pub fn settle(&mut self) -> Result<(), String> {
        let mut all = String::new();
        for table in TABLES {
            let wanted = &mut self.wanted[table as usize];
            if !std::mem::take(&mut wanted.changed) {
                continue;
            }
            wanted.used = !wanted.rules.is_empty() || !wanted.drops.is_empty();
            let _ = writeln!(all, "*{}", table_name(table));
            if table == Table::Filter {
                for chain in ["INPUT", "FORWARD", "OUTPUT"] {
                    let drop = wanted.drops.iter().any(|name| name == chain);
                    let policy = if drop { "DROP" } else { "ACCEPT" };
                    let _ = writeln!(all, ":{chain} {policy} [0:0]");
                }
            }
            all += &emptied(table);
            wanted.rules.iter().for_each(|(chain, rule)| write_rule(&mut all, chain, rule));
            all += "COMMIT\n";
        }
        if all.is_empty() { Ok(()) } else { self.play(&all).map(|_| ()) }
    }

    /// `nat PREROUTING 0: 3` for each rule of a case, by table and chain.
    pub fn counters(&mut self) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for table in TABLES {
            if !self.wanted[table as usize].used {
                continue;
            }
            let name = table_name(table);
            let lines = self.play(&format!("*{name}\n-S -v\nCOMMIT\n"))?;
            let (mut chain, mut number) = (String::new(), 0);
            for line in &lines {
                let Some((of, packets)) = counted(line).filter(|(of, _)| *of != KEEP) else {
                    continue;
                };
                number = if chain == of { number + 1 } else { 0 };
                chain = of.to_owned();
                found.push(format!("{name} {chain} {number}: {packets}"));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// What the program prints to this.
    fn play(&mut self, input: &str) -> Result<Vec<String>, String> {
        self.turns += 1;
        let mark = format!("# turn {}", self.turns);
        let input = format!("{input}{mark}\n");
        let Some(pipe) = &mut self.input else { return Err("iptables-restore is gone".into()) };
        // What it says when it stops tells more than a broken pipe.
        let _ = pipe.write_all(input.as_bytes()).and_then(|()| pipe.flush());
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match self.output.read_line(&mut line) {
                Ok(0) | Err(_) => return Err(self.last_words(&input)),
                Ok(_) => {}
            }
            let line = line.trim_end();
            if line == mark {
                return Ok(lines);
            }
            lines.push(line.to_owned());
        }
    }

    fn last_words(&mut self, input: &str) -> String {
        self.input = None;
        let mut said = String::new();
        if let Some(mut error) = self.child.stderr.take() {
            // There is nothing more to say if it cannot be read.
            let _ = error.read_to_string(&mut said);
        }
        format!("iptables-restore stopped at\n{input}and said: {said}")
    }
}

impl Drop for Tables {
    /// The program ends with its input.
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The built-in chains without rules, and those of [`CHAINS`], which a line of their own empties.
fn emptied(table: Table) -> String {
    let mut text = String::new();
    for chain in CHAINS {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    for chain in built_in(table) {
        let _ = writeln!(text, "-F {chain}");
    }
    text
}

/// The chain and the packets in `-A CHAIN … -c PACKETS BYTES …`.
fn counted(line: &str) -> Option<(&str, &str)> {
    let (chain, rest) = line.strip_prefix("-A ")?.split_once(' ')?;
    let words: Vec<&str> = rest.split(' ').collect();
    let at = words.iter().position(|word| *word == "-c")?;
    Some((chain, words.get(at + 1)?))
}
