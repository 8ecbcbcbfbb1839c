//! A netlink socket for requests.
//!
//! rtnetlink works in the caller's context: when a send returns, the kernel has done what the
//! messages ask and its answers lie in the receive queue (netlink_unicast_kernel and
//! netlink_rcv_skb, net/netlink/af_netlink.c). So nothing here waits, and nothing would be won by
//! awaiting.

use super::errno;
use super::message::{self, Message};
use kubesim_actors::ports::network::Errno;
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket as Raw, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;

/// Room for answers and news. The kernel counts at least 768 bytes for the smallest message, so
/// the 208 KiB it gives by default hold fewer refusals than a batch may have.
pub const RECEIVE_BUFFER: usize = 8 << 20;
/// What one message is counted as, at most (`truesize` of an acknowledgement, rounded up).
const COUNTED: usize = 1024;
/// More in a send is no faster.
const BATCH: usize = 1024;
/// A header of a message.
const HEADER: usize = 16;
/// The kernel fills at most 32 KiB in one part of a dump (netlink_dump).
const DATAGRAM: usize = 64 << 10;
/// A dump that was disturbed by a change is begun anew so often.
const DUMPS: usize = 8;
/// It was disturbed each time. The kernel says so by a flag (NLM_F_DUMP_INTR) and no number.
const DISTURBED: Errno = Errno::Other(nix::errno::Errno::EAGAIN as u16);

/// Opens a socket of the calling thread's network namespace, in the multicast groups of `groups`
/// (a bit each: `1 << (RTNLGRP_… - 1)`), with so many bytes of room for what waits.
pub fn open(groups: u32, room: usize) -> io::Result<Raw> {
    let mut socket = Raw::new(NETLINK_ROUTE)?;
    // Beyond net.core.rmem_max needs CAP_NET_ADMIN; without, less must do.
    if setsockopt(&socket, sockopt::RcvBufForce, &room).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &room);
    }
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// The number by which the kernel knows a socket, and by which its news say who caused them.
pub fn port(socket: &Raw) -> io::Result<u32> {
    let mut address = SocketAddr::new(0, 0);
    socket.get_address(&mut address)?;
    Ok(address.port_number())
}

/// One message of a batch and its flags beside `NLM_F_REQUEST`.
pub type Change = (RouteNetlinkMessage, u16);

#[derive(Debug)]
pub struct Socket {
    raw: Raw,
    pub port: u32,
    sequence: u32,
    out: Vec<u8>,
    input: Vec<u8>,
    /// Messages whose refusals surely fit into the receive queue.
    batch: usize,
}

impl Socket {
    pub fn open() -> io::Result<Socket> {
        let raw = open(0, RECEIVE_BUFFER)?;
        raw.set_cap_ack(true)?;
        raw.set_netlink_get_strict_chk(true)?;
        let room = raw.get_rx_buf_sz()? / COUNTED;
        let (port, batch) = (port(&raw)?, room.clamp(1, BATCH));
        let input = Vec::with_capacity(DATAGRAM);
        Ok(Socket { raw, port, sequence: 0, out: Vec::new(), input, batch })
    }

    /// One request and its acknowledgement.
    pub fn call(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Errno> {
        let mut refused = self.batch([(message, flags)])?;
        refused.pop().map_or(Ok(()), |(_, errno)| Err(errno))
    }

    /// Sends all messages, many in a send, and returns what was refused, by position. Only the
    /// last of a send asks for an acknowledgement: the kernel answers those that fail anyway.
    /// An error means that it is unknown what was done.
    pub fn batch<M: NetlinkSerializable>(
        &mut self,
        messages: impl IntoIterator<Item = (M, u16)>,
    ) -> Result<Vec<(usize, Errno)>, Errno> {
        let mut messages = messages.into_iter().peekable();
        let (mut refused, mut sent) = (Vec::new(), 0);
        while messages.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            self.out.clear();
            let (mut count, mut last) = (0, 0);
            for (message, flags) in messages.by_ref().take(self.batch) {
                last = self.out.len();
                self.put(&message, flags);
                count += 1;
            }
            let flags = u16::from_ne_bytes([self.out[last + 6], self.out[last + 7]]) | NLM_F_ACK;
            self.out[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
            self.send()?;
            self.acknowledged(first, count, |at, errno| refused.push((sent + at, errno)))?;
            sent += count;
        }
        Ok(refused)
    }

    fn put(&mut self, message: &impl NetlinkSerializable, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let (start, length) = (self.out.len(), HEADER + message.buffer_len());
        self.out.resize(start + length.next_multiple_of(4), 0);
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.message_type = message.message_type();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        header.emit(&mut self.out[start..]);
        message.serialize(&mut self.out[start + HEADER..start + length]);
    }

    fn send(&mut self) -> Result<(), Errno> {
        self.forget_unread();
        let kernel = SocketAddr::new(0, 0);
        let sent = self.raw.send_to(&self.out, &kernel, 0);
        sent.map(|_| ()).map_err(|error| errno::from_io(&error))
    }

    /// What an earlier request left when it failed takes up room. That some was lost as well
    /// (ENOBUFS) is told first (__skb_try_recv_datagram, net/core/datagram.c), once.
    fn forget_unread(&mut self) {
        const LOST: Errno = Errno::Other(nix::errno::Errno::ENOBUFS as u16);
        while matches!(self.receive(), Ok(()) | Err(LOST)) {}
    }

    /// Reads until the last of `count` messages is answered.
    fn acknowledged(
        &mut self,
        first: u32,
        count: usize,
        mut refuse: impl FnMut(usize, Errno),
    ) -> Result<(), Errno> {
        loop {
            self.receive()?;
            for found in message::split(&self.input) {
                let at = found.sequence_number().wrapping_sub(first) as usize;
                if found.message_type() != NLMSG_ERROR || at >= count {
                    continue;
                }
                if let Some(errno) = error_of(&found) {
                    refuse(at, errno);
                }
                if at + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), Errno> {
        self.input.clear();
        let got = self.raw.recv(&mut self.input, 0);
        got.map(|_| ()).map_err(|error| errno::from_io(&error))
    }

    /// What answers a request for one thing; `None`: it cannot be understood.
    pub fn get(&mut self, request: &impl NetlinkSerializable) -> Result<Option<Message>, Errno> {
        self.out.clear();
        self.put(request, 0);
        self.send()?;
        loop {
            self.receive()?;
            for found in message::split(&self.input) {
                if found.sequence_number() != self.sequence {
                    continue;
                }
                if found.message_type() != NLMSG_ERROR {
                    return Ok(Message::parse(found.message_type(), found.payload()));
                }
                return error_of(&found).map_or(Ok(None), Err);
            }
        }
    }

    /// Everything of a kind, as of one moment. What cannot be understood is left out. EAGAIN: it
    /// changed each time while it was read.
    pub fn dump(&mut self, request: &impl NetlinkSerializable) -> Result<Vec<Message>, Errno> {
        undisturbed(|| {
            let mut found = Vec::new();
            let whole = self.dump_once(request, |buffer| {
                found.extend(Message::parse(buffer.message_type(), buffer.payload()));
            })?;
            Ok(whole.then_some(found))
        })
    }

    /// False: something changed meanwhile, so that parts may not fit together.
    fn dump_once(
        &mut self,
        request: &impl NetlinkSerializable,
        mut each: impl FnMut(&NetlinkBuffer<&[u8]>),
    ) -> Result<bool, Errno> {
        self.out.clear();
        self.put(request, NLM_F_DUMP);
        self.send()?;
        let mut undisturbed = true;
        loop {
            self.receive()?;
            for found in message::split(&self.input) {
                if found.sequence_number() != self.sequence {
                    continue;
                }
                undisturbed &= found.flags() & NLM_F_DUMP_INTR == 0;
                match found.message_type() {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return error_of(&found).map_or(Ok(undisturbed), Err);
                    }
                    _ => each(&found),
                }
            }
        }
    }
}

/// Begins anew what was disturbed (`None`), but not for ever.
fn undisturbed<T>(mut read: impl FnMut() -> Result<Option<T>, Errno>) -> Result<T, Errno> {
    for _ in 0..DUMPS {
        if let Some(whole) = read()? {
            return Ok(whole);
        }
    }
    Err(DISTURBED)
}

/// The number that an answer begins with: 0 if all is well, else negative.
fn error_of(answer: &NetlinkBuffer<&[u8]>) -> Option<Errno> {
    let number = answer.payload().first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    (number < 0).then(|| errno::from_raw(-number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was disturbed each time was taken for whole.
    #[test]
    fn what_never_was_whole_is_no_answer() {
        assert_eq!(undisturbed(|| Ok(None::<()>)), Err(DISTURBED));
        let mut reads = 0;
        let third = undisturbed(|| {
            reads += 1;
            Ok((reads == 3).then_some(reads))
        });
        assert_eq!(third, Ok(3));
        assert_eq!(undisturbed(|| Err::<Option<()>, _>(Errno::Eperm)), Err(Errno::Eperm));
    }
}
