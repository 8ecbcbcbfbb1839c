//! The ways that questions and answers take: a datagram, or a connection where a datagram is too
//! small.

use super::message::{LONGEST, Message, PLAIN_SIZE};
use super::{Dns, Effect, PORT};
use crate::ports::packets::{Body, Connection, Request};
use kubesim_runtime::Context;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
}

/// As port numbers have it behind them.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        })
    }
}

impl Transport {
    pub const ALL: [Transport; 2] = [Transport::Udp, Transport::Tcp];

    /// Takes queries at this address.
    pub fn listen(self, address: Ipv4Addr, ctx: &mut Context<'_, Dns>) {
        let port = PORT;
        ctx.perform(Effect::Packets(match self {
            Transport::Udp => Request::Bind { address, port },
            Transport::Tcp => Request::Listen { address, port },
        }));
    }

    /// Asks a server; a datagram leaves from `from_port`.
    pub fn ask(
        self,
        from_port: u16,
        to: SocketAddrV4,
        message: Message,
        ctx: &mut Context<'_, Dns>,
    ) {
        let message = Arc::new(message);
        ctx.perform(Effect::Packets(match self {
            Transport::Udp => Request::Send { from: None, from_port, to, body: Body::Dns(message) },
            Transport::Tcp => Request::Ask { to, message },
        }));
    }
}

/// How a query came, and how its answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The answer leaves from the address that was asked.
    Datagram {
        local: Ipv4Addr,
        from: SocketAddrV4,
    },
    Connection(Connection),
}

impl Way {
    pub fn transport(self) -> Transport {
        match self {
            Way::Datagram { .. } => Transport::Udp,
            Way::Connection(_) => Transport::Tcp,
        }
    }

    /// Cut to what the asker takes, which over a connection is all that a message can hold.
    pub fn answer(self, mut reply: Message, ctx: &mut Context<'_, Dns>) {
        ctx.perform(Effect::Packets(match self {
            Way::Datagram { local, from } => {
                reply.fit(reply.udp_size.max(PLAIN_SIZE));
                let body = Body::Dns(Arc::new(reply));
                Request::Send { from: Some(local), from_port: PORT, to: from, body }
            }
            Way::Connection(connection) => {
                reply.fit(LONGEST);
                Request::Respond { connection, message: Arc::new(reply) }
            }
        }));
    }
}

pub fn bind(address: Ipv4Addr, port: u16, ctx: &mut Context<'_, Dns>) {
    ctx.perform(Effect::Packets(Request::Bind { address, port }));
}
