//! A write's one step: applied to what is known, and off to the store as one transaction with what
//! goes with it (the quotas that count it, the range that it takes an address of, the lease by
//! which its writer leads).

use super::apply::{self, Outcome, State};
use super::pending::{Flight, Job, Step, Write, respond};
use super::quota::{self, Charge};
use super::{ApiServer, Effect, ranges};
use crate::ports::api::{Error, Reply};
use crate::ports::store::{self, Op, StoreKey};
use kubesim_runtime::Context;
use std::sync::Arc;

type Ctx<'a> = Context<'a, ApiServer>;

/// What would be written, and on what conditions.
struct Judged {
    outcome: Outcome,
    charges: Vec<Charge>,
    hold: Option<(StoreKey, u64)>,
}

impl ApiServer {
    /// Its own lane is closed for the job, and so are those `held`.
    pub(super) fn execute(
        &mut self,
        job: Job,
        key: &StoreKey,
        held: &[StoreKey],
        ctx: &mut Ctx<'_>,
    ) -> Step {
        let judged = self.judge(&job, key, ctx);
        let doubted = match &judged {
            Ok(Judged { outcome, .. }) => matches!(outcome, Outcome::Same(_)),
            Err(error) => ApiServer::depends(error),
        };
        if doubted && self.may_be_behind(&job) {
            self.settle(key);
            return self.once_told(job, key.clone(), ctx);
        }
        if job.dry_run {
            self.tried(&job, key, judged.map(|judged| judged.outcome), ctx);
            return Step::Answered;
        }
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => {
                self.settle(key);
                respond(&job, Err(error), ctx);
                return Step::Answered;
            }
        };
        let busy = |charge: &&Charge| !held.contains(&charge.key) && self.busy(&charge.key);
        if let Some(quota) = judged.charges.iter().find(busy).map(|charge| charge.key.clone()) {
            self.settle(key);
            if let Some(lane) = self.pending.lanes.get_mut(&quota) {
                lane.push_back((job, key.clone()));
            }
            return Step::Goes;
        }
        self.leaves(job, key, judged, ctx)
    }

    fn judge(&mut self, job: &Job, key: &StoreKey, ctx: &mut Ctx<'_>) -> Result<Judged, Error> {
        let (wall, under_way) = (ctx.wall(), self.definitions_under_way(key.0));
        let state = State {
            cache: &self.cache,
            config: &self.config,
            services: &mut self.services,
            last_pod: &mut self.last_pod,
            wall,
            rng: ctx.rng(),
            internal: job.id.is_none(),
            under_way,
        };
        let outcome = apply::apply(state, &job.request, &key.1)?;
        let mut charges = quota::charges(&self.cache, key, &outcome)?;
        charges.extend(ranges::charge(&self.cache, &self.config, key, &outcome, wall));
        let hold = job.hold.as_ref().map(|hold| hold.expected(&self.cache)).transpose()?;
        Ok(Judged { outcome, charges, hold })
    }

    fn leaves(&mut self, job: Job, key: &StoreKey, judged: Judged, ctx: &mut Ctx<'_>) -> Step {
        let Judged { outcome, charges, hold } = judged;
        let (write, op, expected) = match outcome {
            Outcome::Same(object) => {
                respond(&job, Ok(Reply::Object(object)), ctx);
                return Step::Answered;
            }
            Outcome::Put { object, expected } => {
                let value = Arc::new(object);
                (Write::Put(value.clone()), Op::Put { key: key.clone(), value }, expected)
            }
            Outcome::Remove { object, expected } => {
                (Write::Remove(object), Op::Delete { key: key.clone() }, expected)
            }
        };
        let (mut compare, mut then) = (vec![(key.clone(), expected)], vec![op]);
        for Charge { key, expected, object } in &charges {
            self.pending.lanes.entry(key.clone()).or_default();
            compare.push((key.clone(), *expected));
            then.push(Op::Put { key: key.clone(), value: Arc::clone(object) });
        }
        compare.extend(hold);
        let uncounted = !quota::any(&self.cache, &key.1.namespace);
        let id = self.pending.next_id();
        let flight = Flight { job, key: key.clone(), write, charges, uncounted };
        self.pending.in_flight.insert(id, flight);
        ctx.perform(Effect::Store(store::Request::Txn { id, compare, then }));
        Step::Goes
    }

    /// A dry run ends here, as in apiserver's `registry/generic/registry/dryrun.go`: what was made
    /// of the object is answered at the version that is stored of it, if any is.
    fn tried(
        &mut self,
        job: &Job,
        key: &StoreKey,
        outcome: Result<Outcome, Error>,
        ctx: &mut Ctx<'_>,
    ) {
        // What a service was given is free again.
        self.settle(key);
        let object = outcome.map(|outcome| match outcome {
            Outcome::Same(object) | Outcome::Remove { object, .. } => object,
            Outcome::Put { object, .. } => Arc::new(object),
        });
        respond(job, object.map(Reply::Object), ctx);
    }
}
