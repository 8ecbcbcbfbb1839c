//! What is stored on disks: volumes of `v1`, and `storage.k8s.io/v1`.

use super::cells::{AGE, Cell, Column, NAME, Shown, column, wide};
use super::declaration::{STATUS, cluster, namespaced, rules};
use super::{Declaration, Fields, Kind, Rules, templates};
use crate::objects::validation::{Causes, config};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use serde_json::{Value, json};

const GROUP: &str = "storage.k8s.io/v1";

pub(super) static PERSISTENT_VOLUME: Declaration = Declaration {
    short: &["pv"],
    subresources: STATUS,
    columns: &[
        NAME,
        column("Capacity", Cell::Or("spec.capacity.storage", "0")),
        column("Access Modes", Cell::Made(|shown| modes(shown, "spec.accessModes"))),
        column("Reclaim Policy", Cell::Or("spec.persistentVolumeReclaimPolicy", "")),
        column("Status", Cell::Made(phase)),
        column("Claim", Cell::Made(claim)),
        column("StorageClass", Cell::Made(class)),
        column("VolumeAttributesClass", Cell::Or("spec.volumeAttributesClassName", "<unset>")),
        column("Reason", Cell::Or("status.reason", "")),
        AGE,
        wide("VolumeMode", Cell::Or("spec.volumeMode", "<unset>")),
    ],
    rules: Some(Rules {
        status: pending,
        defaults: |fields| {
            fields.default("spec.persistentVolumeReclaimPolicy", "Retain");
            fields.default("spec.volumeMode", "Filesystem");
        },
        validate: volume,
        ..rules::<PersistentVolume>()
    }),
    ..cluster(Kind::PersistentVolume, "v1", "persistentvolumes")
};

fn pending() -> Value {
    json!({"phase": "Pending"})
}

/// `GetAccessModesAsString` (pkg/apis/core/v1/helper): each once, in a fixed order.
fn modes(shown: &Shown<'_>, path: &str) -> Value {
    let all = shown.fields.list(path);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| all.iter().any(|one| one == mode);
    let found: Vec<&str> =
        short.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    found.join(",").into()
}

fn phase(shown: &Shown<'_>) -> Value {
    match shown.meta.deletion_timestamp {
        Some(_) => "Terminating".into(),
        None => shown.fields.text("status.phase").into(),
    }
}

fn claim(shown: &Shown<'_>) -> Value {
    let text = |part: &str| shown.fields.text(&format!("spec.claimRef.{part}"));
    match shown.fields.at("spec.claimRef") {
        Some(_) => format!("{}/{}", text("namespace"), text("name")).into(),
        None => "".into(),
    }
}

/// The old annotation wins (`GetPersistentVolumeClass`, `GetPersistentVolumeClaimClass`).
fn class(shown: &Shown<'_>) -> Value {
    let annotations = shown.meta.annotations.as_ref();
    let old = annotations.and_then(|all| all.get("volume.beta.kubernetes.io/storage-class"));
    old.map_or(shown.fields.text("spec.storageClassName"), String::as_str).into()
}

/// `ValidatePersistentVolume` (pkg/apis/core/validation).
fn volume(fields: &Fields, causes: &mut Causes) {
    if fields.list("spec.accessModes").is_empty() {
        causes.required("spec.accessModes", "");
    }
    access_modes(fields, causes);
    if fields.map("spec.capacity").next().is_none() {
        causes.required("spec.capacity", "");
    }
    config::quantities("spec.capacity", fields.map("spec.capacity"), causes);
    const OTHERS: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let sources = fields.map("spec").filter(|(name, _)| !OTHERS.contains(&name.as_str())).count();
    if sources == 0 {
        causes.required("spec", "must specify a volume type");
    }
    let policy = fields.text("spec.persistentVolumeReclaimPolicy");
    let supported = ["Delete", "Recycle", "Retain"];
    if !supported.contains(&policy) {
        causes.unsupported("spec.persistentVolumeReclaimPolicy", policy, &supported);
    }
}

fn access_modes(fields: &Fields, causes: &mut Causes) {
    let supported = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in fields.list("spec.accessModes").iter().filter_map(Value::as_str) {
        if !supported.contains(&mode) {
            causes.unsupported("spec.accessModes", mode, &supported);
        }
    }
}

pub(super) static PERSISTENT_VOLUME_CLAIM: Declaration = Declaration {
    short: &["pvc"],
    subresources: STATUS,
    columns: &[
        NAME,
        column("Status", Cell::Made(phase)),
        column("Volume", Cell::Or("spec.volumeName", "")),
        column("Capacity", Cell::Made(|shown| bound(shown, false))),
        column("Access Modes", Cell::Made(|shown| bound(shown, true))),
        column("StorageClass", Cell::Made(class)),
        column("VolumeAttributesClass", Cell::Or("spec.volumeAttributesClassName", "<unset>")),
        AGE,
        wide("VolumeMode", Cell::Or("spec.volumeMode", "<unset>")),
    ],
    rules: Some(Rules {
        status: pending,
        defaults: |fields| fields.default("spec.volumeMode", "Filesystem"),
        validate: volume_claim,
        update: claim_update,
        ..rules::<PersistentVolumeClaim>()
    }),
    ..namespaced(Kind::PersistentVolumeClaim, "v1", "persistentvolumeclaims")
};

/// What a claim got, once it has a volume.
fn bound(shown: &Shown<'_>, access: bool) -> Value {
    match (shown.fields.text("spec.volumeName"), access) {
        ("", _) => "".into(),
        (_, true) => modes(shown, "status.accessModes"),
        (_, false) => match shown.fields.text("status.capacity.storage") {
            "" => "0".into(),
            amount => amount.into(),
        },
    }
}

fn volume_claim(fields: &Fields, causes: &mut Causes) {
    if fields.list("spec.accessModes").is_empty() {
        causes.required("spec.accessModes", "at least 1 access mode is required");
    }
    access_modes(fields, causes);
    if fields.at("spec.resources.requests.storage").is_none() {
        causes.required("spec.resources[storage]", "");
    }
    config::quantities("spec.resources.requests", fields.map("spec.resources.requests"), causes);
}

/// `ValidatePersistentVolumeClaimUpdate`.
fn claim_update(new: &Fields, old: &Fields, causes: &mut Causes) {
    let rest = |fields: &Fields| {
        let mut spec = fields.at("spec").cloned().unwrap_or_default();
        spec["resources"]["requests"] = Value::Null;
        spec["volumeAttributesClassName"] = Value::Null;
        spec
    };
    let mut before = rest(old);
    // The one change that binding makes.
    if old.text("spec.volumeName").is_empty() {
        before["volumeName"] = new.at("spec.volumeName").cloned().unwrap_or_default();
    }
    // And the class that it gets when there is a default one (KEP-3333).
    if old.at("spec.storageClassName").is_none_or(Value::is_null) {
        before["storageClassName"] = new.at("spec.storageClassName").cloned().unwrap_or_default();
    }
    let mut after = rest(new);
    if after.get("storageClassName").is_none() {
        after["storageClassName"] = Value::Null;
    }
    if after.get("volumeName").is_none() {
        after["volumeName"] = Value::Null;
    }
    if before.get("volumeName").is_none() {
        before["volumeName"] = Value::Null;
    }
    if before != after {
        let why = "spec is immutable after creation except resources.requests and \
            volumeAttributesClassName for bound claims";
        causes.forbidden("spec", why);
    }
}

pub(super) static STORAGE_CLASS: Declaration = Declaration {
    short: &["sc"],
    columns: &[
        column("Name", Cell::Made(class_name)),
        column("Provisioner", Cell::Or("provisioner", "")),
        column("ReclaimPolicy", Cell::Or("reclaimPolicy", "Delete")),
        column("VolumeBindingMode", Cell::Or("volumeBindingMode", "Immediate")),
        Column {
            kind: "string",
            ..column("AllowVolumeExpansion", Cell::Flag("allowVolumeExpansion", false))
        },
        AGE,
    ],
    rules: Some(Rules {
        defaults: |fields| {
            fields.default("reclaimPolicy", "Delete");
            fields.default("volumeBindingMode", "Immediate");
        },
        validate: storage_class,
        update: |new, old, causes| {
            for path in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
                if new.at(path) != old.at(path) {
                    let why = format_args!("updates to {path} are forbidden.");
                    causes.forbidden(path, why);
                }
            }
        },
        ..rules::<StorageClass>()
    }),
    ..cluster(Kind::StorageClass, GROUP, "storageclasses")
};

fn class_name(shown: &Shown<'_>) -> Value {
    let annotations = shown.meta.annotations.as_ref();
    let says = |name: &str| annotations.and_then(|all| all.get(name)).is_some_and(|v| v == "true");
    let default = says("storageclass.kubernetes.io/is-default-class")
        || says("storageclass.beta.kubernetes.io/is-default-class");
    if default { format!("{} (default)", shown.name).into() } else { shown.name.into() }
}

fn storage_class(fields: &Fields, causes: &mut Causes) {
    if fields.text("provisioner").is_empty() {
        causes.required("provisioner", "");
    }
    let choices = [
        ("reclaimPolicy", ["Delete", "Retain"]),
        ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
    ];
    for (path, supported) in choices {
        let chosen = fields.text(path);
        if !supported.contains(&chosen) {
            causes.unsupported(path, chosen, &supported);
        }
    }
}

pub(super) static VOLUME_ATTACHMENT: Declaration = Declaration {
    subresources: STATUS,
    columns: &[
        NAME,
        column("Attacher", Cell::Or("spec.attacher", "")),
        column("PV", Cell::Or("spec.source.persistentVolumeName", "")),
        column("Node", Cell::Or("spec.nodeName", "")),
        column("Attached", Cell::Flag("status.attached", false)),
        AGE,
    ],
    rules: Some(Rules {
        validate: |fields, causes| {
            for path in ["spec.attacher", "spec.nodeName"] {
                if fields.text(path).is_empty() {
                    causes.required(path, "");
                }
            }
        },
        update: |new, old, causes| templates::immutable(new, old, &["spec"], causes),
        ..rules::<VolumeAttachment>()
    }),
    ..cluster(Kind::VolumeAttachment, GROUP, "volumeattachments")
};

pub(super) static CSI_DRIVER: Declaration = Declaration {
    columns: &[
        NAME,
        column("AttachRequired", Cell::Flag("spec.attachRequired", true)),
        column("PodInfoOnMount", Cell::Flag("spec.podInfoOnMount", false)),
        column("StorageCapacity", Cell::Flag("spec.storageCapacity", false)),
        column("TokenRequests", Cell::Made(audiences)),
        column("RequiresRepublish", Cell::Flag("spec.requiresRepublish", false)),
        column("Modes", Cell::Joined("spec.volumeLifecycleModes", "<none>")),
        AGE,
    ],
    rules: Some(Rules {
        defaults: |fields| {
            fields.default("spec.attachRequired", true);
            fields.default("spec.podInfoOnMount", false);
            fields.default("spec.storageCapacity", false);
            fields.default("spec.fsGroupPolicy", "ReadWriteOnceWithFSType");
            fields.default("spec.requiresRepublish", false);
            fields.default("spec.seLinuxMount", false);
            if fields.list("spec.volumeLifecycleModes").is_empty() {
                fields.set("spec.volumeLifecycleModes", json!(["Persistent"]));
            }
        },
        ..rules::<CSIDriver>()
    }),
    ..cluster(Kind::CSIDriver, GROUP, "csidrivers")
};

fn audiences(shown: &Shown<'_>) -> Value {
    if shown.fields.at("spec.tokenRequests").is_none() {
        return "<unset>".into();
    }
    let all = shown.fields.list("spec.tokenRequests").iter();
    let all: Vec<&str> = all.map(|one| one["audience"].as_str().unwrap_or_default()).collect();
    all.join(",").into()
}

pub(super) static CSI_NODE: Declaration = Declaration {
    columns: &[
        NAME,
        Column { kind: "integer", ..column("Drivers", Cell::Count("spec.drivers")) },
        AGE,
    ],
    rules: Some(rules::<CSINode>()),
    ..cluster(Kind::CSINode, GROUP, "csinodes")
};

pub(super) static CSI_STORAGE_CAPACITY: Declaration = Declaration {
    columns: &[
        NAME,
        column("StorageClassName", Cell::Or("storageClassName", "")),
        column("Capacity", Cell::Or("capacity", "<unset>")),
    ],
    rules: Some(Rules {
        validate: |fields, causes| {
            if fields.text("storageClassName").is_empty() {
                causes.required("storageClassName", "");
            }
        },
        update: |new, old, causes| {
            templates::immutable(new, old, &["nodeTopology", "storageClassName"], causes);
        },
        ..rules::<CSIStorageCapacity>()
    }),
    ..namespaced(Kind::CSIStorageCapacity, GROUP, "csistoragecapacities")
};
