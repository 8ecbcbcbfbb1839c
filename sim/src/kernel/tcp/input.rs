//! What arrives for a connection (tcp_input.c, tcp_ipv4.c).

use super::{Arrived, Connection, HEADERS, State, before};
use crate::body::Body;
use crate::kernel::icmp::errno_of;
use crate::kernel::packet::{IcmpError, Packet, Quoted, Tcp};
use crate::kernel::socket::Demux;
use crate::kernel::{Cx, Errno, Namespace, Owner, SocketEvent, SocketId};
use kubesim_runtime::Time;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// TCP_DELACK_MIN
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// The sequence space ahead in which a segment is taken.
const WINDOW: u32 = 1 << 30;

/// Who an event is for.
#[derive(Clone, Copy)]
struct To {
    owner: Owner,
    id: SocketId,
}

impl Namespace {
    pub(in crate::kernel) fn tcp_input(&mut self, cx: &mut Cx<'_>, tcp: Tcp, packet: Box<Packet>) {
        let local = SocketAddrV4::new(packet.dst, tcp.dport);
        let peer = SocketAddrV4::new(packet.src, tcp.sport);
        let demux = Demux::Connection { ns: self.id, local, peer };
        if let Some(id) = cx.core.sockets.lookup(&demux) {
            let Some(owner) = cx.core.sockets.owner(id) else { return };
            return self.with_connection(cx, id, |ns, cx, connection| {
                ns.segment_input(cx, To { owner, id }, connection, tcp, packet)
            });
        }
        let opening = tcp.flags.syn && !tcp.flags.ack && !tcp.flags.rst;
        match self.listener(cx, local).filter(|_| opening) {
            Some(listener) => self.accept(cx, listener, local, peer, &tcp),
            // What is sent to a group is nobody's to refuse (tcp_v4_send_reset).
            None if !self.fib.is_local(packet.dst) => {}
            None => self.send_reset(cx, &packet),
        }
    }

    fn listener(&self, cx: &Cx<'_>, local: SocketAddrV4) -> Option<SocketId> {
        let (ns, port) = (self.id, local.port());
        let at = |addr| cx.core.sockets.lookup(&Demux::Listener { ns, addr, port });
        at(*local.ip()).or_else(|| at(Ipv4Addr::UNSPECIFIED))
    }

    /// A SYN for a listener: a half-open connection answers it.
    fn accept(
        &mut self,
        cx: &mut Cx<'_>,
        listener: SocketId,
        local: SocketAddrV4,
        peer: SocketAddrV4,
        syn: &Tcp,
    ) {
        let Some(owner) = cx.core.sockets.owner(listener) else { return };
        let iss = cx.core.rng.u64() as u32;
        let mut connection = Connection::new(local, peer, State::SynReceived, iss);
        connection.listener = Some(listener);
        connection.rcv_nxt = syn.seq.wrapping_add(1);
        connection.peer_mss = syn.len;
        let demux = Demux::Connection { ns: self.id, local, peer };
        let Ok(id) = cx.core.sockets.open(owner, demux, Some(Box::new(connection))) else { return };
        self.with_connection(cx, id, |ns, cx, connection| {
            ns.push(cx, connection);
            true
        });
    }

    /// False: the socket is gone.
    fn segment_input(
        &mut self,
        cx: &mut Cx<'_>,
        to: To,
        connection: &mut Connection,
        tcp: Tcp,
        packet: Box<Packet>,
    ) -> bool {
        if connection.state == State::SynSent {
            return self.syn_sent_input(cx, to, connection, &tcp, &packet);
        }
        if tcp.flags.rst {
            return !self.reset_input(cx, to, connection, &tcp);
        }
        if tcp.flags.syn {
            // The peer has not seen our answer: a SYN again, or a SYN-ACK again.
            match connection.state {
                State::SynReceived => self.send_queued(cx, connection, 0),
                _ => self.send_ack(cx, connection),
            }
            return true;
        }
        if !tcp.flags.ack {
            return true;
        }
        if connection.state == State::SynReceived && !self.establish(cx, to, connection, &tcp) {
            self.send_reset(cx, &packet);
            return false;
        }
        let bare = tcp.payload() == 0 && !tcp.flags.fin;
        self.ack_input(cx, connection, tcp.ack, bare);
        if !bare {
            let (seq, len, fin) = (tcp.seq, tcp.payload(), tcp.flags.fin);
            self.data_input(cx, to, connection, Arrived { seq, len, fin, body: packet.body });
        }
        self.push(cx, connection);
        if connection.is_done() {
            self.ack_if_owed(cx, connection);
            cx.tell(to.owner, to.id, SocketEvent::Closed);
            return false;
        }
        true
    }

    fn ack_if_owed(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        if connection.ack_at != Time::NEVER {
            self.send_ack(cx, connection);
        }
    }

    fn syn_sent_input(
        &mut self,
        cx: &mut Cx<'_>,
        to: To,
        connection: &mut Connection,
        tcp: &Tcp,
        packet: &Packet,
    ) -> bool {
        if tcp.flags.ack && tcp.ack != connection.nxt {
            self.send_reset(cx, packet);
            return true;
        }
        if tcp.flags.rst {
            if tcp.flags.ack {
                cx.tell(to.owner, to.id, SocketEvent::Failed(Errno::Econnrefused));
            }
            return !tcp.flags.ack;
        }
        if !(tcp.flags.syn && tcp.flags.ack) {
            return true;
        }
        connection.state = State::Established;
        connection.rcv_nxt = tcp.seq.wrapping_add(1);
        connection.peer_mss = tcp.len;
        self.ack_input(cx, connection, tcp.ack, false);
        cx.tell(to.owner, to.id, SocketEvent::Connected);
        let waiting = connection.sent < connection.queue.len();
        self.push(cx, connection);
        if !waiting {
            self.send_ack(cx, connection);
        }
        true
    }

    /// A reset; true if it ends the connection. One that is not exactly next is only questioned
    /// (RFC 5961).
    fn reset_input(
        &mut self,
        cx: &mut Cx<'_>,
        to: To,
        connection: &mut Connection,
        tcp: &Tcp,
    ) -> bool {
        if tcp.seq != connection.rcv_nxt {
            if tcp.seq.wrapping_sub(connection.rcv_nxt) < WINDOW {
                self.send_ack(cx, connection);
            }
            return false;
        }
        if connection.state == State::Established {
            let finished = connection.fin_queued && connection.fin_received;
            let event =
                if finished { SocketEvent::Closed } else { SocketEvent::Failed(Errno::Econnreset) };
            cx.tell(to.owner, to.id, event);
        }
        true
    }

    /// The handshake's last segment reached the listener's side. False: nobody listens any more.
    fn establish(
        &mut self,
        cx: &mut Cx<'_>,
        to: To,
        connection: &mut Connection,
        tcp: &Tcp,
    ) -> bool {
        let Some(listener) = connection.listener.filter(|id| cx.core.sockets.get(*id).is_some())
        else {
            return false;
        };
        if tcp.ack != connection.nxt {
            return false;
        }
        connection.state = State::Established;
        let (local, peer) = (connection.local, connection.peer);
        cx.tell(to.owner, to.id, SocketEvent::Accepted { listener, local, peer });
        true
    }

    /// tcp_ack: progress takes acknowledged segments off the queue and ends any back-off.
    fn ack_input(&mut self, cx: &mut Cx<'_>, connection: &mut Connection, ack: u32, bare: bool) {
        if before(connection.nxt, ack) || before(ack, connection.una) {
            return;
        }
        if ack == connection.una {
            if bare && connection.sent > 0 {
                self.duplicate_ack(cx, connection);
            }
            return;
        }
        connection.una = ack;
        let mut sample = None;
        while connection.queue.front().is_some_and(|first| !before(ack, first.end())) {
            let Some(acked) = connection.queue.pop_front() else { break };
            connection.sent = connection.sent.saturating_sub(1);
            connection.fin_acked |= acked.fin;
            sample = (!acked.again).then(|| cx.now.since(acked.sent_at)).or(sample);
        }
        if let Some(rtt) = sample {
            connection.rtt.sample(rtt);
        }
        if connection.retransmits > 0 {
            // All that was on its way when the timer struck counts as lost.
            connection.sent = 0;
        }
        connection.retransmits = 0;
        connection.backoff = 0;
        connection.dup_acks = 0;
        connection.soft_error = None;
        connection.rto = connection.rtt.timeout();
        connection.rto_at = if connection.sent > 0 { cx.now + connection.rto } else { Time::NEVER };
        match connection.recover {
            // NewReno: a partial acknowledgement shows the next hole.
            Some(end) if before(ack, end) && connection.sent > 0 => {
                self.send_queued(cx, connection, 0);
            }
            _ => connection.recover = None,
        }
        self.confirm_path(cx, connection);
    }

    /// The neighbour lives: it forwarded this. Told to it at most once a second.
    fn confirm_path(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        let path = &mut connection.path;
        if let Some((dev, ip)) = path.next_hop
            && cx.now.since(path.confirmed) >= Duration::from_secs(1)
        {
            path.confirmed = cx.now;
            self.confirm_neighbour(cx, dev, ip);
        }
    }

    fn duplicate_ack(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        connection.dup_acks = connection.dup_acks.saturating_add(1);
        let fast =
            connection.dup_acks == 3 && connection.recover.is_none() && connection.retransmits == 0;
        if fast {
            connection.recover = Some(connection.nxt);
            self.send_queued(cx, connection, 0);
        }
    }

    /// tcp_data_queue: delivers what is next, keeps what is early, acknowledges the rest.
    fn data_input(
        &mut self,
        cx: &mut Cx<'_>,
        to: To,
        connection: &mut Connection,
        arrived: Arrived,
    ) {
        if arrived.seq != connection.rcv_nxt {
            let ahead = arrived.seq.wrapping_sub(connection.rcv_nxt);
            if ahead < WINDOW {
                let distance = |early: &Arrived| early.seq.wrapping_sub(connection.rcv_nxt);
                let at = connection.early.partition_point(|early| distance(early) < ahead);
                if connection.early.get(at).is_none_or(|early| early.seq != arrived.seq) {
                    connection.early.insert(at, arrived);
                }
            }
            // Early or old: the sender is told at once what is missing.
            return self.send_ack(cx, connection);
        }
        let hole = !connection.early.is_empty();
        let fin = arrived.fin;
        deliver(cx, to, connection, arrived);
        while connection.early.first().is_some_and(|early| early.seq == connection.rcv_nxt) {
            let next = connection.early.remove(0);
            deliver(cx, to, connection, next);
        }
        let second = connection.ack_at != Time::NEVER;
        let large = connection.owed > connection.path.mtu.saturating_sub(HEADERS);
        if hole || fin || second || large {
            self.send_ack_or_data(cx, connection);
        } else {
            connection.ack_at = cx.now + DELAYED_ACK;
        }
    }

    /// Acknowledges at once, with data if some is waiting.
    fn send_ack_or_data(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        connection.ack_at = cx.now;
        self.push(cx, connection);
        self.ack_if_owed(cx, connection);
    }

    /// tcp_v4_err
    pub(in crate::kernel) fn tcp_error(
        &mut self,
        cx: &mut Cx<'_>,
        kind: IcmpError,
        about: &Quoted,
    ) {
        let local = SocketAddrV4::new(about.src, about.sport);
        let peer = SocketAddrV4::new(about.dst, about.dport);
        let demux = Demux::Connection { ns: self.id, local, peer };
        let Some(id) = cx.core.sockets.lookup(&demux) else { return };
        let Some(owner) = cx.core.sockets.owner(id) else { return };
        let seq = about.seq;
        self.with_connection(cx, id, |ns, cx, connection| {
            ns.error_about(cx, To { owner, id }, connection, kind, seq)
        });
    }

    fn error_about(
        &mut self,
        cx: &mut Cx<'_>,
        to: To,
        connection: &mut Connection,
        kind: IcmpError,
        seq: u32,
    ) -> bool {
        // Out of the window: not about anything that is on its way.
        if before(seq, connection.una) || before(connection.nxt, seq) {
            return true;
        }
        if let IcmpError::FragmentationNeeded { .. } = kind {
            self.heed_path_mtu(cx, kind, *connection.peer.ip());
            self.mtu_reduced(cx, connection);
            return true;
        }
        let unreachable = matches!(kind, IcmpError::NetUnreachable | IcmpError::HostUnreachable);
        if unreachable && seq == connection.una {
            self.revert_backoff(cx, connection);
        }
        match connection.state {
            State::SynSent => {
                cx.tell(to.owner, to.id, SocketEvent::Failed(errno_of(kind)));
                false
            }
            State::SynReceived => !unreachable,
            State::Established => {
                connection.soft_error = Some(errno_of(kind));
                true
            }
        }
    }

    /// tcp_simple_retransmit: what was too large for the path goes again at once, smaller, and
    /// without a back-off.
    fn mtu_reduced(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        let before = connection.path.mtu;
        self.refresh_path(connection, cx.now);
        if connection.path.mtu >= before {
            return;
        }
        for at in 0..connection.sent {
            if connection.queue[at].len + HEADERS > connection.path.mtu {
                self.send_queued(cx, connection, at);
            }
        }
    }
}

fn deliver(cx: &mut Cx<'_>, to: To, connection: &mut Connection, arrived: Arrived) {
    let Arrived { len, fin, body, .. } = arrived;
    connection.rcv_nxt = connection.rcv_nxt.wrapping_add(len + u32::from(fin));
    connection.owed += len;
    connection.partial += len;
    if !matches!(body, Body::Empty) {
        let len = std::mem::take(&mut connection.partial);
        cx.tell(to.owner, to.id, SocketEvent::Received { body, len });
    }
    if fin {
        connection.fin_received = true;
        cx.tell(to.owner, to.id, SocketEvent::PeerClosed);
    }
}
