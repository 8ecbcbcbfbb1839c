//! Events last an hour.

use super::*;
use serde_json::json;

const HOUR: u64 = 3600;

fn event(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event",
           "metadata": {"name": name, "namespace": "default"},
           "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
           "reason": "Started", "message": "", "type": "Normal", "count": 1})
}

/// Passes the time and wakes the server when it wants to be, a minute at a time.
fn pass(rig: &mut Rig, seconds: u64) {
    for _ in 0..seconds / 60 {
        rig.pass(60);
        while rig.expires.take_if(|at| *at <= rig.now).is_some() {
            rig.timeout(Timer::Expire);
            rig.run();
        }
    }
}

fn there(rig: &Rig) -> Vec<String> {
    let events = rig.cache.views[&Kind::Event].values();
    events.map(|event| event.key.name.to_string()).collect()
}

#[test]
fn an_event_goes_an_hour_after_it_was_written_last() {
    let mut rig = Rig::new();
    assert_eq!(rig.expires, None, "nobody is woken for nothing");
    for name in ["a", "b"] {
        rig.create(event(name)).unwrap();
    }
    pass(&mut rig, HOUR / 2);
    let (key, patch) = (Key::new("default", "b"), json!({"count": 2}));
    rig.patch(Kind::Event, key, Subresource::Main, patch).unwrap();
    pass(&mut rig, HOUR / 2 - 60);
    assert_eq!(there(&rig), ["a", "b"]);
    pass(&mut rig, 120);
    assert_eq!(there(&rig), ["b"], "it was written again");
    pass(&mut rig, HOUR / 2);
    assert_eq!((there(&rig), rig.expires), (Vec::new(), None));
}

#[test]
fn a_server_that_starts_anew_counts_on_from_what_they_say() {
    let mut rig = Rig::new();
    rig.create(event("a")).unwrap();
    pass(&mut rig, HOUR / 2);
    rig.expires = None;
    rig.restart();
    rig.run();
    pass(&mut rig, HOUR / 2 - 60);
    assert_eq!(there(&rig), ["a"]);
    pass(&mut rig, 120);
    assert_eq!(there(&rig), Vec::<String>::new());
}

#[test]
fn however_many_there_are_they_go() {
    let mut rig = Rig::new();
    for number in 0..250 {
        rig.create(event(&format!("e{number}"))).unwrap();
    }
    pass(&mut rig, HOUR + 180);
    assert_eq!(there(&rig).len(), 0);
}
