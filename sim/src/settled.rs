//! Whether a world has settled: its machines have been on for a while, every fault has been over
//! for a while, and none is left that lasts. Only then must what faults broke be whole again.

use crate::scenario::{ActorName, FaultKind, Loss};
use crate::world::{Happened, World, words};
use kubesim_actors::objects::Name;
use kubesim_runtime::Time;
use std::time::Duration;

/// Faults have to be over for so long before what they broke must be whole again. A killed
/// kubelet's pods come back after at most a restart back-off and a few probe periods.
const SETTLED: Duration = Duration::from_secs(30);
/// And the run has to last so long: nodes that boot have their subnets after a second or two, and
/// each hears of the others' a little later.
const JOINED: Duration = Duration::from_secs(10);

/// Why the world has not settled, in words; `None` when it has.
pub fn unsettled(world: &World) -> Option<String> {
    let begun = || world.happened.iter().filter(|fault| fault.began.is_some());
    if let Some((fault, why)) = begun().find_map(|fault| Some((fault, lasting(world, fault)?))) {
        return Some(format!("the fault `{}` lasts: {why}", fault.name));
    }
    if let Some(why) = joining(world) {
        return Some(why);
    }
    begun().find_map(|fault| {
        let over = fault.address_acquired.or(fault.ended).or(fault.began)?;
        let since = world.now.since(over);
        (since < SETTLED).then(|| {
            format!(
                "the fault `{}` was over {:.3} s before the end, and it takes {} s to settle",
                fault.name,
                since.as_secs_f64(),
                SETTLED.as_secs()
            )
        })
    })
}

/// That the cluster has only begun, in words.
fn joining(world: &World) -> Option<String> {
    let lasted = world.now.since(Time::ZERO);
    (lasted < JOINED).then(|| {
        format!(
            "the run lasted {:.3} s, and it takes {} s until nodes have found each other",
            lasted.as_secs_f64(),
            JOINED.as_secs()
        )
    })
}

/// What a fault left as it is at the end, in words.
fn lasting(world: &World, fault: &Happened) -> Option<String> {
    // Of one moment the one that stands further down strikes last.
    let struck = |one: &Happened| {
        let place = world.happened.iter().position(|other| std::ptr::eq(other, one));
        (one.began, place)
    };
    let later = || world.happened.iter().filter(|other| struck(other) > struck(fault));
    match &fault.kind {
        FaultKind::Stop { actor, nodes }
        | FaultKind::Kill { actor, nodes, loss: Loss::Process, restart: None } => {
            let again = |node: &Name| later().any(|other| starts(&other.kind, *actor, node));
            let down = nodes.iter().find(|node| !again(node))?;
            Some(format!("nothing starts {} on {down} again", words::actor(*actor)))
        }
        FaultKind::LinkDown { target, lasts: None } => {
            let up = |other: &Happened| match &other.kind {
                FaultKind::LinkUp { target: of } => of == target,
                _ => false,
            };
            (!later().any(up)).then(|| format!("{} stays down", words::link(target)))
        }
        _ => fault.ended.is_none().then(|| "it is not over".to_owned()),
    }
}

fn starts(kind: &FaultKind, actor: ActorName, node: &Name) -> bool {
    matches!(kind, FaultKind::Start { actor: own, nodes } if *own == actor && nodes.contains(node))
}

#[cfg(test)]
mod tests {
    use crate::report::{NotJudged, Options, Report, Trace};
    use crate::run::Stage;
    use crate::scenario::Invariant;
    use crate::world::testing::{self, Said};
    use kubesim_runtime::Time;
    use std::sync::Arc;
    use std::time::Duration;

    fn play(judged: &[Invariant], more: &str) -> (Report, Said) {
        let mut scenario = testing::scenario("", more);
        scenario.invariants = judged.to_vec();
        testing::play(&scenario, Trace::default())
    }

    fn node(name: &str, last: u32, more: &str) -> String {
        let lan = "network = \"lan\"";
        format!("[[node]]\nname = \"{name}\"\n{lan}\naddress = \"192.168.1.{last}\"\n{more}\n")
    }

    fn not_judged(fault: &str) -> Vec<NotJudged> {
        let more = node("w1", 12, "") + "[[fault]]\nname = \"it\"\n" + fault;
        let (report, _) = play(&[Invariant::I1, Invariant::I2, Invariant::I18], &more);
        assert_eq!(report.failure, None);
        report.not_judged
    }

    #[test]
    fn a_run_says_what_was_not_judged_and_why() {
        let told = |reason: &str| {
            let invariants = vec!["I2".to_owned(), "I18".to_owned()];
            vec![NotJudged { invariants, reason: reason.to_owned() }]
        };
        let stop = "kind = \"stop\"\nactor = \"netd\"\nat = \"20s\"\nnodes = \"w1\"\n";
        let start = "[[fault]]\nkind = \"start\"\nactor = \"netd\"\nat = \"60s\"\nnodes = \"w1\"\n";
        assert_eq!(not_judged(stop), told("the fault `it` lasts: nothing starts netd on w1 again"));
        assert_eq!(not_judged(&format!("{stop}{start}")), []);
        // Another machine's start is none.
        let other = format!("[[fault]]\n{stop}{start}").replace("w1", "n1");
        assert_eq!(not_judged(&format!("{stop}{other}")).len(), 1);
        let kill = "kind = \"kill\"\nactor = \"proxy\"\nat = \"20s\"\nnodes = \"w1\"\n";
        assert_eq!(not_judged(kill).len(), 1);
        let down = "kind = \"link-down\"\nat = \"20s\"\nnode = \"w1\"\n";
        assert_eq!(not_judged(down), told("the fault `it` lasts: the cable of w1 stays down"));
        let cut = "kind = \"partition\"\nat = \"20s\"\nfrom = \"n1\"\nto = \"w1\"\nlasts";
        assert_eq!(not_judged(&format!("{cut} = \"10s\"\n")), []);
        let lasts = not_judged(&format!("{cut} = \"200s\"\n"));
        assert_eq!(lasts, told("the fault `it` lasts: it is not over"));
        let late = not_judged(&format!("{cut} = \"125s\"\n"));
        let why = "the fault `it` was over 15.000 s before the end, and it takes 30 s to settle";
        assert_eq!(late, told(why));
    }

    /// A run of a second failed now and then, as it ended between a node's subnet and its peers'
    /// routes to it.
    #[test]
    fn a_run_that_ends_while_nodes_join_is_not_judged_by_their_routes() {
        let more = node("w1", 12, "") + &node("w2", 13, "");
        let mut scenario = testing::scenario("", &more);
        scenario.invariants = vec![Invariant::I1, Invariant::I2];
        let options = Options { seed: 1, ..Options::default() };
        let mut stage = Stage::modelled(&Arc::new(scenario.clone()), &options);
        let lacks = |at: &Duration| {
            stage.move_to(Time::ZERO + *at, &mut Said::default());
            !crate::oracles::stale_routes(&stage.world, &[]).is_empty()
        };
        let moment = (1..5000).map(Duration::from_millis).find(lacks);
        scenario.duration = moment.expect("a moment in which a route is missing");
        let (report, _) = testing::play(&scenario, Trace::default());
        assert_eq!((report.failure, report.not_judged.len()), (None, 1));
        scenario.duration = Duration::from_secs(10);
        let (report, _) = testing::play(&scenario, Trace::default());
        assert_eq!((report.failure, report.not_judged), (None, Vec::new()));
    }

    #[test]
    fn who_never_joined_owes_nobody_a_route() {
        let far = "[[network]]\nname = \"far\"\ncidr = \"10.9.0.0/24\"\n[[node]]\nname = \"lost\"\n\
                   network = \"far\"\naddress = \"10.9.0.2\"\n";
        let (report, _) = play(&[Invariant::I2], &(node("w1", 12, "") + far));
        assert_eq!((report.failure, report.not_judged), (None, Vec::new()));
    }

    #[test]
    fn who_joins_a_vxlan_late_asks_for_no_route_before_its_device() {
        let more = node("w1", 12, "") + &node("late", 13, "boot-delay = \"20s\"");
        let (report, said) = play(&[Invariant::I2], &more);
        assert_eq!(report.failure, None);
        let refused: Vec<_> =
            said.0.iter().filter(|(_, _, text)| text.contains("refused")).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn an_address_by_hand_counts_when_the_outage_is_over() {
        let cafe = "[[network]]\nname = \"cafe\"\ncidr = \"10.20.0.0/24\"\n";
        let to = "[[fault]]\nname = \"it\"\nkind = \"move\"\nat = \"20s\"\nnode = \"w1\"\n\
                  network = \"cafe\"\naddress = \"10.20.0.9\"\noutage = \"2s\"\n";
        let (report, said) = play(&[], &(node("w1", 12, "") + cafe + to));
        let told = said.by("address@w1");
        let text = "10.20.0.9 has a carrier again, after an outage of 2.000 s";
        assert_eq!(told, [(kubesim_runtime::Time::from_millis(22_000), text)]);
        assert!(said.by("dhcp@w1").is_empty());
        let outage = ("outage of it".to_owned(), "2.000 s".to_owned());
        assert!(report.measures.contains(&outage), "{:?}", report.measures);
    }
}
