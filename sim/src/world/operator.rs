//! A person's writes (`kubectl`'s): of workloads, and of faults that are writes.
//!
//! Writes of one object are made in the order in which they were asked for, each when the one
//! before was answered, and those of objects in a namespace after that of the namespace itself.
//! All others go out at once.

use super::external::Order;
use super::{Cell, Due, Kind, World, words};
use crate::scenario::{ActorName, Expect, FaultKind, Manifest, ObjectRef, Which};
use kubesim_actors::apiserver::{self, ApiServer, RequestId};
use kubesim_actors::objects::{Key, Kind as ObjectKind, Name, Object};
use kubesim_actors::ports::api::{DeleteOptions, Error, Reason, Reply, Request, Subresource};
use kubesim_runtime::Time;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Writes that a person gave to the API and that were not answered yet.
#[derive(Debug, Default)]
pub struct Operator {
    calls: BTreeMap<u64, Call>,
    next: u64,
    /// What is written in order, by the object (or the namespace): the first one is on its way.
    lanes: BTreeMap<Lane, VecDeque<u64>>,
    /// Faults of every object with some labels, since when they wait for an API server that says
    /// which those are.
    waiting: BTreeMap<usize, Time>,
    /// What faults are to delete and was not seen yet.
    doomed: BTreeSet<(ObjectKind, Key)>,
}

type Lane = (ObjectKind, Key);

#[derive(Clone, Debug)]
struct Call {
    request: Arc<Request>,
    lane: Lane,
    /// The manifest that is applied, by whichever verb.
    given: Option<Arc<Object>>,
    from: Name,
    since: Time,
    /// What the API said to it the last time.
    said: Option<String>,
}

/// A write that the API refused: with a 4xx that no repetition would change.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub at: Time,
    /// `dir/web.yaml:6: create Service default/web: Invalid: …`
    pub text: String,
}

/// The connection number of a person at the server itself.
pub(super) const OPERATOR: u64 = u64::MAX;
const RETRY: Duration = Duration::from_secs(2);
/// A write that is younger when the run ends may yet be answered; a client gives up after as long.
const PATIENCE: Duration = Duration::from_secs(10);

impl World {
    pub(super) fn apply_workload(&mut self, index: usize) {
        let scenario = self.scenario.clone();
        let workload = &scenario.workloads[index];
        self.line("kubectl", || {
            format!("apply {}: {} objects", workload.name, workload.objects.len())
        });
        for given in &workload.objects {
            self.operate_create(given);
        }
    }

    /// The first write that the API refused and no expectation wants refused.
    pub fn refused_write(&self) -> Option<String> {
        let expectations = self.scenario.expectations.iter();
        let wanted: Vec<_> = expectations
            .filter_map(|e| match &e.expect {
                Expect::Refused { actor: ActorName::Apiserver, text, .. } => Some(text),
                _ => None,
            })
            .collect();
        let expected = |refusal: &&Refusal| {
            wanted.iter().any(|texts| texts.iter().all(|text| refusal.text.contains(text)))
        };
        let refusal = self.refused_writes.iter().find(|refusal| !expected(refusal))?;
        Some(format!("the API refused what it was given at {}: {}", refusal.at, refusal.text))
    }

    /// The first write that was not answered by the end of the run, or never could be sent. Where
    /// the API server refused to run that is said already.
    pub fn unanswered_write(&self) -> Option<String> {
        let old = |since: Time| self.now.since(since) >= PATIENCE;
        if !self.refusals.is_empty() {
            return None;
        }
        let operator = &self.operator;
        if let Some((index, since)) = operator.waiting.iter().find(|(_, since)| old(**since)) {
            let name = &self.happened[*index].name;
            return Some(format!(
                "fault `{name}` could not be applied: it has waited since {since} for an API \
                 server that says which objects are meant"
            ));
        }
        let call = operator.calls.values().find(|call| old(call.since))?;
        let (kind, key) = call.request.subject();
        let (from, verb, since) = (&call.from, call.request.verb(), call.since);
        let found = call.said.as_deref().unwrap_or("no API server has answered");
        Some(format!("{from}: {verb} {kind} {key}, asked for at {since}, was not done: {found}"))
    }

    /// What faults are to delete: whether it ever was there has to be known then.
    pub(super) fn plan_deletions(&mut self) {
        let mut doomed = BTreeSet::new();
        for fault in &self.happened {
            match &fault.kind {
                FaultKind::Delete { of: ObjectRef { kind, which: Which::Key(key) } } => {
                    doomed.insert((*kind, key.clone()));
                }
                FaultKind::NodeDelete { nodes, .. } => {
                    let node = |name: &Name| (ObjectKind::Node, Key::cluster(name.clone()));
                    doomed.extend(nodes.iter().map(node));
                }
                _ => {}
            }
        }
        self.operator.doomed = doomed;
    }

    /// The API server has published something.
    pub(super) fn note_doomed(&mut self) {
        let mut doomed = std::mem::take(&mut self.operator.doomed);
        doomed.retain(|(kind, key)| self.object(*kind, key).is_none());
        self.operator.doomed = doomed;
    }

    /// The objects that are meant; `None` while no API server can say.
    fn keys_of(&self, of: &ObjectRef) -> Option<Vec<Key>> {
        let labels = match &of.which {
            Which::Key(key) => return Some(vec![key.clone()]),
            Which::Labels(labels) => labels,
        };
        self.front.cache()?;
        let has = |object: &&Arc<Object>| {
            labels.iter().all(|(name, value)| object.label(name) == Some(value.as_str()))
        };
        Some(self.objects(of.kind).filter(has).map(|object| object.key.clone()).collect())
    }

    /// A fault that patches, scales or deletes objects; again and again until it is known which.
    pub(super) fn operate_on(&mut self, index: usize) {
        let (kind, name) = (self.happened[index].kind.clone(), self.happened[index].name.clone());
        let (FaultKind::Patch { of, .. } | FaultKind::Delete { of } | FaultKind::Scale { of, .. }) =
            &kind
        else {
            return;
        };
        let Some(keys) = self.keys_of(of) else {
            self.operator.waiting.entry(index).or_insert(self.now);
            self.queue.push(self.now + RETRY, Due::OperateOn { index: index as u32 });
            return;
        };
        self.operator.waiting.remove(&index);
        if keys.is_empty() {
            let what = format!("{}: the API has none", words::object(of));
            self.unapplied(&format!("fault `{name}`"), what);
        }
        for key in keys {
            match &kind {
                FaultKind::Patch { patch, .. } => {
                    self.operate_patch(of.kind, key, (**patch).clone(), &name);
                }
                FaultKind::Scale { replicas, .. } => {
                    let patch = json!({"spec": {"replicas": replicas}});
                    self.operate_patch(of.kind, key, patch, &name);
                }
                _ => self.operate_delete(of.kind, key, &name),
            }
        }
    }

    pub(super) fn operate_create(&mut self, given: &Manifest) {
        let request = Request::Create { object: given.object.clone() };
        self.operate(request, given.place.clone(), Some(given.object.clone()));
    }

    /// `from` is the fault that it comes from.
    fn operate_patch(&mut self, kind: ObjectKind, key: Key, patch: Value, from: &Name) {
        let request = Request::Patch { kind, key, subresource: Subresource::Main, patch };
        self.operate(request, of_fault(from), None);
    }

    pub(super) fn operate_delete(&mut self, kind: ObjectKind, key: Key, from: &Name) {
        let request = Request::Delete { kind, key, options: DeleteOptions::default() };
        self.operate(request, of_fault(from), None);
    }

    fn operate(&mut self, request: Request, from: Name, given: Option<Arc<Object>>) {
        let lane = self.operator.lane(&request);
        let request = Arc::new(request);
        let call = Call { request, lane: lane.clone(), given, from, since: self.now, said: None };
        let call = self.operator.number(call);
        let lane = self.operator.lanes.entry(lane).or_default();
        lane.push_back(call);
        if lane.len() == 1 {
            self.operate_again(call);
        }
    }

    /// A write takes another verb's place: it keeps its turn.
    fn operate_instead(&mut self, call: u64, request: Request) {
        let Some(before) = self.operator.calls.remove(&call) else { return };
        let lane = before.lane.clone();
        let next = self.operator.number(Call { request: Arc::new(request), ..before });
        if let Some(first) = self.operator.lanes.get_mut(&lane).and_then(VecDeque::front_mut) {
            *first = next;
        }
        self.operate_again(next);
    }

    /// A write is over, one way or the other: who waits for it may go.
    fn write_over(&mut self, call: u64) {
        let Some(Call { lane, .. }) = self.operator.calls.remove(&call) else { return };
        let waiting = self.operator.lanes.get_mut(&lane).and_then(|calls| {
            calls.pop_front();
            calls.front().copied()
        });
        match waiting {
            Some(next) => self.operate_again(next),
            None => _ = self.operator.lanes.remove(&lane),
        }
    }

    /// Sends a write, and again until it is answered.
    pub(super) fn operate_again(&mut self, call: u64) {
        let Some(Call { request, .. }) = self.operator.calls.get(&call).cloned() else { return };
        self.queue.push(self.now + RETRY, Due::Operator { call });
        if let (Some(_), Some(machine)) = (self.front.cache(), self.external_server()) {
            self.orders.push((machine, Order::Operate { call, request }));
        } else if self.front.cache().is_some() {
            let life = self.life(Cell { kind: Kind::ApiServer, index: 0 });
            let id = RequestId { connection: OPERATOR, call };
            let event = apiserver::Event::Request { id, request, dry_run: false };
            self.send::<ApiServer>(life, self.now, None, event);
        }
    }

    pub(super) fn operator_answered(&mut self, call: u64, result: Result<Reply, Error>) {
        let Some(Call { request, from, given, .. }) = self.operator.calls.get(&call).cloned()
        else {
            return;
        };
        let Err(error) = result else { return self.write_over(call) };
        match (error.reason, &*request, given) {
            (Reason::AlreadyExists, Request::Create { object }, _) => {
                self.operate_instead(call, replacing(object));
            }
            // Deleted between the two.
            (Reason::NotFound, Request::Patch { .. }, Some(object)) => {
                self.operate_instead(call, Request::Create { object });
            }
            (Reason::NotFound, Request::Delete { kind, key, .. }, _) => {
                self.write_over(call);
                // Gone already is as good as deleted; never there is a slip of the pen.
                if self.operator.doomed.contains(&(*kind, key.clone())) {
                    self.unapplied(&from, format!("delete {kind} {key}: there never was one"));
                }
            }
            (
                Reason::Unknown | Reason::Unreachable | Reason::TooManyRequests | Reason::Conflict,
                ..,
            ) => {
                if let Some(call) = self.operator.calls.get_mut(&call) {
                    call.said = Some(error.to_string());
                }
            }
            _ => {
                self.write_over(call);
                let (kind, key) = request.subject();
                let verb = request.verb();
                let text = format!("{from}: {verb} {kind} {key}: {error}");
                self.line("kubectl", || text.clone());
                self.refused_writes.push(Refusal { at: self.now, text });
            }
        }
    }
}

impl Operator {
    fn number(&mut self, call: Call) -> u64 {
        let number = self.next;
        self.next += 1;
        self.calls.insert(number, call);
        number
    }

    /// Behind what a write has to wait: writes of its namespace, if there are any, else those of
    /// the same object.
    fn lane(&self, request: &Request) -> Lane {
        let (kind, key) = request.subject();
        let namespace = (ObjectKind::Namespace, Key::cluster(key.namespace.clone()));
        if self.lanes.contains_key(&namespace) { namespace } else { (kind, key.clone()) }
    }
}

/// What stands already is changed to what the file says.
fn replacing(object: &Object) -> Request {
    let mut patch = object.to_json();
    if let Value::Object(fields) = &mut patch {
        fields.remove("status");
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    let (kind, key) = (object.kind(), object.key.clone());
    Request::Patch { kind, key, subresource: Subresource::Main, patch }
}

fn of_fault(name: &Name) -> Name {
    Name::from(format!("fault `{name}`"))
}

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Report, Trace};
    use crate::world::testing;

    fn play(more: &str) -> Report {
        testing::play(&testing::scenario("", more), Trace::default()).0
    }

    /// A workload: ReplicaSet `web`, whose pods no node takes.
    fn replica_set(workload: &str, at: &str, replicas: u32) -> String {
        format!(
            r#"
[[workload]]
name = "{workload}"
at = "{at}"
yaml = """
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{nodeSelector: {{no: such}}, containers: [{{name: c, image: web}}]}}
"""
"#
        )
    }

    const REFUSED: &str = r#"
[[workload]]
name = "web"
at = "10s"
yaml = """
apiVersion: v1
kind: Service
metadata: {name: Web_1}
spec: {ports: [{port: 80}]}
"""
"#;

    #[test]
    fn a_manifest_that_the_api_refuses_fails_the_run() {
        let report = play(REFUSED);
        assert_eq!(report.outcome, Outcome::Failed);
        let why = report.failure.unwrap();
        let named = "a.toml:19: create Service default/Web_1: Invalid: ";
        assert!(
            why.starts_with("the API refused what it was given at 10.") && why.contains(named),
            "{why}"
        );
        assert!(why.contains("metadata.name: Invalid value: \"Web_1\""), "{why}");
        let scale = r#"
[[fault]]
name = "more"
kind = "scale"
at = "10s"
object = "ReplicaSet/none"
replicas = 3
"#;
        let why = play(scale).failure.unwrap();
        let named =
            "fault `more`: patch ReplicaSet default/none: NotFound: replicasets.apps \"none\"";
        assert!(why.contains(named), "{why}");
    }

    #[test]
    fn a_refusal_that_is_expected_does_not() {
        let expects = |text: &str| {
            let head = "[[expect]]\nname = \"it is refused\"\nkind = \"refused\"\n";
            let expect = format!("{head}actor = \"apiserver\"\ntext = [\"{text}\"]\n");
            play(&format!("{REFUSED}{expect}"))
        };
        let report = expects("Web_1");
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
        let measured = &report.expectations[0].measured;
        assert!(measured.contains("create Service default/Web_1"), "{measured}");
        // Something else was to be refused.
        let report = expects("Web_2");
        assert_eq!(report.outcome, Outcome::Failed);
        assert_eq!(report.expectations[0].outcome, Outcome::Failed);
        assert!(report.failure.unwrap().contains("Web_1"));
    }

    /// A manifest's objects in a namespace that it makes wait for the namespace.
    #[test]
    fn a_namespace_and_what_is_in_it_come_in_one_manifest() {
        let report = play(
            r#"
[[workload]]
name = "team"
at = "10s"
yaml = """
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: team}
data: {a: b}
"""
"#,
        );
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
    }

    /// Asked for while no API server answers, writes of one object are still made in their order:
    /// the last one counts. (Each had a clock of its own once, and an older one could come last.)
    #[test]
    fn writes_of_one_object_keep_their_order_through_an_outage_of_the_api() {
        let fault = |name: &str, at: &str, more: &str| {
            format!("[[fault]]\nname = \"{name}\"\nat = \"{at}\"\n{more}\n")
        };
        let scale =
            |n: u32| format!("kind = \"scale\"\nobject = \"ReplicaSet/web\"\nreplicas = {n}");
        let down = "kind = \"kill\"\nactor = \"apiserver\"\nnodes = \"n1\"\nrestart = \"8s\"";
        let faults = fault("down", "20s", down)
            + &fault("three", "22s", &scale(3))
            + &fault("five", "23500ms", &scale(5));
        let expect =
            "[[expect]]\nname = \"five\"\nkind = \"pods-ready\"\ncount = 5\nby = \"50s\"\n";
        let report = play(&format!("{}{faults}{expect}", replica_set("web", "10s", 0)));
        let reason = &report.expectations[0].reason;
        assert!(reason.starts_with("0 of 5 pods ready"), "{reason}");
    }

    /// Deleted and made again between two views, an owner is another one, and its pods name that
    /// one. (Once they named the old one, were collected as orphans and made again, for ever.)
    #[test]
    fn an_owner_made_again_under_its_name_gets_pods_of_its_own() {
        let delete = "[[fault]]\nname = \"gone\"\nkind = \"delete\"\nat = \"40s\"\n\
                      object = \"ReplicaSet/web\"\n";
        let (first, again) = (replica_set("web", "10s", 2), replica_set("again", "40s", 2));
        let scenario = testing::scenario("", &format!("{first}{delete}{again}"));
        let (report, said) = testing::play(&scenario, Trace::default());
        assert_eq!((report.outcome, report.failure), (Outcome::Passed, None));
        let made = said.0.iter().filter(|(.., text)| text.contains("web creates 2 pods")).count();
        assert_eq!(made, 2);
    }
}
