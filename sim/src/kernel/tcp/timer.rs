//! What time does to a connection (tcp_timer.c).

use super::{Connection, Rtt, State};
use crate::kernel::{Cx, Errno, Namespace, SocketEvent, SocketId};
use kubesim_runtime::Time;
use std::time::Duration;

/// `tcp_syn_retries`, and `tcp_syn_linear_timeouts`: so many come a second apart before they
/// back off (Linux 6.5 and later). A SYN goes out at 0, 1, 2, 3, 4, 5, 7, 11, 19, 35 and 67 s.
const SYN_RETRIES: u8 = 6;
const SYN_LINEAR: u8 = 4;
/// `tcp_synack_retries`
const SYNACK_RETRIES: u8 = 5;
/// `tcp_retries2` = 15 as a time: nine doublings of 200 ms, then 120 s each (tcp_model_timeout).
const GIVE_UP: Duration = Duration::from_millis(924_600);

impl Namespace {
    pub(in crate::kernel) fn socket_timeout(&mut self, cx: &mut Cx<'_>, id: SocketId) {
        let Some(socket) = cx.core.sockets.get_mut(id) else { return };
        cx.core.timers.take_first(&mut socket.alarm);
        let owner = socket.owner;
        if socket.connection.is_none() {
            // A ping that has waited long enough.
            cx.core.sockets.close(id);
            return;
        }
        self.with_connection(cx, id, |ns, cx, connection| {
            if connection.ack_at <= cx.now {
                ns.send_ack(cx, connection);
            }
            if connection.rto_at > cx.now {
                return true;
            }
            if let Some(end) = exhausted(connection, cx.now) {
                if let Some(errno) = end {
                    cx.tell(owner, id, SocketEvent::Failed(errno));
                }
                return false;
            }
            ns.retransmit(cx, connection);
            true
        });
    }

    /// tcp_retransmit_timer: the oldest segment again, and twice the patience.
    fn retransmit(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        if connection.sent == 0 {
            connection.rto_at = Time::NEVER;
            return;
        }
        if connection.retransmits == 0 {
            connection.retransmitting_since = cx.now;
        }
        connection.retransmits = connection.retransmits.saturating_add(1);
        connection.recover = None;
        connection.dup_acks = 0;
        self.send_queued(cx, connection, 0);
        let linear = connection.state == State::SynSent && connection.retransmits <= SYN_LINEAR;
        if !linear {
            connection.backoff = connection.backoff.saturating_add(1);
            connection.rto = (connection.rto * 2).min(Rtt::MAX_RTO);
        }
        connection.rto_at = cx.now + connection.rto;
    }

    /// RFC 6069 (tcp_ld_RTO_revert): an unreachable about the oldest segment takes one step of
    /// the back-off back, since the loss was the link's and not congestion's.
    pub(super) fn revert_backoff(&mut self, cx: &mut Cx<'_>, connection: &mut Connection) {
        if connection.retransmits == 0 || connection.backoff == 0 {
            return;
        }
        let Some(first) = connection.queue.front() else { return };
        connection.backoff -= 1;
        connection.rto = connection.rtt.backed_off(connection.backoff);
        let due = first.sent_at + connection.rto;
        // Past already: the timer strikes at once.
        connection.rto_at = due.max(cx.now);
    }
}

/// Whether a connection has retransmitted long enough, and with which error it ends.
fn exhausted(connection: &Connection, now: Time) -> Option<Option<Errno>> {
    let failed = Some(Some(connection.soft_error.unwrap_or(Errno::Etimedout)));
    let retransmits = connection.retransmits;
    match connection.state {
        State::SynSent if retransmits >= SYN_RETRIES + SYN_LINEAR => failed,
        State::SynReceived if retransmits >= SYNACK_RETRIES => Some(None),
        State::Established
            if retransmits > 0 && now.since(connection.retransmitting_since) >= GIVE_UP =>
        {
            failed
        }
        _ => None,
    }
}
