//! Backups of a server that runs and of one that was killed, and what clients make of a restored
//! cluster.

use super::ANY;
use crate::https::{Ask, Connection, identity, stranger};
use crate::plane::until;
use crate::world::{Place, Server, clients};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// `kubesim server …`: its status, and all it says.
fn kubesim(action: &str, file: &Path, data: &Path) -> (Option<i32>, String) {
    let out = command(action, file, data).output().expect("the program starts");
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn command(action: &str, file: &Path, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubesim"));
    command.args(["server", action]).arg(file).arg("--data-dir").arg(data);
    command
}

#[track_caller]
fn done(action: &str, file: &Path, data: &Path) -> String {
    let (code, text) = kubesim(action, file, data);
    assert_eq!(code, Some(0), "{text}");
    text
}

fn connection(server: &Server, place: &Path) -> Connection {
    let kubeconfig = fs::read_to_string(place.join("data/admin.conf")).expect("a kubeconfig");
    let tls = identity(&kubeconfig);
    Connection::open(server.at(), &tls, Duration::from_secs(20)).expect("a connection")
}

fn ask(line: &mut Connection, words: &str, body: &str) -> (u16, Value) {
    line.ask(Ask { words, body, ..Ask::default() }).expect("an answer")
}

fn map(name: &str, value: &str) -> String {
    format!(r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"a":"{value}"}}}}"#)
}

fn create(line: &mut Connection, name: &str, value: &str) {
    let (code, why) = ask(line, &format!("POST {MAPS}"), &map(name, value));
    assert_eq!(code, 201, "{why}");
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str().expect("a version");
    text.parse().expect("a number")
}

/// Names and versions.
fn objects(line: &mut Connection) -> Vec<(String, u64)> {
    let (code, list) = ask(line, &format!("GET {MAPS}"), "");
    assert_eq!(code, 200, "{list}");
    let items = list["items"].as_array().expect("a list").iter();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    items.map(|item| (name(item), version(item))).collect()
}

/// What is written after the backup never happened, and nobody takes what comes later for it.
#[test]
fn a_restored_cluster_goes_on_where_no_client_has_been() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let file = place.0.join("backup");
    let server = Server::start(&place, ANY, &client);
    let mut line = connection(&server, &place.0);
    create(&mut line, "kept", "x");
    create(&mut line, "deleted", "x");
    server.kubectl("create serviceaccount robot");
    assert_eq!(ask(&mut line, &format!("DELETE {MAPS}/deleted"), "").0, 200);
    let before = objects(&mut line);
    let told = done("backup", &file, &place.0.join("data"));
    assert!(told.contains("ca.key, sa.key"), "it says what is in it: {told}");
    create(&mut line, "lost", "x");
    let (_, list) = ask(&mut line, &format!("GET {MAPS}"), "");
    let seen = version(&list);
    let token = server.kubectl("create token robot");
    let old = fs::read_to_string(place.0.join("data/admin.conf")).expect("a kubeconfig");
    server.kill();

    let other = Place::new();
    done("restore", &file, &other.0.join("data"));
    let server = Server::start(&other, ANY, &client);
    // Who was known before is, by certificate and by token.
    let tls = identity(&old);
    let mut line = Connection::open(server.at(), &tls, Duration::from_secs(20)).expect("known");
    assert_eq!(objects(&mut line), before);
    let head = format!("Authorization: Bearer {}\r\n", token.trim());
    let nobody = stranger(&old);
    let mut bearer = Connection::open(server.at(), &nobody, Duration::from_secs(20)).expect("TLS");
    let words = "GET /api/v1/namespaces";
    let (code, why) = bearer.ask(Ask { words, head: &head, ..Ask::default() }).expect("answered");
    assert_eq!(code, 403, "{why}");
    assert!(why["message"].as_str().unwrap_or_default().contains("default:robot"), "{why}");
    // A watch from a version that was lost is not told of others after it.
    let path = format!("{MAPS}?watch=1&timeoutSeconds=5&resourceVersion={seen}");
    let code = line.watch(&path).expect("answered");
    let event = if code == 200 { line.event().expect("text") } else { None };
    let expired = event.is_some_and(|event| event["object"]["code"] == 410);
    assert!(code == 410 || expired, "{code}");
    let mut line = Connection::open(server.at(), &tls, Duration::from_secs(20)).expect("known");
    create(&mut line, "new", "x");
    let (_, new) = ask(&mut line, &format!("GET {MAPS}/new"), "");
    assert!(version(&new) > seen + 1_000_000, "{} follows {seen}", version(&new));
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_stopped_servers_backup_is_the_same() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let data = place.0.join("data");
    let server = Server::start(&place, ANY, &client);
    let mut line = connection(&server, &place.0);
    create(&mut line, "a", "x");
    // The last that a server writes by itself.
    until("the API's address is told", || {
        let path = "/api/v1/namespaces/default/endpoints/kubernetes";
        ask(&mut line, &format!("GET {path}"), "").0 == 200
    });
    let (running, stopped) = (place.0.join("running"), place.0.join("stopped"));
    let told = done("backup", &running, &data);
    server.kill();
    let again = done("backup", &stopped, &data);
    let said = |told: &str| told.split_once(": ").map(|(_, rest)| rest.to_owned());
    assert_eq!(said(&told), said(&again));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&running).expect("a file"));
    assert_eq!(mode & 0o777, 0o600, "it is its owner's alone");
    let (code, why) = kubesim("backup", &place.0.join("none"), &place.0.join("nowhere"));
    assert_eq!(code, Some(3));
    assert!(why.contains("there is no embedded store in"), "{why}");
    assert!(!place.0.join("none").exists() && !place.0.join("none.new").exists());
}

#[test]
fn what_cannot_be_restored_is_refused() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let (data, file) = (place.0.join("data"), place.0.join("backup"));
    let server = Server::start(&place, ANY, &client);
    done("backup", &file, &data);
    let refused = |file: &Path, data: &Path| {
        let (code, why) = kubesim("restore", file, data);
        assert_eq!(code, Some(3), "{why}");
        why
    };
    assert!(refused(&file, &data).contains("is not empty"));
    assert_eq!(server.kubectl("get --raw /readyz"), "ok", "the server has it still");
    let bytes = fs::read(&file).expect("a backup");
    let other = place.0.join("other");
    let torn = place.0.join("torn");
    fs::write(&torn, &bytes[..bytes.len() / 2]).expect("written");
    assert!(refused(&torn, &other).contains("it is torn"));
    let altered = place.0.join("altered");
    let mut changed = bytes.clone();
    let half = changed.len() / 2;
    changed[half] ^= 1;
    fs::write(&altered, &changed).expect("written");
    assert!(refused(&altered, &other).contains("it was altered"));
    assert!(!other.exists(), "nothing is begun");
}

/// Killed at moments that differ: a backup's file is whole or not there, and a directory is whole
/// or refused, and then restored again.
#[test]
fn both_survive_being_killed() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let (data, file) = (place.0.join("data"), place.0.join("backup"));
    let server = Server::start(&place, ANY, &client);
    let mut line = connection(&server, &place.0);
    for number in 0..40 {
        create(&mut line, &format!("m{number:02}"), &"x".repeat(200_000));
    }
    let before = objects(&mut line);
    let start = Instant::now();
    done("backup", &file, &data);
    let takes = start.elapsed();
    let killed = |action: &str, file: &Path, data: &Path, after: Duration| {
        let mut process =
            command(action, file, data).stdout(Stdio::null()).spawn().expect("it starts");
        sleep(after);
        process.kill().expect("killed or ended");
        process.wait().expect("ended").success()
    };
    for part in 0..10 {
        let file = place.0.join(format!("b{part}"));
        killed("backup", &file, &data, takes * part / 10);
        if file.exists() {
            let directory = place.0.join(format!("of-b{part}"));
            done("restore", &file, &directory);
        }
    }
    // The server is none the worse for those who went away.
    done("backup", &file, &data);
    assert_eq!(objects(&mut line), before);
    server.kill();

    let mut unfinished = 0;
    let start = Instant::now();
    done("restore", &file, &place.0.join("timed"));
    let takes = start.elapsed();
    for part in 0..10 {
        let other = Place::new();
        let data = other.0.join("data");
        let ended = killed("restore", &file, &data, takes * part / 10);
        if !ended && data.join("restoring").exists() {
            unfinished += 1;
            let (code, why) = Server::refused(&other, ANY);
            assert_eq!(code, Some(3));
            assert!(why.contains("restore it again"), "{why}");
            done("restore", &file, &data);
        } else if !ended && !data.join("version").exists() {
            done("restore", &file, &data);
        }
        let server = Server::start(&other, ANY, &client);
        assert_eq!(objects(&mut connection(&server, &other.0)), before);
    }
    assert!(unfinished > 0, "some were killed in the midst of it");
}

#[test]
fn a_newer_data_directory_is_left_alone() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let version = place.0.join("data/version");
    assert_eq!(Server::start(&place, ANY, &client).end(), Some(0));
    assert_eq!(fs::read_to_string(&version).expect("a version"), "1\n");
    // As directories were before they had one.
    fs::remove_file(&version).expect("removed");
    assert_eq!(Server::start(&place, ANY, &client).end(), Some(0));
    assert_eq!(fs::read_to_string(&version).expect("a version"), "1\n");
    fs::write(&version, "2\n").expect("written");
    let (code, why) = Server::refused(&place, ANY);
    assert_eq!(code, Some(3));
    assert!(why.contains("has version 2") && why.contains("newer"), "{why}");
}
