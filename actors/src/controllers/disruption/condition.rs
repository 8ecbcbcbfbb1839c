//! What a budget's status says of whether pods may go: upstream's
//! `component-helpers/apps/poddisruptionbudget`, which the eviction has as well.

use crate::objects::time;
use k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kubesim_runtime::Wall;

const ALLOWED: &str = "DisruptionAllowed";

#[derive(Clone, Copy, Debug)]
pub enum Word<'a> {
    /// As the numbers of the status say.
    Counted,
    /// They could not be found out, for this reason.
    Failed(&'a str),
}

/// Writes the condition into the status.
pub fn say(status: &mut PodDisruptionBudgetStatus, word: Word<'_>, now: Wall) {
    let (is, reason, message) = match word {
        Word::Counted if status.disruptions_allowed > 0 => ("True", "SufficientPods", ""),
        Word::Counted => ("False", "InsufficientPods", ""),
        Word::Failed(why) => ("False", "SyncFailed", why),
    };
    let all = status.conditions.get_or_insert_default();
    let known = all.iter().position(|one| one.type_ == ALLOWED);
    let since = known.map(|at| &all[at]).filter(|one| one.status == is);
    let next = Condition {
        type_: ALLOWED.to_owned(),
        status: is.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since
            .map_or_else(|| time(now), |one| one.last_transition_time.clone()),
    };
    match known {
        Some(at) => all[at] = next,
        None => all.push(next),
    }
}
