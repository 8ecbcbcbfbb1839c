//! A server that is told to end: who leads next need not wait, and what is asked of it is answered.

use super::{Cluster, LEASES, MAPS, holder, possible};
use crate::certificates::{asked, request};
use crate::https::Ask;
use crate::plane::until;
use crate::world::Server;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn a_leader_that_is_told_to_end_is_followed_at_once() {
    if !possible() {
        return;
    }
    // As they are upstream, a lease that is not given up is good for 15 s.
    let mut cluster = Cluster::start(&[], |ends| {
        until("a leader", || !holder(ends, 0).is_empty());
    });
    let first = holder(&cluster.ends, 1);
    let start = Instant::now();
    let ended = cluster.servers[0].take().map(Server::end);
    assert_eq!(ended, Some(Some(0)));
    let let_go = start.elapsed();
    assert_ne!(holder(&cluster.ends, 1), first, "it has let go");
    let new = |ends: &super::Ends| !["", first.as_str()].contains(&holder(ends, 1).as_str());
    until("another leader", || new(&cluster.ends));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "after {took:?}, let go after {let_go:?}");
    for lease in ["kube-scheduler", "kube-controller-manager"] {
        let lease = cluster.ends.get(2, &format!("{LEASES}/{lease}"));
        assert_ne!(lease["spec"]["holderIdentity"], json!(first));
    }
}

#[test]
fn one_server_signs() {
    if !possible() {
        return;
    }
    let cluster = Cluster::start(&["--leader-elect-retry-period=1"], |ends| {
        until("a leader", || !holder(ends, 0).is_empty());
    });
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = request(&key, "jane", &[]);
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    for number in 0..10 {
        let name = format!("c{number}");
        let server = number % super::SERVERS;
        let asked = asked(&name, ("kube-apiserver-client", &["client auth"]), &pem);
        assert_eq!(cluster.ends.ask(server, &format!("POST {path}"), &asked, "").0, 201);
        let approved = json!({"type": "Approved", "status": "True", "reason": "Test"});
        let mut request = cluster.ends.get(server, &format!("{path}/{name}"));
        request["status"]["conditions"] = json!([approved]);
        let words = format!("PUT {path}/{name}/approval");
        let (code, why) = cluster.ends.ask(server, &words, &request, "");
        assert_eq!(code, 200, "{why}");
    }
    let signed = |value: &Value| value["status"]["certificate"].is_string();
    let all = || {
        let list = cluster.ends.get(2, path);
        list["items"].as_array().expect("a list").iter().all(signed)
    };
    until("certificates", all);
    // Who signs, leads; and the refusals of those who sign in vain are not there.
    let refused = |server: usize| {
        let ask = Ask { words: "GET /metrics", ..Default::default() };
        let mut line = cluster.ends.open(server).expect("a connection");
        let text = line.text(ask).expect("an answer");
        let line = "verb=\"PUT\",resource=\"certificatesigningrequests\",code=\"409\"";
        text.contains(line)
    };
    sleep(Duration::from_secs(1));
    assert!((0..super::SERVERS).all(|server| !refused(server)));
}

/// A watch ends as one that has run its time, and what came before is told.
#[test]
fn what_is_under_way_is_ended_well() {
    if !possible() {
        return;
    }
    let alone = &[
        "--without=scheduler,controllers",
        "--disable-admission-plugins=ServiceAccount",
        "--shutdown-delay-duration=2",
    ];
    let mut cluster = Cluster::start(alone, |_| {});
    let ends = cluster.ends.clone();
    let list = ends.get(0, MAPS);
    let from = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = ends.open(0).expect("a connection");
    let path = format!("{MAPS}?watch=1&resourceVersion={from}");
    assert_eq!(watch.watch(&path).expect("a watch"), 200);
    cluster.signal(0, Signal::SIGTERM);
    until("it is not ready", || ends.ask(0, "GET /readyz", &Value::Null, "").0 == 500);
    assert_eq!(ends.ask(0, "GET /livez", &Value::Null, "").0, 200);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}});
    assert_eq!(ends.ask(0, &format!("POST {MAPS}"), &map, "").0, 201, "it serves meanwhile");
    let event = watch.event().expect("text").expect("an event");
    assert_eq!(event["object"]["metadata"]["name"], "late");
    // A request of which the server has only a part when it takes no more.
    let body = r#"{"metadata":{"name":"last"}}"#;
    let length = body.len();
    let head = format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut slow = ends.open(0).expect("a connection");
    slow.raw(&format!("{head}{}", &body[..10])).expect("sent");
    assert_eq!(watch.event().expect("its end, not a broken line"), None);
    until("nobody more comes in", || ends.open(0).is_err());
    slow.raw(&body[10..]).expect("sent");
    assert_eq!(slow.answer().expect("an answer").0, 201);
    assert_eq!(cluster.servers[0].take().map(Server::wait), Some(Some(0)));
    assert_eq!(ends.ask(1, &format!("GET {MAPS}/last"), &Value::Null, "").0, 200);
}
