//! What leaves a connection (tcp_output.c).

use super::{BARE_HEADERS, Connection, HEADERS, Path, SYN_HEADERS, State, before};
use crate::body::Body;
use crate::kernel::packet::{Ct, L4, Packet, Tcp, TcpFlags};
use crate::kernel::{Cx, Namespace, SocketId};
use kubesim_runtime::Time;

impl Connection {
    pub(super) fn packet(&self, tcp: Tcp, headers: u32, body: Body) -> Box<Packet> {
        let len = headers + tcp.payload();
        let largest = self.path.mtu.min(self.peer_mss + BARE_HEADERS);
        Box::new(Packet {
            src: *self.local.ip(),
            dst: *self.peer.ip(),
            ttl: 64,
            dont_fragment: self.path.says_df,
            len,
            segment: if tcp.flags.syn { len } else { len.min(largest) },
            l4: L4::Tcp(tcp),
            body,
            mark: 0,
            ct: Ct::None,
        })
    }

    fn header(&self, seq: u32, flags: TcpFlags, len: u32) -> Tcp {
        Tcp {
            sport: self.local.port(),
            dport: self.peer.port(),
            seq,
            ack: if flags.ack { self.rcv_nxt } else { 0 },
            flags,
            len,
        }
    }

    /// The packet of the queue's segment at `at`, which acknowledges all that was received.
    fn take_packet(&mut self, at: usize, now: Time) -> Box<Packet> {
        let acks = self.state != State::SynSent;
        let mss = self.path.mtu.saturating_sub(BARE_HEADERS);
        let segment = &mut self.queue[at];
        segment.again |= segment.sent_at != Time::NEVER;
        segment.sent_at = now;
        let (syn, fin, seq) = (segment.syn, segment.fin, segment.seq);
        let len = if syn { mss } else { segment.len };
        let (end, body) = (segment.end(), segment.body.clone());
        if before(self.nxt, end) {
            self.nxt = end;
        }
        if acks {
            self.owed = 0;
            self.ack_at = Time::NEVER;
        }
        let flags = TcpFlags { syn, fin, ack: acks, rst: false };
        let headers = if syn { SYN_HEADERS } else { HEADERS };
        self.packet(self.header(seq, flags, len), headers, body)
    }
}

impl Namespace {
    /// Lends a connection out to `act`, which says whether it lives on; then sets its alarm.
    pub(super) fn with_connection(
        &mut self,
        cx: &mut Cx<'_>,
        id: SocketId,
        act: impl FnOnce(&mut Self, &mut Cx<'_>, &mut Connection) -> bool,
    ) {
        let Some(socket) = cx.core.sockets.get_mut(id) else { return };
        let Some(mut connection) = socket.connection.take() else { return };
        if !act(self, cx, &mut connection) {
            cx.core.sockets.close(id);
            return;
        }
        let at = connection.deadline();
        if let Some(socket) = cx.core.sockets.get_mut(id) {
            socket.connection = Some(connection);
        }
        cx.core.set_alarm(id, at);
    }

    /// Asks the route again if the forwarding table changed since.
    pub(super) fn refresh_path(&self, connection: &mut Connection, now: Time) {
        let generation = Some(self.fib.generation());
        if connection.path.generation == generation {
            return;
        }
        let dst = *connection.peer.ip();
        if let Ok(hop) = self.route_output(dst, None) {
            let mtu = self.path_mtu(dst, &hop, now);
            let next_hop = Some((hop.dev, hop.via.unwrap_or(dst)));
            let confirmed = Time::ZERO;
            let says_df = self.may_say_df(dst, now);
            connection.path = Path { generation, mtu, says_df, next_hop, confirmed };
        }
    }

    /// Sends what was written and may leave now: the SYN; everything once established, but
    /// nothing new while a lost segment is being retransmitted.
    pub(super) fn push(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        let open = match connection.state {
            State::Established => usize::MAX,
            State::SynSent | State::SynReceived => 1,
        };
        if connection.retransmits > 0 {
            return;
        }
        while connection.sent < connection.queue.len().min(open) {
            let at = connection.sent;
            connection.sent += 1;
            self.send_queued(cx, connection, at);
        }
    }

    /// Sends a segment of the queue, again or for the first time.
    pub(super) fn send_queued(&mut self, cx: &mut Cx<'_>, connection: &mut Connection, at: usize) {
        self.refresh_path(connection, cx.now);
        let packet = connection.take_packet(at, cx.now);
        if connection.rto_at == Time::NEVER {
            connection.rto_at = cx.now + connection.rto;
        }
        // What cannot be sent now is lost as on the wire: the timer brings it again.
        let _ = self.output(cx, packet, None);
    }

    pub(super) fn send_ack(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        connection.owed = 0;
        connection.ack_at = Time::NEVER;
        let flags = TcpFlags { ack: true, ..TcpFlags::default() };
        let tcp = connection.header(connection.nxt, flags, 0);
        let packet = connection.packet(tcp, HEADERS, Body::Empty);
        // A lost acknowledgement is repeated with the next segment.
        let _ = self.output(cx, packet, None);
    }
}
