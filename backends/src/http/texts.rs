//! Objects as text. Each is written once in a version, for all who list and get it, and kept as
//! long as it is the newest one and there is room.

use bytes::Bytes;
use kubesim_actors::objects::{Object, Uid};
use std::collections::HashMap;
use std::sync::Arc;

/// Of texts that are kept, together.
const MOST: usize = 128 << 20;

#[derive(Debug, Default)]
pub struct Texts {
    known: HashMap<Uid, (u64, Bytes)>,
    bytes: usize,
}

impl Texts {
    /// The text of an object; `write` makes it if it is not there.
    pub fn of(&mut self, object: &Object, write: impl FnOnce() -> Bytes) -> Bytes {
        match self.known.get(&object.uid) {
            Some((version, text)) if *version == object.version => text.clone(),
            // A page of an older version.
            Some((version, _)) if *version > object.version => write(),
            _ => {
                let text = write();
                self.keep(object, text.clone());
                text
            }
        }
    }

    /// There is a newer version of an object, or none any more. What nobody asked for is not kept.
    pub fn changed(
        &mut self,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        text: impl FnOnce() -> Bytes,
    ) {
        let Some(old) = old else { return };
        let Some((_, before)) = self.known.remove(&old.uid) else { return };
        self.bytes -= before.len();
        if let Some(new) = new.filter(|new| new.uid == old.uid) {
            self.keep(new, text());
        }
    }

    fn keep(&mut self, object: &Object, text: Bytes) {
        if self.bytes + text.len() > MOST {
            // Whoever asks again fills it again.
            self.clear();
        }
        self.bytes += text.len();
        if let Some((_, old)) = self.known.insert(object.uid, (object.version, text)) {
            self.bytes -= old.len();
        }
    }

    pub fn clear(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_actors::objects::{Body, Key};

    fn object(version: u64) -> Arc<Object> {
        let mut object = Object::new(Key::new("x", "a"), Body::ConfigMap(Arc::default()));
        (object.uid, object.version) = (Uid(7), version);
        Arc::new(object)
    }

    #[test]
    fn a_text_is_of_its_version_and_goes_with_it() {
        let mut texts = Texts::default();
        let (old, new) = (object(1), object(2));
        let written = |object: &Arc<Object>| Bytes::from(object.to_text());
        let first = texts.of(&old, || written(&old));
        assert_eq!(first, old.to_text());
        let again = texts.of(&old, || panic!("written once"));
        assert_eq!(again.as_ptr(), first.as_ptr());
        let text = Bytes::from(new.to_text());
        texts.changed(Some(&old), Some(&new), || text.clone());
        let newest = |texts: &mut Texts| texts.of(&new, || panic!("it is there")).as_ptr();
        assert_eq!(newest(&mut texts), text.as_ptr());
        let page = texts.of(&old, || written(&old));
        assert_eq!(page, first, "of a page that goes on in its version");
        assert_eq!(newest(&mut texts), text.as_ptr(), "which takes no place");
        texts.changed(Some(&new), None, || panic!("there is none"));
        assert_eq!((texts.known.len(), texts.bytes), (0, 0));
        texts.changed(None, Some(&new), || panic!("nobody wants it"));
        assert_eq!(texts.bytes, 0, "nobody has asked");
    }
}
