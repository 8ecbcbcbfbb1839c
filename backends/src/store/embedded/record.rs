//! The bytes of the tables: what a revision did, and which revisions a path has.

use crate::store::ROOT;
use kubesim_actors::objects::Object;
use kubesim_actors::objects::kinds::Interner;
use kubesim_actors::ports::store::{self, Change, StoreKey, Under};
use redb::TableDefinition;
use std::sync::Arc;

/// By revision and place in its transaction: what was done.
pub const LOG: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("log");
/// By path and revision: the place in the log, and whether the path ended there.
pub const INDEX: TableDefinition<&[u8], u32> = TableDefinition::new("index");
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

const DELETED: u8 = 0;
const PUT: u8 = 1;

/// The path of an object, from the root on.
pub fn full_path(key: &StoreKey) -> String {
    format!("{ROOT}/{}", store::path(key))
}

/// What all full paths of these begin with.
pub fn prefix(under: &Under) -> String {
    format!("{ROOT}/{}", store::below(under))
}

fn key_of(record: &Record<'_>, kinds: &mut Interner) -> Option<StoreKey> {
    let path = record.path.strip_prefix(ROOT)?.strip_prefix('/')?;
    store::key_of(path, record.value, kinds)
}

/// Paths hold no zero byte, so the versions of a path are beside each other, in order.
pub fn index_key(path: &str, revision: u64) -> Vec<u8> {
    [path.as_bytes(), &[0], &revision.to_be_bytes()].concat()
}

/// Path and revision.
pub fn read_index_key(key: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, revision) = key.split_last_chunk::<8>()?;
    let path = rest.strip_suffix(&[0])?;
    Some((path, u64::from_be_bytes(*revision)))
}

/// Where in its transaction a version of a path is, and whether the path ended there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub sub: u32,
    pub deleted: bool,
}

impl Place {
    pub fn to_number(self) -> u32 {
        self.sub << 1 | u32::from(self.deleted)
    }
    pub fn of_number(number: u32) -> Place {
        Place { sub: number >> 1, deleted: number & 1 == 1 }
    }
}

/// `value`: an object's bytes; `None` where the path ends.
pub fn to_record(path: &str, value: Option<&[u8]>) -> Vec<u8> {
    let flag = if value.is_some() { PUT } else { DELETED };
    let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
    [&[flag][..], &length.to_le_bytes()[..], path.as_bytes(), value.unwrap_or_default()].concat()
}

/// A record of the log, taken apart.
pub struct Record<'a> {
    pub path: &'a str,
    pub value: Option<&'a [u8]>,
}

impl Record<'_> {
    pub fn read(bytes: &[u8]) -> Option<Record<'_>> {
        let (flag, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (path, value) = rest.split_at_checked(length)?;
        let path = std::str::from_utf8(path).ok()?;
        match *flag {
            PUT => Some(Record { path, value: Some(value) }),
            DELETED if value.is_empty() => Some(Record { path, value: None }),
            _ => None,
        }
    }

    /// `None` if no kind of ours has the path: a newer version's, which is left alone.
    pub fn change(&self, revision: u64, kinds: &mut Interner) -> Result<Option<Change>, String> {
        let Some(key) = key_of(self, kinds) else { return Ok(None) };
        let Some(value) = self.value else { return Ok(Some(Change::Deleted { key, revision })) };
        object(&key, value, revision).map(|object| Some(Change::Put(object)))
    }

    /// The same of a path that there is, as it is stored.
    pub fn stored(&self, revision: u64, kinds: &mut Interner) -> Option<Stored> {
        let (key, value) = (key_of(self, kinds)?, self.value?.to_vec());
        Some(Stored { key, revision, value })
    }
}

/// An object that is not read yet.
pub struct Stored {
    key: StoreKey,
    revision: u64,
    value: Vec<u8>,
}

impl Stored {
    pub fn object(&self) -> Result<Arc<Object>, String> {
        object(&self.key, &self.value, self.revision)
    }
}

fn object(key: &StoreKey, value: &[u8], revision: u64) -> Result<Arc<Object>, String> {
    let at = || format!("{} at {revision}", full_path(key));
    let object =
        Object::from_bytes(key.0, value, revision).map_err(|why| format!("{}: {why}", at()))?;
    match object.key == key.1 {
        true => Ok(object.into()),
        false => Err(format!("{} is an object named {}", at(), object.key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_keys_come_back_as_they_went() {
        for value in [Some(&b"{}"[..]), None] {
            let bytes = to_record("/registry/pods/a/b", value);
            let record = Record::read(&bytes).expect("a record");
            assert_eq!((record.path, record.value), ("/registry/pods/a/b", value));
            assert!((0..bytes.len() - 2).all(|end| Record::read(&bytes[..end]).is_none()));
        }
        let key = index_key("/registry/pods/a/b", 1 << 40);
        assert_eq!(read_index_key(&key), Some((&b"/registry/pods/a/b"[..], 1 << 40)));
        assert!(key < index_key("/registry/pods/a/b", (1 << 40) + 1));
        assert!(index_key("/a/b", u64::MAX) < index_key("/a/b-c", 0));
        let place = Place { sub: 7, deleted: true };
        assert_eq!(Place::of_number(place.to_number()), place);
    }
}
