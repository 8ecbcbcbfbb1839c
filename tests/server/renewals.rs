//! Certificates with short lives, and keys that follow each other.

use super::plane::until;
use super::{ANY, WEB};
use crate::https::{Ask, Connection, identity, stranger};
use crate::world::{Place, Server, clients};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LIFE: Duration = Duration::from_secs(9);

fn kubeconfig(place: &Place) -> String {
    fs::read_to_string(place.0.join("data/admin.conf")).expect("a kubeconfig")
}

fn open(server: &Server, kubeconfig: &str) -> Connection {
    let patience = Duration::from_secs(30);
    Connection::open(server.at(), &identity(kubeconfig), patience).expect("a connection")
}

fn code(line: &mut Connection, words: &str, body: &str) -> u16 {
    line.ask(Ask { words, body, ..Ask::default() }).expect("an answer").0
}

fn create(line: &mut Connection, name: &str) {
    let map = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
    assert_eq!(code(line, &format!("POST {MAPS}"), &map), 201);
}

#[test]
fn certificates_are_renewed_while_all_goes_on() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let server = Server::start_with(&place, ANY, &client, &["--certificate-life=9"]);
    let start = Instant::now();
    let first = kubeconfig(&place);
    let (mut old, mut watch) = (open(&server, &first), open(&server, &first));
    assert_eq!(code(&mut old, "GET /readyz", ""), 200);
    let shown = old.server();
    assert_eq!(watch.watch(&format!("{MAPS}?watch=1&timeoutSeconds=60")).expect("a watch"), 200);
    let name = |event: &serde_json::Value| event["object"]["metadata"]["name"].clone();
    assert_eq!(name(&watch.event().expect("text").expect("an event")), "kube-root-ca.crt");

    until("another kubeconfig", || kubeconfig(&place) != first);
    assert!(start.elapsed() < LIFE, "before the first has ended: {:?}", start.elapsed());
    assert_eq!(code(&mut old, "GET /readyz", ""), 200, "the first is good still");
    let mut new = open(&server, &kubeconfig(&place));
    create(&mut new, "a");
    assert_ne!(new.server(), shown, "another certificate is shown");
    assert_eq!(name(&watch.event().expect("text").expect("an event")), "a");

    sleep((LIFE + Duration::from_secs(2)).saturating_sub(start.elapsed()));
    assert_eq!(code(&mut old, "GET /readyz", ""), 401, "it has ended");
    create(&mut open(&server, &kubeconfig(&place)), "b");
    assert_eq!(name(&watch.event().expect("text").expect("an event")), "b", "the watch goes on");
    // The second ones of the scheduler and the controllers have ended, too.
    sleep((LIFE * 2).saturating_sub(start.elapsed()));
    server.with("create -f -", WEB);
    until("pods", || server.kubectl("get pods -o name").lines().count() == 2);
    assert_eq!(server.end(), Some(0));
}

#[test]
fn tokens_of_a_former_key_are_good_while_it_is_kept() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let alone = ["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];
    let start = || Server::start_with(&place, ANY, &client, &alone);
    let server = start();
    server.kubectl("create serviceaccount robot");
    let old = server.kubectl("create token robot");
    let known = |server: &Server, token: &str| {
        let stranger = stranger(&kubeconfig(&place));
        let line = Connection::open(server.at(), &stranger, Duration::from_secs(20));
        let head = format!("Authorization: Bearer {}\r\n", token.trim());
        let ask = Ask { words: "GET /api/v1/pods", head: &head, ..Ask::default() };
        let (code, answer) = line.expect("a connection").ask(ask).expect("an answer");
        let why = answer["message"].as_str().unwrap_or_default();
        code == 403 && why.contains("\"system:serviceaccount:default:robot\"")
    };
    assert!(known(&server, &old));
    let file = place.0.join("data/pki/sa.key");
    let first = fs::read_to_string(&file).expect("a key");
    let second = KeyPair::generate().expect("a key").serialize_pem();
    assert_eq!(server.end(), Some(0));
    fs::write(&file, format!("{second}{first}")).expect("written");
    let server = start();
    let new = server.kubectl("create token robot");
    assert!(known(&server, &old) && known(&server, &new));
    assert_eq!(server.kubectl("get --raw /openid/v1/jwks").matches("\"kid\"").count(), 2);
    assert_eq!(server.end(), Some(0));
    fs::write(&file, &second).expect("written");
    let server = start();
    assert!(!known(&server, &old) && known(&server, &new));
}

/// Nor does one that makes no sense end what is good.
#[test]
fn a_new_key_is_found_by_a_server_that_runs() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let alone = ["--without=scheduler,controllers", "--disable-admission-plugins=ServiceAccount"];
    let server = Server::start_with(&place, ANY, &client, &alone);
    server.kubectl("create serviceaccount robot");
    let keys = || server.kubectl("get --raw /openid/v1/jwks");
    let file = place.0.join("data/pki/sa.key");
    let first = fs::read_to_string(&file).expect("a key");
    let before = keys();
    fs::write(&file, "nothing").expect("written");
    sleep(Duration::from_secs(6));
    assert_eq!(keys(), before);
    let second = KeyPair::generate().expect("a key").serialize_pem();
    fs::write(&file, format!("{second}{first}")).expect("written");
    until("both keys", || keys().matches("\"kid\"").count() == 2);
    let token = server.kubectl("create token robot");
    fs::write(&file, &second).expect("written");
    until("the second key", || keys().matches("\"kid\"").count() == 1);
    let head = format!("Authorization: Bearer {}\r\n", token.trim());
    let ask = Ask { words: "GET /api/v1/pods", head: &head, ..Ask::default() };
    let stranger = stranger(&kubeconfig(&place));
    let line = Connection::open(server.at(), &stranger, Duration::from_secs(20));
    let (code, why) = line.expect("a connection").ask(ask).expect("an answer");
    assert_eq!(code, 403, "the second key has signed it: {why}");
}

/// An authority of a person's own, with so many days left.
fn authority(keys: &Path, days: u64) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ours");
    let end = SystemTime::now() + Duration::from_secs(days * 86_400 + 3600);
    params.not_after = end.into();
    let key = KeyPair::generate().expect("a key");
    fs::create_dir_all(keys).expect("a directory");
    fs::write(keys.join("ca.key"), key.serialize_pem()).expect("written");
    let made = params.self_signed(&key).expect("a certificate");
    fs::write(keys.join("ca.crt"), made.pem()).expect("written");
}

#[test]
fn the_authoritys_end_is_told_in_time() {
    for (days, told) in [(179, true), (181, false)] {
        let place = Place::new();
        let data = place.0.join("data");
        authority(&data.join("pki"), days);
        let mut process = Command::new(env!("CARGO_BIN_EXE_kubesim"))
            .args(["server", "--listen", ANY, "--without=scheduler,controllers", "--data-dir"])
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let out = BufReader::new(process.stdout.take().expect("a pipe"));
        let ready = out.lines().any(|line| line.expect("text").starts_with("try: "));
        assert!(ready);
        sleep(Duration::from_millis(500));
        process.kill().expect("it runs");
        let said = process.wait_with_output().expect("it ends").stderr;
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.contains("the cluster's authority ends at 20"), told, "{days}: {said}");
    }
}
