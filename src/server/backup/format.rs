//! The file of a backup: a line that says what it is, then frames (a letter, the length of what
//! follows in four bytes, least first, and that), the last of which has the SHA-256 of all before
//! it. So one that is torn has no end, and one that was altered another sum.
//!
//! | letter | what follows |
//! | --- | --- |
//! | `h` | [`Head`] as JSON; first and once |
//! | `f` | a file of the keys' directory: its name, a zero byte, what is in it |
//! | `o` | an object: revision (8 bytes), place in its transaction (4 bytes), the store's record |
//! | `e` | the sum; nothing comes after it |

use kubesim_backends::store::embedded::Entry;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

const MAGIC: &[u8] = b"kubesim backup 1\n";
/// What other versions' begin with as well.
const ANY: &[u8] = b"kubesim backup ";
/// No frame is longer; an object is 3 MB at most.
const LONGEST: u32 = 64 << 20;

/// Of which moment the backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of the store.
    pub revision: u64,
    /// When it was taken, in seconds since 1970.
    pub taken: u64,
    /// Who wrote it: `0.1.0`.
    pub kubesim: String,
}

/// What is in a backup, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Head(Head),
    File { name: String, text: String },
    Entry(Entry),
}

pub struct Writer<W> {
    out: W,
    sum: Sha256,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, sum: Sha256::new() };
        writer.all(MAGIC)?;
        Ok(writer)
    }

    pub fn part(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Head(head) => self.frame(b'h', &[&serde_json::to_vec(head)?]),
            Part::File { name, text } => {
                self.frame(b'f', &[name.as_bytes(), &[0], text.as_bytes()])
            }
            Part::Entry(entry) => self.entry(entry),
        }
    }

    pub fn entry(&mut self, Entry { revision, sub, record }: &Entry) -> io::Result<()> {
        self.frame(b'o', &[&revision.to_le_bytes(), &sub.to_le_bytes(), record])
    }

    /// Writes the end, and hands back what was written to.
    pub fn end(mut self) -> io::Result<W> {
        let sum = self.sum.clone().finalize();
        self.frame(b'e', &[&sum])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn frame(&mut self, letter: u8, pieces: &[&[u8]]) -> io::Result<()> {
        let length = u32::try_from(pieces.iter().map(|piece| piece.len()).sum::<usize>());
        let length = length.ok().filter(|length| *length <= LONGEST);
        let length =
            length.ok_or_else(|| io::Error::other("an object is too long for a backup"))?;
        self.all(&[letter])?;
        self.all(&length.to_le_bytes())?;
        pieces.iter().try_for_each(|piece| self.all(piece))
    }

    fn all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Tells the parts of a backup. What it told is true only once it has ended without an error: the
/// sum comes last.
pub struct Reader<R> {
    from: R,
    sum: Sha256,
    ended: bool,
}

impl<R: Read> Reader<R> {
    pub fn new(mut from: R) -> Result<Reader<R>, String> {
        let mut magic = [0; MAGIC.len()];
        let mut length = 0;
        while length < magic.len() {
            match from.read(&mut magic[length..]).map_err(unread)? {
                0 => break,
                more => length += more,
            }
        }
        if length < magic.len() && MAGIC.starts_with(&magic[..length]) {
            return Err(torn());
        } else if magic.starts_with(ANY) && magic != MAGIC {
            return Err("it is a backup of another version: a newer kubesim wrote it".to_owned());
        } else if magic != MAGIC {
            return Err("it is no backup of kubesim's".to_owned());
        }
        Ok(Reader { from, sum: Sha256::new_with_prefix(MAGIC), ended: false })
    }

    fn part(&mut self) -> Result<Option<Part>, String> {
        let sum = self.sum.clone();
        let head: [u8; 5] = self.exactly(5)?.try_into().map_err(|_| torn())?;
        let [letter, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(altered());
        }
        let bytes = self.exactly(length)?;
        match letter {
            b'h' => serde_json::from_slice(&bytes).map(|head| Some(Part::Head(head))).ok(),
            b'f' => file(bytes).map(Some),
            b'o' => entry(&bytes).map(Some),
            b'e' if sum.finalize()[..] == bytes => match self.from.read(&mut [0]) {
                Ok(0) => return Ok(None),
                Ok(_) => return Err("it was altered: something comes after its end".to_owned()),
                Err(error) => return Err(unread(error)),
            },
            _ => None,
        }
        .ok_or_else(altered)
    }

    fn exactly(&mut self, length: u32) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(u64::from(length)).read_to_end(&mut bytes);
        if read.map_err(unread)? < length as usize {
            return Err(torn());
        }
        self.sum.update(&bytes);
        Ok(bytes)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Part, String>;

    fn next(&mut self) -> Option<Result<Part, String>> {
        if self.ended {
            return None;
        }
        let part = self.part().transpose();
        self.ended = !matches!(part, Some(Ok(_)));
        part
    }
}

/// Reads all of one: when it was taken, and how many objects and files are in it.
pub fn verify(from: impl Read) -> Result<(Head, usize, Vec<String>), String> {
    let mut parts = Reader::new(from)?;
    let Some(Part::Head(head)) = parts.next().transpose()? else { return Err(altered()) };
    let (mut objects, mut files) = (0, Vec::new());
    for part in parts {
        match part? {
            Part::Head(_) => return Err(altered()),
            Part::File { name, .. } => files.push(name),
            Part::Entry(_) => objects += 1,
        }
    }
    Ok((head, objects, files))
}

fn file(bytes: Vec<u8>) -> Option<Part> {
    let text = String::from_utf8(bytes).ok()?;
    let (name, text) = text.split_once('\0')?;
    Some(Part::File { name: name.to_owned(), text: text.to_owned() })
}

fn entry(bytes: &[u8]) -> Option<Part> {
    let (revision, rest) = bytes.split_first_chunk()?;
    let (sub, record) = rest.split_first_chunk()?;
    let (revision, sub) = (u64::from_le_bytes(*revision), u32::from_le_bytes(*sub));
    Some(Part::Entry(Entry { revision, sub, record: record.to_vec() }))
}

fn torn() -> String {
    "it is torn: it has no end".to_owned()
}

fn altered() -> String {
    "it was altered: its sum is another one".to_owned()
}

fn unread(error: io::Error) -> String {
    format!("reading it: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Part> {
        let head = Head { revision: 7, taken: 1_700_000_000, kubesim: "0.1.0".to_owned() };
        let entry = |revision| Entry { revision, sub: 1, record: vec![1, 2, 3] };
        let file = Part::File { name: "ca.crt".to_owned(), text: "PEM".to_owned() };
        vec![Part::Head(head), file, Part::Entry(entry(5)), Part::Entry(entry(6))]
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).expect("begun");
        parts().iter().for_each(|part| writer.part(part).expect("written"));
        writer.end().expect("ended")
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written();
        let read: Result<Vec<_>, _> = Reader::new(&bytes[..]).expect("a backup").collect();
        assert_eq!(read, Ok(parts()));
        let (head, objects, files) = verify(&bytes[..]).expect("whole");
        assert_eq!((head.revision, objects, files), (7, 2, vec!["ca.crt".to_owned()]));
    }

    #[test]
    fn a_torn_one_is_refused_wherever_it_ends() {
        let bytes = written();
        for end in 0..bytes.len() {
            let why = verify(&bytes[..end]).expect_err("torn");
            assert!(why.contains("torn"), "at {end}: {why}");
        }
    }

    #[test]
    fn an_altered_one_is_refused_wherever_it_was() {
        let bytes = written();
        for place in 0..bytes.len() {
            let mut other = bytes.clone();
            other[place] ^= 0x40;
            assert!(verify(&other[..]).is_err(), "at {place}");
        }
        let more = [&bytes[..], b"x"].concat();
        assert!(verify(&more[..]).expect_err("longer").contains("after its end"));
        let newer = [b"kubesim backup 2\n", &bytes[MAGIC.len()..]].concat();
        assert!(verify(&newer[..]).expect_err("newer").contains("newer"));
        assert!(verify(&b"SQLite format 3\0, say"[..]).expect_err("other").contains("no backup"));
    }
}
