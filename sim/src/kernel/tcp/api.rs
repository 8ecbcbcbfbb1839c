//! What applications call.

use super::{BARE_HEADERS, Connection, MAX_PAYLOAD, State};
use crate::body::Body;
use crate::kernel::packet::{Tcp, TcpFlags};
use crate::kernel::socket::Demux;
use crate::kernel::{Errno, Kernel, NsId, Output, Owner, SocketId};
use kubesim_actors::ports::rules::AddrType;
use kubesim_runtime::Time;
use std::net::{Ipv4Addr, SocketAddrV4};

impl Kernel {
    /// Listens on one address or on all (0.0.0.0). `EADDRINUSE` if another listener is in the
    /// way, `EADDRNOTAVAIL` for an address that is not this namespace's.
    pub fn tcp_listen(
        &mut self,
        ns: NsId,
        addr: Ipv4Addr,
        port: u16,
        owner: Owner,
    ) -> Result<SocketId, Errno> {
        let space = self.spaces.get(ns).ok_or(Errno::Einval)?;
        let any = addr.is_unspecified();
        if !any && space.fib.addr_type(addr) != AddrType::Local {
            return Err(Errno::Eaddrnotavail);
        }
        let sockets = &self.core.sockets;
        let taken = |addr| !sockets.is_free(&Demux::Listener { ns, addr, port });
        let mut own = space.links.iter().flat_map(|link| &link.addresses).map(|a| a.ip());
        if taken(Ipv4Addr::UNSPECIFIED) || (any && own.any(taken)) {
            return Err(Errno::Eaddrinuse);
        }
        self.core.sockets.open(owner, Demux::Listener { ns, addr, port }, None)
    }

    /// Connects; `Connected` or `Failed` comes as an event. Messages may be sent before.
    /// `ENETUNREACH` without a route.
    pub fn tcp_connect(
        &mut self,
        now: Time,
        ns: NsId,
        dst: SocketAddrV4,
        owner: Owner,
        out: &mut Vec<Output>,
    ) -> Result<SocketId, Errno> {
        self.within(now, ns, out, |space, cx| {
            let hop = space.route_output(*dst.ip(), None)?;
            let src = space.source_for(*dst.ip(), &hop).ok_or(Errno::Enetunreach)?;
            let demux =
                |port| Demux::Connection { ns, local: SocketAddrV4::new(src, port), peer: dst };
            let port = cx.core.ephemeral(demux)?;
            let iss = cx.core.rng.u64() as u32;
            let local = SocketAddrV4::new(src, port);
            let connection = Connection::new(local, dst, State::SynSent, iss);
            let id = cx.core.sockets.open(owner, demux(port), Some(Box::new(connection)))?;
            space.with_connection(cx, id, |space, cx, connection| {
                space.push(cx, connection);
                true
            });
            Ok(id)
        })
    }

    /// Sends a message of `len` bytes (at least one). A message with an empty body is bytes
    /// without an end: the receiver counts them with the next message.
    ///
    /// `EINVAL` after [`Kernel::tcp_close`] and for a socket that is gone.
    pub fn tcp_send(
        &mut self,
        now: Time,
        socket: SocketId,
        body: Body,
        len: u32,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let connection = self.core.sockets.connection(socket).ok_or(Errno::Einval)?;
        if connection.fin_queued {
            return Err(Errno::Einval);
        }
        let mut rest = len.max(1);
        while rest > MAX_PAYLOAD {
            connection.write(MAX_PAYLOAD, false, false, Body::Empty);
            rest -= MAX_PAYLOAD;
        }
        connection.write(rest, false, false, body);
        self.push_socket(now, socket, out)
    }

    /// Sends FIN after what was written; the peer may go on sending. `Closed` comes when both
    /// sides are done. Of a listener: closes it and drops its half-open connections.
    pub fn tcp_close(&mut self, now: Time, socket: SocketId, out: &mut Vec<Output>) {
        let Some(connection) = self.core.sockets.connection(socket) else {
            self.core.sockets.close(socket);
            return;
        };
        if connection.state == State::SynSent {
            self.core.sockets.close(socket);
            return self.settle(now, out);
        }
        if !connection.fin_queued {
            connection.fin_queued = true;
            connection.write(0, false, true, Body::Empty);
            // Only a socket that is gone refuses, and this one was just found.
            let _ = self.push_socket(now, socket, out);
        }
    }

    /// Sends RST and forgets the socket; no event follows.
    pub fn tcp_abort(&mut self, now: Time, socket: SocketId, out: &mut Vec<Output>) {
        let Some(closed) = self.core.sockets.close(socket) else { return };
        let Some(connection) = closed.connection else { return };
        let ns = closed.demux.namespace();
        let reset = self.within(now, ns, out, |space, cx| {
            if connection.state == State::SynSent {
                return Ok(());
            }
            let tcp = Tcp {
                sport: connection.local.port(),
                dport: connection.peer.port(),
                seq: connection.nxt,
                ack: connection.rcv_nxt,
                flags: TcpFlags { rst: true, ack: true, ..TcpFlags::default() },
                len: 0,
            };
            let packet = connection.packet(tcp, BARE_HEADERS, Body::Empty);
            space.output(cx, packet, None)
        });
        // A reset that cannot be sent is lost; the peer finds out by itself.
        let _ = reset;
    }

    /// Closes a socket of any kind as the end of its process does: a connection with FIN, others
    /// without a word.
    pub fn close(&mut self, now: Time, socket: SocketId, out: &mut Vec<Output>) {
        self.tcp_close(now, socket, out);
    }

    fn push_socket(
        &mut self,
        now: Time,
        socket: SocketId,
        out: &mut Vec<Output>,
    ) -> Result<(), Errno> {
        let ns = self.core.sockets.namespace(socket).ok_or(Errno::Einval)?;
        self.within(now, ns, out, |space, cx| {
            space.with_connection(cx, socket, |space, cx, connection| {
                space.push(cx, connection);
                true
            });
            Ok(())
        })
    }
}
