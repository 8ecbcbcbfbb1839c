//! Probes that keep a connection open, a numbered message now and then. A message counts when its
//! echo is back: in the simulator it counts when the receiver has read it, half a round trip
//! earlier.

use super::actors::Ports;
use super::tries::Place;
use crate::lab::mail::{Mail, News};
use kubesim_actors::objects::Uid;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Of one message: its number, and padding.
const MESSAGE: usize = 64;
const CONNECT: Duration = Duration::from_secs(5);

/// The node's open streams, by probe.
#[derive(Default)]
pub struct Streams(BTreeMap<usize, UnboundedSender<u64>>);

/// A stream that is to be opened.
pub struct Opening {
    pub slot: usize,
    pub pod: Option<Uid>,
    pub to: SocketAddrV4,
}

impl Streams {
    pub fn open(&mut self, opening: Opening, ports: &Ports, mail: &Mail) {
        let (send, messages) = unbounded_channel();
        self.0.insert(opening.slot, send);
        let place = Place::of(opening.pod, ports);
        let mail = mail.clone();
        spawn_local(async move {
            let Opening { slot, to, .. } = opening;
            let connected = match place {
                Ok(place) => timeout(CONNECT, place.connect(to)).await.ok().and_then(Result::ok),
                Err(_) => None,
            };
            if let Some(stream) = connected {
                mail.send(News::StreamOpened(slot));
                talk(stream, messages, &mail).await;
            }
            mail.send(News::StreamBroke(slot));
        });
    }

    pub fn send(&self, slot: usize, seq: u64) {
        if let Some(stream) = self.0.get(&slot) {
            // A stream that broke has said so.
            let _ = stream.send(seq);
        }
    }
}

/// Until the connection breaks. What the kernel cannot take now waits, as it would in a program.
async fn talk(stream: TcpStream, mut messages: UnboundedReceiver<u64>, mail: &Mail) {
    let (mut read, mut write) = stream.into_split();
    let writes = spawn_local(async move {
        while let Some(seq) = messages.recv().await {
            let mut message = [b'.'; MESSAGE];
            message[..8].copy_from_slice(&seq.to_be_bytes());
            if write.write_all(&message).await.is_err() {
                break;
            }
        }
    });
    let mut echo = [0; MESSAGE];
    while read.read_exact(&mut echo).await.is_ok() {
        if let Some(seq) = echo.first_chunk() {
            mail.send(News::StreamEchoed(u64::from_be_bytes(*seq)));
        }
    }
    writes.abort();
}
