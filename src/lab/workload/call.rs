//! What a process looks up and connects to.

use super::Shared;
use super::image::{Call, Find};
use kubesim_actors::ports::container;
use kubesim_backends::containers::{HOSTS, RESOLV_CONF};
use kubesim_backends::packets::dns;
use kubesim_sim::world::resolver::{Lookup, Next, TIMEOUT};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A backend that does not answer for so long counts as gone.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a stream is tried again.
const AGAIN: Duration = Duration::from_secs(1);
const MESSAGE: usize = 64;

fn refused(why: impl ToString) -> io::Error {
    io::Error::other(why.to_string())
}

/// One connection, one message, its echo.
pub async fn once(process: &Shared, call: &Call) -> io::Result<()> {
    let ip = find(process, call).await?;
    let talk = async {
        let mut socket = TcpStream::connect((ip, call.port)).await?;
        socket.write_all(&padded("PING")).await?;
        match socket.read(&mut [0; MESSAGE]).await? {
            0 => Err(refused("the connection was closed")),
            _ => Ok(()),
        }
    };
    timeout(CALL_TIMEOUT, talk).await.map_err(refused)?
}

/// A connection that is kept open, a message now and then, for ever.
pub async fn stream(process: Shared, index: usize) {
    let (call, every) = &process.image.streams[index];
    loop {
        if let Ok(ip) = find(&process, call).await
            && let Ok(Ok(socket)) = timeout(CALL_TIMEOUT, TcpStream::connect((ip, call.port))).await
        {
            let _ = talk(socket, *every).await;
        }
        sleep(AGAIN).await;
    }
}

async fn talk(mut socket: TcpStream, every: Duration) -> io::Result<()> {
    let mut echo = [0; 4096];
    let mut next = Instant::now();
    loop {
        socket.write_all(&padded("tick")).await?;
        next += every;
        while let Ok(read) = timeout_at(next, socket.read(&mut echo)).await {
            if read? == 0 {
                return Ok(());
            }
        }
    }
}

fn padded(text: &str) -> [u8; MESSAGE] {
    let mut message = [b'.'; MESSAGE];
    message[..text.len()].copy_from_slice(text.as_bytes());
    message
}

/// By the environment, by name, or as it stands.
async fn find(process: &Shared, call: &Call) -> io::Result<Ipv4Addr> {
    let by_env = match &call.find {
        Find::Env => true,
        Find::Dns => false,
        Find::Variable(name) => std::env::var(name).is_ok_and(|value| value == "env"),
    };
    if by_env {
        let variable = format!("{}_SERVICE_HOST", call.host.to_uppercase().replace('-', "_"));
        let value = std::env::var(&variable).map_err(|_| refused(format!("no {variable}")))?;
        return value.parse().map_err(refused);
    }
    if let Ok(ip) = call.host.parse() {
        return Ok(ip);
    }
    let hosts = std::env::var(HOSTS).unwrap_or_default();
    if let Some(ip) = container::look_up(&hosts, &call.host) {
        return Ok(ip);
    }
    let id = process.rng.borrow_mut().u64() as u16;
    look_up(&std::env::var(RESOLV_CONF).unwrap_or_default(), &call.host, id).await
}

/// As the C library does it, by a resolv.conf.
pub async fn look_up(resolv_conf: &str, host: &str, id: u16) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    answer_of(Lookup::new(resolv_conf, host, id), &socket).await
}

/// The same with a socket that may be another namespace's.
pub async fn answer_of(mut lookup: Lookup, socket: &UdpSocket) -> io::Result<Ipv4Addr> {
    let mut buffer = [0; 4096];
    loop {
        let (to, message): (SocketAddrV4, _) =
            lookup.query().ok_or_else(|| refused("resolv.conf names no nameserver"))?;
        let bytes = dns::encode(&message).map_err(|_| refused("the name cannot be asked for"))?;
        // A query that could not be sent times out like one that was lost.
        let _ = socket.send_to(&bytes, to).await;
        let deadline = Instant::now() + TIMEOUT;
        let next = loop {
            let Ok(received) = timeout_at(deadline, socket.recv_from(&mut buffer)).await else {
                break lookup.timed_out();
            };
            let Ok((length, _)) = received else { continue };
            if let dns::Incoming::Message(message) = dns::decode(&buffer[..length])
                && message.response
            {
                break lookup.answered(&message);
            }
        };
        match next {
            Next::Ask => {}
            Next::Found(ip) => return Ok(ip),
            Next::Failed(why) => return Err(refused(why)),
        }
    }
}

/// For a person: what a name comes to, now and then.
pub async fn look_up_again(name: String, every: Duration) {
    let conf = std::env::var(RESOLV_CONF)
        .or_else(|_| std::fs::read_to_string("/etc/resolv.conf"))
        .unwrap_or_default();
    for id in 0.. {
        match look_up(&conf, &name, id).await {
            Ok(ip) => println!("{name} is {ip}"),
            Err(error) => println!("{name}: {error}"),
        }
        sleep(every).await;
    }
}
