//! Tracked connections, out of what `conntrack -L` prints: the model's words, `/proc`'s and the
//! program's differ in their beginning only.

use super::mask::{ANY_NODE, Mask, without};
use kubesim_sim::world::api;
use std::fs;
use std::path::Path;

/// Of the calling thread's network namespace (nf_conntrack_standalone.c); there is none where the
/// kernel was built without it.
const PROC: &str = "/proc/thread-self/net/nf_conntrack";

/// Of the calling thread's network namespace, as the model prints its own.
pub fn real() -> Result<Vec<String>, String> {
    let text = match Path::new(PROC).exists() {
        true => fs::read_to_string(PROC).map_err(|error| format!("reading {PROC}: {error}"))?,
        false => super::tables::said("conntrack", "-L")?,
    };
    Ok(lines(&text))
}

/// What two runs of a scenario have in common of each connection: who asked whom for what, and who
/// answers to whom. Sorted, and those that are alike once.
///
/// Left out are
/// - the client's port and an echo's id, which are dice's or a count of sockets;
/// - the timeout, the state of TCP and `[ASSURED]`, which tell how long ago something was said;
/// - how many are alike: one connection of the past stays for as long as its timeout, so that
///   tells how often somebody asked within some seconds of real time;
/// - a connection that was never answered: it stays 30 s, and whether it came to be depends on who
///   was there first;
/// - what a machine says to itself: the programs of a node share one connection to the API in the
///   simulator, and have one each in the lab.
///
/// A connection that was heard of by an answer first is older than the first rule here, which comes
/// some milliseconds sooner or later, and from when on it is tracked: who answers was asked.
pub fn lines(text: &str) -> Vec<String> {
    alike(text.lines().filter_map(line))
}

/// What a node's connections have in common with another run's.
#[derive(Debug, Default, PartialEq)]
pub struct Masked {
    /// Those that the node has.
    pub here: Vec<String>,
    /// Those of an endpoint that dice chose, as the node has them where it is: they are on one
    /// node or another.
    pub chosen: Vec<String>,
}

/// Without what else dice decide: which of several pods of one owner asked or was asked, on which
/// node the endpoint is that a Service's client got, and whatever a pod has to do with that may be
/// on any node, or was and is gone: where its connections are seen follows from where it is.
///
/// And without those to the API: of a node's programs one or each has its own, made before the
/// first rule or after it.
pub fn masked(mask: &Mask, lines: Vec<String>) -> Masked {
    let to_the_api = format!(":{}: ", api::PORT);
    let is_dices = |line: &String| {
        line.contains(ANY_NODE) || Mask::is_of_the_gone(line) || line.contains(&to_the_api)
    };
    let (mut here, mut chosen) = (Vec::new(), Vec::new());
    for line in mask.lines(lines).iter().filter(|line| !is_dices(line)) {
        let line = without(line, '#');
        match Parts::of(&line) {
            Some(parts) if parts.is_served(mask) => {
                here.push(parts.anywhere());
                chosen.extend(mask.endpoints.contains(parts.answers).then(|| parts.behind()));
            }
            Some(parts) if mask.endpoints.contains(parts.asked) => chosen.push(parts.anywhere()),
            _ => here.push(line),
        }
    }
    Masked { here: alike(here.into_iter()), chosen: alike(chosen.into_iter()) }
}

/// `tcp SRC asks ASKED: ANSWERS answers to TO`
struct Parts<'a> {
    head: &'a str,
    asked: &'a str,
    answers: &'a str,
    to: &'a str,
}

impl<'a> Parts<'a> {
    fn of(line: &'a str) -> Option<Parts<'a>> {
        let (head, rest) = line.split_once(" asks ")?;
        let (asked, rest) = rest.split_once(": ")?;
        let (answers, to) = rest.split_once(" answers to ")?;
        Some(Parts { head, asked, answers, to })
    }

    /// A Service was asked, and one of its endpoints answers.
    fn is_served(&self, mask: &Mask) -> bool {
        let translated = self.asked != self.answers && mask.endpoints.contains(self.answers);
        translated || self.asked.starts_with("<address of Service")
    }

    /// Whatever node the endpoint is on.
    fn anywhere(&self) -> String {
        let own =
            |asked: &str| if asked == self.answers { without(asked, '@') } else { asked.into() };
        let (asked, answers) = (own(self.asked), without(self.answers, '@'));
        format!("{} asks {asked}: {answers} answers to {}", self.head, self.to)
    }

    /// As the endpoint's node has a connection that its client's node has so.
    fn behind(&self) -> String {
        let family = if self.head.starts_with("ipv6 ") { "ipv6 " } else { "" };
        let protocol = self.head[family.len()..].split(' ').next().unwrap_or_default();
        let (to, answers) = (self.to, without(self.answers, '@'));
        format!("{family}{protocol} {to} asks {answers}: {answers} answers to {to}")
    }
}

fn alike(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = lines.collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn line(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    // `/proc` begins with the network's protocol and its number.
    let first = words.next()?;
    let protocol = match first {
        "ipv4" | "ipv6" => words.nth(1)?,
        other => other,
    };
    let family = if first == "ipv6" { "ipv6 " } else { "" };
    if text.contains("[UNREPLIED]") {
        return None;
    }
    let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
    let all = |name: &str| -> Vec<&str> {
        pairs.clone().filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
    };
    let ends = (all("src"), all("dst"));
    let ([src, answers], [dst, to]) = (&ends.0[..], &ends.1[..]) else { return None };
    if src == dst || src.starts_with("127.") {
        return None;
    }
    let asked = match (&all("dport")[..], &all("sport")[..], &all("type")[..]) {
        ([port, _], [from, _], _) if is_chosen(port) && !is_chosen(from) => {
            let asked = format!("{src}:{from}");
            return Some(format!(
                "{family}{protocol} {dst} asks {asked}: {asked} answers to {dst}"
            ));
        }
        ([port, _], [_, from], _) => (format!(":{port}"), format!(":{from}")),
        (_, _, [kind, _]) => (format!(" type {kind}"), String::new()),
        _ => Default::default(),
    };
    let (asked, from) = asked;
    Some(format!("{family}{protocol} {src} asks {dst}{asked}: {answers}{from} answers to {to}"))
}

/// A port that a machine chose (`ip_local_port_range`) or the cluster's DNS: nobody is asked there.
fn is_chosen(port: &str) -> bool {
    port.parse().is_ok_and(|port: u16| port >= 32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_who_asks_whom_and_who_answers() {
        let ends = "src=10.244.1.2 dst=10.96.0.80 sport=40000 dport=80 \
                    src=10.244.2.2 dst=10.244.1.2 sport=8080 dport=40000";
        let proc = format!("ipv4     2 tcp      6 117 TIME_WAIT {ends} [ASSURED] mark=0 use=2");
        let program = format!("tcp      6 431999 ESTABLISHED {ends} [ASSURED] mark=0 use=1");
        let told = "tcp 10.244.1.2 asks 10.96.0.80:80: 10.244.2.2:8080 answers to 10.244.1.2";
        assert_eq!(lines(&format!("{proc}\n{program}\n")), [told]);
    }

    #[test]
    fn an_echo_has_no_ports_and_six_is_said() {
        let echo = "icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 \
                    src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 mark=0 use=1";
        assert_eq!(
            lines(echo),
            ["icmp 10.0.0.1 asks 10.0.0.2 type 8: 10.0.0.2 answers to 10.0.0.1"]
        );
        let six =
            "ipv6 10 udp 17 29 src=::1 dst=::2 sport=1 dport=2 src=::2 dst=::1 sport=2 dport=1";
        assert_eq!(lines(six), ["ipv6 udp ::1 asks ::2:2: ::2:2 answers to ::1"]);
        let alone = "udp 17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] \
                     src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1";
        assert_eq!(lines(alone), [""; 0]);
        let older = "tcp 6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=6443 dport=40000 \
                     src=10.0.0.2 dst=10.0.0.1 sport=40000 dport=6443 [ASSURED]";
        let told = "tcp 10.0.0.2 asks 10.0.0.1:6443: 10.0.0.1:6443 answers to 10.0.0.2";
        assert_eq!(lines(older), [told]);
        let itself = "udp 17 29 src=127.0.0.1 dst=127.0.0.1 sport=1 dport=2 \
                      src=127.0.0.1 dst=127.0.0.1 sport=2 dport=1";
        assert_eq!(lines(itself), [""; 0]);
    }

    #[test]
    fn which_of_several_pods_it_was_is_no_difference() {
        let to = |pod: &str| {
            let asked = "<address of Service a/b>:80";
            format!("tcp 1.2.3.4 asks {asked}: {pod}:80 answers to 1.2.3.4")
        };
        let told = |lines: &[String]| masked(&Mask::default(), lines.to_vec()).here;
        let one = told(&[to("<b@one#0>"), to("<b@two#1>"), to("<b@two#0>")]);
        assert_eq!(one, [to("<b>")]);
        assert_ne!(told(&[to("1.2.3.5")]), one);
        let direct = |pod: &str| format!("tcp {pod} asks 1.2.3.4:80: 1.2.3.4:80 answers to {pod}");
        assert_eq!(told(&[direct("<b@one#0>")]), told(&[direct("<b@one#1>")]));
        assert_ne!(told(&[direct("<b@one#0>")]), told(&[direct("<b@two#0>")]));
    }

    #[test]
    fn where_dice_put_a_pod_and_when_the_api_was_called_is_no_difference() {
        let told = |asked: &str, port: u16| {
            let line =
                format!("tcp 1.2.3.4 asks {asked}:{port}: {asked}:{port} answers to 1.2.3.4");
            masked(&Mask::default(), vec![line]).here
        };
        assert_eq!(told("1.2.3.5", 80).len(), 1);
        assert_eq!(told("<b@any node#0>", 80), [""; 0]);
        assert_eq!(told("<one>.2", 80), [""; 0]);
        assert_eq!(told("1.2.3.5", api::PORT), [""; 0]);
    }
    /// What a client got was masked where it asked, and not where it was answered.
    #[test]
    fn on_which_node_a_services_client_was_answered_is_no_difference() {
        let mut mask = Mask::of_pairs(&[]);
        mask.endpoints = ["<web@one>:80", "<web@two>:80"].map(str::to_owned).into();
        let told = |lines: &[&str]| masked(&mask, lines.iter().map(|&line| line.into()).collect());
        let asks = |node: &str| {
            told(&[&format!(
                "tcp <a@x#0> asks 10.96.0.80:80: <web@{node}#1>:80 answers to <a@x#0>"
            )])
        };
        assert_eq!(asks("one"), asks("two"));
        let answered = |node: &str, by: &str, to: &str| {
            told(&[&format!("tcp <a@x#0> asks <web@{node}#0>:80: {by}:80 answers to {to}")])
        };
        let one = answered("one", "<web@one#0>", "<a@x#0>");
        assert_eq!(one, answered("two", "<web@two#0>", "<a@x#0>"));
        assert_eq!((one.here, one.chosen), (Vec::new(), asks("one").chosen));
        // That somebody else answers, or is answered, is none of dice's.
        let right = answered("two", "<web@two#0>", "<a@x#0>");
        assert_ne!(answered("two", "<web@two#0>", "10.0.0.1"), right);
        assert_ne!(answered("two", "10.0.0.1", "<a@x#0>"), right);
        let elsewhere = told(&["udp <a@x#0> asks <b@one#0>:80: <b@one#0>:80 answers to <a@x#0>"]);
        assert_eq!((elsewhere.here.len(), elsewhere.chosen.len()), (1, 0));
    }
}
