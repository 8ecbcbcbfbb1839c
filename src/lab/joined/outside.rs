//! Connections to the server, for those who are in networks from which it cannot be reached.

use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// The server is on this machine.
const PATIENCE: Duration = Duration::from_secs(1);

type Asked = oneshot::Sender<io::Result<TcpStream>>;

/// Connects to the server in the network of the thread that made this value: a socket belongs to
/// the namespace in which it was made, whoever uses it.
#[derive(Clone)]
pub struct Outside(Sender<Asked>);

impl Outside {
    pub fn new(at: SocketAddrV4) -> Result<Outside, String> {
        let (send, asked) = channel::<Asked>();
        let thread = thread::Builder::new().name("lab-outside".to_owned());
        let connects = move || {
            for answer in asked {
                // Who asked may be gone.
                let _ = answer.send(TcpStream::connect_timeout(&at.into(), PATIENCE));
            }
        };
        thread.spawn(connects).map_err(|error| format!("starting a thread: {error}"))?;
        Ok(Outside(send))
    }

    pub async fn connect(&self) -> io::Result<tokio::net::TcpStream> {
        let (answer, stream) = oneshot::channel();
        let ended = |_| io::Error::other("the thread that connects has ended");
        self.0.send(answer).map_err(|_| io::Error::other("the thread that connects has ended"))?;
        let stream = stream.await.map_err(ended)??;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}
