//! Questions for others: asked of one server after the other, under ids of our own, answered to
//! everyone who asked, and remembered.
//!
//! A question goes on the way it came, as with CoreDNS (plugin/pkg/proxy/connect.go, without
//! `force_tcp` and `prefer_udp`): who asks by datagram is told that the answer was too long (TC),
//! comes again by TCP if he wants the rest (RFC 7766, section 5), and then it is TCP all the way.

use super::cache::{Cache, Question};
use super::message::{Message, Rcode, Record};
use super::upstream::{Servers, State};
use super::way::{Transport, Way};
use super::{Dns, Timer};
use kubesim_runtime::{Context, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

/// One try at one server.
const TRY: Duration = Duration::from_secs(2);
/// All tries together (`defaultTimeout` of CoreDNS' forward; resolvers wait as long).
const GIVE_UP: Duration = Duration::from_secs(5);
/// Tries at one server for one question.
const TRIES: u32 = 2;
/// Questions under way at once: a fraction of the ids, so that a free one is soon found.
const MAX_PENDING: usize = 16_384;

/// Who asked.
#[derive(Clone, Debug)]
pub struct Client {
    pub query: Arc<Message>,
    pub way: Way,
    /// Aliases within the cluster that led to the question.
    pub aliases: Vec<Record>,
}

#[derive(Clone, Debug)]
struct Pending {
    question: Question,
    transport: Transport,
    clients: Vec<Client>,
    /// Who is asked now; nobody while no server is known.
    server: Option<SocketAddrV4>,
    tries: Vec<(SocketAddrV4, u32)>,
    /// A server's refusal, for when no other knows better.
    refusal: Option<Arc<Message>>,
    deadline: Time,
    give_up: Time,
}

#[derive(Clone, Debug)]
pub struct Forwarder {
    pub servers: Servers,
    port: u16,
    /// The servers have been told: from here on, none means none.
    known: bool,
    try_timeout: Duration,
    rotate: bool,
    turn: usize,
    pending: BTreeMap<u16, Pending>,
    asked: BTreeMap<(Question, Transport), u16>,
    deadlines: BTreeSet<(Time, u16)>,
    armed: Option<Time>,
    cache: Cache,
}

impl Forwarder {
    pub fn new(nonce: u64, port: u16) -> Self {
        Forwarder {
            servers: Servers::new(nonce, port),
            port,
            known: false,
            try_timeout: TRY,
            rotate: false,
            turn: 0,
            pending: BTreeMap::new(),
            asked: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            armed: None,
            cache: Cache::default(),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
    pub fn set_port(&mut self, port: u16) {
        self.port = port;
        self.servers.set_port(port);
    }

    /// The servers are these now: the next query goes to them, and so does what was under way to
    /// one that is gone.
    pub fn set_servers(
        &mut self,
        addresses: &[SocketAddrV4],
        timeout: Option<Duration>,
        rotate: bool,
        ctx: &mut Context<'_, Dns>,
    ) {
        self.known = true;
        self.try_timeout = timeout.map_or(TRY, |timeout| timeout.min(TRY));
        self.rotate = rotate;
        self.servers.set(addresses, ctx);
        self.cache.keep_from(addresses);
        let lost = |pending: &Pending| pending.server.is_none_or(|s| !addresses.contains(&s));
        self.resend(lost, ctx);
        self.arm(ctx);
    }

    pub fn no_servers(&mut self, ctx: &mut Context<'_, Dns>) {
        self.known = true;
        self.resend(|pending| pending.server.is_none(), ctx);
        self.arm(ctx);
    }

    pub fn ask(&mut self, question: Question, client: Client, ctx: &mut Context<'_, Dns>) {
        if let Some(reply) = self.cache.get(&question, ctx.now()) {
            return deliver(&client, &reply, ctx);
        }
        let transport = client.way.transport();
        let asked = (question.clone(), transport);
        if let Some(id) = self.asked.get(&asked) {
            return self.join(*id, client, ctx);
        }
        if self.pending.len() >= MAX_PENDING {
            return deliver(&client, &client.query.reply(Rcode::ServFail), ctx);
        }
        let id = self.free_id(ctx);
        let give_up = ctx.now() + GIVE_UP;
        let pending = Pending {
            question,
            transport,
            clients: vec![client],
            server: None,
            tries: Vec::new(),
            refusal: None,
            deadline: give_up,
            give_up,
        };
        self.pending.insert(id, pending);
        self.asked.insert(asked, id);
        self.deadlines.insert((give_up, id));
        self.turn += usize::from(self.rotate);
        self.send(id, ctx);
        self.arm(ctx);
    }

    /// The same question while it is under way: one answer serves all. It may also be our own,
    /// come back through the server that was asked, so that one is probed.
    fn join(&mut self, id: u16, client: Client, ctx: &mut Context<'_, Dns>) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        let again = |one: &Client| one.way == client.way && one.query.id == client.query.id;
        if pending.clients.iter().any(again) {
            return;
        }
        pending.clients.push(client);
        if let Some(server) = pending.server {
            self.servers.probe(server, ctx);
        }
    }

    /// A datagram came to the port that queries leave from, or an answer over a connection.
    pub fn heard(
        &mut self,
        transport: Transport,
        from: SocketAddrV4,
        reply: &Arc<Message>,
        ctx: &mut Context<'_, Dns>,
    ) {
        if !reply.response {
            return;
        }
        let name = super::canonical(&reply.name);
        if self.servers.is_probe(&name) {
            return self.servers.probe_answered(from, &name, ctx);
        }
        let question = (name, reply.qtype);
        let Some(pending) = self.pending.get_mut(&reply.id) else { return };
        if pending.transport != transport {
            return;
        }
        let asked = pending.tries.iter().any(|(server, _)| *server == from);
        // Anything else is forged or meant for someone who was here before.
        if !asked || pending.question != question || !self.servers.contains(from) {
            return;
        }
        self.servers.answered(from, ctx);
        if matches!(reply.rcode, Rcode::ServFail | Rcode::Refused) {
            pending.refusal = Some(Arc::clone(reply));
            if pending.server == Some(from) {
                self.send(reply.id, ctx);
            }
        } else {
            self.cache.put(question, reply, from, ctx.now());
            self.finish(reply.id, Some(reply), ctx);
        }
        self.arm(ctx);
    }

    /// No connection, or it ended too early. That a server has no TCP does not make it an ill one:
    /// whether it lives, a probe finds out (as CoreDNS' forward does after an error).
    pub fn unanswered(&mut self, by: SocketAddrV4, id: u16, ctx: &mut Context<'_, Dns>) {
        let Some(pending) = self.pending.get(&id) else { return };
        if pending.transport != Transport::Tcp || pending.server != Some(by) {
            return;
        }
        self.servers.probe(by, ctx);
        self.send(id, ctx);
        self.arm(ctx);
    }

    /// An ICMP error says that nobody listens there.
    pub fn unreachable(&mut self, to: SocketAddrV4, ctx: &mut Context<'_, Dns>) {
        if !self.servers.contains(to) {
            return;
        }
        self.servers.failed(to, ctx);
        let sent =
            |pending: &Pending| pending.transport == Transport::Udp && pending.server == Some(to);
        self.resend(sent, ctx);
        self.arm(ctx);
    }

    /// A query of ours came back to us, through this server.
    pub fn looped(&mut self, name: &str, ctx: &mut Context<'_, Dns>) -> bool {
        let Some(server) = self.servers.looped(name, ctx) else {
            return self.servers.is_probe(name);
        };
        self.resend(|pending| pending.server == Some(server), ctx);
        self.arm(ctx);
        true
    }

    pub fn deadline(&mut self, ctx: &mut Context<'_, Dns>) {
        self.armed = None;
        let now = ctx.now();
        while let Some(&(at, id)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            let Some(pending) = self.pending.get(&id) else { continue };
            if let Some(server) = pending.server {
                self.servers.failed(server, ctx);
            }
            if pending.give_up <= now {
                self.finish(id, None, ctx);
            } else {
                self.send(id, ctx);
            }
        }
        self.arm(ctx);
    }

    fn resend(&mut self, which: impl Fn(&Pending) -> bool, ctx: &mut Context<'_, Dns>) {
        let chosen = self.pending.iter().filter(|(_, pending)| which(pending));
        let chosen: Vec<u16> = chosen.map(|(id, _)| *id).collect();
        chosen.into_iter().for_each(|id| self.send(id, ctx));
    }

    /// Asks the next server, or gives up if there is none left.
    fn send(&mut self, id: u16, ctx: &mut Context<'_, Dns>) {
        let Some(pending) = self.pending.get(&id) else { return };
        let Some(server) = self.choose(pending) else {
            if self.known {
                self.finish(id, None, ctx);
            }
            return;
        };
        let Some(pending) = self.pending.get_mut(&id) else { return };
        match pending.tries.iter_mut().find(|(tried, _)| *tried == server) {
            Some((_, times)) => *times += 1,
            None => pending.tries.push((server, 1)),
        }
        pending.server = Some(server);
        self.deadlines.remove(&(pending.deadline, id));
        pending.deadline = pending.give_up.min(ctx.now() + self.try_timeout);
        self.deadlines.insert((pending.deadline, id));
        let (name, qtype) = pending.question.clone();
        pending.transport.ask(self.port, server, Message::query(id, name, qtype), ctx);
    }

    /// The healthiest of those tried least, in the order of the list.
    fn choose(&self, pending: &Pending) -> Option<SocketAddrV4> {
        let tries = |address| {
            let tried = pending.tries.iter().find(|(server, _)| *server == address);
            tried.map_or(0, |(_, times)| *times)
        };
        let count = self.servers.iter().count().max(1);
        let usable =
            self.servers.iter().enumerate().filter(|(_, server)| {
                server.state != State::Looping && tries(server.address) < TRIES
            });
        let best = usable.min_by_key(|(place, server)| {
            let place =
                if self.rotate { (place + count - self.turn % count) % count } else { *place };
            (tries(server.address), server.state, place)
        });
        best.map(|(_, server)| server.address)
    }

    /// Answers everyone who asked; without a reply, with a failure.
    fn finish(&mut self, id: u16, reply: Option<&Arc<Message>>, ctx: &mut Context<'_, Dns>) {
        let Some(pending) = self.pending.remove(&id) else { return };
        self.asked.remove(&(pending.question, pending.transport));
        self.deadlines.remove(&(pending.deadline, id));
        let refusal = pending.refusal.as_ref();
        for client in &pending.clients {
            match reply.or(refusal) {
                Some(reply) => deliver(client, reply, ctx),
                None => deliver(client, &client.query.reply(Rcode::ServFail), ctx),
            }
        }
    }

    /// Not guessable, so that a forger does not find it (RFC 5452).
    fn free_id(&self, ctx: &mut Context<'_, Dns>) -> u16 {
        loop {
            let id = ctx.rng().u64() as u16;
            if !self.pending.contains_key(&id) {
                return id;
            }
        }
    }

    fn arm(&mut self, ctx: &mut Context<'_, Dns>) {
        let next = self.deadlines.first().map(|(at, _)| *at);
        if next == self.armed {
            return;
        }
        self.armed = next;
        match next {
            Some(at) => ctx.set_timer(Timer::Deadline, at.since(ctx.now())),
            None => ctx.clear_timer(Timer::Deadline),
        }
    }
}

/// The reply as this client asked for it: its id, its spelling, its aliases first.
fn deliver(client: &Client, reply: &Message, ctx: &mut Context<'_, Dns>) {
    let mut own = client.query.reply(reply.rcode);
    own.truncated = reply.truncated;
    own.answers = client.aliases.iter().chain(&reply.answers).cloned().collect();
    own.additional.clone_from(&reply.additional);
    client.way.answer(own, ctx);
}
