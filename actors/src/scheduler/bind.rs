//! A pod that goes to a node: assumed there, bound, and what the answers mean.

use super::placed::Placement;
use super::resources::Load;
use super::{Call, Scheduler, What};
use crate::objects::{Key, Object, Uid};
use crate::ports::api::{Answer, Reason, Request};
use kubesim_runtime::{Context, Time};
use std::sync::Arc;
use std::time::Duration;

impl Scheduler {
    pub(super) fn assume(&mut self, pod: &Arc<Object>, node: u32, load: Arc<Load>) {
        self.place(Placement { object: Arc::clone(pod), node, load, assumed: true });
    }

    pub(super) fn ask_to_bind(&mut self, pod: Key, uid: Uid, number: u32) {
        let node = self.nodes.all[number as usize].name.clone();
        let request = Request::Bind { pod: pod.clone(), uid, node };
        self.waiting_calls.push_back(Call { pod, what: What::Bind, attempts: 0, request });
    }

    pub(super) fn answered(&mut self, answer: Answer, ctx: &mut Context<'_, Self>) {
        let Some(mut call) = self.calls.remove(&answer.tag) else { return };
        if call.what == What::Claim {
            return self.claim_written(&call, answer.result.as_ref().ok(), ctx);
        }
        let Err(error) = answer.result else { return self.tell_of_bind(&call) };
        let now = ctx.now();
        if call.what == What::Tell {
            // The pod changed, or nobody heard: it is judged and told again later.
            if !self.queue.is_binding(&call.pod) {
                self.queue.back_off(&call.pod, now);
            }
            return;
        }
        let Request::Bind { uid, .. } = call.request else { return };
        let assumed = |p: &Placement| p.assumed && p.object.uid == uid;
        if !self.placed.get(&call.pod).is_some_and(assumed) {
            return;
        }
        if error.reason == Reason::Unknown {
            // It may be bound: the assumption stays, and the same Bind is asked for again.
            call.attempts += 1;
            let delay = Duration::from_secs(1 << call.attempts.min(3));
            self.rebinds.insert((now + delay, call.pod), call.attempts);
            return;
        }
        ctx.note(|| format!("pod {} was not bound: {error}", call.pod));
        self.displace(&call.pod);
        self.queue.back_off(&call.pod, now);
    }

    pub(super) fn rebind(&mut self, now: Time) {
        while self.rebinds.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let ((_, pod), attempts) = self.rebinds.pop_first().expect("there is a first one");
            let Some(placement) = self.placed.get(&pod).filter(|p| p.assumed) else { continue };
            let node = self.nodes.all[placement.node as usize].name.clone();
            let request = Request::Bind { pod: pod.clone(), uid: placement.object.uid, node };
            self.waiting_calls.push_back(Call { pod, what: What::Bind, attempts, request });
        }
    }
}
