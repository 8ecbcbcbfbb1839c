//! Messages in a stream of bytes: each comes after its length in two bytes (RFC 1035, section
//! 4.2.2).

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LENGTH: usize = 2;

/// What has come so far and was not looked at yet.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// The next whole message; `None` once the other side has said its last. Nothing is lost if
    /// the future is dropped.
    pub async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            if stream.read_buf(&mut self.0).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
        let end = usize::from(u16::from_be_bytes(*length));
        let message = rest.get(..end)?.to_vec();
        self.0.drain(..LENGTH + end);
        Some(message)
    }
}

/// In one piece, so that the length does not travel alone (RFC 7766, section 8). A message that is
/// longer than its length can say is refused.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
