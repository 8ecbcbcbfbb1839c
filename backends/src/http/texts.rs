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
    pub fn of(&mut self, object: &Object) -> Bytes {
        match self.known.get(&object.uid) {
            Some((version, text)) if *version == object.version => text.clone(),
            newer if newer.is_some_and(|(version, _)| *version > object.version) => {
                // A page of an older version.
                object.to_text().into()
            }
            _ => {
                let text = Bytes::from(object.to_text());
                self.keep(object, text.clone());
                text
            }
        }
    }

    /// There is a newer version of an object, or none any more. What nobody asked for is not kept.
    pub fn changed(&mut self, old: Option<&Arc<Object>>, new: Option<(&Arc<Object>, &Bytes)>) {
        let Some(old) = old else { return };
        let Some((_, text)) = self.known.remove(&old.uid) else { return };
        self.bytes -= text.len();
        if let Some((new, text)) = new.filter(|(new, _)| new.uid == old.uid) {
            self.keep(new, text.clone());
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
        let first = texts.of(&old);
        assert_eq!(first, old.to_text());
        assert_eq!(texts.of(&old).as_ptr(), first.as_ptr(), "written once");
        let text = Bytes::from(new.to_text());
        texts.changed(Some(&old), Some((&new, &text)));
        assert_eq!(texts.of(&new).as_ptr(), text.as_ptr());
        assert_eq!(texts.of(&old), first, "of a page that goes on in its version");
        assert_eq!(texts.of(&new).as_ptr(), text.as_ptr(), "which takes no place");
        texts.changed(Some(&new), None);
        assert_eq!((texts.known.len(), texts.bytes), (0, 0));
        texts.changed(None, Some((&new, &text)));
        assert_eq!(texts.bytes, 0, "nobody has asked");
    }
}
