//! The news that the kernel sends to whoever listens.

use super::errno;
use super::message::{self, Message, RTM_DELNEXTHOP, RTM_DELROUTE, RTM_NEWNEXTHOP, RTM_NEWROUTE};
use super::socket;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_sys::Socket as Raw;
use nix::errno::Errno as System;
use socket2::{SockFilter, SockRef};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Multicast groups (`RTNLGRP_*`, include/uapi/linux/rtnetlink.h).
#[derive(Clone, Copy, Debug)]
pub enum Group {
    Link = 1,
    Neighbour = 3,
    Ipv4Address = 5,
    Ipv4Route = 7,
    Ipv4Netconf = 24,
    Nexthop = 32,
}

#[derive(Debug)]
pub struct Monitor {
    raw: Raw,
    input: Vec<u8>,
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl Monitor {
    /// `room`: bytes for news that wait.
    pub fn open(groups: &[Group], room: usize) -> io::Result<Monitor> {
        let mask = groups.iter().fold(0u32, |mask, group| mask | 1 << (*group as u32 - 1));
        Ok(Monitor { raw: socket::open(mask, room)?, input: Vec::with_capacity(64 << 10) })
    }

    /// Takes every piece of news there is; with each, whether a route took another's place. False:
    /// some were lost, for the queue was full (`ENOBUFS`), or for another reason.
    pub fn drain(&mut self, mut each: impl FnMut(Message, bool)) -> bool {
        let mut complete = true;
        loop {
            self.input.clear();
            match self.raw.recv(&mut self.input, 0) {
                Ok(_) => {
                    for found in message::split(&self.input) {
                        let news = Message::parse(found.message_type(), found.payload());
                        let replaces = found.flags() & NLM_F_REPLACE != 0;
                        news.into_iter().for_each(|news| each(news, replaces));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return complete,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    complete = false;
                    if errno::from_io(&error) != errno::from_raw(System::ENOBUFS as i32) {
                        return complete;
                    }
                }
            }
        }
    }

    /// Lets no news of routes and next hops in that the socket with this port caused: what it did,
    /// its owner knows, and thousands of them would fill the queue.
    pub fn without_routes_by(&self, port: u32) -> io::Result<()> {
        let port = u32::from_be_bytes(port.to_ne_bytes());
        let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
        self.attach(&[
            half(4),
            if_equal(kind(RTM_NEWROUTE), 3, 0),
            if_equal(kind(RTM_DELROUTE), 2, 0),
            if_equal(kind(RTM_NEWNEXTHOP), 1, 0),
            if_equal(kind(RTM_DELNEXTHOP), 0, 2),
            word(12),
            if_equal(port, 1, 0),
            ACCEPT,
            DROP,
        ])
    }

    /// Lets only news of neighbours and FDB entries of these links in.
    pub fn only_links(&self, links: &[u32]) -> io::Result<()> {
        let mut program = vec![word(20)];
        for (at, link) in links.iter().enumerate() {
            let index = u32::from_be_bytes(link.to_ne_bytes());
            let skip = u8::try_from(links.len() - at).unwrap_or(u8::MAX);
            program.push(if_equal(index, skip, 0));
        }
        program.extend([DROP, ACCEPT]);
        self.attach(&program)
    }

    fn attach(&self, program: &[SockFilter]) -> io::Result<()> {
        SockRef::from(&self.raw).attach_filter(program)
    }
}

// Instructions of classic BPF (include/uapi/linux/{filter,bpf_common}.h). Loads are big-endian,
// and netlink is in the machine's order.

const ACCEPT: SockFilter = SockFilter::new(0x06, 0, 0, u32::MAX);
const DROP: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// `A = the half word at this offset`.
fn half(offset: u32) -> SockFilter {
    SockFilter::new(0x28, 0, 0, offset)
}
/// `A = the word at this offset`.
fn word(offset: u32) -> SockFilter {
    SockFilter::new(0x20, 0, 0, offset)
}
/// Skips `yes` instructions if A equals `value`, else `no`.
fn if_equal(value: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter::new(0x15, yes, no, value)
}
