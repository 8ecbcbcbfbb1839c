//! Logs as they are read, on files of a test's own.

use super::*;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::task::LocalSet;

/// A folder with a log, removed in the end.
struct Place(PathBuf);

impl Place {
    fn new(lines: &[&str]) -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("kubesim-log-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let place = Place(folder);
        fs::write(place.log(), "").expect("a file");
        place.says(lines);
        place
    }

    fn log(&self) -> PathBuf {
        self.0.join("0.log")
    }

    /// Each is a tag and what is said, a second after the one before.
    fn says(&self, lines: &[&str]) {
        let mut file =
            OpenOptions::new().append(true).create(true).open(self.log()).expect("a file");
        for (second, line) in lines.iter().enumerate() {
            writeln!(file, "2026-11-28T06:00:{second:02}.5Z stdout {line}").expect("room");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn play(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), story);
}

/// All of what is sent.
fn read(place: &Place, options: Options) -> String {
    let mut all: Vec<u8> = Vec::new();
    play(async {
        let (send, mut pieces) = mpsc::channel::<Bytes>(1);
        let log = Log::open(&place.log(), options).expect("a log");
        let taken = async {
            while let Some(piece) = pieces.recv().await {
                all.extend_from_slice(&piece);
            }
        };
        let (sent, ()) = tokio::join!(log.send(send, async || true), taken);
        sent.expect("it is read");
    });
    String::from_utf8(all).expect("text")
}

#[test]
fn what_is_wanted_of_a_log_is_sent() {
    let place = Place::new(&["F a", "P b", "F c", "nonsense", "F d"]);
    let with = |options: Options| read(&place, options);
    let plain = Options::default();
    assert_eq!(with(plain.clone()), "a\nbc\nd\n");
    let timestamps = Options { timestamps: true, ..plain.clone() };
    let stamp = |second: u32| format!("2026-11-28T06:00:0{second}.5Z");
    let stamped = format!("{} a\n{} bc\n{} d\n", stamp(0), stamp(1), stamp(4));
    assert_eq!(with(timestamps), stamped);
    for (lines, said) in [(0, ""), (1, "d\n"), (3, "c\nd\n"), (4, "bc\nd\n"), (99, "a\nbc\nd\n")] {
        assert_eq!(with(Options { tail: Some(lines), ..plain.clone() }), said, "{lines}");
    }
    let since = at("2026-11-28T06:00:02Z");
    assert_eq!(with(Options { since, ..plain.clone() }), "c\nd\n");
    assert_eq!(with(Options { limit: Some(3), ..plain.clone() }), "a\nb");
    assert_eq!(with(Options { tail: Some(1), limit: Some(1), ..plain }), "d");
}

#[test]
fn a_long_log_comes_whole_and_its_tail_is_found() {
    let lines: Vec<String> = (0..20_000).map(|number| format!("F line {number}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let place = Place::new(&lines[..60]);
    // Times do not matter here, and have two digits.
    lines[60..].chunks(60).for_each(|chunk| place.says(chunk));
    let all = read(&place, Options::default());
    assert_eq!((all.lines().count(), all.lines().last()), (20_000, Some("line 19999")));
    let tail = read(&place, Options { tail: Some(15_000), ..Options::default() });
    assert_eq!((tail.lines().count(), tail.lines().next()), (15_000, Some("line 5000")));
}

#[test]
fn a_line_without_end_is_skipped() {
    let place = Place::new(&["F a"]);
    let mut file = OpenOptions::new().append(true).open(place.log()).expect("a file");
    file.write_all(&vec![b'x'; 3 * LONGEST]).expect("room");
    file.write_all(b"\n").expect("room");
    place.says(&["F b"]);
    assert_eq!(read(&place, Options::default()), "a\nb\n");
}

#[test]
fn who_follows_hears_what_comes_over_a_rotation_to_the_end() {
    let place = Place::new(&["F a"]);
    let lives = AtomicBool::new(true);
    play(async {
        let (send, mut pieces) = mpsc::channel(1);
        let options = Options { follow: true, ..Options::default() };
        let log = Log::open(&place.log(), options).expect("a log");
        let follows = log.send(send, async || lives.load(Ordering::Relaxed));
        let mut all: Vec<u8> = Vec::new();
        let mut hears = async |text: &str| {
            while !all.ends_with(text.as_bytes()) {
                all.extend_from_slice(&pieces.recv().await.expect("more comes"));
            }
        };
        let story = async {
            hears("a\n").await;
            place.says(&["F b"]);
            hears("b\n").await;
            place.says(&["F c"]);
            fs::rename(place.log(), place.0.join("0.log.old")).expect("it is renamed");
            place.says(&["F d"]);
            hears("c\nd\n").await;
            fs::write(place.log(), "").expect("it begins anew");
            tokio::time::sleep(2 * LOOK).await;
            place.says(&["F e"]);
            hears("e\n").await;
            lives.store(false, Ordering::Relaxed);
        };
        let (sent, ()) = tokio::join!(follows, story);
        sent.expect("it ends with who writes it");
        assert_eq!(all, b"a\nb\nc\nd\ne\n");
    });
}

#[test]
fn who_goes_ends_the_following() {
    let place = Place::new(&["F a"]);
    play(async {
        let (send, pieces) = mpsc::channel(1);
        let options = Options { follow: true, tail: Some(0), ..Options::default() };
        let log = Log::open(&place.log(), options).expect("a log");
        let goes = async {
            tokio::time::sleep(LOOK / 10).await;
            drop(pieces);
        };
        let (sent, ()) = tokio::join!(log.send(send, async || true), goes);
        sent.expect("it ends");
    });
}
