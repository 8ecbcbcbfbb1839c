//! iptables' own words into rules.

use super::text::{addr_type_name, protocol_word, quoted};
use super::{AddrType, Address, CtStates, Match, Protocol, Rule, Target};
use smol_str::SmolStr;
use std::str::FromStr;

/// Reads `-A CHAIN …` as `iptables-save` prints it (and the common ways in which people write
/// it). Gives the chain and the rule; the error names the word that was not understood.
pub fn parse_rule(line: &str) -> Result<(SmolStr, Rule), String> {
    let words = split(line)?;
    match words.split_first() {
        Some((first, rest)) if first == "-A" || first == "--append" => {
            let (chain, rest) = rest.split_first().ok_or("-A wants a chain")?;
            Ok((chain.into(), rule_of(rest)?))
        }
        _ => Err(format!("a rule begins with -A, not: {line}")),
    }
}

/// The rule in the words that follow the chain's name.
pub fn rule_of<A: Address>(words: &[String]) -> Result<Rule<A>, String> {
    Words::new(words).rule()
}

/// Reads a line of somebody else: what no [`Match`] or [`Target`] says is kept word for word as
/// [`Match::Other`] or [`Target::Other`]. `is_chain` tells the table's own chains from targets.
/// An error only where the line is no `-A CHAIN …` at all.
pub fn parse_foreign(
    line: &str,
    is_chain: &dyn Fn(&str) -> bool,
) -> Result<(SmolStr, Rule), String> {
    let words = split(line)?;
    let [verb, chain, rest @ ..] = &words[..] else {
        return Err(format!("a rule begins with -A and a chain, not: {line}"));
    };
    if verb != "-A" {
        return Err(format!("a rule begins with -A, not: {line}"));
    }
    let mut rule = Rule { matches: Vec::new(), target: Target::None };
    let mut rest = rest;
    while !rest.is_empty() {
        let (group, tail) = rest.split_at(group_length(rest));
        rest = tail;
        match (group, rule_of(group)) {
            ([flag, name, ..], known) if flag == "-j" => {
                rule.target = match known {
                    Ok(Rule { target: Target::Jump(to), .. }) if is_chain(name) => Target::Jump(to),
                    Ok(Rule { target, .. }) if !matches!(target, Target::Jump(_)) => target,
                    _ => Target::Other(joined(&group[1..])),
                };
            }
            (_, Ok(known)) => {
                rule.matches.extend(known.matches);
                if known.target != Target::None {
                    rule.target = known.target;
                }
            }
            _ => rule.matches.push(Match::Other(joined(group))),
        }
    }
    Ok((chain.into(), rule))
}

/// How many words belong together: a header field, or a module or target with its options.
fn group_length(words: &[String]) -> usize {
    let begins = |words: &[String]| {
        let at = usize::from(words.first().is_some_and(|word| word == "!"));
        let first = words.get(at).map(String::as_str).unwrap_or_default();
        let field = ["-s", "-d", "-i", "-o", "-p", "-f"].contains(&first);
        field || at == 0 && ["-m", "-j", "-g"].contains(&first)
    };
    // The text of a comment may look like anything.
    let fixed =
        if matches!(words, [m, name, ..] if m == "-m" && name == "comment") { 4 } else { 1 };
    let rest = fixed + usize::from(words[0] == "!");
    (rest..words.len()).find(|at| begins(&words[*at..])).unwrap_or(words.len())
}

/// Words as they were written: quoted where they have to be.
fn joined(words: &[String]) -> SmolStr {
    let plain = |word: &str| !word.is_empty() && !word.contains([' ', '\t', '"', '\'', '\\']);
    let word = |word: &String| if plain(word) { word.clone() } else { quoted(word) };
    words.iter().map(word).collect::<Vec<_>>().join(" ").into()
}

/// Words, with `"…"` kept together and `\` as in a shell.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted, mut started) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => (quoted, started) = (!quoted, true),
            '\\' => {
                word.push(chars.next().ok_or("ends in a backslash")?);
                started = true;
            }
            c if c.is_whitespace() && !quoted => {
                if std::mem::take(&mut started) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if quoted {
        return Err(format!("a quote is not closed: {line}"));
    }
    if started {
        words.push(word);
    }
    Ok(words)
}

struct Words<'a, A: Address> {
    rest: &'a [String],
    /// A `!` stands before the option at hand.
    not: bool,
    matches: Vec<Match<A>>,
    target: Target<A>,
}

impl<'a, A: Address> Words<'a, A> {
    fn new(rest: &'a [String]) -> Self {
        Words { rest, not: false, matches: Vec::new(), target: Target::None }
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.next().ok_or_else(|| format!("option \"{option}\" requires an argument"))
    }

    fn parsed<T: FromStr>(&mut self, option: &str) -> Result<T, String> {
        let word = self.value(option)?;
        word.parse().map_err(|_| format!("bad value for {option}: {word}"))
    }

    fn rule(mut self) -> Result<Rule<A>, String> {
        while let Some(word) = self.next() {
            if word == "!" {
                self.not = true;
                continue;
            }
            let negatable = self.option(word)?;
            if std::mem::take(&mut self.not) && !negatable {
                return Err(format!("\"{word}\" cannot be negated"));
            }
        }
        Ok(Rule { matches: self.matches, target: self.target })
    }

    /// One option with its values. Says whether it may be negated.
    fn option(&mut self, option: &str) -> Result<bool, String> {
        let not = self.not;
        let found = match option {
            "-s" | "--source" | "--src" => Match::Source { net: self.net(option)?, not },
            "-d" | "--destination" | "--dst" => Match::Destination { net: self.net(option)?, not },
            "-i" | "--in-interface" => Match::InInterface { name: self.value(option)?.into(), not },
            "-o" | "--out-interface" => {
                Match::OutInterface { name: self.value(option)?.into(), not }
            }
            "-p" | "--protocol" => match self.value(option)? {
                "all" => return Ok(false),
                name => Match::Protocol { is: protocol::<A>(name)?, not },
            },
            "--sport" | "--source-port" => {
                let (from, to) = ports(self.value(option)?)?;
                Match::SourcePort { from, to, not }
            }
            "--dport" | "--destination-port" => {
                let (from, to) = ports(self.value(option)?)?;
                Match::DestinationPort { from, to, not }
            }
            "--mark" => {
                let (value, mask) = masked(self.value(option)?)?;
                Match::Mark { value, mask: mask.unwrap_or(u32::MAX), not }
            }
            "--src-type" => Match::SourceType { is: addr_type(self.value(option)?)?, not },
            "--dst-type" => Match::DestinationType { is: addr_type(self.value(option)?)?, not },
            "--physdev-is-in" => Match::PhysdevIsIn { not },
            "--ctstate" if !not && self.rest.first().is_some_and(|word| word == "DNAT") => {
                self.rest = &self.rest[1..];
                self.matches.push(Match::CtDnat);
                return Ok(false);
            }
            "--ctstate" | "--state" => Match::CtState { any: states(self.value(option)?)?, not },
            _ => return self.plain_option(option).map(|()| false),
        };
        self.matches.push(found);
        Ok(true)
    }

    fn plain_option(&mut self, option: &str) -> Result<(), String> {
        match option {
            "-m" | "--match" => self.module(),
            "-j" | "--jump" => self.target(),
            "-g" | "--goto" => {
                self.target = Target::Goto(self.value(option)?.into());
                Ok(())
            }
            "--comment" => {
                let comment = self.value(option)?.into();
                self.matches.push(Match::Comment(comment));
                Ok(())
            }
            other => Err(format!("unknown option \"{other}\"")),
        }
    }

    fn module(&mut self) -> Result<(), String> {
        match self.value("-m")? {
            "comment" | "tcp" | "udp" | "sctp" | "mark" | "addrtype" | "physdev" | "conntrack"
            | "state" => Ok(()),
            module if module == A::ICMP_MODULE => Ok(()),
            "statistic" => self.statistic(),
            "recent" => self.recent(),
            other => Err(format!("Couldn't load match `{other}':No such file or directory")),
        }
    }

    fn statistic(&mut self) -> Result<(), String> {
        let mut probability = None;
        while let Some(option) = self.peek_of(&["--mode", "--probability"]) {
            if option == "--mode" {
                let mode = self.value(option)?;
                if mode != "random" {
                    return Err(format!("statistic mode {mode} is not supported"));
                }
            } else {
                probability = Some(self.parsed::<f64>(option)?);
            }
        }
        let p = probability.ok_or("statistic wants --probability")?;
        if !(0.0..=1.0).contains(&p) {
            return Err(format!("--probability must be between 0 and 1, not {p}"));
        }
        let probability = (p * f64::from(1u32 << 31)).round() as u32;
        self.matches.push(Match::Random { probability });
        Ok(())
    }

    fn recent(&mut self) -> Result<(), String> {
        let options = ["--rcheck", "--set", "--reap", "--rsource", "--seconds", "--name", "--mask"];
        let (mut set, mut check, mut reap) = (false, false, false);
        let (mut seconds, mut name) = (None, SmolStr::new("DEFAULT"));
        while let Some(option) = self.peek_of(&options) {
            match option {
                "--rcheck" => check = true,
                "--set" => set = true,
                "--reap" => reap = true,
                "--seconds" => seconds = Some(self.parsed(option)?),
                "--name" => name = self.value(option)?.into(),
                "--mask" => {
                    let mask = self.value(option)?;
                    if mask.parse().ok() != Some(A::WHOLE) {
                        return Err(format!("recent --mask {mask} is not supported"));
                    }
                }
                _ => {}
            }
        }
        self.matches.push(match (set, check, seconds) {
            (true, false, None) => Match::RecentSet { name },
            (false, true, Some(seconds)) if reap => Match::RecentCheck { name, seconds },
            _ => return Err("recent: only --set, and --rcheck --seconds s --reap".into()),
        });
        Ok(())
    }

    /// The next word, taken, if it is one of these.
    fn peek_of(&mut self, options: &[&'static str]) -> Option<&'static str> {
        let first = self.rest.first()?;
        let found = options.iter().find(|option| *option == first)?;
        self.rest = &self.rest[1..];
        Some(found)
    }

    fn target(&mut self) -> Result<(), String> {
        self.target = match self.value("-j")? {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => self.reject()?,
            "DNAT" => {
                self.expect("DNAT", "--to-destination")?;
                let (to, port) = A::split_port(self.value("--to-destination")?);
                let port = port.map(ports).transpose()?.map(|(first, _)| first);
                Target::Dnat { to: address(to)?, port }
            }
            "SNAT" => {
                self.expect("SNAT", "--to-source")?;
                Target::Snat { to: address(self.value("--to-source")?)? }
            }
            "MASQUERADE" => {
                let random_fully = self.peek_of(&["--random-fully"]).is_some();
                Target::Masquerade { random_fully }
            }
            "MARK" => self.mark()?,
            "CT" => {
                self.expect("CT", "--notrack")?;
                Target::NoTrack
            }
            "NOTRACK" => Target::NoTrack,
            chain => Target::Jump(chain.into()),
        };
        Ok(())
    }

    fn expect(&mut self, target: &str, option: &'static str) -> Result<(), String> {
        self.peek_of(&[option]).map(|_| ()).ok_or_else(|| format!("{target} wants {option}"))
    }

    fn reject(&mut self) -> Result<Target<A>, String> {
        let name = match self.peek_of(&["--reject-with"]) {
            Some(option) => self.value(option)?,
            None => return Ok(Target::Reject(A::REJECTS[0].0)),
        };
        let with = A::REJECTS.iter().find(|(_, known)| *known == name);
        let with = with.ok_or_else(|| format!("unknown reject type \"{name}\""))?;
        Ok(Target::Reject(with.0))
    }

    /// The five ways to say a mark (libxt_MARK.c).
    fn mark(&mut self) -> Result<Target<A>, String> {
        let options = ["--set-xmark", "--set-mark", "--or-mark", "--and-mark", "--xor-mark"];
        let option = self.peek_of(&options).ok_or("MARK wants --set-xmark")?;
        let (value, mask) = masked(self.value(option)?)?;
        let (value, mask) = match option {
            "--set-xmark" => (value, mask.unwrap_or(u32::MAX)),
            "--set-mark" => (value, mask.unwrap_or(u32::MAX) | value),
            "--or-mark" => (value, value),
            "--and-mark" => (0, !value),
            _ => (value, 0),
        };
        Ok(Target::Mark { value, mask })
    }

    fn net(&mut self, option: &str) -> Result<A::Net, String> {
        let word = self.value(option)?;
        A::read_net(word).ok_or_else(|| format!("host/network `{word}' not found"))
    }
}

fn address<A: Address>(word: &str) -> Result<A, String> {
    word.parse().map_err(|_| format!("Bad IP address \"{word}\""))
}

fn protocol<A: Address>(name: &str) -> Result<Protocol, String> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];
    let found = all.into_iter().find(|protocol| protocol_word::<A>(*protocol) == name);
    found.ok_or_else(|| format!("unknown protocol \"{name}\" specified"))
}

fn addr_type(name: &str) -> Result<AddrType, String> {
    let all = [AddrType::Local, AddrType::Unicast, AddrType::Broadcast, AddrType::Multicast];
    let found = all.into_iter().find(|is| addr_type_name(*is) == name);
    found.ok_or_else(|| format!("addrtype: bad type `{name}'"))
}

fn ports(word: &str) -> Result<(u16, u16), String> {
    let bad = |_| format!("invalid port/service `{word}' specified");
    match word.split_once(':') {
        Some((from, to)) => {
            let from = if from.is_empty() { 0 } else { from.parse().map_err(bad)? };
            let to = if to.is_empty() { u16::MAX } else { to.parse().map_err(bad)? };
            Ok((from, to))
        }
        None => word.parse().map(|port| (port, port)).map_err(bad),
    }
}

/// `value[/mask]`, decimal or `0x…`.
fn masked(word: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| {
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => text.parse(),
        };
        parsed.map_err(|_| format!("bad mark \"{word}\""))
    };
    match word.split_once('/') {
        Some((value, mask)) => Ok((number(value)?, Some(number(mask)?))),
        None => Ok((number(word)?, None)),
    }
}

fn states(words: &str) -> Result<CtStates, String> {
    let mut any = CtStates::default();
    for word in words.split(',') {
        match word {
            "NEW" => any.new = true,
            "ESTABLISHED" => any.established = true,
            "RELATED" => any.related = true,
            "INVALID" => any.invalid = true,
            "UNTRACKED" => any.untracked = true,
            other => return Err(format!("Bad ctstate \"{other}\"")),
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::super::text::rule_line;
    use super::*;

    /// Lines of dockerd, ufw, firewalld and kubelet, as `iptables-save` prints them.
    #[test]
    fn foreign_lines_come_back_as_they_were() {
        let lines = [
            "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "-A X -p gre -j ACCEPT",
            "-A X ! -p esp -m policy --dir in --pol none -j DROP",
            "-A X -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"",
            "-A X -m comment --comment \"-j DROP\" -m set --match-set bad src -j SET --add-set b src",
            "-A X -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
            "-A X -p tcp -m multiport ! --dports 80,443 -j REJECT --reject-with tcp-reset",
            "-A X -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
            "-A X -m addrtype --dst-type LOCAL --limit-iface-in -j FRIEND",
            "-A X -d 10.0.0.1/32 -j DNAT --to-destination 10.0.0.2-10.0.0.9 --persistent",
            "-A X -g FRIEND",
            "-A X -j NFQUEUE --queue-num 0",
            "-A X -j TRACE",
        ];
        for line in lines {
            let (chain, rule) = parse_foreign(line, &|name| name == "FRIEND").expect(line);
            assert_eq!(rule_line(&chain, &rule), line);
        }
    }

    #[test]
    fn what_has_a_name_is_not_kept_as_words() {
        let parsed = |line: &str| parse_foreign(line, &|name| name == "FRIEND").expect(line).1;
        let line = "-A X -s 10.0.0.0/8 -m limit --limit 1/s -m mark --mark 0x1/0x1 -j FRIEND";
        let rule = parsed(line);
        let net = "10.0.0.0/8".parse().expect("a network");
        let wanted = [
            Match::Source { net, not: false },
            Match::Other("-m limit --limit 1/s".into()),
            Match::Mark { value: 1, mask: 1, not: false },
        ];
        assert_eq!((&rule.matches[..], rule.target), (&wanted[..], Target::Jump("FRIEND".into())));
        assert_eq!(parsed("-A X -j FRIENDLESS").target, Target::Other("FRIENDLESS".into()));
        assert_eq!(parsed("-A X -j DROP").target, Target::Drop);
        assert!(parse_foreign("-N X", &|_| false).is_err());
    }
}
