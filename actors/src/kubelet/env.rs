//! A container's environment: the services of its namespace, then its own variables with
//! `$(NAME)` references resolved.

use crate::objects::{Key, Object, PodSpec, ServiceSpec, View};
use k8s_openapi::api::core::v1::{Container, EnvVar};
use kubesim_runtime::Hasher;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub type Variables = Arc<[(String, String)]>;

/// The service variables of one namespace, kept in the view that they come from.
struct ServiceEnv(Variables);

/// What the services that exist now say to a container of this namespace (pkg/kubelet/envvars and
/// `getServiceEnvVarMap`): those of the namespace if `links`, and always `default/kubernetes`
/// unless the namespace has a `kubernetes` of its own.
///
/// Made once per version of the view, namespace and `links`, however many kubelets ask.
pub fn service_variables(services: &View, namespace: &str, links: bool) -> Variables {
    let mut key = Hasher::default();
    key.str("kubelet/env");
    key.str(namespace);
    key.u64(u64::from(links));
    let compute = || ServiceEnv(compile(services, namespace, links).into());
    services.memo(key.finish(), compute).0.clone()
}

fn compile(services: &View, namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut own_master = false;
    if links {
        let first = Key::new(namespace, "");
        let of_namespace =
            services.iter_from(&first).take_while(|(key, _)| key.namespace == namespace);
        for (key, service) in of_namespace {
            own_master |= key.name == "kubernetes" && add_service(&mut variables, service);
            if key.name != "kubernetes" {
                add_service(&mut variables, service);
            }
        }
    }
    if !own_master && let Some(master) = services.get(&Key::new("default", "kubernetes")) {
        add_service(&mut variables, master);
    }
    variables
}

/// False, and nothing added, if the service has no cluster address.
fn add_service(variables: &mut Vec<(String, String)>, service: &Object) -> bool {
    let Some((spec, _)) = service.service() else {
        return false;
    };
    let Some(ip) = cluster_ip(spec) else {
        return false;
    };
    let name = variable_name(&service.key.name);
    let ports = spec.ports.as_deref().unwrap_or_default();
    variables.push((format!("{name}_SERVICE_HOST"), ip.to_owned()));
    if let Some(first) = ports.first() {
        variables.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    }
    for port in ports {
        if let Some(label) = port.name.as_deref().filter(|label| !label.is_empty()) {
            let variable = format!("{name}_SERVICE_PORT_{}", variable_name(label));
            variables.push((variable, port.port.to_string()));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.push((prefix.clone(), url));
        variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{prefix}_PORT"), port.port.to_string()));
        variables.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    true
}

fn cluster_ip(spec: &ServiceSpec) -> Option<&str> {
    spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// What a container may learn of its pod (`fieldRef`).
pub struct Facts<'a> {
    pub pod: &'a Object,
    pub spec: &'a PodSpec,
    pub pod_ip: Option<Ipv4Addr>,
    pub host_ip: Option<Ipv4Addr>,
    pub node: &'a str,
}

/// The container's own variables, in its order. The error says what is missing, as the
/// `CreateContainerConfigError` of upstream does.
pub fn own_variables(
    container: &Container,
    services: &[(String, String)],
    facts: &Facts<'_>,
) -> Result<Vec<(String, String)>, String> {
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    let mut variables = Vec::new();
    if let Some(source) = container.env_from.as_deref().unwrap_or_default().first() {
        let optional = source.config_map_ref.as_ref().is_some_and(|r| r.optional == Some(true))
            || source.secret_ref.as_ref().is_some_and(|r| r.optional == Some(true));
        if !optional {
            return Err("envFrom: this kubelet reads no ConfigMaps and Secrets".to_owned());
        }
    }
    for variable in container.env.as_deref().unwrap_or_default() {
        let look_up = |name: &str| {
            let inherited = || services.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
            known.get(name).map(String::as_str).or_else(inherited)
        };
        let Some(value) = value_of(variable, look_up, facts)? else {
            continue;
        };
        known.insert(&variable.name, value.clone());
        variables.retain(|(name, _)| *name != variable.name);
        variables.push((variable.name.clone(), value));
    }
    Ok(variables)
}

/// `None`: an optional source that is not there.
fn value_of<'a>(
    variable: &EnvVar,
    look_up: impl Fn(&str) -> Option<&'a str>,
    facts: &Facts<'_>,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), look_up)));
    };
    if let Some(field) = &source.field_ref {
        return match field_value(&field.field_path, facts) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("unsupported fieldPath: {}", field.field_path)),
        };
    }
    let (kind, name, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(reference), _) => ("configmap", &reference.name, reference.optional),
        (_, Some(reference)) => ("secret", &reference.name, reference.optional),
        _ => {
            return Err(format!("variable {:?} has a source of no known kind", variable.name));
        }
    };
    match optional {
        Some(true) => Ok(None),
        _ => Err(format!("{kind} {name:?} not found")),
    }
}

fn field_value(path: &str, facts: &Facts<'_>) -> Option<String> {
    let ip = |ip: Option<Ipv4Addr>| Some(ip.map(|ip| ip.to_string()).unwrap_or_default());
    let account = || facts.spec.service_account_name.clone().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let value = match map {
            "metadata.labels" => facts.pod.label(key),
            "metadata.annotations" => facts.pod.annotation(key),
            _ => return None,
        };
        return Some(value.unwrap_or_default().to_owned());
    }
    match path {
        "metadata.name" => Some(facts.pod.key.name.to_string()),
        "metadata.namespace" => Some(facts.pod.key.namespace.to_string()),
        "metadata.uid" => Some(facts.pod.uid.to_string()),
        "spec.nodeName" => Some(facts.node.to_owned()),
        "spec.serviceAccountName" => Some(account()),
        "status.podIP" | "status.podIPs" => ip(facts.pod_ip),
        "status.hostIP" | "status.hostIPs" => ip(facts.host_ip),
        _ => None,
    }
}

/// `$(NAME)` becomes the variable's value, if there is one; `$$` is a plain `$`; anything else
/// stays as it is (third_party/forked/golang/expansion).
pub fn expand<'a>(text: &str, look_up: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match look_up(name) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}
