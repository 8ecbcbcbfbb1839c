//! A person's writes (`kubectl`'s): of workloads, and of faults that are writes.

use super::external::Order;
use super::{Cell, Due, Kind, World};
use crate::scenario::{ActorName, Expect, Manifest, ObjectRef, Which};
use kubesim_actors::apiserver::{self, ApiServer, RequestId};
use kubesim_actors::objects::{Key, Kind as ObjectKind, Name, Object};
use kubesim_actors::ports::api::{DeleteOptions, Error, Reason, Reply, Request, Subresource};
use kubesim_runtime::Time;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Writes that a person gave to the API and that were not answered yet.
#[derive(Debug, Default)]
pub struct Operator {
    calls: BTreeMap<u64, Call>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Call {
    request: Arc<Request>,
    from: Name,
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

    pub(super) fn keys_of(&self, of: &ObjectRef) -> Vec<Key> {
        match &of.which {
            Which::Key(key) => vec![key.clone()],
            Which::Labels(labels) => {
                let view = self.front.cache().and_then(|cache| cache.views.get(&of.kind));
                let has = |object: &&Arc<Object>| {
                    labels.iter().all(|(name, value)| object.label(name) == Some(value.as_str()))
                };
                view.into_iter()
                    .flat_map(|v| v.values())
                    .filter(has)
                    .map(|o| o.key.clone())
                    .collect()
            }
        }
    }

    pub(super) fn operate_create(&mut self, given: &Manifest) {
        let request = Request::Create { object: given.object.clone() };
        self.operate(request, given.place.clone());
    }

    /// `from` is the fault that it comes from.
    pub(super) fn operate_patch(&mut self, kind: ObjectKind, key: Key, patch: Value, from: &Name) {
        let request = Request::Patch { kind, key, subresource: Subresource::Main, patch };
        self.operate(request, of_fault(from));
    }

    pub(super) fn operate_delete(&mut self, kind: ObjectKind, key: Key, from: &Name) {
        let request = Request::Delete { kind, key, options: DeleteOptions::default() };
        self.operate(request, of_fault(from));
    }

    fn operate(&mut self, request: Request, from: Name) {
        let call = self.operator.next;
        self.operator.next += 1;
        self.operator.calls.insert(call, Call { request: Arc::new(request), from });
        self.operate_again(call);
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
            self.send::<ApiServer>(life, self.now, None, apiserver::Event::Request { id, request });
        }
    }

    pub(super) fn operator_answered(&mut self, call: u64, result: Result<Reply, Error>) {
        let Some(Call { request, from }) = self.operator.calls.get(&call).cloned() else { return };
        let error = match result {
            Ok(_) => {
                self.operator.calls.remove(&call);
                return;
            }
            Err(error) => error,
        };
        match (error.reason, &*request) {
            (Reason::AlreadyExists, Request::Create { object }) => {
                self.operator.calls.remove(&call);
                self.replace(object, from);
            }
            (Reason::NotFound, Request::Delete { .. }) => {
                self.operator.calls.remove(&call);
            }
            (
                Reason::Unknown | Reason::Unreachable | Reason::TooManyRequests | Reason::Conflict,
                _,
            ) => {}
            _ => {
                self.operator.calls.remove(&call);
                let (kind, key) = request.subject();
                let verb = request.verb();
                let text = format!("{from}: {verb} {kind} {key}: {error}");
                self.line("kubectl", || text.clone());
                self.refused_writes.push(Refusal { at: self.now, text });
            }
        }
    }

    /// What stands already is changed to what the file says.
    fn replace(&mut self, object: &Object, from: Name) {
        let mut patch = object.to_json();
        if let Value::Object(fields) = &mut patch {
            fields.remove("status");
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        let (kind, key) = (object.kind(), object.key.clone());
        let request = Request::Patch { kind, key, subresource: Subresource::Main, patch };
        self.operate(request, from);
    }
}

fn of_fault(name: &Name) -> Name {
    Name::from(format!("fault {name}"))
}

#[cfg(test)]
mod tests {
    use crate::report::{Outcome, Report, Trace};
    use crate::world::testing;

    fn play(more: &str) -> Report {
        testing::play(&testing::scenario("", more), Trace::default()).0
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
object = "Deployment/none"
replicas = 3
"#;
        let why = play(scale).failure.unwrap();
        let named =
            "fault more: patch Deployment default/none: NotFound: deployments.apps \"none\"";
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
}
