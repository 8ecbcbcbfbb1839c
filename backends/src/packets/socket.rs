//! A UDP socket that knows which of the machine's addresses was asked, and hears of ICMP errors.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{self, in_addr, in_pktinfo, sock_extended_err, sockaddr_in};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::future::pending;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The longest datagram there is.
const LONGEST: usize = 65_535;

#[derive(Debug)]
pub struct Udp(UdpSocket);

/// A datagram that came in.
#[derive(Debug)]
pub struct Datagram {
    pub from: SocketAddrV4,
    /// The address it was sent to, if that is one of ours, or the one that its link has.
    pub local: Ipv4Addr,
    pub len: usize,
}

impl Udp {
    /// Within a tokio runtime, in the calling thread's network namespace.
    pub fn bind(address: SocketAddrV4) -> io::Result<Udp> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into()).map(Udp)
    }

    pub fn address(&self) -> io::Result<SocketAddrV4> {
        match self.0.local_addr()? {
            std::net::SocketAddr::V4(address) => Ok(address),
            std::net::SocketAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Until a datagram or an error has come. True: an error.
    pub async fn ready(&self) -> bool {
        match self.0.ready(Interest::READABLE | Interest::ERROR).await {
            Ok(ready) => ready.is_error(),
            // The runtime ends.
            Err(_) => pending().await,
        }
    }

    /// `WouldBlock` if there is none; another error may be that of a datagram sent before.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Datagram> {
        buffer.resize(LONGEST, 0);
        self.0.try_io(Interest::READABLE, || {
            let mut control = cmsg_space!(in_pktinfo);
            let mut parts = [IoSliceMut::new(buffer)];
            let fd = self.0.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            let got = recvmsg::<SockaddrIn>(fd, &mut parts, Some(&mut control), flags)?;
            let local = got.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(address(info.ipi_spec_dst)),
                _ => None,
            });
            let from = got.address.ok_or(io::ErrorKind::InvalidData)?;
            let from = SocketAddrV4::new(from.ip(), from.port());
            let local = local.unwrap_or(Ipv4Addr::UNSPECIFIED);
            Ok(Datagram { from, local, len: got.bytes })
        })
    }

    /// Where a datagram went that came to nothing, as an ICMP error says; `WouldBlock` if none
    /// did. `None`: an error of another kind.
    pub fn failed(&self) -> io::Result<Option<SocketAddrV4>> {
        let read = || {
            let mut control = cmsg_space!(sock_extended_err, sockaddr_in, in_pktinfo);
            let mut bytes = [0; 64];
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let fd = self.0.as_raw_fd();
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let got = recvmsg::<SockaddrIn>(fd, &mut parts, Some(&mut control), flags)?;
            let is_icmp = got.cmsgs()?.any(|message| match message {
                ControlMessageOwned::Ipv4RecvErr(error, _) => unreachable(&error),
                _ => false,
            });
            // The address that the datagram was for.
            let to = got.address.filter(|_| is_icmp);
            Ok(to.map(|to| SocketAddrV4::new(to.ip(), to.port())))
        };
        match self.0.try_io(Interest::ERROR, read) {
            // Not known to be there yet; it may be all the same.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => read(),
            done => done,
        }
    }

    /// From `from` if it is given, else from the bound address, else from what the route prefers.
    pub fn send(
        &self,
        from: Option<Ipv4Addr>,
        to: SocketAddrV4,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        let source = from.map(|from| in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
            ipi_addr: in_addr { s_addr: libc::INADDR_ANY },
        });
        let control = source.as_ref().map(ControlMessage::Ipv4PacketInfo);
        let parts = [IoSlice::new(bytes)];
        let (fd, to) = (self.0.as_raw_fd(), SockaddrIn::from(to));
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg(fd, &parts, control.as_slice(), flags, Some(&to)).map(|_| ())
    }
}

fn address(raw: in_addr) -> Ipv4Addr {
    Ipv4Addr::from(raw.s_addr.to_ne_bytes())
}

/// A router or the host itself said so. "Fragmentation needed" only tells the kernel to cut
/// smaller next time (RFC 1191).
fn unreachable(error: &sock_extended_err) -> bool {
    let icmp = error.ee_origin == libc::SO_EE_ORIGIN_ICMP;
    icmp && error.ee_errno != libc::EMSGSIZE as u32
}
