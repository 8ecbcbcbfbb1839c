//! What a request for a certificate asks for (PKCS #10), and what each signer signs (kubernetes
//! `pkg/apis/certificates/helpers.go`, `pkg/controller/certificates/signer/signer.go`).

use crate::certificate::{COMMON_NAME, ORGANIZATION, part};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use std::collections::BTreeSet;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::Any;
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, ExtensionReq};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Ours: what a node's network (netd, proxy, DNS) is known by. It sees all nodes, Services and
/// Subnets, which a node itself must not (KEP-4601), and writes one Subnet.
pub const NODE_NETWORK: &str = "net.kubesim.dev/node-network";

pub const NODES: &str = "system:nodes";
pub const NODE: &str = "system:node:";
const NETWORKS: &str = "system:kubesim-node-network";
const NETWORK: &str = "system:kubesim-netd:";

/// What Go reads of a name, in its order (`FillFromRDNSequence`, `ToRDNSequence`); of the last two
/// there is one each, the last that is given. So no other reader finds another user in it.
const READ: [&str; 9] = [
    "2.5.4.6", "2.5.4.10", "2.5.4.11", "2.5.4.7", "2.5.4.8", "2.5.4.9", "2.5.4.17", "2.5.4.3",
    "2.5.4.5",
];
const SINGLE: [&str; 2] = ["2.5.4.3", "2.5.4.5"];

/// A request, read. Its signature was verified when it was made, and it has not changed since.
#[derive(Debug)]
pub struct Asked {
    pub subject: Name,
    pub key: SubjectPublicKeyInfoOwned,
    pub names: GeneralNames,
}

impl Asked {
    /// Of PEM in base64, as `spec.request` has it.
    pub fn read(request: &str) -> Result<Asked, String> {
        let pem = BASE64.decode(request).map_err(|error| error.to_string())?;
        let der = CertificateSigningRequestDer::from_pem_slice(&pem)
            .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        Asked::of(&der).map_err(|error| error.to_string())
    }

    fn of(der: &[u8]) -> der::Result<Asked> {
        let info = CertReq::from_der(der)?.info;
        let mut names = Vec::new();
        for attribute in info.attributes.iter().filter(|one| one.oid == ExtensionReq::OID) {
            for value in attribute.values.iter() {
                let ExtensionReq(extensions) = value.decode_as()?;
                for one in extensions.iter().filter(|one| one.extn_id == SubjectAltName::OID) {
                    let SubjectAltName(all) = SubjectAltName::from_der(one.extn_value.as_bytes())?;
                    // Of other sorts Go knows none.
                    names.extend(all.into_iter().filter(|name| sort(name).is_some()));
                }
            }
        }
        Ok(Asked { subject: rewritten(&info.subject)?, key: info.public_key, names })
    }

    pub fn common_name(&self) -> &str {
        self.values(COMMON_NAME).last().unwrap_or_default()
    }

    fn values(&self, oid: ObjectIdentifier) -> impl Iterator<Item = &str> {
        let all = attributes(&self.subject).filter(move |one| one.oid == oid);
        all.filter_map(|one| std::str::from_utf8(one.value.value()).ok())
    }

    fn has(&self, wanted: Sort) -> bool {
        self.names.iter().any(|name| sort(name) == Some(wanted))
    }

    /// What is wrong with it for this signer, in upstream's words. `None` if we sign for none such.
    pub fn checked(&self, signer: &str, usages: &[String]) -> Option<Result<(), String>> {
        let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
        Some(match signer {
            CLIENT => client_usages(&usages),
            KUBELET_CLIENT => self.kubelet_client(&usages).map_err(str::to_owned),
            KUBELET_SERVING => self.kubelet_serving(&usages).map_err(str::to_owned),
            NODE_NETWORK => self.node_network(&usages).map_err(str::to_owned),
            _ => return None,
        })
    }

    fn kubelet_client(&self, usages: &BTreeSet<&str>) -> Result<(), &'static str> {
        self.is_of_nodes()?;
        let refused = [
            (Sort::Dns, "DNS subjectAltNames are not allowed"),
            (Sort::Email, "Email subjectAltNames are not allowed"),
            (Sort::Ip, "IP subjectAltNames are not allowed"),
            (Sort::Uri, "URI subjectAltNames are not allowed"),
        ];
        if let Some((_, why)) = refused.into_iter().find(|(sort, _)| self.has(*sort)) {
            return Err(why);
        }
        self.is_a_node()?;
        if !are_with(usages, "client auth") {
            return Err("usages did not match [client auth digital signature key encipherment]");
        }
        Ok(())
    }

    fn kubelet_serving(&self, usages: &BTreeSet<&str>) -> Result<(), &'static str> {
        self.is_of_nodes()?;
        if !self.has(Sort::Dns) && !self.has(Sort::Ip) {
            return Err("DNS or IP subjectAltName is required");
        }
        if self.has(Sort::Email) {
            return Err("Email subjectAltNames are not allowed");
        }
        if self.has(Sort::Uri) {
            return Err("URI subjectAltNames are not allowed");
        }
        if !are_with(usages, "server auth") {
            return Err("usages did not match [digital signature key encipherment server auth]");
        }
        self.is_a_node()
    }

    fn node_network(&self, usages: &BTreeSet<&str>) -> Result<(), &'static str> {
        if !self.is_only_of(NETWORKS) {
            return Err("subject organization is not system:kubesim-node-network");
        }
        if !self.names.is_empty() {
            return Err("subjectAltNames are not allowed");
        }
        if self.network_of().is_none() {
            return Err("subject common name does not begin with system:kubesim-netd:");
        }
        if !are_with(usages, "client auth") {
            return Err("usages did not match [client auth digital signature key encipherment]");
        }
        Ok(())
    }

    /// Whose network asks to be known.
    pub fn network_of(&self) -> Option<&str> {
        self.common_name().strip_prefix(NETWORK).filter(|node| !node.is_empty())
    }

    fn is_only_of(&self, group: &str) -> bool {
        let all = attributes(&self.subject).filter(|one| one.oid == ORGANIZATION).count();
        all == 1 && self.values(ORGANIZATION).eq([group])
    }

    fn is_of_nodes(&self) -> Result<(), &'static str> {
        self.is_only_of(NODES).then_some(()).ok_or("subject organization is not system:nodes")
    }

    fn is_a_node(&self) -> Result<(), &'static str> {
        let good = self.common_name().starts_with(NODE);
        good.then_some(()).ok_or("subject common name does not begin with system:node:")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Dns,
    Email,
    Ip,
    Uri,
}

fn sort(name: &GeneralName) -> Option<Sort> {
    match name {
        GeneralName::DnsName(_) => Some(Sort::Dns),
        GeneralName::Rfc822Name(_) => Some(Sort::Email),
        GeneralName::IpAddress(_) => Some(Sort::Ip),
        GeneralName::UniformResourceIdentifier(_) => Some(Sort::Uri),
        _ => None,
    }
}

/// These, and key encipherment or not: RSA keys have a use for it.
fn are_with(usages: &BTreeSet<&str>, auth: &str) -> bool {
    let others = usages.iter().filter(|usage| **usage != "key encipherment");
    others.eq(BTreeSet::from(["digital signature", auth]).iter())
}

fn client_usages(usages: &BTreeSet<&str>) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages.iter().find(|usage| !known.contains(usage)) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    if !usages.contains("client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}

fn attributes(name: &Name) -> impl Iterator<Item = &AttributeTypeAndValue> {
    name.0.iter().flat_map(|part| part.0.iter())
}

fn rewritten(name: &Name) -> der::Result<Name> {
    let mut parts = Vec::new();
    for oid in READ {
        let oid_read = ObjectIdentifier::new_unwrap(oid);
        let values = attributes(name).filter(|one| one.oid == oid_read);
        let mut values: Vec<Any> = values.map(|one| one.value.clone()).collect();
        if SINGLE.contains(&oid) {
            values.drain(..values.len().saturating_sub(1));
        }
        if !values.is_empty() {
            parts.push(part(oid_read, values)?);
        }
    }
    Ok(parts.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::user;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn asked(user: &str, group: &str, names: &[SanType]) -> Asked {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).and_then(|made| made.pem()).expect("a request");
        Asked::read(&BASE64.encode(pem)).expect("it reads")
    }

    fn node(names: &[SanType]) -> Asked {
        asked("system:node:n1", NODES, names)
    }

    fn checked(asked: &Asked, signer: &str, usages: &[&str]) -> Option<Result<(), String>> {
        let usages: Vec<String> = usages.iter().map(|&usage| usage.to_owned()).collect();
        asked.checked(signer, &usages)
    }

    #[track_caller]
    fn refused(asked: &Asked, signer: &str, usages: &[&str], why: &str) {
        assert_eq!(checked(asked, signer, usages), Some(Err(why.to_owned())));
    }

    const BOTH: &[&str] = &["digital signature", "client auth"];
    const SERVES: &[&str] = &["key encipherment", "digital signature", "server auth"];

    #[test]
    fn of_clients_only_the_usages_matter() {
        let jane = asked("jane", "team", &[]);
        assert_eq!(checked(&jane, CLIENT, BOTH), Some(Ok(())));
        assert_eq!(checked(&jane, CLIENT, &["client auth"]), Some(Ok(())));
        let other = ["client auth", "server auth"];
        refused(&jane, CLIENT, &other, "invalid usage for client certificate: server auth");
        let missing = "missing required usage for client certificate: client auth";
        refused(&jane, CLIENT, &["digital signature"], missing);
        assert_eq!(checked(&jane, "example.com/a", BOTH), None);
        assert_eq!(checked(&jane, "kubernetes.io/legacy-unknown", BOTH), None);
    }

    #[test]
    fn a_kubelets_client_certificate_names_a_node_and_no_place() {
        assert_eq!(checked(&node(&[]), KUBELET_CLIENT, BOTH), Some(Ok(())));
        let jane = asked("jane", NODES, &[]);
        let why = "subject common name does not begin with system:node:";
        refused(&jane, KUBELET_CLIENT, BOTH, why);
        let jane = asked("system:node:n1", "team", &[]);
        refused(&jane, KUBELET_CLIENT, BOTH, "subject organization is not system:nodes");
        let placed = node(&[SanType::IpAddress([10, 0, 0, 1].into())]);
        refused(&placed, KUBELET_CLIENT, BOTH, "IP subjectAltNames are not allowed");
        let why = "usages did not match [client auth digital signature key encipherment]";
        refused(&node(&[]), KUBELET_CLIENT, SERVES, why);
    }

    #[test]
    fn a_kubelets_serving_certificate_says_where_it_is() {
        let placed = node(&[SanType::IpAddress([10, 0, 0, 1].into())]);
        assert_eq!(checked(&placed, KUBELET_SERVING, SERVES), Some(Ok(())));
        let why = "DNS or IP subjectAltName is required";
        refused(&node(&[]), KUBELET_SERVING, SERVES, why);
        let why = "usages did not match [digital signature key encipherment server auth]";
        refused(&placed, KUBELET_SERVING, BOTH, why);
    }

    #[test]
    fn of_two_common_names_the_last_is_the_user() {
        let mut name = user("admin", &["b", "a"]).expect("a name");
        name.0.extend(user("system:node:n1", &[]).expect("a name").0);
        let rewritten = rewritten(&name).expect("a name");
        assert_eq!(rewritten.to_string(), "CN=system:node:n1,O=a+O=b");
    }

    #[test]
    fn what_is_no_request_is_told() {
        let told = Asked::read(&BASE64.encode("no PEM")).expect_err("it is none");
        assert_eq!(told, "PEM block type must be CERTIFICATE REQUEST");
    }
}
