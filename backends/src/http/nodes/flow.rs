//! Bytes on their way between two connections: a body that is fed piece by piece. What is not taken
//! yet is a few pieces, and who feeds waits: so a reader that is slow slows down the writer.

use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::body::{Incoming, SizeHint};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Pieces that wait.
const ROOM: usize = 4;
/// Bytes of a piece.
pub const PIECE: usize = 16 << 10;

/// A body that ends when its sender goes.
pub struct Flow(mpsc::Receiver<Bytes>);

impl Flow {
    pub fn new() -> (mpsc::Sender<Bytes>, Flow) {
        let (send, receive) = mpsc::channel(ROOM);
        (send, Flow(receive))
    }

    /// Of this one piece.
    #[cfg(all(target_os = "linux", feature = "cri"))]
    pub fn of(bytes: impl Into<Bytes>) -> Flow {
        let (send, flow) = Flow::new();
        // There is room for it.
        let _ = send.try_send(bytes.into());
        flow
    }

    pub fn none() -> Flow {
        Flow::new().1
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The next bytes of a body: none at its end. The error says how the connection broke.
pub async fn next(body: &mut Incoming) -> Option<Result<Bytes, String>> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame.map(Frame::into_data) {
            Ok(Ok(bytes)) if bytes.is_empty() => {}
            Ok(Ok(bytes)) => return Some(Ok(bytes)),
            // Trailers say nothing here.
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(crate::http::client::words(&error))),
        }
    }
}

/// Carries a connection's bytes over a pair of bodies and back, each way to its own end. Who breaks
/// off ends both.
pub async fn carry<S>(stream: S, mut from: Incoming, to: mpsc::Sender<Bytes>)
where
    S: AsyncRead + AsyncWrite,
{
    let (mut reads, mut writes) = tokio::io::split(stream);
    // The other side hears of the end when the sender goes.
    let there = async move {
        let mut piece = vec![0; PIECE];
        loop {
            let bytes = match reads.read(&mut piece).await {
                Ok(0) => return true,
                Ok(count) => Bytes::copy_from_slice(&piece[..count]),
                Err(_) => return false,
            };
            if to.send(bytes).await.is_err() {
                return false;
            }
        }
    };
    let back = async {
        while let Some(piece) = next(&mut from).await {
            let Ok(bytes) = piece else { return false };
            if writes.write_all(&bytes).await.is_err() || writes.flush().await.is_err() {
                return false;
            }
        }
        writes.shutdown().await.is_ok()
    };
    let (mut there, mut back) = (std::pin::pin!(there), std::pin::pin!(back));
    tokio::select! {
        whole = &mut there => if whole { back.await; },
        whole = &mut back => if whole { there.await; },
    }
}
