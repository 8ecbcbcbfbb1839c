//! Priority (plugin/pkg/admission/priority): a pod's class becomes a number.

use crate::apiserver::apply::State;
use crate::apiserver::cache::Cache;
use crate::apiserver::errors;
use crate::objects::kinds::Fields;
use crate::objects::validation::Causes;
use crate::objects::{Key, Kind, Object, PodSpec};
use crate::ports::api::Error;
use std::sync::Arc;

/// What a pod's class says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::apiserver) struct Priority {
    pub class: Option<String>,
    pub value: i32,
    pub preemption: String,
}

impl Priority {
    pub fn write(&self, spec: &mut PodSpec) {
        spec.priority_class_name.clone_from(&self.class);
        spec.priority = Some(self.value);
        spec.preemption_policy = Some(self.preemption.clone());
    }
}

/// The classes that are there from the start (pkg/apis/scheduling/v1/helpers.go): name, value and
/// text.
pub(in crate::apiserver) const SYSTEM: [(&str, i32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
];
const PREEMPTS: &str = "PreemptLowerPriority";

/// What a new pod gets. A number that is written in its spec must be that of its class.
pub(in crate::apiserver) fn of_pod(
    name: &str,
    spec: &PodSpec,
    cache: &Cache,
) -> Result<Priority, Error> {
    let asked = spec.priority_class_name.as_deref().filter(|class| !class.is_empty());
    let priority = match asked {
        Some(class) => {
            let Some(found) = cache.object(Kind::PriorityClass, &Key::cluster(class)) else {
                let why = format_args!("no PriorityClass with name {class} was found");
                return Err(errors::forbidden(Kind::Pod, name, why));
            };
            of_class(found)
        }
        None => default(cache).map_or_else(none, of_class),
    };
    if let Some(written) = spec.priority.filter(|written| *written != priority.value) {
        let why = format_args!(
            "the integer value of priority ({written}) must not be provided in pod spec; priority \
             admission controller computed {} from the given PriorityClass name",
            priority.value
        );
        return Err(errors::forbidden(Kind::Pod, name, why));
    }
    if let Some(written) =
        spec.preemption_policy.as_deref().filter(|written| *written != priority.preemption)
    {
        let why = format_args!(
            "the string value of PreemptionPolicy ({written}) must not be provided in pod spec; \
             priority admission controller computed {} from the given PriorityClass name",
            priority.preemption
        );
        return Err(errors::forbidden(Kind::Pod, name, why));
    }
    Ok(priority)
}

fn none() -> Priority {
    Priority { class: None, value: 0, preemption: PREEMPTS.to_owned() }
}

fn of_class(class: &Arc<Object>) -> Priority {
    let Some(fields) = super::fields(class) else { return none() };
    let preemption = match fields.text("preemptionPolicy") {
        "" => PREEMPTS,
        policy => policy,
    };
    Priority {
        class: Some(class.key.name.to_string()),
        value: value(class),
        preemption: preemption.to_owned(),
    }
}

fn value(class: &Object) -> i32 {
    let value = super::fields(class).and_then(|fields| fields.number("value"));
    value.and_then(|value| i32::try_from(value).ok()).unwrap_or_default()
}

/// The class of pods that name none. Of several (two servers may have taken one each), the lowest.
fn default(cache: &Cache) -> Option<&Arc<Object>> {
    let classes = cache.views.get(&Kind::PriorityClass)?.values();
    classes.filter(|class| is_default(class)).min_by_key(|class| value(class))
}

fn is_default(class: &Object) -> bool {
    super::fields(class).is_some_and(|fields| fields.flag("globalDefault"))
}

/// One class only is the default.
pub(super) fn check(new: &Object, old: Option<&Object>, state: &State<'_>) -> Result<(), Error> {
    if new.kind() != Kind::PriorityClass || state.internal {
        return Ok(());
    }
    let name = &new.key.name;
    let other = default(state.cache).filter(|class| class.key.name != *name);
    let becomes = is_default(new) && old.is_none_or(|old| !is_default(old));
    if let Some(other) = other.filter(|_| becomes) {
        let why = format_args!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.key.name
        );
        return Err(errors::forbidden(Kind::PriorityClass, name, why));
    }
    Ok(())
}

/// `HighestUserDefinablePriority` (pkg/apis/scheduling/types.go).
const HIGHEST: i64 = 1_000_000_000;

/// Names that begin with `system-`, and values above those of users, are the server's own
/// (`ValidatePriorityClass`, pkg/apis/scheduling/validation).
pub(in crate::apiserver) fn validate(name: &str, class: &Fields, causes: &mut Causes) {
    let value = class.number("value").unwrap_or_default();
    if !name.starts_with("system-") {
        if value > HIGHEST {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            causes.forbidden("value", why);
        }
        return;
    }
    let why = match SYSTEM.iter().find(|(known, ..)| *known == name) {
        None => format!("{name} is not a known system priority class"),
        Some((_, known, _)) if i64::from(*known) != value => {
            format!("value of {name} PriorityClass must be {known}")
        }
        Some(_) if class.flag("globalDefault") => {
            format!("globalDefault of {name} PriorityClass must be false")
        }
        Some(_) => return,
    };
    let start = "priority class names with 'system-' prefix are reserved for system use only";
    causes.forbidden("metadata.name", format_args!("{start}. error: {why}"));
}
