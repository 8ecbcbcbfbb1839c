//! What IPVS remembers of connections (net/netfilter/ipvs/ip_vs_conn.c, ip_vs_proto_tcp.c).

use crate::kernel::packet::TcpFlags;
use kubesim_actors::ports::rules::Protocol;
use kubesim_runtime::Time;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// An endpoint's address and port.
pub type Place = (Ipv4Addr, u16);

/// A connection as its client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    pub protocol: Protocol,
    pub client: SocketAddrV4,
    pub front: SocketAddrV4,
}

/// The same as the endpoint answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answered {
    pub protocol: Protocol,
    pub endpoint: Place,
    pub client: SocketAddrV4,
}

#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub endpoint: Place,
    pub state: State,
    pub expires: Time,
}

/// `IP_VS_TCP_S_*`, and the one state of all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    Datagrams,
}

/// `ipvsadm --set`: TCP, TCP after a FIN, UDP.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub tcp: Duration,
    pub fin: Duration,
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Timeouts { tcp: minutes(15), fin: minutes(2), udp: minutes(5) }
    }
}

impl Timeouts {
    /// `tcp_timeouts` of ip_vs_proto_tcp.c.
    fn of(&self, state: State) -> Duration {
        match state {
            State::Established => self.tcp,
            State::FinWait => self.fin,
            State::Datagrams => self.udp,
            State::SynSent | State::TimeWait => Duration::from_secs(120),
            State::SynRecv | State::CloseWait => Duration::from_secs(60),
            State::Close => Duration::from_secs(10),
            State::None => Duration::from_secs(2),
        }
    }
}

impl State {
    /// `tcp_states` of ip_vs_proto_tcp.c, by who sent the segment.
    fn next(self, by_client: bool, flags: TcpFlags) -> State {
        use State::*;
        match (by_client, self) {
            (true, SynRecv) if flags.rst => SynRecv,
            (false, SynSent | TimeWait) if flags.rst => self,
            _ if flags.rst => Close,
            (true, Established | SynSent) if flags.syn => Established,
            (true, _) if flags.syn => SynRecv,
            (false, Established | SynRecv) if flags.syn => self,
            (false, _) if flags.syn => SynSent,
            (true, Established) if flags.fin => CloseWait,
            (true, None) if flags.fin => Close,
            (true, SynRecv | FinWait) if flags.fin => TimeWait,
            (false, Established) if flags.fin => FinWait,
            (false, None | SynRecv | CloseWait) if flags.fin => TimeWait,
            _ if flags.fin => self,
            (_, SynRecv) if flags.ack => Established,
            (true, None) if flags.ack => Close,
            (false, None) if flags.ack => Established,
            _ => self,
        }
    }

    /// A SYN means a new connection, though this one is still remembered
    /// (`is_new_conn_expected`, ip_vs_core.c, with conn_reuse_mode 1).
    pub fn is_over(self) -> bool {
        matches!(self, State::TimeWait | State::Close)
    }
}

/// All connections of a namespace, found from either side.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    all: BTreeMap<Asked, Connection>,
    by_answer: BTreeMap<Answered, Asked>,
    pub timeouts: Timeouts,
    /// How many there may be before those that have expired are looked for.
    room: usize,
}

impl Connections {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn asked(&self, asked: &Asked, now: Time) -> Option<Connection> {
        self.all.get(asked).copied().filter(|connection| connection.expires > now)
    }

    pub fn answered(&self, answered: &Answered, now: Time) -> Option<Asked> {
        let asked = *self.by_answer.get(answered)?;
        self.asked(&asked, now).map(|_| asked)
    }

    /// A packet of a connection passes.
    pub fn touch(&mut self, asked: &Asked, by_client: bool, flags: Option<TcpFlags>, now: Time) {
        let Some(connection) = self.all.get_mut(asked) else { return };
        connection.state = match flags {
            Some(flags) => connection.state.next(by_client, flags),
            None => State::Datagrams,
        };
        connection.expires = now + self.timeouts.of(connection.state);
    }

    pub fn open(&mut self, asked: Asked, endpoint: Place, now: Time) {
        if self.all.len() > self.room {
            self.end(|_, connection| connection.expires <= now);
            self.room = 64 + self.all.len() * 2;
        }
        let state = State::None;
        let expires = now + self.timeouts.of(state);
        self.end_one(&asked);
        self.all.insert(asked, Connection { endpoint, state, expires });
        let Asked { protocol, client, .. } = asked;
        self.by_answer.insert(Answered { protocol, endpoint, client }, asked);
    }

    pub fn end_one(&mut self, asked: &Asked) {
        if let Some(Connection { endpoint, .. }) = self.all.remove(asked) {
            let Asked { protocol, client, .. } = *asked;
            self.by_answer.remove(&Answered { protocol, endpoint, client });
        }
    }

    /// Ends all that are so, and returns them.
    pub fn end(&mut self, which: impl Fn(&Asked, &Connection) -> bool) -> Vec<Asked> {
        let found = self.all.iter().filter(|(asked, connection)| which(asked, connection));
        let gone: Vec<Asked> = found.map(|(asked, _)| *asked).collect();
        gone.iter().for_each(|asked| self.end_one(asked));
        gone
    }

    /// How many an endpoint of a front has.
    pub fn count(&self, protocol: Protocol, front: SocketAddrV4, at: Place, now: Time) -> usize {
        let to = |asked: &Asked| asked.protocol == protocol && asked.front == front;
        let live = |one: &Connection| one.endpoint == at && one.expires > now;
        self.all.iter().filter(|(asked, one)| to(asked) && live(one)).count()
    }
}
