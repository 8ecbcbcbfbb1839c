//! SPDY/3.1 as its client, as far as the runtimes of containers speak it (SPDY Protocol, draft 3.1;
//! github.com/moby/spdystream): streams are opened, data goes both ways, streams end. There is no
//! flow control: that of the connection below is all there is, and the peer's frames of it say
//! nothing.
//!
//! Headers go compressed: what is sent is a zlib stream of stored blocks, which needs no dictionary
//! (RFC 1950, section 2.2; RFC 1951, section 3.2.4). Of the peer's headers none is of use to a
//! client that opens all the streams, so none is read.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
const HEAD: usize = 8;
/// A control frame is not longer: those that are understood are short, and headers are few.
const LONGEST: usize = 64 << 10;
/// What a data frame of ours has at most.
const PIECE: usize = 32 << 10;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Of a stream, and whether it is its last: a frame comes in pieces as it arrives.
    Data { stream: u32, bytes: Bytes, last: bool },
    /// A stream was refused or broken off.
    Reset { stream: u32 },
    /// To be sent back as it is.
    Ping(u32),
    /// No more streams are taken.
    Goodbye,
}

/// Of what was sent so far.
#[derive(Debug, Default)]
pub struct Writer {
    /// Whether the stream of headers has begun.
    begun: bool,
    streams: u32,
}

impl Writer {
    /// Opens a stream with one header; its number.
    pub fn open(&mut self, name: &str, value: &str, out: &mut BytesMut) -> u32 {
        let stream = 2 * self.streams + 1;
        self.streams += 1;
        let mut block = BytesMut::new();
        block.put_u32(1);
        for text in [name, value] {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        let head = if std::mem::replace(&mut self.begun, true) { 0 } else { 2 };
        // A stored block's head, and an empty block, at which the reader has all before it.
        let length = head + 5 + block.len() + 5;
        control(SYN_STREAM, 10 + length, out);
        out.put_u32(stream);
        out.put_u32(0);
        out.put_u16(0);
        if head > 0 {
            // Deflate, the window of 32 KiB, no dictionary.
            out.put_slice(&[0x78, 0x01]);
        }
        stored(&block, out);
        stored(&[], out);
        stream
    }

    /// Data of a stream, or its end.
    pub fn data(stream: u32, bytes: &[u8], last: bool, out: &mut BytesMut) {
        let mut pieces = bytes.chunks(PIECE).peekable();
        if bytes.is_empty() && last {
            out.put_u32(stream);
            out.put_u32(u32::from(FIN) << 24);
        }
        while let Some(piece) = pieces.next() {
            let ends = last && pieces.peek().is_none();
            out.put_u32(stream);
            out.put_u32(u32::from(if ends { FIN } else { 0 }) << 24 | piece.len() as u32);
            out.put_slice(piece);
        }
    }

    /// The answer to a ping.
    pub fn pong(id: u32, out: &mut BytesMut) {
        control(PING, 4, out);
        out.put_u32(id);
    }
}

fn control(kind: u16, length: usize, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(length as u32);
}

fn stored(bytes: &[u8], out: &mut BytesMut) {
    let length = bytes.len() as u16;
    out.put_u8(0);
    out.put_u16_le(length);
    out.put_u16_le(!length);
    out.put_slice(bytes);
}

/// Reads what comes, in whatever pieces.
#[derive(Debug, Default)]
pub struct Reader {
    rest: BytesMut,
    /// Of a data frame that has begun: its stream, what is left of it, whether it is the last.
    data: Option<(u32, usize, bool)>,
}

impl Reader {
    pub fn add(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The next of what has come so far. The error says what was not SPDY.
    pub fn next(&mut self) -> Result<Option<Came>, String> {
        loop {
            if let Some((stream, left, last)) = self.data {
                let count = left.min(self.rest.len());
                if count == 0 && left > 0 {
                    return Ok(None);
                }
                let ends = count == left;
                self.data = (!ends).then_some((stream, left - count, last));
                let bytes = self.rest.split_to(count).freeze();
                return Ok(Some(Came::Data { stream, bytes, last: last && ends }));
            }
            if self.rest.len() < HEAD {
                return Ok(None);
            }
            let mut head = &self.rest[..HEAD];
            let (first, second) = (head.get_u32(), head.get_u32());
            let length = (second & 0x00ff_ffff) as usize;
            if first >> 31 == 0 {
                self.rest.advance(HEAD);
                self.data = Some((first, length, second >> 24 & u32::from(FIN) != 0));
                continue;
            }
            let (version, kind) = ((first >> 16 & 0x7fff) as u16, first as u16);
            if version != VERSION {
                return Err(format!("a frame of version {version}, and not of SPDY/3.1"));
            }
            if length > LONGEST {
                return Err(format!("a control frame of {length} bytes"));
            }
            if self.rest.len() < HEAD + length {
                return Ok(None);
            }
            self.rest.advance(HEAD);
            let mut body = self.rest.split_to(length);
            if matches!(kind, RST_STREAM | PING) && length < 4 {
                return Err(format!("a frame of type {kind} with {length} bytes"));
            }
            match kind {
                RST_STREAM => {
                    return Ok(Some(Came::Reset { stream: body.get_u32() & 0x7fff_ffff }));
                }
                PING => return Ok(Some(Came::Ping(body.get_u32()))),
                GOAWAY => return Ok(Some(Came::Goodbye)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Decompress, FlushDecompress, Status};
    use proptest::prelude::*;

    /// All that comes of these bytes, which arrive in pieces of this size.
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
    fn headers_are_one_stream_of_zlib() {
        let (mut writer, mut out) = (Writer::default(), BytesMut::new());
        assert_eq!(writer.open("streamtype", "error", &mut out), 1);
        assert_eq!(writer.open("streamtype", "stdin", &mut out), 3);
        let mut inflate = Decompress::new(true);
        for value in ["error", "stdin"] {
            let mut head = out.split_to(HEAD);
            assert_eq!((head.get_u16(), head.get_u16()), (0x8003, SYN_STREAM));
            let mut frame = out.split_to(head.get_u32() as usize);
            frame.advance(10);
            let mut block = vec![0; 100];
            let before = (inflate.total_in(), inflate.total_out());
            let done = inflate.decompress(&frame, &mut block, FlushDecompress::Sync);
            assert_eq!(done.map_err(|error| error.to_string()), Ok(Status::Ok));
            assert_eq!(inflate.total_in() - before.0, frame.len() as u64, "all of it is taken");
            block.truncate((inflate.total_out() - before.1) as usize);
            let expected = [&b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05"[..], value.as_bytes()];
            assert_eq!(block, expected.concat());
        }
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let mut bytes = BytesMut::new();
        // SYN_REPLY, SETTINGS, WINDOW_UPDATE.
        for kind in [2, 4, 9] {
            control(kind, 5, &mut bytes);
            bytes.put_slice(&[7; 5]);
        }
        control(RST_STREAM, 8, &mut bytes);
        bytes.put_slice(&[0, 0, 0, 3, 0, 0, 0, 1]);
        Writer::pong(2, &mut bytes);
        control(GOAWAY, 8, &mut bytes);
        bytes.put_slice(&[0; 8]);
        let all = vec![Came::Reset { stream: 3 }, Came::Ping(2), Came::Goodbye];
        for size in 1..=bytes.len() {
            assert_eq!(read(&bytes, size), Ok(all.clone()), "{size}");
        }
        // Taken for data of a stream that nobody has opened.
        let http = read(b"HTTP/1.1 400 Bad Request\r\n\r\n", 9).expect("it says nothing else");
        assert!(http.iter().all(|came| matches!(came, Came::Data { stream, .. } if *stream > 9)));
        assert!(read(&[0x80, 2, 0, 1, 0, 0, 0, 0], 8).is_err());
        assert!(read(&[0x80, 3, 0, 1, 0xff, 0xff, 0xff, 0xff], 8).is_err());
        assert!(read(&[0x80, 3, 0, 6, 0, 0, 0, 1, 0], 9).is_err());
    }

    proptest! {
        #[test]
        fn data_comes_back_in_whatever_pieces(
            parts in proptest::collection::vec(
                (1_u32..9, proptest::collection::vec(any::<u8>(), 0..70_000)), 0..4),
            size in 1_usize..40_000,
        ) {
            let mut bytes = BytesMut::new();
            for (stream, part) in &parts {
                Writer::data(*stream, part, true, &mut bytes);
            }
            let mut all: Vec<(u32, Vec<u8>)> = vec![];
            let mut begins = true;
            for came in read(&bytes, size).expect("it is SPDY") {
                let Came::Data { stream, bytes, last } = came else { panic!("{came:?}") };
                if begins {
                    all.push((stream, Vec::new()));
                }
                all.last_mut().expect("one").1.extend_from_slice(&bytes);
                begins = last;
            }
            prop_assert_eq!(all, parts);
        }

        #[test]
        fn anything_is_read_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), size in 1_usize..50,
        ) {
            let _ = read(&bytes, size);
        }
    }
}
