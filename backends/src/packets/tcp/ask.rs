//! A question over a connection of its own.

use super::frames::{self, Frames};
use crate::packets::dns::{self, Incoming};
use kubesim_actors::dns::message::Message;
use kubesim_actors::ports::packets::{PATIENCE, Reply};
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came of it: [`Reply::Answer`] or [`Reply::Unanswered`].
pub async fn ask(to: SocketAddrV4, query: &Message) -> Reply {
    let exchanged = async { exchange(&mut TcpStream::connect(to).await?, query).await };
    match timeout(PATIENCE, exchanged).await {
        Ok(Ok(message)) => Reply::Answer { from: to, message: Arc::new(message) },
        Ok(Err(_)) | Err(_) => Reply::Unanswered { by: to, id: query.id },
    }
}

/// The response to a query over a connection that nobody else uses. What is no answer to this very
/// question is passed over; `UnexpectedEof` if the server closes before it came.
pub async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    query: &Message,
) -> io::Result<Message> {
    let bytes = dns::encode(query).map_err(|why| io::Error::other(why.to_string()))?;
    frames::write(stream, &bytes).await?;
    let mut frames = Frames::default();
    while let Some(bytes) = frames.next(stream).await? {
        if let Incoming::Message(message) = dns::decode(&bytes)
            && message.response
            && message.id == query.id
        {
            return Ok(message);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
