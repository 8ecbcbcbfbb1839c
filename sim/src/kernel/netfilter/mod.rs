//! netfilter: the hooks, iptables' tables and chains, conntrack and NAT of one namespace.
//!
//! Rules live in [`table`], compiled by [`compile`] and walked by [`walk`]; connections in
//! [`conntrack`], bound and rewritten by [`nat`]. Packets are counted by rule in built-in and
//! foreign chains; the chains of an owner are shared by many machines and have no counters.

mod ages;
mod approach;
mod chains;
mod compile;
mod confirm;
mod conntrack;
mod entry;
pub mod family;
mod flat;
mod hooks;
mod inspect;
mod ipvs;
mod leads;
mod matches;
mod moved;
mod nat;
mod parse;
mod port;
mod recent;
mod request;
mod restore;
mod save;
mod services;
mod table;
mod tcp_state;
mod tcp_track;
#[cfg(test)]
mod tests;
mod tuple;
mod valid;
mod walk;
mod way;

pub use compile::ChainPool;
pub use entry::Entry;
pub use leads::{Lead, Place, Written};
pub use tcp_state::TcpState;
pub use tuple::Tuple;
pub use way::{Alike, Client, Led, To, Ways};

use super::family::{Family, V4, V6};
use super::packet::{Ct, Packet};
use conntrack::Conntrack;
use family::{Filtered, RejectWith, said};
use kubesim_actors::ports::rules::{AddrType, Rule, Table};
use kubesim_runtime::{Rng, Time, near};
use recent::RecentLists;
use table::Ruleset;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<F: Family = V4> {
    Accept,
    Drop,
    Reject(RejectWith<F>),
    /// At INPUT only: it has another destination by now, and is to be sent there.
    SentOn,
}

/// What a hook may know beside the packet.
pub struct HookContext<'a, F: Family = V4> {
    pub now: Time,
    /// The link it came in by; `None` for locally made packets.
    pub input: Option<&'a str>,
    /// The link it is to leave by, where that is known.
    pub output: Option<&'a str>,
    /// It entered through a port of a bridge (`-m physdev`, with bridge-nf-call-iptables).
    pub physdev_in: bool,
    /// IPVS has sent it on from INPUT, and does not look at it again (`skb->ipvs_property`).
    pub sent_on: bool,
    /// `-m addrtype`: of IPv4 an address has one type, of IPv6 it may have several.
    pub has_type: &'a dyn Fn(F::Addr, AddrType) -> bool,
    /// The address MASQUERADE takes for a packet to this destination: the preferred one of the
    /// output link (`inet_select_addr`).
    pub masquerade_to: &'a dyn Fn(F::Addr) -> Option<F::Addr>,
}

/// The netfilter of one namespace for one family. One pointer until a rule is loaded.
#[derive(Clone, Debug)]
pub struct Filter<F: Filtered = V4> {
    state: Option<Box<State<F>>>,
}

/// What iptables writes, and what ip6tables does.
pub type Netfilter = Filter<V4>;
pub type Netfilter6 = Filter<V6>;

impl<F: Filtered> Default for Filter<F> {
    fn default() -> Self {
        Filter { state: None }
    }
}

#[derive(Clone, Debug)]
struct State<F: Filtered = V4> {
    rules: Ruleset<F>,
    conntrack: Conntrack<F>,
    recent: RecentLists<F>,
    beside: F::Beside,
    /// Something in the rules needs conntrack (`nf_ct_netns_get`).
    tracking: bool,
    /// The nat table is loaded: it stays so when its last rule goes, so that what is bound goes
    /// on being translated.
    nat: bool,
    idle: bool,
    /// The built-in chains that have rules or drop by policy, as bits: most hooks of most tables
    /// are empty, and a packet passes them without touching the tables.
    loaded: u32,
}

impl<F: Filtered> Default for State<F> {
    fn default() -> Self {
        State {
            rules: Ruleset::default(),
            conntrack: Conntrack::default(),
            recent: RecentLists::default(),
            beside: F::Beside::default(),
            tracking: false,
            nat: false,
            idle: false,
            loaded: 0,
        }
    }
}

impl<F: Filtered> Filter<F> {
    /// Runs everything registered at a hook, by priority, and rewrites the packet where NAT says
    /// so (`include/uapi/linux/netfilter_ipv4.h`: raw -300, conntrack -200, mangle -150,
    /// nat destination -100, filter 0, nat source 100, confirm last).
    ///
    /// A packet that comes back through loopback keeps its [`Ct`]; one that enters another
    /// namespace must have it reset to [`Ct::None`].
    pub fn hook(
        &mut self,
        hook: Hook,
        packet: &mut Packet<F>,
        context: &HookContext<'_, F>,
        rng: &mut Rng,
    ) -> Verdict<F> {
        match &mut self.state {
            Some(state) if !state.idle => state.hook(hook, packet, context, rng),
            _ => Verdict::Accept,
        }
    }

    /// Asks for the memory that a new connection touches.
    pub fn approach(&self, pass: usize) {
        let Some(state) = &self.state else { return };
        if pass == 0 {
            near::value(&state.rules);
            near::value(&state.rules.owners);
            near::value(&state.conntrack);
            near::value(&state.loaded);
            near::value(&state.nat);
        } else {
            state.conntrack.approach(pass - 1);
            state.rules.approach(state.loaded, pass - 1);
        }
    }

    /// Nothing is loaded and nothing is tracked: hooks may be skipped.
    pub fn is_idle(&self) -> bool {
        self.state.as_ref().is_none_or(|state| state.idle)
    }

    /// What the answer to a refused packet (an ICMP error, a reset) belongs to: its connection,
    /// seen from the other side (`nf_ct_attach`). To be written into the answer before OUTPUT, so
    /// that its addresses are translated back.
    pub fn attach(refused: Ct) -> Ct {
        match refused {
            Ct::Entry { id, reply, .. } => {
                Ct::Entry { id, reply: !reply, new: false, related: true }
            }
            _ => Ct::None,
        }
    }

    /// A segment was answered with a reset: its connection is as good as closed
    /// (`nf_ct_set_closing`).
    pub fn closing(&mut self, refused: Ct, now: Time) {
        if let (Ct::Entry { id, .. }, Some(state)) = (refused, &mut self.state) {
            state.conntrack.close(id, now);
        }
    }

    /// Chains that are alike in all namespaces with this pool are held once.
    pub fn share(&mut self, pool: ChainPool<F>) {
        self.state().rules.pool = pool;
    }

    fn state(&mut self) -> &mut State<F> {
        self.state.get_or_insert_with(|| Box::new(State { idle: true, ..State::default() }))
    }
    fn edit<T>(
        &mut self,
        change: impl FnOnce(&mut Ruleset<F>) -> Result<T, String>,
    ) -> Result<T, String> {
        let state = self.state();
        state.rules.edits += 1;
        let result = change(&mut state.rules);
        state.changed();
        result
    }

    /// `iptables -A`, by somebody who owns no chains here. Errors are iptables' own words.
    pub fn append(&mut self, table: Table, chain: &str, rule: Rule<F::Addr>) -> Result<(), String> {
        self.edit(|rules| rules.put(table, chain, usize::MAX, rule))
    }
    /// `iptables -I chain at+1`: 0 is first.
    pub fn insert(
        &mut self,
        table: Table,
        chain: &str,
        at: usize,
        rule: Rule<F::Addr>,
    ) -> Result<(), String> {
        self.edit(|rules| rules.put(table, chain, at, rule))
    }
    /// `iptables -D`: the first rule equal to this one, whoever wrote it.
    pub fn delete_rule(
        &mut self,
        table: Table,
        chain: &str,
        rule: &Rule<F::Addr>,
    ) -> Result<(), String> {
        self.edit(|rules| rules.delete(table, chain, rule))
    }
    /// `iptables -N`
    pub fn new_chain(&mut self, table: Table, chain: &str) -> Result<(), String> {
        self.edit(|rules| rules.new_chain(table, chain))
    }
    /// `iptables -X chain`, for chains that no owner has applied.
    pub fn delete_chain(&mut self, table: Table, chain: &str) -> Result<(), String> {
        self.edit(|rules| rules.delete_chain(table, chain))
    }
    /// `iptables -P`, in the filter table.
    pub fn set_policy(&mut self, chain: &str, drop: bool) -> Result<(), String> {
        let hook = table::built_in(Table::Filter, chain)
            .ok_or_else(|| said::<F>("Bad built-in chain name."))?;
        self.edit(|rules| {
            rules.built_in_mut(Table::Filter, hook).policy_drop = drop;
            Ok(())
        })
    }
    /// `iptables -F`: a chain, or every chain of a table, those of owners included.
    pub fn flush(&mut self, table: Table, chain: Option<&str>) -> Result<(), String> {
        self.edit(|rules| rules.flush(table, chain))
    }
    /// A command in iptables' own words, without the program's name:
    /// `-t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE`, `-P FORWARD DROP`, `-F`.
    pub fn command(&mut self, line: &str) -> Result<(), String> {
        parse::command(self, line)
    }

    /// Adds the rules of an `iptables-save`; returns what of it the model has no word for.
    pub fn restore(&mut self, save: &str) -> Vec<String> {
        restore::restore(self, save)
    }
    /// The rules as `iptables-save` prints them, without its dated comment lines.
    pub fn save(&self, table: Option<Table>) -> String {
        save::save(self.state.as_ref().map(|state| &state.rules), table)
    }
    /// How many packets rule number `number` (from 0) of a built-in or foreign chain has matched.
    pub fn counter(&self, table: Table, chain: &str, number: usize) -> Option<u64> {
        self.state.as_ref()?.rules.counter(table, chain, number)
    }

    /// An address is gone: so are the connections masqueraded with it
    /// (`nf_nat_masquerade_inet_event`).
    pub fn address_gone(&mut self, ip: F::Addr, now: Time) -> u32 {
        let Some(state) = &mut self.state else {
            return 0;
        };
        let masked = |entry: &Entry<F>| entry.masqueraded.is_some() && entry.reply.dst == ip;
        state.conntrack.delete(now, masked)
    }
    /// A link went down: so do the connections masqueraded to leave by it.
    pub fn link_down(&mut self, name: &str, now: Time) -> u32 {
        let Some(state) = &mut self.state else {
            return 0;
        };
        let link = nat::link_hash(name);
        state.conntrack.delete(now, |entry| entry.masqueraded == Some(link))
    }
    /// The tracked connections, in a fixed order. Those past [`Entry::expires`] count as absent.
    pub fn conntrack(&self) -> impl Iterator<Item = &Entry<F>> {
        self.state.iter().flat_map(|state| state.conntrack.iter())
    }
    /// The entry of a packet between its hooks.
    pub fn entry(&self, ct: Ct) -> Option<&Entry<F>> {
        let Ct::Entry { id, .. } = ct else {
            return None;
        };
        self.state.as_ref()?.conntrack.get(id)
    }
    /// As `conntrack -L` prints them.
    pub fn conntrack_list(&self, now: Time) -> String {
        let live = self.conntrack().filter(|entry| entry.expires() > now);
        live.map(|entry| save::connection(entry, now) + "\n").collect()
    }
    /// `nf_conntrack_max`.
    pub fn set_conntrack_max(&mut self, max: u32) {
        self.state().conntrack.max = max;
    }
    /// `insert_failed` and `drop` of `conntrack -S`.
    pub fn conntrack_losses(&self) -> (u64, u64) {
        let conntrack = self.state.as_ref().map(|state| &state.conntrack);
        conntrack.map_or((0, 0), |table| (table.insert_failed, table.table_full))
    }
}
