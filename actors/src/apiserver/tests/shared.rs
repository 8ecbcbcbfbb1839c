//! A store that another server writes to: what it wrote is there at once, and told when the test
//! says so.

use super::*;
use crate::apiserver::Hold;
use crate::ports::api::Reason;
use crate::ports::store::{Op, Under};
use serde_json::json;

fn shared() -> Rig {
    let mut rig = Rig::starting(Config { shared: true, ..config() });
    rig.store = Store::with_history();
    rig.run();
    rig
}

fn map(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"text": text},
           "metadata": {"name": name, "namespace": "default"}})
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn create(manifest: Value) -> Request {
    Request::Create { object: Arc::new(Object::from_json(manifest).expect("a manifest")) }
}

fn lease(holder: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
           "metadata": {"name": "kube-scheduler", "namespace": "kube-system"},
           "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}})
}

impl Rig {
    /// The other server writes.
    fn elsewhere(&mut self, manifest: Value) {
        let value = Arc::new(Object::from_json(manifest).expect("a manifest"));
        let key = (value.kind(), value.key.clone());
        let then = vec![Op::Put { key, value }];
        self.store.request(&store::Request::Txn { id: 0, compare: Vec::new(), then });
    }

    /// What happened is told, and what follows of that is done.
    fn tell(&mut self) {
        let told = self.store.changes(0, &Under::All, self.cache.revision + 1);
        self.reply(told);
        self.run();
    }

    /// What the other server does, one request after the other.
    fn does_elsewhere(&mut self, other: &mut Rig) {
        std::mem::swap(&mut self.store, &mut other.store);
        other.tell();
        other.run();
        other.tell();
        std::mem::swap(&mut self.store, &mut other.store);
    }

    fn leased(&mut self, request: Request, holder: &str) -> u64 {
        self.calls += 1;
        let id = RequestId { connection: 1, call: self.calls };
        let lease = Key::new("kube-system", "kube-scheduler");
        let hold = Arc::new(Hold { lease, holder: holder.into() });
        let request = Arc::new(request);
        self.step(|server, ctx| server.handle(Event::Leased { id, request, hold }, ctx));
        id.call
    }

    fn reason(&self, call: u64) -> Option<Reason> {
        self.answers.get(&call).and_then(|answer| answer.as_ref().err()).map(|error| error.reason)
    }

    fn text(&self, name: &str) -> Option<String> {
        let object = self.get(Kind::ConfigMap, &key(name))?;
        object.to_json()["data"]["text"].as_str().map(str::to_owned)
    }
}

#[test]
fn what_another_writes_is_published_at_its_revision() {
    let mut rig = shared();
    let before = rig.cache.revision;
    rig.elsewhere(map("x", "1"));
    rig.tell();
    assert_eq!((rig.cache.revision, rig.text("x").as_deref()), (before + 1, Some("1")));
    assert!(rig.cache.last.is_some(), "one change, and it is named");
    rig.elsewhere(map("x", "2"));
    rig.elsewhere(map("y", "1"));
    rig.tell();
    assert_eq!((rig.cache.revision, rig.text("x").as_deref()), (before + 3, Some("2")));
    assert_eq!(rig.get(Kind::ConfigMap, &key("y")).map(|y| y.version), Some(before + 3));
}

#[test]
fn ours_is_published_after_what_another_wrote_before_it() {
    let mut rig = shared();
    let before = rig.cache.revision;
    rig.elsewhere(map("x", "1"));
    let call = rig.send(create(map("y", "1")));
    rig.run();
    assert_eq!(rig.cache.revision, before);
    assert!(rig.answers.is_empty(), "what is not published is not answered");
    rig.tell();
    assert_eq!(rig.cache.revision, before + 2);
    assert!(rig.answers[&call].is_ok());
    // It is told of our own as well, which is no news.
    let told = rig.store.changes(0, &Under::All, before + 1);
    rig.reply(told);
    assert_eq!(rig.cache.revision, before + 2);
}

#[test]
fn what_is_told_before_it_is_answered_is_answered_once() {
    let mut rig = shared();
    let call = rig.send(create(map("x", "1")));
    let request = rig.outgoing.remove(0);
    let answer = rig.store.request(&request);
    rig.tell();
    assert_eq!(rig.text("x").as_deref(), Some("1"));
    assert!(rig.answers.is_empty());
    rig.reply(answer);
    assert!(rig.answers[&call].is_ok());
    let same = rig.object(create(map("x", "1")));
    assert!(same.is_err_and(|why| why.contains("already exists")), "its lane is open again");
}

#[test]
fn a_read_as_of_now_waits_for_what_was_acknowledged_elsewhere() {
    let mut rig = shared();
    let read = || Request::Get { kind: Kind::ConfigMap, key: key("x") };
    let known = rig.call(read());
    assert!(known.is_err_and(|error| error.reason == Reason::NotFound), "nothing is to be told");
    rig.elsewhere(map("x", "1"));
    let call = rig.send(read());
    // Asked later, it waits for an answer to a later question.
    let later = rig.send(read());
    rig.run();
    assert!(rig.answers.is_empty());
    rig.tell();
    assert!(rig.answers[&call].is_ok() && rig.answers[&later].is_ok());
}

#[test]
fn a_refusal_is_for_what_is_stored_now() {
    let mut rig = shared();
    rig.elsewhere(map("x", "1"));
    // Known here as missing, there as made.
    let patch = json!({"data": {"text": "2"}});
    let (kind, subresource) = (Kind::ConfigMap, Subresource::Main);
    let call = rig.send(Request::Patch { kind, key: key("x"), subresource, patch });
    rig.run();
    assert!(rig.answers.is_empty());
    rig.tell();
    assert!(rig.answers[&call].is_ok());
    rig.tell();
    assert_eq!(rig.text("x").as_deref(), Some("2"));
    // And what is the same here may be another there.
    rig.elsewhere(map("x", "3"));
    let patch = json!({"data": {"text": "2"}});
    let call = rig.send(Request::Patch { kind, key: key("x"), subresource, patch });
    rig.run();
    rig.tell();
    assert!(rig.answers[&call].is_ok());
    assert_eq!(rig.text("x").as_deref(), Some("2"));
}

#[test]
fn a_question_without_an_answer_is_asked_again() {
    let mut rig = shared();
    let call = rig.send(Request::Get { kind: Kind::ConfigMap, key: key("x") });
    rig.outgoing.clear();
    rig.timeout(Timer::Retry);
    rig.run();
    assert_eq!(rig.reason(call), Some(Reason::NotFound));
}

/// The write has left when another one takes the lease: what counts is what the store has.
#[test]
fn who_leads_no_more_writes_no_more_however_late() {
    let mut rig = shared();
    rig.elsewhere(lease("a"));
    rig.tell();
    let call = rig.leased(create(map("x", "1")), "a");
    rig.run();
    assert!(rig.answers[&call].is_ok());
    let late = rig.leased(create(map("y", "1")), "a");
    rig.elsewhere(lease("b"));
    rig.run();
    assert!(!rig.answers.contains_key(&late), "the store knew better of the lease");
    rig.tell();
    assert_eq!(rig.reason(late), Some(Reason::Conflict));
    let later = rig.leased(create(map("y", "1")), "a");
    rig.run();
    assert_eq!(rig.reason(later), Some(Reason::Conflict));
    assert_eq!(rig.text("y"), None);
    let call = rig.leased(create(map("y", "1")), "b");
    rig.run();
    assert!(rig.answers[&call].is_ok());
}

/// A holder that renews meanwhile is the same one.
#[test]
fn a_renewed_lease_is_held_still() {
    let mut rig = shared();
    rig.elsewhere(lease("a"));
    rig.tell();
    let call = rig.leased(create(map("x", "1")), "a");
    rig.elsewhere(lease("a"));
    rig.run();
    rig.tell();
    assert!(rig.answers[&call].is_ok(), "{:?}", rig.answers);
}

fn service(name: &str, ip: Option<&str>, node_port: Option<u16>) -> Request {
    let port = json!({"port": 80, "nodePort": node_port});
    create(json!({"apiVersion": "v1", "kind": "Service",
                  "metadata": {"name": name, "namespace": "default"},
                  "spec": {"type": if node_port.is_some() { "NodePort" } else { "ClusterIP" },
                           "clusterIP": ip, "ports": [port]}}))
}

fn given(rig: &Rig, name: &str) -> (String, Value) {
    let object = rig.get(Kind::Service, &key(name)).expect(name).to_json();
    let spec = &object["spec"];
    (
        spec["clusterIP"].as_str().unwrap_or_default().to_owned(),
        spec["ports"][0]["nodePort"].clone(),
    )
}

/// The other server's dice are the same ones, so both draw the same address at first.
#[test]
fn two_servers_never_give_one_address_twice() {
    let (mut rig, mut other) = (shared(), shared());
    other.store = rig.store.clone();
    for number in 0..20 {
        let (ours, theirs) = (format!("a{number}"), format!("b{number}"));
        // Both have judged before either is stored.
        let first = rig.send(service(&ours, None, None));
        let second = other.send(service(&theirs, None, None));
        rig.does_elsewhere(&mut other);
        rig.run();
        rig.tell();
        rig.does_elsewhere(&mut other);
        assert!(rig.answers[&first].is_ok() && other.answers[&second].is_ok());
        assert_ne!(given(&rig, &ours).0, given(&rig, &theirs).0);
        assert_eq!(given(&other, &theirs), given(&rig, &theirs));
    }
}

#[test]
fn who_asks_for_an_address_or_a_port_that_another_server_just_gave_is_refused() {
    let (mut rig, mut other) = (shared(), shared());
    other.store = rig.store.clone();
    for (name, ip, port) in [("ip", Some("10.96.0.77"), None), ("port", None, Some(30_007))] {
        let (ours, theirs) = (format!("a-{name}"), format!("b-{name}"));
        let first = rig.send(service(&ours, ip, port));
        let second = other.send(service(&theirs, ip, port));
        rig.does_elsewhere(&mut other);
        rig.run();
        rig.tell();
        assert!(other.answers[&second].is_ok());
        let why = rig.answers[&first].as_ref().expect_err("it is given").message.clone();
        assert!(why.contains("already allocated"), "{why}");
        assert!(rig.get(Kind::Service, &key(&ours)).is_none());
    }
}
