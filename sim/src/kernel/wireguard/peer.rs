//! One peer: handshakes, sessions and timers (the paper's sections 5.4 and 6;
//! drivers/net/wireguard/{noise,receive,send,timers}.c), without the cryptography: a message says
//! whose it is, and only who has the private half of a key ever writes that key on one. Cookies,
//! replay windows and limits by number of messages are not modelled.

use super::{DATA, INITIATION, RESPONSE};
use crate::kernel::packet::Packet;
use ipnet::Ipv4Net;
use kubesim_actors::ports::network::{PublicKey, WireguardPeer};
use kubesim_runtime::{Hasher, Rng, Time};
use std::net::SocketAddrV4;
use std::time::Duration;

/// `REKEY_AFTER_TIME`, `REJECT_AFTER_TIME`, `REKEY_TIMEOUT`, `REKEY_TIMEOUT_JITTER_MAX_JIFFIES`,
/// `KEEPALIVE_TIMEOUT`, `MAX_TIMER_HANDSHAKES`, `MAX_STAGED_PACKETS`
/// (drivers/net/wireguard/messages.h).
const REKEY_AFTER: Duration = Duration::from_secs(120);
pub const REJECT_AFTER: Duration = Duration::from_secs(180);
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const JITTER: Duration = Duration::from_millis(333);
const KEEPALIVE: Duration = Duration::from_secs(10);
const HANDSHAKES: u32 = 18;
const STAGED: usize = 128;

/// Whoever gave them out knows sessions and handshakes by numbers of his own.
#[derive(Clone, Debug)]
pub enum Message {
    Initiation {
        from: PublicKey,
        to: PublicKey,
        sender: u32,
    },
    Response {
        from: PublicKey,
        sender: u32,
        receiver: u32,
    },
    /// Without a packet: a keepalive.
    Data {
        sender: u32,
        receiver: u32,
        packet: Option<Box<Packet>>,
    },
}

impl Message {
    /// Bytes of UDP's payload in all, and of the largest datagram.
    pub(super) fn lengths(&self, mtu: u32) -> (u32, u32) {
        match self {
            Message::Initiation { .. } => (INITIATION, INITIATION),
            Message::Response { .. } => (RESPONSE, RESPONSE),
            Message::Data { packet: None, .. } => (DATA, DATA),
            Message::Data { packet: Some(packet), .. } => {
                // calculate_skb_padding: to 16 bytes, but not beyond the MTU.
                let segment = packet.segment.next_multiple_of(16).min(mtu.max(packet.segment));
                (packet.len + (segment - packet.segment) + DATA, segment + DATA)
            }
        }
    }

    pub(crate) fn digest(&self, hasher: &mut Hasher) {
        match self {
            Message::Initiation { sender, .. } => hasher.u64(1 << 32 | u64::from(*sender)),
            Message::Response { sender, .. } => hasher.u64(2 << 32 | u64::from(*sender)),
            Message::Data { receiver, packet, .. } => {
                hasher.u64(3 << 32 | u64::from(*receiver));
                packet.iter().for_each(|packet| packet.digest(hasher));
            }
        }
    }
}

/// A datagram that is to leave.
pub(super) struct Send {
    pub to: SocketAddrV4,
    pub message: Message,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    ours: u32,
    theirs: u32,
    born: Time,
    initiator: bool,
}

impl Session {
    fn age(&self, now: Time) -> Duration {
        now.since(self.born)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub key: PublicKey,
    pub endpoint: SocketAddrV4,
    pub allowed: Ipv4Net,
    current: Option<Session>,
    /// The one before: what is under way still arrives.
    previous: Option<Session>,
    /// We have responded, and know not yet whether that has arrived.
    next: Option<Session>,
    /// The number of the initiation that waits for its response.
    initiated: Option<u32>,
    initiated_at: Option<Time>,
    attempts: u32,
    handshake: Option<Time>,
    staged: Vec<Box<Packet>>,
    retransmit: Time,
    keepalive: Time,
    another_keepalive: bool,
    new_handshake: Time,
}

impl Peer {
    pub fn new(want: &WireguardPeer) -> Peer {
        Peer {
            key: want.public_key,
            endpoint: want.endpoint,
            allowed: want.allowed,
            current: None,
            previous: None,
            next: None,
            initiated: None,
            initiated_at: None,
            attempts: 0,
            handshake: None,
            staged: Vec::new(),
            retransmit: Time::NEVER,
            keepalive: Time::NEVER,
            another_keepalive: false,
            new_handshake: Time::NEVER,
        }
    }

    /// As `wg show` has it.
    pub fn standing(&self) -> WireguardPeer {
        let Peer { key: public_key, endpoint, allowed, .. } = *self;
        WireguardPeer { public_key, endpoint, allowed }
    }

    pub fn forget_sessions(&mut self) {
        (self.current, self.previous, self.next, self.initiated) = (None, None, None, None);
    }

    /// It shook hands lately, so its endpoint is where it spoke from.
    pub fn speaks(&self, now: Time) -> bool {
        self.handshake.is_some_and(|at| now.since(at) < REJECT_AFTER)
    }

    pub fn deadline(&self) -> Time {
        self.retransmit.min(self.keepalive).min(self.new_handshake)
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        [&self.current, &self.previous, &self.next].into_iter().flatten()
    }

    /// Whether a message to the holder of `own` can be this peer's.
    pub fn is_from(&self, message: &Message, own: PublicKey) -> bool {
        match message {
            Message::Initiation { from, to, .. } => (*from, *to) == (self.key, own),
            Message::Response { from, receiver, .. } => {
                *from == self.key && self.initiated == Some(*receiver)
            }
            Message::Data { sender, receiver, .. } => {
                self.sessions().any(|known| (known.theirs, known.ours) == (*sender, *receiver))
            }
        }
    }

    pub fn transmit(
        &mut self,
        now: Time,
        rng: &mut Rng,
        own: PublicKey,
        packet: Box<Packet>,
        sends: &mut Vec<Send>,
    ) {
        if self.staged.len() == STAGED {
            self.staged.remove(0);
        }
        self.staged.push(packet);
        self.flush(now, rng, own, sends);
    }

    /// Sends what waits, if there is a session for it (wg_packet_send_staged_packets).
    fn flush(&mut self, now: Time, rng: &mut Rng, own: PublicKey, sends: &mut Vec<Send>) {
        let Some(session) = self.current.filter(|current| current.age(now) < REJECT_AFTER) else {
            return self.initiate(now, rng, own, false, sends);
        };
        for packet in std::mem::take(&mut self.staged) {
            self.say(session, Some(packet), sends);
            if self.new_handshake == Time::NEVER {
                self.new_handshake = now + KEEPALIVE + REKEY_TIMEOUT + jitter(rng);
            }
        }
        if session.initiator && session.age(now) >= REKEY_AFTER {
            self.initiate(now, rng, own, false, sends);
        }
    }

    fn say(&mut self, session: Session, packet: Option<Box<Packet>>, sends: &mut Vec<Send>) {
        let (sender, receiver) = (session.ours, session.theirs);
        let message = Message::Data { sender, receiver, packet };
        sends.push(Send { to: self.endpoint, message });
        self.keepalive = Time::NEVER;
    }

    /// wg_packet_send_queued_handshake_initiation: not more often than every 5 s.
    fn initiate(
        &mut self,
        now: Time,
        rng: &mut Rng,
        own: PublicKey,
        again: bool,
        sends: &mut Vec<Send>,
    ) {
        if !again {
            self.attempts = 0;
        }
        if self.initiated_at.is_some_and(|at| now.since(at) < REKEY_TIMEOUT) {
            return;
        }
        let sender = rng.u64() as u32;
        (self.initiated, self.initiated_at) = (Some(sender), Some(now));
        let message = Message::Initiation { from: own, to: self.key, sender };
        sends.push(Send { to: self.endpoint, message });
        self.keepalive = Time::NEVER;
        self.retransmit = now + REKEY_TIMEOUT + jitter(rng);
    }

    /// An authentic message: its sender is where it came from. The packet in it, if it is one that
    /// this peer may send.
    pub fn receive(
        &mut self,
        now: Time,
        rng: &mut Rng,
        own: PublicKey,
        (from, message): (SocketAddrV4, Message),
        sends: &mut Vec<Send>,
    ) -> Option<Box<Packet>> {
        self.endpoint = from;
        self.new_handshake = Time::NEVER;
        match message {
            Message::Initiation { sender, .. } => {
                self.respond(now, rng, own, sender, sends);
                None
            }
            Message::Response { sender, receiver, .. } => {
                let session =
                    Session { ours: receiver, theirs: sender, born: now, initiator: true };
                self.previous = self.current.replace(session);
                (self.next, self.initiated) = (None, None);
                self.complete(now);
                // The responder may speak once it has heard something.
                if self.staged.is_empty() {
                    self.say(session, None, sends);
                }
                self.flush(now, rng, own, sends);
                None
            }
            Message::Data { receiver, packet, .. } => {
                self.take(now, rng, own, receiver, sends).then_some(())?;
                let packet = packet?;
                match self.keepalive == Time::NEVER {
                    true => self.keepalive = now + KEEPALIVE,
                    false => self.another_keepalive = true,
                }
                self.allowed.contains(&packet.src).then_some(packet)
            }
        }
    }

    /// One's own initiation is given up for it (wg_noise_handshake_consume_initiation).
    fn respond(
        &mut self,
        now: Time,
        rng: &mut Rng,
        own: PublicKey,
        theirs: u32,
        sends: &mut Vec<Send>,
    ) {
        let ours = rng.u64() as u32;
        self.initiated = None;
        self.next = Some(Session { ours, theirs, born: now, initiator: false });
        let message = Message::Response { from: own, sender: ours, receiver: theirs };
        sends.push(Send { to: self.endpoint, message });
        self.keepalive = Time::NEVER;
    }

    /// False: the session is too old.
    fn take(
        &mut self,
        now: Time,
        rng: &mut Rng,
        own: PublicKey,
        receiver: u32,
        sends: &mut Vec<Send>,
    ) -> bool {
        let Some(session) = self.sessions().find(|known| known.ours == receiver).copied() else {
            return false;
        };
        if session.age(now) >= REJECT_AFTER {
            return false;
        }
        if self.next.take_if(|next| next.ours == receiver).is_some() {
            // Confirmed (wg_noise_received_with_keypair).
            self.previous = self.current.replace(session);
            self.complete(now);
            if !self.staged.is_empty() {
                self.flush(now, rng, own, sends);
            }
        }
        // The last moment at which a quiet initiator can rekey in time (keep_key_fresh).
        if session.initiator && session.age(now) >= REJECT_AFTER - KEEPALIVE - REKEY_TIMEOUT {
            self.initiate(now, rng, own, false, sends);
        }
        true
    }

    fn complete(&mut self, now: Time) {
        self.retransmit = Time::NEVER;
        self.attempts = 0;
        self.handshake = Some(now);
    }

    pub fn timeout(&mut self, now: Time, rng: &mut Rng, own: PublicKey, sends: &mut Vec<Send>) {
        if self.retransmit <= now {
            self.retransmit = Time::NEVER;
            if self.attempts > HANDSHAKES {
                self.keepalive = Time::NEVER;
                self.staged.clear();
            } else {
                self.attempts += 1;
                self.initiate(now, rng, own, true, sends);
            }
        }
        if self.keepalive <= now {
            self.keepalive = Time::NEVER;
            let session = self.current.filter(|current| current.age(now) < REJECT_AFTER);
            if let Some(session) = session {
                self.say(session, None, sends);
            }
            if std::mem::take(&mut self.another_keepalive) {
                self.keepalive = now + KEEPALIVE;
            }
        }
        if self.new_handshake <= now {
            self.new_handshake = Time::NEVER;
            self.initiate(now, rng, own, false, sends);
        }
    }
}

fn jitter(rng: &mut Rng) -> Duration {
    rng.between(Duration::ZERO, JITTER)
}
