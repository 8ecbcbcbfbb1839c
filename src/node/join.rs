//! How a machine becomes known to a cluster: with a bootstrap token it asks for a kubelet's
//! certificate (kubernetes `pkg/kubelet/certificate/bootstrap/bootstrap.go`), and with that for one
//! of its network. Both are kept, so that a token is needed once.

use super::{Exit, Failed};
use crate::certificate::validity;
use crate::pki;
use crate::seed::seed;
use crate::server::clients::Who;
use crate::server::renew::now;
use crate::token::Token;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubesim_backends::http::client::{Client, Credentials, Options, Pin};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep};
use x509_cert::der::pem::{LineEnding, encode_string};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const NETWORK: &str = "net.kubesim.dev/node-network";
/// How often it is looked for the certificate, and when people are told what it waits for.
const LOOK: Duration = Duration::from_millis(300);
const TELL: Duration = Duration::from_secs(5);
const UNKNOWN: &str = "this machine has not joined the cluster, or long ago: --token gives the \
     word that its server says other machines join by (`token` in the server's data directory)";
/// A node that lives renews its lease every 10 s.
const LIVES: Duration = Duration::from_secs(15);

/// Who joins, and what.
pub struct Joining {
    pub name: String,
    pub server: SocketAddrV4,
    /// The directory where it is kept what the node is known by.
    pub keys: PathBuf,
}

/// What the node is known by.
#[derive(Clone)]
pub struct Joined {
    pub kubelet: Credentials,
    pub network: Credentials,
}

/// Who a node is: its kubelet, and its network, which sees all nodes as no kubelet may (KEP-4601).
pub fn identities(name: &str) -> [Who; 2] {
    [
        Who {
            agent: "kubelet",
            user: format!("system:node:{name}").into(),
            groups: &["system:nodes"],
        },
        Who {
            agent: "kubesim-netd",
            user: format!("system:kubesim-netd:{name}").into(),
            groups: &["system:kubesim-node-network"],
        },
    ]
}

/// A certificate that makes its bearer somebody.
pub struct Wanted {
    file: &'static str,
    signer: &'static str,
    who: Who,
}

impl Joining {
    /// What is not known yet is asked for; `tell` is told in words what that waits for.
    pub async fn join(
        &self,
        token: Option<&Token>,
        ca_file: Option<&Path>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Joined, Failed> {
        let environment = |why| (Exit::Environment, why);
        pki::directory(&self.keys).map_err(environment)?;
        let authority = self.authority(token, ca_file).await?;
        let [kubelet, network] = self.wanted();
        let kubelet = match self.kept(&kubelet, &authority).map_err(environment)? {
            Some(kept) => kept,
            None => {
                let boots = bootstraps(token, &authority)?;
                let made =
                    self.ask(&kubelet, self.server, boots, tell).await.map_err(environment)?;
                let known = kubelet.credentials(&made, &authority).map_err(environment)?;
                self.is_free(&known).await.map_err(environment)?;
                self.keep(&kubelet, &authority, &made).map_err(environment)?;
                known
            }
        };
        let network = match self.kept(&network, &authority).map_err(environment)? {
            Some(kept) => kept,
            None => {
                let by = kubelet.clone();
                let made = self.ask(&network, self.server, by, tell).await.map_err(environment)?;
                self.keep(&network, &authority, &made).map_err(environment)?;
                network.credentials(&made, &authority).map_err(environment)?
            }
        };
        Ok(Joined { kubelet, network })
    }

    pub fn wanted(&self) -> [Wanted; 2] {
        let [kubelet, network] = identities(&self.name);
        [
            Wanted { file: "kubelet.pem", signer: KUBELET, who: kubelet },
            Wanted { file: "network.pem", signer: NETWORK, who: network },
        ]
    }

    /// The cluster's authority, as PEM: without it anybody could be the server.
    async fn authority(
        &self,
        token: Option<&Token>,
        ca_file: Option<&Path>,
    ) -> Result<String, Failed> {
        let environment = |why| (Exit::Environment, why);
        let kept = self.authority_file();
        let pin = token.and_then(|token| token.authority);
        let path = match ca_file {
            Some(given) => given,
            None if kept.exists() => &kept,
            None => return self.shown(token, pin).await,
        };
        let authority = read(path).map_err(environment)?;
        let known = Pin::of(&authority).map_err(environment)?;
        match pin.filter(|pin| *pin != known) {
            None => Ok(authority),
            Some(pin) => Err(environment(format!(
                "the token is of a cluster whose authority is {pin}, and that in {} is {known}; \
                 --data-dir names another place for a node of another cluster",
                path.display()
            ))),
        }
    }

    /// The one of the token's, as the server shows it.
    async fn shown(&self, token: Option<&Token>, pin: Option<Pin>) -> Result<String, Failed> {
        let Some(pin) = pin else {
            let why = match token {
                None => UNKNOWN,
                Some(_) => {
                    "a token without @sha256:… does not say whose it is: --ca-file gives the \
                     cluster's authority, a copy of pki/ca.crt in the server's data directory"
                }
            };
            return Err((Exit::Input, why.to_owned()));
        };
        let der = pin.authority_at(self.server).await;
        let pem = der.and_then(|der| {
            let written = encode_string("CERTIFICATE", LineEnding::LF, &der);
            written.map_err(|error| format!("writing the cluster's authority: {error}"))
        });
        pem.map_err(|why| (Exit::Environment, why))
    }

    fn authority_file(&self) -> PathBuf {
        self.keys.join("ca.crt")
    }

    /// A certificate and its key, in one file, so that they are of one making; a machine that was
    /// given another name is another node.
    fn file(&self, wanted: &Wanted) -> PathBuf {
        self.keys.join(format!("{}.{}", self.name, wanted.file))
    }

    /// What an earlier life was given, unless its time is over.
    fn kept(&self, wanted: &Wanted, authority: &str) -> Result<Option<Credentials>, String> {
        let path = self.file(wanted);
        if !path.exists() {
            return Ok(None);
        }
        let made = read(&path)?;
        let (_, end) = validity(&made)?;
        if end <= now() {
            return Ok(None);
        }
        wanted.credentials(&made, authority).map(Some)
    }

    fn keep(&self, wanted: &Wanted, authority: &str, made: &str) -> Result<(), String> {
        pki::write(&self.authority_file(), authority)?;
        pki::write(&self.file(wanted), made)
    }

    /// When it is time to ask for others, since 1970: when two thirds of the time are over that
    /// the first one had when it was kept, or at once if that is not to be read.
    pub fn due(&self) -> Duration {
        let of = |wanted: &Wanted| {
            let path = self.file(wanted);
            let (_, to) = validity(&read(&path).ok()?).ok()?;
            let kept = path.metadata().and_then(|file| file.modified()).ok()?;
            let kept = kept.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(kept + to.saturating_sub(kept) * 2 / 3)
        };
        let [kubelet, network] = self.wanted();
        of(&kubelet).min(of(&network)).unwrap_or_default()
    }

    /// Others, for those who use these, from the server where it is now.
    pub async fn renew(
        &self,
        server: SocketAddrV4,
        joined: &Joined,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(), String> {
        let authority = read(&self.authority_file())?;
        for (wanted, known) in self.wanted().iter().zip([&joined.kubelet, &joined.network]) {
            let made = self.ask(wanted, server, joined.kubelet.clone(), tell).await?;
            self.keep(wanted, &authority, &made)?;
            known.renew(authority.as_bytes(), made.as_bytes(), made.as_bytes())?;
        }
        Ok(())
    }

    /// A certificate and its key, as PEM.
    async fn ask(
        &self,
        wanted: &Wanted,
        server: SocketAddrV4,
        by: Credentials,
        tell: &mut dyn FnMut(&str),
    ) -> Result<String, String> {
        let (key, request) = request(&wanted.who)?;
        let talk = Talk::new(server, by);
        let name = format!("kubesim-node-{}-{:016x}", self.name, seed());
        let asked = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "name": name },
            "spec": {
                "request": BASE64.encode(request), "signerName": wanted.signer,
                "usages": ["digital signature", "client auth"],
            },
        });
        let made = talk.client.post(REQUESTS, &asked).await;
        made.map_err(|error| talk.refused(&error.message))?;
        let (begun, mut told) = (Instant::now(), false);
        loop {
            sleep(LOOK).await;
            // A server that is away for a moment comes back.
            let seen = talk.client.get(&format!("{REQUESTS}/{name}")).await.unwrap_or_default();
            if let Some(certificate) = issued(&seen)? {
                return Ok(certificate + &key.serialize_pem());
            }
            if begun.elapsed() > TELL && !told {
                told = true;
                tell(&format!(
                    "waiting for its request to be approved: kubectl certificate approve {name}"
                ));
            }
        }
    }

    /// Whether no other machine is this node: one that lives renews its lease.
    async fn is_free(&self, by: &Credentials) -> Result<(), String> {
        let talk = Talk::new(self.server, by.clone());
        let path = format!("{LEASES}/{}", self.name);
        let renewed = async || match talk.client.get(&path).await {
            Ok(lease) => lease["spec"]["renewTime"].as_str().map(str::to_owned),
            Err(_) => None,
        };
        let Some(first) = renewed().await else { return Ok(()) };
        let begun = Instant::now();
        while begun.elapsed() < LIVES {
            sleep(LOOK).await;
            if renewed().await.is_some_and(|now| now != first) {
                return Err(format!(
                    "another machine is the node {:?}: its lease was renewed just now; --name \
                     gives this one another name",
                    self.name
                ));
            }
        }
        Ok(())
    }
}

impl Wanted {
    fn credentials(&self, made: &str, authority: &str) -> Result<Credentials, String> {
        let made = made.as_bytes();
        Credentials::new(self.who.agent, authority.as_bytes(), made, made)
    }
}

fn bootstraps(token: Option<&Token>, authority: &str) -> Result<Credentials, Failed> {
    let token = token.ok_or((Exit::Input, UNKNOWN.to_owned()))?;
    let bearing = Credentials::bearing("kubelet", authority.as_bytes(), &token.bearer);
    bearing.map_err(|why| (Exit::Input, format!("--token, --ca-file: {why}")))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
}

/// A key, and a request for a certificate of it, as PEM.
fn request(who: &Who) -> Result<(KeyPair, String), String> {
    let wrong = |error: rcgen::Error| format!("making a request for a certificate: {error}");
    let key = KeyPair::generate().map_err(wrong)?;
    let mut subject = DistinguishedName::new();
    for group in who.groups {
        subject.push(DnType::OrganizationName, *group);
    }
    subject.push(DnType::CommonName, who.user.as_ref());
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    let request = params.serialize_request(&key).and_then(|request| request.pem());
    Ok((key, request.map_err(wrong)?))
}

/// The certificate, once there is one; an error once there will be none.
fn issued(request: &Value) -> Result<Option<String>, String> {
    let status = &request["status"];
    let all = status["conditions"].as_array().into_iter().flatten();
    if let Some(why) =
        all.into_iter().find(|one| one["type"] == "Denied" || one["type"] == "Failed")
    {
        let (what, message) = (&why["type"], why["message"].as_str().unwrap_or_default());
        let what = what.as_str().unwrap_or_default().to_lowercase();
        return Err(format!("its request for a certificate was {what}: {message}"));
    }
    let text = status["certificate"].as_str().and_then(|text| BASE64.decode(text).ok());
    Ok(text.and_then(|bytes| String::from_utf8(bytes).ok()))
}

/// A connection to the server, which goes with the value.
pub(super) struct Talk {
    pub client: Client,
    runs: AbortHandle,
    /// What keeps it from its work.
    note: Rc<RefCell<String>>,
}

impl Talk {
    pub fn new(server: SocketAddrV4, credentials: Credentials) -> Talk {
        let note: Rc<RefCell<String>> = Rc::default();
        let noted = Rc::clone(&note);
        let client = Client::new(Options {
            addresses: vec![*server.ip()],
            port: server.port(),
            credentials,
            seed: seed(),
            notes: Box::new(move |text| *noted.borrow_mut() = text),
        });
        let runs = spawn_local(client.clone().run()).abort_handle();
        Talk { client, runs, note }
    }

    /// For people, and what to try.
    fn refused(&self, why: &str) -> String {
        let (why, note) = (why.trim_end(), self.note.borrow());
        let what = "asking for a certificate";
        if why.contains("Unauthorized") {
            return format!("{what}: the server does not know the token, or it has expired");
        }
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        format!("{what}: {why}{note}")
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.runs.abort();
    }
}
