//! One line of a watch's answer (apimachinery `pkg/apis/meta/v1/watch.go`, `WatchEvent`).

use bytes::Bytes;

/// `{"type":"ADDED","object":{…}}`. The text of the object is part of it, so that both are there
/// once.
#[derive(Clone, Debug)]
pub struct Event {
    line: Bytes,
    what: &'static str,
}

const TYPE: &[u8] = b"{\"type\":\"";
const OBJECT: &[u8] = b"\",\"object\":";
const END: &[u8] = b"}\n";

impl Event {
    /// `object` is JSON.
    pub fn new(what: &'static str, object: &[u8]) -> Event {
        Event::with(what, object.len(), |line| line.extend_from_slice(object))
    }

    /// `object` adds JSON, of about so many bytes.
    pub fn with(what: &'static str, size: usize, object: impl FnOnce(&mut Vec<u8>)) -> Event {
        let around = TYPE.len() + what.len() + OBJECT.len() + END.len();
        let mut line = Vec::with_capacity(around + size);
        for part in [TYPE, what.as_bytes(), OBJECT] {
            line.extend_from_slice(part);
        }
        object(&mut line);
        line.extend_from_slice(END);
        Event { line: line.into(), what }
    }

    pub fn line(&self) -> &Bytes {
        &self.line
    }

    pub fn into_line(self) -> Bytes {
        self.line
    }

    /// The object's text, without a copy.
    pub fn object(&self) -> Bytes {
        let begins = TYPE.len() + self.what.len() + OBJECT.len();
        self.line.slice(begins..self.line.len() - END.len())
    }

    /// The same as another event: a watch that selects may see an object come where others see it
    /// change.
    pub fn told_as(&self, what: &'static str) -> Event {
        if what == self.what { self.clone() } else { Event::new(what, &self.object()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_text_is_part_of_the_line() {
        let event = Event::new("MODIFIED", b"{\"kind\":\"Pod\"}");
        let line = b"{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Pod\"}}\n";
        assert_eq!(&event.line()[..], line);
        assert_eq!(&event.object()[..], b"{\"kind\":\"Pod\"}");
        assert_eq!(event.told_as("MODIFIED").line().as_ptr(), event.line().as_ptr(), "no copy");
        let added = event.told_as("ADDED");
        assert_eq!(&added.line()[..], b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\"}}\n");
        assert_eq!(added.object(), event.object());
    }
}
