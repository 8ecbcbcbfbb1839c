//! Ports: TCP ones echo what they read, or serve HTTP where the image has routes; UDP ones echo.

use super::{Shared, call};
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::spawn_local;
use tokio::time::sleep;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LARGEST_HEAD: usize = 16 << 10;

/// A port that another container of the pod has stays that one's, as bind(2) says: why not all of
/// them are open.
pub async fn open(process: &Shared) -> Vec<String> {
    let mut refused = Vec::new();
    for port in process.image.ports() {
        match TcpListener::bind((ANY, port)).await {
            Ok(listener) => drop(spawn_local(accept(Rc::clone(process), listener, port))),
            Err(error) => refused.push(format!("listening on TCP port {port}: {error}")),
        }
    }
    for &port in &process.image.udp {
        match UdpSocket::bind((ANY, port)).await {
            Ok(socket) => drop(spawn_local(datagrams(socket))),
            Err(error) => refused.push(format!("binding UDP port {port}: {error}")),
        }
    }
    refused
}

async fn accept(process: Shared, listener: TcpListener, port: u16) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let process = Rc::clone(&process);
                spawn_local(async move {
                    // Whoever broke the connection knows.
                    let _ = connection(process, socket, port).await;
                });
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn datagrams(socket: UdpSocket) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}

async fn connection(process: Shared, mut socket: TcpStream, port: u16) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let serves = process.image.http.iter().any(|route| route.port == port);
    let mut held = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = socket.read(&mut buffer).await?;
        if length == 0 {
            return socket.shutdown().await;
        }
        held.extend_from_slice(&buffer[..length]);
        if !serves || !is_http(&held) {
            socket.write_all(&held).await?;
            held.clear();
            continue;
        }
        while let Some(end) = head_end(&held) {
            let path = path_of(&held[..end]).unwrap_or_default().to_owned();
            held.drain(..end);
            let (status, text) = answer(&process, port, &path).await;
            respond(&mut socket, status, &text).await?;
        }
        if held.len() > LARGEST_HEAD {
            return respond(&mut socket, 431, "the request is too long").await;
        }
    }
}

/// As far as it can be told.
fn is_http(bytes: &[u8]) -> bool {
    [&b"GET "[..], b"HEAD ", b"POST ", b"PUT "].iter().any(|method| {
        let length = method.len().min(bytes.len());
        bytes[..length] == method[..length]
    })
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn path_of(head: &[u8]) -> Option<&str> {
    std::str::from_utf8(head).ok()?.split_whitespace().nth(1)
}

async fn answer(process: &Shared, port: u16, path: &str) -> (u16, String) {
    let found = process.image.http.iter().find(|r| r.port == port && r.path == path);
    let Some(route) = found else { return (404, "not found".to_owned()) };
    sleep(process.draw(route.delay)).await;
    for call in &route.calls {
        if call::once(process, call).await.is_err() {
            return (502, "a backend did not answer".to_owned());
        }
    }
    (route.status, route.text.clone())
}

async fn respond(socket: &mut TcpStream, status: u16, text: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} kubesim\r\nContent-Length: {}\r\n\r\n", text.len());
    socket.write_all(format!("{head}{text}").as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_other_messages() {
        assert!(is_http(b"GET / HTTP/1.1\r\n") && is_http(b"GE"));
        assert!(!is_http(b"PING") && !is_http(&[0; 8]));
        let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nrest";
        assert_eq!(head_end(head), Some(head.len() - 4));
        assert_eq!(path_of(head), Some("/healthz"));
    }
}
