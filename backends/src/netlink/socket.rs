//! The socket.

use super::Messages;
use super::message::{Attributes, Header, split_message};
use bytes::BytesMut;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use std::fmt;
use std::io::{self, ErrorKind};

/// `NLMSG_ERROR`, `NLMSG_DONE`; netfilter's own types begin at 16.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: what was dumped changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLMSGERR_ATTR_MSG`
const ERROR_TEXT: u16 = 1;
/// A dump's messages come in pieces of at most this (`netlink_dump`).
const RECEIVE: usize = 32 << 10;
/// How often a dump is begun anew because the table changed under it.
const DUMP_TRIES: u32 = 8;

/// A socket in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    buffer: BytesMut,
}

/// One message of a dump.
pub struct Incoming<'a> {
    pub kind: u16,
    pub body: &'a [u8],
}

/// A request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the message that was refused; 0 if the socket itself failed.
    pub sequence: u32,
    /// `errno`.
    pub code: i32,
    /// The kernel's own words, where it has some.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.code);
        match self.text.as_str() {
            "" => write!(f, "{error}"),
            text => write!(f, "{error}: {text}"),
        }
    }
}

impl Refusal {
    /// ENOENT: what the request speaks of is not there.
    pub fn is_absent(&self) -> bool {
        self.code == nix::errno::Errno::ENOENT as i32
    }
    fn of(error: &io::Error) -> Self {
        let code = error.raw_os_error().unwrap_or_default();
        let text = if code == 0 { error.to_string() } else { String::new() };
        Refusal { sequence: 0, code, text }
    }
}

impl Netlink {
    /// Of netfilter.
    pub fn open() -> io::Result<Self> {
        Netlink::speaking(NETLINK_NETFILTER)
    }

    /// Of generic netlink.
    pub fn open_generic() -> io::Result<Self> {
        Netlink::speaking(NETLINK_GENERIC)
    }

    fn speaking(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        // Old kernels lack both; then errors have no words and repeat the request.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Netlink { socket, buffer: BytesMut::with_capacity(RECEIVE) })
    }

    /// A socket that is told what happens: `groups` are `NFNLGRP_*`
    /// (include/uapi/linux/netfilter/nfnetlink.h).
    pub fn listen(groups: &[u32]) -> io::Result<Self> {
        let netlink = Netlink::open()?;
        groups.iter().try_for_each(|group| netlink.socket.add_membership(*group))?;
        Ok(netlink)
    }

    /// Hands over what has happened since the last time. `ENOBUFS`: some of it was lost.
    pub fn drain(&mut self, mut each: impl FnMut(Incoming<'_>)) -> io::Result<()> {
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            let mut rest = &self.buffer[..];
            while let Some((header, body, tail)) = split_message(rest) {
                rest = tail;
                each(Incoming { kind: header.kind, body });
            }
        }
    }

    /// Sends messages in one piece and hands over all that answers them. A refusal is the first of
    /// any message.
    pub fn request(
        &mut self,
        messages: &Messages,
        mut each: impl FnMut(Incoming<'_>),
    ) -> Result<(), Refusal> {
        self.send(messages).map_err(|error| Refusal::of(&error))?;
        let mut refused = None;
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // ENOBUFS: answers were lost. Whoever counts them will miss them.
                Err(error) => return Err(Refusal::of(&error)),
            }
            let mut rest = &self.buffer[..];
            while let Some((header, body, tail)) = split_message(rest) {
                rest = tail;
                match header.kind {
                    _ if !messages.have(header.sequence) => {}
                    ERROR => refused = refused.or(refusal(&header, body)),
                    kind => each(Incoming { kind, body }),
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Everything of a kind, as of one moment: begins again where it changed in between.
    pub fn dump<T: Default>(
        &mut self,
        messages: &Messages,
        mut each: impl FnMut(&mut T, Incoming<'_>),
    ) -> Result<T, Refusal> {
        for _ in 0..DUMP_TRIES {
            let mut found = T::default();
            if self.dump_once(messages, |one| each(&mut found, one))? {
                return Ok(found);
            }
        }
        let text = format!("it changed {DUMP_TRIES} times while it was read");
        Err(Refusal { sequence: messages.sequence(), code: 0, text })
    }

    fn dump_once(
        &mut self,
        messages: &Messages,
        mut each: impl FnMut(Incoming<'_>),
    ) -> Result<bool, Refusal> {
        self.send(messages).map_err(|error| Refusal::of(&error))?;
        let mut whole = true;
        loop {
            self.receive().map_err(|error| Refusal::of(&error))?;
            let mut rest = &self.buffer[..];
            while let Some((header, body, tail)) = split_message(rest) {
                rest = tail;
                if !messages.have(header.sequence) {
                    continue;
                }
                whole &= header.flags & DUMP_INTERRUPTED == 0;
                match header.kind {
                    DONE => return Ok(whole),
                    ERROR => match refusal(&header, body) {
                        Some(refused) => return Err(refused),
                        None => return Ok(whole),
                    },
                    kind => each(Incoming { kind, body }),
                }
            }
        }
    }

    fn send(&mut self, messages: &Messages) -> io::Result<()> {
        self.forget_unread();
        let bytes = messages.bytes();
        let sent = match self.socket.send(bytes, 0) {
            // A message has to fit into the send buffer (`netlink_sendmsg`): make it larger.
            Err(error) if is_too_long(&error) => {
                let room = bytes.len() + (64 << 10);
                setsockopt(&self.socket, SndBufForce, &room).map_err(io::Error::from)?;
                self.socket.send(bytes, 0)?
            }
            other => other?,
        };
        if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    /// Answers that an earlier request left when it failed may have the numbers of the next one's:
    /// each collection of messages counts for itself. That some were lost as well is told once.
    fn forget_unread(&mut self) {
        const LOST: i32 = nix::errno::Errno::ENOBUFS as i32;
        let lost = |error: io::Error| error.raw_os_error() == Some(LOST);
        while self.receive().map_or_else(lost, |()| true) {}
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE);
        self.socket.recv(&mut self.buffer, 0).map(|_| ())
    }
}

/// EMSGSIZE
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32)
}

/// `struct nlmsgerr`: the error, the header of the request, and with `NETLINK_EXT_ACK` more.
fn refusal(header: &Header, body: &[u8]) -> Option<Refusal> {
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    let capped = header.flags & 0x100 != 0;
    let words = Attributes(body.get(20..).filter(|_| capped).unwrap_or_default());
    let text = words.str(ERROR_TEXT).unwrap_or_default().to_owned();
    Some(Refusal { sequence: header.sequence, code: -code, text })
}

#[cfg(test)]
mod tests {
    use super::super::{family, flag};
    use super::*;

    /// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`
    /// (include/uapi/linux/genetlink.h)
    fn asks_for(name: &str) -> Messages {
        let mut messages = Messages::default();
        messages.push_generic(0x10, flag::REQUEST, 3, |message| message.str(2, name));
        messages
    }

    /// A request whose answers were not read left its refusals to the next one.
    #[test]
    fn a_refusal_is_not_the_next_requests() {
        let mut netlink = Netlink::open_generic().expect("a socket");
        netlink.send(&asks_for("nobody")).expect("sent");
        assert_eq!(family(&mut netlink, "nlctrl"), Ok(0x10));
        let refused = netlink.request(&asks_for("nobody"), |_| {}).expect_err("no such family");
        assert!(refused.is_absent(), "{refused}");
    }

    /// An answer to something else, which the kernel sends nobody here, is nobody's.
    #[test]
    fn a_collection_knows_its_own_numbers() {
        let mut messages = asks_for("one");
        messages.clear();
        assert!(!messages.have(1), "what was cleared is not asked any more");
        messages.push_generic(0x10, flag::REQUEST, 3, |message| message.str(2, "two"));
        messages.push_generic(0x10, flag::REQUEST, 3, |message| message.str(2, "three"));
        let own: Vec<u32> = (0..5).filter(|number| messages.have(*number)).collect();
        assert_eq!(own, [2, 3]);
    }
}
