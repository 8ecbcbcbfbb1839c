//! Certificates that the cluster's authority signs (RFC 5280). They are put together here, and not
//! by rcgen, whose names have one value an attribute: who is in two groups has two organizations.

use crate::seed::seed;
use rcgen::{KeyPair, SigningKey};
use std::time::Duration;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
#[cfg(feature = "node")]
use x509_cert::der::DecodePem;
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, OctetString, SetOfVec, UtcTime};
use x509_cert::der::flagset::FlagSet;
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{self, DateTime, Decode, Encode, EncodePem, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::{Name, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

pub const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
pub const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// What a key may be used for, as the API calls it (`keyUsageDict` in kubernetes
/// `pkg/controller/certificates/authority/policies.go`).
const USAGES: [(&str, KeyUsages); 10] = [
    ("signing", KeyUsages::DigitalSignature),
    ("digital signature", KeyUsages::DigitalSignature),
    ("content commitment", KeyUsages::NonRepudiation),
    ("key encipherment", KeyUsages::KeyEncipherment),
    ("key agreement", KeyUsages::KeyAgreement),
    ("data encipherment", KeyUsages::DataEncipherment),
    ("cert sign", KeyUsages::KeyCertSign),
    ("crl sign", KeyUsages::CRLSign),
    ("encipher only", KeyUsages::EncipherOnly),
    ("decipher only", KeyUsages::DecipherOnly),
];
/// The same of purposes (`extKeyUsageDict`), in the order in which Go writes them.
const PURPOSES: [(&str, &str); 13] = [
    ("any", "2.5.29.37.0"),
    ("server auth", "1.3.6.1.5.5.7.3.1"),
    ("client auth", "1.3.6.1.5.5.7.3.2"),
    ("code signing", "1.3.6.1.5.5.7.3.3"),
    ("email protection", "1.3.6.1.5.5.7.3.4"),
    ("s/mime", "1.3.6.1.5.5.7.3.4"),
    ("ipsec end system", "1.3.6.1.5.5.7.3.5"),
    ("ipsec tunnel", "1.3.6.1.5.5.7.3.6"),
    ("ipsec user", "1.3.6.1.5.5.7.3.7"),
    ("timestamping", "1.3.6.1.5.5.7.3.8"),
    ("ocsp signing", "1.3.6.1.5.5.7.3.9"),
    ("microsoft sgc", "1.3.6.1.4.1.311.10.3.3"),
    ("netscape sgc", "2.16.840.1.113730.4.1"),
];

/// What the authority vouches for.
pub struct Leaf {
    pub subject: Name,
    pub key: SubjectPublicKeyInfoOwned,
    /// As the API calls them: `client auth`.
    pub usages: Vec<String>,
    /// Where its bearer is, if that matters.
    pub names: GeneralNames,
    /// When it is good, since 1970; not beyond the authority's own end.
    pub from: Duration,
    pub to: Duration,
}

/// A certificate and its key: what it signs is the cluster's.
pub struct Authority {
    certificate: Certificate,
    key: KeyPair,
    algorithm: AlgorithmIdentifierOwned,
}

impl Authority {
    /// Of PEM texts; of several certificates, the first.
    pub fn new(certificate: &str, key: &str) -> Result<Authority, String> {
        let chain = Certificate::load_pem_chain(certificate.as_bytes());
        let chain = chain.map_err(|error| format!("reading its certificate: {error}"))?;
        let certificate = chain.into_iter().next().ok_or("its file has no certificate")?;
        let key = KeyPair::from_pem(key).map_err(|error| format!("reading its key: {error}"))?;
        let algorithm = algorithm(&key)?;
        Ok(Authority { certificate, key, algorithm })
    }

    /// A certificate for it, as PEM. Who may have one is decided before.
    pub fn issue(&self, leaf: Leaf) -> Result<String, String> {
        let end = self.end();
        if leaf.from >= end {
            return Err("the authority's certificate has expired".to_owned());
        }
        let to = leaf.to.min(end);
        let wrong = |error: der::Error| format!("writing a certificate: {error}");
        let body = self.body(Leaf { to, ..leaf })?;
        let signature = self.key.sign(&body.to_der().map_err(wrong)?);
        let signature = signature.map_err(|error| format!("signing a certificate: {error}"))?;
        let certificate = Certificate {
            tbs_certificate: body,
            signature_algorithm: self.algorithm.clone(),
            signature: BitString::from_bytes(&signature).map_err(wrong)?,
        };
        certificate.to_pem(LineEnding::LF).map_err(wrong)
    }

    /// When its own certificate ends, since 1970.
    pub fn end(&self) -> Duration {
        self.certificate.tbs_certificate.validity.not_after.to_unix_duration()
    }

    fn body(&self, leaf: Leaf) -> Result<TbsCertificate, String> {
        let (usages, purposes) = read(&leaf.usages)?;
        let wrong = |error: der::Error| format!("writing a certificate: {error}");
        let mut extensions = Vec::new();
        let mut add = |extension: der::Result<Extension>| {
            extension.map(|extension| extensions.push(extension)).map_err(wrong)
        };
        if !usages.is_empty() {
            add(extension(&KeyUsage(usages), true))?;
        }
        if !purposes.is_empty() {
            add(extension(&ExtendedKeyUsage(purposes), false))?;
        }
        add(extension(&BasicConstraints { ca: false, path_len_constraint: None }, true))?;
        let ours = self.certificate.tbs_certificate.get::<SubjectKeyIdentifier>();
        if let Some((_, SubjectKeyIdentifier(id))) = ours.map_err(wrong)? {
            let id = AuthorityKeyIdentifier { key_identifier: Some(id), ..Default::default() };
            add(extension(&id, false))?;
        }
        if !leaf.names.is_empty() {
            add(extension(&SubjectAltName(leaf.names), leaf.subject.is_empty()))?;
        }
        let validity = Validity {
            not_before: time(leaf.from).map_err(wrong)?,
            not_after: time(leaf.to).map_err(wrong)?,
        };
        let serial = [seed().to_be_bytes(), seed().to_be_bytes()].concat();
        Ok(TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&serial).map_err(wrong)?,
            signature: self.algorithm.clone(),
            issuer: self.certificate.tbs_certificate.subject.clone(),
            validity,
            subject: leaf.subject,
            subject_public_key_info: leaf.key,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        })
    }
}

/// What the key signs with.
fn algorithm(key: &KeyPair) -> Result<AlgorithmIdentifierOwned, String> {
    let known = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "1.2.840.10045.4.3.2"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "1.2.840.10045.4.3.3"),
        (&rcgen::PKCS_ED25519, "1.3.101.112"),
        (&rcgen::PKCS_RSA_SHA256, "1.2.840.113549.1.1.11"),
    ];
    let found = known.into_iter().find(|(algorithm, _)| key.is_compatible(algorithm));
    let (_, oid) = found.ok_or("its key is none of P-256, P-384, Ed25519 and RSA")?;
    // RFC 4055, section 5: RSA's parameters are NULL; the others' are absent.
    let parameters = oid.starts_with("1.2.840.113549").then(Any::null);
    Ok(AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap(oid), parameters })
}

/// The key's and the purposes' bits of usages.
fn read(usages: &[String]) -> Result<(FlagSet<KeyUsages>, Vec<ObjectIdentifier>), String> {
    let is_key = |usage: &&String| USAGES.iter().any(|(name, _)| name == usage);
    let is_purpose = |usage: &&String| PURPOSES.iter().any(|(name, _)| name == usage);
    let unknown = usages.iter().find(|usage| !is_key(usage) && !is_purpose(usage));
    if let Some(usage) = unknown {
        return Err(format!("unrecognized usage values: [{usage:?}]"));
    }
    let asked = |name: &str| usages.iter().any(|usage| usage == name);
    let mut key = FlagSet::default();
    for (_, bit) in USAGES.iter().filter(|(name, _)| asked(name)) {
        key |= *bit;
    }
    let purposes = PURPOSES.iter().filter(|(name, _)| asked(name));
    let mut purposes: Vec<_> = purposes.map(|(_, oid)| ObjectIdentifier::new_unwrap(oid)).collect();
    // Two of the names are of one.
    purposes.dedup();
    Ok((key, purposes))
}

fn extension<T: AssociatedOid + Encode>(value: &T, critical: bool) -> der::Result<Extension> {
    let extn_value = OctetString::new(value.to_der()?)?;
    Ok(Extension { extn_id: T::OID, critical, extn_value })
}

/// UTCTime to the end of 2049, GeneralizedTime after it (RFC 5280, section 4.1.2.5).
fn time(unix: Duration) -> der::Result<Time> {
    let date = DateTime::from_unix_duration(unix)?;
    if date.year() <= UtcTime::MAX_YEAR {
        return Ok(Time::UtcTime(UtcTime::from_date_time(date)?));
    }
    Ok(Time::GeneralTime(GeneralizedTime::from_date_time(date)))
}

/// A user's name: the groups are organizations.
pub fn user(name: &str, groups: &[&str]) -> Result<Name, String> {
    let text = |text: &str| Any::new(Tag::Utf8String, text.as_bytes());
    let groups = groups.iter().map(|group| text(group)).collect::<der::Result<_>>();
    let parts = groups.and_then(|groups| {
        let mut parts = vec![part(ORGANIZATION, groups)?, part(COMMON_NAME, vec![text(name)?])?];
        parts.retain(|part| !part.0.is_empty());
        Ok(parts)
    });
    Ok(parts.map_err(|error| format!("writing the name {name}: {error}"))?.into())
}

/// All values of one attribute, as Go writes a name (`ToRDNSequence` of crypto/x509/pkix).
pub fn part(oid: ObjectIdentifier, mut values: Vec<Any>) -> der::Result<RelativeDistinguishedName> {
    values.sort();
    values.dedup();
    let values = values.into_iter().map(|value| AttributeTypeAndValue { oid, value });
    Ok(RelativeDistinguishedName(SetOfVec::try_from(values.collect::<Vec<_>>())?))
}

/// From when to when a certificate is good, since 1970: the first of a PEM text, which may have
/// other things behind it.
#[cfg(feature = "node")]
pub fn validity(pem: &str) -> Result<(Duration, Duration), String> {
    const END: &str = "-----END CERTIFICATE-----";
    let first = pem.find(END).map_or(pem, |at| &pem[..at + END.len()]);
    let read = Certificate::from_pem(first);
    let read = read.map_err(|error| format!("reading a certificate: {error}"))?;
    let Validity { not_before, not_after } = read.tbs_certificate.validity;
    Ok((not_before.to_unix_duration(), not_after.to_unix_duration()))
}

/// The key of a pair.
pub fn public(pair: &KeyPair) -> Result<SubjectPublicKeyInfoOwned, String> {
    let der = rcgen::PublicKeyData::subject_public_key_info(pair);
    let read = SubjectPublicKeyInfoOwned::from_der(&der);
    read.map_err(|error| format!("reading a public key: {error}"))
}

/// A name in the DNS, or an address.
pub fn place(name: &str) -> Result<GeneralName, String> {
    if let Ok(address) = name.parse::<std::net::IpAddr>() {
        return Ok(GeneralName::from(address));
    }
    let dns = der::asn1::Ia5String::new(name).map(GeneralName::DnsName);
    dns.map_err(|error| format!("writing the name {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints as Limits, CertificateParams, IsCa};

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(Limits::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Authority::new(&certificate, &key.serialize_pem()).expect("an authority")
    }

    fn leaf(usages: &[&str]) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        Leaf {
            subject: user("jane", &["team", "ops", "team"]).expect("a name"),
            key: public(&key).expect("a key"),
            usages: usages.iter().map(|&usage| usage.to_owned()).collect(),
            names: Vec::new(),
            from: YEAR * 55,
            to: YEAR * 56,
        }
    }

    fn issued(authority: &Authority, leaf: Leaf) -> TbsCertificate {
        let pem = authority.issue(leaf).expect("a certificate");
        let read = Certificate::load_pem_chain(pem.as_bytes()).expect("PEM");
        read.into_iter().next().expect("one").tbs_certificate
    }

    #[test]
    fn a_user_may_be_in_several_groups() {
        let body = issued(&authority(), leaf(&["client auth"]));
        assert_eq!(body.subject.to_string(), "CN=jane,O=ops+O=team");
    }

    #[test]
    fn usages_are_the_certificates() {
        let body = issued(&authority(), leaf(&["s/mime", "digital signature", "email protection"]));
        let (critical, usage) = body.get::<KeyUsage>().expect("DER").expect("one");
        assert_eq!((critical, usage.0), (true, KeyUsages::DigitalSignature.into()));
        let (critical, purposes) = body.get::<ExtendedKeyUsage>().expect("DER").expect("one");
        let mail = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4");
        assert_eq!((critical, purposes.0), (false, vec![mail]));
        let refused = authority().issue(leaf(&["client auth", "flying"])).expect_err("none");
        assert_eq!(refused, "unrecognized usage values: [\"flying\"]");
    }

    #[cfg(feature = "node")]
    #[test]
    fn how_long_one_is_good_is_read_before_its_key() {
        let mut pem = authority().issue(leaf(&["client auth"])).expect("a certificate");
        pem += &KeyPair::generate().expect("a key").serialize_pem();
        assert_eq!(validity(&pem), Ok((YEAR * 55, YEAR * 56)));
        assert!(validity("").is_err());
    }

    #[test]
    fn none_outlives_its_authority() {
        let authority = authority();
        let body = issued(&authority, Leaf { to: YEAR * 200, ..leaf(&[]) });
        let end = authority.certificate.tbs_certificate.validity.not_after;
        assert_eq!(body.validity.not_after.to_unix_duration(), end.to_unix_duration());
        let late = Leaf { from: YEAR * 100, to: YEAR * 101, ..leaf(&[]) };
        assert_eq!(authority.issue(late), Err("the authority's certificate has expired".into()));
    }
}
