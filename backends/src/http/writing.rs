//! How objects are written, for whom.

use super::types;
use bytes::Bytes;
use kubesim_actors::objects::{Kind, Object};

/// What an object's text says of fields that hold nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// What Go's types say ([`types::write_go`]): what clients know from upstream's API server.
    Go,
    /// Nothing, as they are held and stored: for the components of this project, which take an
    /// object for the one that they wrote.
    Bare,
}

impl Writing {
    pub const ALL: [Writing; 2] = [Writing::Go, Writing::Bare];

    /// Adds the text of an object to `out`.
    pub fn write(self, object: &Object, out: &mut Vec<u8>) {
        self.rewrite(type_of(object.kind()), &object.to_text(), out);
    }

    pub fn text(self, object: &Object) -> Bytes {
        match self {
            Writing::Go => {
                let mut out = Vec::new();
                self.write(object, &mut out);
                out.into()
            }
            Writing::Bare => object.to_text().into(),
        }
    }

    /// Adds an object of this group, version and kind that is written as it is held.
    pub fn rewrite(self, of: (&str, &str, &str), bare: &[u8], out: &mut Vec<u8>) {
        match self {
            Writing::Go => {
                out.reserve(bare.len() + bare.len() / 8 + 64);
                types::write_go(types::of(of), bare, out);
            }
            Writing::Bare => out.extend_from_slice(bare),
        }
    }
}

fn type_of(kind: Kind) -> (&'static str, &'static str, &'static str) {
    (kind.group(), kind.version(), kind.name())
}
