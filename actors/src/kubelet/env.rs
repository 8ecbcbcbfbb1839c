//! A container's environment: the services of its namespace, then its own variables with
//! `$(NAME)` references resolved.

use super::Config;
use super::supplies::{self, Data, Lack, Objects};
use crate::objects::{Key, Kind, Object, PodSpec, ServiceSpec, View};
use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar};
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

/// What a container may learn of its pod (`fieldRef`) and its node.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub pod: &'a Object,
    pub spec: &'a PodSpec,
    pub pod_ip: Option<Ipv4Addr>,
    pub host_ip: Option<Ipv4Addr>,
    pub node: &'a str,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

impl<'a> Facts<'a> {
    /// Without addresses.
    pub fn of(pod: &'a Object, spec: &'a PodSpec, config: &'a Config) -> Facts<'a> {
        Facts {
            pod,
            spec,
            pod_ip: None,
            host_ip: None,
            node: &config.node,
            cpu_millis: config.cpu_millis,
            memory_bytes: config.memory_bytes,
        }
    }
}

/// A container's own variables.
#[derive(Debug)]
pub struct Made {
    pub variables: Vec<(String, String)>,
    /// What an environment cannot hold (environ(7)), by where it was to come from.
    pub skipped: Vec<Skipped>,
}

#[derive(Debug)]
pub struct Skipped {
    pub kind: Kind,
    pub name: String,
    pub keys: Vec<String>,
}

/// The container's own variables: those of whole objects, then each in its order. What is wrong is
/// said as the `CreateContainerConfigError` of upstream does (`makeEnvironmentVariables`,
/// pkg/kubelet/kubelet_pods.go).
pub fn own_variables(
    container: &Container,
    services: &[(String, String)],
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Made, Lack> {
    let mut made = Made { variables: Vec::new(), skipped: Vec::new() };
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        add_all(source, facts, objects, &mut known, &mut made.skipped)?;
    }
    made.variables = known.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    for variable in container.env.iter().flatten() {
        let look_up = |name: &str| {
            let inherited = || services.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
            known.get(name).map(String::as_str).or_else(inherited)
        };
        let Some(value) = value_of(variable, look_up, container, facts, objects)? else {
            continue;
        };
        known.insert(variable.name.clone(), value.clone());
        made.variables.retain(|(name, _)| *name != variable.name);
        made.variables.push((variable.name.clone(), value));
    }
    Ok(made)
}

/// All of one object (`envFrom`). Later ones override.
fn add_all(
    source: &EnvFromSource,
    facts: &Facts<'_>,
    objects: &Objects,
    known: &mut BTreeMap<String, String>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), Lack> {
    let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
        (Some(map), _) => (Kind::ConfigMap, &map.name, map.optional),
        (_, Some(secret)) => (Kind::Secret, &secret.name, secret.optional),
        _ => return Ok(()),
    };
    let Some(found) = find(kind, name, optional, facts, objects)? else { return Ok(()) };
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut keys = Vec::new();
    for (key, value) in &found.data {
        let variable = format!("{prefix}{key}");
        match variable.is_empty() || variable.contains(['=', '\0']) {
            true => keys.push(variable),
            false => {
                known.insert(variable, text(value));
            }
        }
    }
    if !keys.is_empty() {
        skipped.push(Skipped { kind, name: name.clone(), keys });
    }
    Ok(())
}

/// `None`: there is no such object, and need not be.
fn find(
    kind: Kind,
    name: &str,
    optional: Option<bool>,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Option<Arc<Data>>, Lack> {
    let key = Key::new(facts.pod.key.namespace.clone(), name);
    objects.get(kind, &key, optional == Some(true))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `None`: an optional source that is not there.
fn value_of<'a>(
    variable: &EnvVar,
    look_up: impl Fn(&str) -> Option<&'a str>,
    container: &Container,
    facts: &Facts<'_>,
    objects: &Objects,
) -> Result<Option<String>, Lack> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), look_up)));
    };
    if let Some(field) = &source.field_ref {
        let value = field_value(&field.field_path, facts);
        let value = value.ok_or_else(|| supplies::unsupported(&field.field_path));
        return value.map(Some).map_err(Lack::Wrong);
    }
    if let Some(field) = &source.resource_field_ref {
        return supplies::resource(field, Some(container), facts).map(Some).map_err(Lack::Wrong);
    }
    let (kind, name, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(of), _) => (Kind::ConfigMap, &of.name, &of.key, of.optional),
        (_, Some(of)) => (Kind::Secret, &of.name, &of.key, of.optional),
        _ => {
            let name = &variable.name;
            return Err(Lack::Wrong(format!("variable {name:?} has a source of no known kind")));
        }
    };
    let Some(found) = find(kind, name, optional, facts, objects)? else { return Ok(None) };
    match found.data.get(key) {
        Some(value) => Ok(Some(text(value))),
        None if optional == Some(true) => Ok(None),
        None => {
            let namespace = &facts.pod.key.namespace;
            Err(Lack::Wrong(format!("couldn't find key {key} in {kind} {namespace}/{name}")))
        }
    }
}

/// A field of a pod as text; `None` if it has no such one.
pub fn field_value(path: &str, facts: &Facts<'_>) -> Option<String> {
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
