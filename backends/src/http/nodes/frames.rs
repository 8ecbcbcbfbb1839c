//! WebSocket as its server (RFC 6455), as far as kubectl needs it: messages in frames.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What every server appends to a client's key (section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CONTINUED: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// A message is not longer.
const LARGEST: usize = 1 << 20;

/// `Sec-WebSocket-Accept` to a client's `Sec-WebSocket-Key` (section 4.2.2).
pub fn accept(key: &str) -> String {
    let both = format!("{key}{GUID}");
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, both.as_bytes()))
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    Message(Bytes),
    /// To be answered with the same.
    Ping(Bytes),
    Close,
}

/// A message, in one frame.
pub fn message(parts: &[&[u8]]) -> Bytes {
    frame(BINARY, parts)
}

pub fn pong(said: &[u8]) -> Bytes {
    frame(PONG, &[said])
}

/// All was said (section 7.4.1: 1000): clients take another end for a failure.
pub fn goodbye() -> Bytes {
    frame(CLOSE, &[&1000_u16.to_be_bytes()])
}

fn frame(kind: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(10 + length);
    out.put_u8(0x80 | kind);
    match length {
        0..126 => out.put_u8(length as u8),
        126..0x1_0000 => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    parts.iter().for_each(|part| out.put_slice(part));
    out.freeze()
}

/// Reads what comes, in whatever pieces.
#[derive(Debug, Default)]
pub struct Reader {
    rest: BytesMut,
    /// Of a message that goes on.
    begun: Option<BytesMut>,
}

impl Reader {
    pub fn add(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The next of what has come so far. The error says what was not WebSocket.
    pub fn next(&mut self) -> Result<Option<Came>, String> {
        while let Some((first, mut said)) = self.frame()? {
            let (last, kind) = (first & 0x80 != 0, first & 0x0f);
            match kind {
                CLOSE => return Ok(Some(Came::Close)),
                PING => return Ok(Some(Came::Ping(said.freeze()))),
                PONG => continue,
                CONTINUED => {
                    let mut begun =
                        self.begun.take().ok_or("a message goes on that has not begun")?;
                    if begun.len() + said.len() > LARGEST {
                        return Err(format!("a message of more than {LARGEST} bytes"));
                    }
                    begun.extend_from_slice(&said);
                    said = begun;
                }
                TEXT | BINARY if self.begun.is_none() => {}
                TEXT | BINARY => return Err("a message within another".to_owned()),
                other => return Err(format!("a frame of the kind {other}")),
            }
            if last {
                return Ok(Some(Came::Message(said.freeze())));
            }
            self.begun = Some(said);
        }
        Ok(None)
    }

    /// A frame's first byte, and what it says.
    fn frame(&mut self) -> Result<Option<(u8, BytesMut)>, String> {
        let [first, second, ..] = self.rest[..] else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err("a frame with bits of an extension".to_owned());
        }
        // Section 5.1: whoever does not mask is no client.
        if second & 0x80 == 0 {
            return Err("a frame that is not masked".to_owned());
        }
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let head = 2 + wide + 4;
        if self.rest.len() < head {
            return Ok(None);
        }
        let mut at = &self.rest[2..];
        let length = match wide {
            0 => u64::from(second & 0x7f),
            2 => u64::from(at.get_u16()),
            _ => at.get_u64(),
        };
        let control = first & 0x08 != 0;
        if control && (length > 125 || first & 0x80 == 0) {
            return Err(format!("a control frame of {length} bytes, or in parts"));
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST);
        let length = length.ok_or_else(|| format!("a message of more than {LARGEST} bytes"))?;
        let mask = at.get_u32().to_be_bytes();
        if self.rest.len() < head + length {
            return Ok(None);
        }
        self.rest.advance(head);
        let mut said = self.rest.split_to(length);
        said.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Some((first, said)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As a client sends it.
    fn masked(kind: u8, last: bool, said: &[u8]) -> Vec<u8> {
        let mut out = frame(kind, &[said]).to_vec();
        let head = out.len() - said.len();
        out[0] = if last { 0x80 | kind } else { kind };
        out[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        let body: Vec<u8> = said.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
        [&out[..head], &mask, &body].concat()
    }

    fn read(bytes: &[u8], size: usize) -> Result<Vec<Came>, String> {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(size.max(1)) {
            reader.add(piece);
            while let Some(came) = reader.next()? {
                all.push(came);
            }
        }
        Ok(all)
    }

    #[test]
    fn a_key_is_accepted_as_the_rfc_has_it() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_come_in_parts_with_pings_between() {
        let all = [
            masked(BINARY, false, b"ab"),
            masked(PING, true, b"p"),
            masked(CONTINUED, true, b"c"),
            masked(PONG, true, b""),
            masked(CLOSE, true, &[3, 232]),
        ];
        let whole = |text: &'static [u8]| Bytes::from_static(text);
        let came = vec![Came::Ping(whole(b"p")), Came::Message(whole(b"abc")), Came::Close];
        for size in 1..20 {
            assert_eq!(read(&all.concat(), size), Ok(came.clone()));
        }
        assert_eq!(&goodbye()[..], [0x88, 2, 3, 232]);
        assert_eq!(&pong(b"p")[..], [0x8a, 1, b'p']);
    }

    #[test]
    fn what_is_no_clients_is_refused() {
        for wrong in [
            message(&[b"a"]).to_vec(),
            masked(CONTINUED, true, b"a"),
            [masked(BINARY, false, b"a"), masked(TEXT, true, b"b")].concat(),
            masked(3, true, b""),
            masked(PING, false, b""),
            masked(PING, true, &[0; 126]),
            masked(BINARY, true, &vec![0; LARGEST + 1]),
            vec![0xc2, 0x80, 0, 0, 0, 0],
            vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        ] {
            assert!(read(&wrong, 1 << 16).is_err(), "{:?}", &wrong[..wrong.len().min(9)]);
        }
    }

    proptest! {
        #[test]
        fn what_is_said_is_read(
            all in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..70_000), 0..4),
            size in 1_usize..9_000,
        ) {
            let sent: Vec<u8> = all.iter().flat_map(|one| masked(BINARY, true, one)).collect();
            let came: Vec<Came> = all.into_iter().map(|one| Came::Message(one.into())).collect();
            prop_assert_eq!(read(&sent, size), Ok(came));
        }

        #[test]
        fn anything_is_read_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..40,
        ) {
            let _ = read(&bytes, size);
        }
    }
}
