//! Single tries of probes, from the node or from a pod.

use super::actors::Ports;
use crate::lab::mail::{Mail, News};
use crate::lab::workload::answer_of;
use kubesim_actors::dns::message::{Data, Message, Rcode, Type};
use kubesim_actors::objects::Uid;
use kubesim_backends::containers::Space;
use kubesim_backends::packets::{dns, exchange};
use kubesim_backends::probe::status_of;
use kubesim_sim::scenario::{ProbeKind, RecordType};
use kubesim_sim::world::external::{Destination, Tried, Try};
use kubesim_sim::world::resolver::Lookup;
use smol_str::{SmolStr, format_smolstr};
use socket2::{Domain, Protocol, Socket, Type as Kind};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

/// Where a try is made from.
pub struct Place(Option<Rc<Space>>);

impl Place {
    pub fn of(pod: Option<Uid>, ports: &Ports) -> Result<Place, SmolStr> {
        let Some(pod) = pod else { return Ok(Place(None)) };
        let space = ports.drivers.containers.space(pod);
        space.map(|space| Place(Some(space))).ok_or_else(|| "the pod has no sandbox".into())
    }

    fn open(&self, kind: Kind, protocol: Option<Protocol>) -> io::Result<Socket> {
        let open = move || {
            let socket = Socket::new(Domain::IPV4, kind, protocol)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match &self.0 {
            Some(space) => space.socket(open),
            None => open(),
        }
    }

    pub async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let socket = self.open(Kind::STREAM, Some(Protocol::TCP))?;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(SocketAddr::V4(to)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn udp(&self) -> io::Result<UdpSocket> {
        let socket = self.open(Kind::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into())?;
        UdpSocket::from_std(socket.into())
    }

    fn resolv_conf(&self, of_node: &PathBuf) -> Arc<str> {
        match &self.0 {
            Some(space) => Arc::clone(&space.resolv_conf),
            None => std::fs::read_to_string(of_node).unwrap_or_default().into(),
        }
    }
}

/// Makes one, and tells what came of it.
pub async fn make(attempt: Try, ports: Ports, mail: Mail, resolv_conf: PathBuf) {
    let (slot, number, within) = (attempt.slot, attempt.number, attempt.timeout);
    let outcome = match timeout(within, go(&attempt, &ports, &resolv_conf)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(why)) => Tried::Failed(why),
        Err(_) => Tried::Failed(format_smolstr!("no answer within {} s", within.as_secs_f64())),
    };
    mail.send(News::Tried(slot, number, outcome));
}

async fn go(attempt: &Try, ports: &Ports, resolv_conf: &PathBuf) -> Result<Tried, SmolStr> {
    let place = Place::of(attempt.pod, ports)?;
    let id = (attempt.slot as u16) << 10 ^ attempt.number as u16;
    let to = match &attempt.to {
        Destination::Address(to) | Destination::Api(to) => *to,
        Destination::Host(host, port) => {
            let lookup = Lookup::new(&place.resolv_conf(resolv_conf), host, id);
            let socket = place.udp().map_err(words)?;
            SocketAddrV4::new(answer_of(lookup, &socket).await.map_err(words)?, *port)
        }
    };
    match &attempt.kind {
        ProbeKind::Ping => ping(&place, *to.ip(), id).await,
        ProbeKind::Http { path, .. } => {
            let stream = place.connect(to).await.map_err(words)?;
            if let Destination::Api(_) = attempt.to {
                let stream = ports.trust.secure(stream).await.map_err(words)?;
                return http(stream, to, path).await;
            }
            http(stream, to, path).await
        }
        ProbeKind::Dig { query, record, tcp } => {
            let question = question(query, *record, id);
            let answer = match tcp {
                true => exchange(&mut place.connect(to).await.map_err(words)?, &question).await,
                false => ask(&place, to, &question).await,
            };
            records(&answer.map_err(words)?)
        }
        ProbeKind::TcpStream => Err("a stream is no single try".into()),
    }
}

/// As the simulator words it.
fn words(error: io::Error) -> SmolStr {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::TimedOut => "connection timed out".into(),
        io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
        _ => format_smolstr!("{error}"),
    }
}

async fn http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    to: SocketAddrV4,
    path: &str,
) -> Result<Tried, SmolStr> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(words)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer).await.map_err(words)?;
        answer.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&answer);
        if let (Some(status), Some((head, body))) =
            (status_of(&answer), text.split_once("\r\n\r\n"))
        {
            let wanted = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let wanted = wanted.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            if body.len() >= wanted || length == 0 {
                return Ok(Tried::Http { status, text: body.into() });
            }
        }
        if length == 0 {
            return Err("the connection was closed".into());
        }
    }
}

fn question(query: &str, record: RecordType, id: u16) -> Message {
    let qtype = match record {
        RecordType::A => Type::A,
        RecordType::Aaaa => Type::Aaaa,
        RecordType::Srv => Type::Srv,
        RecordType::Ptr => Type::Ptr,
    };
    let name = query.trim_end_matches('.').to_lowercase();
    Message { udp_size: 1232, ..Message::query(id, name.into(), qtype) }
}

/// By datagram.
async fn ask(place: &Place, to: SocketAddrV4, question: &Message) -> io::Result<Message> {
    let unspeakable = |_| io::Error::other("the name cannot be asked for");
    let bytes = dns::encode(question).map_err(unspeakable)?;
    let socket = place.udp()?;
    // Connected, so that an ICMP error is heard.
    socket.connect(SocketAddr::V4(to)).await?;
    socket.send(&bytes).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let dns::Incoming::Message(answer) = dns::decode(&buffer[..length])
            && answer.id == question.id
            && answer.response
        {
            return Ok(answer);
        }
    }
}

fn records(answer: &Message) -> Result<Tried, SmolStr> {
    let address = |data: &Data| if let Data::A(ip) = data { Some(*ip) } else { None };
    let mut found: Vec<_> = answer.answers.iter().filter_map(|r| address(&r.data)).collect();
    found.sort_unstable();
    match answer.rcode {
        Rcode::NoError if answer.answers.is_empty() => Err("no records".into()),
        Rcode::NoError => Ok(Tried::Records { answer: found, cut: answer.truncated }),
        rcode => Err(format_smolstr!("{rcode}")),
    }
}

/// An echo request on a raw socket, and its reply.
async fn ping(place: &Place, to: Ipv4Addr, id: u16) -> Result<Tried, SmolStr> {
    let socket = place.open(Kind::RAW, Some(Protocol::ICMPV4)).map_err(words)?;
    let echo = etherparse::IcmpEchoHeader { id, seq: 1 };
    let data = [0x5a; 56];
    let kind = etherparse::Icmpv4Type::EchoRequest(echo);
    let mut bytes = etherparse::Icmpv4Header::with_checksum(kind, &data).to_bytes().to_vec();
    bytes.extend_from_slice(&data);
    // tokio's UDP socket is one of datagrams: of raw ones as well.
    let socket = UdpSocket::from_std(socket.into()).map_err(words)?;
    socket.send_to(&bytes, SocketAddr::V4(SocketAddrV4::new(to, 0))).await.map_err(words)?;
    let mut buffer = [0; 2048];
    loop {
        let (length, _) = socket.recv_from(&mut buffer).await.map_err(words)?;
        if let Some(outcome) = reply_to(&buffer[..length], id) {
            return outcome;
        }
    }
}

/// What an ICMP message is to an echo request with this identifier.
fn reply_to(bytes: &[u8], id: u16) -> Option<Result<Tried, SmolStr>> {
    let header = etherparse::Ipv4HeaderSlice::from_slice(bytes).ok()?;
    let rest = bytes.get(header.slice().len()..)?;
    let message = etherparse::Icmpv4Slice::from_slice(rest).ok()?;
    match message.icmp_type() {
        etherparse::Icmpv4Type::EchoReply(echo) if echo.id == id => Some(Ok(Tried::Answered)),
        etherparse::Icmpv4Type::DestinationUnreachable(why) if quotes(message.payload(), id) => {
            Some(Err(format_smolstr!("destination unreachable: {why:?}")))
        }
        _ => None,
    }
}

/// Whether the packet in question was the echo request with this identifier.
fn quotes(bytes: &[u8], id: u16) -> bool {
    let inner = etherparse::Ipv4HeaderSlice::from_slice(bytes).ok();
    let echo = inner.and_then(|header| bytes.get(header.slice().len() + 4..)?.get(..2));
    echo.is_some_and(|found| found == id.to_be_bytes())
}
