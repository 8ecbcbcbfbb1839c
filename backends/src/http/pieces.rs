//! A long text made of others' texts, which it shares: it is put together piece by piece as its
//! client takes it, and is nowhere as a whole.

use bytes::{Bytes, BytesMut};
use std::vec::IntoIter;

#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// What is left of the one that is being taken.
    part: Bytes,
    parts: IntoIter<Bytes>,
    len: usize,
}

impl From<Vec<Bytes>> for Pieces {
    fn from(parts: Vec<Bytes>) -> Pieces {
        let len = parts.iter().map(Bytes::len).sum();
        Pieces { part: Bytes::new(), parts: parts.into_iter(), len }
    }
}

impl Pieces {
    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn parts(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.part).chain(self.parts)
    }

    /// The next bytes: so many, or all that are left. They are a copy if they are of several texts.
    pub fn take(&mut self, most: usize) -> Bytes {
        let size = most.min(self.len);
        self.len -= size;
        self.go_on();
        if self.part.len() >= size {
            return self.part.split_to(size);
        }
        let mut piece = BytesMut::with_capacity(size);
        while piece.len() < size {
            let more = self.part.len().min(size - piece.len());
            piece.extend_from_slice(&self.part.split_to(more));
            self.go_on();
        }
        piece.freeze()
    }

    /// To the next one, if all of one was taken.
    fn go_on(&mut self) {
        while self.part.is_empty()
            && let Some(next) = self.parts.next()
        {
            self.part = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_is_taken_in_its_order(
            parts in prop::collection::vec("[a-z]{0,9}", 0..9),
            most in 1..20_usize,
        ) {
            let whole = parts.concat();
            let parts: Vec<Bytes> = parts.into_iter().map(Bytes::from).collect();
            let mut pieces = Pieces::from(parts);
            prop_assert_eq!(pieces.len(), whole.len());
            let mut taken = String::new();
            while !pieces.is_empty() {
                let piece = pieces.take(most);
                let text = std::str::from_utf8(&piece).expect("ASCII");
                prop_assert_eq!(text.len(), most.min(whole.len() - taken.len()));
                taken += text;
            }
            prop_assert_eq!(taken, whole);
            prop_assert!(pieces.take(most).is_empty());
        }
    }
}
