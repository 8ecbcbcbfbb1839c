//! The probe port: the kubelet's probes of containers, from the machine's own network. Its model is
//! in `sim/src/world/containers.rs`.

use crate::port::{Answer, Local, Port};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::probe::{Check, Reply, Request};
use smol_str::{SmolStr, format_smolstr};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A command in a container.
#[derive(Clone, Debug)]
pub struct Command {
    pub pod: Uid,
    pub container: SmolStr,
    pub words: Vec<String>,
    /// How long it may take.
    pub within: Duration,
}

/// What a command comes to.
type Exec = dyn Fn(Command) -> Local<Result<(), SmolStr>>;

/// The driver.
#[derive(Clone)]
pub struct Probes {
    exec: Rc<Exec>,
}

impl Probes {
    /// `exec` runs a command in a container.
    pub fn new(exec: impl Fn(Command) -> Local<Result<(), SmolStr>> + 'static) -> Probes {
        Probes { exec: Rc::new(exec) }
    }
}

impl Port for Probes {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let exec = Rc::clone(&self.exec);
        Box::pin(async move {
            let Request { pod, container, purpose, check, timeout: within } = request;
            let checked = async {
                match &check {
                    Check::Tcp { ip, port } => connect(*ip, *port).await.map(|_| ()),
                    Check::Http { ip, port, path } => http(*ip, *port, path).await,
                    Check::Exec { command } => {
                        let (container, words) = (container.clone(), command.clone());
                        exec(Command { pod, container, words, within }).await
                    }
                }
            };
            let result = timeout(within, checked).await.unwrap_or_else(|_| {
                let why =
                    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                Err(SmolStr::new_static(why))
            });
            let _ = answer.send(Reply { pod, container, purpose, result }).await;
        })
    }
}

/// As the kubelet words it: `dial tcp 10.244.1.2:80: connect: connection refused`.
async fn connect(ip: Ipv4Addr, port: u16) -> Result<TcpStream, SmolStr> {
    let to = SocketAddrV4::new(ip, port);
    TcpStream::connect(to).await.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
            io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
            _ => error.to_string(),
        };
        format_smolstr!("dial tcp {to}: connect: {why}")
    })
}

async fn http(ip: Ipv4Addr, port: u16, path: &str) -> Result<(), SmolStr> {
    let mut socket = connect(ip, port).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {ip}:{port}\r\nConnection: close\r\n\r\n");
    let broken = |_| SmolStr::new_static("EOF");
    socket.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let got = socket.read(&mut buffer).await.map_err(broken)?;
        head.extend_from_slice(&buffer[..got]);
        if let Some(status) = status_of(&head) {
            // 200..400 is success (pkg/probe/http/http.go).
            return if (200..400).contains(&status) {
                Ok(())
            } else {
                Err(format_smolstr!("HTTP probe failed with statuscode: {status}"))
            };
        }
        if got == 0 || head.len() > 8 << 10 {
            return Err("EOF".into());
        }
    }
}

/// Of a status line that is there whole.
pub fn status_of(head: &[u8]) -> Option<u16> {
    let end = head.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&head[..end]).ok()?;
    let mut words = line.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status_of;

    #[test]
    fn a_status_is_read_once_its_line_is_there() {
        assert_eq!(status_of(b"HTTP/1.1 20"), None);
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status_of(b"SSH-2.0-x\r\n"), None);
    }
}
