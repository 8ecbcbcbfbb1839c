//! iptables' rules through one program that runs as long as its namespace: `iptables-restore`
//! carries out a table at each COMMIT and waits for more. With `--verbose` it repeats comments,
//! which tells how far it has come (iptables 1.8, iptables/iptables-restore.c and
//! xtables-restore.c).

use crate::fidelity::refusals;
use crate::fidelity::step::{CHAINS, Rules};
use crate::fidelity::words::built_in;
use kubesim_actors::ports::rules::text::{rule_line, table_name, write_rule};
use kubesim_actors::ports::rules::{Address, Rule, Table};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const TABLES: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];
/// Keeps a rule that needs conntrack, so that it is always at work.
const KEEP: &str = "KEEP";

/// Of iptables, or of ip6tables.
pub struct Tables<A: Address = Ipv4Addr> {
    /// Of the same family as the one that runs.
    single: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// How often it was waited for.
    turns: u64,
    /// By table.
    wanted: [Wanted<A>; 4],
}

/// What a table is to have before anything else happens.
struct Wanted<A: Address> {
    rules: Vec<(SmolStr, Rule<A>)>,
    drops: Vec<SmolStr>,
    /// What is to be written may differ from what was.
    changed: bool,
    /// As it was last written: to write costs some milliseconds with iptables-nft, so that
    /// cases with the same rules come one after the other.
    written: String,
    /// What the counters showed last, and when the case began.
    counted: Counts,
    before: Counts,
}

/// By chain and number.
type Counts = BTreeMap<(String, usize), u64>;

impl<A: Address> Default for Wanted<A> {
    fn default() -> Self {
        let (rules, drops, changed, written, counted, before) = Default::default();
        Wanted { rules, drops, changed, written, counted, before }
    }
}

impl<A: Address> Tables<A> {
    /// In the calling thread's network namespace.
    pub fn new(rules: Rules) -> Result<Self, String> {
        let backend = if rules == Rules::Nft { "nft" } else { "legacy" };
        let single = format!("{}-{backend}", A::PROGRAM);
        let program = format!("{single}-restore");
        let mut child = Command::new("stdbuf")
            // With a number of seconds to wait it sets an alarm and never takes it back, which
            // ends what it reads when nothing is to be done for so long (xtables_lock,
            // iptables/xshared.c).
            .args(["-oL", &program, "--verbose", "--noflush", "-w"])
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
        let mut tables = Tables { single, child, input, output, turns: 0, wanted };
        let mut all = String::new();
        for table in TABLES {
            let text = tables.wanted[table as usize].text(table);
            all += &text;
            tables.wanted[table as usize].written = text;
        }
        let keep = "-m conntrack --ctstate UNTRACKED";
        let _ = writeln!(all, "*raw\n:{KEEP} - [0:0]\n-A {KEEP} {keep}\nCOMMIT");
        // Both stay registered when their rules go.
        all += "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n*nat\n-F POSTROUTING\nCOMMIT\n";
        tables.play(&all)?;
        Ok(tables)
    }

    pub fn append(&mut self, table: Table, chain: &SmolStr, rule: &Rule<A>) {
        let wanted = &mut self.wanted[table as usize];
        wanted.rules.push((chain.clone(), rule.clone()));
        wanted.changed = true;
    }

    /// One command by a program of its own, whose refusal ends nothing; what came of it. All that
    /// was noted is written.
    pub fn attempt(
        &mut self,
        table: Table,
        chain: &SmolStr,
        rule: &Rule<A>,
    ) -> Result<String, String> {
        let command = format!("-w 5 -t {} {}", table_name(table), rule_line(chain, rule));
        let done = Command::new(&self.single).args(command.split_whitespace()).output();
        let done = done.map_err(|error| format!("running {}: {error}", self.single))?;
        if !done.status.success() {
            return Ok(refusals::outcome(Err(String::from_utf8_lossy(&done.stderr).into_owned())));
        }
        let wanted = &mut self.wanted[table as usize];
        wanted.rules.push((chain.clone(), rule.clone()));
        wanted.written = wanted.text(table);
        Ok(refusals::outcome(Ok(())))
    }

    pub fn drop_by_policy(&mut self, chain: &SmolStr) {
        let wanted = &mut self.wanted[Table::Filter as usize];
        wanted.drops.push(chain.clone());
        wanted.changed = true;
    }

    pub fn reset(&mut self) {
        for wanted in &mut self.wanted {
            wanted.changed = true;
            wanted.rules.clear();
            wanted.drops.clear();
            wanted.before = wanted.counted.clone();
        }
    }

    /// The rules that are there are written anew in the next case, whatever it wants, and count
    /// from nothing: nobody has read what they counted in this one.
    pub fn forget(&mut self) {
        let ruled = self.wanted.iter_mut().filter(|wanted| !wanted.rules.is_empty());
        ruled.for_each(|wanted| wanted.written.clear());
    }

    /// Writes what has changed, table by table. The counters of those begin anew.
    pub fn settle(&mut self) -> Result<(), String> {
        let mut all = String::new();
        for table in TABLES {
            let wanted = &mut self.wanted[table as usize];
            if !std::mem::take(&mut wanted.changed) {
                continue;
            }
            let text = wanted.text(table);
            if text != wanted.written {
                all += &text;
                wanted.written = text;
                (wanted.counted, wanted.before) = Default::default();
            }
        }
        if all.is_empty() { Ok(()) } else { self.play(&all).map(|_| ()) }
    }

    /// `nat PREROUTING 0: 3` for each rule of a case.
    pub fn counters(&mut self) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for table in TABLES {
            if self.wanted[table as usize].rules.is_empty() {
                continue;
            }
            let name = table_name(table);
            let lines = self.play(&format!("*{name}\n-S -v\nCOMMIT\n"))?;
            let mut counts = Counts::new();
            for (chain, packets) in lines.iter().filter_map(|line| counted(line)) {
                let number = counts.keys().filter(|(of, _)| of == chain).count();
                counts.insert((chain.to_owned(), number), packets);
            }
            let wanted = &mut self.wanted[table as usize];
            for ((chain, number), packets) in &counts {
                let before = wanted.before.get(&(chain.clone(), *number)).copied();
                let packets = packets - before.unwrap_or_default();
                found.push(format!("{name} {chain} {number}: {packets}"));
            }
            wanted.counted = counts;
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
        let how = self.child.wait().map_or_else(|error| error.to_string(), |how| how.to_string());
        format!("iptables-restore stopped ({how}) at\n{input}and said: {said}")
    }
}

impl<A: Address> Drop for Tables<A> {
    /// The program ends with its input.
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

impl<A: Address> Wanted<A> {
    /// As `iptables-restore` wants it.
    fn text(&self, table: Table) -> String {
        let mut text = format!("*{}\n", table_name(table));
        if table == Table::Filter {
            for chain in built_in(table) {
                let drop = self.drops.iter().any(|name| name == chain);
                let policy = if drop { "DROP" } else { "ACCEPT" };
                let _ = writeln!(text, ":{chain} {policy} [0:0]");
            }
        }
        text += &emptied(table);
        self.rules.iter().for_each(|(chain, rule)| write_rule(&mut text, chain, rule));
        text + "COMMIT\n"
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
fn counted(line: &str) -> Option<(&str, u64)> {
    let (chain, rest) = line.strip_prefix("-A ")?.split_once(' ')?;
    let mut words = rest.split(' ').skip_while(|word| *word != "-c").skip(1);
    (chain != KEEP).then_some((chain, words.next()?.parse().ok()?))
}
