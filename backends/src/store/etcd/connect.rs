//! Endpoints, one at a time, and what their errors mean.

use super::{Options, Tls};
use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use kubesim_runtime::{Backoff, Rng, Stream};
use smol_str::{SmolStr, format_smolstr};
use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
// gRPC's status codes by number (https://grpc.io/docs/guides/status-codes/).
const OUT_OF_RANGE: i32 = 11;
const NEVER_HAPPENED: [i32; 6] = [
    3,  // invalid argument: duplicate keys, too large
    7,  // permission denied
    8,  // resource exhausted: too many requests
    9,  // failed precondition
    11, // out of range: a revision
    16, // unauthenticated
];

/// Whether these are etcd's or its gRPC server's own words: tonic makes such codes of broken
/// streams, too. No space is left may be said of a transaction that is done: etcd applies it and
/// looks then (quotaApplierV3.Txn, etcdserver/apply.go).
fn is_refusal(message: &str) -> bool {
    let own = ["etcdserver: ", "grpc: received message larger"];
    own.iter().any(|own| message.starts_with(own)) && !message.contains("space exceeded")
}

/// How long to wait before an attempt after a failed one.
const AGAIN: Backoff = Backoff {
    initial: Duration::from_millis(50),
    max: Duration::from_secs(2),
    jitter: 0.5,
    reset_after: Duration::from_secs(10),
};

pub struct Connections {
    endpoints: Vec<String>,
    options: ConnectOptions,
    current: Cell<usize>,
    /// Rung when it is another one's turn.
    turned: Notify,
    client: RefCell<Option<Client>>,
    dice: RefCell<Rng>,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// It did not happen: in words.
    Refused(SmolStr),
    /// The same, of a revision that is compacted or not reached.
    Revision { compacted: bool },
    /// It may have happened.
    Unknown,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Connections {
    pub fn new(options: Options) -> Result<Connections, String> {
        let endpoints = options.endpoints;
        if endpoints.is_empty() {
            return Err("etcd: no endpoint is named: give one, as https://10.0.0.1:2379".into());
        }
        let scheme = if options.tls.is_some() { "https://" } else { "http://" };
        if let Some(other) = endpoints.iter().find(|endpoint| !endpoint.starts_with(scheme)) {
            let with = if options.tls.is_some() { "with" } else { "without" };
            return Err(format!("etcd: the endpoint {other} {with} TLS has to begin {scheme}"));
        }
        // etcd ends a connection that pings more often than every 5 s
        // (--grpc-keepalive-min-time), or while nothing is under way (PermitWithoutStream).
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(2))
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        if let Some(tls) = options.tls {
            connect = connect.with_tls(to_tls(tls));
        }
        if let Some((name, password)) = options.user {
            connect = connect.with_user(name, password).with_auto_token_refresh(true);
        }
        let seed = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        let dice = Rng::new(Stream {
            seed,
            label: "etcd",
            index: u64::from(std::process::id()),
            incarnation: 0,
        });
        Ok(Connections {
            endpoints,
            options: connect,
            current: Cell::new(0),
            turned: Notify::new(),
            client: RefCell::new(None),
            dice: RefCell::new(dice),
        })
    }

    /// The current endpoint's, for [`Connections::failed`].
    pub fn number(&self) -> usize {
        self.current.get()
    }

    /// The current endpoint's, and its number.
    pub async fn client(&self) -> Result<(usize, Client), Error> {
        let number = self.current.get();
        if let Some(client) = &*self.client.borrow() {
            return Ok((number, client.clone()));
        }
        let endpoint = &self.endpoints[number % self.endpoints.len()];
        let client = Client::connect([endpoint], Some(self.options.clone())).await?;
        if self.current.get() == number {
            *self.client.borrow_mut() = Some(client.clone());
        }
        Ok((number, client))
    }

    /// It does not answer: the next one's turn, unless somebody else said so already.
    pub fn failed(&self, number: usize) {
        if self.current.get() == number {
            self.current.set(number.wrapping_add(1));
            *self.client.borrow_mut() = None;
            self.turned.notify_waiters();
        }
    }

    /// Until somebody finds that this endpoint does not answer. Of one that fell silent, without a
    /// word to its clients' kernels, a request hears sooner than a stream, which asks for a sign of
    /// life every 10 s.
    pub async fn given_up(&self, number: usize) {
        loop {
            let turned = self.turned.notified();
            if self.current.get() != number {
                return;
            }
            turned.await;
        }
    }

    pub async fn pause(&self, failures: u32) {
        let delay = AGAIN.delay(failures, &mut self.dice.borrow_mut());
        sleep(delay).await;
    }

    /// Asked once.
    pub async fn once<R>(
        &self,
        deadline: Instant,
        ask: impl AsyncFnOnce(Client) -> Result<R, Error>,
    ) -> Result<R, Failure> {
        let number = self.current.get();
        let asked = async {
            let (_, client) = self.client().await?;
            ask(client).await
        };
        match timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let failure = of_error(&error);
                if matches!(failure, Failure::Unknown) {
                    self.failed(number);
                }
                Err(failure)
            }
            Err(_) => {
                self.failed(number);
                Err(Failure::Unknown)
            }
        }
    }

    /// Asked until it is answered or refused, as it only reads. An endpoint that says nothing is
    /// given up after a part of the time.
    pub async fn until<R>(
        &self,
        within: Duration,
        mut ask: impl AsyncFnMut(Client) -> Result<R, Error>,
    ) -> Result<R, Failure> {
        let end = Instant::now() + within;
        let tries = async {
            for failures in 1.. {
                let soon = Instant::now() + within / 3;
                match self.once(soon, &mut ask).await {
                    Err(Failure::Unknown) => self.pause(failures).await,
                    done => return done,
                }
            }
            Err(Failure::Unknown)
        };
        timeout(end - Instant::now(), tries).await.unwrap_or(Err(Failure::Unknown))
    }
}

fn to_tls(Tls { ca, identity, server_name }: Tls) -> TlsOptions {
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = server_name {
        tls = tls.domain_name(name);
    }
    tls
}

/// Only what etcd itself says for certain is a refusal.
pub fn of_error(error: &Error) -> Failure {
    let status = match error {
        Error::GRpcStatus(status) => status,
        Error::InvalidArgs(why) => return Failure::Refused(format_smolstr!("etcd: {why}")),
        Error::InvalidUri(why) => return Failure::Refused(format_smolstr!("etcd: {why}")),
        _ => return Failure::Unknown,
    };
    let code = status.code() as i32;
    // api/v3rpc/rpctypes/error.go: ErrGRPCCompacted, ErrGRPCFutureRev.
    if code == OUT_OF_RANGE && status.message().contains("has been compacted") {
        return Failure::Revision { compacted: true };
    }
    if code == OUT_OF_RANGE && status.message().contains("is a future revision") {
        return Failure::Revision { compacted: false };
    }
    if NEVER_HAPPENED.contains(&code) && is_refusal(status.message()) {
        return Failure::Refused(format_smolstr!("etcd refuses: {}", status.message()));
    }
    Failure::Unknown
}

#[cfg(test)]
mod tests {
    use super::is_refusal;

    #[test]
    fn only_what_surely_did_not_happen_is_refused() {
        assert!(is_refusal("etcdserver: permission denied"));
        assert!(is_refusal("etcdserver: duplicate key given in txn request"));
        assert!(!is_refusal("etcdserver: mvcc: database space exceeded"));
        assert!(!is_refusal("h2 protocol error: error reading a body from connection"));
    }
}
