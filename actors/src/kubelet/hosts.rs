//! What a pod is called, and its /etc/hosts (`GeneratePodHostNameAndDomain`,
//! `nodeHostsFileContent` and `managedHostsFileContent` of pkg/kubelet/kubelet_pods.go).

use super::local::Local;
use super::pod::Pod;
use crate::objects::PodSpec;
use crate::ports::container::Hosts;
use k8s_openapi::api::core::v1::{Container, HostAlias};
use smol_str::SmolStr;
use std::sync::Arc;

const PATH: &str = "/etc/hosts";

/// Labels of DNS are no longer (RFC 1035, 2.3.4).
const LONGEST_LABEL: usize = 63;
/// `__NEW_UTS_LEN` of include/uapi/linux/utsname.h: the longest name that a kernel takes.
const LONGEST_NAME: usize = 64;

const OWN: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";
const MACHINES: &str = "# Kubernetes-managed hosts file (host network).\n";

impl Pod {
    /// `spec.hostname`, or the pod's name up to 63 characters.
    fn label(&self, spec: &PodSpec) -> SmolStr {
        let given = spec.hostname.as_deref().filter(|name| !name.is_empty());
        let name = given.unwrap_or(&self.object.key.name);
        let cut: String = name.chars().take(LONGEST_LABEL).collect();
        SmolStr::from(cut.trim_end_matches(['-', '.']))
    }

    /// Of a pod with a subdomain: the names of its headless Service.
    fn domain(&self, spec: &PodSpec, cluster: &str) -> Option<String> {
        let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
        Some(format!("{subdomain}.{}.svc.{cluster}", self.object.key.namespace))
    }

    /// What its kernel calls it: the node's name if it is on the node's network. The error is for
    /// people (`GetNodenameForKernel`, pkg/kubelet/util/util.go).
    pub fn hostname(&self, spec: &PodSpec, k: &Local) -> Result<SmolStr, String> {
        if self.host_network() {
            return Ok(SmolStr::from(&*k.config.node));
        }
        let label = self.label(spec);
        let whole = spec.set_hostname_as_fqdn == Some(true);
        let Some(domain) = self.domain(spec, &k.config.cluster_domain).filter(|_| whole) else {
            return Ok(label);
        };
        let name = format!("{label}.{domain}");
        if name.len() > LONGEST_NAME {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is \
                 too long ({LONGEST_NAME} characters is the max, {} characters requested)",
                name.len()
            ));
        }
        Ok(SmolStr::from(name))
    }

    /// `None` for a container that mounts something there itself, and while the pod has no address.
    pub fn hosts(&self, container: &Container, spec: &PodSpec, k: &Local) -> Option<Hosts> {
        let mut mounts = container.volume_mounts.iter().flatten();
        if mounts.any(|mount| mount.mount_path == PATH) {
            return None;
        }
        let aliases = aliases(spec.host_aliases.as_deref().unwrap_or_default());
        if self.host_network() {
            let (head, tail) = (Arc::from(MACHINES), aliases.into());
            return Some(Hosts { head, machines: true, tail });
        }
        let (ip, label) = (self.ip?, self.label(spec));
        let names = match self.domain(spec, &k.config.cluster_domain) {
            Some(domain) => format!("{label}.{domain}\t{label}"),
            None => label.to_string(),
        };
        let head = format!("{OWN}{ip}\t{names}\n{aliases}").into();
        Some(Hosts { head, machines: false, tail: Arc::from("") })
    }
}

fn aliases(all: &[HostAlias]) -> String {
    let mut text = String::new();
    for alias in all {
        if text.is_empty() {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}
