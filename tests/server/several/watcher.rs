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

/// All that is told after this version, up to the object `end`.
pub fn follow(ends: &Ends, first: usize, from: u64) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    let (mut server, mut at) = (first, from);
    let end = Instant::now() + Duration::from_secs(120);
    while told.last().is_none_or(|(_, name, ..)| name != "end") {
        assert!(Instant::now() < end, "a watch to its end within 2 minutes: {:?}", told.last());
        // A server that began after this version knows nothing of what followed it.
        let _ = part(ends, server, &mut at, &mut told);
        server = (server + 1) % SERVERS;
        std::thread::sleep(Duration::from_millis(20));
    }
    told
}

fn part(ends: &Ends, server: usize, at: &mut u64, told: &mut Vec<Told>) -> io::Result<()> {
    let mut line = ends.open(server)?;
    if line.watch(&format!("{MAPS}?watch=1&resourceVersion={at}"))? != 200 {
        return Ok(());
    }
    while let Some(event) = line.event()? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (what, object) = (text(&event["type"]), &event["object"]);
        if what == "ERROR" {
            assert_eq!(object["code"], 410, "{event}");
            return Ok(());
        }
        let new = version(object);
        assert!(new > *at, "server {server} repeats {event} after {at}");
        *at = new;
        let meta = &object["metadata"];
        told.push((what, text(&meta["name"]), text(&meta["uid"]), new));
        if meta["name"] == "end" {
            return Ok(());
        }
    }
    Ok(())
}
