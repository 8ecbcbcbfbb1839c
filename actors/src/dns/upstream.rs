//! The servers that are asked for everything outside the cluster, and how they fare.

use super::Dns;
use super::message::{Message, Type};
use super::way::Transport;
use kubesim_runtime::{Context, Time};
use smol_str::{SmolStr, format_smolstr};
use std::net::SocketAddrV4;
use std::time::Duration;

/// A server that fails this often in a row is asked last (`max_fails` of CoreDNS' forward).
const MAX_FAILS: u32 = 2;
/// How often one that does not answer is asked whether it lives (`health_check 0.5s`).
pub const HEALTH: Duration = Duration::from_millis(500);
/// How often one that leads back to us is.
const LOOP_RETEST: Duration = Duration::from_secs(10);
/// Queries below this name are ours alone: seen again, they tell of a loop.
const PROBE_ZONE: &str = "loop.kubesim";

#[derive(Clone, Debug)]
pub struct Server {
    pub address: SocketAddrV4,
    pub state: State,
    failures: u32,
    probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Up,
    Down,
    /// Our own queries come back to us through it.
    Looping,
}

/// A query of which only the server's being alive matters, and whether we see it again.
#[derive(Clone, Debug)]
struct Probe {
    name: SmolStr,
    sent: Time,
}

/// All of them, in the order of preference.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    list: Vec<Server>,
    /// Of this incarnation: tells our probes from those of other nodes.
    nonce: u64,
    probes: u64,
    /// The port queries leave from.
    port: u16,
}

impl Servers {
    pub fn new(nonce: u64, port: u16) -> Self {
        Servers { list: Vec::new(), nonce, probes: 0, port }
    }
    pub fn set_port(&mut self, port: u16) {
        self.port = port;
    }
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
    pub fn iter(&self) -> impl Iterator<Item = &Server> {
        self.list.iter()
    }
    pub fn addresses(&self) -> Vec<SocketAddrV4> {
        self.list.iter().map(|server| server.address).collect()
    }
    pub fn contains(&self, address: SocketAddrV4) -> bool {
        self.list.iter().any(|server| server.address == address)
    }
    fn get(&mut self, address: SocketAddrV4) -> Option<&mut Server> {
        self.list.iter_mut().find(|server| server.address == address)
    }

    /// Makes the list this one; what is known of those that stay is kept, new ones are probed.
    pub fn set(&mut self, addresses: &[SocketAddrV4], ctx: &mut Context<'_, Dns>) {
        let old = std::mem::take(&mut self.list);
        let known = |address| old.iter().find(|server| server.address == address).cloned();
        let fresh = |address| Server { address, state: State::Up, failures: 0, probe: None };
        self.list = addresses.iter().map(|a| known(*a).unwrap_or_else(|| fresh(*a))).collect();
        for address in addresses.iter().filter(|address| known(**address).is_none()) {
            self.probe(*address, ctx);
        }
    }

    /// Asks the server for a name that nobody else asks for, unless it has just been asked.
    pub fn probe(&mut self, address: SocketAddrV4, ctx: &mut Context<'_, Dns>) {
        let now = ctx.now();
        let (nonce, number, port) = (self.nonce, self.probes, self.port);
        let Some(server) = self.get(address) else { return };
        if server.probe.as_ref().is_some_and(|probe| now.since(probe.sent) < HEALTH) {
            return;
        }
        let name = format_smolstr!("{nonce:016x}-{number}.{PROBE_ZONE}");
        server.probe = Some(Probe { name: name.clone(), sent: now });
        self.probes += 1;
        let id = ctx.rng().u64() as u16;
        Transport::Udp.ask(port, address, Message::query(id, name, Type::Txt), ctx);
    }

    /// A query came in. If it is a probe of ours, the server it went to leads back to us.
    /// Returns that server, or nothing for other people's queries.
    pub fn looped(&mut self, name: &str, ctx: &mut Context<'_, Dns>) -> Option<SocketAddrV4> {
        if !self.is_probe(name) {
            return None;
        }
        let ours = |server: &&mut Server| server.probe.as_ref().is_some_and(|p| p.name == name);
        let server = self.list.iter_mut().find(ours)?;
        // Its answer, which is our own, says nothing any more.
        server.probe = Some(Probe { name: SmolStr::default(), sent: ctx.now() });
        let address = server.address;
        if std::mem::replace(&mut server.state, State::Looping) != State::Looping {
            ctx.note(|| format!("upstream {address} sends our own queries back: not asked"));
        }
        Some(address)
    }

    pub fn is_probe(&self, name: &str) -> bool {
        let label = name.strip_suffix(PROBE_ZONE).and_then(|label| label.strip_suffix('.'));
        let nonce = label.and_then(|label| label.split_once('-')).map(|(nonce, _)| nonce);
        nonce.is_some_and(|nonce| u64::from_str_radix(nonce, 16) == Ok(self.nonce))
    }

    /// The answer to a probe, whatever it says: the server lives and is no loop.
    pub fn probe_answered(
        &mut self,
        address: SocketAddrV4,
        name: &str,
        ctx: &mut Context<'_, Dns>,
    ) {
        let Some(server) = self.get(address) else { return };
        if server.probe.take_if(|probe| probe.name == name).is_some() {
            server.up(ctx);
        }
    }

    /// It answered a question, which a loop does too, late: only a probe ends that suspicion.
    pub fn answered(&mut self, address: SocketAddrV4, ctx: &mut Context<'_, Dns>) {
        let server = self.get(address).filter(|server| server.state != State::Looping);
        server.into_iter().for_each(|server| server.up(ctx));
    }

    pub fn failed(&mut self, address: SocketAddrV4, ctx: &mut Context<'_, Dns>) {
        let Some(server) = self.get(address) else { return };
        server.failures += 1;
        if server.failures >= MAX_FAILS && server.state == State::Up {
            server.state = State::Down;
            let failures = server.failures;
            ctx.note(|| format!("upstream {address} is down after {failures} failures in a row"));
        }
    }

    /// Probes those that are not up. True while there are such.
    pub fn health(&mut self, ctx: &mut Context<'_, Dns>) -> bool {
        let now = ctx.now();
        let due = |server: &&Server| match server.state {
            State::Up => false,
            State::Down => true,
            State::Looping => {
                server.probe.as_ref().is_none_or(|probe| now.since(probe.sent) >= LOOP_RETEST)
            }
        };
        let due: Vec<_> = self.list.iter().filter(due).map(|server| server.address).collect();
        due.into_iter().for_each(|address| self.probe(address, ctx));
        self.any_ill()
    }

    pub fn any_ill(&self) -> bool {
        self.list.iter().any(|server| server.state != State::Up)
    }
}

impl Server {
    fn up(&mut self, ctx: &mut Context<'_, Dns>) {
        self.failures = 0;
        let address = self.address;
        if std::mem::replace(&mut self.state, State::Up) != State::Up {
            ctx.note(|| format!("upstream {address} answers again"));
        }
    }
}
