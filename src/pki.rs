//! The cluster's authority and what it vouches for, and the keys of service accounts' tokens. These
//! are made once; the server's certificate and the administrator's are made anew at each start, so
//! that they name the addresses that there are, and again before they end.

use crate::certificate::{self, Authority, Leaf};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
#[cfg(feature = "lab")]
use std::net::SocketAddrV4;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
#[cfg(feature = "server")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_cert::ext::pkix::name::GeneralNames;
use x509_cert::name::Name;

/// The administrator, who may everything (kubeadm's names).
pub const ADMIN: &str = "kubernetes-admin";
pub const MASTERS: &str = "system:masters";

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority is good for, and what it signs (kubeadm's: ten years and one).
const AUTHORITY: Duration = Duration::from_secs(3650 * 86_400);
pub const LEAF: Duration = Duration::from_secs(365 * 86_400);

/// What is in the directory and cannot be made again.
#[cfg(feature = "server")]
pub const KEPT: [&str; 3] = ["ca.crt", "ca.key", TOKENS];
const TOKENS: &str = "sa.key";

pub struct Pki {
    /// As PEM.
    pub authority: String,
    /// The authority with its key.
    pub signs: Arc<Authority>,
    /// What the tokens of service accounts are signed by, as PEM: the first key signs, and tokens
    /// of those behind it are good.
    pub token_key: String,
    /// Where the server is.
    addresses: Vec<Ipv4Addr>,
    /// How long what it makes is good for.
    life: Duration,
}

impl Pki {
    /// Reads the authority in this directory, or makes it there. The server is at these addresses,
    /// and what is made for it and its clients is good for so long.
    pub fn open(place: &Path, addresses: &[Ipv4Addr], life: Duration) -> Result<Pki, String> {
        directory(place)?;
        // Of several servers that start together, one makes what is not there.
        let _mine = lock(place)?;
        let (authority, key) = authority(place)?;
        let wrong = |error: String| {
            let place = place.display();
            format!(
                "using the authority in {place}: {error}; with both of its files removed, a \
                     new one is made, which no former client knows"
            )
        };
        let signs = Authority::new(&authority, &key).map_err(wrong)?;
        let token_key = token_key(place)?;
        let (signs, addresses) = (Arc::new(signs), addresses.to_owned());
        Ok(Pki { authority, signs, token_key, addresses, life })
    }

    /// How long a certificate that is made now lasts; the time is since 1970.
    #[cfg(feature = "server")]
    pub fn lasts(&self, now: Duration) -> Duration {
        self.life.min(self.signs.end().saturating_sub(now))
    }

    /// A certificate for the server with the authority's behind it, by which machines that join
    /// know it, and its key.
    pub fn server(&self) -> Result<(String, String), String> {
        let wrong = |error: String| format!("making the server's certificate: {error}");
        let names = names(&self.addresses).map_err(wrong)?;
        let subject = certificate::user("kube-apiserver", &[]).map_err(wrong)?;
        let (own, key) = self.issue(subject, "server auth", names).map_err(wrong)?;
        Ok((own + &self.authority, key))
    }

    /// Writes the administrator's kubeconfig, with a certificate of its own.
    pub fn admin(&self, path: &Path, url: &str) -> Result<(), String> {
        let (certificate, key) = self.client(ADMIN, &[MASTERS])?;
        let [authority, certificate, key] =
            [&self.authority, &certificate, &key].map(|pem| BASE64.encode(pem));
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: kubesim\n  cluster:\n    \
             server: {url}\n    certificate-authority-data: {authority}\nusers:\n\
             - name: kubernetes-admin\n  user:\n    client-certificate-data: {certificate}\n    \
             client-key-data: {key}\ncontexts:\n- name: kubernetes-admin@kubesim\n  context:\n    \
             cluster: kubesim\n    user: kubernetes-admin\n\
             current-context: kubernetes-admin@kubesim\n"
        );
        write(path, &text)
    }

    /// A certificate for a client, and its key.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<(String, String), String> {
        let wrong = |error: String| format!("making the certificate of {user}: {error}");
        let subject = certificate::user(user, groups).map_err(wrong)?;
        self.issue(subject, "client auth", Vec::new()).map_err(wrong)
    }

    /// A certificate with a key of its own, and that key.
    fn issue(
        &self,
        subject: Name,
        usage: &str,
        names: GeneralNames,
    ) -> Result<(String, String), String> {
        let pair = KeyPair::generate().map_err(|error| format!("making a key: {error}"))?;
        let usages = vec!["digital signature".to_owned(), usage.to_owned()];
        let (from, to) = lasting(self.life);
        let key = certificate::public(&pair)?;
        let certificate = self.signs.issue(Leaf { subject, key, usages, names, from, to })?;
        Ok((certificate, pair.serialize_pem()))
    }
}

/// Where a server is, by a kubeconfig of [`Pki::admin`]'s.
#[cfg(feature = "lab")]
pub fn server_of(kubeconfig: &str) -> Option<SocketAddrV4> {
    let server = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("server: https://"));
    server?.parse().ok()
}

/// The authority whose keys are in this directory, as PEM.
#[cfg(feature = "lab")]
pub fn authority_in(place: &Path) -> Option<String> {
    fs::read_to_string(place.join("ca.crt")).ok()
}

/// Whether a kubeconfig of [`Pki::admin`]'s is of the cluster with this authority.
#[cfg(feature = "lab")]
pub fn trusts(kubeconfig: &str, authority: &str) -> bool {
    let key = "certificate-authority-data: ";
    let data = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(key));
    data == Some(BASE64.encode(authority).as_str())
}

/// One for its owner alone.
pub fn directory(place: &Path) -> Result<(), String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(place);
    made.map_err(|error| {
        let place = place.display();
        format!("making the directory {place}: {error}; --data-dir names another place")
    })
}

/// Held until it is dropped.
fn lock(place: &Path) -> Result<File, String> {
    let path = place.join("lock");
    let open = || -> io::Result<File> {
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|error| format!("locking {}: {error}", path.display()))
}

/// Its certificate and key.
fn authority(place: &Path) -> Result<(String, String), String> {
    let (certificate, key) = (place.join("ca.crt"), place.join("ca.key"));
    if certificate.exists() {
        return Ok((read(&certificate)?, read(&key)?));
    }
    let wrong = |error: rcgen::Error| format!("making the cluster's authority: {error}");
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(wrong)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kubernetes-ca");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let (from, to) = lasting(AUTHORITY);
    let epoch = date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + from, epoch + to);
    let pair = KeyPair::generate().map_err(wrong)?;
    let made = params.self_signed(&pair).map_err(wrong)?.pem();
    // The certificate is last: where it is, the key is.
    write(&key, &pair.serialize_pem())?;
    write(&certificate, &made)?;
    Ok((made, pair.serialize_pem()))
}

/// Where the keys of tokens are, called as kubeadm's.
#[cfg(feature = "server")]
pub fn token_file(place: &Path) -> PathBuf {
    place.join(TOKENS)
}

/// Made once, as tokens are good as long as it is there.
fn token_key(place: &Path) -> Result<String, String> {
    let path = place.join(TOKENS);
    if path.exists() {
        return read(&path);
    }
    let made = KeyPair::generate()
        .map_err(|error| format!("making the key of service accounts' tokens: {error}"))?;
    write(&path, &made.serialize_pem())?;
    Ok(made.serialize_pem())
}

fn names(addresses: &[Ipv4Addr]) -> Result<GeneralNames, String> {
    let mut names: Vec<String> = ["localhost", "kubernetes", "kubernetes.default"]
        .into_iter()
        .chain(["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"])
        .map(str::to_owned)
        .collect();
    names.push(Ipv4Addr::LOCALHOST.to_string());
    names.extend(addresses.iter().map(Ipv4Addr::to_string));
    names.sort();
    names.dedup();
    names.iter().map(|name| certificate::place(name)).collect()
}

/// From a day ago, for clients whose clock is behind; both since 1970.
fn lasting(time: Duration) -> (Duration, Duration) {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (unix.saturating_sub(DAY), unix + time)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
}

/// A file that is whole or as it was, for its owner alone.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| format!("writing {}: {error}", path.display()))
}
