//! Where a namespace leads what clients write: read off its rules, flat elements and virtual
//! services as they stand, whoever put them there. For judges.
//!
//! Rules are walked for all packets at once: what a rule asks of a destination narrows what may
//! have been written; what it asks of anything else (a source, a mark, dice) may hold or not.

use super::compile::{Action, ChainId, Compiled};
use super::flat::FlatTable;
use super::ipvs::Ipvs;
use super::matches::Test;
use super::table::{Chained, Ruleset};
use super::walk::Outcome;
use super::{Hook, Netfilter};
use kubesim_actors::ports::rules::flat::Front;
use kubesim_actors::ports::rules::text::protocol_name;
use kubesim_actors::ports::rules::{Protocol, Table};
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// A destination as a client writes it; what nothing is said about may be any. A node port is on
/// any address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    pub ip: Option<Ipv4Addr>,
    pub protocol: Option<Protocol>,
    pub port: Option<u16>,
}

/// An address and port that it is rewritten to; port 0 is whichever was written.
pub type Place = (Ipv4Addr, u16);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(f, "{} ", protocol_name(protocol))?;
        }
        match self.ip {
            Some(ip) => write!(f, "{ip}")?,
            None => f.write_str("*")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// One way that rules lead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lead {
    pub written: Written,
    pub to: Place,
    /// The last foreign rule on it.
    pub by: Option<String>,
}

impl Netfilter {
    /// Where what comes in and what is sent from here may be led, each pair once, in order.
    pub fn leads(&self) -> Vec<Lead> {
        let Some(state) = &self.state else { return Vec::new() };
        let mut found = Vec::new();
        for hook in [Hook::Prerouting, Hook::Output] {
            let mut walk = Walk {
                rules: &state.rules,
                path: Vec::new(),
                by: None,
                taken: BTreeSet::new(),
                found: Vec::new(),
            };
            let first = state.rules.built_in(Table::Nat, hook);
            walk.chain(first.compiled(), Some(first), Written::default());
            found.append(&mut walk.found);
        }
        let flat = state.beside.flat.iter().flat_map(FlatTable::leads);
        let virtuals = state.beside.ipvs.as_deref().into_iter().flat_map(Ipvs::leads);
        let others = flat.chain(virtuals);
        found.extend(others.map(|(front, to)| Lead { written: front.into(), to, by: None }));
        found.sort_unstable();
        found.dedup_by(|next, lead| (next.written, next.to) == (lead.written, lead.to));
        found
    }
}

impl From<Front> for Written {
    fn from(front: Front) -> Self {
        let ip = (!front.is_node_port()).then_some(front.ip);
        Written { ip, protocol: Some(front.protocol), port: Some(front.port) }
    }
}

struct Walk<'a> {
    rules: &'a Ruleset,
    /// The chains it is in: one that leads back to itself leads nowhere new.
    path: Vec<ChainId>,
    /// The last foreign rule on the way to where it is.
    by: Option<(&'a Chained, usize)>,
    /// What rules before have taken for good: none of it comes here.
    taken: BTreeSet<Written>,
    found: Vec<Lead>,
}

impl<'a> Walk<'a> {
    /// Whether all of it ends here, and nothing comes back to where it was sent from.
    fn chain(&mut self, chain: &Compiled, own: Option<&'a Chained>, written: Written) -> bool {
        let mut taken = Vec::new();
        let by = self.by;
        let ends = self.rules_of(chain, own, written, &mut taken);
        self.by = by;
        // What a chain takes may have come by one way of several, and by others be there still.
        taken.iter().for_each(|written| _ = self.taken.remove(written));
        ends
    }

    fn rules_of(
        &mut self,
        chain: &Compiled,
        own: Option<&'a Chained>,
        written: Written,
        taken: &mut Vec<Written>,
    ) -> bool {
        let before = self.by;
        for (number, rule) in chain.rules.iter().enumerate() {
            let Some(of) = narrowed(written, chain.tests(rule)) else { continue };
            if of.written.wider().any(|wider| self.taken.contains(&wider)) {
                continue;
            }
            let all = of.exact && of.written == written;
            let foreign = own.filter(|own| self.rules.is_foreign(own, number));
            self.by = foreign.map(|own| (own, number)).or(before);
            let takes = match rule.action {
                Action::Jump(id) => self.enter(id, of.written),
                Action::Goto(id) => {
                    let ends = self.enter(id, of.written);
                    if all {
                        return ends;
                    }
                    true
                }
                Action::Return if all => return false,
                Action::Return => true,
                Action::End(outcome) => {
                    if let Outcome::Dnat { to, port } = outcome {
                        let port = port.or(of.written.port).unwrap_or_default();
                        let by = self.by.map(|(chain, number)| chain.told(number));
                        self.found.push(Lead { written: of.written, to: (to, port), by });
                    }
                    true
                }
                _ => false,
            };
            if takes && all {
                return true;
            }
            if takes && of.exact && self.taken.insert(of.written) {
                taken.push(of.written);
            }
        }
        false
    }

    fn enter(&mut self, id: ChainId, written: Written) -> bool {
        if self.path.contains(&id) {
            return false;
        }
        let Some(next) = self.rules.find(id) else { return false };
        self.path.push(id);
        let ends = self.chain(next.chain, self.rules.user.get(&id), written);
        self.path.pop();
        ends
    }
}

impl Written {
    /// Itself, and everything that it is a part of.
    fn wider(self) -> impl Iterator<Item = Written> {
        (0..8).map(move |left_out| Written {
            ip: self.ip.filter(|_| left_out & 1 == 0),
            protocol: self.protocol.filter(|_| left_out & 2 == 0),
            port: self.port.filter(|_| left_out & 4 == 0),
        })
    }
}

/// What of something written passes a rule's tests.
struct Passes {
    written: Written,
    /// All that is so written does.
    exact: bool,
}

/// `None` if nothing of it does.
fn narrowed(mut written: Written, tests: &[Test]) -> Option<Passes> {
    let mut exact = true;
    for test in tests {
        match test {
            Test::Destination { addr, mask, not } => match written.ip {
                Some(ip) if (ip.to_bits() & mask == *addr) == *not => return None,
                Some(_) => {}
                None if *mask == u32::MAX && !not => written.ip = Some(Ipv4Addr::from_bits(*addr)),
                None => exact &= *mask == 0 && !not,
            },
            Test::Protocol { is, not } => match written.protocol {
                Some(protocol) if (protocol == *is) == *not => return None,
                Some(_) => {}
                None if !not => written.protocol = Some(*is),
                None => exact = false,
            },
            Test::DestinationPort { from, to, not } => match written.port {
                Some(port) if (*from..=*to).contains(&port) == *not => return None,
                Some(_) => {}
                None if from == to && !not => written.port = Some(*from),
                None => exact = false,
            },
            // Asking changes a list, and always holds.
            Test::RecentSet { .. } => {}
            _ => exact = false,
        }
    }
    Some(Passes { written, exact })
}
