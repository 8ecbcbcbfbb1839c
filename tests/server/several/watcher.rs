//! A watch that goes on at another server whenever the one it has is gone.

use super::{Ends, MAPS, SERVERS};
use serde_json::Value;
use std::io;
use std::time::{Duration, Instant};

/// Type, name, uid and version.
pub type Told = (String, String, String, u64);

pub fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    text.parse().expect("a version")
}

/// All that is told of ConfigMaps after this version, up to the object `end`.
pub fn follow(ends: &Ends, first: usize, from: u64) -> Vec<Told> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = events(ends, MAPS, (first, from), |object| object["metadata"]["name"] == "end");
    let told = events.iter().map(|event| {
        let (object, meta) = (&event["object"], &event["object"]["metadata"]);
        (text(&event["type"]), text(&meta["name"]), text(&meta["uid"]), version(object))
    });
    told.collect()
}

/// The events of a list after a version, from this server first, up to one whose object is the
/// last.
pub fn events(
    ends: &Ends,
    list: &str,
    (first, from): (usize, u64),
    is_last: impl Fn(&Value) -> bool,
) -> Vec<Value> {
    let mut told: Vec<Value> = Vec::new();
    let (mut server, mut at) = (first, from);
    let end = Instant::now() + Duration::from_secs(120);
    while !told.last().is_some_and(|event| is_last(&event["object"])) {
        assert!(Instant::now() < end, "a watch to its end within 2 minutes: {:?}", told.last());
        // A server that began after this version knows nothing of what followed it.
        let _ = part(ends, list, server, &mut at, &mut told, &is_last);
        server = (server + 1) % SERVERS;
        std::thread::sleep(Duration::from_millis(20));
    }
    told
}

fn part(
    ends: &Ends,
    list: &str,
    server: usize,
    at: &mut u64,
    told: &mut Vec<Value>,
    is_last: &impl Fn(&Value) -> bool,
) -> io::Result<()> {
    let mut line = ends.open(server)?;
    if line.watch(&format!("{list}?watch=1&resourceVersion={at}"))? != 200 {
        return Ok(());
    }
    while let Some(event) = line.event()? {
        let object = &event["object"];
        if event["type"] == "ERROR" {
            assert_eq!(object["code"], 410, "{event}");
            return Ok(());
        }
        let new = version(object);
        assert!(new > *at, "server {server} repeats {event} after {at}");
        *at = new;
        let last = is_last(object);
        told.push(event);
        if last {
            return Ok(());
        }
    }
    Ok(())
}
