//! A long text made of others' texts, which it shares: from here to where it is encrypted it is
//! nowhere as a whole.

use bytes::{Buf, Bytes};
use std::io::IoSlice;
use std::vec::IntoIter;

#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// What is left of the one that is being taken: something, unless nothing is left at all.
    part: Bytes,
    parts: IntoIter<Bytes>,
    len: usize,
}

impl From<Bytes> for Pieces {
    fn from(part: Bytes) -> Pieces {
        Pieces { len: part.len(), part, parts: IntoIter::default() }
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(parts: Vec<Bytes>) -> Pieces {
        let len = parts.iter().map(Bytes::len).sum();
        let mut pieces = Pieces { part: Bytes::new(), parts: parts.into_iter(), len };
        pieces.go_on();
        pieces
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

    /// The next bytes: so many, or all that are left.
    pub fn split(&mut self, most: usize) -> Pieces {
        if most >= self.len {
            return std::mem::take(self);
        }
        let len = self.len - most;
        let mut parts = Vec::new();
        while self.len > len {
            let more = self.part.len().min(self.len - len);
            parts.push(self.part.split_to(more));
            self.len -= more;
            self.go_on();
        }
        parts.into()
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

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        &self.part
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = std::iter::once(&self.part).chain(self.parts.as_slice());
        let parts = parts.filter(|part| !part.is_empty());
        let each = slices.iter_mut().zip(parts);
        each.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "{count} bytes are taken of {}", self.len);
        self.len -= count;
        while count > 0 {
            let more = self.part.len().min(count);
            self.part.advance(more);
            count -= more;
            self.go_on();
        }
    }

    /// Those of one text are not copied.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        let mut pieces = self.split(count);
        assert!(pieces.len == count, "{count} bytes are taken of {}", pieces.len);
        if pieces.parts.as_slice().is_empty() {
            return std::mem::take(&mut pieces.part);
        }
        pieces.parts().collect::<Vec<_>>().concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some(parts: &[String]) -> Pieces {
        let parts = parts.iter().map(|part| Bytes::copy_from_slice(part.as_bytes()));
        parts.collect::<Vec<_>>().into()
    }

    proptest! {
        #[test]
        fn all_is_taken_in_its_order(
            parts in prop::collection::vec("[a-z]{0,9}", 0..9),
            most in 1..20_usize,
            room in 1..5_usize,
        ) {
            let whole = parts.concat();
            let mut pieces = some(&parts);
            prop_assert_eq!(pieces.len(), whole.len());
            let (mut taken, mut written) = (String::new(), Vec::new());
            while !pieces.is_empty() {
                let mut piece = pieces.split(most);
                prop_assert_eq!(piece.len(), most.min(whole.len() - taken.len()));
                let copied = piece.clone().copy_to_bytes(piece.len());
                taken += std::str::from_utf8(&copied).expect("ASCII");
                // As a socket takes it that has little room.
                while piece.has_remaining() {
                    let mut slices = [IoSlice::new(&[]); 3];
                    let count = piece.chunks_vectored(&mut slices);
                    prop_assert!(count > 0 && slices[..count].iter().all(|one| !one.is_empty()));
                    prop_assert_eq!(&slices[0][..], piece.chunk());
                    let all: Vec<&[u8]> = slices[..count].iter().map(|slice| &slice[..]).collect();
                    let all = all.concat();
                    let fits = all.len().min(room);
                    written.extend_from_slice(&all[..fits]);
                    piece.advance(fits);
                }
            }
            prop_assert_eq!(&taken, &whole);
            prop_assert_eq!(written, whole.as_bytes());
            prop_assert!(pieces.split(most).is_empty() && pieces.chunk().is_empty());
        }
    }

    #[test]
    fn what_is_taken_is_shared() {
        let (one, other) = (Bytes::from(vec![b'a'; 9]), Bytes::from(vec![b'b'; 9]));
        let mut pieces = Pieces::from(vec![one.clone(), Bytes::new(), other.clone()]);
        let first = pieces.split(12);
        let places: Vec<_> = first.parts().map(|part| part.as_ptr()).collect();
        assert_eq!(places, [one.as_ptr(), other.as_ptr()]);
        assert_eq!(pieces.copy_to_bytes(6).as_ptr(), other[3..].as_ptr());
    }
}
