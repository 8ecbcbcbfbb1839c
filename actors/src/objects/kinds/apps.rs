//! `apps/v1`, and the oldest of its kind in `v1`.

use super::cells::{AGE, Cell, NAME, Shown, column, own, own_number, own_wide, wide};
use super::declaration::{ALL, SCALED, STATUS, namespaced, rules};
use super::{Column, Declaration, Fields, Kind, Rules, templates};
use crate::objects::validation::{Causes, golang, json};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::{Value, json};

pub(super) static DEPLOYMENT: Declaration = Declaration {
    short: &["deploy"],
    categories: ALL,
    subresources: SCALED,
    columns: &[
        own("Name"),
        own("Ready"),
        own("Up-to-date"),
        own("Available"),
        own("Age"),
        own_wide("Containers"),
        own_wide("Images"),
        own_wide("Selector"),
    ],
    generation: true,
    ..namespaced(Kind::Deployment, "apps/v1", "deployments")
};

pub(super) static REPLICA_SET: Declaration = Declaration {
    short: &["rs"],
    categories: ALL,
    subresources: SCALED,
    fields: &["status.replicas"],
    columns: &[
        own("Name"),
        own_number("Desired"),
        own_number("Current"),
        own_number("Ready"),
        own("Age"),
        own_wide("Containers"),
        own_wide("Images"),
        own_wide("Selector"),
    ],
    generation: true,
    ..namespaced(Kind::ReplicaSet, "apps/v1", "replicasets")
};

const CONTAINERS: Column = wide("Containers", Cell::Containers("spec.template.spec"));
const IMAGES: Column = wide("Images", Cell::Images("spec.template.spec"));

pub(super) static REPLICATION_CONTROLLER: Declaration = Declaration {
    short: &["rc"],
    categories: ALL,
    subresources: SCALED,
    fields: &["status.replicas"],
    columns: &[
        NAME,
        column("Desired", Cell::Number("spec.replicas")),
        column("Current", Cell::Number("status.replicas")),
        column("Ready", Cell::Number("status.readyReplicas")),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", Cell::Labels("spec.selector")),
    ],
    generation: true,
    rules: Some(Rules {
        defaults: |fields| {
            templates::labels_select(fields);
            fields.default("spec.replicas", 1);
            templates::complete(fields, "spec.template");
        },
        validate: replication_controller,
        ..rules::<ReplicationController>()
    }),
    ..namespaced(Kind::ReplicationController, "v1", "replicationcontrollers")
};

fn replication_controller(fields: &Fields, causes: &mut Causes) {
    templates::not_negative(fields, &["spec.replicas", "spec.minReadySeconds"], causes);
    if fields.map("spec.selector").next().is_none() {
        causes.required("spec.selector", "");
    }
    if fields.at("spec.template").is_none() {
        return causes.required("spec.template", "");
    }
    let labels = fields.at("spec.template.metadata.labels");
    let chosen = |name: &str, value: &Value| labels.and_then(|all| all.get(name)) == Some(value);
    if !fields.map("spec.selector").all(|(name, value)| chosen(name, value)) {
        let why = "`selector` does not match template `labels`";
        let labels = labels.map(|_| fields.part("spec.template.metadata.labels"));
        causes.invalid("spec.template.metadata.labels", golang::map(labels.as_ref()), why);
    }
    templates::pod("spec.template", fields, causes);
}

pub(super) static STATEFUL_SET: Declaration = Declaration {
    short: &["sts"],
    categories: ALL,
    subresources: SCALED,
    columns: &[NAME, column("Ready", Cell::Made(ready)), AGE, CONTAINERS, IMAGES],
    generation: true,
    rules: Some(Rules {
        defaults: complete_stateful_set,
        validate: stateful_set,
        update: stateful_set_update,
        ..rules::<StatefulSet>()
    }),
    ..namespaced(Kind::StatefulSet, "apps/v1", "statefulsets")
};

fn ready(shown: &Shown<'_>) -> Value {
    let number = |path: &str| shown.fields.number(path).unwrap_or_default();
    format!("{}/{}", number("status.readyReplicas"), number("spec.replicas")).into()
}

fn complete_stateful_set(fields: &mut Fields) {
    fields.default("spec.podManagementPolicy", "OrderedReady");
    fields.default("spec.updateStrategy.type", "RollingUpdate");
    if fields.text("spec.updateStrategy.type") == "RollingUpdate" {
        fields.default("spec.updateStrategy.rollingUpdate.partition", 0);
    }
    fields.default("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain");
    fields.default("spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Retain");
    fields.default("spec.replicas", 1);
    fields.default("spec.revisionHistoryLimit", 10);
    templates::complete(fields, "spec.template");
    let mut claims = fields.list("spec.volumeClaimTemplates").to_vec();
    for claim in &mut claims {
        claim["apiVersion"] = "v1".into();
        claim["kind"] = "PersistentVolumeClaim".into();
        if claim["spec"]["volumeMode"].is_null() {
            claim["spec"]["volumeMode"] = "Filesystem".into();
        }
        claim["status"] = json!({"phase": "Pending"});
    }
    if !claims.is_empty() {
        fields.set("spec.volumeClaimTemplates", claims);
    }
}

fn stateful_set(fields: &Fields, causes: &mut Causes) {
    let policy = fields.text("spec.podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let why = "must be 'OrderedReady' or 'Parallel'";
        causes.invalid("spec.podManagementPolicy", json(&policy), why);
    }
    match fields.text("spec.updateStrategy.type") {
        "RollingUpdate" => {}
        "OnDelete" if fields.at("spec.updateStrategy.rollingUpdate").is_some() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            let value = json(&fields.at("spec.updateStrategy.rollingUpdate"));
            causes.invalid("spec.updateStrategy.rollingUpdate", value, why);
        }
        "OnDelete" => {}
        other => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            causes.invalid("spec.updateStrategy", json(&other), why);
        }
    }
    templates::selected(fields, causes);
}

/// `ValidateStatefulSetUpdate` (pkg/apis/apps/validation).
fn stateful_set_update(new: &Fields, old: &Fields, causes: &mut Causes) {
    const MAY_CHANGE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let rest = |fields: &Fields| {
        let mut spec = fields.at("spec").and_then(Value::as_object).cloned().unwrap_or_default();
        spec.retain(|name, _| !MAY_CHANGE.contains(&name.as_str()));
        spec
    };
    if rest(new) != rest(old) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
            'template', 'updateStrategy', 'revisionHistoryLimit', \
            'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        causes.forbidden("spec", why);
    }
}

pub(super) static DAEMON_SET: Declaration = Declaration {
    short: &["ds"],
    categories: ALL,
    subresources: STATUS,
    columns: &[
        NAME,
        column("Desired", Cell::Number("status.desiredNumberScheduled")),
        column("Current", Cell::Number("status.currentNumberScheduled")),
        column("Ready", Cell::Number("status.numberReady")),
        column("Up-to-date", Cell::Number("status.updatedNumberScheduled")),
        column("Available", Cell::Number("status.numberAvailable")),
        column("Node Selector", Cell::Labels("spec.template.spec.nodeSelector")),
        AGE,
        CONTAINERS,
        IMAGES,
        wide("Selector", Cell::Selector("spec.selector")),
    ],
    generation: true,
    rules: Some(Rules {
        defaults: complete_daemon_set,
        validate: templates::selected,
        update: templates::immutable_selector,
        ..rules::<DaemonSet>()
    }),
    ..namespaced(Kind::DaemonSet, "apps/v1", "daemonsets")
};

fn complete_daemon_set(fields: &mut Fields) {
    fields.default("spec.updateStrategy.type", "RollingUpdate");
    if fields.text("spec.updateStrategy.type") == "RollingUpdate" {
        fields.default("spec.updateStrategy.rollingUpdate.maxUnavailable", 1);
        fields.default("spec.updateStrategy.rollingUpdate.maxSurge", 0);
    }
    fields.default("spec.revisionHistoryLimit", 10);
    templates::complete(fields, "spec.template");
}

pub(super) static CONTROLLER_REVISION: Declaration = Declaration {
    columns: &[
        NAME,
        column("Controller", Cell::Made(controller)),
        Column { kind: "string", ..column("Revision", Cell::Number("revision")) },
        AGE,
    ],
    rules: Some(Rules {
        validate: |fields, causes| templates::not_negative(fields, &["revision"], causes),
        update: |new, old, causes| templates::immutable(new, old, &["data"], causes),
        ..rules::<ControllerRevision>()
    }),
    ..namespaced(Kind::ControllerRevision, "apps/v1", "controllerrevisions")
};

/// `statefulset.apps/web`.
fn controller(shown: &Shown<'_>) -> Value {
    let mut owners = shown.meta.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
        return "<none>".into();
    };
    let kind = match owner.api_version.rsplit_once('/') {
        Some((group, _)) => format!("{}.{group}", owner.kind),
        None => owner.kind.clone(),
    };
    format!("{}/{}", kind.to_lowercase(), owner.name).into()
}
