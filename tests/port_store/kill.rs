//! A process that writes and is killed: what it was told is durable is there.

use crate::world::{Folder, World, ask, key, put_text, text};
use kubesim_actors::ports::store::{Change, Range, Reply, Request, Under};
use kubesim_backends::store::embedded::{Embedded, Options};
use kubesim_runtime::{Rng, Stream};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

/// Set for the process that writes: where.
const CHILD: &str = "KUBESIM_STORE_CHILD";
const WRITERS: usize = 16;

/// By writer: the count it was at, and the revision of that.
type Acknowledged = BTreeMap<usize, (u64, u64)>;

fn open(path: &Path) -> World {
    let path = path.to_owned();
    let store = || Embedded::open(&path, Options::default()).expect("the store opens");
    World::new((), || Rc::new(store()))
}

fn writer(number: usize) -> String {
    format!("w{number}")
}

/// Not a test: what [`nothing_acknowledged_is_lost_to_sigkill`] kills. Each writer counts, says
/// what was acknowledged, and never ends by itself.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let world = open(&path);
    let begin = state(&world);
    println!("begins");
    let writers = (0..WRITERS).map(|number| {
        let driver = Rc::clone(&world.driver);
        let (mut count, mut revision) = begin.get(&number).copied().unwrap_or_default();
        async move {
            loop {
                count += 1;
                let compare = vec![(key(&writer(number)), revision)];
                let then = vec![put_text(&writer(number), &count.to_string())];
                match ask(&driver, Request::Txn { id: 0, compare, then }).await {
                    Reply::Committed { revision: at, .. } => revision = at,
                    other => panic!("{other:?}"),
                }
                let told = format!("{number} {count} {revision}\n");
                std::io::stdout().write_all(told.as_bytes()).expect("a pipe");
                if revision % 300 == 0 {
                    let revision = revision - 200;
                    ask(&driver, Request::Compact { revision }).await;
                }
            }
        }
    });
    let writers: Vec<_> = writers.collect();
    world.begin_all(writers);
}

fn state(world: &World) -> Acknowledged {
    let all = world.range(Range::default());
    let Reply::Range { objects, .. } = all else { panic!("{all:?}") };
    let read = |object: &kubesim_actors::objects::Object| {
        let number = object.key.name.strip_prefix('w')?.parse().ok()?;
        Some((number, (text(object).parse().ok()?, object.version)))
    };
    objects.iter().map(|object| read(object).expect("a count")).collect()
}

/// Runs the child for a while and kills it: what it said.
fn killed(path: &Path, lines: u64, delay: Duration) -> Acknowledged {
    let exe = std::env::current_exe().expect("this test");
    let mut child = Command::new(exe)
        .args(["--exact", "kill::child", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let mut said = Acknowledged::new();
    let mut left = lines;
    loop {
        let mut line = String::new();
        // What it said before it was killed is there, the last of it maybe in part.
        if out.read_line(&mut line).expect("a pipe") == 0 || !line.ends_with('\n') {
            break;
        }
        let words: Vec<u64> =
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let [number, count, revision] = words[..] {
            said.insert(number as usize, (count, revision));
            left = left.saturating_sub(1);
        }
        if left == 0 {
            std::thread::sleep(delay);
            child.kill().expect("SIGKILL");
            left = u64::MAX;
        }
    }
    child.wait().expect("it ended");
    said
}

/// What was said holds, and what is remembered of the past is whole: a writer counts one by one.
/// Returns what is there, from which the next life goes on, and the newest revision.
fn check(path: &Path, said: &Acknowledged) -> (Acknowledged, u64) {
    let world = open(path);
    let found = state(&world);
    for (number, (count, revision)) in said {
        let (stored, version) = found.get(number).copied().unwrap_or_default();
        assert!(
            stored >= *count && stored <= count + 1 && version >= *revision,
            "writer {number} was told {count} at {revision}, and {stored} at {version} is there"
        );
        assert!(stored > *count || version == *revision, "{number}: {version} {revision}");
    }
    let now = world.range(Range::default());
    let Reply::Range { revision, compacted, .. } = now else { panic!("{now:?}") };
    let watch = world.watch(1, Under::All, compacted + 1);
    world.until("the past is told", || watch.reached() == revision);
    let told = watch.told.borrow();
    let changes = told.iter().flat_map(|reply| match reply {
        Reply::Watched { changes, .. } => changes.as_slice(),
        _ => &[],
    });
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut next = compacted + 1;
    for change in changes {
        let Change::Put(object) = change else { panic!("{change:?}") };
        assert_eq!(change.revision(), next.max(2), "a revision is missing");
        next = change.revision() + 1;
        let count: u64 = text(object).parse().expect("a count");
        if let Some(before) = counts.insert(object.key.to_string(), count) {
            assert_eq!(count, before + 1, "{}", object.key);
        }
    }
    assert_eq!(next, revision + 1, "the newest is told");
    (found, revision)
}

#[test]
fn nothing_acknowledged_is_lost_to_sigkill() {
    let asked = std::env::var("KUBESIM_STORE_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills: u64 = asked.unwrap_or(if cfg!(debug_assertions) { 60 } else { 200 });
    let folder = Folder::new();
    let mut dice = Rng::new(Stream { seed: 1, label: "kills", index: 0, incarnation: 0 });
    let mut said = Acknowledged::new();
    let mut revision = 1;
    for _ in 0..kills {
        let delay = Duration::from_micros(dice.u64() % 3000);
        said.extend(killed(&folder.0, 1 + dice.u64() % 400, delay));
        // Who was not told of its last write in one life and of its first in the next is two ahead
        // of what it said, so what counts is what was there in between.
        let (found, now) = check(&folder.0, &said);
        assert!(now > revision, "it goes on");
        (said, revision) = (found, now);
    }
    assert_eq!(said.len(), WRITERS);
}
