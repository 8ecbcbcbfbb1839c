//! One informer of a node's client, shared by all actors of the node that asked for the same.

use super::super::Life;
use kubesim_actors::objects::{Kind, View};
use kubesim_actors::ports::api::Scope;

#[derive(Debug)]
pub struct Stream {
    pub id: u64,
    pub kind: Kind,
    pub scope: Scope,
    pub subscribers: Vec<Life>,
    pub view: Option<View>,
    /// The newest version that was heard, lists included.
    heard: u64,
}

impl Stream {
    pub fn new(id: u64, kind: Kind, scope: Scope, subscriber: Life) -> Self {
        Stream { id, kind, scope, subscribers: vec![subscriber], view: None, heard: 0 }
    }

    /// The store that it was told of is lost, and the new one counts anew.
    pub fn forget(&mut self) {
        self.view = None;
        self.heard = 0;
    }

    /// Takes news over. What it says is why that breaks I15: a watch never goes back, not across
    /// a new list either (resourceVersion, API conventions: "Concurrency Control and Consistency").
    pub fn hears(&mut self, view: &View) -> Option<String> {
        let (before, now) = (self.heard, view.version());
        self.heard = before.max(now);
        self.view = Some(view.clone());
        let (kind, scope) = (self.kind, &self.scope);
        (now < before)
            .then(|| format!("a watch of {kind} ({scope:?}) goes back from {before} to {now}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use crate::report::Trace;
    use crate::scenario::Invariant;
    use crate::world::{self, Knobs, World, testing};
    use kubesim_actors::objects::View;
    use kubesim_runtime::Time;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// A world in which the client of `n1` has heard something twice, and what it heard first.
    fn with_old_news(invariants: &[Invariant]) -> (World, u32, Message) {
        let mut scenario = testing::scenario("", "");
        scenario.invariants = invariants.to_vec();
        let mut world = world::build(&Arc::new(scenario), Knobs { seed: 1, ..Knobs::default() });
        let machine = world.machine_named("n1").expect("it is in the scenario");
        let mut first: BTreeMap<u64, View> = BTreeMap::new();
        for second in 1..60 {
            world.run_until(Time::from_secs(second));
            let Some(client) = &world.machines[machine as usize].client else { continue };
            let old = client.streams.iter().find_map(|stream| {
                let view = stream.view.as_ref()?;
                let old = first.entry(stream.id).or_insert_with(|| view.clone());
                (stream.heard > old.version()).then(|| (stream.id, old.clone()))
            });
            if let Some((stream, view)) = old {
                return (world, machine, Message::News { stream, view });
            }
        }
        panic!("no watch moved on within a minute");
    }

    #[test]
    fn a_watch_that_goes_back_is_a_violation() {
        let (mut world, machine, old) = with_old_news(&[Invariant::I15]);
        assert_eq!(world.violations, Vec::<String>::new());
        world.client_hears(machine, &old);
        let what = &world.violations[0];
        assert!(what.starts_with("I15 at ") && what.contains("goes back from "), "{what}");
        let (mut world, machine, old) = with_old_news(&[Invariant::I1]);
        world.client_hears(machine, &old);
        assert_eq!(world.violations, Vec::<String>::new(), "it is not asked for");
    }

    #[test]
    fn no_watch_goes_back_in_a_run() {
        let mut scenario = testing::scenario("", "");
        scenario.invariants = vec![Invariant::I15];
        assert_eq!(testing::play(&scenario, Trace::default()).0.failure, None);
    }
}
