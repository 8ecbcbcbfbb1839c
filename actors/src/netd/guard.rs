//! Packet rules: pods reach each other without NAT and the world with it, and nobody's firewall
//! stands between them unnoticed.

use super::{Effect, Netd, SMALL};
use crate::ports::rules::text::rule_line;
use crate::ports::rules::{
    BaseRule, Chain, ChainKey, ChainSet, CtStates, Match, Place, Reply, Request, Rule, Table,
    Target,
};
use ipnet::Ipv4Net;
use kubesim_runtime::Context;
use smol_str::SmolStr;
use std::net::Ipv4Addr;
use std::sync::Arc;

const OWNER: SmolStr = SmolStr::new_static("netd");
const POSTROUTING: SmolStr = SmolStr::new_static("KUBESIM-POSTRTG");
const FORWARD: SmolStr = SmolStr::new_static("KUBESIM-FORWARD");

/// The networks that rules speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Networks {
    pub pods: Ipv4Net,
    /// This node's share of it.
    pub own: Ipv4Net,
    pub services: Ipv4Net,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// What was last applied or is being applied.
    applied: Option<Networks>,
    /// An answer is outstanding.
    applying: bool,
    /// FORWARD was read in this life; from then on resyncs read it, so that a rule of ours that
    /// cannot be brought to the front is not tried again without end.
    read: bool,
    /// The last remark about what stands before our rule in FORWARD.
    remarked: Option<String>,
}

impl Netd {
    pub(super) fn sync_rules(&mut self, ctx: &mut Context<'_, Self>) {
        let (Some(conf), Some(own)) = (self.conf, self.lease.cidr) else {
            return;
        };
        let networks = Networks { pods: conf.network, own, services: self.config.service_network };
        if self.guard.applied == Some(networks) || self.guard.applying {
            return;
        }
        self.guard.applied = Some(networks);
        self.guard.applying = true;
        ctx.perform(Effect::Rules(apply(OWNER, &networks, Place::First)));
    }

    pub(super) fn resync_rules(&mut self, thorough: bool, ctx: &mut Context<'_, Self>) {
        if self.guard.applied.is_none() || self.guard.applying {
            return;
        }
        ctx.perform(Effect::Rules(Request::Verify { owner: OWNER }));
        if thorough {
            self.read_forward(ctx);
        }
    }

    fn read_forward(&mut self, ctx: &mut Context<'_, Self>) {
        self.guard.read = true;
        let (table, chain) = (Table::Filter, SmolStr::new_static("FORWARD"));
        ctx.perform(Effect::Rules(Request::ReadBase { table, chain }));
    }

    pub(super) fn on_rules(&mut self, reply: Reply, ctx: &mut Context<'_, Self>) {
        match reply {
            Reply::Applied { missing, result, .. } => {
                self.guard.applying = false;
                if !missing.is_empty() {
                    self.note_missing(&missing, ctx);
                }
                match result {
                    Ok(()) if self.guard.read || self.subnet_count() > SMALL => {}
                    Ok(()) => self.read_forward(ctx),
                    Err(why) => {
                        // Tried again by the next sync, at the latest at a resync.
                        self.guard.applied = None;
                        ctx.note(|| format!("the rules could not be set: {why}"));
                    }
                }
            }
            Reply::Verified { intact: false, missing, .. } => {
                self.note_missing(&missing, ctx);
                self.guard.applied = None;
                self.sync_rules(ctx);
            }
            Reply::Base { table: Table::Filter, policy_drop, rules, .. } => {
                self.judge_forward(policy_drop, &rules, ctx);
            }
            Reply::Failed { doing, why } => ctx.note(|| format!("{doing}: {why}")),
            _ => {}
        }
    }

    fn note_missing(&self, missing: &[String], ctx: &mut Context<'_, Self>) {
        ctx.note(|| format!("rules were missing and are set again: {}", missing.join(", ")));
    }

    /// Whether something in FORWARD takes pods' packets before our rule sees them.
    fn judge_forward(&mut self, policy_drop: bool, rules: &[Rule], ctx: &mut Context<'_, Self>) {
        let Some(networks) = self.guard.applied.filter(|_| !self.guard.applying) else {
            return;
        };
        let ours = rules.iter().position(|rule| rule.target == Target::Jump(FORWARD));
        let before = &rules[..ours.unwrap_or(rules.len())];
        let culprit = before.iter().find(|rule| may_drop(rule, &networks));
        let remark = match (culprit, policy_drop) {
            (Some(rule), _) => Some(format!(
                "a foreign rule stood before ours in filter FORWARD and may drop pods' packets: \
                 {}; {FORWARD} goes first again",
                rule_line("FORWARD", rule)
            )),
            (None, true) => Some(format!(
                "the policy of filter FORWARD is DROP (dockerd sets it when it turns ip_forward on \
                 itself, moby#28257); {FORWARD} accepts pods' packets"
            )),
            (None, false) => None,
        };
        if let Some(remark) = remark.as_ref().filter(|r| Some(*r) != self.guard.remarked.as_ref()) {
            ctx.note(|| remark.clone());
        }
        self.guard.remarked = remark;
        if culprit.is_some() || ours.is_none() {
            self.guard.applied = None;
            self.sync_rules(ctx);
        }
    }
}

/// Its chains with nothing in them, and what leads to them: what takes the place of all that stand.
pub fn footing() -> Request {
    let chain = |table, name| (ChainKey { table, name }, Arc::new(Chain { rules: Vec::new() }));
    Request::Apply {
        owner: OWNER,
        base: base(Place::First),
        shared: ChainSet::empty(0),
        local: Arc::new([chain(Table::Nat, POSTROUTING), chain(Table::Filter, FORWARD)]),
    }
}

/// A rule that drops, or leads to a chain we do not know, and may see pods' packets. kube-proxy's
/// chains may stand before ours: they refuse only what has no endpoint.
fn may_drop(rule: &Rule, networks: &Networks) -> bool {
    let judged = match &rule.target {
        Target::Drop | Target::Reject(_) => true,
        Target::Jump(chain) | Target::Goto(chain) => !chain.starts_with("KUBE-"),
        // Others count, mark or log and let the packet go on.
        Target::Other(words) => ["NFQUEUE", "QUEUE", "STEAL", "SYNPROXY", "TARPIT"]
            .contains(&words.split(' ').next().unwrap_or_default()),
        _ => false,
    };
    let touches = |net: &Ipv4Net| net.contains(&networks.pods) || networks.pods.contains(net);
    let elsewhere = |m: &Match| match m {
        Match::Source { net, not: false } | Match::Destination { net, not: false } => !touches(net),
        Match::CtState { any, not: false } => !any.new && !any.established,
        _ => false,
    };
    // One side elsewhere: pod to pod is not touched, pod to world may be; only what concerns
    // neither side is let stand.
    let sides = rule.matches.iter().filter(|m| elsewhere(m)).count();
    let state = rule.matches.iter().any(|m| matches!(m, Match::CtState { .. }) && elsewhere(m));
    judged && !state && sides < 2
}

/// What leads to them from the built-in chains; `place` in FORWARD.
fn base(place: Place) -> Arc<[BaseRule]> {
    let jump = |table, from, to: SmolStr, comment, place| {
        let matches = vec![Match::Comment(SmolStr::new_static(comment))];
        let rule = Rule { matches, target: Target::Jump(to) };
        BaseRule { table, chain: SmolStr::new_static(from), place, rule }
    };
    Arc::new([
        jump(Table::Nat, "POSTROUTING", POSTROUTING, "kubesim masq", Place::Last),
        jump(Table::Filter, "FORWARD", FORWARD, "kubesim forward", place),
    ])
}

/// The rules of flannel's `--ip-masq` and forward chains (pkg/trafficmngr/iptables), under our
/// own names.
///
/// `place` in FORWARD: first, so that a foreign DROP cannot come before. What is for a service
/// address is left to kube-proxy even so: without an endpoint it has to refuse it there, and
/// packets out of state are its to drop (k/k#74839).
pub fn apply(owner: SmolStr, networks: &Networks, place: Place) -> Request {
    let Networks { pods, own, services } = *networks;
    let source = |net, not| Match::Source { net, not };
    let destination = |net, not| Match::Destination { net, not };
    let rule = |matches: Vec<Match>, target| Rule { matches, target };
    let multicast = Ipv4Net::new(Ipv4Addr::new(224, 0, 0, 0), 4).expect("4 is a prefix length");
    let masquerade = Target::Masquerade { random_fully: true };
    let invalid = CtStates { invalid: true, ..CtStates::default() };
    let postrouting = vec![
        rule(vec![source(pods, false), destination(pods, false)], Target::Return),
        rule(vec![source(pods, false), destination(multicast, true)], masquerade.clone()),
        rule(vec![source(pods, true), destination(own, false)], Target::Return),
        rule(vec![source(pods, true), destination(pods, false)], masquerade),
    ];
    let forward = vec![
        rule(vec![Match::CtState { any: invalid, not: false }], Target::Return),
        rule(vec![destination(pods, false)], Target::Accept),
        rule(vec![source(pods, false), destination(services, true)], Target::Accept),
    ];
    let chain = |table, name, rules| (ChainKey { table, name }, Arc::new(Chain { rules }));
    Request::Apply {
        owner,
        base: base(place),
        shared: ChainSet::empty(0),
        local: Arc::new([
            chain(Table::Nat, POSTROUTING, postrouting),
            chain(Table::Filter, FORWARD, forward),
        ]),
    }
}
