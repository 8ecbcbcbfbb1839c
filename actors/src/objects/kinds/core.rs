//! `v1`, but for what is stored on disks.

use super::cells::{AGE, Cell, NAME, Shown, column, own, own_number, own_wide};
use super::declaration::{ALL, STATUS, cluster, namespaced, rules};
use super::{Column, Declaration, Fields, Kind, Rules, Sub, templates};
use crate::objects::names;
use crate::objects::validation::{Causes, config};
use k8s_openapi::api::core::v1::{
    Endpoints, LimitRange, PodTemplate, ResourceQuota, Secret, ServiceAccount,
};
use serde_json::Value;

pub(super) static NAMESPACE: Declaration = Declaration {
    short: &["ns"],
    subresources: STATUS,
    fields: &["status.phase"],
    columns: &[own("Name"), own("Status"), own("Age")],
    name: names::label,
    ..cluster(Kind::Namespace, "v1", "namespaces")
};

pub(super) static NODE: Declaration = Declaration {
    short: &["no"],
    subresources: STATUS,
    fields: &["spec.unschedulable"],
    columns: &[
        own("Name"),
        own("Status"),
        own("Roles"),
        own("Age"),
        own("Version"),
        own_wide("Internal-IP"),
        own_wide("External-IP"),
        own_wide("OS-Image"),
        own_wide("Kernel-Version"),
        own_wide("Container-Runtime"),
    ],
    ..cluster(Kind::Node, "v1", "nodes")
};

pub(super) static POD: Declaration = Declaration {
    short: &["po"],
    categories: ALL,
    subresources: &[Sub::Binding, Sub::EphemeralContainers, Sub::Eviction, Sub::Status],
    fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    columns: &[
        own("Name"),
        own("Ready"),
        own("Status"),
        own("Restarts"),
        own("Age"),
        own_wide("IP"),
        own_wide("Node"),
        own_wide("Nominated Node"),
        own_wide("Readiness Gates"),
    ],
    generation: true,
    ..namespaced(Kind::Pod, "v1", "pods")
};

pub(super) static SERVICE: Declaration = Declaration {
    short: &["svc"],
    categories: ALL,
    subresources: STATUS,
    fields: &["spec.clusterIP", "spec.type"],
    columns: &[
        own("Name"),
        own("Type"),
        own("Cluster-IP"),
        own("External-IP"),
        own("Port(s)"),
        own("Age"),
        own_wide("Selector"),
    ],
    name: names::label_1035,
    ..namespaced(Kind::Service, "v1", "services")
};

pub(super) static CONFIG_MAP: Declaration = Declaration {
    short: &["cm"],
    columns: &[own("Name"), own("Data"), own("Age")],
    ..namespaced(Kind::ConfigMap, "v1", "configmaps")
};

pub(super) static EVENT: Declaration = Declaration {
    short: &["ev"],
    fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
    ],
    columns: &[
        own("Last Seen"),
        own("Type"),
        own("Reason"),
        own("Object"),
        own_wide("Subobject"),
        own_wide("Source"),
        own("Message"),
        own_wide("First Seen"),
        Column { kind: "string", wide: true, ..own_number("Count") },
        own_wide("Name"),
    ],
    ..namespaced(Kind::Event, "v1", "events")
};

pub(super) static SECRET: Declaration = Declaration {
    fields: &["type"],
    columns: &[
        NAME,
        column("Type", Cell::Or("type", "")),
        column("Data", Cell::Count("data")),
        AGE,
    ],
    rules: Some(Rules {
        defaults: config::complete_secret,
        validate: config::secret,
        update: config::secret_update,
        ..rules::<Secret>()
    }),
    ..namespaced(Kind::Secret, "v1", "secrets")
};

pub(super) static SERVICE_ACCOUNT: Declaration = Declaration {
    short: &["sa"],
    subresources: &[Sub::Token],
    columns: &[NAME, column("Secrets", Cell::Count("secrets")), AGE],
    rules: Some(rules::<ServiceAccount>()),
    ..namespaced(Kind::ServiceAccount, "v1", "serviceaccounts")
};

pub(super) static ENDPOINTS: Declaration = Declaration {
    short: &["ep"],
    columns: &[NAME, column("Endpoints", Cell::Made(endpoints)), AGE],
    // KEP-4974.
    deprecated: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    rules: Some(Rules { defaults: protocols, ..rules::<Endpoints>() }),
    ..namespaced(Kind::Endpoints, "v1", "endpoints")
};

fn protocols(fields: &mut Fields) {
    let subsets = fields.0.get_mut("subsets").and_then(Value::as_array_mut);
    for subset in subsets.into_iter().flatten() {
        for port in subset["ports"].as_array_mut().into_iter().flatten() {
            if port["protocol"].as_str().is_none_or(str::is_empty) {
                port["protocol"] = "TCP".into();
            }
        }
    }
}

/// The first three addresses, each with each port (`formatEndpoints`).
fn endpoints(shown: &Shown<'_>) -> Value {
    let mut all = Vec::new();
    for subset in shown.fields.list("subsets") {
        let list = |field: &str| subset[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let ips = || list("addresses").iter().map(|one| one["ip"].as_str().unwrap_or_default());
        if list("ports").is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in list("ports") {
            all.extend(ips().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{}", port["port"]),
                false => format!("{ip}:{}", port["port"]),
            }));
        }
    }
    if shown.fields.list("subsets").is_empty() {
        return "<none>".into();
    }
    let first = all[..all.len().min(3)].join(",");
    match all.len() {
        0..=3 => first.into(),
        count => format!("{first} + {} more...", count - 3).into(),
    }
}

pub(super) static LIMIT_RANGE: Declaration = Declaration {
    short: &["limits"],
    columns: &[NAME, column("Created At", Cell::Created)],
    rules: Some(rules::<LimitRange>()),
    ..namespaced(Kind::LimitRange, "v1", "limitranges")
};

pub(super) static RESOURCE_QUOTA: Declaration = Declaration {
    short: &["quota"],
    subresources: STATUS,
    columns: &[
        NAME,
        column("Request", Cell::Made(|shown| quota(shown, false))),
        column("Limit", Cell::Made(|shown| quota(shown, true))),
        AGE,
    ],
    rules: Some(Rules { validate: hard, ..rules::<ResourceQuota>() }),
    ..namespaced(Kind::ResourceQuota, "v1", "resourcequotas")
};

fn hard(fields: &Fields, causes: &mut Causes) {
    config::quantities("spec.hard", fields.map("spec.hard"), causes);
}

fn quota(shown: &Shown<'_>, limits: bool) -> Value {
    let mine = |name: &str| name.starts_with("limits.") == limits;
    let hard = shown.fields.map("status.hard").filter(|(name, _)| mine(name));
    let used = shown.fields.at("status.used");
    let texts = hard.map(|(name, hard)| {
        let used = used.and_then(|used| used[name].as_str()).unwrap_or("0");
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    });
    texts.collect::<Vec<_>>().join(", ").into()
}

pub(super) static POD_TEMPLATE: Declaration = Declaration {
    columns: &[
        NAME,
        column("Containers", Cell::Containers("template.spec")),
        column("Images", Cell::Images("template.spec")),
        column("Pod Labels", Cell::Labels("template.metadata.labels")),
    ],
    generation: true,
    rules: Some(Rules {
        defaults: |fields| templates::complete(fields, "template"),
        validate: |fields, causes| templates::pod("template", fields, causes),
        ..rules::<PodTemplate>()
    }),
    ..namespaced(Kind::PodTemplate, "v1", "podtemplates")
};
