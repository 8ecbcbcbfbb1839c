//! Whole frames out of a network card (packet(7)), as DHCP clients send them while the machine has
//! no address: of a datagram Linux would choose the source itself, and take another card's address
//! for it (inet_select_addr, net/ipv4/devinet.c).

use crate::lab::wire::frame;
use kubesim_sim::kernel::packet::Frame;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::bind;
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;

pub struct Frames(Socket);

impl Frames {
    /// By the card of this name in the calling thread's network namespace. Nothing comes in here.
    pub fn out_of(card: &str) -> io::Result<Frames> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        let mut found = getifaddrs()?.filter(|found| found.interface_name == card);
        let address = found.find_map(|found| found.address?.as_link_addr().copied());
        let absent = || io::Error::new(io::ErrorKind::NotFound, format!("no card {card}"));
        let address = address.ok_or_else(absent)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Frames(socket))
    }

    /// One that the card does not take is lost, as on any link.
    pub fn send(&self, frame: &Frame) {
        if let Some(bytes) = frame::encode(frame) {
            let _ = self.0.send(&bytes);
        }
    }
}
