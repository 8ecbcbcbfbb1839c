//! The official Python client (PyPI's `kubernetes`): `tests/clients/tour.py` and `survive.py`,
//! which say what they do. The client is installed once, below the build's folder.

use super::ANY;
use crate::skip::skipped;
use crate::stores::lasting;
use crate::world::Place;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

/// The release that is installed.
const CLIENT: &str = "kubernetes==37.0.2";
const TRIES: usize = 4;

/// Where its modules are; none, and says so, where this machine cannot install them.
fn client() -> Option<&'static Path> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    INSTALLED.get_or_init(install).as_deref()
}

fn install() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(CLIENT.replace("==", "-"));
    if place.join("kubernetes").is_dir() {
        return Some(place);
    }
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !pip.is_ok_and(|out| out.status.success()) {
        skipped("pip (Debian: python3-pip)");
        return None;
    }
    // Whole or not at all.
    let new = place.with_extension(std::process::id().to_string());
    let pip = || {
        let mut pip = Command::new("python3");
        let words = "-m pip install --quiet --no-compile --disable-pip-version-check --target";
        pip.args(words.split(' ')).arg(&new).arg(CLIENT).output().expect("pip starts")
    };
    // What it fetches is not always to be had at once.
    let mut out = pip();
    for _ in 1..TRIES {
        if out.status.success() {
            break;
        }
        println!("pip: {}", String::from_utf8_lossy(&out.stderr));
        let _ = std::fs::remove_dir_all(&new);
        sleep(Duration::from_secs(5));
        out = pip();
    }
    assert!(out.status.success(), "pip: {}", String::from_utf8_lossy(&out.stderr));
    std::fs::rename(&new, &place).expect("a place for the client");
    Some(place)
}

/// A story of `tests/clients`, as somebody with this kubeconfig.
fn python(client: &Path, story: &str, place: &Place) -> Command {
    let mut command = Command::new("python3");
    let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    command.arg(stories.join(story)).arg(place.0.join("data/admin.conf"));
    command.env("PYTHONPATH", client);
    command
}

/// What it says, having succeeded.
#[track_caller]
fn held(out: &Output) -> String {
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{told}\n{wrong}");
    told
}

#[test]
fn the_official_python_client_finds_what_it_expects() {
    let Some(client) = client() else { return };
    for store in lasting() {
        println!("on {}", store.name);
        let place = Place::new();
        // Namespaces get their accounts; no pod is to be put anywhere.
        let more = ["--without=scheduler"];
        let server = store.serve(&place, ANY, Path::new("kubectl"), &more);
        let told = held(&python(client, "tour.py", &place).output().expect("python starts"));
        assert_eq!(told.lines().filter(|line| line.starts_with("held: ")).count(), 6, "{told}");
        assert_eq!(server.end(), Some(0));
    }
}

const KILLS: usize = 4;
const LIFE: Duration = Duration::from_millis(1500);

#[test]
fn its_watch_misses_and_repeats_nothing_while_the_server_is_killed() {
    let Some(client) = client() else { return };
    for store in lasting() {
        let place = Place::new();
        let alone =
            ["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];
        let serve = |listen: &str| store.serve(&place, listen, Path::new("kubectl"), &alone);
        let mut server = serve(ANY);
        let listen = server.at().to_string();
        let mut story = python(client, "survive.py", &place);
        story.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut story = story.spawn().expect("python starts");
        let mut told = BufReader::new(story.stdout.take().expect("a pipe"));
        let mut line = String::new();
        told.read_line(&mut line).expect("text");
        assert_eq!(line, "writes\n", "it has begun");
        for _ in 0..KILLS {
            sleep(LIFE);
            server.kill();
            server = serve(&listen);
        }
        sleep(LIFE);
        // It ends when its input does.
        drop(story.stdin.take());
        let mut out = Vec::new();
        told.read_to_end(&mut out).expect("what it says");
        let ended = story.wait_with_output().expect("python ends");
        let told = held(&Output { stdout: out, ..ended });
        println!("on {}: {told}", store.name);
        let numbers: Vec<usize> = told.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert!(numbers[0] > 30, "a load: {told}");
        assert_eq!(server.end(), Some(0));
    }
}
