//! One connection that queries come by.

use super::Line;
use super::frames::{self, Frames};
use crate::packets::dns::{self, Incoming};
use crate::port::{Answer, Closed};
use kubesim_actors::dns::message::{Message, Rcode};
use kubesim_actors::ports::packets::{IDLE, Reply};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Queries that wait for their answers before more are read: a client that only asks and never
/// reads fills its own buffers and not ours.
const PIPELINED: u32 = 128;

/// Reads queries and says what is answered, until the client has gone or said nothing for too long.
pub(super) async fn serve(
    mut stream: TcpStream,
    mut line: Line,
    answer: Rc<Answer<Reply>>,
) -> Result<(), Closed> {
    // An answer does not wait for the client to acknowledge the one before.
    let _ = stream.set_nodelay(true);
    let (mut read, mut write) = stream.split();
    let mut frames = Frames::default();
    let (mut asks, mut unanswered) = (true, 0);
    let mut idle = Instant::now() + IDLE;
    while asks || unanswered > 0 {
        let said = tokio::select! {
            () = sleep_until(idle) => return Ok(()),
            came = frames.next(&mut read), if asks && unanswered < PIPELINED => match came {
                Ok(Some(bytes)) => match dns::decode(&bytes) {
                    Incoming::Message(message) if !message.response => {
                        unanswered += 1;
                        let (connection, message) = (line.number, Arc::new(message));
                        answer.send(Reply::Query { connection, message }).await?;
                        None
                    }
                    Incoming::Answer(refusal) => Some(refusal),
                    Incoming::Message(_) | Incoming::Nothing => return Ok(()),
                },
                // It may only have closed its side, and still listen for what it asked.
                Ok(None) => {
                    asks = false;
                    continue;
                }
                Err(_) => return Ok(()),
            },
            Some(message) = line.answers.recv() => {
                unanswered = unanswered.saturating_sub(1);
                bytes_of(&message)
            }
        };
        idle = Instant::now() + IDLE;
        if let Some(bytes) = said
            && say(&mut write, &bytes, idle).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// What cannot be said, as no message is so long, is a failure of ours.
fn bytes_of(message: &Message) -> Option<Vec<u8>> {
    let said = dns::encode(message).or_else(|_| dns::encode(&message.reply(Rcode::ServFail)));
    said.ok()
}

/// To a client that does not read, not longer than to one that does not ask.
async fn say(
    write: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    until: Instant,
) -> io::Result<()> {
    timeout_at(until, frames::write(write, bytes)).await?
}
