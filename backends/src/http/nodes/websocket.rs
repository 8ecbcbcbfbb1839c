//! Clients that speak WebSocket (KEP-4006): the streams of a command as channels of messages, which
//! are translated to SPDY here, since runtimes speak no newer protocol than that (client-go's
//! `tools/remotecommand/websocket.go`, apiserver's `pkg/util/proxy/streamtranslator.go`); and SPDY
//! within messages, for ports (`pkg/util/proxy/streamtunnel.go`).

use super::flow::{PIECE, next};
use super::spdy::{Came, Reader, Writer};
use super::{What, frames};
use crate::http::GOODBYE;
use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::cell::Cell;
use std::pin::pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The fifth version of the protocol of commands is the fourth and a message that ends a stream.
const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";
const PORTS: &str = "SPDY/3.1+portforward.k8s.io";
/// Channels by their numbers (client-go's `tools/remotecommand`).
const NAMES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
const STDIN: usize = 0;
const ERROR: usize = 3;
const RESIZE: usize = 4;
/// Ends the channel that its one byte names.
const CLOSE: u8 = 255;
/// Frames that wait to be written.
const ROOM: usize = 4;

type Socket = TokioIo<Upgraded>;
type Feed = mpsc::Sender<Bytes>;

/// What a client and the server agree on.
pub struct Agreed {
    pub protocol: &'static str,
    pub accept: String,
}

/// Of what the client offers; none if it offers nothing that is spoken here.
pub fn agree(what: What, headers: &HeaderMap) -> Option<Agreed> {
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offered.filter_map(|value| value.to_str().ok());
    let mut offered = offered.flat_map(|all| all.split(',')).map(str::trim);
    let spoken: &[&'static str] = if what == What::PortForward { &[PORTS] } else { &[V5, V4] };
    let protocol = offered.find_map(|one| spoken.iter().find(|known| **known == one))?;
    Some(Agreed { protocol, accept: frames::accept(key.to_str().ok()?) })
}

/// Which protocol is then spoken to the runtime.
pub fn beyond(what: What) -> HeaderValue {
    HeaderValue::from_static(if what == What::PortForward { "portforward.k8s.io" } else { V4 })
}

/// Both ways of a client's connection.
struct Line {
    hears: ReadHalf<Socket>,
    writes: WriteHalf<Socket>,
}

/// Frames to a client, of which one is the last.
type Says = mpsc::Sender<(Bytes, bool)>;

impl Line {
    fn of(socket: Socket) -> Line {
        let (hears, writes) = tokio::io::split(socket);
        Line { hears, writes }
    }

    /// Until the client goes, or all that `tells` says is said: then the client is waited for a
    /// while, so that it has taken what was said last.
    async fn run(self, heard: impl AsyncFn(Bytes) -> bool, tells: impl AsyncFnOnce(Says)) {
        let Line { hears, mut writes } = self;
        let (says, mut said) = mpsc::channel(ROOM);
        let tells = tells(says.clone());
        let written = async {
            while let Some((frame, last)) = said.recv().await {
                let frame: Bytes = frame;
                if writes.write_all(&frame).await.is_err() || writes.flush().await.is_err() || last
                {
                    return;
                }
            }
        };
        let down = async {
            let ends = says.clone();
            let tells = async move {
                tells.await;
                let _ = ends.send((frames::goodbye(), true)).await;
            };
            // A client that takes nothing more ends what is told it.
            let mut written = pin!(written);
            tokio::select! {
                () = &mut written => {}
                () = tells => written.await,
            }
        };
        let mut hears = pin!(hear(hears, &says, heard));
        tokio::select! {
            () = &mut hears => {}
            () = down => drop(timeout(GOODBYE, hears).await),
        }
    }
}

/// What a client says, until it goes, or nobody wants it any more.
async fn hear(mut from: ReadHalf<Socket>, says: &Says, heard: impl AsyncFn(Bytes) -> bool) {
    let mut reader = frames::Reader::default();
    let mut piece = vec![0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        reader.add(&piece[..count]);
        loop {
            let goes_on = match reader.next() {
                Ok(Some(frames::Came::Message(bytes))) => heard(bytes).await,
                Ok(Some(frames::Came::Ping(bytes))) => {
                    says.send((frames::pong(&bytes), false)).await.is_ok()
                }
                Ok(None) => break,
                Ok(Some(frames::Came::Close)) | Err(_) => false,
            };
            if !goes_on {
                return;
            }
        }
    }
}

/// Carries the bytes in a client's messages, and those back. Who breaks off ends both.
pub async fn carry(socket: Socket, mut from: Incoming, to: Feed) {
    let heard = async |bytes: Bytes| to.send(bytes).await.is_ok();
    let tells = async |says: Says| {
        while let Some(Ok(bytes)) = next(&mut from).await {
            if says.send((frames::message(&[&bytes]), false)).await.is_err() {
                return;
            }
        }
    };
    Line::of(socket).run(heard, tells).await;
}

/// The streams of a command.
pub struct Command {
    socket: Socket,
    to: Feed,
    channels: Channels,
}

/// Which stream of SPDY's a channel is: 0 if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Channels([u32; NAMES.len()]);

impl Channels {
    /// Opens those that are wanted, in the order in which client-go does.
    fn open(wanted: [bool; NAMES.len()], out: &mut BytesMut) -> Channels {
        let (mut writer, mut all) = (Writer::default(), [0; NAMES.len()]);
        for index in [ERROR, STDIN, 1, 2, RESIZE] {
            if wanted[index] {
                all[index] = writer.open("streamtype", NAMES[index], out);
            }
        }
        Channels(all)
    }

    fn of(&self, stream: u32) -> Option<usize> {
        self.0.iter().position(|one| *one == stream && stream != 0)
    }

    /// What a client's message is in SPDY. None is nothing.
    fn said(&self, message: &[u8]) -> Option<BytesMut> {
        let (channel, bytes) = message.split_first()?;
        let (channel, last) = match (*channel, bytes) {
            (CLOSE, [ended]) => (usize::from(*ended), true),
            (channel, _) => (usize::from(channel), false),
        };
        let stream = *self.0.get(channel).filter(|stream| **stream != 0)?;
        if ![STDIN, RESIZE].contains(&channel) {
            return None;
        }
        let mut out = BytesMut::new();
        Writer::data(stream, if last { &[] } else { bytes }, last, &mut out);
        Some(out)
    }
}

impl Command {
    /// Opens the streams that the client asked for; `None`: the runtime is there no more.
    pub async fn open(socket: Socket, to: Feed, wanted: impl Fn(&str) -> bool) -> Option<Command> {
        let tty = wanted("tty");
        let [stdin, stdout, stderr] = ["stdin", "stdout", "stderr"].map(&wanted);
        let mut out = BytesMut::new();
        let channels = Channels::open([stdin, stdout, stderr && !tty, true, tty], &mut out);
        to.send(out.freeze()).await.ok()?;
        Some(Command { socket, to, channels })
    }

    /// Until the command's end is told, or somebody goes. `lost` says of a connection that broke
    /// how it did.
    pub async fn run(self, from: Incoming, lost: impl Fn(&str) -> String) {
        let Command { socket, to, channels } = self;
        let heard = async |bytes: Bytes| {
            if let Some(said) = channels.said(&bytes) {
                // If the runtime is gone, the client is told by who hears of it.
                let _ = to.send(said.freeze()).await;
            }
            true
        };
        let tells = async |says: Says| {
            let told = Cell::new(false);
            if let Err(why) = tell(&says, from, (&to, channels), &told).await
                && !told.get()
            {
                let _ = says.send(of(ERROR, failure(&lost(&why)).as_bytes())).await;
            }
        };
        Line::of(socket).run(heard, tells).await;
    }
}

/// What the command says, until all of it has ended. `told`: how it ended was among it.
async fn tell(
    says: &Says,
    mut from: Incoming,
    (to, channels): (&Feed, Channels),
    told: &Cell<bool>,
) -> Result<(), String> {
    let mut reader = Reader::default();
    let mut open: Vec<usize> = (1..=ERROR).filter(|index| channels.0[*index] != 0).collect();
    while !open.is_empty() {
        let piece = next(&mut from).await;
        reader.add(&piece.ok_or("it was closed")??);
        while let Some(came) = reader.next()? {
            let (stream, bytes, last) = match came {
                Came::Data { stream, bytes, last } => (stream, bytes, last),
                Came::Reset { stream } => (stream, Bytes::new(), true),
                Came::Ping(id) => {
                    let mut pong = BytesMut::new();
                    Writer::pong(id, &mut pong);
                    let _ = to.send(pong.freeze()).await;
                    continue;
                }
                Came::Goodbye => continue,
            };
            let Some(channel) = channels.of(stream) else { continue };
            if !bytes.is_empty() {
                told.set(told.get() || channel == ERROR);
                says.send(of(channel, &bytes)).await.map_err(|error| error.to_string())?;
            }
            if last {
                open.retain(|one| *one != channel);
            }
        }
    }
    match told.get() {
        true => Ok(()),
        false => Err("it did not say how the command ended".to_owned()),
    }
}

fn of(channel: usize, bytes: &[u8]) -> (Bytes, bool) {
    (frames::message(&[&[channel as u8], bytes]), false)
}

fn failure(why: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "reason": "InternalError", "code": 500, "message": why})
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_one_that_both_speak() {
        let agreed = |what, offered: &'static str| {
            let mut headers = HeaderMap::new();
            // The example of RFC 6455, section 1.3.
            let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
            headers.insert(SEC_WEBSOCKET_KEY, key);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
            agree(what, &headers).map(|agreed| (agreed.protocol, agreed.accept))
        };
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert_eq!(agreed(What::Exec, "v5.channel.k8s.io"), Some((V5, accept.clone())));
        assert_eq!(agreed(What::Attach, "x, v4.channel.k8s.io"), Some((V4, accept.clone())));
        assert_eq!(agreed(What::PortForward, PORTS), Some((PORTS, accept)));
        assert_eq!(agreed(What::PortForward, V5), None);
        assert_eq!(agreed(What::Exec, "channel.k8s.io"), None);
    }

    #[test]
    fn channels_are_streams() {
        let mut out = BytesMut::new();
        let all = Channels::open([true, true, false, true, true], &mut out);
        assert_eq!(all, Channels([3, 5, 0, 1, 7]));
        assert_eq!((all.of(5), all.of(9), all.of(0)), (Some(1), None, None));
        let data = |stream: u8, flags: u8, bytes: &[u8]| {
            let head = [0, 0, 0, stream, flags, 0, 0, bytes.len() as u8];
            Some(BytesMut::from(&[&head[..], bytes].concat()[..]))
        };
        assert_eq!(all.said(b"\0ab"), data(3, 0, b"ab"));
        assert_eq!(all.said(b"\x04{}"), data(7, 0, b"{}"));
        assert_eq!(all.said(&[CLOSE, 0]), data(3, 1, b""));
        for nothing in [&b""[..], b"\x01a", b"\x09a", &[CLOSE, 1], &[CLOSE, 9], &[CLOSE]] {
            assert_eq!(all.said(nothing), None, "{nothing:?}");
        }
    }
}
