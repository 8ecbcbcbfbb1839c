//! Certificates that are asked for with `kubectl`, approved, signed and used.

use super::plane::{each, until};
use crate::world::{Place, Server};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, BitString, ObjectIdentifier, SetOfVec};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, EncodePem, Tag};
use x509_cert::name::{Name, RelativeDistinguishedName};
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// A request as PEM, as openssl makes it of `/O=…/O=…/CN=…`: one part of the name for each.
pub(super) fn request(key: &KeyPair, user: &str, groups: &[&str]) -> String {
    let part = |oid: &str, text: &str| {
        let value = Any::new(Tag::Utf8String, text.as_bytes()).expect("a text");
        let one = AttributeTypeAndValue { oid: ObjectIdentifier::new_unwrap(oid), value };
        RelativeDistinguishedName(SetOfVec::try_from([one]).expect("a set"))
    };
    let mut subject: Vec<_> = groups.iter().map(|group| part(ORGANIZATION, group)).collect();
    subject.push(part(COMMON_NAME, user));
    let public = key.subject_public_key_info();
    let info = CertReqInfo {
        version: Version::V1,
        subject: Name::from(subject),
        public_key: SubjectPublicKeyInfoOwned::from_der(&public).expect("a key"),
        attributes: SetOfVec::default(),
    };
    let signature = key.sign(&info.to_der().expect("DER")).expect("a signature");
    let oid = ObjectIdentifier::new_unwrap(ECDSA_WITH_SHA256);
    let signed = CertReq {
        info,
        algorithm: AlgorithmIdentifierOwned { oid, parameters: None },
        signature: BitString::from_bytes(&signature).expect("bits"),
    };
    signed.to_pem(LineEnding::LF).expect("PEM")
}

/// The object that asks for a certificate.
pub(super) fn asked(name: &str, (signer, usages): (&str, &[&str]), pem: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": BASE64_STANDARD.encode(pem), "usages": usages,
                 "signerName": format!("kubernetes.io/{signer}"), "expirationSeconds": 86_400},
    })
}

fn ask(server: &Server, (name, signer, usages): (&str, &str, &[&str]), pem: &str, words: &str) {
    let object = asked(name, (signer, usages), pem);
    server.with(&format!("create -f - {words}"), &object.to_string());
}

fn of(server: &Server, name: &str, path: &str) -> String {
    server.kubectl(&format!("get csr {name} -o jsonpath={path}"))
}

const CERTIFICATE: &str = "{.status.certificate}";
const REASONS: &str = "{.status.conditions[*].reason}";

#[test]
fn a_certificate_that_is_approved_makes_a_user_of_two_groups() {
    each(&[], |server| {
        let key = KeyPair::generate().expect("a key");
        let pem = request(&key, "jane", &["ops", "team"]);
        ask(server, ("jane", "kube-apiserver-client", &["client auth"]), &pem, "");
        assert!(server.kubectl("get csr jane").contains("Pending"));
        let approved = server.kubectl("certificate approve jane");
        assert_eq!(approved, "certificatesigningrequest.certificates.k8s.io/jane approved\n");
        until("a certificate", || !of(server, "jane", CERTIFICATE).is_empty());
        assert!(server.kubectl("get csr jane").contains("Approved,Issued"));

        let place = Place::new();
        let file = |name: &str, bytes: &[u8]| -> PathBuf {
            let path = place.0.join(name);
            fs::write(&path, bytes).expect("a file");
            path
        };
        let certificate = BASE64_STANDARD.decode(of(server, "jane", CERTIFICATE)).expect("base64");
        let certificate = file("jane.crt", &certificate);
        let key = file("jane.key", key.serialize_pem().as_bytes());
        let authority = server.kubectl(
            "config view --raw -o jsonpath={.clusters[0].cluster.certificate-authority-data}",
        );
        let authority = file("ca.crt", &BASE64_STANDARD.decode(authority).expect("base64"));
        let jane = |words: &str| {
            let files = [("--client-certificate", &certificate), ("--client-key", &key)];
            let files = files.into_iter().chain([("--certificate-authority", &authority)]);
            let mut all = vec!["--kubeconfig", "/dev/null", "--server", &server.url];
            all.extend(files.flat_map(|(flag, path)| [flag, path.to_str().expect("UTF-8")]));
            all.extend(words.split_whitespace());
            let out = server.run(&all, "");
            String::from_utf8([out.stdout, out.stderr].concat()).expect("UTF-8")
        };
        let refused = jane("get pods");
        assert!(refused.contains("User \"jane\" cannot list resource \"pods\""), "{refused}");
        for (group, resource) in [("ops", "pods"), ("team", "secrets")] {
            server.kubectl(&format!("create role {group} --verb=list --resource={resource}"));
            server.kubectl(&format!("create rolebinding {group} --role={group} --group={group}"));
            assert_eq!(jane(&format!("get {resource} -o name")), "", "by {group}");
        }
    });
}

#[test]
fn what_a_signer_does_not_sign_fails() {
    each(&[], |server| {
        let pem = request(&KeyPair::generate().expect("a key"), "jane", &[]);
        ask(server, ("bad", "kube-apiserver-client", &["server auth"]), &pem, "");
        server.kubectl("certificate approve bad");
        until("it fails", || of(server, "bad", REASONS).contains("SignerValidationFailure"));
        let why = of(server, "bad", "{.status.conditions[?(@.type==\"Failed\")].message}");
        assert_eq!(why, "invalid usage for client certificate: server auth");
        ask(server, ("no", "kube-apiserver-client", &["client auth"]), &pem, "");
        server.kubectl("certificate deny no");
        ask(server, ("yes", "kube-apiserver-client", &["client auth"]), &pem, "");
        server.kubectl("certificate approve yes");
        until("a certificate", || !of(server, "yes", CERTIFICATE).is_empty());
        assert_eq!(of(server, "no", CERTIFICATE), "");
        assert_eq!(of(server, "bad", CERTIFICATE), "");
    });
}

#[test]
fn a_kubelets_request_is_approved_if_who_asks_may() {
    each(&[], |server| {
        let usages: &[&str] = &["digital signature", "client auth"];
        let pem =
            request(&KeyPair::generate().expect("a key"), "system:node:n1", &["system:nodes"]);
        let may = |role: &str| {
            let name = role.rsplit(':').next().unwrap_or_default();
            let words = format!("create clusterrolebinding {name} --clusterrole={role}");
            server.kubectl(&format!("{words} --user=boot"));
        };
        may("system:node-bootstrapper");
        let signer = "kube-apiserver-client-kubelet";
        ask(server, ("before", signer, usages), &pem, "--as boot");
        may("system:certificates.k8s.io:certificatesigningrequests:nodeclient");
        ask(server, ("after", signer, usages), &pem, "--as boot");
        // The first one is tried again, and then granted as well.
        for name in ["after", "before"] {
            until(name, || !of(server, name, CERTIFICATE).is_empty());
            assert_eq!(of(server, name, REASONS), "AutoApproved", "{name}");
        }
    });
}
