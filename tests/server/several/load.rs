//! Clients that write, each to objects of its own, and remember what was acknowledged. Where an
//! answer was lost, both are right: such an object is left alone, and another one begun.

use super::watcher::{Told, version};
use super::{Ends, MAPS, SERVERS};
use crate::https::{Ask, Connection};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const CLIENTS: u64 = 3;
const OBJECTS: usize = 4;
const MERGE: &str = "application/merge-patch+json";

pub struct Load {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Acknowledged>>,
}

/// What may be there of each object: a number, or nothing.
#[derive(Default)]
pub struct Acknowledged {
    objects: BTreeMap<String, BTreeSet<Option<u64>>>,
    /// The versions that answers named.
    versions: BTreeSet<u64>,
    writes: usize,
}

pub fn start(ends: &Ends) -> Load {
    let over = Arc::new(AtomicBool::new(false));
    let client = |number: u64| {
        let client = Client {
            ends: ends.clone(),
            number,
            dice: number + 1,
            objects: BTreeMap::new(),
            made: 0,
            counter: 0,
            lines: (0..SERVERS).map(|_| None).collect(),
            known: Acknowledged::default(),
        };
        let over = Arc::clone(&over);
        std::thread::spawn(move || client.run(&over))
    };
    Load { clients: (0..CLIENTS).map(client).collect(), over }
}

impl Load {
    pub fn end(self) -> Acknowledged {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::default();
        for client in self.clients {
            let one = client.join().expect("a client to its end");
            all.objects.extend(one.objects);
            all.versions.extend(one.versions);
            all.writes += one.writes;
        }
        all
    }
}

struct Client {
    ends: Ends,
    number: u64,
    dice: u64,
    /// What is there, by name, and the number it has.
    objects: BTreeMap<String, u64>,
    made: usize,
    counter: u64,
    lines: Vec<Option<Connection>>,
    known: Acknowledged,
}

impl Client {
    fn run(mut self, over: &AtomicBool) -> Acknowledged {
        while !over.load(Ordering::Relaxed) {
            self.write();
            std::thread::sleep(Duration::from_millis(5));
        }
        for (name, number) in &self.objects {
            self.known.objects.insert(name.clone(), BTreeSet::from([Some(*number)]));
        }
        self.known
    }

    /// Numerical Recipes' generator will do.
    fn roll(&mut self, sides: usize) -> usize {
        self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.dice >> 16) as usize % sides
    }

    fn write(&mut self) {
        self.counter += 1;
        let number = self.counter;
        let index = self.roll(OBJECTS);
        let Some((name, old)) = self.objects.iter().nth(index).map(|(n, o)| (n.clone(), *o)) else {
            self.made += 1;
            let name = format!("c{}-{}", self.number, self.made);
            return self.change(&name, None, Some(number), "POST", "", &map(&name, number));
        };
        let data = json!({"data": {"n": number.to_string()}});
        match self.roll(6) {
            0 => self.change(&name, Some(old), None, "DELETE", "", &Value::Null),
            1 | 2 => self.change(&name, Some(old), Some(number), "PATCH", MERGE, &data),
            _ => self.change(&name, Some(old), Some(number), "PUT", "", &map(&name, number)),
        }
    }

    /// A write, and what is known after it.
    fn change(
        &mut self,
        name: &str,
        old: Option<u64>,
        new: Option<u64>,
        method: &str,
        content_type: &str,
        body: &Value,
    ) {
        let path = if method == "POST" { MAPS.to_owned() } else { format!("{MAPS}/{name}") };
        let words = format!("{method} {path}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let server = self.roll(SERVERS);
        let ask = Ask { words: &words, content_type, body: &body, head: "" };
        match self.ask(server, ask) {
            Ok((200 | 201, answer)) => {
                self.known.writes += 1;
                if answer["kind"] == "ConfigMap" {
                    self.known.versions.insert(version(&answer));
                }
                self.now(name, new);
                let other = self.roll(SERVERS);
                self.read(other, name, new);
            }
            // It may have happened.
            Err(_) | Ok((500.., _)) => {
                self.objects.remove(name);
                self.known.objects.insert(name.to_owned(), BTreeSet::from([old, new]));
            }
            Ok((429, _)) => {}
            Ok((code, answer)) => panic!("{words} at server {server}: {code} {answer}"),
        }
    }

    fn now(&mut self, name: &str, number: Option<u64>) {
        match number {
            Some(number) => {
                self.objects.insert(name.to_owned(), number);
            }
            None => {
                self.objects.remove(name);
                self.known.objects.insert(name.to_owned(), BTreeSet::from([None]));
            }
        }
    }

    /// What was acknowledged by one is there at once at any other.
    fn read(&mut self, server: usize, name: &str, expected: Option<u64>) {
        let words = format!("GET {MAPS}/{name}");
        match self.ask(server, Ask { words: &words, ..Ask::default() }) {
            Ok((200, answer)) => assert_eq!(number(&answer), expected, "{name} at {server}"),
            Ok((404, _)) => assert_eq!(None, expected, "{name} at server {server}"),
            Ok((code, answer)) => assert!(code == 429 || code >= 500, "{code} {answer}"),
            Err(_) => {}
        }
    }

    fn ask(&mut self, server: usize, ask: Ask<'_>) -> io::Result<(u16, Value)> {
        let mut line = match self.lines[server].take() {
            Some(line) => line,
            None => self.ends.open(server)?,
        };
        let answer = line.ask(ask)?;
        self.lines[server] = Some(line);
        Ok(answer)
    }
}

/// An object, and the number that it was written with.
pub fn map(name: &str, number: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
           "data": {"n": number.to_string()}})
}

fn number(map: &Value) -> Option<u64> {
    map["data"]["n"].as_str().and_then(|text| text.parse().ok())
}

impl Acknowledged {
    /// Against what every server has in the end, and what a watch was told.
    pub fn check(&self, ends: &Ends, told: &[Told]) {
        println!("{} writes acknowledged, {} events", self.writes, told.len());
        assert!(self.writes > 50, "only {} writes", self.writes);
        let mut replayed: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
        for (what, name, uid, version) in told {
            let before = replayed.get(name.as_str()).map(|(uid, _)| *uid);
            match what.as_str() {
                "ADDED" => assert_eq!(before, None, "{name} is added twice"),
                _ => assert_eq!(before, Some(uid.as_str()), "{what} {name} at {version}"),
            }
            match what.as_str() {
                "DELETED" => replayed.remove(name.as_str()),
                _ => replayed.insert(name, (uid, *version)),
            };
        }
        let seen: BTreeSet<u64> = told.iter().map(|(.., version)| *version).collect();
        let missed: Vec<_> = self.versions.difference(&seen).collect();
        assert!(missed.is_empty(), "acknowledged, and not told: {missed:?}");
        let ended = told.last().map_or(0, |(.., version)| *version);
        for server in 0..SERVERS {
            let list = ends.get(server, MAPS);
            let items = list["items"].as_array().expect("a list");
            let mut there = BTreeMap::new();
            for item in items {
                let name = item["metadata"]["name"].as_str().expect("a name");
                there.insert(name, item);
            }
            for (name, allowed) in &self.objects {
                let found = there.get(name.as_str()).and_then(|item| number(item));
                assert!(allowed.contains(&found), "{name} at {server}: {found:?}, not {allowed:?}");
            }
            // What was given up may yet be done when the watches have ended: what a member of etcd
            // was sent while it was silent, it reads when the packets are sent again.
            let settled = |name: &str| self.objects.get(name).is_some_and(|may| may.len() == 1);
            let mut versions: BTreeMap<&str, u64> =
                there.iter().map(|(name, item)| (*name, version(item))).collect();
            versions.retain(|name, version| settled(name) || *version <= ended);
            let mut expected: BTreeMap<&str, u64> =
                replayed.iter().map(|(name, (_, version))| (*name, *version)).collect();
            expected.retain(|name, _| settled(name) || versions.contains_key(name));
            assert_eq!(versions, expected, "server {server} has what was told");
        }
    }
}
